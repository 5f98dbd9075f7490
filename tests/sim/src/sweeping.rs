//! Those who move and take away: merge, trim, retention, sweep; and who brings back a process that met damage.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join;
use tidelog_core::ledger::action::{Action, TrimTo};
use tidelog_core::objects::ObjectName;
use tidelog_core::upkeep::{Deletion, Reason, Sweep, Swept, Trim, Why};
use tidelog_core::{Error, Log, Upkeep, UpkeepSettings};

use crate::cast::{Cast, TIMED};
use crate::clock::{Gate, sleep_ms};
use crate::process::Process;
use crate::rng::Rng;

/// More than a record takes in a merged segment, alone in its row group.
const RECORD_BYTES_MAX: u64 = 2_048;

/// Moves log starts, to any offset.
pub async fn trimmer(cast: Arc<Cast>, mut rng: Rng) {
    while !cast.world.is_stopped() {
        sleep_ms(rng.between(300, 6_000)).await;
        let Some((gate, log)) = cast.some_process(&mut rng).running() else { continue };
        // Now and then all there is: merged segments go whole, which seldom end where a trim does.
        let all = rng.chance(200);
        trim(&cast, &mut rng, &gate, &log, all).await;
    }
}

async fn trim(cast: &Cast, rng: &mut Rng, gate: &Gate, log: &Log, all: bool) {
    let place = cast.some_place(rng);
    let found = log.ledger().chain().view(|view| {
        let (topic, _, p) = view.partition_or_unknown(&place.0, place.1)?;
        Ok::<_, Error>((topic, p.log_start, p.next))
    });
    let Ok(Ok((topic, start, end))) = found else { return };
    if start == end {
        return;
    }
    let log_start = if all { end } else { start + 1 + rng.below((end - start) / 2) };
    cast.oracle().trim_begins(&place, log_start);
    let trim =
        Action::Trim(vec![TrimTo { topic, partition: place.1, log_start, oldest_ms: 0, oldest_bytes: 0 }]);
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

/// Trims what the topic's retention lets go, in any process.
pub async fn retention(cast: Arc<Cast>, mut rng: Rng) {
    let plan = &cast.world.plan;
    // Where answers carry no date, a clock is only as good as its process's.
    let slack_ms = if plan.store_clock { 10_000 } else { 2 * plan.skew_ms_max + 10_000 };
    while !cast.world.is_stopped() {
        sleep_ms(rng.between(500, 8_000)).await;
        let judge = |who: &str, trim: &Trim| {
            let place = (trim.topic.clone(), trim.partition);
            match trim.why {
                Why::Age { .. } => {
                    let young_ms = cast.world.clock.wall_ms() - plan.retention_ms + slack_ms as i64;
                    cast.oracle().retained(who, &place, trim.to, young_ms * 1_000);
                }
                Why::Size { .. } => {
                    let kept = (trim.end.saturating_sub(trim.to)) * RECORD_BYTES_MAX;
                    cast.oracle().kept(who, &place, kept, plan.retention_bytes);
                }
            }
        };
        if rng.chance(150) {
            a_month_ahead(&cast, judge).await;
            continue;
        }
        let Some((gate, log)) = cast.some_process(&mut rng).running() else { continue };
        let upkeep = log.upkeep(UpkeepSettings::default());
        let trimmed = async {
            let overdue = upkeep.overdue().await?;
            for trim in &overdue.trims {
                cast.oracle().trim_begins(&(trim.topic.clone(), trim.partition), trim.to);
                judge(&gate.name, trim);
            }
            upkeep.trim(&overdue.trims).await?;
            Ok::<_, Error>(overdue.trims)
        };
        match gate.ask(trimmed).await {
            Some(Ok(trims)) => {
                for trim in trims {
                    let what = match trim.why {
                        Why::Age { .. } => "committed",
                        Why::Size { .. } => "committed, by size",
                    };
                    cast.world.saw("retention", "none", what);
                    cast.oracle().trimmed(&(trim.topic, trim.partition), trim.to);
                }
            }
            Some(Err(error)) => cast.refused(&gate.name, &(TIMED.into(), 0), &error),
            None => {}
        }
    }
}

/// A process whose clock is a month ahead plans to trim. It only plans: what it would commit would be dated by its clock.
async fn a_month_ahead(cast: &Cast, judge: impl Fn(&str, &Trim)) {
    let process = Process::new(cast.world.clone(), "ahead");
    process.start(30 * 86_400_000, false, &cast.oracle).await;
    let Some((gate, log)) = process.running() else { return };
    match gate.ask(log.upkeep(UpkeepSettings::default()).overdue()).await {
        Some(Ok(overdue)) => {
            overdue.trims.iter().for_each(|trim| judge(&gate.name, trim));
            let answer = if overdue.held.is_empty() { "nothing held" } else { "held" };
            cast.world.saw("retention", "clock ahead", answer);
        }
        Some(Err(error)) => cast.refused(&gate.name, &(TIMED.into(), 0), &error),
        None => {}
    }
    process.crash();
}

/// Makes large merged segments of small ones, in any process; two of them at once.
pub async fn rewriter(cast: Arc<Cast>, mut rng: Rng) {
    while !cast.world.is_stopped() {
        sleep_ms(rng.between(500, 5_000)).await;
        let Some((gate, log)) = cast.some_process(&mut rng).running() else { continue };
        // In parts, or in one.
        let part_bytes = rng.pick(&[4_000, 8_000, UpkeepSettings::default().part_bytes]);
        rewrite(&cast, &gate, log.upkeep(UpkeepSettings { part_bytes, ..UpkeepSettings::default() })).await;
    }
}

async fn rewrite(cast: &Cast, gate: &Gate, upkeep: Upkeep) {
    match gate.ask(upkeep.rewrite(true, |_| {})).await {
        Some(Ok(rewritten)) => {
            let outcome = match rewritten.objects {
                1.. => "rewritten",
                0 => "nothing to do",
            };
            cast.world.saw("rewrite", "none", outcome);
            cast.world.note(&gate.name, || format!("rewrites: {rewritten:?}"));
        }
        Some(Err(error)) => cast.refused(&gate.name, &cast.places()[0], &error),
        None => {}
    }
}

/// Merges all there is, in any process; two of them at once.
pub async fn merger(cast: Arc<Cast>, mut rng: Rng) {
    while !cast.world.is_stopped() {
        sleep_ms(rng.between(200, 5_000)).await;
        let Some((gate, log)) = cast.some_process(&mut rng).running() else { continue };
        let upkeep = log.upkeep(UpkeepSettings::default());
        match gate.ask(upkeep.merge(true, |_, _| {})).await {
            Some(Ok(merged)) => {
                let outcome = match (merged.folds, merged.rows, merged.damage.len()) {
                    (_, _, 1..) => "damage told",
                    (1.., _, _) => "folded",
                    (0, 1.., _) => "indexed for others",
                    _ => "nothing to do",
                };
                cast.world.saw("merge", "none", outcome);
                cast.world.note(&gate.name, || format!("merges: {merged:?}"));
            }
            Some(Err(error)) => cast.refused(&gate.name, &cast.places()[0], &error),
            None => {}
        }
        // What it put and lost its race with.
        if rng.chance(100) {
            sweep(
                &cast,
                &gate,
                &upkeep.with_settings(sweeps(0)),
                Sweep::LetGo,
                "deleted by name, lost its race",
            )
            .await;
        }
    }
}

/// Deletes index rows below log starts, in any process.
pub async fn row_trimmer(cast: Arc<Cast>, mut rng: Rng) {
    while !cast.world.is_stopped() {
        sleep_ms(rng.between(200, 3_000)).await;
        let Some((gate, log)) = cast.some_process(&mut rng).running() else { continue };
        // Never at once: what is deleted was marked before, and the world holds it to that.
        let read_lag_ms = rng.pick(&[1, 1, 5_000, 60_000]);
        let upkeep = log.upkeep(UpkeepSettings { read_lag_ms, ..UpkeepSettings::default() });
        // Often stopped in the middle, between the look at a row and its end: what is written there meanwhile must stay.
        let (stops, after_ms, for_ms) =
            (rng.chance(800), rng.below(3 * cast.world.plan.latency_ms), rng.between(100, 5_000));
        let other = cast.some_process(&mut rng).running().filter(|_| rng.chance(800));
        if stops {
            if rng.chance(100) {
                trim(&cast, &mut rng, &gate, &log, true).await;
            }
            // What it marks now is due then.
            match gate.ask(upkeep.trim_rows()).await {
                Some(Ok(_)) => sleep_ms(5).await,
                Some(Err(error)) => cast.refused(&gate.name, &cast.places()[0], &error),
                None => continue,
            }
        }
        let stop = async {
            if stops {
                sleep_ms(after_ms).await;
                gate.freeze(for_ms);
                if let Some((gate, log)) = other {
                    rewrite(&cast, &gate, log.upkeep(UpkeepSettings::default())).await;
                }
            }
        };
        match join(gate.ask(upkeep.trim_rows()), stop).await.0 {
            Some(Ok(0)) | None => {}
            Some(Ok(_)) => cast.world.saw("trim", "none", "rows deleted"),
            Some(Err(error)) => cast.refused(&gate.name, &cast.places()[0], &error),
        }
        // What these rows named, and what is dead.
        sweep(&cast, &gate, &upkeep.with_settings(sweeps(0)), Sweep::LetGo, "deleted by name, trimmed").await;
    }
}

/// Without the lag of a real sweep: the floor alone must be enough. What died is kept for longer than any freeze.
fn sweeps(sweep_lag_ms: u64) -> UpkeepSettings {
    UpkeepSettings { sweep_lag_ms, read_lag_ms: 300_000, ..UpkeepSettings::default() }
}

/// Sweeps all there is, in any process; two of them at once. Now and then without the time for it: in parts, from anywhere on.
pub async fn sweeper(cast: Arc<Cast>, mut rng: Rng) {
    while !cast.world.is_stopped() {
        sleep_ms(rng.between(300, 6_000)).await;
        let Some((gate, log)) = cast.some_process(&mut rng).running() else { continue };
        let settings = sweeps(rng.pick(&[0, 0, 1_000, 20_000]));
        if rng.chance(700) {
            sweep(&cast, &gate, &log.upkeep(settings), Sweep::Whole, "").await;
            continue;
        }
        let list_page = rng.pick(&[1, 3, 10]);
        let hurried = log.upkeep(UpkeepSettings { list_page, ..settings }).within(Duration::ZERO);
        for _ in 0..rng.between(2, 6) {
            match sweep(&cast, &gate, &hurried, Sweep::Whole, "").await {
                Some(swept) if swept.more => cast.world.saw("sweep", "none", "stopped in the middle"),
                Some(_) => cast.world.saw("sweep", "none", "came to the end in parts"),
                None => break,
            }
            sleep_ms(rng.below(500)).await;
        }
    }
}

/// `unnamed`: what a merged segment is to whoever deletes it by name, though no commit let it go.
async fn sweep(
    cast: &Cast,
    gate: &Gate,
    upkeep: &Upkeep,
    among: Sweep,
    unnamed: &'static str,
) -> Option<Swept> {
    let tell = |deletion: &Deletion| {
        cast.world.note(&gate.name, || format!("sweeps {} {:?}", deletion.name, deletion.why));
        let kind = match (among, &deletion.name, deletion.why) {
            (Sweep::LetGo, ObjectName::L0 { .. }, _) => "deleted by name, not merged",
            (Sweep::LetGo, ObjectName::L1 { .. }, Reason::Dead { .. }) => "deleted by name, rewritten",
            (Sweep::LetGo, ObjectName::L1 { .. }, _) => unnamed,
            (_, _, Reason::Dead { .. }) => "deleted, dead",
            (_, _, Reason::Orphan { .. }) => "deleted, orphan",
            (_, _, Reason::OldCheckpoint { .. }) => "deleted, checkpoint",
            (_, _, Reason::HalfWritten) => "deleted, half-written",
            (_, _, Reason::TopicDeleted) => "deleted, of a deleted topic",
        };
        cast.world.saw("sweep", "none", kind);
    };
    match gate.ask(upkeep.sweep(among, tell)).await? {
        Ok(swept) => Some(swept),
        Err(error) => {
            cast.refused(&gate.name, &cast.places()[0], &error);
            None
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
