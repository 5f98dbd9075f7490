//! Any commit goes through bytes; what no release wrote is refused, with a checksum that fits.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;

use super::action::*;
use super::view::*;
use super::{checkpoint, codec};
use crate::error::{Error, Result};
use crate::limits;
use crate::record::{RecordSum, TopicId};
use crate::segment::{Layout, Span};

fn span() -> impl Strategy<Value = Span> {
    any::<(u32, u32, u32)>().prop_map(|(position, length, crc)| Span { position, length, crc })
}

fn object() -> impl Strategy<Value = ObjectRef> {
    any::<(u16, u16, u64, u128)>().prop_map(|(era, ledger, drawn, ulid)| ObjectRef {
        era,
        ledger,
        drawn,
        ulid,
    })
}

fn sum() -> impl Strategy<Value = RecordSum> {
    any::<(u128, u128)>().prop_map(|(hashes, places)| RecordSum { hashes, places })
}

fn times() -> impl Strategy<Value = (i64, i64)> {
    any::<(i64, i64)>().prop_map(|(a, b)| (a.min(b), a.max(b)))
}

fn place() -> impl Strategy<Value = (TopicId, u32)> {
    any::<(u128, u32)>().prop_map(|(topic, partition)| (TopicId(topic), partition))
}

fn kind() -> impl Strategy<Value = IdentityKind> {
    prop_oneof![Just(IdentityKind::Dense), Just(IdentityKind::Monotone), Just(IdentityKind::Once)]
}

fn identity() -> impl Strategy<Value = Identity> {
    (kind(), any::<(u128, u16, u64, u64)>()).prop_map(|(kind, (producer, epoch, a, b))| {
        // Kafka's ids have 63 bits.
        let producer = if kind == IdentityKind::Dense { producer >> 65 } else { producer };
        let (first_sequence, last_sequence) = (a.min(b), a.max(b));
        Identity { key: ProducerKey { kind, producer }, epoch, first_sequence, last_sequence }
    })
}

fn slice() -> impl Strategy<Value = SliceBody> {
    let batch =
        (1..=u32::MAX, of(identity())).prop_map(|(rows, identity)| BatchBody { rows, flags: 0, identity });
    let time_type = prop_oneof![Just(TimestampType::CreateTime), Just(TimestampType::LogAppendTime)];
    (place(), any::<(u64, u32, u64)>(), times(), time_type, sum(), vec(batch, 0..4)).prop_map(
        |((topic, partition), (base, group, first_row), time_us, time_type, sum, batches)| SliceBody {
            topic,
            partition,
            base,
            group,
            first_row,
            time_us,
            time_type,
            sum,
            batches,
        },
    )
}

fn append() -> impl Strategy<Value = Action> {
    let layout = (vec(span(), 0..4), span()).prop_map(|(groups, footer)| Layout { groups, footer });
    let data = prop_oneof![
        (object(), layout).prop_map(|(object, layout)| Data::Object { object, layout }),
        vec(any::<u8>(), 0..40).prop_map(|bytes| Data::Inline(bytes.into())),
    ];
    (data, vec(slice(), 0..4)).prop_map(|(data, slices)| Action::Append(Append { data, slices }))
}

fn topic() -> impl Strategy<Value = Action> {
    let text = || "[a-zé]{0,6}";
    let most = limits::PARTITIONS_PER_TOPIC_MAX / 8;
    let id = || any::<u128>().prop_map(TopicId);
    prop_oneof![
        (id(), text(), 0..most, vec((text(), text()), 0..3))
            .prop_map(|(id, name, partitions, config)| TopicChange::Create { id, name, partitions, config }),
        (id(), of(0..most), vec((text(), of(text())), 0..3))
            .prop_map(|(id, partitions, config)| TopicChange::Alter { id, partitions, config }),
        id().prop_map(|id| TopicChange::Delete { id }),
    ]
    .prop_map(Action::Topic)
}

fn l1() -> impl Strategy<Value = (Vec<L1Object>, Vec<L1Range>)> {
    let l1 = (object(), any::<u32>(), any::<u128>(), span())
        .prop_map(|(object, hour, topic, footer)| L1Object { object, hour, topic: TopicId(topic), footer });
    let range = (
        (0..2u32, any::<u32>(), 0..u64::MAX / 2, 1..u64::MAX / 2),
        any::<(u64, u32, u32, i64)>(),
        prop_oneof![Just(0), any::<u64>()],
        times(),
        sum(),
    )
        .prop_map(
            |(
                (object, partition, base, length),
                (rows, from, to, time_us_max),
                bytes_running,
                append_ms,
                sum,
            )| {
                let (end, groups) = (base + length, (from, to));
                L1Range {
                    object,
                    partition,
                    base,
                    end,
                    rows,
                    groups,
                    append_ms,
                    time_us_max,
                    bytes_running,
                    sum,
                }
            },
        );
    (vec(l1, 2), vec(range, 0..4))
}

