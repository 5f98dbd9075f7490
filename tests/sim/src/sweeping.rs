//! Those who take away: trim, the minimal sweeper of DESIGN §7, and who brings back a process that met damage.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::TryStreamExt;
use object_store::{ObjectStore, ObjectStoreExt};
use tidelog_core::Error;
use tidelog_core::ledger::action::{Action, Floor, TrimTo};
use tidelog_core::objects::ObjectName;

use crate::cast::Cast;
use crate::clock::sleep_ms;
use crate::rng::Rng;

/// How long a reader may hold a view: longer than any freeze.
const READ_LAG_MS: u64 = 300_000;

/// Moves log starts, to any offset.
pub async fn trimmer(cast: Arc<Cast>, mut rng: Rng) {
    while !cast.world.is_stopped() {
        sleep_ms(rng.between(300, 6_000)).await;
        let place = cast.some_place(&mut rng);
        let Some((gate, log)) = cast.some_process(&mut rng).running() else { continue };
        let found = log.ledger().chain().view(|view| {
            let (topic, _, p) = view.partition_or_unknown(&place.0, place.1)?;
            Ok::<_, Error>((topic, p.log_start, p.next))
        });
        let Ok(Ok((topic, start, end))) = found else { continue };
        if start == end {
            continue;
        }
        let log_start = start + 1 + rng.below((end - start) / 2);
        cast.oracle().trim_begins(&place, log_start);
        let trim = Action::Trim(vec![TrimTo { topic, partition: place.1, log_start }]);
        match gate.ask(log.ledger().act(trim)).await {
            Some(Ok(_)) => {
                cast.world.saw("trim", "none", "committed");
                cast.oracle().trimmed(&place, log_start);
            }
            // One before it was unknown, or another process was further on.
            Some(Err(Error::Superseded { .. })) => cast.world.saw("trim", "none", "superseded"),
            Some(Err(error)) => cast.refused(&gate.name, &place, &error),
            None => {}
        }
    }
}

/// Commits a floor, then deletes objects drawn below it that no view from there on names. Without the lag of a real
/// sweep: the floor alone must be enough.
pub async fn sweeper(cast: Arc<Cast>, mut rng: Rng) {
    let mut seen: Vec<(u64, u64)> = Vec::new();
    while !cast.world.is_stopped() {
        sleep_ms(rng.between(300, 6_000)).await;
        let Some((gate, log)) = cast.some_process(&mut rng).running() else { continue };
        let chain = log.ledger().chain();
        let back = rng.pick(&[0, 0, 3, 20]);
        let Ok(floor) = chain.view(|view| view.slot.saturating_sub(back).max(view.floor)) else { continue };
        let now_ms = cast.world.clock.ms();
        seen.push((now_ms, floor));
        // What died longer ago than any reader holds a view.
        let forget =
            seen.iter().rfind(|(at_ms, _)| at_ms + READ_LAG_MS <= now_ms).map_or(0, |(_, slot)| *slot);
        let named = async {
            log.ledger().act(Action::Floor(Floor { floor, forget })).await?;
            let named = |view: &tidelog_core::ledger::view::View| {
                let dead = view.dead.iter().map(|dead| &dead.object);
                let all = view.objects.keys().chain(dead);
                all.map(|object| ObjectName::from(object).to_string()).collect::<BTreeSet<_>>()
            };
            chain.fresh_view(chain.tick(), named).await
        };
        let named = match gate.ask(named).await {
            Some(Ok(named)) => named,
            Some(Err(Error::Superseded { .. })) | None => continue,
            Some(Err(error)) => {
                cast.refused(&gate.name, &cast.places()[0], &error);
                continue;
            }
        };
        cast.world.saw("floor", "none", "committed");
        let listed: Vec<_> = cast.world.objects.list(None).try_collect().await.unwrap_or_default();
        for object in listed {
            let mut parts = object.location.as_ref().split('/');
            let drawn = (parts.next() == Some("l0")).then(|| parts.nth(2)).flatten();
            let drawn = drawn.and_then(|drawn| u64::from_str_radix(drawn, 16).ok());
            if drawn.is_some_and(|drawn| drawn < floor) && !named.contains(object.location.as_ref()) {
                cast.world.note(&gate.name, || format!("sweeps {}", object.location));
                cast.world.saw("sweep", "none", "deleted");
                let _ = cast.world.objects.delete(&object.location).await;
            }
        }
    }
}

/// Ends and starts again whoever refuses its ledger, which only an item that was read damaged explains.
pub async fn medic(cast: Arc<Cast>) {
    while !cast.world.is_stopped() {
        sleep_ms(1_000).await;
        for number in 0..cast.processes.len() {
            restart_poisoned(&cast, number).await;
        }
    }
}

/// One process, if it refuses its ledger.
pub async fn restart_poisoned(cast: &Cast, number: usize) {
    let process = &cast.processes[number];
    let Some((gate, log)) = process.running() else { return };
    if let Err(error) = log.ledger().chain().view(|_| ()) {
        cast.refused(&gate.name, &cast.places()[0], &error);
        cast.world.saw("process", "bit flipped", "refused, restarted");
        process.crash();
        let (process, oracle) = (process.clone(), cast.oracle.clone());
        // Goes on when the storm is over and its actors are ended.
        tokio::spawn(async move { process.start(0, false, &oracle).await });
    }
}
