//! One seed: set up, storm, heal, judge.

use std::cell::RefCell;
use std::sync::{Arc, Mutex, Once};

use futures::TryStreamExt;
use futures::future::{BoxFuture, join_all};
use object_store::{ObjectMeta, ObjectStore};
use tidelog_core::fetch::FetchLimits;
use tidelog_core::ledger::action::IdentityKind;
use tidelog_core::ledger::checkpoint;
use tidelog_core::plant::{self, Bug};
use tidelog_core::topic::{COMPRESSION_TYPE, MESSAGE_TIMESTAMP_TYPE, RETENTION_BYTES, RETENTION_MS};
use tidelog_core::upkeep::Sweep;
use tidelog_core::{Error, Log, Position, Record, UpkeepSettings};

use crate::cast::{Cast, TIMED, TOPIC};
use crate::clock::{sleep_ms, within};
use crate::identities::Forgotten;
use crate::oracle::{Oracle, Place};
use crate::process::Process;
use crate::world::{Coverage, Plan, World, is_of_rows};
use crate::{era, identities, members, readers, senders, sweeping, upkeep};

/// Virtual time in which all senders must have come to an end, ms.
const STORM_MS_MAX: u64 = 2 * 3_600_000;
/// Virtual time after which a healed log takes a record, ms.
const HEALED_SEND_MS: u64 = 120_000;
/// Virtual time after which nothing that was sent is under way any more, ms.
const QUIET_MS: u64 = 60_000;

/// What came of a seed.
#[derive(Debug, Default)]
pub struct Verdict {
    /// Broken promises.
    pub violations: Vec<String>,
    /// Every request, fault and answer, if it was asked for.
    pub trace: String,
    /// What was seen.
    pub coverage: Coverage,
    /// Records sent and acked.
    pub sent: usize,
    /// Of them acked.
    pub acked: usize,
}

thread_local! {
    static PANICS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// A panic anywhere in the seed is a violation, also one in a task that nobody waits for.
fn watch_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        std::panic::set_hook(Box::new(|info| {
            PANICS.with_borrow_mut(|all| {
                all.push(info.to_string());
                // One on top of another may end the run: then these are the last words.
                if all.len() > 1 {
                    eprintln!("{}", all.join("\n"));
                }
            });
        }));
    });
}

/// Runs one seed on this thread, perhaps with a bug planted.
pub fn run(seed: u64, bug: Option<Bug>, traced: bool) -> Verdict {
    watch_panics();
    PANICS.take();
    plant::set(bug);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime on this thread needs nothing");
    let (world, oracle) = runtime.block_on(async {
        let world = World::new(seed, traced);
        let oracle = Arc::new(Mutex::new(Oracle::default()));
        let story = tokio::spawn(story(world.clone(), oracle.clone()));
        // A panic is in the list already.
        let _ = story.await;
        (world, oracle)
    });
    drop(runtime);
    plant::set(None);
    let (trace, coverage) = world.account();
    let oracle = match oracle.lock() {
        Ok(oracle) => oracle,
        Err(poisoned) => poisoned.into_inner(),
    };
    let mut violations = oracle.violations().to_vec();
    violations.extend(world.violations());
    violations.extend(PANICS.take().into_iter().map(|words| format!("panic: {words}")));
    let (sent, acked) = oracle.counts();
    Verdict { violations, trace, coverage, sent, acked }
}

async fn story(world: Arc<World>, oracle: Arc<Mutex<Oracle>>) {
    let processes: Vec<_> =
        (0..world.plan.processes).map(|number| Process::new(world.clone(), format!("p{number}"))).collect();
    let cast = Arc::new(Cast::new(world.clone(), processes, oracle));
    let forgotten = set_up(&cast).await;
    world.set_faulty(true);
    storm(&cast, world.plan.sends, Some(forgotten), None).await;
    world.set_faulty(false);
    world.note("", || "the storm is over".into());
    heal(&cast).await;
    if world.plan.second_era {
        let Some(old) = era::second(&cast).await else { return };
        world.set_faulty(true);
        storm(&cast, world.plan.sends / 3, None, Some(old)).await;
        world.set_faulty(false);
        world.note("", || "the second storm is over".into());
        heal(&cast).await;
    }
    let caretaker = caretaker(&cast).await;
    if let Some(log) = &caretaker {
        sweep_all(&cast, log).await;
    }
    judge(&cast).await;
    if let Some(log) = &caretaker {
        forget(&cast, log).await;
        drain(&cast, log).await;
    }
}

