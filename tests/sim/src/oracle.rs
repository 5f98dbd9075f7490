//! The oracle: its own account of what was sent, answered and read, and of what must therefore be true. It knows
//! nothing of the log but offsets.

mod bounds;

use std::collections::BTreeMap;

use bytes::Bytes;
use tidelog_core::record::Offset;

/// A record that was sent: its value carries this number.
pub type Id = u64;

/// A partition, by topic name.
pub type Place = (String, u32);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    /// Pending, or nobody knows.
    Open,
    /// Known to be in the log, perhaps not where.
    Acked,
    /// Known not to be in the log.
    Failed(String),
}

#[derive(Debug)]
struct Sent {
    /// Who, and the how many-th of that sender's records for one partition.
    sender: u64,
    topic: String,
    began: u64,
    acked: u64,
    outcome: Outcome,
    /// Its offset, if the ack said so.
    placed: Option<Offset>,
    bytes: Bytes,
}

#[derive(Debug, Clone, Copy)]
struct Ack {
    id: Id,
    at_ms: u64,
}

/// The account of one seed.
#[derive(Debug, Default)]
pub struct Oracle {
    sent: Vec<Sent>,
    /// Orders what happens: an ack before a send.
    event: u64,
    acked: BTreeMap<Place, BTreeMap<Offset, Ack>>,
    read: BTreeMap<Place, BTreeMap<Offset, (Id, i64)>>,
    /// One past the last offset that anybody was told of, by an ack, a read or a watermark.
    told: BTreeMap<Place, Offset>,
    log_append_time: Vec<String>,
    starts: BTreeMap<Place, bounds::Start>,
    lookups: Vec<bounds::Lookup>,
    violations: Vec<String>,
}

impl Oracle {
    /// Keeps what broke a promise.
    pub fn violation(&mut self, words: impl Into<String>) {
        self.violations.push(words.into());
    }

    /// What broke a promise so far.
    pub fn violations(&self) -> &[String] {
        &self.violations
    }

    /// Timestamps of this topic are the log's own.
    pub fn log_append_time(&mut self, topic: &str) {
        self.log_append_time.push(topic.to_owned());
    }

    /// Records that were sent, and those acked.
    pub fn counts(&self) -> (usize, usize) {
        (self.sent.len(), self.sent.iter().filter(|sent| sent.outcome == Outcome::Acked).count())
    }

    /// A sender is about to send a record: its number and value.
    pub fn begin(&mut self, sender: u64, topic: &str, padding: usize) -> (Id, Bytes) {
        self.event += 1;
        let id = self.sent.len() as Id;
        let bytes = Bytes::from(format!("{id}:{}", "x".repeat(padding)));
        let topic = topic.to_owned();
        let (began, acked, outcome) = (self.event, u64::MAX, Outcome::Open);
        let bytes_kept = bytes.clone();
        self.sent.push(Sent { sender, topic, began, acked, outcome, placed: None, bytes: bytes_kept });
        (id, bytes)
    }

    /// The sender was told that the record is in the log.
    pub fn acked(&mut self, id: Id, partition: u32, offset: Option<Offset>, at_ms: u64) {
        self.event += 1;
        let sent = &mut self.sent[id as usize];
        let place = (sent.topic.clone(), partition);
        if let Outcome::Failed(why) = &sent.outcome {
            self.violations.push(format!("record {id} acked after a definite failure ({why})"));
        }
        (sent.outcome, sent.acked) = (Outcome::Acked, sent.acked.min(self.event));
        sent.placed = sent.placed.or(offset);
        let Some(offset) = offset else { return };
        self.tell(&place, offset + 1);
        let before = self.acked.entry(place.clone()).or_default().insert(offset, Ack { id, at_ms });
        if let Some(before) = before.filter(|before| before.id != id) {
            self.violation(format!("{place:?} {offset} acked for record {} and for {id}", before.id));
        } else if let Some(before) = before {
            self.acked.entry(place.clone()).or_default().insert(offset, before);
        }
        if let Some((read, _)) = self.read.get(&place).and_then(|read| read.get(&offset))
            && *read != id
        {
            let read = *read;
            self.violation(format!("{place:?} {offset} acked for record {id}, but read as {read}"));
        }
    }

    /// The sender was told that the record is not, and will not be, in the log.
    pub fn failed(&mut self, id: Id, why: impl Into<String>) {
        let why = why.into();
        let seen = self.read.values().any(|read| read.values().any(|(read, _)| *read == id));
        if seen {
            self.violation(format!("record {id} was read, then failed definitely: {why}"));
        }
        let sent = &mut self.sent[id as usize];
        match sent.outcome {
            Outcome::Open => sent.outcome = Outcome::Failed(why),
            Outcome::Acked => self.violation(format!("record {id} acked, then failed: {why}")),
            Outcome::Failed(_) => {}
        }
    }

    /// Somebody was told that offsets go at least so far.
    pub fn tell(&mut self, place: &Place, end: Offset) {
        let told = self.told.entry(place.clone()).or_default();
        *told = end.max(*told);
    }

    /// How far offsets must go in any fresh answer to a question asked from now on.
    pub fn told(&self, place: &Place) -> Offset {
        self.told.get(place).copied().unwrap_or(0)
    }

