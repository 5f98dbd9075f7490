//! What a request meets: how long it takes and whether it fails, drawn from a seed; and the record of what was asked.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Requests that the log remembers; the counts go on.
const LOG_MAX: usize = 200_000;

/// Kinds of requests, as S3 bills them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verb {
    /// An object or a part is put, an upload begun, completed or given up.
    Put,
    /// Bytes are got.
    Get,
    /// Metadata alone.
    Head,
    /// Names.
    List,
    /// One deletion, or a request for many.
    Delete,
    /// About the bucket.
    Bucket,
}

impl Verb {
    /// What a request is, by its method, key (empty: the bucket) and query.
    pub fn of(method: &str, key: &str, query: &str) -> Self {
        match method {
            "POST" if query.split('&').any(|part| part == "delete" || part == "delete=") => Self::Delete,
            "GET" if key.is_empty() && query.contains("list-type") => Self::List,
            _ if key.is_empty() => Self::Bucket,
            "GET" => Self::Get,
            "HEAD" => Self::Head,
            "DELETE" => Self::Delete,
            _ => Self::Put,
        }
    }
}

/// How long a request takes; half of it before the store acts, half after.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Latency {
    /// Nothing is added.
    #[default]
    None,
    /// Always so many milliseconds.
    Constant(f64),
    /// Log-normal: half of the requests are faster than `median_ms`; `sigma` of the logarithm (S3's PUT: about 0.4;
    /// a heavy tail: 0.9).
    LogNormal {
        /// Median, milliseconds.
        median_ms: f64,
        /// Standard deviation of the logarithm.
        sigma: f64,
    },
}

/// An answer in the store's place; nothing is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// 409 `ConditionalRequestConflict`: another conditional request of this key is under way; ask again.
    Conflict,
    /// 500 `InternalError`.
    Internal,
    /// 503 `SlowDown`.
    SlowDown,
}

impl Fault {
    /// Status and code.
    pub fn answer(self) -> (u16, &'static str) {
        match self {
            Self::Conflict => (409, "ConditionalRequestConflict"),
            Self::Internal => (500, "InternalError"),
            Self::SlowDown => (503, "SlowDown"),
        }
    }
}

/// Which of the requests that a rule is about fail.
#[derive(Debug, Clone, PartialEq)]
pub enum When {
    /// This share of them, 0 to 1.
    Rate(f64),
    /// Those with these numbers; the first after the rule was made is 1.
    Numbers(std::ops::RangeInclusive<u64>),
}

/// One rule of the fault schedule.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// Only requests of this kind.
    pub verb: Option<Verb>,
    /// Only keys that contain this.
    pub key: String,
    /// Which of them.
    pub when: When,
    /// What they are answered with.
    pub fault: Fault,
}

/// One request, as it was asked and answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Kind.
    pub verb: Verb,
    /// HTTP method.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Whether it said `If-None-Match` or `If-Match`.
    pub conditional: bool,
    /// Status of the answer.
    pub status: u16,
}

/// The schedule of one server.
#[derive(Debug)]
pub(crate) struct Schedule(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    random: u64,
    latency: BTreeMap<Verb, Latency>,
    rules: Vec<(Rule, u64)>,
    log: VecDeque<Request>,
    counts: BTreeMap<Verb, u64>,
}

