//! What each fuzz target does with its bytes, and what must hold. Checksums are put right first: they keep accidents
//! out, not a writer with bad intentions, and a fuzzer would never get past them.
//!
//! | target | input | must hold |
//! |---|---|---|
//! | `segment` | number of row groups, their lengths, a file; 0: inline rows | refused, or rows that survive being written again |
//! | `merged` | where the footer begins, a merged file | the same; what sweep reads of its last bytes is what the footer says |
//! | `row` | number, sort key, the body of an index row | refused, or the same bytes again |
//! | `commit` | commit bodies | refused, or the same bytes again; `apply` refuses or gives a view that its checkpoint gives back |
//! | `checkpoint` | a checkpoint, then commit bodies | the same |
//! | `text` | format, sizes, lines | a named error, or a record that holds what the line held |
//!
//! What the functions read of their clients is in [`http`].

pub mod http;

use std::io::BufReader;

use bytes::Bytes;
use tidelog_core::ledger::index::IndexRow;
use tidelog_core::ledger::view::View;
use tidelog_core::ledger::{checkpoint, codec};
use tidelog_core::record::TopicId;
use tidelog_core::segment::inline::{decode_inline, encode_inline};
use tidelog_core::segment::merged::{MergedFooter, MergedPart, MergedRun, MergedWriter, ranges_of};
use tidelog_core::segment::{Compression, Footer, Layout, SegmentSlice, Span, decode_group, encode};
use tidelog_core::table::Item;
use tidelog_core::text::{Format, Line, Lines, json};
use tidelog_core::{ConsumerRecord, ErrorKind, Record};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// What is done with an input.
pub type Target = fn(&[u8]);

/// Each by its name.
pub const TARGETS: [(&str, Target); 14] = [
    ("segment", segment),
    ("merged", merged),
    ("row", row),
    ("commit", commit),
    ("checkpoint", checkpoint),
    ("text", text),
    ("lines", http::lines),
    ("ndjson", http::ndjson),
    ("json", http::json),
    ("binary", http::binary),
    ("otlp_protobuf", http::otlp_protobuf),
    ("otlp_json", http::otlp_json),
    ("packed", http::packed),
    ("fetch", http::fetch),
];

/// The golden chain up to its first append: a store, and the topic that the golden commits write to.
const BEGINNING: [&[u8]; 4] = [
    include_bytes!("../../golden/v1/ledger/01-store.commit"),
    include_bytes!("../../golden/v1/ledger/02-level.commit"),
    include_bytes!("../../golden/v1/ledger/03-topic.commit"),
    include_bytes!("../../golden/v1/ledger/04-topic.commit"),
];
/// Who made the golden commits: the upper half of their ids.
const WHO: u128 = 5 << 64;
/// A view with more partitions is right, but too slow to copy after each commit.
const PARTITIONS_MAX: usize = 2_000;

/// The Parquet decoder may panic on bytes with a right checksum: the core answers that with "damaged". The fuzzer
/// would abort at the panic already, so this leaves those of the decoder's own packages to the core.
pub fn let_the_core_catch() {
    let abort = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let file = panic.location().map_or("", |location| location.file());
        if !["/parquet-", "/arrow-", "/bytes-"].iter().any(|package| file.contains(package)) {
            abort(panic);
        }
    }));
}

fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes) as u32
}

/// The span of so many bytes at `next`, if the file has them.
fn span(file: &[u8], next: &mut u32, length: u32) -> Option<Span> {
    let position = *next;
    *next = position.checked_add(length)?;
    let bytes = file.get(position as usize..*next as usize)?;
    Some(Span { position, length, crc: crc32c(bytes) })
}