async fn set_up(cast: &Arc<Cast>) -> Forgotten {
    let mut rng = cast.world.fork();
    for (number, process) in cast.processes.iter().enumerate() {
        let skew = upkeep::skew(&mut rng, cast.world.plan.skew_ms_max);
        process.start(skew, number == 0, &cast.oracle).await;
    }
    let (_, log) = cast.processes[0].log().await;
    let Plan { retention_ms, retention_bytes, compression, partitions, .. } = cast.world.plan;
    let set = |key: &str, value: &dyn std::fmt::Display| (key.to_owned(), value.to_string());
    let logs = [set(COMPRESSION_TYPE, &compression)];
    let timed = [
        set(COMPRESSION_TYPE, &compression),
        set(MESSAGE_TIMESTAMP_TYPE, &"LogAppendTime"),
        set(RETENTION_MS, &retention_ms),
        set(RETENTION_BYTES, &retention_bytes),
    ];
    let (logs, timed) = (
        log.admin().create_topic(TOPIC, partitions, &logs).await,
        log.admin().create_topic(TIMED, 1, &timed).await,
    );
    for made in [logs, timed] {
        match made {
            Ok(topic) => cast.world.stays(&topic.to_string()),
            Err(error) => {
                cast.oracle().violation(format!("cannot create topics in calm weather: {error}"));
            }
        }
    }
    cast.oracle().log_append_time(TIMED);
    let forgotten = Forgotten::begin(cast, cast.world.fork(), 1_000).await;
    // Others come later, in the log's time, too.
    sleep_ms(2).await;
    forgotten
}

/// All actors, until those who send have come to an end.
async fn storm(cast: &Arc<Cast>, sends: u64, forgotten: Option<Forgotten>, old: Option<Arc<Process>>) {
    let mut rng = cast.world.fork();
    let plan = cast.world.plan.clone();
    let mut sending: Vec<BoxFuture<'static, ()>> = Vec::new();
    let senders = rng.between(3, 7);
    let first = 1 + 100 * u64::from(cast.world.era());
    for sender in first..first + senders {
        let (cast, own) = (cast.clone(), cast.world.fork());
        let count = sends / senders;
        let kind = match rng.below(8) {
            0..=1 => None,
            2..=3 => Some(None),
            4..=5 => Some(Some(IdentityKind::Dense)),
            6 => Some(Some(IdentityKind::Monotone)),
            _ => Some(Some(IdentityKind::Once)),
        };
        sending.push(match kind {
            None => Box::pin(senders::producer(cast, own, sender, count, false)),
            Some(None) => Box::pin(senders::producer(cast, own, sender, count, true)),
            Some(Some(kind)) => Box::pin(senders::Client::new(cast, own, sender, kind).run(count)),
        });
    }
    let fork = || cast.world.fork();
    let mut others: Vec<BoxFuture<'static, ()>> = vec![
        Box::pin(upkeep::nemesis(cast.clone(), fork())),
        Box::pin(upkeep::keeper(cast.clone(), fork())),
        Box::pin(sweeping::sweeper(cast.clone(), fork())),
        Box::pin(readers::tail(cast.clone(), fork(), TOPIC)),
        Box::pin(readers::asker(cast.clone(), fork())),
        Box::pin(readers::poller(cast.clone(), fork())),
    ];
    if rng.chance(500) {
        others.push(Box::pin(readers::tail(cast.clone(), fork(), TIMED)));
        others.push(Box::pin(readers::asker(cast.clone(), fork())));
    }
    if rng.chance(400) {
        others.push(Box::pin(upkeep::topics(cast.clone(), fork())));
    }
    if rng.chance(600) {
        others.push(Box::pin(sweeping::merger(cast.clone(), fork())));
        others.push(Box::pin(sweeping::merger(cast.clone(), fork())));
        if rng.chance(700) {
            others.push(Box::pin(sweeping::rewriter(cast.clone(), fork())));
            others.push(Box::pin(sweeping::rewriter(cast.clone(), fork())));
        }
    }
    if plan.item_corrupt_rate > 0 {
        others.push(Box::pin(sweeping::medic(cast.clone())));
    }
    if rng.chance(500) {
        others.push(Box::pin(sweeping::trimmer(cast.clone(), fork())));
        others.push(Box::pin(sweeping::row_trimmer(cast.clone(), fork())));
        others.push(Box::pin(sweeping::row_trimmer(cast.clone(), fork())));
    }
    if rng.chance(500) {
        others.push(Box::pin(sweeping::sweeper(cast.clone(), fork())));
    }
    if plan.retention_ms >= 0 || plan.retention_bytes >= 0 {
        others.push(Box::pin(sweeping::retention(cast.clone(), fork())));
    }
    if rng.chance(400) {
        others.push(Box::pin(identities::rivals(cast.clone(), fork(), 1_000 + first)));
    }
    if let Some(forgotten) = forgotten.filter(|_| rng.chance(400)) {
        others.push(Box::pin(forgotten.run(cast.clone(), fork())));
    }
    if rng.chance(400) {
        others.push(Box::pin(members::member(cast.clone(), fork())));
    }
    if rng.chance(400) {
        others.push(Box::pin(upkeep::group(cast.clone(), fork(), u64::from(cast.world.era()))));
    }
    if let Some(old) = old {
        others.push(Box::pin(era::old_sweeper(cast.clone(), fork(), old)));
    }
    let others: Vec<_> = others.into_iter().map(tokio::spawn).collect();
    let sending: Vec<_> = sending.into_iter().map(tokio::spawn).collect();
    if within(STORM_MS_MAX, join_all(sending)).await.is_none() {
        cast.oracle().violation("the senders do not come to an end");
    }
    cast.world.stop();
    for other in others {
        other.abort();
    }
}