    /// A fresh watermark was answered to a question asked when `floor` was known.
    pub fn watermark(&mut self, who: &str, place: &Place, floor: Offset, high: Offset) {
        if high < floor {
            self.violation(format!("{who} was told that {place:?} ends at {high}, after {floor} was known"));
        }
        self.tell(place, high);
    }

    /// The newest ack at or after `offset` that is older than `before_ms`.
    pub fn acked_before(&self, place: &Place, offset: Offset, before_ms: u64) -> Option<Offset> {
        let acked = self.acked.get(place)?;
        acked.range(offset..).find(|(_, ack)| ack.at_ms < before_ms).map(|(offset, _)| *offset)
    }

    /// An offset that was acked, if any: the `nth` of them.
    pub fn some_ack(&self, place: &Place, nth: u64) -> Option<Offset> {
        let acked = self.acked.get(place)?;
        let nth = nth.checked_rem(acked.len() as u64)?;
        acked.keys().nth(nth as usize).copied()
    }

    /// Somebody read a record.
    pub fn read(&mut self, who: &str, place: &Place, offset: Offset, value: &[u8], timestamp_us: i64) {
        let digits = value.split(|byte| *byte == b':').next().unwrap_or_default();
        let id: Option<Id> = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
        let known = id.and_then(|id| Some((id, self.sent.get(id as usize)?)));
        let Some((id, sent)) = known.filter(|(_, sent)| sent.bytes == value && sent.topic == place.0) else {
            return self.violation(format!("{who} read bytes that nobody sent at {place:?} {offset}"));
        };
        if let Outcome::Failed(why) = &sent.outcome {
            let why = why.clone();
            self.violation(format!("{who} read record {id}, which failed definitely: {why}"));
        }
        let acked = self.acked.get(place).and_then(|acked| acked.get(&offset)).map(|ack| ack.id);
        if acked.is_some_and(|acked| acked != id) {
            self.violation(format!("{who} read record {id} at {place:?} {offset}, acked for {acked:?}"));
        }
        self.tell(place, offset + 1);
        let before = self.read.entry(place.clone()).or_default().insert(offset, (id, timestamp_us));
        if before.is_some_and(|before| before != (id, timestamp_us)) {
            self.violation(format!("{who} read {id} at {place:?} {offset}, before it was {before:?}"));
        }
    }

    /// The whole partition, as a cold reader found it at the end: everything was [`read`](Self::read) just now.
    pub fn finish(&mut self, place: &Place, start: Offset, end: Offset) {
        self.start_told("a cold reader", place, self.start_known(place), start);
        if end < self.told(place) {
            let told = self.told(place);
            self.violation(format!("{place:?} ends at {end}, but {told} was known"));
        }
        let read = self.read.get(place).cloned().unwrap_or_default();
        let dense = read.range(start..).map(|(offset, _)| *offset).eq(start..end);
        if !dense {
            self.violation(format!(
                "{place:?} is not dense: {} records, start {start}, end {end}",
                read.len()
            ));
        }
        for (offset, ack) in self.acked.get(place).cloned().unwrap_or_default() {
            let found = read.get(&offset).map(|(id, _)| *id);
            if found != Some(ack.id) && (found.is_some() || offset >= start) {
                self.violation(format!(
                    "{place:?} {offset} acked for {}, found {:?}",
                    ack.id,
                    read.get(&offset)
                ));
            }
        }
        self.check_order(place, &read);
    }

    fn check_order(&mut self, place: &Place, read: &BTreeMap<Offset, (Id, i64)>) {
        let (mut newest_begun, mut time) = ((0, 0), i64::MIN);
        let mut senders: BTreeMap<u64, Id> = BTreeMap::new();
        let timed = self.log_append_time.contains(&place.0);
        for (offset, (id, timestamp_us)) in read {
            let sent = &self.sent[*id as usize];
            if sent.acked < newest_begun.0 {
                let words =
                    format!("{place:?} {offset}: record {id} was acked before {} began", newest_begun.1);
                self.violations.push(words);
            }
            newest_begun = newest_begun.max((sent.began, *id));
            // Numbers of one sender grow in the order in which it sent.
            if let Some(before) = senders.insert(sent.sender, *id)
                && before >= *id
            {
                let words =
                    format!("{place:?} {offset}: record {id} of sender {} after {before}", sent.sender);
                self.violations.push(words);
            }
            if timed && *timestamp_us < time {
                self.violations.push(format!("{place:?} {offset}: append time goes back"));
            }
            time = *timestamp_us;
        }
    }

    /// What can only be said of all partitions together.
    pub fn finish_all(&mut self) {
        self.finish_lookups();
        let trimmed = self.trimmed_ids();
        let mut found: BTreeMap<Id, u32> = BTreeMap::new();
        self.read
            .values()
            .flat_map(|read| read.values())
            .for_each(|(id, _)| *found.entry(*id).or_default() += 1);
        for (id, times) in &found {
            if *times > 1 {
                self.violations.push(format!("record {id} is in the log {times} times"));
            }
        }
        for (id, sent) in self.sent.iter().enumerate() {
            if sent.outcome == Outcome::Acked
                && !found.contains_key(&(id as Id))
                && !self.is_gone(&sent.topic)
                && !trimmed.contains(&(id as Id))
                && (sent.placed.is_some() || !self.is_trimmed(&sent.topic))
            {
                self.violations.push(format!("record {id} was acked and is not in the log"));
            }
        }
    }

    fn is_gone(&self, topic: &str) -> bool {
        topic.starts_with("gone")
    }
}
