//! 3 · Append: `send` → open flight → seal → upload → propose → ack.
//!
//! | file | what it is |
//! |---|---|
//! | `partitioner` | which partition |
//! | `flight` | the records that travel together, and what their senders wait for |
//! | `driver` | seals, uploads, proposes, in order |

mod driver;
mod flight;
pub mod partitioner;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, Semaphore, SemaphorePermit};
use tokio::task::JoinHandle;

use crate::env::SharedEnv;
use crate::error::{Error, Result};
use crate::ledger::Ledger;
use crate::ledger::action::{Identity, IdentityKind, LEDGER, ObjectRef, ProducerKey};
use crate::ledger::commit::BatchResult;
use crate::ledger::decide::timestamp_type;
use crate::ledger::lead;
use crate::ledger::view::{Topic, View};
use crate::limits;
use crate::metrics::Metric;
use crate::objects::{ObjectName, Ulid};
use crate::plant::{self, Bug};
use crate::record::{Record, TopicId, check_timestamp};
use crate::segment::Compression;
use crate::topic;
use flight::{Chunk, Expected, Landed, Open, Row, TopicInfo};
pub use flight::{Delivery, RecordMetadata, Tag};

/// A producer's settings. Data only; see [`ProducerBuilder`](crate::ProducerBuilder) for what each does.
#[derive(Debug, Clone)]
pub struct ProducerSettings {
    /// Time a record waits for company.
    pub linger_ms: u64,
    /// Unacknowledged bytes at which `send` waits.
    pub buffer_bytes: usize,
    /// Uploads under way at once.
    pub uploads_max: usize,
    /// Largest flush that rides inside its commit; the topics may ask for less.
    pub inline_bytes_max: usize,
    /// Codec; `None`: the topic's.
    pub compression: Option<Compression>,
    /// How long batches with an identity are proposed again.
    pub delivery_timeout_ms: u64,
    /// Claim partitions that nobody leads, and take over from the silent. For writers that live long.
    pub lead: bool,
    /// Give every record a sequence of this producer's own, so that no retry of the producer duplicates it.
    pub idempotent: bool,
}

impl Default for ProducerSettings {
    fn default() -> Self {
        Self {
            linger_ms: limits::LINGER_MS_DEFAULT,
            buffer_bytes: limits::BUFFER_BYTES_DEFAULT,
            uploads_max: limits::UPLOADS_MAX,
            inline_bytes_max: limits::INLINE_BYTES_MAX,
            compression: None,
            delivery_timeout_ms: limits::DELIVERY_TIMEOUT_MS_DEFAULT,
            idempotent: false,
            lead: false,
        }
    }
}

impl ProducerSettings {
    /// Refuses values out of range.
    pub fn check(&self) -> Result<()> {
        Error::check_size("linger_ms", self.linger_ms as usize, limits::LINGER_MS_MAX as usize)?;
        Error::check_size("inline_bytes_max", self.inline_bytes_max, limits::INLINE_BYTES_MAX)?;
        if self.buffer_bytes < limits::RECORD_BYTES_DEFAULT || self.buffer_bytes > limits::BUFFER_BYTES_MAX {
            let allowed = format!("must be {} to {}", limits::RECORD_BYTES_DEFAULT, limits::BUFFER_BYTES_MAX);
            return Err(Error::invalid("buffer_bytes", allowed));
        }
        if self.uploads_max == 0 || self.uploads_max > limits::UPLOADS_MAX {
            return Err(Error::invalid("uploads_max", format!("must be 1 to {}", limits::UPLOADS_MAX)));
        }
        Ok(())
    }
}

/// A batch that was answered, as an ack hook sees it.
#[derive(Debug, Clone, Copy)]
pub struct Acked<'a> {
    /// Topic name.
    pub topic: &'a str,
    /// Partition.
    pub partition: u32,
    /// Rows, in the order in which they were sent to this partition.
    pub rows: u32,
    /// What became of them.
    pub result: &'a BatchResult,
}