/// See the table above.
pub fn segment(data: &[u8]) {
    let Some((groups, data)) = data.split_first() else { return };
    if *groups == 0 {
        return inline(data);
    }
    let Some((lengths, file)) = data.split_at_checked(4 * usize::from(*groups)) else { return };
    let file = Bytes::copy_from_slice(file);
    let (lengths, _) = lengths.as_chunks::<4>();
    let mut next = 4;
    let spans = lengths.iter().map(|length| span(&file, &mut next, u32::from_le_bytes(*length)));
    let Some(spans) = spans.collect::<Option<Vec<Span>>>() else { return };
    let rest = (file.len() as u32).checked_sub(next);
    let Some(footer) = rest.and_then(|length| span(&file, &mut next, length)) else { return };
    let layout = Layout { groups: spans, footer };
    let Ok(footer) = layout.footer.cut(&file).and_then(|bytes| Footer::parse(&bytes, &layout)) else {
        return;
    };
    assert_eq!(footer.groups(), layout.groups.len());
    for (number, span) in (0..).zip(&layout.groups) {
        let bytes = span.cut(&file).expect("it was cut before");
        let Ok(group) = decode_group(&footer, number, &bytes) else { continue };
        let rows = group.rows();
        (0..rows.len()).for_each(|i| drop(rows.record(i, i as u64)));
        // Nothing but the rows of the slice, and not outside of the group.
        for (first_row, count) in [(0, rows.len() as u64), (u64::MAX, 1), (1, u64::MAX)] {
            if let Ok(slice) = group.slice("audit", 0, first_row, count) {
                assert_eq!(slice.len() as u64, count);
            }
        }
        let again = SegmentSlice { topic: "t", partition: 1, rows: rows.clone() };
        let Ok(encoded) = encode(&[again], Compression::None) else { continue };
        let footer_bytes = encoded.layout.footer.cut(&encoded.bytes).expect("our own footer");
        let footer = Footer::parse(&footer_bytes, &encoded.layout).expect("our own footer");
        let bytes = encoded.layout.groups[0].cut(&encoded.bytes).expect("our own group");
        let group = decode_group(&footer, 0, &bytes).expect("our own group");
        assert_eq!(group.slice("t", 1, 0, rows.len() as u64).expect("our own slice"), *rows);
    }
}

/// See the table above. The CRCs of the row groups are in the footer, and are not looked at.
pub fn merged(data: &[u8]) {
    let Some((position, file)) = data.split_first_chunk::<4>() else { return };
    let file = Bytes::copy_from_slice(file);
    let told = ranges_of(&file);
    if let Ok(Err(wanted)) = told {
        assert!(wanted > file.len() as u64, "it has as many");
    }
    let mut next = u32::from_le_bytes(*position);
    let Some(length) = (file.len() as u32).checked_sub(next) else { return };
    let Some(span) = span(&file, &mut next, length) else { return };
    let footer = span.cut(&file).and_then(|bytes| MergedFooter::parse(&bytes, span));
    let Ok(footer) = footer else { return };
    assert_eq!(
        told.expect("it was parsed").expect("it is all there"),
        (footer.topic(), footer.ranges().to_vec())
    );
    for range in footer.ranges() {
        let (mut next, mut runs) = (range.base, Vec::new());
        for group in footer.groups_of(range.partition, range.base..range.end) {
            let bytes =
                footer.span(group).and_then(|span| span.cut(&file)).expect("it ends before the footer");
            let verified = footer.decode(group, "orders", &bytes).is_ok();
            let decoded = footer.decode_verified(group, "orders", &bytes);
            assert!(!verified || decoded.is_ok());
            let found = decoded.and_then(|group| group.runs_from(range.partition, next, range.end));
            let Ok(found) = found else { break };
            next = found.last().map_or(next, |run| run.base + run.rows.len() as u64);
            runs.extend(found);
        }
        if !runs.is_empty() {
            written_again(footer.topic(), range.partition, runs);
        }
    }
}

