//! Attempts at a request: how long each may take, what its outcome means, and the pause before the next.
//!
//! Nothing below this retries: `object_store`'s own retries are off, so that an answer that was lost is known to be lost.

use std::time::Duration;

use futures::future::{Either, select};
use futures::pin_mut;
use object_store::Error as StoreError;

use super::answer::{Answer, Verdict};
use super::{Objects, io_kind};
use crate::limits::{
    OBJECT_ATTEMPTS_MAX, OBJECT_BACKOFF_MS, OBJECT_BACKOFF_MS_MAX, OBJECT_BYTES_PER_MS, OBJECT_DEADLINE_MS,
    OBJECT_THROTTLE_MS, OBJECT_THROTTLE_MS_MAX, OBJECT_TIMEOUT_MS, OBJECT_TIMEOUT_MS_MAX,
    OBJECT_TIMEOUT_MS_REMOTE,
};
use crate::{Error, Result};

/// What one attempt came to.
pub(super) enum Attempt<T> {
    Done(T),
    /// Asking again cannot help.
    Failed(Error),
    /// No answer, or one that may differ next time.
    Again(String),
    /// The store is busy.
    Throttled(String),
}

impl<T> Attempt<T> {
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Attempt<U> {
        match self {
            Self::Done(value) => Attempt::Done(f(value)),
            Self::Failed(error) => Attempt::Failed(error),
            Self::Again(cause) => Attempt::Again(cause),
            Self::Throttled(cause) => Attempt::Throttled(cause),
        }
    }
}

impl Objects {
    /// Attempts with a pause in between, at most [`OBJECT_ATTEMPTS_MAX`] that were not throttled, none begun after
    /// [`OBJECT_DEADLINE_MS`]. The attempt is told its number, from 0.
    pub(super) async fn repeat<T, F: Future<Output = Attempt<T>>>(
        &self,
        what: &'static str,
        attempt: impl Fn(u32) -> F,
    ) -> Result<T> {
        self.repeat_for(0, what, attempt).await
    }

    /// The same, and more attempts than those as long as `least_ms` have not passed.
    pub(super) async fn repeat_for<T, F: Future<Output = Attempt<T>>>(
        &self,
        least_ms: u64,
        what: &'static str,
        attempt: impl Fn(u32) -> F,
    ) -> Result<T> {
        let began = self.env.monotonic();
        let (mut tries, mut throttled) = (0, 0);
        loop {
            let (cause, longest_ms) = match attempt(tries).await {
                Attempt::Done(value) => return Ok(value),
                Attempt::Failed(error) => return Err(error),
                Attempt::Again(cause) => {
                    tries += 1;
                    (cause, (OBJECT_BACKOFF_MS << (tries - 1).min(8)).min(OBJECT_BACKOFF_MS_MAX))
                }
                Attempt::Throttled(cause) => {
                    throttled += 1;
                    (cause, (OBJECT_THROTTLE_MS << (throttled - 1).min(16)).min(OBJECT_THROTTLE_MS_MAX))
                }
            };
            // Half of the pause is drawn, so that writers that failed together do not come back together.
            let drawn_ms = longest_ms / 2 + self.env.random_u64() % (longest_ms / 2 + 1);
            let pause = Duration::from_millis(drawn_ms);
            let spent = self.env.monotonic().saturating_sub(began);
            let is_past = |ms: u64| spent + pause > Duration::from_millis(ms);
            if (tries >= OBJECT_ATTEMPTS_MAX && is_past(least_ms)) || is_past(OBJECT_DEADLINE_MS) {
                let cause = match throttled {
                    0 => format!("{cause} (after {tries} attempts)"),
                    _ => format!(
                        "{cause} (after {tries} attempts, and {throttled} more that the store was too busy for, in \
                         {} ms)",
                        spent.as_millis()
                    ),
                };
                return Err(Error::Unavailable { what, cause });
            }
            tracing::debug!(what, tries, throttled, cause, "trying again");
            self.env.sleep(pause).await;
        }
    }

