//! Bytes, replay and decisions of the ledger, without a store.

use bytes::Bytes;
use proptest::prelude::*;

use super::action::*;
use super::decide::*;
use super::view::View;
use super::{checkpoint, codec};
use crate::error::Error;
use crate::limits;
use crate::record::{RecordSum, TopicId};
use crate::segment::{Layout, Span};

const T: TopicId = TopicId(0x1111);

fn span(position: u32, length: u32) -> Span {
    Span { position, length, crc: 0xdead_beef }
}

fn object(drawn: u64, ulid: u128) -> ObjectRef {
    ObjectRef { era: 0, ledger: LEDGER, drawn, ulid }
}

fn layout() -> Layout {
    Layout { groups: vec![span(4, 100), span(104, 50)], footer: span(154, 400) }
}

fn store() -> Action {
    let (table, store_id) = ("local".into(), 0xabcd);
    Action::Store(Store { format: 1, store_id, era: 0, table, created_ms: 1_000 })
}

fn create(id: TopicId, name: &str, partitions: u32) -> Action {
    let config = vec![("retention.ms".into(), "1000".into())];
    Action::Topic(TopicChange::Create { id, name: name.into(), partitions, config })
}

fn key(producer: u128) -> ProducerKey {
    ProducerKey { kind: IdentityKind::Dense, producer }
}

fn identity(first: u64, last: u64) -> Identity {
    Identity { key: key(9), epoch: 0, first_sequence: first, last_sequence: last }
}

fn batch(first_row: u64, rows: u32, identity: Option<Identity>) -> BatchProposal {
    BatchProposal {
        topic: T,
        partition: 0,
        group: 0,
        first_row,
        rows,
        time_us: (10, 20),
        sum: RecordSum { hashes: u128::from(rows) * 3, places: 7 },
        identity,
    }
}

fn append(drawn: u64, ulid: u128, batches: Vec<BatchProposal>) -> Proposal {
    let data = Data::Object { object: object(drawn, ulid), layout: layout() };
    Proposal::Append(AppendProposal { data, batches })
}

/// One of every action, as it could follow each other.
fn every_action() -> Vec<Action> {
    let l1 = |ulid| L1Object { object: object(3, ulid), hour: 495_000, topic: T, footer: span(9, 9) };
    let range = |base, end| L1Range {
        object: 0,
        partition: 0,
        base,
        end,
        rows: end - base,
        groups: (0, 1),
        append_ms: (1_000, 2_000),
        time_us_max: 20,
        bytes_running: 0,
        sum: RecordSum { hashes: 1, places: 2 },
    };
    let slice = SliceBody {
        topic: T,
        partition: 0,
        base: 0,
        group: 1,
        first_row: 5,
        time_us: (-3, 20),
        time_type: TimestampType::LogAppendTime,
        sum: RecordSum { hashes: u128::MAX, places: 1 },
        batches: vec![
            BatchBody { rows: 4, flags: 0, identity: None },
            BatchBody { rows: 2, flags: 0, identity: Some(identity(0, 1)) },
        ],
    };
    let once =
        Identity { key: ProducerKey { kind: IdentityKind::Once, producer: 1 << 100 }, ..identity(0, 0) };
    let inline = SliceBody {
        base: 6,
        group: 0,
        first_row: 0,
        batches: vec![BatchBody { rows: 1, flags: 0, identity: Some(once) }],
        ..slice.clone()
    };
    let stored =
        GroupOffset { topic: T, partition: 1, offset: Some(4), leader_epoch: -1, metadata: "m".into() };
    vec![
        store(),
        Action::Level(1),
        create(T, "logs", 2),
        Action::Topic(TopicChange::Alter {
            id: T,
            partitions: Some(3),
            config: vec![("retention.ms".into(), None), ("retention.bytes".into(), Some("5".into()))],
        }),
        Action::Append(Append {
            data: Data::Object { object: object(3, 77), layout: layout() },
            slices: vec![slice],
        }),
        Action::Append(Append { data: Data::Inline(Bytes::from_static(b"rows")), slices: vec![inline] }),
        Action::Lead(Lead { who: 5, address: "host:1".into(), take: vec![(T, 0), (T, 1)], let_go: vec![] }),
        Action::Lead(Lead { who: 5, address: String::new(), take: vec![], let_go: vec![(T, 1)] }),
        Action::Offsets(GroupOffsets {
            group: "g".into(),
            member: String::new(),
            generation: -1,
            offsets: vec![stored],
        }),
        Action::Checkpoint(Checkpoint { name: CheckpointName { at: 6, era: 0, ulid: 3 }, checksum: 9 }),
        Action::Expire(Expire { what: Expiring::Producers(IdentityKind::Once), before_ms: 1 }),
        Action::Expire(Expire { what: Expiring::Groups, before_ms: 1 }),
        Action::Trim(vec![TrimTo { topic: T, partition: 0, log_start: 2, oldest_ms: 0, oldest_bytes: 0 }]),
        Action::Floor(Floor { floor: 2, forget: 1 }),
        Action::Fold(Fold { objects: vec![l1(500)], ranges: vec![range(0, 6)] }),
        Action::Indexed(15),
        Action::Rewrite(Rewrite {
            topic: T,
            generation: 0,
            objects: vec![l1(501)],
            ranges: vec![range(0, 6)],
            replaced: vec![(l1(500).object, 500)],
        }),
        Action::Topic(TopicChange::Delete { id: T }),
    ]
}