impl Schedule {
    pub fn new(seed: u64) -> Self {
        let (latency, rules, log, counts) = Default::default();
        Self(Mutex::new(Inner { random: seed, latency, rules, log, counts }))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn set_latency(&self, verb: Verb, latency: Latency) {
        self.inner().latency.insert(verb, latency);
    }

    pub fn add(&self, rule: Rule) {
        self.inner().rules.push((rule, 0));
    }

    pub fn clear(&self) {
        self.inner().rules.clear();
    }

    /// How long this request takes, and its fault.
    pub fn meet(&self, verb: Verb, key: &str) -> (Duration, Option<Fault>) {
        let inner = &mut *self.inner();
        let millis = match inner.latency.get(&verb).copied().unwrap_or_default() {
            Latency::None => 0.0,
            Latency::Constant(millis) => millis,
            Latency::LogNormal { median_ms, sigma } => median_ms * (sigma * normal(&mut inner.random)).exp(),
        };
        let mut fault = None;
        for (rule, seen) in &mut inner.rules {
            if rule.verb.is_some_and(|only| only != verb) || !key.contains(&rule.key) {
                continue;
            }
            *seen += 1;
            let hit = match &rule.when {
                When::Rate(rate) => unit(&mut inner.random) < *rate,
                When::Numbers(numbers) => numbers.contains(seen),
            };
            if hit && fault.is_none() {
                fault = Some(rule.fault);
            }
        }
        (Duration::from_secs_f64(millis.clamp(0.0, 3.6e6) / 1e3), fault)
    }

    pub fn record(&self, request: Request) {
        let inner = &mut *self.inner();
        *inner.counts.entry(request.verb).or_default() += 1;
        if inner.log.len() == LOG_MAX {
            inner.log.pop_front();
        }
        inner.log.push_back(request);
    }

    pub fn log(&self) -> Vec<Request> {
        self.inner().log.iter().cloned().collect()
    }

    pub fn counts(&self) -> BTreeMap<Verb, u64> {
        self.inner().counts.clone()
    }

    pub fn forget(&self) {
        let inner = &mut *self.inner();
        inner.log.clear();
        inner.counts.clear();
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014).
fn draw(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// In [0, 1).
fn unit(state: &mut u64) -> f64 {
    (draw(state) >> 11) as f64 / (1u64 << 53) as f64
}

/// Standard normal, by Box and Muller.
fn normal(state: &mut u64) -> f64 {
    let radius = (-2.0 * (1.0 - unit(state)).ln()).sqrt();
    radius * (std::f64::consts::TAU * unit(state)).cos()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn story(seed: u64) -> Vec<(Duration, Option<Fault>)> {
        let schedule = Schedule::new(seed);
        schedule.set_latency(Verb::Put, Latency::LogNormal { median_ms: 50.0, sigma: 0.9 });
        schedule.add(Rule {
            verb: Some(Verb::Put),
            key: "l0/".to_owned(),
            when: When::Rate(0.2),
            fault: Fault::SlowDown,
        });
        (0..2_000).map(|_| schedule.meet(Verb::Put, "l0/a")).collect()
    }

    #[test]
    fn one_seed_is_one_story() {
        assert_eq!(story(7), story(7));
        assert_ne!(story(7), story(8));
    }

    #[test]
    fn latency_and_rate_are_as_asked() {
        let story = story(1);
        let mut times: Vec<f64> = story.iter().map(|(time, _)| time.as_secs_f64() * 1e3).collect();
        times.sort_by(f64::total_cmp);
        // Median 50 ms; the p95 of a log-normal is median × e^(1.645 sigma): 220 ms.
        assert!((45.0..55.0).contains(&times[1_000]), "{}", times[1_000]);
        assert!((180.0..270.0).contains(&times[1_900]), "{}", times[1_900]);
        let faults = story.iter().filter(|(_, fault)| fault.is_some()).count();
        assert!((300..500).contains(&faults), "{faults}");
    }

    #[test]
    fn numbers_count_from_one_and_only_what_the_rule_is_about() {
        let schedule = Schedule::new(0);
        let when = When::Numbers(2..=3);
        schedule.add(Rule { verb: Some(Verb::Get), key: String::new(), when, fault: Fault::Internal });
        schedule.meet(Verb::Put, "a");
        let met: Vec<bool> = (0..4).map(|_| schedule.meet(Verb::Get, "a").1.is_some()).collect();
        assert_eq!(met, [false, true, true, false]);
        schedule.clear();
        assert_eq!(schedule.meet(Verb::Get, "a").1, None);
    }

    #[test]
    fn verbs_are_told_apart() {
        for (method, key, query, verb) in [
            ("GET", "", "list-type=2&prefix=a", Verb::List),
            ("GET", "a", "", Verb::Get),
            ("HEAD", "a", "", Verb::Head),
            ("HEAD", "", "", Verb::Bucket),
            ("PUT", "", "", Verb::Bucket),
            ("POST", "", "delete", Verb::Delete),
            ("POST", "a", "uploads=", Verb::Put),
            ("DELETE", "a", "", Verb::Delete),
        ] {
            assert_eq!(Verb::of(method, key, query), verb, "{method} {key:?} {query}");
        }
    }
}
