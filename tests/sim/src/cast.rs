//! Who is there, and what every actor needs.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use tidelog_core::Error;

use crate::oracle::{Oracle, Place};
use crate::process::Process;
use crate::rng::Rng;
use crate::world::World;

/// Topic whose timestamps are the senders'.
pub const TOPIC: &str = "logs";
/// Topic whose timestamps are the log's.
pub const TIMED: &str = "timed";

/// Shared by all actors.
#[derive(Debug)]
pub struct Cast {
    /// The world.
    pub world: Arc<World>,
    /// The processes.
    pub processes: Vec<Arc<Process>>,
    /// The account.
    pub oracle: Arc<Mutex<Oracle>>,
    /// Topics that were made anew under their name, and how often.
    lives: Mutex<BTreeMap<String, u32>>,
}

impl Cast {
    /// All of them.
    pub fn new(world: Arc<World>, processes: Vec<Arc<Process>>, oracle: Arc<Mutex<Oracle>>) -> Self {
        Self { world, processes, oracle, lives: Mutex::default() }
    }

    /// What is called `name` is, from now on, another topic than before.
    pub fn begin_life(&self, name: &str, life: u32) {
        self.lives.lock().expect("one thread").insert(name.to_owned(), life);
    }

    /// What the account calls the topic that has this name now: one of each life.
    pub fn account_of(&self, name: &str) -> String {
        match self.lives.lock().expect("one thread").get(name) {
            Some(life @ 2..) => format!("{name}, life {life}"),
            _ => name.to_owned(),
        }
    }

    /// The account.
    pub fn oracle(&self) -> MutexGuard<'_, Oracle> {
        self.oracle.lock().expect("one thread")
    }

    /// Any process.
    pub fn some_process(&self, rng: &mut Rng) -> &Arc<Process> {
        &self.processes[rng.below(self.processes.len() as u64) as usize]
    }

    /// All partitions that stay.
    pub fn places(&self) -> Vec<Place> {
        let logs = (0..self.world.plan.partitions).map(|partition| (TOPIC.to_owned(), partition));
        logs.chain([(TIMED.to_owned(), 0)]).collect()
    }

    /// Any of them.
    pub fn some_place(&self, rng: &mut Rng) -> Place {
        let places = self.places();
        places[rng.below(places.len() as u64) as usize].clone()
    }

    /// An answer about a partition that exists, under an identity that is known: some are always wrong.
    pub fn refused(&self, who: &str, place: &Place, error: &Error) {
        self.world.note(who, || format!("answers about {place:?}: {error}"));
        let wrong = match error {
            // A transient flip must have been read again.
            Error::Damaged { .. } | Error::NameReused { .. } => {
                !self.world.is_harmed(who) && !self.world.names_rotten(&error.to_string())
            }
            Error::Poisoned { .. } | Error::Newer { .. } => !self.world.is_harmed(who),
            Error::OffsetOutOfRange { partition, offset, log_start, high_watermark, .. } => {
                let place = (place.0.clone(), *partition);
                self.oracle().out_of_range(who, &place, *offset, *log_start, *high_watermark);
                self.world.saw("fetch", "trimmed", "below log start");
                false
            }
            Error::CannotOpen { .. } => self.world.plan.write_fault_rate == 0,
            Error::Unknown { .. }
            | Error::Unavailable { .. }
            | Error::EarlierBatchFailed { .. }
            | Error::Closed { .. } => false,
            _ => true,
        };
        if wrong {
            self.oracle().violation(format!("{who} says of {place:?}: {error}"));
        }
    }
}
