//! Logs as JSON lines, and metrics as CloudWatch's embedded format: one line an invocation that CloudWatch turns into
//! metrics. Both go to standard output, where Lambda picks them up.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};
use tidelog_core::metrics::{Kind, Metric, Metrics};
use tracing_subscriber::filter::LevelFilter;

/// Values of one metric in one line, at most (CloudWatch takes a hundred).
const VALUES_MAX: usize = 100;

/// Logs events up to `level` as JSON from here on.
pub fn start_logs(level: LevelFilter) {
    if level == LevelFilter::OFF {
        return;
    }
    let logs = tracing_subscriber::fmt().json().flatten_event(true).with_current_span(false);
    // Fails only if there is one already.
    let _ = logs.with_span_list(false).with_max_level(level).with_writer(std::io::stdout).try_init();
}

/// Keeps what the log did until the next line is written. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Emf(Arc<Mutex<BTreeMap<&'static str, Kept>>>);

#[derive(Debug, Clone)]
enum Kept {
    Number(u64),
    Times(Vec<u64>),
}

impl Emf {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, Kept>> {
        // Whole after a panic, too: an entry is a number or a list of some.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts `more`.
    pub fn count(&self, name: &'static str, more: u64) {
        if let Kept::Number(number) = self.lock().entry(name).or_insert(Kept::Number(0)) {
            *number = number.saturating_add(more);
        }
    }

    /// Notes one event's time, µs.
    pub fn time(&self, name: &'static str, us: u64) {
        if let Kept::Times(times) = self.lock().entry(name).or_insert_with(|| Kept::Times(Vec::new()))
            && times.len() < VALUES_MAX
        {
            times.push(us);
        }
    }

    /// What was told since the last time, as one line; `None`: nothing was.
    pub fn line(&self, namespace: &str, function: &str, now_ms: i64) -> Option<String> {
        let kept = std::mem::take(&mut *self.lock());
        if kept.is_empty() || namespace.is_empty() {
            return None;
        }
        let unit = |kept: &Kept| if matches!(kept, Kept::Times(_)) { "Microseconds" } else { "Count" };
        let metrics: Vec<Value> =
            kept.iter().map(|(name, kept)| json!({"Name": name, "Unit": unit(kept)})).collect();
        let mut line = json!({
            "_aws": {"Timestamp": now_ms, "CloudWatchMetrics": [
                {"Namespace": namespace, "Dimensions": [["function"]], "Metrics": metrics},
            ]},
            "function": function,
        });
        for (name, kept) in kept {
            line[name] = match kept {
                Kept::Number(number) => number.into(),
                Kept::Times(times) => times.into(),
            };
        }
        Some(line.to_string())
    }

    /// Writes the line.
    pub fn write(&self, namespace: &str, function: &str, now_ms: i64) {
        if let Some(line) = self.line(namespace, function, now_ms) {
            // Nobody may be there to read it.
            let _ = writeln!(std::io::stdout().lock(), "{line}");
        }
    }
}

impl Metrics for Emf {
    fn record(&self, metric: Metric, value: u64) {
        match metric.kind() {
            Kind::Time => self.time(metric.name(), value),
            Kind::Gauge => {
                self.lock().insert(metric.name(), Kept::Number(value));
            }
            _ => self.count(metric.name(), value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_what_cloudwatch_reads() {
        let emf = Emf::default();
        assert_eq!(emf.line("N", "f", 1), None);
        emf.record(Metric::RecordsAppended, 3);
        emf.record(Metric::RecordsAppended, 2);
        (0..150).for_each(|us| emf.record(Metric::AckUs, us));
        let line: Value = serde_json::from_str(&emf.line("N", "f", 7).unwrap()).unwrap();
        assert_eq!(line["records_appended"], 5);
        assert_eq!(line["ack_us"].as_array().unwrap().len(), 100);
        let directive = &line["_aws"]["CloudWatchMetrics"][0];
        assert_eq!((&directive["Namespace"], &line["_aws"]["Timestamp"]), (&"N".into(), &7.into()));
        for metric in directive["Metrics"].as_array().unwrap() {
            assert!(!line[metric["Name"].as_str().unwrap()].is_null(), "{metric}");
        }
        assert_eq!(emf.line("N", "f", 8), None);
    }
}
