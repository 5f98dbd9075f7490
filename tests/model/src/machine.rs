//! What may happen next, and the laws.

use std::collections::BTreeSet;

use stateright::{Model, Property};

use crate::Bug;
use crate::state::*;

/// A small world: how much of everything there may be.
#[derive(Debug, Clone)]
pub struct Tidelog {
    /// Each has one record.
    pub writers: usize,
    /// So many of them were acked before it began.
    pub acked: usize,
    /// Whether an answer may get lost.
    pub lossy: bool,
    pub mergers: usize,
    /// Whether somebody reads, once.
    pub reads: bool,
    /// Commits of any kind.
    pub commits: u8,
    /// Objects of any kind.
    pub objects: usize,
    /// Runs of the sweeper.
    pub sweeps: u8,
    pub bug: Option<Bug>,
}

/// What must be reached somewhere, or the laws say little.
pub const FAR: &str = "a rewrite is indexed, and what it replaced swept";

/// A step of somebody, or of the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    Upload(usize),
    Put(usize),
    /// A writer's put lands.
    Land(u8, Action),
    /// The answer comes.
    Hear(usize),
    /// It does not.
    Miss(usize),
    /// A read of the slot that was put into.
    Look(usize),
    /// An L1 object of so many of the oldest slices, or of all that is indexed.
    Merge(usize, u8),
    Rewrite(usize),
    /// Its object goes into the chain.
    Fold(usize),
    /// A merger dies, and what it knew with it.
    Crash(usize),
    /// Anyone sends a row of the oldest pending commit.
    SendRow(Row),
    LandRow(Row),
    Index(u8),
    Floor,
    LookAtView,
    ReadRows,
    Sweep(Object),
    EndSweep,
    Begin(u8),
    Follow,
    Get,
    BeginList,
    List,
    GetAll,
}