fn checkpoint_name() -> impl Strategy<Value = CheckpointName> {
    any::<(u64, u16, u128)>().prop_map(|(at, era, ulid)| CheckpointName { at, era, ulid })
}

fn rest() -> impl Strategy<Value = Action> {
    let text = || "[a-zé]{0,6}";
    let store = (any::<(u32, u128, u16)>(), text(), 0..i64::MAX).prop_map(
        |((format, store_id, era), table, created_ms)| Store { format, store_id, era, table, created_ms },
    );
    let lead = (any::<u64>(), text(), vec(place(), 0..4), vec(place(), 0..4))
        .prop_map(|(who, address, take, let_go)| Lead { who, address, take, let_go });
    let known = (prop_oneof![Just(0), 0..i64::MAX], prop_oneof![Just(0), any::<u64>()]);
    let trim = (place(), any::<u64>(), known).prop_map(
        |((topic, partition), log_start, (oldest_ms, oldest_bytes))| TrimTo {
            topic,
            partition,
            log_start,
            oldest_ms,
            oldest_bytes,
        },
    );
    let what = prop_oneof![Just(Expiring::Groups), kind().prop_map(Expiring::Producers)];
    let offset = (place(), of(any::<u64>()), any::<i32>(), text()).prop_map(
        |((topic, partition), offset, leader_epoch, metadata)| GroupOffset {
            topic,
            partition,
            offset,
            leader_epoch,
            metadata,
        },
    );
    prop_oneof![
        store.prop_map(Action::Store),
        (0..=codec::LEVEL).prop_map(Action::Level),
        lead.prop_map(Action::Lead),
        vec(trim, 0..4).prop_map(Action::Trim),
        (checkpoint_name(), any::<u64>())
            .prop_map(|(name, checksum)| Action::Checkpoint(Checkpoint { name, checksum })),
        (what, 0..i64::MAX).prop_map(|(what, before_ms)| Action::Expire(Expire { what, before_ms })),
        (text(), text(), any::<i32>(), vec(offset, 0..4)).prop_map(|(group, member, generation, offsets)| {
            Action::Offsets(GroupOffsets { group, member, generation, offsets })
        }),
        any::<(u64, u64)>().prop_map(|(floor, forget)| Action::Floor(Floor { floor, forget })),
        l1().prop_map(|(objects, ranges)| Action::Fold(Fold { objects, ranges })),
        (any::<(u128, u64)>(), l1(), vec(any::<u32>(), 0..3)).prop_map(
            |((topic, generation), (objects, ranges), hours)| {
                let replaced = objects.iter().zip(hours).map(|(l1, hour)| (l1.object, hour)).collect();
                Action::Rewrite(Rewrite { topic: TopicId(topic), generation, objects, ranges, replaced })
            },
        ),
        any::<u64>().prop_map(Action::Indexed),
    ]
}

proptest! {
    #[test]
    fn any_commit_comes_back(
        actions in vec(prop_oneof![append(), topic(), rest()], 0..6),
        (prev, time_ms, checkpoint) in (any::<u128>(), 0..i64::MAX, of(checkpoint_name())),
        (slot, id) in any::<(u64, u128)>(),
        at in any::<prop::sample::Index>(),
    ) {
        let commit = Commit { prev, time_ms, checkpoint, actions };
        let body = codec::encode(&commit, slot, id).unwrap();
        prop_assert_eq!(codec::decode(&body, slot, id).unwrap(), commit);
        // A byte that is altered together with the checksum gives another commit with a form of its own, or an error.
        let mut other = body[..body.len() - 8].to_vec();
        let at = at.index(other.len());
        other[at] ^= 1;
        other.extend_from_slice(&codec::checksum(slot, id, &other).to_be_bytes());
        let other = Bytes::from(other);
        if let Ok(commit) = codec::decode(&other, slot, id) {
            prop_assert_eq!(codec::encode(&commit, slot, id).unwrap(), other);
        }
    }
}

