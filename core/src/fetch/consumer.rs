//! A consumer: follows the partitions of one topic, in offset order within each, as a [`Stream`].
//!
//! It writes nothing, unless it is told to store group offsets.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;

use super::{FetchLimits, Fetched, Fetcher, Run};
use crate::error::{Error, ErrorKind, Result};
use crate::ledger::Ledger;
use crate::ledger::action::{Action, GroupOffset, GroupOffsets};
use crate::ledger::view::{Topic, View};
use crate::limits;
use crate::record::{ConsumerRecord, Offset, TopicId};

/// Where to begin or end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Position {
    /// The log start.
    Start,
    /// The end, as it is when the consumer starts.
    End,
    /// This offset.
    Offset(Offset),
    /// The first record at or after this time, µs since 1970.
    Time(i64),
}

/// A consumer's settings. Data only; see [`ConsumerBuilder`](crate::ConsumerBuilder) for what each does.
#[derive(Debug, Clone)]
pub struct ConsumerSettings {
    /// Which partitions; `None`: all that there are, and those that are added.
    pub partitions: Option<Vec<u32>>,
    /// Where to begin; a group's stored offset comes first.
    pub from: Position,
    /// Where to end; `None`: follow.
    pub until: Option<Position>,
    /// Consumer group whose stored offsets are used.
    pub group: Option<String>,
    /// Bytes of one fetch.
    pub fetch_bytes_max: usize,
    /// Bytes of decoded segments kept.
    pub cache_bytes: u64,
}

impl Default for ConsumerSettings {
    fn default() -> Self {
        Self {
            partitions: None,
            from: Position::Start,
            until: None,
            group: None,
            fetch_bytes_max: limits::FETCH_BYTES_DEFAULT,
            cache_bytes: limits::CACHE_BYTES_DEFAULT,
        }
    }
}

/// A record with the place it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Topic name.
    pub topic: Arc<str>,
    /// Partition.
    pub partition: u32,
    /// The record.
    pub record: ConsumerRecord,
}

/// One partition on its way.
#[derive(Debug)]
struct Track {
    partition: u32,
    /// The next offset to hand out.
    next: Offset,
    until: Option<Offset>,
    ready: VecDeque<Run>,
    /// Rows of the first run handed out already.
    taken: usize,
    /// Where the next fetch begins.
    fetch_at: Offset,
    fetching: Option<tokio::task::JoinHandle<Result<Fetched>>>,
}

impl Track {
    fn new(partition: u32, next: Offset, until: Option<Offset>) -> Self {
        Self { partition, next, until, ready: VecDeque::new(), taken: 0, fetch_at: next, fetching: None }
    }

    fn is_done(&self) -> bool {
        self.until.is_some_and(|until| self.next >= until)
    }
}

impl Drop for Track {
    fn drop(&mut self) {
        if let Some(fetching) = &self.fetching {
            fetching.abort();
        }
    }
}

/// Follows a topic. See the module.
pub struct Consumer {
    ledger: Ledger,
    fetcher: Fetcher,
    topic: Arc<str>,
    /// The topic's, when this consumer began: offsets of one are nothing to the next of that name.
    id: TopicId,
    settings: ConsumerSettings,
    tracks: Vec<Track>,
    turn: usize,
    /// At the end of all partitions: waits for the next commit. A task of its own, because it reads the tail for the whole
    /// process: polled from here, it would stop everybody for as long as nobody asks this consumer for a record.
    waiting: Option<tokio::task::JoinHandle<Result<()>>>,
    /// The commit up to which partitions were looked for.
    slot: u64,
}

impl Drop for Consumer {
    fn drop(&mut self) {
        if let Some(waiting) = &self.waiting {
            waiting.abort();
        }
    }
}

impl std::fmt::Debug for Consumer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Consumer")
            .field("topic", &self.topic)
            .field("tracks", &self.tracks)
            .finish_non_exhaustive()
    }
}

impl Consumer {
    /// Looks up where to begin and end.
    pub async fn start(ledger: Ledger, topic: &str, settings: ConsumerSettings) -> Result<Self> {
        let fetcher = Fetcher::new(ledger.clone(), settings.cache_bytes);
        let (topic, id, tracks, slot) = (topic.into(), TopicId(0), Vec::new(), ledger.chain.slot());
        let mut consumer =
            Self { ledger, fetcher, topic, id, settings, tracks, turn: 0, waiting: None, slot };
        consumer.assign().await?;
        Ok(consumer)
    }

    /// The next record; `None`: `until` is reached. Cancel-safe: a dropped call loses no record. After a retriable error
    /// the next call tries again.
    pub async fn next_message(&mut self) -> Option<Result<Message>> {
        use futures::StreamExt;
        self.next().await
    }

    /// Goes on at `offset` of `partition`.
    pub fn seek(&mut self, partition: u32, offset: Offset) -> Result<()> {
        let unknown = || Error::invalid("partition", format!("{partition} is not consumed here"));
        let track = self.tracks.iter_mut().find(|track| track.partition == partition).ok_or_else(unknown)?;
        let until = track.until;
        *track = Track::new(partition, offset, until);
        Ok(())
    }