/// A chain with one action a commit; bodies as they would be stored.
fn chain(actions: Vec<Action>) -> (View, Vec<(u128, Bytes)>) {
    let (mut view, mut bodies) = (View::default(), Vec::new());
    for action in actions {
        let (slot, id) = (view.slot + 1, (5u128 << 64) | u128::from(view.slot + 1));
        let checkpoint = view.checkpoint.map(|named| named.name);
        let time_ms = 1_000 + view.slot as i64;
        let commit = Commit { prev: view.id, time_ms, checkpoint, actions: vec![action] };
        let body = codec::encode(&commit, slot, id).unwrap();
        assert_eq!(codec::decode(&body, slot, id).unwrap(), commit);
        view.apply(slot, id, &commit).unwrap();
        let bytes = checkpoint::encode(&view);
        let again = checkpoint::decode("checkpoint", &bytes).unwrap();
        assert_eq!(again, view, "after commit {slot}");
        assert_eq!(checkpoint::encode(&again), bytes, "canonical");
        bodies.push((id, body));
    }
    (view, bodies)
}

#[test]
fn every_action_goes_through_bytes_and_checkpoint() {
    let (view, _) = chain(every_action());
    assert_eq!(view.slot as usize, every_action().len());
    assert!(view.topics.is_empty() && view.groups.values().all(|group| group.offsets.is_empty()));
}

#[test]
fn golden_bodies_and_checkpoint_are_read_for_ever() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/v1/ledger");
    let actions = every_action();
    let (_, bodies) = chain(actions.clone());
    let (view, _) = chain(actions[..14].to_vec());
    for (slot, ((id, body), action)) in (1..).zip(bodies.iter().zip(&actions)) {
        assert_eq!(codec::decode(body, slot, *id).unwrap().actions, std::slice::from_ref(action));
    }
    let mut files: Vec<(String, Bytes)> = bodies
        .iter()
        .zip(&actions)
        .enumerate()
        .map(|(i, ((_, body), action))| (format!("{:02}-{}.commit", i + 1, action.kind()), body.clone()))
        .collect();
    // RFC 0002: with times of the oldest records, and as it was before.
    let trim = TrimTo { topic: T, partition: 0, log_start: 2, oldest_ms: 1_000, oldest_bytes: 0 };
    let commit =
        Commit { prev: 7, time_ms: 1_012, checkpoint: None, actions: vec![Action::Trim(vec![trim])] };
    let dated = codec::encode(&commit, 13, 8).unwrap();
    assert_eq!(codec::decode(&dated, 13, 8).unwrap(), commit);
    files.push(("13-trim-dated.commit".into(), dated));
    files.push(("14-dated.checkpoint".into(), checkpoint::encode(&view)));
    let mut undated = view;
    undated.topics.values_mut().flat_map(|t| &mut t.partitions).for_each(|p| p.oldest_ms = 0);
    let bytes = checkpoint::encode(&undated);
    assert_eq!(checkpoint::decode("checkpoint", &bytes).unwrap(), undated);
    files.push(("14.checkpoint".into(), bytes));
    // RFC 0003: with the bytes of merged records.
    let mut counted = actions[..16].to_vec();
    for action in &mut counted {
        match action {
            Action::Fold(fold) => fold.ranges[0].bytes_running = 70_000,
            Action::Indexed(_) => *action = create(TopicId(8), "other", 1),
            _ => {}
        }
    }
    let trim = TrimTo { topic: T, partition: 0, log_start: 4, oldest_ms: 0, oldest_bytes: 70_000 };
    counted.push(Action::Trim(vec![trim]));
    let (view, bodies) = chain(counted);
    files.push(("15-fold-counted.commit".into(), bodies[14].1.clone()));
    files.push(("17-trim-counted.commit".into(), bodies[16].1.clone()));
    files.push(("17-counted.checkpoint".into(), checkpoint::encode(&view)));
    let Action::Rewrite(mut rewrite) = actions[16].clone() else { panic!("{:?}", actions[16]) };
    rewrite.ranges[0].bytes_running = 70_000;
    for (name, replaced) in [("counted", rewrite.replaced.clone()), ("counted-replaces-nothing", vec![])] {
        let rewrite = Action::Rewrite(Rewrite { replaced, ..rewrite.clone() });
        let commit = Commit { prev: 7, time_ms: 1_016, checkpoint: None, actions: vec![rewrite] };
        let bytes = codec::encode(&commit, 17, 8).unwrap();
        assert_eq!(codec::decode(&bytes, 17, 8).unwrap(), commit);
        files.push((format!("17-rewrite-{name}.commit"), bytes));
    }
    for (name, bytes) in &files {
        let path = folder.join(name);
        if std::env::var_os("TIDELOG_BLESS").is_some() {
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(&path, bytes).unwrap();
        }
        let stored = std::fs::read(&path)
            .unwrap_or_else(|e| panic!("{}: {e}; TIDELOG_BLESS=1 writes it", path.display()));
        assert_eq!(stored, bytes.as_ref(), "{name} changed: that is a change of format");
    }
}

