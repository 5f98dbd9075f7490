//! A second GET when the first is slower than most. S3's slowest twentieth takes many times the median; asking once more
//! costs one request and nearly always answers at once (Dean and Barroso, "The Tail at Scale", 2013).

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::limits::{HEDGE_BURST, HEDGE_MS_MIN, HEDGE_SAMPLES, HEDGE_SAMPLES_MIN, HEDGE_SHARE_PERCENT};

/// What a hedge costs, in hundredths; a GET earns [`HEDGE_SHARE_PERCENT`] of it.
const COST: u32 = 100;

/// How long GETs take until their first byte in this process, and how many more may be asked twice.
#[derive(Debug, Default)]
pub(super) struct Hedge(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// The latest times, microseconds, as a ring.
    times: Vec<u32>,
    next: usize,
    credit: u32,
    hedged: u64,
}

impl Hedge {
    /// Counts a GET that begins; answers when to ask a second time, if ever: the p95 of the latest.
    pub fn begin(&self) -> Option<Duration> {
        let inner = &mut *self.inner();
        inner.credit = (inner.credit + HEDGE_SHARE_PERCENT).min(HEDGE_BURST * COST);
        if inner.times.len() < HEDGE_SAMPLES_MIN {
            return None;
        }
        let mut times = inner.times.clone();
        let place = times.len() * 95 / 100;
        let (_, p95, _) = times.select_nth_unstable(place);
        Some(Duration::from_micros(u64::from(*p95)).max(Duration::from_millis(HEDGE_MS_MIN)))
    }

    /// Whether the second one may be sent: they stay a small share, also when the whole store is slow.
    pub fn spend(&self) -> bool {
        let inner = &mut *self.inner();
        let Some(left) = inner.credit.checked_sub(COST) else { return false };
        inner.credit = left;
        inner.hedged += 1;
        true
    }

    /// Notes the time from the first request to the first answer of either. A hedged one counts in full, or the
    /// estimate would shrink by its own success.
    pub fn note(&self, time: Duration) {
        let inner = &mut *self.inner();
        let micros = u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
        let place = inner.next;
        match inner.times.get_mut(place) {
            Some(old) => *old = micros,
            None => inner.times.push(micros),
        }
        inner.next = (place + 1) % HEDGE_SAMPLES;
    }

    /// How many second ones were sent.
    pub fn sent(&self) -> u64 {
        self.inner().hedged
    }

    fn inner(&self) -> std::sync::MutexGuard<'_, Inner> {
        // Estimates: whatever a panicking thread left is good enough.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warm(millis: impl Iterator<Item = u64>) -> Hedge {
        let hedge = Hedge::default();
        millis.for_each(|millis| hedge.note(Duration::from_millis(millis)));
        hedge
    }

    #[test]
    fn the_second_is_sent_after_the_p95_of_the_latest() {
        assert_eq!(warm(0..HEDGE_SAMPLES_MIN as u64 - 1).begin(), None);
        let hedge = warm(1..=100);
        assert_eq!(hedge.begin(), Some(Duration::from_millis(96)));
        (0..HEDGE_SAMPLES).for_each(|_| hedge.note(Duration::from_millis(300)));
        assert_eq!(hedge.begin(), Some(Duration::from_millis(300)));
        assert_eq!(warm([0; 100].into_iter()).begin(), Some(Duration::from_millis(HEDGE_MS_MIN)));
    }

    #[test]
    fn they_stay_a_small_share() {
        let hedge = warm([10; 100].into_iter());
        let sent = (0..10_000).filter(|_| hedge.begin().is_some() && hedge.spend()).count();
        assert_eq!(sent as u32, 10_000 * HEDGE_SHARE_PERCENT / 100);
        // A quiet time does not save up for a storm.
        (0..10_000).for_each(|_| _ = hedge.begin());
        assert_eq!((0..10_000).filter(|_| hedge.spend()).count() as u32, HEDGE_BURST);
    }
}
