//! What the processes of a seed share: table, objects, faults, and the account of what happened.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::sync::atomic::{AtomicU16, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard};

use object_store::memory::InMemory;
use tidelog_core::Compression;
use tidelog_core::table::{Consistency, Item, MemoryTable, Table};

use crate::clock::{Clock, Gate};
use crate::rng::Rng;

/// How often each (step, fault, answer) occurred.
pub type Coverage = BTreeMap<(&'static str, &'static str, &'static str), u64>;

/// What a seed chose.
#[derive(Debug, Clone)]
#[allow(missing_docs, reason = "the names say it; rates are of a thousand")]
pub struct Plan {
    pub processes: u64,
    pub partitions: u32,
    pub sends: u64,
    pub latency_ms: u64,
    pub slow_rate: u64,
    pub write_fault_rate: u64,
    pub read_fault_rate: u64,
    pub corrupt_rate: u64,
    pub rot_rate: u64,
    pub item_corrupt_rate: u64,
    pub store_clock: bool,
    pub lag_max: u64,
    pub skew_ms_max: u64,
    pub checkpoint_commits: u64,
    pub strip_bytes_min: usize,
    /// Mean time between two blows to a process; 0: none.
    pub blow_ms: u64,
    pub inline: u64,
    /// Of the topic with the log's own timestamps; −1: for ever.
    pub retention_ms: i64,
    /// Of the same; −1: all of them.
    pub retention_bytes: i64,
    /// Of all topics.
    pub compression: Compression,
    /// After the storm the table is lost, and another storm comes over the copy.
    pub second_era: bool,
}

impl Plan {
    fn new(seed: u64, rng: &mut Rng) -> Self {
        let stormy = rng.chance(850);
        let rate = |rng: &mut Rng, of: &[u64]| if stormy { rng.pick(of) } else { 0 };
        let mut plan = Self {
            processes: rng.between(2, 4),
            partitions: rng.between(1, 2) as u32,
            sends: rng.between(120, 260),
            latency_ms: rng.pick(&[2, 5, 15, 40]),
            slow_rate: rate(rng, &[0, 5, 20]),
            write_fault_rate: rate(rng, &[0, 20, 60, 150, 250]),
            read_fault_rate: rate(rng, &[0, 10, 40, 100]),
            corrupt_rate: rate(rng, &[0, 0, 20, 80]),
            rot_rate: rate(rng, &[0, 0, 0, 0, 0, 0, 0, 0, 0, 50]),
            item_corrupt_rate: rate(rng, &[0, 0, 0, 0, 0, 0, 0, 0, 3, 20]),
            store_clock: rng.chance(500),
            lag_max: rng.pick(&[0, 3, 20]),
            skew_ms_max: rng.pick(&[0, 1_000, 100_000, 200_000]),
            checkpoint_commits: rng.between(5, 30),
            strip_bytes_min: rng.below(65) as usize,
            blow_ms: rate(rng, &[0, 1_000, 3_000, 10_000]),
            inline: rng.pick(&[0, 300, 700, 1_000]),
            retention_ms: rng.pick(&[-1, -1, 15_000, 60_000]),
            retention_bytes: [-1, 2_000, 6_000][seed as usize / Compression::ALL.len() % 3],
            compression: Compression::ALL[seed as usize % Compression::ALL.len()],
            second_era: false,
        };
        // What is damaged for good is not restored, but told.
        plan.second_era = seed % 4 == 1 && plan.rot_rate == 0 && plan.item_corrupt_rate == 0;
        plan
    }
}

/// What happens to one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names in `name` say it")]
pub enum Fault {
    None,
    Refused,
    Throttled,
    Lost,
    Applied,
    Late(u64),
    Twice(u64),
    Hangs,
    HangsApplied,
    Truncated,
    Flipped,
    Rotten,
}

impl Fault {
    /// In words, for trace and table.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Refused => "refused",
            Self::Throttled => "throttled",
            Self::Lost => "request lost",
            Self::Applied => "applied, answer lost",
            Self::Late(_) => "applied late",
            Self::Twice(_) => "delivered twice",
            Self::Hangs => "hangs",
            Self::HangsApplied => "applied, hangs",
            Self::Truncated => "truncated",
            Self::Flipped => "bit flipped",
            Self::Rotten => "damaged for good",
        }
    }
}

