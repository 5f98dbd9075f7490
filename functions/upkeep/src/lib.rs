//! The function `upkeep`: merges, trims and sweeps, woken by the table's stream when something was appended, and by a
//! schedule.
//!
//! | event | what is done |
//! |---|---|
//! | of the stream | what appends make due: merge, rewrite, checkpoint, strip |
//! | of the schedule | that, and retention, sweep of what was let go; producers and groups that fell silent |
//! | of the other schedule | that, and its sweep looks at all objects there are: for what killed runs left, and deleted topics |
//!
//! A run begins nothing more after half of its time, but for a sweep, which has an eighth of it for itself, and says that there is more; the next
//! event goes on. Several at once do no harm, nor does one that is killed. Nothing depends on an event that is lost: the schedule comes again.

pub mod event;

use std::time::Duration;

use futures::future::{BoxFuture, FutureExt};
use serde_json::{Value, json};
use tidelog_core::upkeep::{Run, Swept};
use tidelog_core::{Log, Upkeep, UpkeepSettings};
use tidelog_functions::{Problem, Request, Response, Service};

/// The handler.
#[derive(Debug)]
pub struct Keeper {
    upkeep: Upkeep,
}

impl Keeper {
    /// Upkeep of a log.
    pub fn new(log: &Log) -> Self {
        Self { upkeep: log.upkeep(UpkeepSettings::default()) }
    }

    async fn run(&self, request: &Request) -> Result<Value, Problem> {
        let time = Duration::from_millis(request.deadline.left_ms() / 2);
        let upkeep = self.upkeep.clone().within(time);
        let run = match request.path.as_str() {
            event::SCHEDULE => upkeep.run(|_| {}).await?,
            event::WHOLE => upkeep.run_whole(|_| {}).await?,
            _ => upkeep.run_after_appends(|_| {}).await?,
        };
        for damage in run.merged.damage.iter().chain(&run.rewritten.damage) {
            tracing::error!(damage, "cannot be merged, and stays as it is; `tidelog verify` says more");
        }
        Ok(told(&run))
    }
}

impl Service for Keeper {
    fn handle(&self, request: Request) -> BoxFuture<'_, Response> {
        async move {
            match self.run(&request).await {
                Ok(done) => Response::json(200, &done),
                Err(problem) => problem.into(),
            }
        }
        .boxed()
    }
}

/// What was done, in numbers.
fn told(run: &Run) -> Value {
    let Run { merged, rewritten, trimmed, held, rows, kept, swept, more } = run;
    json!({
        "merged": {"records": merged.records, "files": merged.objects, "bytes": merged.bytes},
        "rewritten": {"replaced": rewritten.replaced, "files": rewritten.objects, "bytes": rewritten.bytes},
        "damage": merged.damage.len() + rewritten.damage.len(),
        "trimmed": trimmed.len(), "held": held.len(), "rows_deleted": rows,
        "checkpoint": kept.checkpoint, "stripped": kept.stripped,
        "swept": swept.map(|Swept { floor, whole, objects, bytes, .. }| {
            json!({"whole": whole, "objects": objects, "bytes": bytes, "floor": floor})
        }),
        "more": more,
    })
}
