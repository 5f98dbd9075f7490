//! An exhaustive model of DESIGN's rules R1, R3 and R4: a ledger of put-if-absent slots, two writers, merges and rewrites
//! whose index rows are written by anyone at any time, a sweeper and a reader. Every interleaving of a small configuration
//! is visited, and the laws hold in each state; every planted mistake is one that somebody could design, and breaks one.
//!
//! ```text
//!  writer    draw and upload ─▶ put ─▶ answer, or none: look ─▶ ack
//!  merger    draw and upload ─▶ Fold or Rewrite          anyone   row, row … ─▶ Indexed
//!  sweeper   Floor ─▶ view ─▶ index rows ─▶ delete       reader   view ─▶ (row) ─▶ object
//! ```
//! One topic, one partition, one record an L0 object. Left out: time, checkpoints, producers, several partitions (the
//! simulator runs the shipped code with them), and key compaction, without which a topic's generation guards nothing: two
//! rewrites of the same rows hold the same.

#![allow(missing_docs, reason = "the fields say what they are")]

mod machine;
mod state;

pub use machine::{FAR, Step, Tidelog};
pub use state::*;

/// A mistake of design.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Bug {
    /// R1: one read that finds the slot empty decides that the put failed.
    OneAbsentReadDecides,
    /// R3: sweep commits no floor.
    NoFloor,
    /// R3: a writer that was stopped does not look at the floor.
    FloorIgnored,
    /// R3: sweep takes the view from before its floor.
    ViewBeforeFloor,
    /// R4: sweep reads the index rows before it takes its view.
    RowsBeforeView,
    /// R4: rows are written when the object is uploaded, before the fold is committed.
    RowsBeforeFold,
    /// R4: the last row to arrive wins.
    LateRowWins,
    /// R4: a fold is committed whatever was folded since its inputs were read.
    FoldedAlready,
    /// R4: the view does not carry a rewrite until its rows are written.
    RewriteNotCarried,
    /// R4: a reader looks for the row first, and then into a newer view's unmerged slices.
    ReaderJoins,
    /// What a commit let go is deleted while somebody reads by an older view.
    DeadSweptAtOnce,
    /// Sweep knows what is dead from the view before it read the index rows: what a rewrite replaced in between is neither in
    /// those rows nor on that list.
    DeadOfTheFirstView,
    /// A list of all objects has those that a rewrite replaced, where its rows are not written yet: dead for long, perhaps.
    ListWithoutRewrites,
}
