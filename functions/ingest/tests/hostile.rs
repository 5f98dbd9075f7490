//! Bodies of every form, packed in every way, with bytes changed, cut, doubled and swapped: never an answer that blames the
//! function, and what was taken is what is in the log.

mod common;

use std::io::Write;

use common::*;
use tidelog_functions::Service;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// A sequence that a seed decides.
struct Rng(u64, u64);

impl Rng {
    fn next(&mut self, below: usize) -> usize {
        self.1 += 1;
        (xxh3_64_with_seed(&self.1.to_le_bytes(), self.0) % below.max(1) as u64) as usize
    }

    fn mutated(&mut self, body: &[u8]) -> Vec<u8> {
        let mut body = body.to_vec();
        for _ in 0..self.next(4) {
            let at = self.next(body.len() + 1);
            let end = (at + 1 + self.next(16)).min(body.len());
            match self.next(5) {
                0 if at < body.len() => body[at] ^= 1 << self.next(8),
                1 => body.truncate(at),
                2 => body.insert(at, b"{}[]\",:\\\n\r0e-\xff\0"[self.next(15)]),
                3 => drop(body.drain(at.min(end)..end)),
                _ => {
                    let piece = body[at.min(end)..end].to_vec();
                    let to = self.next(body.len() + 1);
                    body.splice(to..to, piece);
                }
            }
        }
        body
    }
}

fn packed(encoding: &str, body: &[u8]) -> Vec<u8> {
    let level = flate2::Compression::fast();
    match encoding {
        "gzip" => {
            let mut packed = flate2::write::GzEncoder::new(Vec::new(), level);
            packed.write_all(body).unwrap();
            packed.finish().unwrap()
        }
        "deflate" => {
            let mut packed = flate2::write::ZlibEncoder::new(Vec::new(), level);
            packed.write_all(body).unwrap();
            packed.finish().unwrap()
        }
        "zstd" => zstd::encode_all(body, 1).unwrap(),
        _ => body.to_vec(),
    }
}

const LOGS: &[u8] = br#"{"resourceLogs":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"s"}}]},
    "scopeLogs":[{"logRecords":[{"timeUnixNano":"1","body":{"kvlistValue":{"values":[]}},"traceId":""},{}]}]}]}"#;
/// The same, about, in protobuf.
const LOGS_PROTOBUF: &[u8] = b"\x0a\x2c\x0a\x13\x0a\x11\x0a\x0cservice.name\x12\x01\x00\x12\x15\x0a\x03\x0a\x01n\x12\x0e\x09\x01\0\0\0\0\0\0\0\x2a\x03\x0a\x01x";

#[tokio::test]
async fn no_body_is_the_functions_fault() {
    let world = World::new(2).await;
    world.log.admin().create_topic("otlp", 1, &[]).await.unwrap();
    let records = "/v1/topics/logs/records";
    let bodies: [(&str, &str, &str, &[u8]); 8] = [
        (records, "text/plain", "", b"one\r\ntwo\n\nthree"),
        (records, "application/x-ndjson", "key_pointer=/a/b&timestamp_pointer=/t", b"{\"a\":{\"b\":\"k\"},\"t\":5}\n[1,2.5e3,null,\"\\u00e9\"]\n"),
        (records, "application/x-ndjson", "as=records", b"{\"key\":\"k\",\"value\":\"v\",\"headers\":[{\"key\":\"h\",\"value_base64\":\"/w==\"}]}\n{\"timestamp\":5}\n"),
        (records, "application/json", "key_pointer=/a", b"[{\"a\":1},{\"a\":\"\\ud83c\\udf0a\"},[],{}]"),
        (records, "application/json", "", b"{\"records\":[{\"value\":\"a\",\"partition\":1},{\"value_base64\":\"AA==\"}]}"),
        (records, "application/octet-stream", "", b"\0\x01\xff anything"),
        ("/v1/logs", "application/json", "", LOGS),
        ("/v1/logs", "application/x-protobuf", "", LOGS_PROTOBUF),
    ];
    let (mut rng, mut taken, mut statuses) = (Rng(7, 0), 0, std::collections::BTreeMap::<u16, u32>::new());
    for round in 0..4_000 {
        let (path, form, query, body) = bodies[round % bodies.len()];
        let encoding = ["identity", "gzip", "deflate", "zstd"][rng.next(4)];
        let body = rng.mutated(body);
        let mut body = packed(encoding, &body);
        if rng.next(4) == 0 {
            body = rng.mutated(&body);
        }
        let key = format!("key {round}");
        let mut headers = vec![("content-type", form), ("content-encoding", encoding)];
        if path == "/v1/logs" {
            headers.push(("x-tidelog-topic", "otlp"));
        }
        if rng.next(3) == 0 {
            headers.push(("idempotency-key", &key));
        }
        let answer = world.ingest.handle(request("POST", path, query, &headers, &body)).await;
        assert!(matches!(answer.status, 200 | 207 | 400 | 413), "round {round}: {answer:?}");
        *statuses.entry(answer.status).or_default() += 1;
        if path == records && answer.status < 300 {
            let places = json(&answer)["records"].as_array().unwrap().clone();
            taken += places.iter().filter(|place| place["offset"].is_u64()).count();
        }
    }
    assert_eq!(world.all().await.len(), taken);
    // It is of some use only if both happen often.
    assert!(statuses[&200] > 500 && statuses[&400] > 500, "{statuses:?}");
}