#[test]
fn a_commit_cannot_make_more_partitions_than_a_topic_may_have() {
    let create = |id, partitions| {
        Action::Topic(TopicChange::Create {
            id: TopicId(id),
            name: format!("t{id}"),
            partitions,
            config: vec![],
        })
    };
    let alter = |partitions| {
        Action::Topic(TopicChange::Alter { id: TopicId(1), partitions: Some(partitions), config: vec![] })
    };
    let read = |actions| -> Result<Commit> {
        let commit = Commit { prev: 0, time_ms: 0, checkpoint: None, actions };
        codec::decode(&codec::encode(&commit, 1, 1).unwrap(), 1, 1)
    };
    let most = limits::PARTITIONS_PER_TOPIC_MAX;
    assert!(read(vec![create(1, most)]).is_ok() && read(vec![alter(most)]).is_ok());
    for actions in [vec![create(1, u32::MAX)], vec![alter(most + 1)], vec![create(1, most), create(2, 1)]] {
        assert!(matches!(read(actions), Err(Error::Newer { .. })));
    }
}

/// A view with one of everything that a checkpoint is checked for.
fn view() -> View {
    let layout = std::sync::Arc::new(Layout {
        groups: vec![Span { position: 4, length: 9, crc: 0 }],
        footer: Span { position: 13, length: 9, crc: 0 },
    });
    let object = ObjectRef { era: 0, ledger: 0, drawn: 3, ulid: 1 };
    let slice = Slice {
        base: 6,
        rows: 4,
        slot: 5,
        append_ms: 50,
        place: Place::Object(object, layout.clone()),
        group: 0,
        first_row: 0,
        time_us: (1, 2),
        time_us_running: 2,
        time_type: TimestampType::CreateTime,
        sum: RecordSum::default(),
    };
    let window = Window { first: 0, last: 3, base: 6, append_ms: 50 };
    let key = ProducerKey { kind: IdentityKind::Dense, producer: 8 };
    let partition = Partition {
        log_start: 2,
        next: 10,
        indexed_to: 6,
        leader: Some(7),
        epochs: [(0, 0)].into(),
        slices: [slice].into(),
        producers: [(key, Producer { epoch: 0, window: [window].into() })].into(),
        ..Partition::default()
    };
    let topic = Topic {
        name: "t".into(),
        created_ms: 1,
        generation: 0,
        config: Default::default(),
        partitions: vec![partition],
    };
    View {
        slot: 6,
        time_ms: 60,
        floor: 2,
        topics: [(TopicId(1), topic)].into(),
        names: [("t".to_owned(), TopicId(1))].into(),
        objects: [(object, Segment { layout, slices: 1 })].into(),
        leaders: [(7, Leader { address: String::new(), slot: 5, partitions: 1 })].into(),
        ..View::default()
    }
}

type Change = fn(&mut View);

#[test]
fn a_checkpoint_that_no_replay_wrote_is_refused() {
    fn partition(view: &mut View) -> &mut Partition {
        &mut view.topics.get_mut(&TopicId(1)).unwrap().partitions[0]
    }
    assert_eq!(checkpoint::decode("c", &checkpoint::encode(&view())).unwrap(), view());
    let changes: [(&str, Change); 18] = [
        ("slot", |v| v.slot = u64::MAX),
        ("floor", |v| v.floor = 7),
        ("two topics of one name", |v| {
            let mut twin = v.topics[&TopicId(1)].clone();
            twin.partitions.clear();
            v.topics.insert(TopicId(2), twin);
        }),
        ("a segment without a slice", |v| {
            let (object, segment) = v.objects.first_key_value().unwrap();
            let (object, segment) = (ObjectRef { ulid: 2, ..*object }, segment.clone());
            v.objects.insert(object, segment);
        }),
        ("a slice of no segment", |v| v.objects.clear()),
        ("a leader of nothing", |v| partition(v).leader = None),
        ("led by unknown", |v| partition(v).leader = Some(8)),
        ("indexed or trimmed", |v| partition(v).indexed_to = 7),
        ("indexed or trimmed", |v| partition(v).log_start = 11),
        ("unmerged rows", |v| partition(v).next = 3),
        ("leader epochs", |v| partition(v).epochs = (0..6).map(|epoch| (epoch, 0)).collect()),
        ("a slice of a later commit", |v| v.slot = 4),
        ("a slice of a later commit", |v| v.time_ms = 49),
        ("with oldest records of 61", |v| partition(v).oldest_ms = 61),
        ("with 10 of 9 bytes", |v| {
            let partition = partition(v);
            (partition.bytes_running, partition.oldest_bytes) = (9, 10);
        }),
        ("a slice of 0 rows", |v| partition(v).slices[0].rows = 0),
        ("in group 1 of 1", |v| partition(v).slices[0].group = 1),
        ("a producer with 0 batches", |v| {
            partition(v).producers.first_entry().unwrap().get_mut().window.clear();
        }),
    ];
    for (wanted, change) in changes {
        let mut view = view();
        change(&mut view);
        let error = checkpoint::decode("c", &checkpoint::encode(&view)).unwrap_err();
        assert!(
            matches!(error, Error::Damaged { .. }) && error.to_string().contains(wanted),
            "{wanted}: {error}"
        );
    }
}