impl Tidelog {
    fn is(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    fn view(&self, state: &State, slots: u8) -> View {
        View::of(&state.chain, slots, self.bug)
    }

    fn head(&self, state: &State) -> View {
        self.view(state, state.head())
    }

    /// Whether an object may be named by the commit behind this view.
    fn is_drawn_well(&self, state: &State, object: Object, view: &View) -> bool {
        state.objects[object].drawn >= view.floor || self.is(Bug::FloorIgnored)
    }

    /// What this writer puts now.
    fn append(state: &State, writer: usize, object: Object) -> Action {
        Action::Append { writer, object, attempt: state.attempts[writer] }
    }

    /// The rows of a commit, each under a base: a fold has one; a rewrite overwrites every row of its range.
    fn rows_of(&self, state: &State, fold: u8) -> Vec<Row> {
        match state.chain[usize::from(fold) - 1] {
            Action::Fold { object, base, end } => vec![Row { base, end, object, fold }],
            Action::Rewrite { object, base, end } => {
                let bases = state.rows.range(base..end).map(|(base, _)| *base);
                bases.map(|at| Row { base: at, end, object, fold }).collect()
            }
            _ => Vec::new(),
        }
    }

    fn is_written(state: &State, row: &Row) -> bool {
        state.rows.get(&row.base).is_some_and(|there| there.fold >= row.fold)
    }

    fn land_row(&self, state: &mut State, row: Row) {
        if !Self::is_written(state, &row) || self.is(Bug::LateRowWins) {
            state.rows.insert(row.base, row);
        }
    }

    fn writer_steps(&self, state: &State, steps: &mut Vec<Step>) {
        for (number, writer) in state.writers.iter().enumerate() {
            match writer {
                Writer::Ready if state.objects.len() < self.objects => steps.push(Step::Upload(number)),
                Writer::Uploaded { .. } if state.head() < self.commits => steps.push(Step::Put(number)),
                Writer::Sent { slot, .. } => {
                    if state.head() >= *slot {
                        steps.push(Step::Hear(number));
                    }
                    if self.lossy {
                        steps.push(Step::Miss(number));
                    }
                }
                Writer::Unanswered { .. } => steps.push(Step::Look(number)),
                _ => {}
            }
        }
        // Those behind the head are for slots that nobody knows yet; those before it find theirs taken.
        let landing = state.puts.iter().filter(|(slot, _)| *slot == state.head() + 1);
        steps.extend(landing.map(|(slot, action)| Step::Land(*slot, *action)));
    }

    fn merger_steps(&self, state: &State, steps: &mut Vec<Step>) {
        let head = self.head(state);
        for (number, (_, merger)) in state.mergers.iter().enumerate() {
            match merger {
                Merger::Idle if state.objects.len() < self.objects => {
                    steps.extend((1..=head.slices.len() as u8).map(|slices| Step::Merge(number, slices)));
                    if head.indexed_to > 1 && state.rows.len() > 1 && head.pending.is_empty() {
                        steps.push(Step::Rewrite(number));
                    }
                }
                Merger::Uploaded { .. } => {
                    if state.head() < self.commits {
                        steps.push(Step::Fold(number));
                    }
                    steps.push(Step::Crash(number));
                }
                Merger::Idle => {}
            }
        }
        let carried: Vec<u8> = match self.is(Bug::RewriteNotCarried) {
            // Whoever committed it still writes its rows.
            true => (1..=state.head()).filter(|slot| !self.rows_of(state, *slot).is_empty()).collect(),
            false => head.pending.keys().copied().collect(),
        };
        for fold in &carried {
            for row in self.rows_of(state, *fold) {
                if !Self::is_written(state, &row) && !state.late.contains(&row) {
                    steps.push(Step::SendRow(row));
                }
            }
        }
        // Once sent, a request may arrive at any time, and again.
        steps.extend(state.late.iter().map(|row| Step::LandRow(*row)));
        // The oldest alone, and only when each of its rows was seen.
        if let Some(fold) = head.pending.keys().next()
            && self.rows_of(state, *fold).iter().all(|row| Self::is_written(state, row))
            && state.head() < self.commits
        {
            steps.push(Step::Index(*fold));
        }
    }

    fn sweeper_steps(&self, state: &State, steps: &mut Vec<Step>) {
        match &state.sweeper {
            Sweeper::Idle if self.is(Bug::ViewBeforeFloor) => steps.push(Step::LookAtView),
            Sweeper::Idle | Sweeper::Peeked { .. } if state.sweeps < self.sweeps => {
                let has_room = state.head() < self.commits || self.is(Bug::NoFloor);
                if has_room && state.head() > 0 {
                    steps.push(Step::Floor);
                }
            }
            Sweeper::Floored if self.is(Bug::RowsBeforeView) => steps.push(Step::ReadRows),
            Sweeper::Floored | Sweeper::RowsAlone { .. } => steps.push(Step::LookAtView),
            Sweeper::Viewed { .. } => steps.push(Step::ReadRows),
            Sweeper::Rows { named, view, dead } => {
                let found =
                    (0..state.objects.len()).filter(|o| self.is_swept(state, *o, named, *view, *dead));
                steps.extend(found.map(Step::Sweep));
                steps.push(Step::EndSweep);
            }
            _ => {}
        }
    }

    /// What a sweeper with this view, these index rows, and the dead list of that commit deletes.
    fn is_swept(&self, state: &State, object: Object, named: &BTreeSet<Object>, view: u8, dead: u8) -> bool {
        let at = self.view(state, view);
        let found = state.objects[object];
        let floor = if self.is(Bug::NoFloor) { u8::MAX } else { state.floor };
        let is_named = at.slices.iter().any(|(_, o)| *o == object)
            || at.pending.values().any(|pending| pending.3 == object)
            || named.contains(&object);
        // Who reads by an older view than the commit that let it go may still want it.
        // (An hour, in the log: no read takes as long.)
        let dead = self.view(state, dead).dead;
        let is_young =
            dead.get(&object).is_some_and(|slot| state.reader.view().is_some_and(|view| view < *slot));
        !found.deleted && found.drawn < floor && !is_named && (!is_young || self.is(Bug::DeadSweptAtOnce))
    }

    fn named_by_rows(state: &State) -> BTreeSet<Object> {
        state.rows.values().map(|row| row.object).collect()
    }

    fn read(&self, state: &State, offset: u8, view: u8, again: bool) -> Reader {
        let at = self.view(state, view);
        let object = match offset < at.indexed_to {
            true => state.row(offset).map(|row| row.object),
            false => at.object(offset),
        };
        let object = match self.is(Bug::ReaderJoins) {
            // The row as of now; if there is none, the unmerged slices of a view that is taken later.
            true => state.row(offset).map(|row| row.object).or_else(|| {
                self.head(state).slices.iter().find(|(at, _)| *at == offset).map(|(_, object)| *object)
            }),
            false => object,
        };
        match object {
            Some(object) => Reader::Found { offset, view, again, object },
            None => self.once_more(state, offset, again),
        }
    }

    /// Once more, with a fresh view and a query of its own; then it is an alarm.
    fn once_more(&self, state: &State, offset: u8, again: bool) -> Reader {
        match again {
            false => Reader::Viewed { offset, view: state.head(), again: true },
            true => Reader::Wrong,
        }
    }

    /// The exact list: of each offset of a view its object, the rows read after it.
    fn list(&self, state: &State, view: u8) -> Reader {
        let at = self.view(state, view);
        let object = |offset: u8| match offset < at.indexed_to {
            true => {
                let rewritten = at.rewritten(offset).filter(|_| !self.is(Bug::ListWithoutRewrites));
                // A row that is newer than the view's rewrite is of one that came after.
                let row = state.row(offset)?;
                let is_newer = at.pending.last_key_value().is_some_and(|(fold, _)| row.fold > *fold);
                rewritten.filter(|_| !is_newer).or(Some(row.object))
            }
            false => at.object(offset),
        };
        match (0..at.next).map(object).collect() {
            Some(objects) => Reader::Listed { view, objects },
            None => Reader::Wrong,
        }
    }
}

fn is_of(action: &Action, number: usize) -> bool {
    matches!(action, Action::Append { writer, .. } if *writer == number)
}

impl Model for Tidelog {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        let acked =
            |writer| Stored { drawn: writer as u8, record: Some(writer), range: (0, 0), deleted: false };
        let mut writers = vec![Writer::Ready; self.writers];
        (0..self.acked).for_each(|writer| writers[writer] = Writer::Acked { offset: writer as u8 });
        vec![State {
            chain: (0..self.acked)
                .map(|writer| Action::Append { writer, object: writer, attempt: 0 })
                .collect(),
            objects: (0..self.acked).map(acked).collect(),
            rows: Default::default(),
            puts: Default::default(),
            late: Default::default(),
            seen: vec![self.acked as u8; self.writers],
            attempts: vec![0; self.writers],
            writers,
            mergers: vec![(0, Merger::Idle); self.mergers],
            sweeper: Sweeper::Idle,
            floor: 0,
            sweeps: 0,
            reader: Reader::Idle,
        }]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        self.writer_steps(state, steps);
        self.merger_steps(state, steps);
        self.sweeper_steps(state, steps);
        match state.reader {
            Reader::Idle if self.reads => {
                steps.extend((0..self.head(state).next).map(Step::Begin));
                steps.push(Step::BeginList);
            }
            Reader::Viewed { .. } => steps.push(Step::Follow),
            Reader::Lists { .. } => steps.push(Step::List),
            Reader::Listed { .. } => steps.push(Step::GetAll),
            Reader::Found { .. } => steps.push(Step::Get),
            Reader::Idle | Reader::Wrong | Reader::Done => {}
        }
    }

