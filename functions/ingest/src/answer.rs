//! The answer, record by record, in the order of the request.
//!
//! | status | what became of the records |
//! |---|---|
//! | 200 | all are in the log |
//! | 207 | the others never will be as they are: each says why |
//! | 400, 404, 413, 422 | none is, and never will be |
//! | 429, 503 | some are not yet: send those with `retriable` again (all of them, under an `Idempotency-Key`) |

use std::io::Write;

use serde::Serialize;
use tidelog_core::limits;
use tidelog_functions::{Problem, Response};

use crate::send::{Place, Taken};

/// Errors are told in full as long as the body is below this; each is told by its code at least.
const FULL_BYTES: usize = limits::HTTP_ANSWER_BYTES_MAX / 4;

#[derive(Serialize)]
struct Short {
    code: &'static str,
    retriable: bool,
}

/// The answer to a request with these records.
pub fn answer(taken: Taken, once: bool) -> Response {
    let (status, problem) = verdict(&taken);
    let mut body = Vec::with_capacity(64 + taken.len() * 32);
    // Writing into memory cannot fail.
    let _ = write(&mut body, &taken, problem.as_ref());
    let mut response = Response::new(status, "application/json", body);
    if let Some(problem) = problem {
        response.headers.extend(problem.headers);
    }
    if once {
        let (seconds, keys) = (limits::ONCE_EXPIRE_MS / 1_000, limits::PRODUCERS_MAX);
        response = response.header("idempotency-window", format!("seconds={seconds}, keys={keys}"));
    }
    response
}

fn verdict(taken: &Taken) -> (u16, Option<Problem>) {
    let refused: Vec<&Problem> = taken.iter().filter_map(|one| one.as_ref().err()).collect();
    let Some(first) = refused.iter().find(|problem| problem.retriable).or(refused.first()) else {
        return (200, None);
    };
    let alike = refused.iter().all(|problem| problem.status == first.status);
    let status = match refused.len() < taken.len() {
        _ if first.retriable => first.status,
        true => 207,
        false if alike => first.status,
        false => 400,
    };
    let message =
        format!("{} of {} records were not taken; the first: {}", refused.len(), taken.len(), first.message);
    let told = Problem::new(status, first.code, message);
    let (field, limit, retriable) = (first.field.clone(), first.limit, first.retriable);
    (status, Some(Problem { field, limit, retriable, headers: first.headers.clone(), ..told }))
}

fn write(out: &mut Vec<u8>, taken: &Taken, problem: Option<&Problem>) -> std::io::Result<()> {
    out.write_all(b"{")?;
    if let Some(problem) = problem {
        out.write_all(b"\"error\":")?;
        serde_json::to_writer(&mut *out, problem)?;
        out.write_all(b",")?;
    }
    out.write_all(b"\"records\":[")?;
    for (index, one) in taken.iter().enumerate() {
        if index > 0 {
            out.write_all(b",")?;
        }
        match one {
            Ok(Place { partition, offset, duplicate }) => {
                write!(out, r#"{{"partition":{partition},"offset":{offset}"#)?;
                out.write_all(if *duplicate { br#","duplicate":true}"# } else { b"}" })?;
            }
            Err(problem) => {
                out.write_all(b"{\"error\":")?;
                let short = Short { code: problem.code, retriable: problem.retriable };
                match out.len() < FULL_BYTES {
                    true => serde_json::to_writer(&mut *out, problem)?,
                    false => serde_json::to_writer(&mut *out, &short)?,
                }
                out.write_all(b"}")?;
            }
        }
    }
    out.write_all(b"]}")
}