#[test]
fn times_and_bytes_of_oldest_records_stand_only_where_there_are_some() {
    for (behind, wanted) in [
        (&[0][..], "no time of oldest records"),
        (&[0, 0, 0], "no bytes of merged records"),
        (&[0, 0, 1, 5], "bytes of 1 pending ranges"),
    ] {
        let mut bytes = checkpoint::encode(&view()).to_vec();
        bytes.truncate(bytes.len() - 8);
        bytes.extend_from_slice(behind);
        bytes.extend_from_slice(&checkpoint::checksum(&bytes).to_be_bytes());
        let error = checkpoint::decode("c", &bytes.into()).unwrap_err();
        assert!(error.to_string().contains(wanted), "{error}");
    }
    let trim = TrimTo { topic: TopicId(1), partition: 2, log_start: 3, oldest_ms: 5, oldest_bytes: 0 };
    // With a time alone, and with bytes alone: what is told last is not 0.
    for trim in [trim, TrimTo { oldest_ms: 0, oldest_bytes: 5, ..trim }] {
        let actions = vec![Action::Trim(vec![trim])];
        let commit = Commit { prev: 1, time_ms: 9, checkpoint: None, actions };
        let good = codec::encode(&commit, 2, 3).unwrap();
        assert_eq!(codec::decode(&good, 2, 3).unwrap(), commit);
        for (last, refused) in [(5, false), (0, true)] {
            let mut bytes = good[..good.len() - 8].to_vec();
            assert_eq!(std::mem::replace(bytes.last_mut().unwrap(), last), 5);
            let sum = codec::checksum(2, 3, &bytes);
            bytes.extend_from_slice(&sum.to_be_bytes());
            assert_eq!(codec::decode(&bytes.into(), 2, 3).is_err(), refused);
        }
    }
}

/// One commit has one form: a list that is empty is absent, unless another one follows it.
#[test]
fn an_empty_list_at_the_end_of_a_rewrite_is_refused() {
    let rewrite =
        Rewrite { topic: TopicId(1), generation: 2, objects: vec![], ranges: vec![], replaced: vec![] };
    let actions = vec![Action::Rewrite(rewrite)];
    let commit = Commit { prev: 1, time_ms: 9, checkpoint: None, actions };
    let good = codec::encode(&commit, 2, 3).unwrap();
    assert_eq!(codec::decode(&good, 2, 3).unwrap(), commit);
    let mut bytes = good[..good.len() - 8].to_vec();
    // The payload is 16 + 1 + 1 + 1 bytes long, and its length stands before it.
    let length = bytes.len() - 20;
    assert_eq!(std::mem::replace(&mut bytes[length], 20), 19);
    bytes.push(0);
    let sum = codec::checksum(2, 3, &bytes);
    bytes.extend_from_slice(&sum.to_be_bytes());
    let error = codec::decode(&bytes.into(), 2, 3).unwrap_err();
    assert!(error.to_string().contains("that it replaces nothing"), "{error}");
}

#[test]
fn keys_that_do_not_rise_are_refused() {
    let mut first = view();
    first.topics.get_mut(&TopicId(1)).unwrap().config =
        [("a".into(), "1".into()), ("b".into(), "2".into())].into();
    let bytes = checkpoint::encode(&first);
    let at = bytes.windows(4).position(|window| window == b"\x01a\x011").unwrap();
    for (key, refused) in [(b'a', false), (b'b', true), (b'c', true)] {
        let mut other = bytes[..bytes.len() - 8].to_vec();
        other[at + 1] = key;
        other.extend_from_slice(&checkpoint::checksum(&other).to_be_bytes());
        assert_eq!(checkpoint::decode("c", &other.into()).is_err(), refused);
    }
}
