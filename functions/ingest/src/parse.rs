//! A request → records: all of what is read of a client, before anything is asked of the log. No clock, no I/O.

use tidelog_functions::{Problem, Request, encoding};

use crate::body;
pub use crate::body::Parsed;
pub use crate::options::{Form, Options};
pub use crate::otlp::parse as logs;

/// The records of a request to `/v1/topics/{topic}/records`, each or what is wrong with it. `bytes_max`: of the body after
/// it is unpacked.
///
/// # Errors
/// The body is not what the request says, or too large: then none of it is taken.
pub fn records(request: &Request, options: &Options, bytes_max: usize) -> Result<Vec<Parsed>, Problem> {
    body::records(options, &encoding::unpacked(request, bytes_max)?)
}
