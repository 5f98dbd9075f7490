//! The front door: open a log, make producers, consumers and an admin.

use std::sync::Arc;
use std::time::Duration;

use crate::append::{AckHook, Acked, Producer, ProducerSettings};
use crate::env::{SharedEnv, SystemEnv, random_u128};
use crate::error::{Error, Result};
use crate::fetch::{Consumer, ConsumerSettings, Fetcher, Position};
use crate::ledger::action::{Action, GroupOffset, GroupOffsets, TopicChange, TrimTo};
use crate::ledger::commit::Committed;
use crate::ledger::view::View;
use crate::ledger::{Ledger, Settings};
use crate::limits;
use crate::metrics::SharedMetrics;
use crate::plant::{self, Bug};
use crate::record::{Offset, TopicId};
use crate::segment::Compression;
use crate::store::{Store, StoreUrl, probe};
use crate::upkeep::{BRAKE_GROUP, Upkeep, UpkeepSettings};

/// An open log. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Log {
    ledger: Ledger,
    store: Arc<Store>,
}

impl Log {
    /// Opens the log at `url`, beginning it on first use. A folder is made, a bucket and a table must be there.
    pub async fn open(url: &str) -> Result<Self> {
        Self::builder().open(url).await
    }

    /// Opens the log at `url`, making all that is absent: bucket and table, too.
    pub async fn init(url: &str) -> Result<Self> {
        Self::builder().make_store(true).open(url).await
    }

    /// Opens the log at `url` if there is one.
    pub async fn open_existing(url: &str) -> Result<Self> {
        Self::builder().create(false).open(url).await
    }

    /// Opens a log with options.
    pub fn builder() -> LogBuilder {
        let (env, settings, metrics) = (SystemEnv::shared(), Settings::default(), Arc::new(()));
        LogBuilder { env, create: true, make_store: false, settings, metrics }
    }

    /// Opens a log on a store that the caller made.
    pub async fn with_store(store: Store, env: SharedEnv, create: bool, settings: Settings) -> Result<Self> {
        Self::builder().env(env).create(create).settings(settings).open_store(store).await
    }

    /// The ledger, for tools.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// The store, for tools.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// A producer with options.
    pub fn producer(&self) -> ProducerBuilder {
        let (ledger, settings) = (self.ledger.clone(), ProducerSettings::default());
        ProducerBuilder { ledger, settings, on_ack: None, upkeep: true }
    }

    /// A consumer of `topic` with options.
    pub fn consumer(&self, topic: &str) -> ConsumerBuilder {
        let (ledger, topic) = (self.ledger.clone(), topic.to_owned());
        ConsumerBuilder { ledger, topic, settings: ConsumerSettings::default() }
    }

    /// Reads by offset, without the state of a consumer.
    pub fn fetcher(&self) -> Fetcher {
        Fetcher::new(self.ledger.clone(), limits::CACHE_BYTES_DEFAULT)
    }

    /// Topics and groups.
    pub fn admin(&self) -> Admin {
        Admin { ledger: self.ledger.clone() }
    }

    /// Trims by retention and deletes what nobody needs.
    pub fn upkeep(&self, settings: UpkeepSettings) -> Upkeep {
        Upkeep::new(self.ledger.clone(), settings)
    }
}

/// Options of a [`Log`].
#[derive(Debug, Clone)]
pub struct LogBuilder {
    env: SharedEnv,
    create: bool,
    make_store: bool,
    settings: Settings,
    metrics: SharedMetrics,
}

impl LogBuilder {
    /// Time and randomness: the machine's own unless set.
    pub fn env(mut self, env: SharedEnv) -> Self {
        self.env = env;
        self
    }

    /// Whether a log that is not there is made: it is unless set.
    pub fn create(mut self, create: bool) -> Self {
        self.create = create;
        self
    }

    /// Whether a bucket and a table that are absent are made, too: they are not unless set.
    pub fn make_store(mut self, make_store: bool) -> Self {
        self.make_store = make_store;
        self
    }

    /// When the ledger's upkeep happens.
    pub fn settings(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
    }

    /// Hears what the log did; see [`metrics`](crate::metrics).
    pub fn metrics(mut self, metrics: SharedMetrics) -> Self {
        self.metrics = metrics;
        self
    }

    /// Opens the log at `url`: a folder, `memory:`, or a bucket and a table.
    pub async fn open(self, url: &str) -> Result<Log> {
        let url: StoreUrl = url.parse()?;
        let make = self.create && (self.make_store || url.made_on_first_use());
        let store = Store::open(&url, self.env.clone(), make).await?;
        self.open_store(store).await
    }