    /// The next offset of each partition.
    pub fn positions(&self) -> Vec<(u32, Offset)> {
        self.tracks.iter().map(|track| (track.partition, track.next)).collect()
    }

    /// Stores the positions as the group's offsets: all that was handed out counts as done.
    ///
    /// # Errors
    /// `TopicDeleted`: nothing is stored for another topic of that name. `InvalidField`: there is no group. Those of the ledger.
    pub async fn store_offsets(&mut self) -> Result<()> {
        let Some(group) = self.settings.group.clone() else {
            return Err(Error::invalid("group", "is not set: there is nowhere to store offsets"));
        };
        let epochs = self.ledger.chain.view(|view| {
            let topic = self.topic_in(view)?;
            let epoch = |track: &Track| {
                topic.partitions.get(track.partition as usize).map_or(-1, |p| p.leader_epoch() as i32)
            };
            Ok::<_, Error>(self.tracks.iter().map(epoch).collect::<Vec<_>>())
        })??;
        let offset = |(track, leader_epoch): (&Track, i32)| GroupOffset {
            topic: self.id,
            partition: track.partition,
            offset: Some(track.next),
            leader_epoch,
            metadata: String::new(),
        };
        let offsets: Vec<GroupOffset> = self.tracks.iter().zip(epochs).map(offset).collect();
        for offsets in offsets.chunks(limits::GROUP_OFFSETS_PER_COMMIT_MAX) {
            let (group, offsets) = (group.clone(), offsets.to_vec());
            let stored = GroupOffsets { group, member: String::new(), generation: -1, offsets };
            self.ledger.act(Action::Offsets(stored)).await.map_err(|error| error.of_topic(&self.topic))?;
        }
        Ok(())
    }

    /// The topic that it began with.
    fn topic_in<'a>(&self, view: &'a View) -> Result<&'a Topic> {
        view.topics.get(&self.id).ok_or_else(|| Error::TopicDeleted { topic: self.topic.to_string() })
    }
}

impl Stream for Consumer {
    type Item = Result<Message>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            // Most records are at hand.
            if let Some(message) = this.ready() {
                return Poll::Ready(Some(Ok(message)));
            }
            if let Err(error) = this.start_fetches() {
                return Poll::Ready(Some(Err(error)));
            }
            match this.poll_fetches(context) {
                Some(Ok(())) => continue,
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None if this.tracks.iter().any(|track| track.fetching.is_some()) => return Poll::Pending,
                None => {}
            }
            if this.settings.until.is_some() && this.tracks.iter().all(Track::is_done) {
                return Poll::Ready(None);
            }
            let ledger = &this.ledger;
            let waiting = this.waiting.get_or_insert_with(|| tokio::spawn(next_commit(ledger.clone())));
            let Poll::Ready(waited) = Pin::new(waiting).poll(context) else { return Poll::Pending };
            this.waiting = None;
            let waited = waited.unwrap_or(Err(Error::Closed { what: "the runtime" }));
            if let Err(error) = waited.and_then(|()| this.add_partitions()) {
                return Poll::Ready(Some(Err(error)));
            }
        }
    }
}

/// Follows the ledger for a while: one query serves every partition. A store that does not answer is asked again.
async fn next_commit(ledger: Ledger) -> Result<()> {
    let chain = &ledger.chain;
    let deadline = chain.env.monotonic() + Duration::from_millis(limits::POLL_MS_MAX);
    match chain.wait_past(chain.slot(), deadline).await {
        Err(error) if error.kind() == ErrorKind::Retry => {
            tracing::warn!(%error, "cannot read the ledger; trying again");
            chain.pause(4).await;
            Ok(())
        }
        other => other,
    }
}

impl Consumer {
    /// Takes in what fetches brought. `None`: nothing yet.
    fn poll_fetches(&mut self, context: &mut Context<'_>) -> Option<Result<()>> {
        let mut found = None;
        for track in &mut self.tracks {
            let Some(fetching) = &mut track.fetching else { continue };
            let Poll::Ready(fetched) = Pin::new(fetching).poll(context) else { continue };
            track.fetching = None;
            match fetched.unwrap_or(Err(Error::Closed { what: "the runtime" })) {
                Ok(fetched) if fetched.topic != self.id => {
                    return Some(Err(Error::TopicDeleted { topic: self.topic.to_string() }));
                }
                Ok(fetched) => {
                    track.fetch_at = fetched.next;
                    track.ready.extend(fetched.runs);
                    found = Some(Ok(()));
                }
                // The others keep what they have; this one is asked for again.
                Err(error) => return Some(Err(error)),
            }
        }
        found
    }

    /// A record that is in memory already, from the partition whose turn it is.
    fn ready(&mut self) -> Option<Message> {
        for step in 0..self.tracks.len() {
            let index = (self.turn + step) % self.tracks.len();
            let track = &mut self.tracks[index];
            let Some(run) =
                track.ready.front().filter(|_| track.until.is_none_or(|until| track.next < until))
            else {
                continue;
            };
            let record = run.record(track.taken);
            track.taken += 1;
            track.next = record.offset + 1;
            if track.taken == run.rows.len() {
                track.ready.pop_front();
                track.taken = 0;
                // Runs are handed out whole, so that a partition's records come together; then the next has its turn.
                self.turn = index + 1;
            } else {
                self.turn = index;
            }
            return Some(Message { topic: self.topic.clone(), partition: track.partition, record });
        }
        None
    }

