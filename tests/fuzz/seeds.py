"""`seeds.py CORPUS`: what the fuzzer starts from, made from the golden files. The forms are those of `src/lib.rs`."""

import gzip
import json
import struct
import sys
import zlib
from pathlib import Path

golden = Path(__file__).resolve().parent.parent / "golden" / "v1"
corpus = Path(sys.argv[1])


def write(target, name, data):
    folder = corpus / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)


def piece(data):
    return struct.pack("<H", len(data)) + data


for file in golden.glob("segment-*.parquet"):
    spans = [line.split() for line in file.with_suffix(".layout").read_text().splitlines()]
    groups = [int(length) for _, length, _ in spans[:-1]]
    write("segment", file.stem, struct.pack(f"<B{len(groups)}I", len(groups), *groups) + file.read_bytes())
write("segment", "inline", b"\0" + (golden / "rows.inline").read_bytes())

for file in golden.glob("merged-*.parquet"):
    position = int(file.with_suffix(".layout").read_text().split()[0])
    write("merged", file.stem, struct.pack("<I", position) + file.read_bytes())
write("row", "row", struct.pack("<QQ", 9, 100) + (golden / "index.row").read_bytes()[:-8])

# Without their checksums, which the targets put in.
bodies = {file.stem: file.read_bytes()[:-8] for file in sorted((golden / "ledger").glob("*.commit"))}
state = (golden / "ledger" / "14.checkpoint").read_bytes()[:-8]
write("commit", "chain", b"\0" + b"".join(piece(body) for body in bodies.values()))
write("commit", "more", b"\1" + b"".join(piece(body) for body in list(bodies.values())[4:]))
for name, body in bodies.items():
    write("commit", name, b"\1" + piece(body))
    write("checkpoint", name, piece(state) + piece(body))

texts = {
    "json": rb'{"topic":"t","partition":2,"offset":7,"timestamp":1764000000000,"key":"k","value":"v","headers":'
    rb'[{"key":"h","value":"x"},{"key":"n","value":null}]}',
    "bytes": rb'{"key_base64":"/wA=","value_base64":"","headers":[{"key":"","value_base64":"gA=="}]}',
    "escapes": rb'{"value":"\"\\\/\b\f\n\r\t\u0000\ud83c\udf0a","timestamp":null}' + b"\n{}\r\n[]\n",
    "deep": b'{"topic":' + b"[" * 200 + b"]" * 200 + b"}",
    "numbers": b'{"timestamp":-1}\n{"timestamp":1e999}\n{"partition":4294967296}',
}
for name, text in texts.items():
    write("text", name, bytes([0, 200, 7]) + text)
write("text", "lines", bytes([2, 5, 3]) + b"a\r\n\n123456\r\nlast\r")
write("text", "keyed", bytes([3, 90, 0]) + b"key\tvalue\n\t\nno tab\n")

# Bodies of requests. The first byte says how they are to be read.
write("lines", "lines", b"one\ntwo\r\n\nlast, without an end")
write("binary", "binary", bytes(range(256)))
documents = b'{"a":{"b":["x",1.5,null]},"time":"2026-01-31T12:00:00Z"}\n{"a":1,"time":1700000000000}\nno json\n'
records = b'{"key":"k","value":"v","timestamp":1764000000000,"headers":[{"key":"h","value":null}]}\n{"partition":7}\n'
for flags in range(8):
    write("ndjson", f"documents-{flags}", bytes([flags]) + documents)
    write("ndjson", f"records-{flags}", bytes([flags]) + records)
    write("json", f"documents-{flags}", bytes([flags]) + b"[" + b",".join(documents.splitlines()[:2]) + b"]")
    write("json", f"records-{flags}", bytes([flags]) + b'{"records":[' + b",".join(records.splitlines()) + b"]}")

otlp = {
    "resourceLogs": [{
        "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "shop"}}]},
        "schemaUrl": "https://opentelemetry.io/schemas/1.24.0",
        "scopeLogs": [{
            "scope": {"name": "app", "version": "1", "attributes": [], "droppedAttributesCount": 1},
            "logRecords": [
                {"timeUnixNano": "1764000000000000000", "severityNumber": 9, "severityText": "INFO",
                 "body": {"kvlistValue": {"values": [{"key": "n", "value": {"intValue": "-7"}}]}},
                 "attributes": [{"key": "d", "value": {"doubleValue": 0.5}}, {"key": "b", "value": {"boolValue": True}}],
                 "traceId": "5b8efff798038103d269b633813fc60c", "spanId": "eee19b7ec3c1b174", "flags": 1},
                {"observedTimeUnixNano": 5, "body": {"arrayValue": {"values": [{"bytesValue": "AP8="}]}}},
            ],
        }],
    }],
}
write("otlp_json", "whole", json.dumps(otlp).encode())
write("otlp_json", "snake", b'{"resource_logs":[{"scope_logs":[{"log_records":[{}]}]}],"unknown":[{"x":1}]}')


def field(number, data):
    """A field of a protobuf message: length-delimited, or a number."""
    if isinstance(data, bytes):
        return varint(number << 3 | 2) + varint(len(data)) + data
    return varint(number << 3) + varint(data)


def varint(value):
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


attribute = field(1, b"service.name") + field(2, field(1, b"shop"))
record = (
    b"\x09" + struct.pack("<Q", 1764000000000000000) + field(2, 9) + field(3, b"INFO")
    + field(5, field(6, field(1, field(1, b"n") + field(2, field(3, 7)))))
    + field(6, field(1, b"d") + field(2, b"\x21" + struct.pack("<d", 0.5)))
    + b"\x45" + struct.pack("<I", 1) + field(9, bytes(range(16))) + field(10, bytes(range(8)))
)
scope = field(1, field(1, b"app") + field(2, b"1")) + field(2, record) + field(2, record) + field(3, b"url")
write("otlp_protobuf", "whole", field(1, field(1, field(1, attribute)) + field(2, scope) + field(3, b"url")))
write("otlp_protobuf", "around-later", field(1, field(2, field(2, record)) + field(1, field(1, attribute))))

plain = b"hello hello hello " * 40
bare = zlib.compressobj(wbits=-15)
for number, packed in enumerate([gzip.compress(plain), zlib.compress(plain), bare.compress(plain) + bare.flush(), plain]):
    write("packed", f"packed-{number}", bytes([number]) + packed)
# One raw block, by hand: Python has no zstd. (RFC 8878: magic, frame header with the size, block header.)
write("packed", "zstd", b"\3" + b"\x28\xb5\x2f\xfd\x20\x05" + struct.pack("<I", 5 << 3 | 1)[:3] + b"hello")

for name, parts in {
    "records": ["/v1/topics/t/partitions/0/records", "from=2&max_bytes=500&max_records=3&wait_ms=5", "application/x-ndjson"],
    "time": ["/v1/topics/t/partitions/1/records", "from=2026-01-31T12%3A00%3A00Z", "application/json;q=0.5, */*;q=0.1"],
    "arrow": ["/v1/topics/t/partitions/0/records", "from=start", "application/vnd.apache.arrow.stream"],
    "parquet": ["/v1/topics/t/partitions/0/records", "from=end", "application/vnd.apache.parquet"],
    "topics": ["/v1/topics", "limit=5&after=a", ""],
    "topic": ["/v1/topics/%74/", "", "text/plain"],
    "group": ["/v1/groups/g%2F1", "topic=t", ""],
}.items():
    write("fetch", name, "\n".join(parts).encode())