    /// Opens the log on a store that the caller made.
    pub async fn open_store(self, store: Store) -> Result<Log> {
        let (table, objects, era) = (store.table.clone(), store.objects.clone(), store.era());
        let ledger = Ledger::open(table, objects, self.env, era, self.settings, self.metrics).await?;
        if ledger.chain.view(View::is_empty)? {
            if !self.create {
                let reason = "there is no log in it: make one with `tidelog init`".to_owned();
                return Err(Error::CannotOpen { url: store.url.to_string(), reason });
            }
            probe(&store.table, &store.objects, &*ledger.chain.env).await?;
            ledger.init().await?;
        }
        Ok(Log { ledger, store: Arc::new(store) })
    }
}

/// Options of a [`Producer`].
pub struct ProducerBuilder {
    ledger: Ledger,
    settings: ProducerSettings,
    on_ack: Option<AckHook>,
    upkeep: bool,
}

impl std::fmt::Debug for ProducerBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProducerBuilder").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl ProducerBuilder {
    /// Time a record waits for company: 5 ms unless set; 0 sends at once.
    pub fn linger_ms(mut self, linger_ms: u64) -> Self {
        self.settings.linger_ms = linger_ms;
        self
    }

    /// Unacknowledged bytes at which `send` waits: 64 MiB unless set.
    pub fn buffer_bytes(mut self, buffer_bytes: usize) -> Self {
        self.settings.buffer_bytes = buffer_bytes;
        self
    }

    /// Largest flush that rides inside its commit: 4 KiB unless set; 0 writes every record to a segment.
    pub fn inline_bytes_max(mut self, inline_bytes_max: usize) -> Self {
        self.settings.inline_bytes_max = inline_bytes_max;
        self
    }

    /// Codec of the segments, whatever the topics say.
    pub fn compression(mut self, compression: Compression) -> Self {
        self.settings.compression = Some(compression);
        self
    }

    /// Gives every record a sequence, so that no retry of this producer duplicates it.
    pub fn idempotent(mut self, idempotent: bool) -> Self {
        self.settings.idempotent = idempotent;
        self
    }

    /// Leads partitions: unkeyed records go to those, in few, long slices. For writers that live long. One of the processes
    /// that lead also merges, trims and sweeps, every 20 s or so, unless [`upkeep`](Self::upkeep) says no.
    pub fn lead(mut self, lead: bool) -> Self {
        self.settings.lead = lead;
        self
    }

    /// Whether this process may do the log's upkeep where it leads: yes unless set. Where it has not the right to, it leaves
    /// that to others.
    pub fn upkeep(mut self, upkeep: bool) -> Self {
        self.upkeep = upkeep;
        self
    }

    /// How long a batch with an identity is tried again: two minutes unless set.
    pub fn delivery_timeout_ms(mut self, delivery_timeout_ms: u64) -> Self {
        self.settings.delivery_timeout_ms = delivery_timeout_ms;
        self
    }

    /// Is called with the batches of each flight before the next flight is committed.
    pub fn on_ack(mut self, hook: impl FnMut(&[Acked<'_>]) + Send + 'static) -> Self {
        self.on_ack = Some(Box::new(hook));
        self
    }

    /// Starts it.
    pub fn build(self) -> Result<Producer> {
        let keeps = self.settings.lead && self.upkeep;
        let upkeep = keeps.then(|| Upkeep::new(self.ledger.clone(), UpkeepSettings::default()));
        let producer = Producer::start(self.ledger, self.settings, self.on_ack)?;
        if let Some(upkeep) = upkeep {
            let run_max = Duration::from_millis(limits::KEEP_RUN_MS);
            tokio::spawn(upkeep.within(run_max).keep(producer.life()));
        }
        Ok(producer)
    }
}

/// Options of a [`Consumer`].
#[derive(Debug)]
pub struct ConsumerBuilder {
    ledger: Ledger,
    topic: String,
    settings: ConsumerSettings,
}

impl ConsumerBuilder {
    /// Only these partitions.
    pub fn partitions(mut self, partitions: impl Into<Vec<u32>>) -> Self {
        self.settings.partitions = Some(partitions.into());
        self
    }

    /// Where to begin: the log start unless set.
    pub fn from(mut self, from: Position) -> Self {
        self.settings.from = from;
        self
    }

    /// Where to end; unless set, the consumer follows.
    pub fn until(mut self, until: Position) -> Self {
        self.settings.until = Some(until);
        self
    }

    /// Begins at the group's stored offsets where there are any. Two members of one group both get everything for now.
    pub fn group(mut self, group: impl Into<String>) -> Self {
        self.settings.group = Some(group.into());
        self
    }

    /// Bytes of one fetch: 8 MiB unless set.
    pub fn fetch_bytes_max(mut self, fetch_bytes_max: usize) -> Self {
        self.settings.fetch_bytes_max = fetch_bytes_max;
        self
    }

    /// Bytes of decoded segments kept: 64 MiB unless set.
    pub fn cache_bytes(mut self, cache_bytes: u64) -> Self {
        self.settings.cache_bytes = cache_bytes;
        self
    }

    /// Looks up where to begin and end.
    pub async fn build(self) -> Result<Consumer> {
        Consumer::start(self.ledger, &self.topic, self.settings).await
    }
}

/// Topics and groups of a log.
#[derive(Debug, Clone)]
pub struct Admin {
    ledger: Ledger,
}

/// A topic, as of a fresh read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicDescription {
    /// Name.
    pub name: String,
    /// Id.
    pub id: TopicId,
    /// Append time of its creation, ms.
    pub created_ms: i64,
    /// What was set.
    pub config: Vec<(String, String)>,
    /// Its partitions.
    pub partitions: Vec<PartitionDescription>,
}

