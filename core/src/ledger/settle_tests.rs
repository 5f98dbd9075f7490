//! The answers of §3.2, case by case: a table that answers as it is told, the shipped committer on it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures::future::BoxFuture;

use super::action::*;
use super::commit::BatchResult;
use super::decide::{AppendProposal, BatchProposal};
use super::{Ledger, Settings};
use crate::env::{Env, SharedEnv};
use crate::error::Error;
use crate::metrics::{Metric, Totals};
use crate::objects::Objects;
use crate::record::{RecordSum, TopicId};
use crate::table::memory::MemoryTable;
use crate::table::{Consistency, Item, Page, Put, SK_MAX, Table, TableError, TableResult};

/// Tokio's own clock, which the tests stop and move.
#[derive(Debug)]
pub(crate) struct StoppedEnv(Mutex<u64>, tokio::time::Instant);

#[allow(clippy::disallowed_methods, reason = "a door of its own, for tests")]
impl StoppedEnv {
    pub(crate) fn shared(seed: u64) -> SharedEnv {
        Arc::new(Self(Mutex::new(seed), tokio::time::Instant::now()))
    }
}

#[allow(clippy::disallowed_methods, reason = "a door of its own, for tests")]
impl Env for StoppedEnv {
    fn now_ms(&self) -> i64 {
        1_764_000_000_000 + self.monotonic().as_millis() as i64
    }
    fn monotonic(&self) -> Duration {
        self.1.elapsed()
    }
    fn random_u64(&self) -> u64 {
        let mut state = self.0.lock().unwrap();
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        *state ^ (*state >> 29)
    }
    fn sleep(&self, time: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(time))
    }
}

#[derive(Debug, Clone, Copy)]
enum Answer {
    AppliedUnanswered,
    NotAppliedUnanswered,
    Throttled,
    Refused,
    SilentFor(u64),
    /// From here on, whatever is asked.
    Damaged,
}

/// Answers puts as told, then as the table does; keeps a log of what was asked.
#[derive(Debug)]
struct Scripted {
    table: Arc<MemoryTable>,
    script: Mutex<VecDeque<Answer>>,
    silent_until: Mutex<Option<tokio::time::Instant>>,
    damaged: Mutex<bool>,
    asked: Mutex<Vec<String>>,
}

#[allow(clippy::disallowed_methods, reason = "tests move the clock")]
impl Scripted {
    fn new(table: &Arc<MemoryTable>) -> Arc<Self> {
        let (script, silent_until, damaged, asked) = Default::default();
        Arc::new(Self { table: table.clone(), script, silent_until, damaged, asked })
    }

    fn tell(&self, answers: &[Answer]) {
        self.script.lock().unwrap().extend(answers);
        self.asked.lock().unwrap().clear();
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    fn note(&self, what: String) -> Result<(), TableError> {
        self.asked.lock().unwrap().push(what);
        if *self.damaged.lock().unwrap() {
            return Err(TableError::Damaged("a page is not what was written".into()));
        }
        let silent = self.silent_until.lock().unwrap();
        match silent.is_some_and(|until| tokio::time::Instant::now() < until) {
            true => Err(TableError::NoAnswer("silent".into())),
            false => Ok(()),
        }
    }
}

#[async_trait]
#[allow(clippy::disallowed_methods, reason = "tests move the clock")]
impl Table for Scripted {
    fn name(&self) -> &str {
        self.table.name()
    }
    async fn put_if_absent(&self, pk: &str, item: &Item) -> TableResult<Put> {
        self.note(format!("put {} {:x}", item.sk, item.id))?;
        let told = self.script.lock().unwrap().pop_front();
        let no_answer = || Err(TableError::NoAnswer("told so".into()));
        match told {
            None => self.table.put_if_absent(pk, item).await,
            Some(Answer::AppliedUnanswered) => {
                self.table.put_if_absent(pk, item).await?;
                no_answer()
            }
            Some(Answer::NotAppliedUnanswered) => no_answer(),
            Some(Answer::Damaged) => {
                *self.damaged.lock().unwrap() = true;
                no_answer()
            }
            Some(Answer::Throttled) => Err(TableError::Throttled("told so".into())),
            Some(Answer::Refused) => Err(TableError::Refused("told so".into())),
            Some(Answer::SilentFor(ms)) => {
                let until = tokio::time::Instant::now() + Duration::from_millis(ms);
                *self.silent_until.lock().unwrap() = Some(until);
                self.table.put_if_absent(pk, item).await?;
                no_answer()
            }
        }
    }
    async fn get(&self, pk: &str, sk: u64, consistency: Consistency) -> TableResult<Option<Item>> {
        self.note(format!("get {sk}"))?;
        self.table.get(pk, sk, consistency).await
    }
    async fn newest(&self, pk: &str, to: u64, consistency: Consistency) -> TableResult<Option<Item>> {
        self.note("newest".into())?;
        self.table.newest(pk, to, consistency).await
    }
    async fn range(&self, pk: &str, from: u64, limit: usize, consistency: Consistency) -> TableResult<Page> {
        self.note(format!("range {from}"))?;
        self.table.range(pk, from, limit, consistency).await
    }
    async fn replace_if(&self, pk: &str, item: &Item, expect: u128) -> TableResult<bool> {
        self.table.replace_if(pk, item, expect).await
    }
    async fn delete_if(&self, pk: &str, sk: u64, expect: u128) -> TableResult<bool> {
        self.table.delete_if(pk, sk, expect).await
    }
}

const T: TopicId = TopicId(0x77);
const PK: &str = "0000/0000";

struct World {
    table: Arc<MemoryTable>,
    objects: Objects,
    seed: u64,
    /// What all processes of this world told.
    totals: Totals,
}

impl World {
    fn new() -> Self {
        let env = StoppedEnv::shared(0);
        let (table, objects) = (Arc::new(MemoryTable::new()), Objects::memory(env));
        Self { table, objects, seed: 1, totals: Totals::default() }
    }