/// Everything works again, and so every process must.
async fn heal(cast: &Arc<Cast>) {
    sleep_ms(QUIET_MS).await;
    for (number, process) in cast.processes.iter().enumerate() {
        sweeping::restart_poisoned(cast, number).await;
        process.gate().set_skew(0);
        if process.running().is_none() && within(HEALED_SEND_MS, process.log()).await.is_none() {
            cast.oracle().violation("a process does not come back");
            continue;
        }
        let (gate, log) = process.log().await;
        let mut told = None;
        // A definite "not now" may be left from the storm.
        for _ in 0..3 {
            let (id, value) = cast.oracle().begin(u64::MAX, TOPIC, 0);
            let Ok(producer) = log.producer().build() else { continue };
            let sent = gate.ask(producer.send(TOPIC, Record::value(value)));
            match within(HEALED_SEND_MS, sent).await {
                Some(Some(Ok(found))) => {
                    let at_ms = cast.world.clock.ms();
                    cast.oracle().acked(id, found.partition, found.offset, at_ms);
                    told = None;
                    break;
                }
                Some(Some(Err(error))) => told = Some(error.to_string()),
                _ => told = Some("nothing".into()),
            }
        }
        if let Some(told) = told {
            cast.oracle().violation(format!("healed, {} answers a send with: {told}", gate.name));
        }
    }
}

/// A cold reader reads all there is.
async fn judge(cast: &Arc<Cast>) {
    let cold = Process::new(cast.world.clone(), "cold");
    cold.start(0, false, &cast.oracle).await;
    let Some((_, log)) = cold.running() else {
        return cast.oracle().violation("a cold reader cannot start");
    };
    same_view(cast, &log).await;
    let topics = log.admin().topics().await.unwrap_or_default();
    for topic in topics {
        let Ok(described) = log.admin().describe_topic(&topic).await else { continue };
        for partition in described.partitions {
            let place = (cast.account_of(&topic), partition.partition);
            let (start, end) = (partition.log_start, partition.high_watermark);
            if read_all(cast, &log, &topic, &place, start, end).await {
                cast.oracle().finish(&place, start, end);
            }
        }
    }
    cast.oracle().finish_all();
}

/// A new process in calm weather, for upkeep.
async fn caretaker(cast: &Arc<Cast>) -> Option<Log> {
    // Commits are dated by whoever's clock was ahead, and nothing goes before its time.
    sleep_ms(2 * cast.world.plan.skew_ms_max + 1_000).await;
    let process = Process::new(cast.world.clone(), "caretaker");
    process.start(0, true, &cast.oracle).await;
    process.running().map(|(_, log)| log)
}

/// All that a sweep may take is gone before the last reader comes.
async fn sweep_all(cast: &Arc<Cast>, log: &Log) {
    for _ in 0..2 {
        let upkeep =
            log.upkeep(UpkeepSettings { sweep_lag_ms: 0, read_lag_ms: 0, ..UpkeepSettings::default() });
        let swept = async {
            upkeep.trim_rows().await?;
            upkeep.sweep(Sweep::Whole, |_| {}).await
        };
        if let Err(error) = swept.await {
            return cast.oracle().violation(format!("healed, upkeep does not sweep: {error}"));
        }
    }
}

