//! Lines that are read ahead, in a thread of their own.

use std::io::{self, BufReader, Read};

use tidelog_core::text::{Line, Lines};
use tokio::sync::mpsc;

/// Bytes and lines that are handed over at once, at most (and a line more).
const AHEAD_BYTES: usize = 256 << 10;
const AHEAD_LINES: usize = 4_096;

/// A line and where it is.
#[derive(Debug)]
pub struct Placed {
    pub line: Line,
    /// Its number, from 1.
    pub number: u64,
    /// The byte position behind it.
    pub position: u64,
}

/// What a reader brings.
#[derive(Debug)]
pub enum Brought {
    /// The bytes to pass over are passed over, or there were not `enough` and the end is at `position`.
    Skipped { enough: bool, position: u64 },
    /// Lines in order.
    Lines(Vec<Placed>),
    /// This line and what follows cannot be read.
    Failed { number: u64, error: io::Error },
}

/// Reads lines from byte `skip` on in a thread of its own, so that who waits for them can wait for something else, too.
/// Lines come as soon as they are there; the thread stays a few hundred KiB ahead.
pub fn read_ahead(from: impl Read + Send + 'static, limit: usize, skip: u64) -> mpsc::Receiver<Brought> {
    let (to, brought) = mpsc::channel(2);
    let lines = Lines::new(BufReader::with_capacity(AHEAD_BYTES, from), limit);
    tokio::task::spawn_blocking(move || bring(lines, skip, &to));
    brought
}

/// `None`: all is read, or nobody waits for it any more.
fn bring<R: Read>(mut lines: Lines<BufReader<R>>, skip: u64, to: &mpsc::Sender<Brought>) -> Option<()> {
    if skip > 0 {
        let skipped = lines.skip_to(skip);
        let (position, number) = (lines.position, lines.number + 1);
        let enough = matches!(skipped, Ok(true));
        let skipped = skipped.map(|enough| Brought::Skipped { enough, position });
        to.blocking_send(skipped.unwrap_or_else(|error| Brought::Failed { number, error })).ok()?;
        enough.then_some(())?;
    }
    loop {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        let ended = loop {
            let line = match lines.next_line() {
                Ok(Some(line)) => line,
                Ok(None) => break Some(None),
                Err(error) => break Some(Some(Brought::Failed { number: lines.number + 1, error })),
            };
            bytes += if let Line::Bytes(line) = &line { line.len() } else { 0 };
            batch.push(Placed { line, number: lines.number, position: lines.position });
            // The next one may be an hour away.
            if bytes >= AHEAD_BYTES || batch.len() >= AHEAD_LINES || !lines.has_line() {
                break None;
            }
        };
        if !batch.is_empty() {
            to.blocking_send(Brought::Lines(batch)).ok()?;
        }
        if let Some(failed) = ended {
            to.blocking_send(failed?).ok()?;
            return None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn read_ahead_brings_the_same_lines() {
        let text: Vec<u8> = (0..50_000).flat_map(|i| format!("line {i}\n").into_bytes()).collect();
        let mut plain = Lines::new(&text[..], 100);
        plain.skip_to(7).unwrap();
        let mut reader = read_ahead(io::Cursor::new(text.clone()), 100, 7);
        let Some(Brought::Skipped { enough: true, position: 7 }) = reader.recv().await else {
            panic!("nothing skipped")
        };
        while let Some(brought) = reader.recv().await {
            let Brought::Lines(lines) = brought else { panic!("{brought:?}") };
            assert!(lines.len() <= AHEAD_LINES);
            for placed in lines {
                assert_eq!(Some(placed.line), plain.next_line().unwrap());
                assert_eq!((placed.number, placed.position), (plain.number, plain.position));
            }
        }
        assert_eq!(plain.next_line().unwrap(), None);
        let mut short = read_ahead(&b"ab\n"[..], 100, 4);
        let skipped = short.recv().await;
        assert!(matches!(skipped, Some(Brought::Skipped { enough: false, position: 3 })), "{skipped:?}");
        assert!(short.recv().await.is_none());
    }
}