    async fn process(&mut self) -> (Ledger, Arc<Scripted>) {
        self.seed += 1;
        let scripted = Scripted::new(&self.table);
        let settings = Settings { checkpoint_commits: 0, strip_bytes_min: 0, ..Settings::default() };
        let env = StoppedEnv::shared(self.seed);
        let (objects, totals) = (self.objects.clone(), Arc::new(self.totals.clone()));
        let ledger = Ledger::open(scripted.clone(), objects, env, 0, settings, totals).await.unwrap();
        if ledger.init().await.unwrap() {
            let config = Vec::new();
            let create = TopicChange::Create { id: T, name: "t".into(), partitions: 1, config };
            ledger.act(Action::Topic(create)).await.unwrap();
        }
        (ledger, scripted)
    }
}

fn rows(rows: u32, identity: Option<Identity>) -> AppendProposal {
    let sum = RecordSum { hashes: 1, places: 0 };
    let batch = BatchProposal {
        topic: T,
        partition: 0,
        group: 0,
        first_row: 0,
        rows,
        time_us: (1, 1),
        sum,
        identity,
    };
    AppendProposal { data: Data::Inline(bytes::Bytes::from_static(b"x")), batches: vec![batch] }
}

async fn base(ledger: &Ledger, n: u32) -> u64 {
    match ledger.append(rows(n, None)).await.unwrap().remove(0) {
        BatchResult::Placed { base, .. } => base,
        other => panic!("{other:?}"),
    }
}

fn ids(asked: &[String]) -> Vec<&str> {
    asked.iter().filter_map(|line| line.strip_prefix("put ")).collect()
}

#[tokio::test(start_paused = true)]
async fn landed_without_an_answer_is_committed_after_a_look() {
    let mut world = World::new();
    let (ledger, table) = world.process().await;
    assert_eq!(base(&ledger, 1).await, 0);
    table.tell(&[Answer::AppliedUnanswered]);
    assert_eq!(base(&ledger, 2).await, 1);
    assert_eq!(ids(&table.asked()).len(), 1, "no second put: {:?}", table.asked());
    assert_eq!(table.asked().last().unwrap(), "get 4");
    assert_eq!(base(&ledger, 1).await, 3);
}

#[tokio::test(start_paused = true)]
async fn absent_after_no_answer_puts_the_same_commit_again() {
    let mut world = World::new();
    let (ledger, table) = world.process().await;
    table.tell(&[Answer::NotAppliedUnanswered, Answer::NotAppliedUnanswered]);
    assert_eq!(base(&ledger, 1).await, 0);
    let asked = table.asked();
    let puts = ids(&asked);
    assert_eq!(puts.len(), 3);
    assert!(puts.iter().all(|put| *put == puts[0]), "one commit, one id: {puts:?}");
    assert_eq!(world.totals.of(Metric::PutsUnanswered).sum, 2);
    assert_eq!(world.totals.of(Metric::CommitUs).count, 3, "store, topic, rows");
}

#[tokio::test(start_paused = true)]
async fn a_slot_of_another_is_applied_and_decided_again() {
    let mut world = World::new();
    let (one, _) = world.process().await;
    let (two, _) = world.process().await;
    assert_eq!(base(&one, 5).await, 0);
    // `two` has not seen it; its put, or its look at the tail, finds it.
    assert_eq!(base(&two, 1).await, 5);
    assert_eq!(base(&one, 1).await, 6);
    let view =
        two.chain.fresh_view(two.chain.tick(), |view| view.partition(T, 0).unwrap().next).await.unwrap();
    assert_eq!(view, 7);
}

#[tokio::test(start_paused = true)]
async fn throttled_first_is_not_applied_and_tried_again() {
    let mut world = World::new();
    let (ledger, table) = world.process().await;
    table.tell(&[Answer::Throttled]);
    assert_eq!(base(&ledger, 1).await, 0);
    let asked = table.asked();
    assert!(!asked.iter().any(|line| line.starts_with("get")), "a definite answer needs no look: {asked:?}");
}

#[tokio::test(start_paused = true)]
async fn refused_first_is_told_and_leaves_nothing() {
    let mut world = World::new();
    let (ledger, table) = world.process().await;
    table.tell(&[Answer::Refused]);
    let result = ledger.append(rows(1, None)).await.unwrap().remove(0);
    assert!(matches!(result, BatchResult::Failed(Error::CannotOpen { .. })), "{result:?}");
    assert!(world.table.get(PK, 3, Consistency::Strong).await.unwrap().value.is_none());
    assert_eq!(base(&ledger, 1).await, 0);
}

#[tokio::test(start_paused = true)]
async fn throttled_on_a_later_try_says_nothing_of_the_first() {
    let mut world = World::new();
    let (ledger, table) = world.process().await;
    table.tell(&[Answer::NotAppliedUnanswered, Answer::Throttled]);
    assert_eq!(base(&ledger, 1).await, 0);
    let asked = table.asked();
    let puts = ids(&asked);
    assert_eq!(puts.len(), 3);
    assert!(puts.iter().all(|put| *put == puts[0]), "still the same commit: {puts:?}");
}

#[tokio::test(start_paused = true)]
async fn silence_is_unknown_and_settles_behind_the_callers_back() {
    let mut world = World::new();
    let (ledger, table) = world.process().await;
    table.tell(&[Answer::SilentFor(40_000)]);
    let result = ledger.append(rows(1, None)).await.unwrap().remove(0);
    let BatchResult::Failed(error @ Error::Unknown { .. }) = result else { panic!("{result:?}") };
    assert_eq!(error.kind(), crate::ErrorKind::Retry);
    // Queued behind the unsettled slot: not applied, and told so; or placed after it.
    let late = ledger.append(rows(1, None)).await.unwrap().remove(0);
    assert!(
        matches!(late, BatchResult::Failed(Error::Unavailable { .. }) | BatchResult::Placed { base: 1, .. }),
        "{late:?}"
    );
    let after = base(&ledger, 1).await;
    assert!(after == 1 || after == 2, "the unknown one landed once: {after}");
    let asked = table.asked();
    let slot = asked.iter().filter(|line| line.starts_with("put 3")).count();
    assert_eq!(slot, 1, "never put again under another id: {asked:?}");
}

#[tokio::test(start_paused = true)]
async fn unknown_with_an_identity_is_recognised_when_it_comes_again() {
    let mut world = World::new();
    let (ledger, table) = world.process().await;
    let key = ProducerKey { kind: IdentityKind::Dense, producer: 1 };
    let identity = Some(Identity { key, epoch: 0, first_sequence: 0, last_sequence: 0 });
    table.tell(&[Answer::SilentFor(20_000)]);
    let first = ledger.append(rows(1, identity)).await.unwrap().remove(0);
    assert!(matches!(first, BatchResult::Failed(Error::Unknown { .. })), "{first:?}");
    let again = ledger.append(rows(1, identity)).await.unwrap().remove(0);
    assert!(matches!(again, BatchResult::Duplicate { base: Some(0), .. }), "{again:?}");
}

#[tokio::test(start_paused = true)]
async fn a_stub_in_the_slot_means_start_cold() {
    let mut world = World::new();
    let (slow, _) = world.process().await;
    let (fast, _) = world.process().await;
    for _ in 0..3 {
        base(&fast, 1).await;
        fast.checkpoint().await.unwrap().unwrap();
    }
    // Inline slices keep their slots; what else is old becomes stubs.
    fast.strip().await.unwrap();
    let stubs = world.table.range(PK, 1, 100, Consistency::Strong).await.unwrap().value;
    assert!(stubs.items.iter().any(|item| item.body.is_none()), "something was stripped");
    assert!(stubs.items[0].body.is_some(), "slot 1 is never stripped");
    assert_eq!(base(&slow, 1).await, 3);
    let encode = |view: &super::view::View| super::checkpoint::encode(view);
    let a = slow.chain.fresh_view(slow.chain.tick(), encode).await.unwrap();
    let b = fast.chain.fresh_view(fast.chain.tick(), encode).await.unwrap();
    assert_eq!(a, b, "a cold view is the followed view");
}

#[tokio::test(start_paused = true)]
async fn a_table_that_went_back_is_refused() {
    let mut world = World::new();
    let (ledger, _) = world.process().await;
    base(&ledger, 1).await;
    let item = world.table.get(PK, 3, Consistency::Strong).await.unwrap().value.unwrap();
    assert!(world.table.delete_if(PK, 3, item.id).await.unwrap().value);
    tokio::time::advance(Duration::from_secs(20)).await;
    let error = ledger.chain.refresh(ledger.chain.tick()).await.unwrap_err();
    assert!(matches!(error, Error::RolledBack { seen: 3, found: 2 }), "{error}");
    let after = ledger.append(rows(1, None)).await.unwrap().remove(0);
    assert!(matches!(after, BatchResult::Failed(Error::Poisoned { .. })), "{after:?}");
}

#[tokio::test(start_paused = true)]
async fn a_missing_checkpoint_is_damage_not_an_empty_log() {
    let mut world = World::new();
    let (ledger, _) = world.process().await;
    base(&ledger, 1).await;
    ledger.checkpoint().await.unwrap().unwrap();
    base(&ledger, 1).await;
    // The same table beside an empty folder of objects.
    world.objects = Objects::memory(StoppedEnv::shared(9));
    let settings = Settings { checkpoint_commits: 0, ..Settings::default() };
    let env = StoppedEnv::shared(10);
    let error = Ledger::open(world.table.clone(), world.objects.clone(), env, 0, settings, Arc::new(()))
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Damaged { .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_slot_that_cannot_be_read_any_more_is_not_settled_for_ever() {
    let mut world = World::new();
    let (ledger, table) = world.process().await;
    table.tell(&[Answer::Damaged]);
    let result = ledger.append(rows(1, None)).await.unwrap().remove(0);
    assert!(matches!(result, BatchResult::Failed(Error::Unknown { .. })), "nobody knows: {result:?}");
    let later = ledger.append(rows(1, None)).await.map(|mut results| results.remove(0));
    let poisoned = matches!(&later, Err(error) | Ok(BatchResult::Failed(error))
        if error.kind() == crate::ErrorKind::Fatal);
    assert!(poisoned, "{later:?}");
}

#[tokio::test(start_paused = true)]
#[allow(clippy::disallowed_methods, reason = "tests move the clock")]
async fn a_lone_writer_sees_that_its_table_was_put_back() {
    let mut world = World::new();
    let (ledger, table) = world.process().await;
    for offset in 0..3 {
        assert_eq!(base(&ledger, 1).await, offset);
    }
    for _ in 0..2 {
        let newest = world.table.newest(PK, SK_MAX, Consistency::Strong).await.unwrap().value.unwrap();
        assert!(world.table.delete_if(PK, newest.sk, newest.id).await.unwrap().value);
    }
    tokio::time::sleep(Duration::from_secs(11)).await;
    table.tell(&[]);
    let result = ledger.append(rows(1, None)).await.map(|mut results| results.remove(0));
    let stopped = matches!(&result, Err(error) | Ok(BatchResult::Failed(error)) if error.to_string().contains("went back"));
    assert!(stopped, "{result:?}");
    assert!(!table.asked().iter().any(|line| line.starts_with("put")), "{:?}", table.asked());
}

/// Found by the simulator (seed 21494 of 25 November): a follower then asked without a pause, for ever.
#[tokio::test(start_paused = true)]
async fn what_comes_before_an_item_of_a_newer_version_is_told_to_who_waits() {
    let mut world = World::new();
    let (writer, _) = world.process().await;
    let (reader, _) = world.process().await;
    let before = reader.chain().slot();
    for offset in 0..2 {
        assert_eq!(base(&writer, 1).await, offset);
    }
    let newest = world.table.newest(PK, SK_MAX, Consistency::Strong).await.unwrap().value.unwrap();
    let mut body = newest.body.clone().unwrap().to_vec();
    body[0] = 9;
    let next = Item { sk: newest.sk + 1, body: Some(body.into()), ..newest.clone() };
    world.table.put_if_absent(PK, &next).await.unwrap();
    let chain = reader.chain();
    let refused = chain.refresh(chain.tick()).await.unwrap_err();
    assert!(matches!(refused, Error::Newer { .. }), "{refused:?}");
    assert_eq!(
        (chain.slot(), chain.view(|view| view.slot).unwrap()),
        (newest.sk, newest.sk),
        "from {before}"
    );
}
