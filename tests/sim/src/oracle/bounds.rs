//! The account of what moves at the start of a partition, and of answers to questions about time.

use std::collections::{BTreeMap, BTreeSet};

use tidelog_core::record::Offset;

use super::{Id, Oracle, Place};

/// Where a partition may begin.
#[derive(Debug, Default)]
pub(super) struct Start {
    /// Trims that were tried; the log start is 0 or one of them.
    tried: BTreeSet<Offset>,
    /// The newest that anybody knows to be committed.
    known: Offset,
}

/// An answer to: which is the first offset at or after this time?
#[derive(Debug)]
pub(super) struct Lookup {
    who: String,
    place: Place,
    time_us: i64,
    found: Option<Offset>,
    /// Log start and end known when it was asked.
    known: (Offset, Offset),
    /// Most that the log start can have been when it was answered.
    start_max: Offset,
}

impl Oracle {
    /// Somebody is about to trim.
    pub fn trim_begins(&mut self, place: &Place, to: Offset) {
        self.starts.entry(place.clone()).or_default().tried.insert(to);
    }

    /// Retention is about to let go what lies before `to`: nothing of it that was read has a log's own time at or after
    /// `young_us`.
    pub fn retained(&mut self, who: &str, place: &Place, to: Offset, young_us: i64) {
        let Some(read) = self.read.get(place) else { return };
        let young = read.range(..to).find(|(_, (_, at_us))| *at_us >= young_us);
        if let Some((offset, (_, at_us))) = young {
            let words = format!(
                "{who} trims {place:?} to {to}, but {offset} is of {at_us}, and young from {young_us} on"
            );
            self.violation(words);
        }
    }

    /// Retention by size is about to leave records that take at most so many bytes.
    pub fn kept(&mut self, who: &str, place: &Place, bytes_at_most: u64, limit: i64) {
        if limit < 0 || bytes_at_most < limit as u64 {
            self.violation(format!("{who} leaves {bytes_at_most} bytes of {place:?}, which keeps {limit}"));
        }
    }

    /// The trim is committed.
    pub fn trimmed(&mut self, place: &Place, to: Offset) {
        let start = self.starts.entry(place.clone()).or_default();
        start.known = start.known.max(to);
    }

    /// The log start that any fresh answer to a question asked from now on must reach.
    pub fn start_known(&self, place: &Place) -> Offset {
        self.starts.get(place).map_or(0, |start| start.known)
    }

    /// Most that the log start can be.
    pub fn start_max(&self, place: &Place) -> Offset {
        self.starts.get(place).and_then(|start| start.tried.last().copied()).unwrap_or(0)
    }

    /// Somebody was told where the log starts; `floor`: what was known before a fresh answer, else 0.
    pub fn start_told(&mut self, who: &str, place: &Place, floor: Offset, got: Offset) {
        let start = self.starts.entry(place.clone()).or_default();
        let made_up = got != 0 && !start.tried.contains(&got);
        start.known = start.known.max(got);
        if made_up {
            self.violation(format!("{who} was told that {place:?} starts at {got}, which nobody asked for"));
        }
        if got < floor {
            self.violation(format!("{who} was told that {place:?} starts at {got}, after {floor} was known"));
        }
    }

    /// Somebody was told that an offset, which exists or existed or is the next, is out of range.
    pub fn out_of_range(&mut self, who: &str, place: &Place, offset: Offset, start: Offset, high: Offset) {
        self.start_told(who, place, 0, start);
        if offset >= start {
            self.violation(format!(
                "{who} was refused {offset} of {place:?}, which it says goes from {start} to {high}"
            ));
        }
    }

    /// The answer to a question about time, asked when the log was `known` to reach from here to there.
    pub fn looked_up(
        &mut self,
        who: &str,
        place: &Place,
        time_us: i64,
        found: Option<Offset>,
        known: (Offset, Offset),
    ) {
        let (who, place, start_max) = (who.to_owned(), place.clone(), self.start_max(place));
        self.lookups.push(Lookup { who, place, time_us, found, known, start_max });
    }

    /// Every answer about time, against what was read.
    pub(super) fn finish_lookups(&mut self) {
        for lookup in std::mem::take(&mut self.lookups) {
            let Lookup { who, place, time_us, found, known, start_max } = lookup;
            let Some(read) = self.read.get(&place) else { continue };
            let late = |offset: &Offset| read.get(offset).is_some_and(|(_, at_us)| *at_us >= time_us);
            // All before the answer are earlier, as far as the log cannot have begun after them.
            let until = found.unwrap_or(known.1);
            let missed = (start_max.max(known.0)..until).find(late);
            let early = found.filter(|found| *found < known.0 || (read.contains_key(found) && !late(found)));
            if missed.is_some() || early.is_some() {
                self.violation(format!(
                    "{who} looked up {time_us} in {place:?}, known {known:?}: {found:?}, missed {missed:?}"
                ));
            }
        }
    }

    /// Acked records that were trimmed: nobody finds them any more.
    pub(super) fn trimmed_ids(&self) -> BTreeSet<Id> {
        let below = |(place, acked): (&Place, &BTreeMap<Offset, super::Ack>)| {
            let start = self.start_known(place);
            acked.range(..start).map(|(_, ack)| ack.id).collect::<Vec<_>>()
        };
        self.acked.iter().flat_map(below).collect()
    }

    /// Whether anything of a topic was trimmed.
    pub(super) fn is_trimmed(&self, topic: &str) -> bool {
        self.starts.iter().any(|(place, start)| place.0 == topic && start.known > 0)
    }
}