/// The shared world.
#[derive(Debug)]
pub struct World {
    /// The table of each era: the second is a copy of the first, once there is one.
    tables: [MemoryTable; 2],
    /// The era that processes start in.
    era: AtomicU16,
    /// The one object store.
    pub objects: InMemory,
    /// What the seed chose.
    pub plan: Plan,
    /// Virtual time.
    pub clock: Clock,
    /// The seed.
    pub seed: u64,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    rng: Rng,
    faulty: bool,
    stopped: bool,
    trace: Option<String>,
    coverage: Coverage,
    /// Objects that a process was once given damaged: the next time they are whole.
    struck: BTreeSet<(String, String)>,
    /// Objects met that are damaged for good.
    rotten: BTreeSet<String>,
    /// Lives of processes that were given a damaged item.
    harmed: BTreeSet<String>,
    /// Rules of the stores themselves that were broken.
    broken: Vec<String>,
    rows: Rows,
    /// Ids of topics that nobody deletes.
    staying: Vec<String>,
}

/// When index rows came into the table, and when somebody looked over them.
#[derive(Debug, Default)]
struct Rows {
    events: u64,
    landed: BTreeMap<(String, u64), u64>,
    /// By partition key: from which sort key on, and when.
    looked: BTreeMap<String, Vec<(u64, u64)>>,
    /// Those that trim marked: keys and the number of the fold or rewrite.
    marked: BTreeSet<(String, u64, u128)>,
}

/// Whether a partition key is one of index rows.
pub fn is_of_rows(pk: &str) -> bool {
    pk.matches('/').count() == 2
}

impl World {
    /// The world of a seed, with no faults yet.
    pub fn new(seed: u64, traced: bool) -> Arc<Self> {
        let mut rng = Rng::new(seed, 1);
        let plan = Plan::new(seed, &mut rng);
        let tables = [2, 3].map(|salt| {
            let (lag, lag_max) = (Mutex::new(Rng::new(seed, salt)), plan.lag_max);
            MemoryTable::new().with_lag(lag_max, move || lag.lock().expect("one thread").below(lag_max + 1))
        });
        let trace = traced.then(|| format!("seed {seed}: {plan:#?}\n"));
        let (coverage, struck) = (Coverage::new(), BTreeSet::new());
        let (rotten, harmed) = (BTreeSet::new(), BTreeSet::new());
        let (broken, rows) = (Vec::new(), Rows::default());
        let (faulty, stopped) = (false, false);
        let staying = Vec::new();
        let inner =
            Inner { rng, faulty, stopped, trace, coverage, struck, rotten, harmed, broken, rows, staying };
        let (objects, clock, era) = (InMemory::new(), Clock::start(), AtomicU16::new(0));
        Arc::new(Self { tables, era, objects, plan, clock, seed, inner: Mutex::new(inner) })
    }

    /// The table of an era.
    pub fn table(&self, era: u16) -> &MemoryTable {
        &self.tables[usize::from(era)]
    }

    /// The era that processes start in.
    pub fn era(&self) -> u16 {
        self.era.load(SeqCst)
    }

    /// The second era's table becomes what the first's is.
    pub async fn copy_table(&self) {
        let [from, to] = &self.tables;
        for (pk, sk) in from.keys() {
            let item = from.get(&pk, sk, Consistency::Strong).await.expect("memory answers").value;
            let item = item.expect("it was listed");
            to.put_if_absent(&pk, &item).await.expect("memory answers");
        }
    }

    /// The second era begins, and everybody goes on.
    pub fn go_on(&self) {
        self.era.store(1, SeqCst);
        self.inner().stopped = false;
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("one thread")
    }

    /// Draws from the world's own generator.
    pub fn draw<T>(&self, draw: impl FnOnce(&mut Rng) -> T) -> T {
        draw(&mut self.inner().rng)
    }

    /// A generator of its own for whoever asks.
    pub fn fork(&self) -> Rng {
        let salt = self.draw(Rng::draw);
        Rng::new(self.seed, salt)
    }