fn written_again(topic: TopicId, partition: u32, runs: Vec<MergedRun>) {
    let mut writer = MergedWriter::new("orders", topic, Compression::None, false).expect("a writer");
    for MergedRun { base, append_us, time_type, rows } in runs.clone() {
        (0..rows.len()).for_each(|i| drop(rows.record(i, base + i as u64)));
        let part = MergedPart { partition, base, append_ms: append_us / 1_000, time_type, rows };
        writer.push(part).expect("they came in that order");
    }
    let Ok(segment) = writer.finish() else { return };
    let footer = segment.cut(segment.footer).and_then(|bytes| MergedFooter::parse(&bytes, segment.footer));
    let footer = footer.expect("our own footer");
    let records = |runs: &[MergedRun]| -> Vec<ConsumerRecord> {
        let records = |run: &MergedRun| {
            let (base, rows) = (run.base, run.rows.clone());
            (0..rows.len()).map(move |i| rows.record(i, base + i as u64))
        };
        runs.iter().flat_map(records).collect()
    };
    let [range] = segment.ranges[..] else { panic!("one partition, {} ranges", segment.ranges.len()) };
    let (mut next, mut found) = (range.base, Vec::new());
    for group in footer.groups_of(partition, range.base..range.end) {
        let bytes = footer.span(group).and_then(|span| segment.cut(span)).expect("our own group");
        let group = footer.decode(group, "orders", &bytes).expect("our own group");
        found.extend(group.runs_from(partition, next, range.end).expect("our own offsets"));
        next = found.last().map_or(next, |run| run.base + run.rows.len() as u64);
    }
    assert_eq!(records(&found), records(&runs));
}

/// See the table above. Of the golden row's topic and partition.
pub fn row(data: &[u8]) {
    let Some((number, data)) = data.split_first_chunk::<8>() else { return };
    let Some((sk, body)) = data.split_first_chunk::<8>() else { return };
    let (id, sk) = (u128::from(u64::from_le_bytes(*number)), u64::from_le_bytes(*sk));
    let item = Item { sk, id, time_ms: 7, body: Some(summed(body.to_vec(), sk, id)), hint: "row".into() };
    let Ok(row) = IndexRow::read(TopicId(0x77), 3, &item) else { return };
    assert_eq!(row.item(sk, 7), item, "one row, one form");
}

fn inline(data: &[u8]) {
    let Ok(rows) = decode_inline(&Bytes::copy_from_slice(data)) else { return };
    let again = encode_inline(std::slice::from_ref(&rows)).expect("no longer than what it was read from");
    assert_eq!(decode_inline(&again).expect("our own rows"), rows);
}

/// The next piece of the input: a length in two bytes, and so many bytes or what is left.
fn piece<'a>(data: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, rest) = data.split_first_chunk::<2>()?;
    let (piece, rest) = rest.split_at(usize::from(u16::from_le_bytes(*length)).min(rest.len()));
    *data = rest;
    Some(piece)
}

/// A body that belongs behind `view`, with the right checksum.
fn body(bytes: &[u8], view: &View, slot: u64, id: u128) -> Bytes {
    let mut body = bytes.to_vec();
    if let Some(prev) = body.get_mut(1..17) {
        prev.copy_from_slice(&view.id.to_be_bytes());
    }
    summed(body, slot, id)
}

/// With its checksum.
fn summed(mut body: Vec<u8>, slot: u64, id: u128) -> Bytes {
    let mut sum = Xxh3::new();
    sum.update(&slot.to_be_bytes());
    sum.update(&id.to_be_bytes());
    sum.update(&body);
    body.extend_from_slice(&sum.digest().to_be_bytes());
    body.into()
}

/// Puts commits behind `view`, as many as will go.
fn replay(mut view: View, data: &mut &[u8]) -> View {
    while let Some(bytes) = piece(data) {
        let slot = view.slot + 1;
        let id = WHO | u128::from(slot);
        let body = body(bytes, &view, slot, id);
        let Ok(commit) = codec::decode(&body, slot, id) else { continue };
        assert_eq!(codec::encode(&commit, slot, id).expect("it came in"), body, "one commit, one form");
        let mut next = view.clone();
        if next.apply(slot, id, &commit).is_err() {
            continue;
        }
        if next.topics.values().map(|topic| topic.partitions.len()).sum::<usize>() > PARTITIONS_MAX {
            break;
        }
        let bytes = checkpoint::encode(&next);
        assert_eq!(checkpoint::decode("checkpoint", &bytes).expect("a replay wrote it"), next);
        for topic in next.topics.values() {
            let dense = |p: &tidelog_core::ledger::view::Partition| {
                p.slices
                    .iter()
                    .try_fold(p.first_unmerged(), |at, slice| (slice.base == at).then(|| slice.end()))
            };
            assert!(topic.partitions.iter().all(|p| dense(p) == Some(p.next)), "offsets are dense");
        }
        view = next;
    }
    view
}

