//! Comma-separated values (RFC 4180, lines end with `\n`). Every text is quoted: nothing between two commas is null.

use std::io::{self, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tidelog_core::Message;
use tidelog_core::text::json;

use super::Rows;

pub(super) struct Csv<W: Write> {
    out: W,
    headers: Vec<u8>,
}

impl<W: Write> Csv<W> {
    pub(super) fn new(mut out: W) -> io::Result<Self> {
        out.write_all(b"partition,offset,timestamp,key,key_base64,value,value_base64,headers\n")?;
        Ok(Self { out, headers: Vec::new() })
    }

    /// A text, and after a comma the bytes that are none.
    fn bytes(&mut self, bytes: Option<&[u8]>) -> io::Result<()> {
        match bytes.map(|bytes| (std::str::from_utf8(bytes), bytes)) {
            None => self.out.write_all(b","),
            Some((Ok(text), _)) => {
                quoted(&mut self.out, text.as_bytes())?;
                self.out.write_all(b",")
            }
            Some((Err(_), bytes)) => {
                self.out.write_all(b",")?;
                quoted(&mut self.out, STANDARD.encode(bytes).as_bytes())
            }
        }
    }
}

/// In quotes, those in it doubled.
fn quoted(out: &mut impl Write, text: &[u8]) -> io::Result<()> {
    out.write_all(b"\"")?;
    for (i, part) in text.split(|byte| *byte == b'"').enumerate() {
        if i > 0 {
            out.write_all(b"\"\"")?;
        }
        out.write_all(part)?;
    }
    out.write_all(b"\"")
}

impl<W: Write> Rows for Csv<W> {
    fn write(&mut self, message: &Message) -> io::Result<()> {
        let record = &message.record;
        // Not as a `Timestamp`, which ends a day before the year 9999 does.
        let since = jiff::SignedDuration::from_micros(record.timestamp_us);
        let time =
            jiff::civil::date(1970, 1, 1).at(0, 0, 0, 0).checked_add(since).map_err(io::Error::other)?;
        write!(self.out, "{},{},{time:.6}Z,", message.partition, record.offset)?;
        self.bytes(record.key.as_deref())?;
        self.out.write_all(b",")?;
        self.bytes(record.value.as_deref())?;
        self.out.write_all(b",")?;
        self.headers.clear();
        json::write_headers(&mut self.headers, &record.headers)?;
        quoted(&mut self.out, &self.headers)?;
        self.out.write_all(b"\n")
    }

    fn finish(mut self) -> io::Result<()> {
        self.out.flush()
    }
}
