//! The second era: the table is lost, and the log goes on from a copy of it (R10), beside a process of the old era that
//! nobody stopped.

use std::sync::Arc;

use futures::future::{join, join_all};
use tidelog_core::objects::Objects;
use tidelog_core::restore::{Options, Step, restore};
use tidelog_core::store::{Place, Store, StoreUrl};
use tidelog_core::upkeep::Sweep;
use tidelog_core::{Error, ErrorKind, UpkeepSettings};

use crate::cast::{Cast, TOPIC};
use crate::clock::{Gate, SimEnv, sleep_ms, within};
use crate::process::Process;
use crate::rng::Rng;
use crate::store::SimStore;
use crate::table::SimTable;
use crate::upkeep::skew;

/// Runs of one restorer after which the weather is calm.
const STORMY_RUNS: u32 = 10;
/// Runs after which it should have been done.
const RUNS_MAX: u32 = 30;
/// Virtual time after which a run has hung, ms.
const RUN_MS_MAX: u64 = 120_000;

/// All processes but one end, two restorers race, and the processes come back in the new era. `None`: it was not restored.
/// Answers the one that stays in the old era.
pub async fn second(cast: &Arc<Cast>) -> Option<Arc<Process>> {
    let old = Process::of_old_era(cast.world.clone(), "old");
    old.start(0, false, &cast.oracle).await;
    cast.processes.iter().for_each(|process| process.crash());
    cast.world.copy_table().await;
    cast.world.note("", || "the table is copied".into());
    cast.world.set_faulty(true);
    let restorers: Vec<_> =
        (0..2).map(|number| tokio::spawn(restorer(cast.clone(), cast.world.fork(), number))).collect();
    let restored = join_all(restorers).await.into_iter().all(|restored| restored.unwrap_or(false));
    cast.world.set_faulty(false);
    if !restored {
        return None;
    }
    cast.world.go_on();
    let mut rng = cast.world.fork();
    for process in &cast.processes {
        process.start(skew(&mut rng, cast.world.plan.skew_ms_max), false, &cast.oracle).await;
    }
    Some(old)
}

/// Restores until that is done, and is stopped or killed in between.
async fn restorer(cast: Arc<Cast>, mut rng: Rng, number: u32) -> bool {
    let world = &cast.world;
    for run in 0..RUNS_MAX {
        if run == STORMY_RUNS {
            world.set_faulty(false);
        }
        let gate = Gate::new(format!("r{number}.{run}"), world.clock, skew(&mut rng, world.plan.skew_ms_max));
        let env = SimEnv::new(world.clock, gate.clone(), world.fork());
        let table = SimTable::new(world.clone(), gate.clone(), 1);
        let objects = Objects::new(SimStore::new(world.clone(), gate.clone()), env.clone());
        let store = Store { table, objects, url: StoreUrl { place: Place::Memory, era: 0 } };
        let (blow, after_ms, for_ms) =
            (rng.below(3), rng.below(200 * world.plan.latency_ms), rng.between(100, 10_000));
        let nemesis = async {
            sleep_ms(after_ms).await;
            match blow {
                _ if run >= STORMY_RUNS => {}
                0 => gate.kill(),
                1 => gate.freeze(for_ms),
                _ => {}
            }
        };
        // Often with the rows of one partition copied and not of all.
        let ends_among_rows = run < STORMY_RUNS && rng.chance(300);
        let told = |step| {
            if ends_among_rows && matches!(step, Step::Rows(_)) {
                gate.kill();
            }
        };
        // Whoever runs it gives up on one that hangs, as verifying does on a request that is never answered.
        let run_of = within(RUN_MS_MAX, restore(&store, env, 1, Options::default(), told));
        let (restored, ()) = join(gate.ask(run_of), nemesis).await;
        let Some(restored) = restored.flatten() else {
            world.saw("restore", "none", "killed");
            continue;
        };
        match restored {
            Ok(restored) if restored.begins > 0 => {
                world.saw("restore", "none", if restored.report.is_some() { "done" } else { "was done" });
                world.note(&gate.name, || format!("restores: {restored:?}"));
                return true;
            }
            Ok(restored) => {
                let damage = restored.report.map(|report| report.damage);
                cast.oracle().violation(format!("{} finds damage in what is whole: {damage:?}", gate.name));
                return false;
            }
            Err(error)
                if error.kind() == ErrorKind::Retry
                    || matches!(error, Error::CannotOpen { .. }) && world.plan.write_fault_rate > 0 =>
            {
                world.note(&gate.name, || format!("does not restore: {error}"));
                sleep_ms(rng.between(100, 1_000)).await;
            }
            Err(error) => {
                cast.oracle().violation(format!("{} cannot restore: {error}", gate.name));
                return false;
            }
        }
    }
    cast.oracle().violation(format!("r{number} does not come to an end"));
    false
}

/// A process that goes on in the old era, by the old table, and sweeps. It should have been denied that; what the new era
/// has written it leaves alone all the same. It makes no checkpoints: those that it would let go, the copy needs.
pub async fn old_sweeper(cast: Arc<Cast>, mut rng: Rng, process: Arc<Process>) {
    let mut offset = 0;
    while !cast.world.is_stopped() {
        sleep_ms(rng.between(100, 2_000)).await;
        let Some((gate, log)) = process.running() else { continue };
        let upkeep =
            log.upkeep(UpkeepSettings { sweep_lag_ms: 0, read_lag_ms: 300_000, ..UpkeepSettings::default() });
        // Its chain moves, or there would be nothing to sweep.
        offset += 1;
        let swept = async {
            log.admin().store_offsets("old", TOPIC, &[(0, Some(offset))]).await?;
            upkeep.sweep(Sweep::Whole, |_| {}).await
        };
        match gate.ask(swept).await {
            Some(Ok(_)) => cast.world.saw("sweep", "none", "by the old era"),
            Some(Err(Error::Unavailable { .. } | Error::Unknown { .. })) | None => {}
            Some(Err(error)) => cast.refused(&gate.name, &cast.places()[0], &error),
        }
    }
}
