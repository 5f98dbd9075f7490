//! The simulator: the shipped append, fetch and ledger, unchanged, on one thread and in virtual time. A seed chooses
//! who is there, how long every request takes and what goes wrong with it; an oracle that knows nothing of the log
//! judges what came out.
//!
//! | file | what it is |
//! |---|---|
//! | `rng`, `clock` | seeded numbers, virtual time, the gate through which a process acts |
//! | `world` | what a seed chose, the faults, the trace |
//! | `table`, `store` | the two ports, each request a yield point |
//! | `process`, `cast` | processes that freeze, die and come back |
//! | `senders`, `identities`, `readers`, `members`, `upkeep`, `sweeping` | the actors |
//! | `era` | the table is lost, and the log goes on from a copy |
//! | `oracle` | the account and the promises |
//! | `run` | one seed, from its first request to the verdict |

pub mod cast;
pub mod clock;
pub mod era;
pub mod identities;
pub mod members;
pub mod oracle;
pub mod process;
pub mod readers;
pub mod rng;
pub mod run;
pub mod senders;
pub mod store;
pub mod sweeping;
pub mod table;
pub mod upkeep;
pub mod world;
