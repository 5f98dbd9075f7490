//! The state of the world, and what a view makes of the chain.

use std::collections::{BTreeMap, BTreeSet};

use crate::Bug;

/// Place in the list of objects; two never have the same name.
pub type Object = usize;

/// One action, one commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Action {
    /// The record of this writer, in this object. The attempt stands for the commit's id: decided again, it has another.
    Append { writer: usize, object: Object, attempt: u8 },
    /// Offsets `base..end` are in one L1 object.
    Fold { object: Object, base: u8, end: u8 },
    /// The same, of offsets that are in L1 objects already.
    Rewrite { object: Object, base: u8, end: u8 },
    /// Every row of that commit is written.
    Indexed { of: u8 },
    /// Objects drawn before this commit are refused.
    Floor { floor: u8 },
}

/// An object of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Stored {
    /// The newest commit of the view in which its name was drawn.
    pub drawn: u8,
    /// The writer whose record it holds, if it is an L0 object.
    pub record: Option<usize>,
    /// The offsets that it holds, if it is an L1 object.
    pub range: (u8, u8),
    /// Sweep took it.
    pub deleted: bool,
}

/// An index row, under its first offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Row {
    pub base: u8,
    pub end: u8,
    pub object: Object,
    /// The commit that it is of.
    pub fold: u8,
}

/// A writer, from drawing a name to the ack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Writer {
    /// Has a record, no object.
    Ready,
    Uploaded {
        object: Object,
    },
    /// Its put is on the way, or answered; it has not heard.
    Sent {
        object: Object,
        slot: u8,
    },
    /// It will not hear.
    Unanswered {
        object: Object,
        slot: u8,
    },
    Acked {
        offset: u8,
    },
}

/// A merger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Merger {
    Idle,
    Uploaded { object: Object, rewrite: bool, generation: u8 },
}

/// A sweeper, from its floor to its deletes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Sweeper {
    Idle,
    /// A view without a floor: a mistake.
    Peeked {
        view: u8,
    },
    Floored,
    Viewed {
        view: u8,
    },
    /// Index rows without a view: a mistake.
    RowsAlone {
        named: BTreeSet<Object>,
    },
    /// It knows what a view and then the index rows name, and what was dead after that. It deletes the rest.
    Rows {
        named: BTreeSet<Object>,
        view: u8,
        dead: u8,
    },
    Done,
}

/// Somebody who reads one offset, or asks for the exact list of all objects and reads those later.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Reader {
    Idle,
    /// From the view at this commit; `again`: it failed once, and its view is fresh.
    Viewed {
        offset: u8,
        view: u8,
        again: bool,
    },
    /// It knows the object.
    Found {
        offset: u8,
        view: u8,
        again: bool,
        object: Object,
    },
    /// A list, of which the rows are not read yet.
    Lists {
        view: u8,
    },
    /// An object for each offset, which must be there when it is read.
    Listed {
        view: u8,
        objects: Vec<Object>,
    },
    /// It got what is not there, or nothing though it is: refused for good.
    Wrong,
    Done,
}

impl Reader {
    /// The view that it reads by.
    pub fn view(&self) -> Option<u8> {
        match self {
            Self::Viewed { view, .. } | Self::Found { view, .. } => Some(*view),
            Self::Lists { view } | Self::Listed { view, .. } => Some(*view),
            Self::Idle | Self::Wrong | Self::Done => None,
        }
    }
}

/// Everything.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct State {
    pub chain: Vec<Action>,
    pub objects: Vec<Stored>,
    /// By base.
    pub rows: BTreeMap<u8, Row>,
    /// Puts of writers that were sent: each may arrive at any time, and again.
    pub puts: BTreeSet<(u8, Action)>,
    /// The same of rows.
    pub late: BTreeSet<Row>,
    /// How far each writer has read.
    pub seen: Vec<u8>,
    /// How often each has decided.
    pub attempts: Vec<u8>,
    pub writers: Vec<Writer>,
    pub mergers: Vec<(u8, Merger)>,
    pub sweeper: Sweeper,
    /// What it committed.
    pub floor: u8,
    pub sweeps: u8,
    pub reader: Reader,
}

