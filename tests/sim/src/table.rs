//! The table as a process sees it: every request is a yield point, takes time, and may meet a fault.

use std::sync::Arc;

use async_trait::async_trait;
use futures::FutureExt;
use tidelog_core::table::{
    Answer, Consistency, Item, MemoryTable, Page, Put, Table, TableError, TableResult,
};
use tokio::sync::oneshot;

use crate::clock::{Gate, sleep_ms};
use crate::rng::Rng;
use crate::world::{Fault, World, is_of_rows};

/// The world's table, through one process's network.
#[derive(Debug)]
pub struct SimTable {
    world: Arc<World>,
    gate: Arc<Gate>,
    /// Whose table it is.
    era: u16,
}

impl SimTable {
    /// The table of an era, for the process behind `gate`.
    pub fn new(world: Arc<World>, gate: Arc<Gate>, era: u16) -> Arc<Self> {
        Arc::new(Self { world, gate, era })
    }

    /// The fault, or that an item of the answer is damaged now.
    fn flipped<T>(
        &self,
        answer: &mut TableResult<T>,
        fault: Fault,
        flip: fn(&mut T, &mut Rng) -> bool,
    ) -> Fault {
        let Ok(answer) = answer else { return fault };
        let flipped = self.world.corrupt_item(&self.gate, |rng| flip(&mut answer.value, rng));
        if flipped { Fault::Flipped } else { fault }
    }

    fn timed<T>(&self, answer: TableResult<T>) -> TableResult<T> {
        let store_time_ms = self.world.plan.store_clock.then(|| self.world.clock.wall_ms());
        answer.map(|Answer { value, .. }| Answer { value, store_time_ms })
    }

    /// A write goes its own way: it is applied even if whoever sent it gave up, froze or died.
    async fn write<T: Send + 'static>(
        &self,
        step: &'static str,
        what: String,
        apply: impl Fn(&MemoryTable) -> TableResult<T> + Send + 'static,
        name: fn(&T) -> &'static str,
        flip: fn(&mut T, &mut Rng) -> bool,
    ) -> TableResult<T> {
        self.gate.pass().await;
        let (there, back, fault) =
            (self.world.latency(), self.world.latency(), self.world.write_fault(&self.gate));
        let (sender, applied) = oneshot::channel();
        let arrives = match fault {
            Fault::Refused | Fault::Throttled | Fault::Lost | Fault::Hangs => None,
            Fault::Late(later) => Some(there + later),
            _ => Some(there),
        };
        if let Some(arrives) = arrives {
            let (world, era) = (self.world.clone(), self.era);
            let (name, what) = (self.gate.name.clone(), what.clone());
            tokio::spawn(async move {
                sleep_ms(arrives).await;
                world.note(&name, || format!("{step} {what}: arrives"));
                let _ = sender.send(apply(world.table(era)));
                if let Fault::Twice(later) = fault {
                    sleep_ms(later).await;
                    world.note(&name, || format!("{step} {what}: arrives again"));
                    let _ = apply(world.table(era));
                }
            });
        }
        let mut answer = match fault {
            Fault::None | Fault::Twice(_) => applied.await.expect("it is applied"),
            Fault::Applied => applied
                .await
                .expect("it is applied")
                .and(Err(TableError::NoAnswer("connection reset".into()))),
            Fault::Hangs | Fault::HangsApplied => {
                self.world.answered(&self.gate, step, &what, fault, "nothing");
                return std::future::pending().await;
            }
            _ => {
                sleep_ms(there).await;
                Err(match fault {
                    Fault::Refused => TableError::Refused("access denied".into()),
                    Fault::Throttled => TableError::Throttled("slow down".into()),
                    _ => TableError::NoAnswer("connection reset".into()),
                })
            }
        };
        sleep_ms(back).await;
        self.gate.pass().await;
        let fault = self.flipped(&mut answer, fault, flip);
        self.world.answered(&self.gate, step, &what, fault, answer_name(&answer, name));
        self.timed(answer)
    }

    async fn read<T>(
        &self,
        step: &'static str,
        what: String,
        look: impl FnOnce(&MemoryTable) -> TableResult<T>,
        name: fn(&T) -> &'static str,
        flip: fn(&mut T, &mut Rng) -> bool,
    ) -> TableResult<T> {
        self.gate.pass().await;
        let (there, back, fault) =
            (self.world.latency(), self.world.latency(), self.world.read_fault(&self.gate));
        sleep_ms(there).await;
        let mut answer = match fault {
            Fault::Hangs => {
                self.world.answered(&self.gate, step, &what, fault, "nothing");
                return std::future::pending().await;
            }
            Fault::Throttled => Err(TableError::Throttled("slow down".into())),
            Fault::Lost => Err(TableError::NoAnswer("connection reset".into())),
            _ => look(self.world.table(self.era)),
        };
        // The answer is as of now, and arrives later.
        sleep_ms(back).await;
        self.gate.pass().await;
        let fault = self.flipped(&mut answer, fault, flip);
        self.world.answered(&self.gate, step, &what, fault, answer_name(&answer, name));
        self.timed(answer)
    }
}