/// A partition, as of a fresh read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionDescription {
    /// Number.
    pub partition: u32,
    /// First readable offset.
    pub log_start: Offset,
    /// One past the last readable offset.
    pub high_watermark: Offset,
    /// Process that leads it.
    pub leader: Option<u64>,
    /// Leader epoch; −1: nobody ever led.
    pub leader_epoch: i64,
    /// Unmerged slices.
    pub slices: usize,
    /// Producers remembered.
    pub producers: usize,
}

/// A stored offset of a group, and how far behind it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupLag {
    /// Topic name.
    pub topic: String,
    /// Partition.
    pub partition: u32,
    /// Next offset to read.
    pub offset: Offset,
    /// One past the last readable offset.
    pub high_watermark: Offset,
    /// Records not read yet.
    pub lag: u64,
    /// The consumer's own words.
    pub metadata: String,
}

impl Admin {
    async fn fresh<T>(&self, look: impl FnOnce(&View) -> T) -> Result<T> {
        self.ledger.chain.fresh_view(self.ledger.chain.tick(), look).await
    }

    async fn topic_id(&self, name: &str) -> Result<TopicId> {
        self.fresh(|view| view.topic_or_unknown(name).map(|(id, _)| id)).await?
    }

    /// Creates a topic.
    pub async fn create_topic(
        &self,
        name: &str,
        partitions: u32,
        config: &[(String, String)],
    ) -> Result<TopicId> {
        let id = match plant::on(Bug::TopicIdReused) {
            true => TopicId(name.bytes().fold(1, |id, byte| id << 8 | u128::from(byte))),
            false => TopicId(random_u128(&*self.ledger.chain.env)),
        };
        let (name, config) = (name.to_owned(), config.to_vec());
        self.ledger.act(Action::Topic(TopicChange::Create { id, name, partitions, config })).await?;
        Ok(id)
    }

    /// More partitions, other configuration (`None` removes a key).
    pub async fn alter_topic(
        &self,
        name: &str,
        partitions: Option<u32>,
        config: &[(String, Option<String>)],
    ) -> Result<Committed> {
        let id = self.topic_id(name).await?;
        let change = TopicChange::Alter { id, partitions, config: config.to_vec() };
        self.ledger.act(Action::Topic(change)).await.map_err(|error| error.of_topic(name))
    }

    /// Deletes a topic and all its records.
    pub async fn delete_topic(&self, name: &str) -> Result<Committed> {
        let id = self.topic_id(name).await?;
        let change = TopicChange::Delete { id };
        self.ledger.act(Action::Topic(change)).await.map_err(|error| error.of_topic(name))
    }

