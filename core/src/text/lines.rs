//! Lines of any bytes, in bounded memory: a line beyond the limit is skipped to its end, and its length told.

use std::io::{self, BufRead, BufReader, Read};

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
    pub fn has_line(&self) -> bool {
        self.from.buffer().contains(&b'\n')
    }
}
