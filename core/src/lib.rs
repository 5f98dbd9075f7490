//! Tidelog: a log with no brokers. Records become immutable Parquet segments in object storage; one conditional write
//! to a table gives them their offsets; readers fetch by offset.
//!
//! # Layout, in the order in which data flows
//!
//! | module | what it is |
//! |---|---|
//! | [`record`] | 1 · the record, its hash and limits |
//! | [`batch`] | 2 · rows of one partition, column by column |
//! | [`segment`] | rows ↔ Parquet, inline rows: pure, same input, same bytes |
//! | [`append`] | 3 · `send` → flight → upload → proposal → ack |
//! | [`ledger`] | 4 · the chain of commits: the only mutable truth |
//! | [`fetch`] | 5 · offset → slices → verified rows; the consumer |
//! | [`files`] | the exact list of a topic's merged segments, for engines that read Parquet |
//! | [`upkeep`] | 6 · merge, trim and sweep: what nobody needs any more goes |
//! | [`restore`] | from a copy of its table the log goes on in a new era |
//! | [`text`] | lines and JSON ↔ records, for those who speak in text |
//! | [`topic`] | names and configuration |
//! | [`log`] | the front door: [`Log`], builders, [`Admin`] |
//! | [`table`], [`objects`], [`store`], [`mod@env`] | the ports: conditional writes, bytes, where they are, time and chance |
//! | [`metrics`], [`counting`], [`prices`] | what it did, told to a hook; what it asked of the stores, and what that costs |
//! | [`limits`], [`error`], [`plant`] | every bound; errors by what the caller does next; planted bugs |
//!
//! # A first run
//!
//! ```
//! # async fn run() -> tidelog_core::Result<()> {
//! use tidelog_core::{Log, Position, Record};
//!
//! let log = Log::open("memory:").await?;
//! log.admin().create_topic("logs", 4, &[]).await?;
//! let producer = log.producer().build()?;
//! let ack = producer.send("logs", Record::keyed("host-1", "started")).await?;
//! assert_eq!(ack.offset, Some(0)); // durable, and readable from here on
//!
//! let mut consumer = log.consumer("logs").from(Position::Start).until(Position::End).build().await?;
//! while let Some(message) = consumer.next_message().await {
//!     println!("{}", String::from_utf8_lossy(message?.record.value.as_deref().unwrap_or_default()));
//! }
//! # Ok(())
//! # }
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(run()).unwrap();
//! ```
//!
//! More to run: `produce`, `consume`, `idempotent` and `metrics` in `examples/`.
//!
//! # What can be seen of it
//!
//! Numbers go to a hook ([`metrics`]). Spans and events go to [`tracing`]: `flush`, `upload`, `commit`, `run`,
//! `cold_start`, `checkpoint`, `strip` and `lead` at debug; changes of leaders at info; what is tried again at warn; a
//! ledger that is refused at error. No record's content is ever in them.
//!
//! # Features
//!
//! | feature | what it adds |
//! |---|---|
//! | `aws` (default) | S3 and DynamoDB |
//! | `contract` | the suite that every table adapter must pass |
//! | `planted-bugs` | switches that turn single laws off, for the simulator; never in a release |

pub mod append;
pub mod batch;
pub mod counting;
pub mod env;
pub mod error;
pub mod fetch;
pub mod files;
pub mod inspect;
pub mod ledger;
pub mod limits;
pub mod log;
pub mod metrics;
pub mod objects;
pub mod plant;
pub mod prices;
pub mod record;
pub mod restore;
#[cfg(test)]
mod scale_tests;
pub mod segment;
pub mod store;
pub mod table;
pub mod text;
pub mod topic;
pub mod upkeep;
pub mod verify;

pub use append::{Delivery, Producer, RecordMetadata};
pub use error::{Error, ErrorKind, Result};
pub use fetch::{Consumer, Fetcher, Message, Position};
pub use log::{Admin, ConsumerBuilder, Log, LogBuilder, ProducerBuilder};
pub use record::{ConsumerRecord, Header, Record};
pub use segment::Compression;
pub use upkeep::{Upkeep, UpkeepSettings};
