//! Tidelog: a log with no brokers.

pub mod append;
pub mod batch;
pub mod counting;
pub mod env;
pub mod error;
pub mod fetch;
pub mod inspect;
pub mod ledger;
pub mod limits;
pub mod log;
pub mod objects;
pub mod plant;
pub mod record;
pub mod segment;
pub mod store;
pub mod table;
pub mod topic;
pub mod verify;

pub use append::{Delivery, Producer, RecordMetadata};
pub use error::{Error, ErrorKind, Result};
pub use fetch::{Consumer, Fetcher, Message, Position};
pub use log::{Admin, ConsumerBuilder, Log, ProducerBuilder};
pub use record::{ConsumerRecord, Header, Record};
pub use segment::Compression;
