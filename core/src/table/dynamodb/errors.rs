//! What DynamoDB's errors mean to the ledger (L3): applied or not, and whether later it may be.
//!
//! | what came back | a read | a write | why |
//! |---|---|---|---|
//! | no credentials at all; a wrong configuration | Refused | Refused | nothing was sent, and only a person can change it |
//! | credentials could not be fetched; connection refused | Throttled | Throttled | nothing was sent: no byte leaves before there are both |
//! | timeout, reset, any other silence | NoAnswer | NoAnswer | it may be applied, now or later |
//! | an answer that is cut, too large, fails its CRC-32 or cannot be parsed | NoAnswer | NoAnswer | somebody answered; what is not known |
//! | 5xx, whatever its name | NoAnswer | NoAnswer | a 500 may come after the write |
//! | 400 of the list of throttles | Throttled | Throttled | turned away at the door |
//! | 400 of the list of refusals | Refused | Refused | the request itself will never do |
//! | any other 4xx, redirect or name | Refused | NoAnswer | a name that nobody here knows proves nothing about a write |
//!
//! A write is one attempt. Where there were several, a throttle says something of the last one alone, so the SDK's
//! own retries are off, and the ledger never takes a later throttle for "not applied".

use crate::table::TableError;

/// How a request failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failed<'a> {
    /// It was never sent, and will not be until a person changes something.
    Unsendable,
    /// It was never sent; later it may be.
    NotSent,
    /// No answer, or one that says nothing.
    Silence,
    /// The service's answer.
    Told {
        /// HTTP status.
        status: u16,
        /// The error's name.
        code: &'a str,
    },
}

/// Turned away at the door, all of them. A conflict with a transaction or a replica is one, too: "rejected".
const THROTTLES: &[&str] = &[
    "LimitExceededException",
    "ProvisionedThroughputExceededException",
    "ReplicatedWriteConflictException",
    "RequestLimitExceeded",
    "Throttling",
    "ThrottlingException",
    "TransactionConflictException",
];

/// Refused before anything is written.
const REFUSALS: &[&str] = &[
    "AccessDenied",
    "AccessDeniedException",
    "ExpiredTokenException",
    "IncompleteSignature",
    "IncompleteSignatureException",
    "InvalidAction",
    "InvalidClientTokenId",
    "InvalidEndpointException",
    "InvalidSignatureException",
    "ItemCollectionSizeLimitExceededException",
    "MissingAuthenticationToken",
    "MissingAuthenticationTokenException",
    "NotAuthorized",
    "OptInRequired",
    "RequestExpired",
    "ResourceNotFoundException",
    "SerializationException",
    "SignatureDoesNotMatch",
    "UnknownOperationException",
    "UnrecognizedClientException",
    "ValidationException",
];

/// What it means, for a write or a read.
pub(super) fn judge(failed: Failed<'_>, write: bool, words: String) -> TableError {
    match failed {
        Failed::Unsendable => TableError::Refused(words),
        Failed::NotSent => TableError::Throttled(words),
        Failed::Silence | Failed::Told { status: 500.., .. } => TableError::NoAnswer(words),
        Failed::Told { status: 400, code } if THROTTLES.contains(&code) => TableError::Throttled(words),
        Failed::Told { status: 400..500, code } if REFUSALS.contains(&code) => TableError::Refused(words),
        Failed::Told { .. } if write => TableError::NoAnswer(words),
        Failed::Told { .. } => TableError::Refused(words),
    }
}

/// What a person can do about it.
pub(super) fn advice(code: &str, message: &str) -> Option<&'static str> {
    match code {
        "ResourceNotFoundException" => {
            Some("there is no such table there: make it with `tidelog init`, or correct table= and region=")
        }
        // "Query condition missed key schema element", "The provided key element does not match the schema",
        // "Missing the key sk in the item", "Type mismatch for key pk".
        "ValidationException" if message.to_ascii_lowercase().contains("key") => {
            Some("it has another schema than pk (string) and sk (number): it is not a tidelog table")
        }
        "UnrecognizedClientException" | "InvalidClientTokenId" => {
            Some("AWS does not know these credentials: look at the profile or AWS_ACCESS_KEY_ID")
        }
        "ExpiredTokenException" => Some("the credentials have expired: get new ones"),
        "InvalidSignatureException" | "SignatureDoesNotMatch" | "RequestExpired" => {
            Some("the secret key is wrong, or this machine's clock is off by minutes")
        }
        "AccessDeniedException" | "AccessDenied" => Some(
            "the credentials lack this right on this table; docs/RUNNING_ON_AWS.md lists those that are needed",
        ),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(failed: Failed<'_>) -> [&'static str; 2] {
        [false, true].map(|write| match judge(failed, write, String::new()) {
            TableError::Refused(_) => "refused",
            TableError::Throttled(_) => "throttled",
            TableError::NoAnswer(_) => "no answer",
            TableError::Damaged(_) => "damaged",
        })
    }

    #[test]
    fn the_table_above_is_the_code_below() {
        let told = |status, code| Failed::Told { status, code };
        let rows = [
            (Failed::Unsendable, ["refused", "refused"]),
            (Failed::NotSent, ["throttled", "throttled"]),
            (Failed::Silence, ["no answer", "no answer"]),
            (told(500, "InternalServerError"), ["no answer", "no answer"]),
            (told(503, "ServiceUnavailable"), ["no answer", "no answer"]),
            (told(503, "ThrottlingException"), ["no answer", "no answer"]),
            (told(500, "ValidationException"), ["no answer", "no answer"]),
            (told(400, "ProvisionedThroughputExceededException"), ["throttled", "throttled"]),
            (told(400, "ThrottlingException"), ["throttled", "throttled"]),
            (told(400, "RequestLimitExceeded"), ["throttled", "throttled"]),
            (told(400, "TransactionConflictException"), ["throttled", "throttled"]),
            (told(400, "ValidationException"), ["refused", "refused"]),
            (told(400, "AccessDeniedException"), ["refused", "refused"]),
            (told(403, "AccessDeniedException"), ["refused", "refused"]),
            (told(400, "ResourceNotFoundException"), ["refused", "refused"]),
            (told(400, "SomethingNew"), ["refused", "no answer"]),
            (told(413, ""), ["refused", "no answer"]),
            (told(301, "PermanentRedirect"), ["refused", "no answer"]),
            (told(200, "ValidationException"), ["refused", "no answer"]),
        ];
        for (failed, expected) in rows {
            assert_eq!(kinds(failed), expected, "{failed:?}");
        }
    }
}
