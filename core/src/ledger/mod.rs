//! 4 · The ledger: a dense chain of commits, the only mutable truth.
//!
//! | file | what it is |
//! |---|---|
//! | `action` | what a commit can say |
//! | `codec`, `wire` | its bytes |
//! | `view` | what all commits up to one say together |
//! | `apply` | view + commit → next view |
//! | `decide` | view + proposals → next commit |
//! | `checkpoint` | a view as bytes |
//! | `chain` | the process's view, brought forward: tail reads, cold start |
//! | `commit` | the committer: group commit, put, settle |
//! | `index` | where merged records are: rows beside the chain |
//! | `keep` | checkpoints, strip, expiry |
//! | `lead` | which partitions a process leads |

pub mod action;
pub mod apply;
pub mod chain;
pub mod checkpoint;
pub mod codec;
#[cfg(test)]
mod codec_tests;
pub mod commit;
pub mod decide;
pub mod index;
mod keep;
pub(crate) mod lead;
#[cfg(test)]
pub(crate) mod settle_tests;
#[cfg(test)]
mod tests;
pub mod view;
pub mod wire;

pub use chain::{Ledger, Settings};
pub use keep::Kept;