#[test]
fn flipped_and_truncated_bytes_are_damage_never_a_panic() {
    let (view, bodies) = chain(every_action());
    for (slot, (id, body)) in bodies.iter().enumerate() {
        for at in 0..body.len() {
            for bit in 0..8 {
                let mut bytes = body.to_vec();
                bytes[at] ^= 1 << bit;
                let error = codec::decode(&bytes.into(), slot as u64 + 1, *id).unwrap_err();
                assert!(matches!(error, Error::Damaged { .. } | Error::Newer { .. }), "{error}");
            }
            assert!(codec::decode(&body.slice(..at), slot as u64 + 1, *id).is_err());
        }
        assert!(codec::decode(body, slot as u64 + 2, *id).is_err(), "bound to its slot");
        assert!(codec::decode(body, slot as u64 + 1, *id + 1).is_err(), "bound to its id");
    }
    let bytes = checkpoint::encode(&view);
    for at in 0..bytes.len() {
        let mut flipped = bytes.to_vec();
        flipped[at] ^= 1;
        assert!(checkpoint::decode("checkpoint", &flipped.into()).is_err());
    }
}

/// `decide` never lets these through: whoever finds them must not go on, since no checkpoint could say what they say.
#[test]
fn what_a_trim_says_of_the_oldest_records_must_be_possible() {
    let (view, _) = chain(every_action()[..5].to_vec());
    let trim = TrimTo { topic: T, partition: 0, log_start: 2, oldest_ms: 0, oldest_bytes: 0 };
    for (oldest_ms, oldest_bytes, is_possible) in
        [(view.time_ms, 0, true), (view.time_ms + 1, 0, false), (0, 1, false)]
    {
        let actions = vec![Action::Trim(vec![TrimTo { oldest_ms, oldest_bytes, ..trim }])];
        let commit = Commit { prev: view.id, time_ms: view.time_ms, checkpoint: None, actions };
        let applied = view.clone().apply(view.slot + 1, 1, &commit);
        assert_eq!(applied.is_ok(), is_possible, "{applied:?}");
    }
}

#[test]
fn what_is_newer_stops_with_newer() {
    let commit = Commit { prev: 0, time_ms: 1, checkpoint: None, actions: vec![Action::Level(1)] };
    let body = codec::encode(&commit, 2, 3).unwrap();
    let mut version = body.to_vec();
    version[0] = 2;
    assert!(matches!(codec::decode(&version.into(), 2, 3), Err(Error::Newer { .. })));
    let level = Commit { actions: vec![Action::Level(2)], ..commit };
    let body = codec::encode(&level, 2, 3).unwrap();
    let error = codec::decode(&body, 2, 3).unwrap_err();
    assert_eq!(error.kind(), crate::ErrorKind::Retry);
    assert!(error.to_string().contains("level 2"), "{error}");
}

