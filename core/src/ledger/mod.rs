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

pub mod action;
pub mod apply;
pub mod checkpoint;
pub mod codec;
pub mod decide;
pub mod view;
pub mod wire;