    /// How long attempt `tries` (from 0) at moving `bytes` may take: each longer than the one before it.
    pub(super) fn patience(&self, tries: u32, bytes: u64) -> Duration {
        let first = if self.hedge.is_some() { OBJECT_TIMEOUT_MS_REMOTE } else { OBJECT_TIMEOUT_MS };
        let waits = (first << tries.min(8)).min(OBJECT_TIMEOUT_MS_MAX);
        Duration::from_millis(waits.saturating_add(bytes / OBJECT_BYTES_PER_MS))
    }

    pub(super) async fn timed<T>(
        &self,
        patience: Duration,
        request: impl Future<Output = T>,
    ) -> Result<T, String> {
        let timeout = self.env.sleep(patience);
        pin_mut!(request);
        match select(request, timeout).await {
            Either::Left((answer, _)) => Ok(answer),
            Either::Right(_) => Err(format!("no answer within {} ms", patience.as_millis())),
        }
    }

    pub(super) fn judge<T>(&self, error: &StoreError) -> Attempt<T> {
        use std::io::ErrorKind::*;
        let words = causes(error);
        if let Some(answer) = Answer::of(error) {
            return self.judge_answer(answer);
        }
        match (error, io_kind(error)) {
            (StoreError::PermissionDenied { .. } | StoreError::Unauthenticated { .. }, _) => {
                Attempt::Failed(self.cannot(words))
            }
            (_, Some(PermissionDenied | ReadOnlyFilesystem)) => Attempt::Failed(self.cannot(format!(
                "it cannot be used by this user: change its owner or mode, or mount it writable: {words}"
            ))),
            (_, Some(StorageFull | QuotaExceeded)) => {
                let cause = format!("the disk of {} is full: free some space: {words}", self.place());
                Attempt::Failed(Error::Unavailable { what: "putting an object", cause })
            }
            (StoreError::NotSupported { .. } | StoreError::NotImplemented { .. }, _) => {
                Attempt::Failed(Error::StoreRefused { what: words })
            }
            _ => Attempt::Again(words),
        }
    }

    fn judge_answer<T>(&self, answer: &Answer) -> Attempt<T> {
        let words = answer.to_string();
        match answer.verdict() {
            Verdict::Again | Verdict::Conflict | Verdict::PastTheEnd => Attempt::Again(words),
            Verdict::Throttled => Attempt::Throttled(words),
            Verdict::Clock => Attempt::Failed(Error::Unavailable {
                what: "asking the object store",
                cause: format!("the clock of this machine is off; set it: {words}"),
            }),
            Verdict::Refused => Attempt::Failed(self.cannot(explained(answer))),
            Verdict::NotThere => Attempt::Failed(Error::StoreRefused { what: words }),
        }
    }

    fn cannot(&self, reason: String) -> Error {
        Error::CannotOpen { url: self.place(), reason }
    }

    fn place(&self) -> String {
        self.folder.as_ref().map_or_else(|| self.store.to_string(), |folder| folder.to_string())
    }
}

fn explained(answer: &Answer) -> String {
    let help = match (answer.status, answer.code.as_str()) {
        (_, "NoSuchBucket") => "there is no such bucket: ",
        (301 | 307, _) | (_, "PermanentRedirect" | "AuthorizationHeaderMalformed") => {
            "the bucket is in another region: correct region= in the store's URL: "
        }
        (403 | 401, _) => "no right to do this: see the policy of the role, and the keys: ",
        _ => "",
    };
    format!("{help}{answer}")
}

/// An error and what caused it, in one line: what `object_store` itself says is only that it failed.
fn causes(error: &StoreError) -> String {
    use std::error::Error as _;
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !words.contains(&more) {
            words = format!("{words}: {more}");
        }
        cause = error.source();
    }
    words
}
