//! An answer that a store gave instead of what was asked for, and what it means for the one who asked.

use std::fmt;

use object_store::Error as StoreError;

/// A refusal in HTTP's and S3's words. An adapter that knows them leaves one in the chain of sources of its
/// `object_store` error, where [`Answer::of`] finds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// S3's code (`SlowDown`), or empty.
    pub code: String,
    /// The store's own words, or empty.
    pub message: String,
}

/// What to do about an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Ask again: it was not applied, or it does not matter.
    Again,
    /// Ask again, later: the store is busy. Not applied.
    Throttled,
    /// 409: another conditional request of this name is under way. Says nothing about who wins.
    Conflict,
    /// 416: the object ends before the range begins.
    PastTheEnd,
    /// The clock of this machine is off.
    Clock,
    /// Only a person can help: rights, region, bucket.
    Refused,
    /// The store does not know the request.
    NotThere,
}

impl Answer {
    /// The one at the root of a store's error.
    pub fn of(error: &StoreError) -> Option<&Self> {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
        while let Some(error) = cause {
            if let Some(answer) = error.downcast_ref() {
                return Some(answer);
            }
            cause = error.source();
        }
        None
    }

    /// Whether it says itself that a write was not applied. A 5xx as such does not.
    pub(super) fn denies(&self) -> bool {
        match self.verdict() {
            Verdict::Conflict => true,
            Verdict::Throttled => {
                self.status == 429 || self.code != "ServiceUnavailable" && !self.code.is_empty()
            }
            _ => false,
        }
    }

    pub(super) fn verdict(&self) -> Verdict {
        match (self.status, self.code.as_str()) {
            (503 | 429, _) | (_, "SlowDown" | "RequestLimitExceeded" | "TooManyRequests") => {
                Verdict::Throttled
            }
            (409, _) => Verdict::Conflict,
            (416, _) => Verdict::PastTheEnd,
            (_, "RequestTimeTooSkewed") => Verdict::Clock,
            (501 | 405, _) => Verdict::NotThere,
            // Sent once more it may arrive whole, or with fresh credentials.
            (
                400 | 403,
                "BadDigest"
                | "IncompleteBody"
                | "XAmzContentSHA256Mismatch"
                | "RequestTimeout"
                | "ExpiredToken"
                | "TokenRefreshRequired",
            ) => Verdict::Again,
            (300..=499, _) => Verdict::Refused,
            _ => Verdict::Again,
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "status {}", self.status)?;
        for words in [&self.code, &self.message] {
            if !words.is_empty() {
                write!(f, " {words}")?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for Answer {}
