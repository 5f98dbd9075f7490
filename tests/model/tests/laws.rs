//! Every state of four small worlds, and the mistakes that are found in them.

#![allow(clippy::unwrap_used, reason = "a test")]

use stateright::{Checker, HasDiscoveries, Model};
use tidelog_model::{Bug, FAR, Tidelog};

const SMALL: Tidelog = Tidelog {
    writers: 2,
    acked: 2,
    lossy: false,
    mergers: 0,
    reads: false,
    commits: 9,
    objects: 5,
    sweeps: 1,
    bug: None,
};
/// Writers whose answers get lost, beside a sweeper: slots and the floor.
const WRITING: Tidelog = Tidelog { acked: 0, lossy: true, commits: 4, objects: 4, ..SMALL };
/// A late writer beside two mergers and a sweeper.
const FOLDING: Tidelog = Tidelog { writers: 3, mergers: 2, commits: 7, ..SMALL };
/// Two mergers at once and a sweeper: folds, rows, rewrites.
const MERGING: Tidelog = Tidelog { mergers: 2, ..SMALL };
/// A reader in the middle of it.
const READING: Tidelog = Tidelog { mergers: 1, reads: true, ..SMALL };

const STATES_MIN: usize = 100_000;

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

#[test]
fn the_laws_hold_in_every_state() {
    let mut states = 0;
    for (name, world) in
        [("writing", WRITING), ("folding", FOLDING), ("merging", MERGING), ("reading", READING)]
    {
        let checker = world.checker().threads(threads()).spawn_bfs().join();
        println!("{name}: {} states, {} steps deep", checker.unique_state_count(), checker.max_depth());
        let broken = checker.discoveries().into_iter().find(|(law, _)| *law != FAR);
        assert!(broken.is_none(), "{name}: {:?}", broken.map(|(law, path)| (law, path.into_actions())));
        if matches!(name, "merging" | "reading") {
            assert!(checker.discovery(FAR).is_some(), "{name}: the world never gets far");
        }
        states += checker.unique_state_count();
    }
    assert!(states >= STATES_MIN, "{states} states are too small a world");
}

#[test]
fn every_mistake_is_found() {
    let mistakes = [
        (Bug::OneAbsentReadDecides, WRITING),
        (Bug::NoFloor, WRITING),
        (Bug::FloorIgnored, WRITING),
        (Bug::ViewBeforeFloor, FOLDING),
        (Bug::RowsBeforeView, MERGING),
        (Bug::RowsBeforeFold, MERGING),
        (Bug::LateRowWins, MERGING),
        (Bug::FoldedAlready, MERGING),
        (Bug::RewriteNotCarried, MERGING),
        (Bug::ReaderJoins, READING),
        (Bug::DeadSweptAtOnce, READING),
        (Bug::DeadOfTheFirstView, READING),
        (Bug::ListWithoutRewrites, READING),
    ];
    for (bug, world) in mistakes {
        let world = Tidelog { bug: Some(bug), ..world };
        // Breadth first: the shortest way to a broken law, and no further.
        let checker =
            world.checker().threads(threads()).finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
        let found = checker.discoveries().into_iter().find(|(law, _)| *law != FAR);
        let (law, path) = found.unwrap_or_else(|| panic!("{bug:?} breaks no law"));
        println!("{bug:?}: {law}; {:?}", path.into_actions());
    }
}