    /// Turns faults on or off.
    pub fn set_faulty(&self, faulty: bool) {
        self.inner().faulty = faulty;
    }

    /// Tells everybody to come to an end.
    pub fn stop(&self) {
        self.inner().stopped = true;
    }

    /// Whether everybody was told to.
    pub fn is_stopped(&self) -> bool {
        self.inner().stopped
    }

    /// Time of one way of a request, ms.
    pub fn latency(&self) -> u64 {
        let (most, slow) = (self.plan.latency_ms, self.plan.slow_rate);
        let mut inner = self.inner();
        if inner.faulty && inner.rng.chance(slow) {
            return inner.rng.between(500, 7_000);
        }
        inner.rng.below(most + 1)
    }

    /// What happens to a write.
    pub fn write_fault(&self, gate: &Gate) -> Fault {
        let rate = self.plan.write_fault_rate;
        let mut inner = self.inner();
        if inner.faulty && gate.is_cut() {
            let later = inner.rng.between(1, 30_000);
            return inner.rng.pick(&[
                Fault::Lost,
                Fault::Lost,
                Fault::Applied,
                Fault::Late(later),
                Fault::Hangs,
            ]);
        }
        if !inner.faulty || !inner.rng.chance(rate) {
            return Fault::None;
        }
        let late = if inner.rng.chance(500) { 200 } else { 30_000 };
        let later = inner.rng.between(1, late);
        match inner.rng.below(20) {
            0 => Fault::Refused,
            1..=2 => Fault::Throttled,
            3..=5 => Fault::Lost,
            6..=9 => Fault::Applied,
            10..=13 => Fault::Late(later),
            14..=16 => Fault::Twice(later),
            17 => Fault::Hangs,
            _ => Fault::HangsApplied,
        }
    }

    /// What happens to a read.
    pub fn read_fault(&self, gate: &Gate) -> Fault {
        let rate = self.plan.read_fault_rate;
        let mut inner = self.inner();
        if inner.faulty && gate.is_cut() {
            return if inner.rng.chance(800) { Fault::Lost } else { Fault::Hangs };
        }
        if !inner.faulty || !inner.rng.chance(rate) {
            return Fault::None;
        }
        match inner.rng.below(8) {
            0..=2 => Fault::Throttled,
            3..=6 => Fault::Lost,
            _ => Fault::Hangs,
        }
    }

    /// What happens to the bytes of an object that is read: damaged once on their way, or for good in the store.
    pub fn corruption(&self, gate: &Gate, path: &str) -> Option<Fault> {
        if self.is_rotten(path) {
            self.inner().rotten.insert(path.to_owned());
            return Some(Fault::Rotten);
        }
        let rate = self.plan.corrupt_rate;
        let mut inner = self.inner();
        if !inner.faulty || !inner.rng.chance(rate) {
            return None;
        }
        let first = inner.struck.insert((gate.name.clone(), path.to_owned()));
        first.then(|| if inner.rng.chance(400) { Fault::Truncated } else { Fault::Flipped })
    }

    /// Whether a segment is damaged for good, from its first byte on and until the storm is over.
    pub fn is_rotten(&self, path: &str) -> bool {
        let salt = path.bytes().fold(7, |salt: u64, byte| salt.rotate_left(5) ^ u64::from(byte));
        let is_segment = path.starts_with("l0/") || path.starts_with("topics/");
        let chosen = is_segment && Rng::new(self.seed, salt).chance(self.plan.rot_rate);
        chosen && self.inner().faulty
    }

    /// Whether an error names an object that is damaged for good.
    pub fn names_rotten(&self, words: &str) -> bool {
        self.inner().rotten.iter().any(|path| words.contains(path))
    }

    /// Whether these rows are of a topic that was deleted, and a merged segment of it was damaged for good: nobody can read
    /// there which rows it has.
    pub fn is_of_rotten(&self, pk: &str) -> bool {
        let topic = pk.split('/').nth(1).unwrap_or_default();
        let inner = self.inner();
        let of_it = |path: &String| path.starts_with("topics/") && path.contains(topic);
        !inner.staying.iter().any(|staying| staying == topic) && inner.rotten.iter().any(of_it)
    }

