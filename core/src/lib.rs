//! Tidelog: a log with no brokers.

pub mod batch;
pub mod env;
pub mod error;
pub mod limits;
pub mod record;
pub mod segment;
pub mod table;

pub use error::{Error, ErrorKind, Result};
