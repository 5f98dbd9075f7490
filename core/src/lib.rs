//! Tidelog: a log with no brokers.

pub mod counting;
pub mod env;
pub mod error;
pub mod limits;
pub mod objects;
pub mod record;
pub mod store;
pub mod table;

pub use error::{Error, ErrorKind, Result};