    /// Moves log starts: the records before are gone for every reader, their space is freed by sweep. One position for all
    /// of `partitions` (`None`: every partition of the topic); answers the log starts afterwards. A position at or before a
    /// log start changes nothing.
    ///
    /// # Errors
    /// `OffsetOutOfRange`: an offset past the end of a partition; nothing was changed then.
    pub async fn delete_records(
        &self,
        topic: &str,
        partitions: Option<&[u32]>,
        before: Position,
    ) -> Result<Vec<(u32, Offset)>> {
        let found = self.describe_topic(topic).await?;
        let all: Vec<u32> = (0..found.partitions.len() as u32).collect();
        let fetcher = Fetcher::new(self.ledger.clone(), limits::CACHE_BYTES_DEFAULT);
        let (mut starts, mut trims) = (Vec::new(), Vec::new());
        for &partition in partitions.unwrap_or(&all) {
            let (log_start, high_watermark) = fetcher.watermarks(topic, partition).await?;
            let to = match before {
                Position::Start => log_start,
                Position::End => high_watermark,
                Position::Offset(offset) => offset,
                Position::Time(time_us) => {
                    fetcher.offset_at(topic, partition, time_us).await?.unwrap_or(high_watermark)
                }
            };
            if to > high_watermark {
                let topic = topic.to_owned();
                return Err(Error::OffsetOutOfRange {
                    topic,
                    partition,
                    offset: to,
                    log_start,
                    high_watermark,
                });
            }
            starts.push((partition, log_start.max(to)));
            if to > log_start {
                trims.push(TrimTo {
                    topic: found.id,
                    partition,
                    log_start: to,
                    oldest_ms: 0,
                    oldest_bytes: 0,
                });
            }
        }
        Upkeep::new(self.ledger.clone(), UpkeepSettings::default()).move_starts(&trims).await?;
        Ok(starts)
    }

    /// Names of all topics, in order.
    pub async fn topics(&self) -> Result<Vec<String>> {
        self.fresh(|view| view.names.keys().cloned().collect()).await
    }

    /// A topic and its partitions.
    pub async fn describe_topic(&self, name: &str) -> Result<TopicDescription> {
        self.fresh(|view| {
            let (id, topic) = view.topic_or_unknown(name)?;
            let describe = |(number, p): (usize, &crate::ledger::view::Partition)| PartitionDescription {
                partition: number as u32,
                log_start: p.log_start,
                high_watermark: p.next,
                leader: p.leader,
                leader_epoch: p.leader_epoch(),
                slices: p.slices.len(),
                producers: p.producers.len(),
            };
            Ok(TopicDescription {
                name: name.to_owned(),
                id,
                created_ms: topic.created_ms,
                config: topic.config.clone().into_iter().collect(),
                partitions: topic.partitions.iter().enumerate().map(describe).collect(),
            })
        })
        .await?
    }

    /// Names of all consumer groups, in order.
    pub async fn groups(&self) -> Result<Vec<String>> {
        let consumers =
            |view: &View| view.groups.keys().filter(|name| *name != BRAKE_GROUP).cloned().collect();
        self.fresh(consumers).await
    }

    /// A group's stored offsets and lag.
    pub async fn describe_group(&self, group: &str) -> Result<Vec<GroupLag>> {
        self.fresh(|view| {
            let found =
                view.groups.get(group).ok_or_else(|| Error::UnknownGroup { group: group.to_owned() })?;
            let lag = |((topic, partition), stored): (&(TopicId, u32), &crate::ledger::view::Stored)| {
                let known = view.topics.get(topic)?;
                let p = known.partitions.get(*partition as usize)?;
                Some(GroupLag {
                    topic: known.name.clone(),
                    partition: *partition,
                    offset: stored.offset,
                    high_watermark: p.next,
                    lag: p.next.saturating_sub(stored.offset.max(p.log_start)),
                    metadata: stored.metadata.clone(),
                })
            };
            Ok(found.offsets.iter().filter_map(lag).collect())
        })
        .await?
    }

    /// Stores offsets for a group: the next to read; `None` forgets a partition.
    pub async fn store_offsets(
        &self,
        group: &str,
        topic: &str,
        offsets: &[(u32, Option<Offset>)],
    ) -> Result<()> {
        let id = self.topic_id(topic).await?;
        for offsets in offsets.chunks(limits::GROUP_OFFSETS_PER_COMMIT_MAX) {
            let entry = |(partition, offset): &(u32, Option<Offset>)| GroupOffset {
                topic: id,
                partition: *partition,
                offset: *offset,
                leader_epoch: -1,
                metadata: String::new(),
            };
            let offsets = offsets.iter().map(entry).collect();
            let (group, member) = (group.to_owned(), String::new());
            let offsets = GroupOffsets { group, member, generation: -1, offsets };
            self.ledger.act(Action::Offsets(offsets)).await.map_err(|error| error.of_topic(topic))?;
        }
        Ok(())
    }

    /// Forgets a group.
    pub async fn delete_group(&self, group: &str) -> Result<()> {
        let lags = self.describe_group(group).await?;
        let mut topics: Vec<&str> = lags.iter().map(|lag| lag.topic.as_str()).collect();
        topics.dedup();
        for topic in topics {
            let of = lags.iter().filter(|lag| lag.topic == topic);
            let offsets: Vec<_> = of.map(|lag| (lag.partition, None)).collect();
            self.store_offsets(group, topic, &offsets).await?;
        }
        Ok(())
    }
}