#[test]
fn apply_asserts_density_prev_time_and_base() {
    let (view, _) = chain(vec![store(), create(T, "logs", 1)]);
    let good = Commit { prev: view.id, time_ms: view.time_ms, checkpoint: None, actions: vec![] };
    assert!(view.clone().apply(3, 7, &good).is_ok());
    assert!(view.clone().apply(4, 7, &good).is_err(), "I-DENSE");
    assert!(view.clone().apply(3, 7, &Commit { prev: 1, ..good.clone() }).is_err(), "I-PREV");
    assert!(
        view.clone().apply(3, 7, &Commit { time_ms: view.time_ms - 1, ..good.clone() }).is_err(),
        "I-TIME"
    );
    let decision = decide(&view, &[append(2, 1, vec![batch(0, 3, None)])]);
    let mut actions = decision.actions;
    assert!(view.clone().apply(3, 7, &Commit { actions: actions.clone(), ..good.clone() }).is_ok());
    let Action::Append(append) = &mut actions[0] else { panic!() };
    append.slices[0].base = 1;
    assert!(view.clone().apply(3, 7, &Commit { actions, ..good }).is_err(), "I-BASE");
}

fn outcomes(decision: &Decision) -> Vec<String> {
    let batch = |outcome: &BatchOutcome| match outcome {
        BatchOutcome::Placed { base } => format!("placed {base}"),
        BatchOutcome::Duplicate { base, .. } => format!("duplicate {base:?}"),
        BatchOutcome::Refused(_) => "refused".into(),
        BatchOutcome::Deferred => "deferred".into(),
    };
    let of = |outcome: &Outcome| match outcome {
        Outcome::Append(batches) => batches.iter().map(batch).collect::<Vec<_>>(),
        other => vec![format!("{other:?}")],
    };
    decision.outcomes.iter().flat_map(of).collect()
}

#[test]
fn a_commit_holds_a_batch_once_and_slices_skip_what_drops_out() {
    let (view, _) = chain(vec![store(), create(T, "logs", 1)]);
    // The retry of a batch in the same flush, between two others.
    let batches = vec![
        batch(0, 2, Some(identity(0, 1))),
        batch(2, 2, Some(identity(0, 1))),
        batch(4, 1, Some(identity(2, 2))),
    ];
    let decision = decide(&view, &[append(2, 1, batches)]);
    assert_eq!(outcomes(&decision), ["placed 0", "duplicate Some(0)", "placed 2"]);
    let Action::Append(append) = &decision.actions[0] else { panic!() };
    let slices: Vec<_> = append.slices.iter().map(|s| (s.base, s.first_row, s.rows())).collect();
    assert_eq!(slices, [(0, 0, 2), (2, 4, 1)]);
}

#[test]
fn neighbours_become_one_slice_with_a_joined_sum() {
    let (view, _) = chain(vec![store(), create(T, "logs", 1)]);
    let (a, b) = (batch(0, 2, None), batch(2, 3, None));
    let decision = decide(&view, &[append(2, 1, vec![a, b])]);
    let Action::Append(append) = &decision.actions[0] else { panic!() };
    assert_eq!(append.slices.len(), 1);
    assert_eq!(append.slices[0].sum, a.sum + b.sum.shifted(2));
    assert_eq!(append.slices[0].batches, [BatchBody { rows: 5, flags: 0, identity: None }]);
}

#[test]
fn names_outside_floor_and_view_are_drawn_again() {
    let floor = Action::Floor(Floor { floor: 2, forget: 0 });
    let (view, _) = chain(vec![store(), create(T, "logs", 1), floor]);
    for (drawn, redraw) in [(1, true), (2, false), (3, false), (4, true)] {
        let decision = decide(&view, &[append(drawn, 1, vec![batch(0, 1, None)])]);
        assert_eq!(matches!(decision.outcomes[0], Outcome::Redraw), redraw, "drawn {drawn}");
    }
}

#[test]
fn a_commit_is_full_at_its_plan_and_nothing_overtakes() {
    let (view, _) = chain(vec![store(), create(T, "logs", 400)]);
    let batches: Vec<_> =
        (0..400).map(|p| BatchProposal { partition: p, ..batch(u64::from(p), 1, None) }).collect();
    let decision = decide(&view, &[append(2, 1, batches), append(2, 2, vec![batch(0, 1, None)])]);
    let outcomes = outcomes(&decision);
    let placed = outcomes.iter().take_while(|o| o.starts_with("placed")).count();
    assert!(placed > 200 && placed <= limits::SLICES_PER_COMMIT, "{placed}");
    assert!(outcomes[placed..].iter().all(|o| o.starts_with("deferred") || o == "Deferred"));
    let commit = Commit { prev: view.id, time_ms: view.time_ms, checkpoint: None, actions: decision.actions };
    let body = codec::encode(&commit, 3, 1).unwrap();
    assert!(body.len() <= limits::COMMIT_BYTES_PLANNED + 1_000, "{}", body.len());
}

