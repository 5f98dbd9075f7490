//! Packed bodies. Nothing is believed that a header says of sizes: the bound is on what comes in, and on what comes out.
//!
//! An emulator may have unpacked a body already and say `identity`; `content-length` is then the old one, so nobody here
//! reads it.

use std::io::Read;

use bytes::Bytes;
use flate2::read::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use tidelog_core::limits;

use crate::{Problem, Request};

/// What a body may be packed with, as an answer says it.
pub const ACCEPTED: &str = "gzip, zstd, deflate, identity";

/// The body, unpacked: at most `bytes_max`, a body that comes plain as well.
pub fn unpacked(request: &Request, bytes_max: usize) -> Result<Bytes, Problem> {
    let body = &request.body;
    check_size("body", body.len(), limits::HTTP_BODY_BYTES_MAX.min(bytes_max))?;
    let named = request.header("content-encoding").unwrap_or_default().trim().to_ascii_lowercase();
    match named.as_str() {
        "" | "identity" | "none" => Ok(body.clone()),
        "gzip" | "x-gzip" => unpack("gzip", MultiGzDecoder::new(&body[..]), bytes_max),
        // Zlib by the standard, the bare stream by some clients: the first two bytes tell.
        "deflate" if is_zlib(body) => unpack("deflate", ZlibDecoder::new(&body[..]), bytes_max),
        "deflate" => unpack("deflate", DeflateDecoder::new(&body[..]), bytes_max),
        "zstd" => {
            let decoder = zstd::stream::read::Decoder::new(&body[..]).and_then(|mut decoder| {
                decoder.window_log_max(limits::HTTP_ZSTD_WINDOW_LOG_MAX)?;
                Ok(decoder)
            });
            let decoder =
                decoder.map_err(|error| Problem::invalid("body", format!("it is not zstd: {error}")))?;
            unpack("zstd", decoder, bytes_max)
        }
        other => Err(unsupported(other)),
    }
}

fn unsupported(named: &str) -> Problem {
    let message = format!("content-encoding {named:?} is not supported; one of {ACCEPTED} is");
    let problem = Problem::new(415, "unsupported_encoding", message).header("accept-encoding", ACCEPTED);
    Problem { field: Some("content-encoding".to_owned()), ..problem }
}

fn is_zlib(body: &[u8]) -> bool {
    matches!(body, [method, flags, ..] if method & 0x0f == 8 && (u32::from(*method) << 8 | u32::from(*flags)) % 31 == 0)
}

fn check_size(field: &str, size: usize, limit: usize) -> Result<(), Problem> {
    if size > limit { Err(Problem::too_large(field, Some(size as u64), limit)) } else { Ok(()) }
}

/// Reads at most one byte more than is allowed, and so never holds what a bomb would make.
fn unpack(name: &str, from: impl Read, bytes_max: usize) -> Result<Bytes, Problem> {
    let mut unpacked = Vec::new();
    let read = from.take(bytes_max as u64 + 1).read_to_end(&mut unpacked);
    if unpacked.len() > bytes_max {
        return Err(Problem::too_large("unpacked body", None, bytes_max));
    }
    read.map_err(|error| Problem::invalid("body", format!("it is not whole {name}: {error}")))?;
    Ok(unpacked.into())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
    use tidelog_core::env::SystemEnv;

    use super::*;
    use crate::Deadline;

    fn with(encoding: &str, body: Vec<u8>) -> Result<Bytes, Problem> {
        let headers = [("content-encoding".to_owned(), encoding.to_owned())].into();
        let deadline = Deadline::after_ms(SystemEnv::shared(), 1_000);
        let (method, path, query) = ("POST".into(), "/".into(), String::new());
        unpacked(&Request { method, path, query, headers, body: body.into(), deadline }, 1 << 20)
    }

    fn gzip(plain: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }

    fn all_packed(plain: &[u8]) -> [(&'static str, Vec<u8>); 4] {
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::default());
        let mut bare = DeflateEncoder::new(Vec::new(), Compression::default());
        zlib.write_all(plain).unwrap();
        bare.write_all(plain).unwrap();
        let zstd = zstd::encode_all(plain, 1).unwrap();
        let (zlib, bare) = (zlib.finish().unwrap(), bare.finish().unwrap());
        [("gzip", gzip(plain)), ("deflate", zlib), ("deflate", bare), ("zstd", zstd)]
    }

    #[test]
    fn each_encoding_is_unpacked() {
        for (name, packed) in all_packed(b"hello hello hello") {
            assert_eq!(with(name, packed).unwrap(), "hello hello hello", "{name}");
        }
        for plain in ["", "identity", "none", " Identity "] {
            assert_eq!(with(plain, b"hello".to_vec()).unwrap(), "hello", "{plain}");
        }
        let two = [gzip(b"one "), gzip(b"two")].concat();
        assert_eq!(with("GZIP", two).unwrap(), "one two");
    }

    #[test]
    fn bombs_meet_the_limit() {
        for (name, packed) in all_packed(&vec![0; 64 << 20]) {
            let problem = with(name, packed).unwrap_err();
            assert_eq!((problem.status, problem.limit), (413, Some(1 << 20)), "{name}");
        }
        let problem = with("identity", vec![0; (1 << 20) + 1]).unwrap_err();
        assert_eq!((problem.status, problem.limit), (413, Some(1 << 20)));
        // Exactly the limit is allowed.
        assert_eq!(with("gzip", gzip(&vec![7; 1 << 20])).unwrap().len(), 1 << 20);
    }

    #[test]
    fn what_is_broken_is_refused() {
        for (name, packed) in all_packed(b"hello hello hello, and some more of it: 0123456789") {
            for cut in 1..packed.len() {
                let problem = with(name, packed[..cut].to_vec()).unwrap_err();
                assert_eq!(problem.status, 400, "{name} cut at {cut}");
            }
            assert_eq!(
                with(name, b"plain text, not packed at all".to_vec()).unwrap_err().status,
                400,
                "{name}"
            );
        }
        for name in ["br", "gzip, gzip", "gzip;q=1", "\u{1f30a}"] {
            let problem = with(name, b"x".to_vec()).unwrap_err();
            assert_eq!((problem.status, problem.field.as_deref()), (415, Some("content-encoding")), "{name}");
        }
    }

    #[test]
    fn a_large_zstd_window_is_refused() {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(27).unwrap();
        encoder.write_all(b"x").unwrap();
        let problem = with("zstd", encoder.finish().unwrap()).unwrap_err();
        assert_eq!(problem.status, 400, "{}", problem.message);
    }
}