/// See the table above. The first byte says whether there is a store already.
pub fn commit(data: &[u8]) {
    let Some((begun, mut data)) = data.split_first() else { return };
    let mut view = View::default();
    if begun & 1 == 1 {
        for golden in BEGINNING {
            let bytes = [&(golden.len() as u16 - 8).to_le_bytes()[..], &golden[..golden.len() - 8]].concat();
            view = replay(view, &mut &bytes[..]);
        }
        assert_eq!(view.slot, BEGINNING.len() as u64);
    }
    replay(view, &mut data);
}

/// See the table above.
pub fn checkpoint(mut data: &[u8]) {
    let Some(bytes) = piece(&mut data) else { return };
    let mut bytes = bytes.to_vec();
    bytes.extend_from_slice(&xxh3_64(&bytes).to_be_bytes());
    let bytes = Bytes::from(bytes);
    let Ok(view) = checkpoint::decode("checkpoint", &bytes) else { return };
    assert_eq!(checkpoint::encode(&view), bytes, "one view, one form");
    replay(view, &mut data);
}

/// See the table above.
pub fn text(data: &[u8]) {
    let [mode, limit, buffer, text @ ..] = data else { return };
    lines(text, usize::from(*limit), usize::from(*buffer) + 1);
    let format = [Format::Json, Format::Json, Format::Plain, Format::Keyed(b"\t")][usize::from(mode % 4)];
    for line in text.split(|byte| *byte == b'\n') {
        match format.parse(line.to_vec()) {
            Ok((record, partition)) => parsed(format, line, record, partition),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Invalid),
        }
    }
}

fn lines(text: &[u8], limit: usize, buffer: usize) {
    let mut lines = Lines::new(BufReader::with_capacity(buffer, text), limit);
    let mut from = 0;
    while let Some(line) = lines.next_line().expect("memory can be read") {
        let whole = &text[from..lines.position as usize];
        assert!(!whole.is_empty(), "it goes on");
        let whole = whole.strip_suffix(b"\n").map_or(whole, |line| line.strip_suffix(b"\r").unwrap_or(line));
        match line {
            Line::Bytes(line) => assert!(line == whole && line.len() <= limit),
            Line::TooLong(length) => assert!(length == whole.len() as u64 && whole.len() > limit),
        }
        from = lines.position as usize;
    }
    assert_eq!(lines.position, text.len() as u64);
}

fn parsed(format: Format<'_>, line: &[u8], record: Record, partition: Option<u32>) {
    match format {
        Format::Plain => assert_eq!(record, Record::value(line.to_vec())),
        Format::Keyed(separator) => {
            let key = record.key.expect("keyed");
            assert!(!key.windows(separator.len()).any(|window| window == separator));
            assert_eq!([&key[..], separator, &record.value.expect("keyed")].concat(), line);
        }
        Format::Json => {
            let Record { timestamp_us, key, value, headers } = record.clone();
            let written =
                ConsumerRecord { offset: 0, timestamp_us: timestamp_us.unwrap_or(0), key, value, headers };
            let mut out = Vec::new();
            json::write(&mut out, "t", partition.unwrap_or(0), &written).expect("memory can be written");
            let (read, _) = json::parse(&out).expect("our own object");
            assert_eq!((read.key, read.value, read.headers), (record.key, record.value, record.headers));
            assert_eq!(read.timestamp_us, Some(written.timestamp_us));
        }
    }
}
