//! Lines of any bytes, in bounded memory: a line beyond the limit is skipped to its end, and its length told.

use std::io::{self, BufRead, BufReader, Read};

use tokio::sync::mpsc;

/// Bytes and lines that are handed over at once, at most (and a line more).
const AHEAD_BYTES: usize = 256 << 10;
const AHEAD_LINES: usize = 4_096;

/// One line.
#[derive(Debug, PartialEq, Eq)]
pub enum Line {
    /// Without its `\n` or `\r\n`.
    Bytes(Vec<u8>),
    /// Longer than the limit: how long it is.
    TooLong(u64),
}

/// Reads lines and knows where it is.
pub struct Lines<R> {
    from: R,
    limit: usize,
    /// Byte position behind the line read last.
    pub position: u64,
    /// Number of the line read last, from 1.
    pub number: u64,
}

impl<R: BufRead> Lines<R> {
    /// Lines of at most `limit` bytes.
    pub fn new(from: R, limit: usize) -> Self {
        Self { from, limit, position: 0, number: 0 }
    }

    /// Passes over the first `to` bytes, counting their lines. `false`: there are not so many.
    pub fn skip_to(&mut self, to: u64) -> io::Result<bool> {
        while self.position < to {
            let have = self.from.fill_buf()?;
            if have.is_empty() {
                return Ok(false);
            }
            let take = (have.len() as u64).min(to - self.position) as usize;
            self.number += have[..take].iter().filter(|byte| **byte == b'\n').count() as u64;
            self.position += take as u64;
            self.from.consume(take);
        }
        Ok(true)
    }

    /// The next line; `None`: the end. What follows the last `\n` is a line if it is not empty.
    pub fn next_line(&mut self) -> io::Result<Option<Line>> {
        let (mut line, mut length, mut last) = (Vec::new(), 0u64, None);
        loop {
            let have = self.from.fill_buf()?;
            if have.is_empty() {
                break;
            }
            let end = have.iter().position(|byte| *byte == b'\n');
            let bytes = &have[..end.unwrap_or(have.len())];
            // Two bytes more than the limit are kept, so that a `\r` behind the longest line does no harm.
            let room = (self.limit + 2).saturating_sub(line.len());
            line.extend_from_slice(&bytes[..bytes.len().min(room)]);
            length += bytes.len() as u64;
            last = bytes.last().copied().or(last);
            let used = bytes.len() + usize::from(end.is_some());
            self.position += used as u64;
            self.from.consume(used);
            if end.is_some() {
                self.number += 1;
                if last == Some(b'\r') {
                    length -= 1;
                }
                return Ok(Some(self.finish(line, length)));
            }
        }
        if length == 0 {
            return Ok(None);
        }
        self.number += 1;
        Ok(Some(self.finish(line, length)))
    }

    fn finish(&self, mut line: Vec<u8>, length: u64) -> Line {
        if length > self.limit as u64 {
            return Line::TooLong(length);
        }
        line.truncate(length as usize);
        Line::Bytes(line)
    }
}

impl<R: Read> Lines<BufReader<R>> {
    /// Whether the next line is in memory already.
    fn has_line(&self) -> bool {
        self.from.buffer().contains(&b'\n')
    }
}

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

    fn all(text: &[u8], limit: usize, buffer: usize) -> Vec<Line> {
        let mut lines = Lines::new(io::BufReader::with_capacity(buffer, text), limit);
        std::iter::from_fn(|| lines.next_line().unwrap()).collect()
    }

    fn bytes(text: &str) -> Line {
        Line::Bytes(text.into())
    }

    #[test]
    fn lines_end_as_they_may() {
        for buffer in 1..20 {
            let found = all(b"a\r\n\n\r\nb\rc\nlast\r", 5, buffer);
            let wanted = ["a", "", "", "b\rc", "last\r"].map(bytes);
            assert_eq!(found, wanted, "buffer of {buffer}");
            assert_eq!(all(b"", 5, buffer), []);
            assert_eq!(all(b"\n", 5, buffer), [bytes("")]);
        }
    }

    #[test]
    fn long_lines_are_skipped_to_their_end() {
        for buffer in 1..20 {
            let found = all(b"12345\r\n123456\n1234567890\r\nx\n123456", 5, buffer);
            let wanted = [bytes("12345"), Line::TooLong(6), Line::TooLong(10), bytes("x"), Line::TooLong(6)];
            assert_eq!(found, wanted, "buffer of {buffer}");
        }
    }

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

    #[test]
    fn skipping_counts_lines() {
        let mut lines = Lines::new(&b"a\nbb\nccc\n"[..], 5);
        assert!(lines.skip_to(5).unwrap());
        assert_eq!(lines.next_line().unwrap(), Some(bytes("ccc")));
        assert_eq!((lines.number, lines.position), (3, 9));
        assert!(!lines.skip_to(10).unwrap());
    }
}
