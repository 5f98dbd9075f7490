#!/usr/bin/env python3
"""Writes what readback produces, the same each time: records that are unusual in every field, and plain lines.

Usage: records.py FOLDER. Writes odd-1.ndjson, odd-2.ndjson and odd.ndjson (both together), lines.txt, and lines.ndjson
(the records that lines.txt should become).
"""

import base64
import json
import pathlib
import random
import sys

LAST_MS = 253402300799999  # 9999-12-31T23:59:59.999Z
MIB = 1 << 20  # what a topic allows, key and headers included, unless it says otherwise


def put(fields, name, data):
    """`data` under `name` when it is UTF-8 (None: null), else under `name_base64`."""
    try:
        fields[name] = None if data is None else data.decode()
    except UnicodeDecodeError:
        fields[name + "_base64"] = base64.b64encode(data).decode()
    return fields


def line(key=None, value=None, headers=(), timestamp=None):
    fields = {} if timestamp is None else {"timestamp": timestamp}
    put(put(fields, "key", key), "value", value)
    fields["headers"] = [put({"key": k}, "value", v) for k, v in headers]
    return json.dumps(fields, ensure_ascii=len(fields["headers"]) % 2 == 0)


def odd():
    yield line()
    yield line(key=b"", value=b"")
    yield line(key=b"tombstone", value=None)
    yield line(key=None, value=b"", timestamp=0)
    yield line(value=b"the last millisecond", timestamp=LAST_MS)
    yield line(value=b"the one after the first", timestamp=1)
    yield line(value=b"x" * MIB)
    yield line(value=bytes(range(256)) * 256)
    yield line(key=b"\xff\xfe", value=b"\xc3\x28\x00", headers=[("bin", b"\x80")])
    yield line(value=b"h", headers=[("h", b"1"), ("h", b"2"), ("h", None), ("h", b""), ("h", b"1")])
    yield line(value=b"h", headers=[("", None), ("", b"")])
    yield line(value=b"h", headers=[(f"k{i}", b"v" * i) for i in range(128)])
    yield line(value='"\\\n\r\t\u2028\U0001f30a\u0000'.encode(), headers=[("\u00e9\U0001f30a", "ü".encode())])
    yield line(value=b"null")
    yield line(key=b"k", value=b"twice", timestamp=1_700_000_000_000)
    yield line(key=b"k", value=b"twice", timestamp=1_700_000_000_000)


def mixed(seed, count):
    """Records with each field drawn at random, so that kinds stand beside each other in every order."""
    draw = random.Random(seed)

    def blob():
        kind = draw.randrange(5)
        if kind == 0:
            return None
        data = draw.randbytes(draw.choice((0, 1, 7, 40, 300)))
        return data if kind == 1 else data.hex().encode()

    for _ in range(count):
        headers = [(draw.choice(("", "a", "b", "é")), blob()) for _ in range(draw.choice((0, 0, 0, 1, 3)))]
        yield line(blob(), blob(), headers, draw.choice((None, 0, LAST_MS, draw.randrange(LAST_MS))))


def plain(count):
    """(line with its end, the value that it becomes)."""
    draw = random.Random(7)
    for number in range(count):
        value = draw.choice((b"", b"plain line %d" % number, b"caf\xc3\xa9 %d" % number, b"\xff\x00 %d" % number))
        yield value + draw.choice((b"\n", b"\r\n")), value


def main():
    folder = pathlib.Path(sys.argv[1])
    parts = [list(odd()) + list(mixed(1, 500)), list(mixed(2, 3_000))]
    for number, part in enumerate(parts, 1):
        (folder / f"odd-{number}.ndjson").write_text("".join(f"{one}\n" for one in part), encoding="utf-8")
    (folder / "odd.ndjson").write_text("".join(f"{one}\n" for part in parts for one in part), encoding="utf-8")
    lines = list(plain(20_000))
    (folder / "lines.txt").write_bytes(b"".join(raw for raw, _ in lines))
    (folder / "lines.ndjson").write_text("".join(f"{line(value=value)}\n" for _, value in lines), encoding="utf-8")


if __name__ == "__main__":
    main()
