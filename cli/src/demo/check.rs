//! The demo's check: what was shipped, what was acked and what is found, record by record.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader};
use std::path::Path;

use futures::TryStreamExt;
use tidelog_core::{Log, Position};
use xxhash_rust::xxh3::xxh3_128;

use super::writers::{Ack, TOPIC};
use tidelog_core::text::{Line, Lines};

/// Hashes of a file's lines, in order.
pub fn lines(path: &Path) -> io::Result<Vec<u128>> {
    let mut lines = Lines::new(BufReader::with_capacity(128 << 10, File::open(path)?), usize::MAX / 2);
    let mut hashes = Vec::new();
    while let Some(line) = lines.next_line()? {
        if let Line::Bytes(line) = line {
            hashes.push(xxh3_128(&line));
        }
    }
    Ok(hashes)
}

/// All records of a partition, in order of offset: hash of the value, and timestamp in µs.
#[derive(Debug, Default)]
pub struct Found {
    /// Partition → records from offset 0.
    pub partitions: Vec<Vec<(u128, i64)>>,
    /// A record had another offset than the one after its neighbour's.
    pub gap: bool,
}

/// Reads the whole topic.
pub async fn read_all(log: &Log, partitions: usize) -> tidelog_core::Result<Found> {
    let mut found = Found { partitions: vec![Vec::new(); partitions], gap: false };
    let mut consumer = log.consumer(TOPIC).until(Position::End).build().await?;
    while let Some(message) = consumer.try_next().await? {
        let records = &mut found.partitions[message.partition as usize];
        found.gap |= message.record.offset != records.len() as u64;
        records.push((
            xxh3_128(message.record.value.as_deref().unwrap_or_default()),
            message.record.timestamp_us,
        ));
    }
    Ok(found)
}

/// Shipped against found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Lines of all files.
    pub shipped: u64,
    /// Lines acked.
    pub acked: u64,
    /// Records found.
    pub found: u64,
    /// Acked lines that are not at their offset, and shipped ones that are nowhere.
    pub lost: u64,
    /// Records that are there more often than they were shipped.
    pub duplicated: u64,
}

/// Compares. `files`: a file's lines, and the acks of all runs of its writer.
pub fn judge(files: &[(Vec<u128>, Vec<Ack>)], found: &Found) -> Verdict {
    let mut verdict = Verdict::default();
    let mut balance: HashMap<u128, i64> = HashMap::new();
    for (lines, acks) in files {
        verdict.shipped += lines.len() as u64;
        lines.iter().for_each(|line| *balance.entry(*line).or_default() += 1);
        for ack in acks {
            verdict.acked += 1;
            let line = lines.get((ack.line as usize).wrapping_sub(1));
            let records = found.partitions.get(ack.partition as usize);
            let record = records.and_then(|records| records.get(ack.offset as usize));
            verdict.lost += u64::from(line.is_none() || line != record.map(|(hash, _)| hash));
        }
    }
    for (hash, _) in found.partitions.iter().flatten() {
        verdict.found += 1;
        *balance.entry(*hash).or_default() -= 1;
    }
    for left in balance.values() {
        verdict.lost += u64::try_from(*left).unwrap_or(0);
        verdict.duplicated += u64::try_from(-*left).unwrap_or(0);
    }
    verdict
}

/// Reads one partition from a position; answers the first offset and how many records follow.
pub async fn read_from(
    log: &Log,
    partition: u32,
    from: Position,
) -> tidelog_core::Result<(Option<u64>, u64)> {
    let consumer = log.consumer(TOPIC).partitions([partition]).from(from).until(Position::End);
    let mut consumer = consumer.build().await?;
    let (mut first, mut count) = (None, 0);
    while let Some(message) = consumer.try_next().await? {
        first.get_or_insert(message.record.offset);
        count += 1;
    }
    Ok((first, count))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ack(line: u64, offset: u64) -> Ack {
        Ack { line, partition: 0, offset }
    }

    fn found(hashes: &[u128]) -> Found {
        Found { partitions: vec![hashes.iter().map(|hash| (*hash, 0)).collect()], gap: false }
    }

    #[test]
    fn each_broken_promise_is_seen() {
        let files = |acks: &[Ack]| vec![(vec![7, 8, 7], acks.to_vec())];
        let acks = [ack(1, 0), ack(2, 1), ack(3, 2)];
        let whole = judge(&files(&acks), &found(&[7, 8, 7]));
        assert_eq!(whole, Verdict { shipped: 3, acked: 3, found: 3, lost: 0, duplicated: 0 });
        assert_eq!(judge(&files(&acks[..2]), &found(&[7, 8, 7])).lost, 0, "committed, but not told");
        assert!(judge(&files(&acks), &found(&[7, 8])).lost > 0);
        assert_eq!(judge(&files(&acks), &found(&[7, 8, 7, 8])).duplicated, 1);
        assert!(judge(&files(&acks), &found(&[8, 7, 7])).lost > 0, "acked at another offset");
        assert!(judge(&files(&acks[..0]), &found(&[7, 8, 9])).lost > 0, "another record in its place");
    }
}