    fn next_state(&self, before: &State, step: Step) -> Option<State> {
        let mut state = before.clone();
        match step {
            Step::Upload(number) => {
                let object = state.objects.len();
                let drawn = state.seen[number];
                state.objects.push(Stored { drawn, record: Some(number), range: (0, 0), deleted: false });
                state.writers[number] = Writer::Uploaded { object };
            }
            Step::Put(number) => {
                let Writer::Uploaded { object } = state.writers[number] else { return None };
                let view = self.view(&state, state.seen[number]);
                if !self.is_drawn_well(&state, object, &view) {
                    // Refused by its own view: a new name.
                    state.writers[number] = Writer::Ready;
                    return Some(state);
                }
                let slot = state.seen[number] + 1;
                state.attempts[number] += 1;
                state.puts.insert((slot, Self::append(&state, number, object)));
                state.writers[number] = Writer::Sent { object, slot };
            }
            Step::Land(_, action) => state.chain.push(action),
            Step::Hear(number) | Step::Look(number) => {
                let (Writer::Sent { object, slot } | Writer::Unanswered { object, slot }) =
                    state.writers[number]
                else {
                    return None;
                };
                let mine = Self::append(&state, number, object);
                match state.chain.get(usize::from(slot) - 1) {
                    Some(there) if *there == mine => {
                        let appends = |action: &&Action| matches!(action, Action::Append { .. });
                        let offset =
                            state.chain[..usize::from(slot) - 1].iter().filter(appends).count() as u8;
                        state.writers[number] = Writer::Acked { offset };
                    }
                    // Another's: decide again, one commit further.
                    Some(_) => {
                        state.seen[number] = slot;
                        state.writers[number] = Writer::Uploaded { object };
                    }
                    None if self.is(Bug::OneAbsentReadDecides) => {
                        state.seen[number] = state.head();
                        state.writers[number] = Writer::Uploaded { object };
                    }
                    // The same commit into the same slot.
                    None => {
                        state.puts.insert((slot, mine));
                        state.writers[number] = Writer::Sent { object, slot };
                    }
                }
            }
            Step::Miss(number) => {
                let Writer::Sent { object, slot } = state.writers[number] else { return None };
                state.writers[number] = Writer::Unanswered { object, slot };
            }
            Step::Merge(number, slices) => {
                let head = self.head(&state);
                let base = head.first_unmerged();
                let (drawn, range) = (state.head(), (base, base + slices));
                let object = state.objects.len();
                state.objects.push(Stored { drawn, record: None, range, deleted: false });
                if self.is(Bug::RowsBeforeFold) {
                    let row = Row { base, end: base + slices, object, fold: state.head() + 1 };
                    state.late.insert(row);
                }
                let merger = Merger::Uploaded { object, rewrite: false, generation: head.generation };
                state.mergers[number] = (state.head(), merger);
            }
            Step::Rewrite(number) => {
                let head = self.head(&state);
                let object = state.objects.len();
                let range = (0, head.indexed_to);
                state.objects.push(Stored { drawn: state.head(), record: None, range, deleted: false });
                let merger = Merger::Uploaded { object, rewrite: true, generation: head.generation };
                state.mergers[number] = (state.head(), merger);
            }
            Step::Fold(number) => {
                let (_, Merger::Uploaded { object, rewrite, generation }) = state.mergers[number] else {
                    return None;
                };
                state.mergers[number] = (0, Merger::Idle);
                let head = self.head(&state);
                let (base, end) = state.objects[object].range;
                let is_drawn_well = self.is_drawn_well(&state, object, &head);
                let holds = match rewrite {
                    true => {
                        generation == head.generation && head.pending.is_empty() && end <= head.indexed_to
                    }
                    false => base == head.first_unmerged() || self.is(Bug::FoldedAlready),
                };
                if holds && is_drawn_well {
                    state.chain.push(match rewrite {
                        true => Action::Rewrite { object, base, end },
                        false => Action::Fold { object, base, end },
                    });
                }
            }
            Step::Crash(number) => state.mergers[number] = (0, Merger::Idle),
            Step::SendRow(row) => drop(state.late.insert(row)),
            Step::LandRow(row) => self.land_row(&mut state, row),
            Step::Index(of) => state.chain.push(Action::Indexed { of }),
            Step::Floor => {
                state.floor = state.head();
                state.sweeps += 1;
                state.sweeper = match state.sweeper {
                    Sweeper::Peeked { view } => Sweeper::Viewed { view },
                    _ => Sweeper::Floored,
                };
                if !self.is(Bug::NoFloor) {
                    let floor = state.head();
                    state.chain.push(Action::Floor { floor });
                }
            }
            Step::LookAtView => {
                let view = state.head();
                state.sweeper = match state.sweeper {
                    Sweeper::Idle => Sweeper::Peeked { view },
                    Sweeper::RowsAlone { named } => Sweeper::Rows { named, view, dead: view },
                    _ => Sweeper::Viewed { view },
                };
            }
            Step::ReadRows => {
                let named = Self::named_by_rows(&state);
                state.sweeper = match state.sweeper {
                    Sweeper::Viewed { view } => {
                        let dead = if self.is(Bug::DeadOfTheFirstView) { view } else { state.head() };
                        Sweeper::Rows { named, view, dead }
                    }
                    _ => Sweeper::RowsAlone { named },
                };
            }
            Step::Sweep(object) => state.objects[object].deleted = true,
            Step::EndSweep => {
                state.sweeper = if state.sweeps < self.sweeps { Sweeper::Idle } else { Sweeper::Done }
            }
            Step::Begin(offset) => state.reader = Reader::Viewed { offset, view: state.head(), again: false },
            Step::Follow => {
                let Reader::Viewed { offset, view, again } = state.reader else { return None };
                state.reader = self.read(&state, offset, view, again);
            }
            Step::Get => {
                let Reader::Found { offset, again, object, .. } = state.reader else { return None };
                state.reader = match state.holds(object, offset) {
                    true => Reader::Done,
                    false => self.once_more(&state, offset, again),
                };
            }
            Step::BeginList => state.reader = Reader::Lists { view: state.head() },
            Step::List => {
                let Reader::Lists { view } = state.reader else { return None };
                state.reader = self.list(&state, view);
            }
            Step::GetAll => {
                let Reader::Listed { objects, .. } = &state.reader else { return None };
                let holds = (0u8..).zip(objects).all(|(offset, object)| state.holds(*object, offset));
                state.reader = if holds { Reader::Done } else { Reader::Wrong };
            }
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("L1, L3: what is acked is in the chain, there", |_, state: &State| {
                state.writers.iter().enumerate().all(|(number, writer)| match writer {
                    Writer::Acked { offset } => state.truth(*offset) == Some(number),
                    _ => true,
                })
            }),
            Property::always("L2: a record has one offset", |_, state: &State| {
                let count = |n: usize| state.chain.iter().filter(|action| is_of(action, n)).count();
                (0..state.writers.len()).all(|number| count(number) <= 1)
            }),
            Property::always(
                "L5, L8: the newest view leads to every record",
                |model: &Tidelog, state: &State| {
                    (0..model.head(state).next).all(|offset| state.readable(offset, model.bug))
                },
            ),
            Property::always("R4: a reader is never told that a record is not there", |_, state: &State| {
                state.reader != Reader::Wrong
            }),
            Property::sometimes(FAR, |model: &Tidelog, state: &State| {
                let rewritten = state.chain.iter().any(|action| matches!(action, Action::Rewrite { .. }));
                let swept = state.objects.iter().any(|object| object.deleted && object.record.is_none());
                rewritten && swept && model.head(state).pending.is_empty()
            }),
        ]
    }
}
