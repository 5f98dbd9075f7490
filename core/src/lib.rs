//! Tidelog: a log with no brokers.

pub mod append;
pub mod batch;
pub mod counting;
pub mod env;
pub mod error;
pub mod ledger;
pub mod limits;
pub mod objects;
pub mod plant;
pub mod record;
pub mod segment;
pub mod store;
pub mod table;
pub mod topic;

pub use error::{Error, ErrorKind, Result};