#[test]
fn monotone_and_once_have_their_own_rules() {
    let (mut view, _) = chain(vec![store(), create(T, "logs", 1)]);
    let of = |kind, first, last| {
        let key = ProducerKey { kind, producer: 4 };
        Some(Identity { key, epoch: 0, first_sequence: first, last_sequence: last })
    };
    let mut put = |identity| {
        let decision = decide(&view, &[append(2, 1, vec![batch(0, 1, identity)])]);
        let outcome = outcomes(&decision).remove(0);
        let (slot, prev, time_ms) = (view.slot + 1, view.id, view.time_ms);
        let commit = Commit { prev, time_ms, checkpoint: None, actions: decision.actions };
        view.apply(slot, u128::from(slot), &commit).unwrap();
        outcome
    };
    assert_eq!(put(of(IdentityKind::Monotone, 10, 20)), "placed 0");
    assert_eq!(put(of(IdentityKind::Monotone, 50, 60)), "placed 1", "gaps are allowed");
    assert_eq!(put(of(IdentityKind::Monotone, 10, 20)), "duplicate Some(0)");
    assert_eq!(put(of(IdentityKind::Monotone, 12, 15)), "duplicate None");
    assert_eq!(put(of(IdentityKind::Monotone, 55, 70)), "refused", "half old, half new");
    assert_eq!(put(of(IdentityKind::Once, 0, 0)), "placed 2");
    assert_eq!(put(of(IdentityKind::Once, 0, 0)), "duplicate Some(2)");
}

#[test]
fn checkpoints_stay_small() {
    let mut actions = vec![store()];
    for topic in 0..10u128 {
        actions.push(create(TopicId(topic), &format!("topic-{topic}"), 1_000));
    }
    let (mut view, _) = chain(actions);
    let empty = checkpoint::encode(&view).len();
    assert!(empty <= 100 * 10_000, "{empty}");
    for i in 0..2_000u64 {
        let proposal = BatchProposal {
            topic: TopicId(u128::from(i % 10)),
            time_us: (1_764_000_000_000_000 + i as i64, 1_764_000_000_500_000),
            ..batch(0, 1_000, None)
        };
        let decision = decide(&view, &[append(view.slot, u128::from(i) << 64, vec![proposal])]);
        let (slot, prev) = (view.slot + 1, view.id);
        let commit = Commit {
            prev,
            time_ms: 1_764_000_000_000 + i as i64,
            checkpoint: None,
            actions: decision.actions,
        };
        view.apply(slot, u128::from(slot), &commit).unwrap();
    }
    let each = (checkpoint::encode(&view).len() - empty) / 2_000;
    assert!(each <= 128, "{each} bytes a slice");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), slot in 1u64..9) {
        // With a checksum that fits, so that the parser is reached.
        let mut bytes = bytes;
        if let Some(first) = bytes.first_mut() { *first = codec::BODY_VERSION; }
        let sum = codec::checksum(slot, 1, &bytes);
        bytes.extend_from_slice(&sum.to_be_bytes());
        let _ = codec::decode(&bytes.clone().into(), slot, 1);
        let sum = checkpoint::checksum(&bytes);
        bytes.extend_from_slice(&sum.to_be_bytes());
        let _ = checkpoint::decode("checkpoint", &bytes.into());
    }

    #[test]
    fn replay_of_any_appends_is_dense(rows in proptest::collection::vec((1u32..50, 0u32..3, any::<bool>()), 1..60)) {
        let (mut view, _) = chain(vec![store(), create(T, "logs", 3)]);
        let mut expected = [0u64; 3];
        let mut sequences = [0u64; 3];
        for (rows, partition, known) in rows {
            let p = partition as usize;
            let identity = known.then(|| identity(sequences[p], sequences[p] + u64::from(rows) - 1));
            if known { sequences[p] += u64::from(rows); }
            let proposal = BatchProposal { partition, ..batch(0, rows, identity) };
            let decision = decide(&view, &[append(view.slot, u128::from(view.slot), vec![proposal])]);
            prop_assert_eq!(outcomes(&decision), vec![format!("placed {}", expected[p])]);
            expected[p] += u64::from(rows);
            let (slot, prev, time_ms) = (view.slot + 1, view.id, view.time_ms);
            let commit = Commit { prev, time_ms, checkpoint: None, actions: decision.actions };
            view.apply(slot, u128::from(slot), &commit).unwrap();
        }
        for (p, next) in expected.iter().enumerate() {
            let partition = view.partition(T, p as u32).unwrap();
            prop_assert_eq!(partition.next, *next);
            prop_assert_eq!(partition.slices.iter().map(|s| s.rows).sum::<u64>(), *next);
        }
        let bytes = checkpoint::encode(&view);
        prop_assert_eq!(checkpoint::decode("c", &bytes).unwrap(), view);
    }
}