/// What is older than its topic keeps it goes, to the last record.
async fn forget(cast: &Arc<Cast>, log: &Log) {
    let Plan { retention_ms, skew_ms_max, rot_rate, item_corrupt_rate, .. } = cast.world.plan;
    // Of what is damaged for good nothing goes.
    let Some(kept_ms) = u64::try_from(retention_ms).ok().filter(|_| rot_rate + item_corrupt_rate == 0) else {
        return;
    };
    sleep_ms(kept_ms + 2 * skew_ms_max + 10_000).await;
    let forgotten = async {
        log.upkeep(UpkeepSettings::default()).run(|_| {}).await?;
        log.admin().describe_topic(TIMED).await
    };
    let told = match forgotten.await {
        Err(error) => format!("healed, upkeep does not trim: {error}"),
        Ok(topic) if topic.partitions.iter().all(|p| p.log_start == p.high_watermark) => return,
        Ok(topic) => format!("old records are still there: {:?}", topic.partitions),
    };
    cast.oracle().violation(told);
}

/// What nobody needs any more goes, to the last object and index row.
async fn drain(cast: &Arc<Cast>, log: &Log) {
    let by_topic = cast.world.seed.is_multiple_of(2);
    let drained = async {
        for topic in log.admin().topics().await? {
            if by_topic {
                log.admin().delete_topic(&topic).await?;
            } else {
                log.admin().delete_records(&topic, None, Position::End).await?;
            }
        }
        for _ in 0..3 {
            let upkeep =
                log.upkeep(UpkeepSettings { sweep_lag_ms: 0, read_lag_ms: 0, ..UpkeepSettings::default() });
            upkeep.run_whole(|_| {}).await?;
        }
        Ok::<_, Error>(())
    };
    if let Err(error) = drained.await {
        return cast.oracle().violation(format!("healed, upkeep does not drain: {error}"));
    }
    let objects: Vec<ObjectMeta> = cast.world.objects.list(None).try_collect().await.unwrap_or_default();
    let left = objects.iter().map(|found| found.location.to_string());
    let left: Vec<String> =
        left.filter(|path| !path.starts_with("ckpt/") && !path.starts_with("probe/")).collect();
    if !left.is_empty() {
        cast.oracle().violation(format!("{} objects are left: {:?}", left.len(), left.first()));
    }
    // One that came into the table after its topic was deleted and swept is garbage: nobody can find it. So is one of a
    // deleted topic whose segment was damaged.
    let era = cast.world.era();
    let (keys, own) = (cast.world.table(era).keys(), format!("{era:04x}/"));
    let known = |pk: &str, sk| !cast.world.is_late_row(pk, sk) && !cast.world.is_of_rotten(pk);
    let is_ours = |pk: &str| is_of_rows(pk) && pk.starts_with(&own);
    if let Some((pk, sk)) = keys.iter().find(|(pk, sk)| is_ours(pk) && known(pk, *sk)) {
        cast.oracle().violation(format!("the index row {pk} {sk} is left"));
    }
}

async fn read_all(cast: &Arc<Cast>, log: &Log, topic: &str, place: &Place, start: u64, end: u64) -> bool {
    let fetcher = log.fetcher();
    let mut at = start;
    while at < end {
        match fetcher.fetch(topic, place.1, at, FetchLimits::default()).await {
            Ok(fetched) if fetched.next > at => {
                for record in fetched.records() {
                    let value = record.value.unwrap_or_default();
                    cast.oracle().read("cold reader", place, record.offset, &value, record.timestamp_us);
                }
                at = fetched.next;
            }
            Ok(_) => {
                cast.oracle().violation(format!("nothing at {at} of {place:?}, which ends at {end}"));
                return false;
            }
            Err(error) => {
                cast.oracle().violation(format!("cannot read {at} of {place:?}: {error}"));
                return false;
            }
        }
    }
    true
}

/// Whoever followed the chain sees what a cold start sees.
async fn same_view(cast: &Arc<Cast>, cold: &Log) {
    let encode = async |log: &Log| {
        let chain = log.ledger().chain();
        chain.fresh_view(chain.tick(), |view| (view.slot, checkpoint::encode(view))).await
    };
    for process in &cast.processes {
        let Some((gate, log)) = process.running() else { continue };
        // A checkpoint that is under way may come between the two looks.
        for attempt in 0.. {
            let (Ok((slot, bytes)), Some(followed)) =
                (encode(cold).await, within(HEALED_SEND_MS, encode(&log)).await)
            else {
                cast.oracle().violation(format!("healed, {} or a cold reader does not read", gate.name));
                break;
            };
            match followed {
                Ok((at, _)) if at != slot && attempt < 10 => continue,
                Ok((at, other)) if at != slot || other != bytes => {
                    let words = format!("{} at {at} has another view than a cold start at {slot}", gate.name);
                    cast.oracle().violation(words);
                }
                Ok(_) => {}
                Err(error) => cast.oracle().violation(format!("healed, {} says: {error}", gate.name)),
            }
            break;
        }
    }
}