/// What the first commits say.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// Unmerged: offset and object.
    pub slices: Vec<(u8, Object)>,
    pub next: u8,
    /// Commit → is it a rewrite, base, end, object.
    pub pending: BTreeMap<u8, (bool, u8, u8, Object)>,
    pub indexed_to: u8,
    pub generation: u8,
    pub floor: u8,
    /// What a commit let go, and which.
    pub dead: BTreeMap<Object, u8>,
}

impl View {
    /// Of the first `slots` commits.
    pub fn of(chain: &[Action], slots: u8, bug: Option<Bug>) -> Self {
        let mut view = Self::default();
        // The L1 object of each indexed offset, which a rewrite lets go.
        let mut l1: BTreeMap<u8, Object> = BTreeMap::new();
        for (slot, action) in (1u8..).zip(&chain[..usize::from(slots)]) {
            match *action {
                Action::Append { object, .. } => {
                    view.slices.push((view.next, object));
                    view.next += 1;
                }
                Action::Fold { object, base, end } => {
                    for (_, gone) in view.slices.iter().filter(|(offset, _)| *offset < end) {
                        view.dead.insert(*gone, slot);
                    }
                    view.slices.retain(|(offset, _)| *offset >= end);
                    view.pending.insert(slot, (false, base, end, object));
                    l1.extend((base..end).map(|offset| (offset, object)));
                }
                Action::Rewrite { object, base, end } => {
                    for offset in base..end {
                        if let Some(gone) = l1.insert(offset, object) {
                            view.dead.insert(gone, slot);
                        }
                    }
                    view.generation = slot;
                    if bug != Some(Bug::RewriteNotCarried) {
                        view.pending.insert(slot, (true, base, end, object));
                    }
                }
                Action::Indexed { of } => {
                    if let Some((false, _, end, _)) = view.pending.remove(&of) {
                        view.indexed_to = view.indexed_to.max(end);
                    }
                }
                Action::Floor { floor } => view.floor = floor,
            }
        }
        view
    }

    /// First offset that is neither indexed nor pending.
    pub fn first_unmerged(&self) -> u8 {
        self.slices.first().map_or(self.next, |(offset, _)| *offset)
    }

    /// The object that a rewrite, whose rows may not all be written, gives an offset.
    pub fn rewritten(&self, offset: u8) -> Option<Object> {
        let mut pending = self.pending.values().rev();
        let rewrite = pending.find(|(rewrite, base, end, _)| *rewrite && (*base..*end).contains(&offset));
        rewrite.map(|pending| pending.3)
    }

    /// The object of an offset that the view itself knows.
    pub fn object(&self, offset: u8) -> Option<Object> {
        let slice = self.slices.iter().find(|(at, _)| *at == offset).map(|(_, object)| *object);
        let folds = self.pending.values().filter(|(rewrite, ..)| !rewrite);
        let pending = folds.filter(|(_, base, end, _)| (*base..*end).contains(&offset)).map(|p| p.3).next();
        slice.or(pending)
    }
}

impl State {
    /// Number of the newest commit.
    pub fn head(&self) -> u8 {
        self.chain.len() as u8
    }

    /// The row that a query for `offset` finds: the greatest base that is not above it.
    pub fn row(&self, offset: u8) -> Option<Row> {
        self.rows.range(..=offset).next_back().map(|(_, row)| *row).filter(|row| row.end > offset)
    }

    /// Whose record an offset has, by the chain alone.
    pub fn truth(&self, offset: u8) -> Option<usize> {
        let appends = self.chain.iter().filter_map(|action| match action {
            Action::Append { writer, .. } => Some(*writer),
            _ => None,
        });
        appends.into_iter().nth(usize::from(offset))
    }

    /// Whether an object is there and holds the record of `offset`.
    pub fn holds(&self, object: Object, offset: u8) -> bool {
        let found = self.objects[object];
        let (base, end) = found.range;
        !found.deleted
            && match found.record {
                Some(writer) => self.truth(offset) == Some(writer),
                None => (base..end).contains(&offset),
            }
    }

    /// Whether the newest view leads to the record of `offset`.
    pub fn readable(&self, offset: u8, bug: Option<Bug>) -> bool {
        let view = View::of(&self.chain, self.head(), bug);
        let object = if offset < view.indexed_to {
            self.row(offset).map(|row| row.object)
        } else {
            view.object(offset)
        };
        object.is_some_and(|object| self.holds(object, offset))
    }
}
