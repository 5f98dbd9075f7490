//! Errors as HTTP says them: a status, and a body by which a program can tell what to do.
//!
//! | status | meaning for the sender |
//! |---|---|
//! | 400 | the request is wrong; never send it again as it is |
//! | 404, 405, 406, 415 | no such thing; another method; another form of answer; another form of body |
//! | 409, 422 | the log says otherwise (see the message) |
//! | 413 | too large; the limit is in the body |
//! | 416 | the offset is not in the log; its bounds are in body and headers |
//! | 429, 503 | the same again after `Retry-After`; with an `Idempotency-Key`, without fear of duplicates |
//! | 500 | damage, or a wrong setting: somebody must look |

use serde::Serialize;
use tidelog_core::{Error, ErrorKind, limits};

/// An error for a client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// HTTP status.
    #[serde(skip)]
    pub status: u16,
    /// A name that does not change.
    pub code: &'static str,
    /// What is wrong, and what to do, for people.
    pub message: String,
    /// The field that is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// Its limit, where it is too large.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// Whether the same may succeed later.
    pub retriable: bool,
    /// Headers of the answer.
    #[serde(skip)]
    pub headers: Vec<(&'static str, String)>,
    /// Other members of the error's body. Boxed, as most have none.
    #[serde(flatten)]
    pub more: Option<Box<serde_json::Map<String, serde_json::Value>>>,
}

impl Problem {
    /// A problem that does not go away by itself.
    pub fn new(status: u16, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: bounded(message.into()),
            field: None,
            limit: None,
            retriable: false,
            headers: Vec::new(),
            more: None,
        }
    }

    /// A field that is not as it must be: 400.
    pub fn invalid(field: impl Into<String>, reason: impl std::fmt::Display) -> Self {
        let field = field.into();
        Self {
            field: Some(field.clone()),
            ..Self::new(400, "invalid_field", format!("{field} is invalid: {reason}"))
        }
    }

    /// A field above its limit: 413.
    pub fn too_large(field: impl Into<String>, size: Option<u64>, limit: usize) -> Self {
        let field = field.into();
        let size = size.map_or_else(|| "it".to_owned(), |size| size.to_string());
        let message = format!("{field} is too large: {size}, limit {limit}").replace(": it,", ":");
        Self { field: Some(field), limit: Some(limit as u64), ..Self::new(413, "too_large", message) }
    }

    /// A problem that the same request may not meet later.
    pub fn retry(status: u16, code: &'static str, message: impl Into<String>) -> Self {
        let after = ("retry-after", limits::HTTP_RETRY_AFTER_S.to_string());
        Self { retriable: true, headers: vec![after], ..Self::new(status, code, message) }
    }

    /// With a header.
    pub fn header(mut self, name: &'static str, value: impl ToString) -> Self {
        self.headers.push((name, value.to_string()));
        self
    }

    /// With another member in its body.
    pub fn with(mut self, name: &str, value: impl Into<serde_json::Value>) -> Self {
        self.more.get_or_insert_default().insert(name.to_owned(), value.into());
        self
    }

    /// No such path: 404.
    pub fn no_route(path: &str) -> Self {
        Self::new(404, "no_such_path", format!("{path:?} is not a path of this function; see openapi.yaml"))
    }

    /// Another method is meant: 405.
    pub fn not_allowed(method: &str, allowed: &'static str) -> Self {
        let message = format!("{method} is not a method of this path; allowed: {allowed}");
        Self::new(405, "method_not_allowed", message).header("allow", allowed)
    }
}

/// A message of bounded length: it may quote what a client sent.
fn bounded(mut message: String) -> String {
    if message.len() > limits::HTTP_MESSAGE_BYTES_MAX {
        let cut = (0..=limits::HTTP_MESSAGE_BYTES_MAX).rev().find(|at| message.is_char_boundary(*at));
        message.truncate(cut.unwrap_or(0));
        message.push('…');
    }
    message
}

/// HTTP's status for an error of the log, as the answer to a whole request.
fn status(error: &Error) -> u16 {
    match error {
        Error::BufferFull { .. } => 429,
        Error::OffsetOutOfRange { .. } => 416,
        Error::UnknownTopic { .. } | Error::UnknownGroup { .. } => 404,
        Error::UnknownPartition { .. } | Error::InvalidField { .. } => 400,
        Error::TooLarge { .. } => 413,
        Error::CannotOpen { .. } => 500,
        // A client has no picture of topics that could be out of date: the function had, and has a new one by now.
        Error::TopicDeleted { .. } => 503,
        other => match other.kind() {
            ErrorKind::Retry => 503,
            ErrorKind::Refresh => 409,
            ErrorKind::Invalid => 400,
            _ => 500,
        },
    }
}

impl From<&Error> for Problem {
    fn from(error: &Error) -> Self {
        let status = status(error);
        if error.kind() == ErrorKind::Retry || matches!(error, Error::TopicDeleted { .. }) {
            return Self::retry(status, error.name(), error.to_string());
        }
        let mut problem = Self::new(status, error.name(), error.to_string());
        match error {
            Error::TooLarge { field, limit, .. } => {
                (problem.field, problem.limit) = (Some((*field).to_owned()), Some(*limit));
            }
            Error::InvalidField { field, .. } => problem.field = Some((*field).to_owned()),
            Error::UnknownPartition { partitions, .. } => {
                (problem.field, problem.limit) = (Some("partition".to_owned()), Some(u64::from(*partitions)));
            }
            Error::UnknownTopic { .. } => problem.field = Some("topic".to_owned()),
            Error::UnknownGroup { .. } => problem.field = Some("group".to_owned()),
            Error::OffsetOutOfRange { log_start, high_watermark, .. } => {
                problem = problem
                    .header("x-tidelog-log-start", log_start)
                    .header("x-tidelog-high-watermark", high_watermark)
                    .with("log_start", *log_start)
                    .with("high_watermark", *high_watermark);
                problem.field = Some("from".to_owned());
            }
            _ => {}
        }
        problem
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        Self::from(&error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_says_what_to_do() {
        let unavailable =
            Error::Unavailable { what: "the table takes no commits", cause: "throttled".into() };
        for (error, status, retriable) in [
            (unavailable, 503, true),
            (Error::Unknown { waited_ms: 9, cause: "none".into() }, 503, true),
            (Error::BufferFull { limit_bytes: 9 }, 429, true),
            (Error::UnknownTopic { topic: "t".into() }, 404, false),
            (Error::TopicDeleted { topic: "t".into() }, 503, true),
            (Error::TooLarge { field: "record", size: 9, limit: 8 }, 413, false),
            (Error::invalid("timestamp", "no"), 400, false),
            (Error::damaged("x", "y"), 500, false),
        ] {
            let problem = Problem::from(&error);
            assert_eq!((problem.status, problem.retriable), (status, retriable), "{error}");
            let asked = problem.headers.iter().any(|(name, _)| *name == "retry-after");
            assert_eq!(asked, retriable, "{error}");
        }
        let large =
            serde_json::to_value(Problem::from(Error::TooLarge { field: "record", size: 9, limit: 8 }));
        let large = large.unwrap();
        assert_eq!((&large["field"], &large["limit"]), (&"record".into(), &8.into()));
    }

    #[test]
    fn messages_are_bounded() {
        let problem = Problem::invalid("key", "é".repeat(5_000));
        assert!(problem.message.len() <= limits::HTTP_MESSAGE_BYTES_MAX + 3, "{}", problem.message.len());
    }
}
