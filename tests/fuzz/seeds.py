"""`seeds.py CORPUS`: what the fuzzer starts from, made from the golden files. The forms are those of `src/lib.rs`."""

import struct
import sys
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