    /// Perhaps damages an item of an answer: `flip` says whether there was one.
    pub fn corrupt_item(&self, gate: &Gate, flip: impl FnOnce(&mut Rng) -> bool) -> bool {
        let rate = self.plan.item_corrupt_rate;
        let mut inner = self.inner();
        let done = inner.faulty && inner.rng.chance(rate) && flip(&mut inner.rng);
        if done {
            inner.harmed.insert(gate.name.clone());
        }
        done
    }

    /// Whether this life of a process was given a damaged item.
    pub fn is_harmed(&self, who: &str) -> bool {
        self.inner().harmed.contains(who)
    }

    /// Something that was seen, into the table of what was.
    pub fn saw(&self, step: &'static str, fault: &'static str, answer: &'static str) {
        *self.inner().coverage.entry((step, fault, answer)).or_default() += 1;
    }

    /// A row came into the table.
    pub fn row_landed(&self, pk: &str, sk: u64) {
        let rows = &mut self.inner().rows;
        rows.events += 1;
        rows.landed.insert((pk.to_owned(), sk), rows.events);
    }

    /// Nobody will delete this topic in the storm.
    pub fn stays(&self, topic: &str) {
        self.inner().staying.push(topic.to_owned());
    }

    /// A row was marked as one that nobody needs.
    pub fn row_marked(&self, pk: &str, row: &Item) {
        self.inner().rows.marked.insert((pk.to_owned(), row.sk, row.id));
    }

    /// A row goes from the table. In the storm no row of a topic that stays goes if what one fold or rewrite wrote there was
    /// not marked before: it is another row than whoever deletes it looked at (R4).
    pub fn row_deleted(&self, pk: &str, row: &Item) {
        let mut inner = self.inner();
        let topic = pk.split('/').nth(1).unwrap_or_default();
        let stays = inner.staying.iter().any(|staying| staying == topic);
        if inner.faulty && stays && !inner.rows.marked.contains(&(pk.to_owned(), row.sk, row.id)) {
            inner.broken.push(format!("the index row {pk} {} was deleted, and not marked before", row.sk));
        }
    }

    /// Somebody looked over a partition's rows from a sort key on.
    pub fn rows_looked(&self, pk: &str, from: u64) {
        let rows = &mut self.inner().rows;
        rows.events += 1;
        rows.looked.entry(pk.to_owned()).or_default().push((from, rows.events));
    }

    /// Whether a row came after everybody who looked where it is, and somebody did: nobody can know of it.
    pub fn is_late_row(&self, pk: &str, sk: u64) -> bool {
        let rows = &self.inner().rows;
        let looks = rows.looked.get(pk).into_iter().flatten().filter(|(from, _)| *from <= sk);
        let last = looks.map(|(_, at)| *at).max();
        let landed = rows.landed.get(&(pk.to_owned(), sk));
        last.zip(landed).is_some_and(|(last, landed)| *landed > last)
    }

    /// A rule of the stores was broken.
    pub fn violation(&self, words: String) {
        self.inner().broken.push(words);
    }

    /// All such rules, once.
    pub fn violations(&self) -> Vec<String> {
        std::mem::take(&mut self.inner().broken)
    }

    /// A line of the trace.
    pub fn note(&self, who: &str, words: impl FnOnce() -> String) {
        let at = self.clock.ms();
        if let Some(trace) = &mut self.inner().trace {
            let _ = writeln!(trace, "{at:>9} {who:<6} {}", words());
        }
    }

    /// An answered request: into the trace and the table of what was seen.
    pub fn answered(&self, gate: &Gate, step: &'static str, what: &str, fault: Fault, answer: &'static str) {
        *self.inner().coverage.entry((step, fault.name(), answer)).or_default() += 1;
        self.note(&gate.name, || match fault {
            Fault::None => format!("{step} {what} → {answer}"),
            _ => format!("{step} {what} → {answer} [{}]", fault.name()),
        });
    }

    /// The trace so far and what was seen.
    pub fn account(&self) -> (String, Coverage) {
        let mut inner = self.inner();
        (inner.trace.take().unwrap_or_default(), std::mem::take(&mut inner.coverage))
    }
}
