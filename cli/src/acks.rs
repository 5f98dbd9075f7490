//! Which line became which record: a queue of lines a partition, filled as records are accepted and emptied as their
//! flights are answered, in the same order.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::Write;
use std::sync::{Arc, Mutex, MutexGuard};

use serde_json::json;
use tidelog_core::Error;
use tidelog_core::append::Acked;
use tidelog_core::ledger::commit::BatchResult;

/// Consecutive lines of one file that went to one partition.
#[derive(Debug)]
struct Lines {
    file: Arc<str>,
    first: u64,
    count: u64,
}

/// What is under way, and what became of the rest.
#[derive(Debug, Default)]
pub struct Account {
    waiting: BTreeMap<u32, VecDeque<Lines>>,
    out: Option<File>,
    /// Records that are in the log.
    pub acked: u64,
    /// Of these, the ones that were there before.
    pub duplicates: u64,
    /// Records that their commit refused.
    pub failed: u64,
    /// The first error of a commit, with its lines.
    pub error: Option<(String, Error)>,
    /// Why acks could not be written down.
    pub out_error: Option<String>,
}

/// An account that producer and ack hook share.
#[derive(Debug, Clone, Default)]
pub struct Accounts(Arc<Mutex<Account>>);

impl Accounts {
    /// Acks go to `out` as NDJSON, too.
    pub fn new(out: Option<File>) -> Self {
        Self(Arc::new(Mutex::new(Account { out, ..Account::default() })))
    }

    pub fn lock(&self) -> MutexGuard<'_, Account> {
        self.0.lock().expect("no thread panicked with the account")
    }

    /// A line was accepted.
    pub fn accepted(&self, partition: u32, file: &Arc<str>, line: u64) {
        let mut account = self.lock();
        let waiting = account.waiting.entry(partition).or_default();
        match waiting
            .back_mut()
            .filter(|last| Arc::ptr_eq(&last.file, file) && last.first + last.count == line)
        {
            Some(last) => last.count += 1,
            None => waiting.push_back(Lines { file: file.clone(), first: line, count: 1 }),
        }
    }

    /// Whether to stop sending.
    pub fn is_broken(&self) -> bool {
        let account = self.lock();
        account.error.is_some() || account.out_error.is_some()
    }

    /// A flight was answered. What is told here is on its way to the disk before the next commit begins.
    pub fn landed(&self, batches: &[Acked<'_>]) {
        let mut account = self.lock();
        let mut text = String::new();
        for batch in batches {
            account.batch(batch, &mut text);
        }
        if let Some(out) = &mut account.out
            && let Err(error) = out.write_all(text.as_bytes())
        {
            account.out_error.get_or_insert(error.to_string());
        }
    }
}

impl Account {
    fn batch(&mut self, batch: &Acked<'_>, text: &mut String) {
        let mut rows = u64::from(batch.rows);
        let base = match batch.result {
            BatchResult::Placed { base, .. } => Ok(Some(*base)),
            BatchResult::Duplicate { base, .. } => {
                self.duplicates += rows;
                Ok(*base)
            }
            BatchResult::Failed(error) => Err(error.clone()),
            BatchResult::Redraw => Err(Error::Closed { what: "the producer" }),
        };
        match &base {
            Ok(_) => self.acked += rows,
            Err(_) => self.failed += rows,
        }
        let mut place = 0;
        while rows > 0 {
            let Some(lines) = self.waiting.get_mut(&batch.partition).and_then(VecDeque::front_mut) else {
                return;
            };
            let take = lines.count.min(rows);
            let (file, first) = (lines.file.clone(), lines.first);
            (lines.first, lines.count) = (first + take, lines.count - take);
            if lines.count == 0 {
                self.waiting.get_mut(&batch.partition).map(VecDeque::pop_front);
            }
            match &base {
                Err(error) if self.error.is_none() => {
                    self.error = Some((format!("{file}:{first}"), error.clone()));
                }
                Ok(base) if self.out.is_some() => {
                    for i in 0..take {
                        let offset = base.map(|base| base + place + i);
                        let ack = json!({"file": &*file, "line": first + i, "partition": batch.partition, "offset": offset});
                        text.push_str(&ack.to_string());
                        text.push('\n');
                    }
                }
                _ => {}
            }
            (rows, place) = (rows - take, place + take);
        }
    }
}