fn answer_name<T>(answer: &TableResult<T>, name: fn(&T) -> &'static str) -> &'static str {
    match answer {
        Ok(answer) => name(&answer.value),
        Err(TableError::Refused(_)) => "refused",
        Err(TableError::Throttled(_)) => "throttled",
        Err(TableError::NoAnswer(_)) => "no answer",
        Err(TableError::Damaged(_)) => "damaged",
    }
}

/// The memory table answers at once.
fn now<T>(answer: impl Future<Output = T>) -> T {
    answer.now_or_never().expect("a table in memory does not wait")
}

/// Flips a bit of the body; `false`: there is none.
fn flip_item(item: &mut Item, rng: &mut Rng) -> bool {
    let Some(body) = &mut item.body else { return false };
    let mut bytes = body.to_vec();
    bytes[rng.below(body.len() as u64) as usize] ^= 1 << rng.below(8);
    *body = bytes.into();
    true
}

fn flip_found(item: &mut Option<Item>, rng: &mut Rng) -> bool {
    item.as_mut().is_some_and(|item| flip_item(item, rng))
}

fn found(item: &Option<Item>) -> &'static str {
    match item {
        None => "absent",
        Some(Item { body: None, .. }) => "stub",
        Some(_) => "whole",
    }
}

#[async_trait]
impl Table for SimTable {
    fn name(&self) -> &str {
        "memory"
    }

    async fn put_if_absent(&self, pk: &str, item: &Item) -> TableResult<Put> {
        let what = format!("{} {:032x} {}", item.sk, item.id, item.hint);
        let (pk, item) = (pk.to_owned(), item.clone());
        let name = |put: &Put| match put {
            Put::Stored => "stored",
            Put::Exists(Item { body: None, .. }) => "a stub is there",
            Put::Exists(_) => "one is there",
        };
        let flip = |put: &mut Put, rng: &mut Rng| match put {
            Put::Exists(item) => flip_item(item, rng),
            Put::Stored => false,
        };
        let world = self.world.clone();
        let put = move |table: &MemoryTable| {
            let put = now(table.put_if_absent(&pk, &item));
            if is_of_rows(&pk) && put.as_ref().is_ok_and(|answer| answer.value == Put::Stored) {
                world.row_landed(&pk, item.sk);
                // A copy of one that was marked.
                if item.time_ms != 0 {
                    world.row_marked(&pk, &item);
                }
            }
            put
        };
        self.write("table put", what, put, name, flip).await
    }

    async fn get(&self, pk: &str, sk: u64, consistency: Consistency) -> TableResult<Option<Item>> {
        self.read(
            "table get",
            format!("{sk}"),
            |table| now(table.get(pk, sk, consistency)),
            found,
            flip_found,
        )
        .await
    }

    async fn newest(&self, pk: &str, to: u64, consistency: Consistency) -> TableResult<Option<Item>> {
        self.read(
            "table newest",
            format!("≤{to}"),
            |table| now(table.newest(pk, to, consistency)),
            found,
            flip_found,
        )
        .await
    }

    async fn range(&self, pk: &str, from: u64, limit: usize, consistency: Consistency) -> TableResult<Page> {
        let what = format!("{from}.. ≤{limit}");
        let name = |page: &Page| match page.items.iter().any(|item| item.body.is_none()) {
            _ if page.items.is_empty() => "empty",
            true => "with stubs",
            false => "whole",
        };
        let flip = |page: &mut Page, rng: &mut Rng| {
            let at = rng.below(page.items.len() as u64) as usize;
            page.items.get_mut(at).is_some_and(|item| flip_item(item, rng))
        };
        let look = |table: &MemoryTable| {
            if is_of_rows(pk) {
                self.world.rows_looked(pk, from);
            }
            now(table.range(pk, from, limit, consistency))
        };
        self.read("table range", what, look, name, flip).await
    }

    async fn replace_if(&self, pk: &str, item: &Item, expect: u128) -> TableResult<bool> {
        let what = format!("{}", item.sk);
        let (pk, item, world) = (pk.to_owned(), item.clone(), self.world.clone());
        let name = |done: &bool| if *done { "done" } else { "condition fails" };
        self.write(
            "table replace",
            what,
            move |table| {
                let replaced = now(table.replace_if(&pk, &item, expect));
                // An index row of an older fold never wins over one of a newer (R4).
                let done = replaced.as_ref().is_ok_and(|answer| answer.value);
                if is_of_rows(&pk) && done && item.id < expect {
                    world.violation(format!("the index row {pk} {} goes back", item.sk));
                }
                if is_of_rows(&pk) && done && item.time_ms != 0 {
                    world.row_marked(&pk, &item);
                }
                replaced
            },
            name,
            |_, _| false,
        )
        .await
    }

    async fn delete_if(&self, pk: &str, sk: u64, expect: u128) -> TableResult<bool> {
        let (pk, world) = (pk.to_owned(), self.world.clone());
        let name = |done: &bool| if *done { "done" } else { "condition fails" };
        let what = format!("{sk}");
        self.write(
            "table delete",
            what,
            move |table| {
                let there = now(table.get(&pk, sk, Consistency::Strong));
                let deleted = now(table.delete_if(&pk, sk, expect));
                if is_of_rows(&pk)
                    && deleted.as_ref().is_ok_and(|answer| answer.value)
                    && let Ok(Answer { value: Some(row), .. }) = there
                {
                    world.row_deleted(&pk, &row);
                }
                deleted
            },
            name,
            |_, _| false,
        )
        .await
    }
}
