//! A process: it lives, freezes, dies and comes back, on the same table and objects.

use std::sync::{Arc, Mutex, MutexGuard};

use tidelog_core::ledger::Settings;
use tidelog_core::objects::Objects;
use tidelog_core::store::{Place, Store, StoreUrl};
use tidelog_core::{Error, Log};

use crate::clock::{Gate, SimEnv, sleep_ms};
use crate::oracle::Oracle;
use crate::rng::Rng;
use crate::store::SimStore;
use crate::table::SimTable;
use crate::world::World;

/// One process.
#[derive(Debug)]
pub struct Process {
    life: Mutex<Life>,
    world: Arc<World>,
    name: String,
    /// Stays in the first era.
    is_old: bool,
}

#[derive(Debug)]
struct Life {
    number: u32,
    gate: Arc<Gate>,
    log: Option<Log>,
}

impl Process {
    /// A process that is not running yet.
    pub fn new(world: Arc<World>, name: impl Into<String>) -> Arc<Self> {
        let name = name.into();
        let gate = Gate::new(format!("{name}.0"), world.clock, 0);
        gate.kill();
        let life = Mutex::new(Life { number: 0, gate, log: None });
        Arc::new(Self { life, world, name, is_old: false })
    }

    /// One that goes on in the first era, whatever the others do, and makes no checkpoints.
    pub fn of_old_era(world: Arc<World>, name: &str) -> Arc<Self> {
        let mut process = Self::new(world, name);
        Arc::get_mut(&mut process).expect("nobody else has it").is_old = true;
        process
    }

    fn life(&self) -> MutexGuard<'_, Life> {
        self.life.lock().expect("one thread")
    }

    /// Starts it; if the store does not answer, tries again. A process that refuses to open is a violation.
    pub async fn start(&self, skew_ms: i64, create: bool, oracle: &Mutex<Oracle>) {
        let (gate, number) = {
            let mut life = self.life();
            // Two that saw it die may start it: one lives, and nothing of the other is told under its name.
            life.gate.kill();
            life.log = None;
            life.number += 1;
            life.gate = Gate::new(format!("{}.{}", self.name, life.number), self.world.clock, skew_ms);
            (life.gate.clone(), life.number)
        };
        loop {
            let opened = gate.ask(self.open(&gate, create)).await;
            match opened {
                None => return,
                Some(Ok(log)) => {
                    self.world.note(&gate.name, || "starts".into());
                    let mut life = self.life();
                    if life.number == number {
                        life.log = Some(log);
                    }
                    return;
                }
                Some(Err(error)) => {
                    self.world.note(&gate.name, || format!("cannot start: {error}"));
                    if !matches!(error, Error::Unavailable { .. }) && !self.world.is_harmed(&gate.name) {
                        let words = format!("{} cannot start: {error}", gate.name);
                        return oracle.lock().expect("one thread").violation(words);
                    }
                    sleep_ms(500).await;
                }
            }
        }
    }

    async fn open(&self, gate: &Arc<Gate>, create: bool) -> Result<Log, Error> {
        let (world, plan) = (&self.world, &self.world.plan);
        let salt = world.draw(Rng::draw);
        let env = SimEnv::new(world.clock, gate.clone(), Rng::new(world.seed, salt));
        let era = if self.is_old { 0 } else { world.era() };
        let table = SimTable::new(world.clone(), gate.clone(), era);
        let objects = Objects::new(SimStore::new(world.clone(), gate.clone()), env.clone());
        let store = Store { table, objects, url: StoreUrl { place: Place::Memory, era } };
        let settings = Settings {
            checkpoint_commits: if self.is_old { 0 } else { plan.checkpoint_commits },
            strip_bytes_min: plan.strip_bytes_min,
            ..Settings::default()
        };
        Log::with_store(store, env, create, settings).await
    }

    /// Its log, once it runs.
    pub async fn log(&self) -> (Arc<Gate>, Log) {
        loop {
            if let Some(running) = self.running() {
                return running;
            }
            sleep_ms(50).await;
        }
    }

    /// Its log, if it runs.
    pub fn running(&self) -> Option<(Arc<Gate>, Log)> {
        let life = self.life();
        life.log.clone().map(|log| (life.gate.clone(), log))
    }

    /// The gate of its present life.
    pub fn gate(&self) -> Arc<Gate> {
        self.life().gate.clone()
    }

    /// Kills it: what it has sent goes on, nothing else.
    pub fn crash(&self) {
        let mut life = self.life();
        self.world.note(&life.gate.name, || "is killed".into());
        life.gate.kill();
        life.log = None;
    }
}