    /// Read-ahead: one fetch a partition, while at most two runs of it wait.
    fn start_fetches(&mut self) -> Result<()> {
        let ends: Vec<Offset> = self.ledger.chain.view(|view| {
            let topic = self.topic_in(view)?;
            let end = |track: &Track| topic.partitions.get(track.partition as usize).map_or(0, |p| p.next);
            Ok::<_, Error>(self.tracks.iter().map(end).collect())
        })??;
        let mut under_way = self.tracks.iter().filter(|track| track.fetching.is_some()).count();
        for (track, end) in self.tracks.iter_mut().zip(ends) {
            if under_way >= limits::FETCHES_MAX {
                break;
            }
            let enough = track.until.is_some_and(|until| track.fetch_at >= until);
            if track.fetching.is_some() || enough || track.ready.len() > 2 || track.fetch_at >= end {
                // At or past the end there is nothing to fetch, unless the offset is out of range.
                if track.fetch_at <= end || track.fetching.is_some() || enough {
                    continue;
                }
            }
            let (fetcher, topic, partition, at) =
                (self.fetcher.clone(), self.topic.clone(), track.partition, track.fetch_at);
            let limits = FetchLimits { bytes_max: self.settings.fetch_bytes_max, ..FetchLimits::default() };
            under_way += 1;
            track.fetching =
                Some(tokio::spawn(async move { fetcher.fetch(&topic, partition, at, limits).await }));
        }
        Ok(())
    }

    /// Partitions that were added since are read from their start.
    fn add_partitions(&mut self) -> Result<()> {
        let slot = self.ledger.chain.slot();
        if self.settings.partitions.is_some() || self.settings.until.is_some() || slot == self.slot {
            return Ok(());
        }
        self.slot = slot;
        let count =
            self.ledger.chain.view(|view| self.topic_in(view).map(|topic| topic.partitions.len()))??;
        for partition in self.tracks.len() as u32..count as u32 {
            self.tracks.push(Track::new(partition, 0, None));
        }
        self.read_beside();
        Ok(())
    }

    fn read_beside(&mut self) {
        let partitions: Vec<u32> = self.tracks.iter().map(|track| track.partition).collect();
        self.fetcher = self.fetcher.clone().beside(&partitions);
    }

    async fn assign(&mut self) -> Result<()> {
        let chain = &self.ledger.chain;
        let group = self.settings.group.clone();
        let (id, partitions, stored) = chain
            .fresh_view(chain.tick(), |view| {
                let (id, topic) = view.topic_or_unknown(&self.topic)?;
                let offsets = group.and_then(|group| view.groups.get(&group)).map(|group| &group.offsets);
                let stored =
                    |p: usize| offsets.and_then(|o| o.get(&(id, p as u32))).map(|stored| stored.offset);
                let bounds = topic.partitions.iter().enumerate();
                let bounds = bounds.map(|(p, found)| (found.log_start, found.next, stored(p)));
                Ok::<_, Error>((id, topic.partitions.len() as u32, bounds.collect::<Vec<_>>()))
            })
            .await??;
        self.id = id;
        let wanted = self.settings.partitions.clone().unwrap_or_else(|| (0..partitions).collect());
        for partition in wanted {
            let unknown = || Error::UnknownPartition { topic: self.topic.to_string(), partition, partitions };
            let (log_start, end, stored) = *stored.get(partition as usize).ok_or_else(unknown)?;
            let from = match stored {
                // Records below the log start are gone; a group goes on with what is left.
                Some(stored) => stored.max(log_start),
                None => self.resolve(self.settings.from, partition, (log_start, end)).await?,
            };
            // Told now, and not only when something is fetched: `until` may lie before it. A time is looked up in a view
            // that may be newer than `end`.
            let exact = stored.is_some() || matches!(self.settings.from, Position::Offset(_));
            if exact && !(log_start..=end).contains(&from) {
                let (topic, offset, high_watermark) = (self.topic.to_string(), from, end);
                return Err(Error::OffsetOutOfRange { topic, partition, offset, log_start, high_watermark });
            }
            let until = match self.settings.until {
                None => None,
                Some(until) => Some(self.resolve(until, partition, (log_start, end)).await?),
            };
            self.tracks.push(Track::new(partition, from, until));
        }
        self.read_beside();
        Ok(())
    }

    async fn resolve(
        &self,
        position: Position,
        partition: u32,
        (start, end): (Offset, Offset),
    ) -> Result<Offset> {
        Ok(match position {
            Position::Start => start,
            Position::End => end,
            Position::Offset(offset) => offset,
            Position::Time(time_us) => {
                self.fetcher.offset_at(&self.topic, partition, time_us).await?.unwrap_or(end)
            }
        })
    }
}