/// Called with each flight's batches before the next flight is committed.
pub type AckHook = Box<dyn FnMut(&[Acked<'_>]) + Send>;

/// Sends records. Cheap to clone; the clones share buffer, flights and order.
///
/// Records sent to one partition by clones of one producer keep the order in which `send` accepted them. Dropping the
/// last clone sends what was accepted as long as the runtime lives, and tells nobody; [`Producer::close`] waits.
#[derive(Debug, Clone)]
pub struct Producer {
    handle: Arc<Handle>,
}

#[derive(Debug)]
struct Handle {
    shared: Arc<Shared>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.close();
    }
}

struct Shared {
    ledger: Ledger,
    settings: ProducerSettings,
    state: Mutex<State>,
    budget: Arc<Semaphore>,
    wake: Notify,
    /// Number of the newest flight that landed, and whoever waits for one: woken in the order in which they came.
    landed: AtomicU64,
    landing: Notify,
    on_ack: Option<Mutex<AckHook>>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Producer").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// What the one lock guards: two parts, so that a topic can be borrowed while a record of it is pushed.
#[derive(Default)]
struct State {
    /// Topics by name, as of a commit.
    topics: BTreeMap<String, Arc<TopicInfo>>,
    topics_slot: u64,
    sending: Sending,
}

#[derive(Default)]
struct Sending {
    /// At most one flight a codec.
    opens: Vec<Open>,
    sealed: VecDeque<Open>,
    expected: Option<Expected>,
    /// Bytes of the buffer that are taken and no flight's yet. None, unless a flight is open.
    drawn: usize,
    /// Number of the newest sealed flight.
    last_number: u64,
    /// Where unkeyed records go until the next seal.
    sticky: BTreeMap<TopicId, u32>,
    own: Option<Own>,
    /// Topics whose leaderless partitions were claimed once, and when partitions were last taken.
    claimed: BTreeSet<TopicId>,
    led_at: Option<Duration>,
    /// The newest take of partitions; it ends after those before it.
    taking: Option<JoinHandle<()>>,
    closed: bool,
}

/// The producer's own identity.
struct Own {
    key: ProducerKey,
    epoch: u16,
    sequences: BTreeMap<(TopicId, u32), u64>,
}

impl Own {
    fn new(random: u64) -> Self {
        let key = ProducerKey { kind: IdentityKind::Dense, producer: u128::from(random >> 1) };
        Self { key, epoch: 0, sequences: BTreeMap::new() }
    }

    fn tag(&mut self, topic: TopicId, partition: u32) -> Tag {
        let next = self.sequences.entry((topic, partition)).or_default();
        let sequence = std::mem::replace(next, *next + 1);
        Tag { key: self.key, epoch: self.epoch, sequence }
    }
}

impl Producer {
    /// Starts a producer on `ledger`.
    pub fn start(ledger: Ledger, settings: ProducerSettings, on_ack: Option<AckHook>) -> Result<Self> {
        settings.check()?;
        let own = settings.idempotent.then(|| Own::new(ledger.chain.env.random_u64()));
        let shared = Arc::new(Shared {
            budget: Arc::new(Semaphore::new(settings.buffer_bytes)),
            state: Mutex::new(State { sending: Sending { own, ..Sending::default() }, ..State::default() }),
            wake: Notify::new(),
            landed: AtomicU64::new(0),
            landing: Notify::new(),
            on_ack: on_ack.map(Mutex::new),
            settings,
            ledger,
        });
        tokio::spawn(driver::run(shared.clone()));
        Ok(Self { handle: Arc::new(Handle { shared }) })
    }

    /// Sends a record and waits for its ack: `Ok` means that it is durable and readable at this offset.
    ///
    /// Cancel-safe in this sense: dropped before the record is accepted, nothing is sent; dropped later, the record
    /// goes on its way and only its ack is lost. Waits while the buffer is full.
    pub async fn send(&self, topic: &str, record: Record) -> Result<RecordMetadata> {
        self.enqueue(topic, None, record, None).await?.wait().await
    }

    /// Accepts a record and answers with its [`Delivery`]. Waits while the buffer is full. `partition`: `None` lets the
    /// key decide. `tag`: the record's place in a sequence of the caller's own.
    pub fn enqueue(
        &self,
        topic: &str,
        partition: Option<u32>,
        record: Record,
        tag: Option<Tag>,
    ) -> impl Future<Output = Result<Delivery>> + Send {
        self.enqueue_with(topic, partition, record, tag, |_| {})
    }

    /// Like [`Producer::enqueue`]. `accepted` is called with the partition as the record takes its place in the order of
    /// that partition, so before an ack hook can be told of it: for callers that keep accounts beside the hook. It must
    /// not call this producer.
    pub fn enqueue_with(
        &self,
        topic: &str,
        partition: Option<u32>,
        record: Record,
        tag: Option<Tag>,
        accepted: impl FnOnce(u32) + Send,
    ) -> impl Future<Output = Result<Delivery>> + Send {
        let shared = &self.handle.shared;
        // A block and no `async fn`, which would move the record once more, from its arguments to its own state.
        async move {
            match shared.accept(topic, partition, &record, tag, accepted) {
                Ok(delivery) => Ok(delivery),
                // In a box, so that the future of those that need not wait stays small.
                Err(accepted) => {
                    Box::pin(shared.accept_later(topic, partition, &record, tag, accepted)).await
                }
            }
        }
    }

    /// Like [`Producer::enqueue`], but never waits: [`Error::BufferFull`] where it would, and [`Error::Unavailable`] for a
    /// topic that this process has not looked up yet.
    pub fn try_send(&self, topic: &str, record: Record) -> Result<Delivery> {
        let shared = &self.handle.shared;
        if let Ok(delivery) = shared.accept(topic, None, &record, None, |_| {}) {
            return Ok(delivery);
        }
        let topic = shared.topic_now(topic)?.ok_or_else(|| Error::Unavailable {
            what: "the topic is not known here yet",
            cause: "send or enqueue looks it up".into(),
        })?;
        record.validate(topic.record_bytes_max)?;
        let limit_bytes = shared.settings.buffer_bytes;
        let permit = shared.try_reserve(record.payload_bytes()).ok_or(Error::BufferFull { limit_bytes })?;
        shared.push_reserved(&topic, None, &record, None, permit, |_| {})
    }

    /// Sends a client's own batch to one partition under the client's identity: it is recognised when it comes again
    /// with the same first and last sequence. All or nothing; answers with the deliveries in order.
    pub async fn send_batch(
        &self,
        topic: &str,
        partition: u32,
        records: &[Record],
        identity: Identity,
    ) -> Result<Vec<Delivery>> {
        let shared = &self.handle.shared;
        let topic = shared.topic(topic).await?;
        if records.is_empty() {
            return Err(Error::invalid("batch", "is empty"));
        }
        let span = identity.last_sequence.checked_sub(identity.first_sequence);
        if identity.key.kind == IdentityKind::Dense && span.map(|span| span + 1) != Some(records.len() as u64)
        {
            return Err(Error::invalid("batch", "has not as many records as sequences"));
        }
        records.iter().try_for_each(|record| record.validate(topic.record_bytes_max))?;
        // With what each row and header costs beside its bytes: a batch that its flight has no room for must not be found
        // out when half of it is in.
        let raw_bytes: usize = records.iter().map(Record::raw_bytes).sum();
        Error::check_size("batch", raw_bytes, limits::RECORD_RAW_BYTES_MAX)?;
        let bytes: usize = records.iter().map(Record::payload_bytes).sum();
        let permit = shared.reserve(bytes).await?;
        shared.push_batch(&topic, partition, records, identity, permit)
    }

    /// Seals what is open and waits until all that was accepted before has its ack (or error).
    pub async fn flush(&self) -> Result<()> {
        let shared = &self.handle.shared;
        let until = shared.seal_all(|_| false);
        loop {
            // From before the look: what lands after it is not missed.
            let landing = shared.landing.notified();
            if shared.landed.load(Ordering::SeqCst) >= until {
                return Ok(());
            }
            landing.await;
        }
    }

    /// Tells whether any clone of it is left.
    pub(crate) fn life(&self) -> impl Fn() -> bool + Send + 'static {
        let handle = Arc::downgrade(&self.handle);
        move || handle.strong_count() > 0
    }

    /// Takes no more records, waits for the acks of those it has, and lets go of what it leads.
    pub async fn close(&self) -> Result<()> {
        let shared = &self.handle.shared;
        shared.close();
        self.flush().await?;
        if !shared.settings.lead {
            return Ok(());
        }
        // A take that is under way would outlive the letting go.
        let taking = shared.state().sending.taking.take();
        if let Some(taking) = taking {
            taking.await.map_err(|_| Error::Closed { what: "the runtime" })?;
        }
        shared.ledger.let_go().await
    }
}

impl Shared {
    fn env(&self) -> &SharedEnv {
        &self.ledger.chain.env
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no thread panicked with the buffer")
    }

    /// The topic, if this process knows it: a "yes" may come from any view (L4).
    fn topic_now(&self, name: &str) -> Result<Option<Arc<TopicInfo>>> {
        let slot = self.ledger.chain.slot();
        let mut state = self.state();
        if state.topics_slot != slot {
            state.topics.clear();
            state.topics_slot = slot;
        }
        if let Some(known) = state.topics.get(name) {
            return Ok(Some(known.clone()));
        }
        let found = self.ledger.chain.view(|view| self.topic_info(view, name))?;
        if let Some(found) = &found {
            state.topics.insert(name.to_owned(), found.clone());
        }
        Ok(found)
    }

    async fn topic(&self, name: &str) -> Result<Arc<TopicInfo>> {
        if let Some(known) = self.topic_now(name)? {
            return Ok(known);
        }
        let tick = self.ledger.chain.tick();
        let found = self.ledger.chain.fresh_view(tick, |view| self.topic_info(view, name)).await?;
        found.ok_or_else(|| Error::UnknownTopic { topic: name.to_owned() })
    }

    fn topic_info(&self, view: &View, name: &str) -> Option<Arc<TopicInfo>> {
        let (id, topic) = view.topic(name)?;
        let number = |key, default| config(topic, key).and_then(|v| v.parse().ok()).unwrap_or(default);
        let codec = config(topic, topic::COMPRESSION_TYPE).and_then(|v| v.parse().ok());
        Some(Arc::new(TopicInfo {
            id,
            name: name.into(),
            partitions: topic.partitions.len() as u32,
            record_bytes_max: number(topic::MAX_MESSAGE_BYTES, limits::RECORD_BYTES_DEFAULT),
            inline_bytes_max: number(topic::INLINE_BYTES_MAX, limits::INLINE_BYTES_MAX),
            compression: self.settings.compression.or(codec).unwrap_or_default(),
            time_type: timestamp_type(topic),
            led: if self.settings.lead { lead::led(topic, self.ledger.chain.who) } else { Vec::new() },
        }))
    }

    /// What a record takes of the buffer. A record larger than the buffer takes all of it.
    fn cost(&self, bytes: usize) -> usize {
        (bytes + limits::ROW_BYTES).min(self.settings.buffer_bytes)
    }

    /// The same for the semaphore. Fits: [`limits::BUFFER_BYTES_MAX`].
    fn permits(&self, bytes: usize) -> u32 {
        self.cost(bytes) as u32
    }

    /// Accepts a record of a topic that is known while there is room: one lock, and nothing waits. `Err`: it must wait for
    /// one or the other, or it is refused; the long way finds out which.
    #[inline]
    fn accept<F: FnOnce(u32)>(
        &self,
        name: &str,
        partition: Option<u32>,
        record: &Record,
        tag: Option<Tag>,
        accepted: F,
    ) -> std::result::Result<Delivery, F> {
        let slot = self.ledger.chain.slot();
        let State { topics, topics_slot, sending } = &mut *self.state();
        let Some(topic) = topics.get(name).filter(|_| *topics_slot == slot) else { return Err(accepted) };
        let cost = self.cost(record.payload_bytes());
        if record.validate(topic.record_bytes_max).is_err() || !self.draw(sending, cost) {
            return Err(accepted);
        }
        match self.push(sending, topic, partition, record, tag, cost) {
            Ok(delivery) => {
                accepted(delivery.partition);
                Ok(delivery)
            }
            Err(_) => {
                sending.drawn += cost;
                if sending.opens.is_empty() {
                    self.budget.add_permits(std::mem::take(&mut sending.drawn));
                }
                Err(accepted)
            }
        }
    }

    async fn accept_later(
        &self,
        topic: &str,
        partition: Option<u32>,
        record: &Record,
        tag: Option<Tag>,
        accepted: impl FnOnce(u32),
    ) -> Result<Delivery> {
        let topic = self.topic(topic).await?;
        record.validate(topic.record_bytes_max)?;
        let permit = self.reserve(record.payload_bytes()).await?;
        self.push_reserved(&topic, partition, record, tag, permit, accepted)
    }

    fn push_reserved(
        &self,
        topic: &Arc<TopicInfo>,
        partition: Option<u32>,
        record: &Record,
        tag: Option<Tag>,
        permit: SemaphorePermit<'_>,
        accepted: impl FnOnce(u32),
    ) -> Result<Delivery> {
        let State { sending, .. } = &mut *self.state();
        let delivery = self.push(sending, topic, partition, record, tag, permit.num_permits())?;
        // They are the flight's now.
        permit.forget();
        accepted(delivery.partition);
        Ok(delivery)
    }

    /// Takes so many bytes of the buffer, if it has them. Some more are drawn with them for the records to come, which
    /// then cost no atomic operation; the next seal gives back what is left.
    #[inline]
    fn draw(&self, sending: &mut Sending, bytes: usize) -> bool {
        if sending.drawn < bytes {
            let draw = |bytes| u32::try_from(bytes).ok().and_then(|n| self.budget.try_acquire_many(n).ok());
            let Some(permit) = draw(bytes + limits::DRAWN_BYTES).or_else(|| draw(bytes)) else {
                return false;
            };
            sending.drawn += permit.num_permits();
            permit.forget();
        }
        sending.drawn -= bytes;
        true
    }

    fn try_reserve(&self, bytes: usize) -> Option<SemaphorePermit<'_>> {
        self.budget.try_acquire_many(self.permits(bytes)).ok()
    }

    async fn reserve(&self, bytes: usize) -> Result<SemaphorePermit<'_>> {
        if let Some(permit) = self.try_reserve(bytes) {
            return Ok(permit);
        }
        // What is open must leave before there is room.
        self.seal_all(|_| false);
        let permit = self.budget.acquire_many(self.permits(bytes)).await;
        permit.map_err(|_| Error::Closed { what: "the producer" })
    }

    fn choose(
        &self,
        sending: &mut Sending,
        topic: &TopicInfo,
        partition: Option<u32>,
        key: Option<&[u8]>,
    ) -> Result<u32> {
        match (partition, key) {
            (Some(partition), _) if partition < topic.partitions => Ok(partition),
            (Some(partition), _) => {
                let (topic, partitions) = (topic.name.to_string(), topic.partitions);
                Err(Error::UnknownPartition { topic, partition, partitions })
            }
            (None, _) if topic.partitions == 1 => Ok(0),
            (None, Some(key)) => Ok(partitioner::keyed(key, topic.partitions)),
            (None, None) => {
                let random = || match topic.led.len() as u64 {
                    0 => (self.env().random_u64() % u64::from(topic.partitions)) as u32,
                    led => topic.led[(self.env().random_u64() % led) as usize],
                };
                let sticky = *sending.sticky.entry(topic.id).or_insert_with(random);
                Ok(sticky.min(topic.partitions - 1))
            }
        }
    }

    /// Copies a record into an open flight, whose `cost` bytes of the buffer are from now on. Nothing here waits.
    #[inline(always)]
    fn push(
        &self,
        sending: &mut Sending,
        topic: &Arc<TopicInfo>,
        partition: Option<u32>,
        record: &Record,
        tag: Option<Tag>,
        cost: usize,
    ) -> Result<Delivery> {
        let timestamp_us = self.timestamp(record)?;
        if sending.closed {
            return Err(Error::Closed { what: "the producer" });
        }
        let partition = self.choose(sending, topic, partition, record.key.as_deref())?;
        let tag = tag.or_else(|| sending.own.as_mut().map(|own| own.tag(topic.id, partition)));
        let open = self.open_for(sending, topic);
        let row = Row {
            timestamp_us,
            key: record.key.as_deref(),
            value: record.value.as_deref(),
            headers: &record.headers,
            tag,
        };
        let was_empty = open.rows == 0;
        let (chunk, row) = open.push(topic, partition, row)?;
        open.hold(cost);
        let flight = open.flight.clone();
        let is_full = open.is_full();
        if was_empty || is_full {
            self.wake.notify_one();
        }
        if is_full {
            self.seal_full(sending);
        }
        Ok(Delivery { flight, chunk, row, partition, timestamp_us })
    }

    fn push_batch(
        &self,
        topic: &Arc<TopicInfo>,
        partition: u32,
        records: &[Record],
        identity: Identity,
        permit: SemaphorePermit<'_>,
    ) -> Result<Vec<Delivery>> {
        let timestamps = records.iter().map(|record| self.timestamp(record)).collect::<Result<Vec<_>>>()?;
        let State { sending, .. } = &mut *self.state();
        if sending.closed {
            return Err(Error::Closed { what: "the producer" });
        }
        let partition = self.choose(sending, topic, Some(partition), None)?;
        let open = self.open_for(sending, topic);
        let mut deliveries = Vec::with_capacity(records.len());
        let rows = records.iter().zip(&timestamps).map(|(record, timestamp_us)| Row {
            timestamp_us: *timestamp_us,
            key: record.key.as_deref(),
            value: record.value.as_deref(),
            headers: &record.headers,
            tag: None,
        });
        for ((chunk, row), timestamp_us) in
            open.push_batch(topic, partition, rows, identity)?.into_iter().zip(timestamps)
        {
            deliveries.push(Delivery { flight: open.flight.clone(), chunk, row, partition, timestamp_us });
        }
        open.hold(permit.num_permits());
        permit.forget();
        self.wake.notify_one();
        self.seal_full(sending);
        Ok(deliveries)
    }

    fn timestamp(&self, record: &Record) -> Result<i64> {
        let now = || self.ledger.chain.now_ms().saturating_mul(1_000);
        let timestamp_us = record.timestamp_us.unwrap_or_else(now);
        check_timestamp(timestamp_us)?;
        Ok(timestamp_us)
    }

    /// The open flight that a record of this topic goes into.
    fn open_for<'a>(&self, sending: &'a mut Sending, topic: &Arc<TopicInfo>) -> &'a mut Open {
        let same_codec = |open: &Open| open.compression == topic.compression;
        // What comes next is for others; most often there is one.
        if matches!(&sending.opens[..], [open] if same_codec(open) && open.fits(topic)) {
            return &mut sending.opens[0];
        }
        // Nothing of a partition may wait in one flight while later records of it leave in another.
        if sending.opens.iter().any(|open| !open.fits(topic)) {
            seal_opens(sending);
        }
        let index = sending.opens.iter().position(same_codec).unwrap_or_else(|| {
            let budget = self.budget.clone();
            let expected = sending.expected;
            sending.opens.push(Open::new(topic.compression, self.env().monotonic(), budget, expected));
            sending.opens.len() - 1
        });
        &mut sending.opens[index]
    }

    fn seal_full(&self, sending: &mut Sending) {
        while let Some(index) = sending.opens.iter().position(Open::is_full) {
            seal(sending, index);
        }
    }

    /// Seals all that is open and answers the number of the newest sealed flight. If `failed` says so of the producer's
    /// own identity, its next records begin a new epoch.
    fn seal_all(&self, failed: impl FnOnce((ProducerKey, u16)) -> bool) -> u64 {
        let State { sending, .. } = &mut *self.state();
        seal_opens(sending);
        if let Some(own) = &mut sending.own
            && failed((own.key, own.epoch))
        {
            match own.epoch.checked_add(1) {
                Some(epoch) => (own.epoch, own.sequences) = (epoch, BTreeMap::new()),
                None => *own = Own::new(self.env().random_u64()),
            }
        }
        self.wake.notify_one();
        sending.last_number
    }

    /// The next flight to upload: a full one, or one that lingered long enough. `None`: closed, and there is none.
    async fn sealed(&self, eager: bool) -> Option<Open> {
        loop {
            let woken = self.wake.notified();
            let wait = {
                let State { sending, .. } = &mut *self.state();
                if let Some(open) = sending.sealed.pop_front() {
                    return Some(open);
                }
                if sending.closed && sending.opens.is_empty() {
                    return None;
                }
                let linger = Duration::from_millis(self.settings.linger_ms);
                let due = sending.opens.iter().map(|open| open.since + linger).min();
                let wait = due.map(|due| due.saturating_sub(self.env().monotonic()));
                if eager && (wait.is_some_and(|wait| wait.is_zero()) || sending.closed) {
                    seal_opens(sending);
                    continue;
                }
                wait
            };
            match wait.filter(|_| eager) {
                None => woken.await,
                Some(wait) => tokio::select! {
                    biased;
                    () = woken => {}
                    () = self.env().sleep(wait) => {}
                },
            }
        }
    }

    fn is_finished(&self) -> bool {
        let State { sending, .. } = &mut *self.state();
        sending.closed && sending.opens.is_empty() && sending.sealed.is_empty()
    }

    fn close(&self) {
        // Also called when a producer is dropped, perhaps because of a panic: a second one would end the process.
        let Ok(mut state) = self.state.lock() else { return };
        state.sending.closed = true;
        seal_opens(&mut state.sending);
        self.wake.notify_one();
    }

    fn inline_bytes_max(&self, chunks: &[Chunk]) -> usize {
        let topics = chunks.iter().map(|chunk| chunk.topic.inline_bytes_max).min();
        topics.unwrap_or_default().min(self.settings.inline_bytes_max)
    }

    /// Draws a name and uploads: answered for before it is used (L1).
    #[tracing::instrument(level = "debug", skip_all, fields(bytes = bytes.len(), object))]
    async fn upload(&self, bytes: Bytes) -> Result<ObjectRef> {
        let chain = &self.ledger.chain;
        // A name drawn from an old view may be below the floor by the time it is proposed.
        if chain.age() > Duration::from_millis(limits::SWEEP_LAG_MS / 2) {
            chain.refresh(chain.tick()).await?;
        }
        let drawn = chain.view(|view| view.slot)?;
        let ulid = if plant::on(Bug::NameReused) { 0 } else { Ulid::draw(&**self.env()).0 };
        let object = ObjectRef { era: chain.era, ledger: LEDGER, drawn, ulid };
        let name = ObjectName::from(&object);
        if plant::on(Bug::CommitBeforeUpload) {
            let objects = chain.objects.clone();
            tokio::spawn(async move { objects.put_new(&name, bytes).await });
            return Ok(object);
        }
        tracing::Span::current().record("object", tracing::field::display(&name));
        let (began, length) = (chain.env.monotonic(), bytes.len() as u64);
        chain.objects.put_new(&name, bytes).await?;
        chain.took(Metric::UploadUs, began);
        chain.metrics.record(Metric::SegmentBytes, length);
        Ok(object)
    }

    /// Claims its share of the topics it writes to, and takes over from leaders that fell silent. Off the ack path; a
    /// failure costs nothing but conflicts.
    fn lead(self: &Arc<Self>, landed: &[Landed]) {
        if !self.settings.lead {
            return;
        }
        let State { sending, .. } = &mut *self.state();
        let now = self.env().monotonic();
        let calm = Duration::from_millis(limits::LEADER_SILENCE_MS);
        if sending.led_at.is_some_and(|at| now.saturating_sub(at) < calm / 10) {
            return;
        }
        let held: Vec<_> = landed.iter().map(|landed| (landed.topic.id, landed.partition)).collect();
        let who = self.ledger.chain.who;
        let mut take = self.ledger.chain.with_leaders(|view, seen, now| {
            let mut take = lead::takeovers(view, seen, who, &held, now);
            for landed in landed.iter().filter(|landed| !sending.claimed.contains(&landed.topic.id)) {
                take.extend(lead::claims(view, seen, who, landed.topic.id, now));
            }
            take
        });
        sending.claimed.extend(landed.iter().map(|landed| landed.topic.id));
        take.sort_unstable();
        take.dedup();
        take.truncate(limits::PARTITIONS_PER_LEAD);
        sending.led_at = Some(now);
        if take.is_empty() {
            return;
        }
        let (ledger, before) = (self.ledger.clone(), sending.taking.take());
        sending.taking = Some(tokio::spawn(async move {
            if let Some(before) = before {
                // It told what went wrong itself.
                let _ = before.await;
            }
            if let Err(error) = ledger.take(take).await {
                tracing::debug!(%error, "could not take partitions");
            }
        }));
    }

    fn note_sealed(&self, open: &Open) {
        let metrics = &self.ledger.chain.metrics;
        metrics.record(Metric::RecordsSent, open.rows as u64);
        metrics.record(Metric::BytesSent, open.raw_bytes as u64);
        self.note_buffered();
    }

    fn note_buffered(&self) {
        let held = self.settings.buffer_bytes.saturating_sub(self.budget.available_permits());
        self.ledger.chain.metrics.record(Metric::BufferedBytes, held as u64);
    }

    /// Adds up a flight, so that the hook is called a few times and not for each batch.
    fn note_landed(&self, landed: &[Landed], since: Duration) {
        let (mut batches, mut appended, mut duplicate) = (0, 0, 0);
        let mut refused = BTreeMap::<&'static str, u64>::new();
        for batch in answered(landed) {
            let rows = u64::from(batch.rows);
            batches += 1;
            match batch.result {
                BatchResult::Placed { .. } => appended += rows,
                BatchResult::Duplicate { .. } => duplicate += rows,
                BatchResult::Failed(error) => *refused.entry(error.name()).or_default() += rows,
                BatchResult::Redraw => {}
            }
        }
        let chain = &self.ledger.chain;
        let counts = [
            (Metric::Batches, batches),
            (Metric::RecordsAppended, appended),
            (Metric::RecordsDuplicate, duplicate),
        ];
        let refused = refused.into_iter().map(|(error, rows)| (Metric::RecordsRefused(error), rows));
        for (metric, count) in counts.into_iter().chain(refused).filter(|(_, count)| *count > 0) {
            chain.metrics.record(metric, count);
        }
        chain.took(Metric::AckUs, since);
    }

    fn acked(&self, landed: &[Landed]) {
        let Some(hook) = &self.on_ack else { return };
        let batches: Vec<Acked<'_>> = answered(landed).collect();
        let mut hook = hook.lock().expect("no ack hook panicked");
        hook(&batches);
    }

    fn landed(&self, number: u64) {
        self.landed.store(number, Ordering::SeqCst);
        self.landing.notify_waiters();
    }
}

/// The batches of a flight and what became of them.
fn answered(landed: &[Landed]) -> impl Iterator<Item = Acked<'_>> {
    landed.iter().flat_map(|landed| {
        let ends = landed.batches.iter().skip(1).map(|(first, _)| *first).chain([landed.rows]);
        landed.batches.iter().zip(ends).map(|((first, result), end)| Acked {
            topic: &landed.topic.name,
            partition: landed.partition,
            rows: end - first,
            result,
        })
    })
}

fn seal(sending: &mut Sending, index: usize) {
    let mut open = sending.opens.remove(index);
    sending.last_number += 1;
    open.number = sending.last_number;
    open.give_back(std::mem::take(&mut sending.drawn));
    sending.expected = open.expect();
    sending.sealed.push_back(open);
    sending.sticky.clear();
}

fn seal_opens(sending: &mut Sending) {
    while !sending.opens.is_empty() {
        seal(sending, 0);
    }
}

fn config<'a>(topic: &'a Topic, key: &str) -> Option<&'a str> {
    topic.config.get(key).map(String::as_str)
}
