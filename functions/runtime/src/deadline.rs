//! The time that an invocation has left.

use std::time::Duration;

use tidelog_core::env::SharedEnv;
use tidelog_core::limits;

use crate::Problem;

/// When the caller stops listening. Lambda ends the process then, without another word.
#[derive(Debug, Clone)]
pub struct Deadline {
    env: SharedEnv,
    at: Duration,
}

impl Deadline {
    /// `ms` from now.
    pub fn after_ms(env: SharedEnv, ms: u64) -> Self {
        let at = env.monotonic() + Duration::from_millis(ms);
        Self { env, at }
    }

    /// At a wall-clock time in milliseconds since 1970, as Lambda says it.
    pub fn at_epoch_ms(env: SharedEnv, epoch_ms: u64) -> Self {
        let now_ms = u64::try_from(env.now_ms()).unwrap_or(0);
        Self::after_ms(env, epoch_ms.saturating_sub(now_ms))
    }

    /// Milliseconds left before the answer must be on its way.
    pub fn left_ms(&self) -> u64 {
        let left = self.at.saturating_sub(self.env.monotonic()).as_millis();
        u64::try_from(left).unwrap_or(u64::MAX).saturating_sub(limits::HTTP_ANSWER_MS)
    }

    /// Refuses to begin a commit whose outcome would not be known in time.
    pub fn check_commit(&self) -> Result<(), Problem> {
        if self.left_ms() >= limits::HTTP_COMMIT_MS {
            return Ok(());
        }
        let message = format!(
            "only {} ms of this invocation are left, {} are kept for a commit: nothing was written; send it again",
            self.left_ms(),
            limits::HTTP_COMMIT_MS
        );
        Err(Problem::retry(503, "out_of_time", message))
    }

    /// `work`'s result, or `None` if it is not there when the answer must be on its way. What `work` began may go on.
    pub async fn race<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            done = work => Some(done),
            () = self.env.sleep(Duration::from_millis(self.left_ms())) => None,
        }
    }

    /// `work`'s result, or a retriable problem when the answer must be on its way: for what changes nothing.
    pub async fn in_time<T, E: Into<Problem>>(
        &self,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, Problem> {
        let late = || Problem::retry(503, "unavailable", "the store did not answer in time; try again later");
        self.race(work).await.map_or_else(|| Err(late()), |done| done.map_err(Into::into))
    }

    /// The clock that it is measured by.
    pub fn env(&self) -> &SharedEnv {
        &self.env
    }
}
