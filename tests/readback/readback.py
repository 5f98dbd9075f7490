#!/usr/bin/env python3
"""Opens segments with DuckDB and pyarrow and compares them, row for row, with what `tidelog consume` gave.

Law L9: a segment is a standard Parquet file, so two readers that know nothing of Tidelog must see its records. The rows
are those that the slices name: row `r` of the file has offset `base + (r - first_row)`.

    readback.py STORE INSPECT CONSUMED [PRODUCED]
    readback.py --self-test

STORE     folder of the store
INSPECT   output of `tidelog inspect partition TOPIC --output json`
CONSUMED  output of `tidelog consume TOPIC --from start --until end --format json`
PRODUCED  NDJSON that was produced into the topic, and nothing else: each of its records must be there once

Exits 0 when all agree, 1 with the first difference.
"""

import base64
import collections
import json
import pathlib
import sys
import tempfile

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

# A record as compared: (topic, partition, timestamp ms, key, value, ((header key, header value), ...)); bytes or None.
Record = collections.namedtuple("Record", "topic partition timestamp key value headers")


class Difference(Exception):
    """What does not agree, in words."""


# --- what the readers see ---------------------------------------------------------------------------------------------


def record(topic, partition, timestamp_us, key, value, headers):
    """A row of a segment. Parquet keeps microseconds, `consume` prints milliseconds."""
    if headers is None:
        raise Difference(f"{topic}/{partition}: headers is null; no headers is an empty list")
    pairs = tuple((h["key"], None if h["value"] is None else bytes(h["value"])) for h in headers)
    return Record(topic, partition, timestamp_us // 1000, key, value, pairs)


def rows_by_duckdb(path):
    query = (
        "SELECT topic, partition, epoch_us(timestamp), key, value, headers, file_row_number"
        " FROM read_parquet(?, file_row_number = true) ORDER BY file_row_number"
    )
    rows = duckdb.execute(query, [str(path)]).fetchall()
    if [row[6] for row in rows] != list(range(len(rows))):
        raise Difference(f"{path}: DuckDB's row numbers are not 0..{len(rows)}")
    return [record(*row[:6]) for row in rows]


def rows_by_pyarrow(path):
    table = pq.ParquetFile(path).read()
    if table.schema.field("timestamp").type != pa.timestamp("us", "UTC"):
        raise Difference(f"{path}: timestamp is {table.schema.field('timestamp').type}, not timestamp[us, tz=UTC]")
    columns = [
        (table[name].cast(pa.int64()) if name == "timestamp" else table[name]).to_pylist()
        for name in ("topic", "partition", "timestamp", "key", "value", "headers")
    ]
    return [record(*row) for row in zip(*columns)]


READERS = {"DuckDB": rows_by_duckdb, "pyarrow": rows_by_pyarrow}


# --- what `consume` gave ----------------------------------------------------------------------------------------------


def read_bytes(fields, name):
    """`name` as text, or `name_base64` for what is no UTF-8; null or absent is None."""
    if fields.get(name + "_base64") is not None:
        return base64.b64decode(fields[name + "_base64"], validate=True)
    text = fields.get(name)
    return None if text is None else text.encode()


def read_ndjson(path):
    with open(path, encoding="utf-8") as lines:
        return [json.loads(line) for line in lines if line.strip()]


def consumed_record(fields):
    headers = tuple((h["key"], read_bytes(h, "value")) for h in fields.get("headers") or [])
    return Record(
        fields.get("topic"),
        fields.get("partition"),
        fields.get("timestamp"),
        read_bytes(fields, "key"),
        read_bytes(fields, "value"),
        headers,
    )


def consumed_by_partition(path):
    """{partition: {offset: record}}, refusing an offset that comes twice or out of order."""
    partitions = collections.defaultdict(dict)
    for fields in read_ndjson(path):
        offsets = partitions[fields["partition"]]
        if offsets and fields["offset"] <= next(reversed(offsets)):
            raise Difference(f"partition {fields['partition']}: offset {fields['offset']} after {next(reversed(offsets))}")
        offsets[fields["offset"]] = consumed_record(fields)
    return partitions


# --- the comparison ---------------------------------------------------------------------------------------------------


def short(value):
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}… ({len(text)} characters)"


def check_record(where, reader, got, want):
    for field, a, b in zip(Record._fields, got, want):
        if a != b:
            raise Difference(f"{where}: {field}: {reader} reads {short(a)}, consume gave {short(b)}")


def check_slices(topic, partition, consumed):
    """The slices must cover log start to high watermark without gap or overlap, and consume exactly that."""
    where = f"{topic}/{partition['partition']}"
    start, end = partition["log_start"], partition["high_watermark"]
    slices = sorted(partition["slices"], key=lambda s: s["base"])
    if slices and slices[0]["base"] > start:
        raise Difference(f"{where}: first slice begins at {slices[0]['base']}, the log at {start}")
    for one, after in zip(slices, slices[1:]):
        if one["base"] + one["rows"] != after["base"]:
            raise Difference(f"{where}: slice of {one['rows']} rows at {one['base']} is followed by one at {after['base']}")
    last = slices[-1]["base"] + slices[-1]["rows"] if slices else start
    if last != end:
        raise Difference(f"{where}: the slices end at {last}, the high watermark is {end}")
    if list(consumed) != list(range(start, end)):
        missing = next((o for o in range(start, end) if o not in consumed), None)
        more = next((o for o in consumed if not start <= o < end), None)
        raise Difference(f"{where}: consume gave {len(consumed)} of {start}..{end}; missing {missing}, too many {more}")
    for one in slices:
        if one.get("inline") or not one.get("object"):
            raise Difference(f"{where}: the slice at {one['base']} is inline: produce with --inline-bytes-max 0")


def check_object(path, topic, slices, consumed):
    """Both readers against the slices [(partition, log start, slice)] of one object. Returns the rows compared."""
    compared = 0
    for reader, read in READERS.items():
        try:
            rows = read(path)
        except Difference:
            raise
        except Exception as error:
            raise Difference(f"{path}: {reader} cannot read it: {error}") from error
        for partition, log_start, one in slices:
            first = one["first_row"]
            if first < 0 or first + one["rows"] > len(rows):
                raise Difference(f"{path}: slice rows {first}+{one['rows']}, {reader} reads {len(rows)} rows")
            for row in range(first, first + one["rows"]):
                offset = one["base"] + (row - first)
                if offset < log_start:
                    continue
                where = f"{topic}/{partition} offset {offset} ({path.name} row {row})"
                check_record(where, reader, rows[row], consumed[partition][offset])
                compared += 1
    return compared // len(READERS)


def check_produced(produced, consumed):
    """Every produced record came out once, whatever its partition. A record without a timestamp got one on the way."""

    def bare(one, timestamp):
        return (timestamp, one.key, one.value, one.headers)

    out_timed, out_bare = collections.Counter(), collections.Counter()
    for offsets in consumed.values():
        for one in offsets.values():
            out_timed[bare(one, one.timestamp)] += 1
            out_bare[bare(one, None)] += 1
    wanted = [consumed_record(fields) for fields in read_ndjson(produced)]
    for counts, want in (
        (out_timed, collections.Counter(bare(w, w.timestamp) for w in wanted if w.timestamp is not None)),
        (out_bare, collections.Counter(bare(w, None) for w in wanted)),
    ):
        for one, count in want.items():
            if counts[one] < count:
                raise Difference(f"produced {count} of {short(one)}, consume gave {counts[one]}")
    if sum(out_bare.values()) != len(wanted):
        raise Difference(f"produced {len(wanted)} records, consume gave {sum(out_bare.values())}")


def check(store, inspect, consumed_path, produced=None):
    """Compares everything. Returns a line that says how much."""
    state = json.loads(pathlib.Path(inspect).read_text())
    topic = state["topic"]
    consumed = consumed_by_partition(consumed_path)
    unknown = set(consumed) - {p["partition"] for p in state["partitions"]}
    if unknown:
        raise Difference(f"{topic}: consume gave partitions that inspect does not know: {sorted(unknown)}")
    objects = collections.defaultdict(list)
    for partition in state["partitions"]:
        number = partition["partition"]
        check_slices(topic, partition, consumed[number])
        for one in partition["slices"]:
            objects[one["object"]].append((number, partition["log_start"], one))
    rows = sum(
        check_object(pathlib.Path(store) / name, topic, slices, consumed) for name, slices in sorted(objects.items())
    )
    total = sum(len(offsets) for offsets in consumed.values())
    if rows != total or rows == 0:
        raise Difference(f"{topic}: compared {rows} rows, consume gave {total}")
    if produced:
        check_produced(produced, consumed)
    return f"{topic}: {rows} rows of {len(objects)} segments are the same in DuckDB, pyarrow and consume"


# --- the check, checked -----------------------------------------------------------------------------------------------

HEADERS = pa.list_(pa.struct([("key", pa.string()), ("value", pa.binary())]))
SCHEMA = pa.schema(
    [
        ("topic", pa.string()),
        ("partition", pa.int32()),
        ("timestamp", pa.timestamp("us", "UTC")),
        ("key", pa.binary()),
        ("value", pa.binary()),
        ("headers", HEADERS),
    ]
)


def sample():
    """Rows of a segment (another topic's first), and the arguments of `check` as data."""
    end_us = 253402300799999999
    rows = [
        ("other", 0, 5, b"x", b"x", []),
        ("t", 0, 0, None, None, []),
        ("t", 0, 1_999, b"", b"", [("h", b"1"), ("h", b"2"), ("h", None), ("", b"")]),
        ("t", 0, end_us, b"\xff\x00", b"caf\xc3\xa9", [("b", b"\xfe")]),
        ("t", 1, 7_000, b"k", b"v", []),
    ]
    partitions = [
        {"partition": 0, "log_start": 11, "high_watermark": 13, "slices": [slice_of(10, 3, 1)]},
        {"partition": 1, "log_start": 0, "high_watermark": 1, "slices": [slice_of(0, 1, 4)]},
    ]
    consumed = [
        {"topic": "t", "partition": 0, "offset": 11, "timestamp": 1, "key": "", "value": "",
         "headers": [{"key": "h", "value": "1"}, {"key": "h", "value": "2"}, {"key": "h", "value": None},
                     {"key": "", "value": ""}]},
        {"topic": "t", "partition": 1, "offset": 0, "timestamp": 7, "key": "k", "value": "v", "headers": []},
        {"topic": "t", "partition": 0, "offset": 12, "timestamp": 253402300799999, "key_base64": "/wA=",
         "value": "café", "headers": [{"key": "b", "value_base64": "/g=="}]},
    ]  # fmt: skip
    return rows, partitions, consumed


def slice_of(base, rows, first_row):
    return {"base": base, "rows": rows, "object": "l0/a.parquet", "first_row": first_row, "inline": False}


def run_sample(change=None):
    """Writes the sample, after `change(rows, partitions, consumed)`, and checks it. Returns None or the difference."""
    rows, partitions, consumed = sample()
    produced = [dict(c) for c in consumed]
    if change:
        change(rows, partitions, consumed)
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        (folder / "l0").mkdir()
        columns = [list(column) for column in zip(*rows)]
        columns[5] = [[{"key": k, "value": v} for k, v in headers] for headers in columns[5]]
        arrays = [pa.array(column, field.type) for column, field in zip(columns, SCHEMA)]
        pq.write_table(pa.Table.from_arrays(arrays, schema=SCHEMA), folder / "l0/a.parquet", row_group_size=2)
        (folder / "inspect.json").write_text(json.dumps({"topic": "t", "topic_id": "1", "partitions": partitions}))
        (folder / "consumed.ndjson").write_text("".join(json.dumps(c) + "\n" for c in consumed))
        (folder / "produced.ndjson").write_text("".join(json.dumps(p) + "\n" for p in produced))
        try:
            check(folder, folder / "inspect.json", folder / "consumed.ndjson", folder / "produced.ndjson")
        except Difference as difference:
            return str(difference)
    return None


def self_test():
    """The sample agrees; each change of it is noticed, at the right place."""

    def row(index, **fields):
        names = ("topic", "partition", "timestamp_us", "key", "value", "headers")

        def change(rows, _partitions, _consumed):
            rows[index] = tuple(fields.get(name, old) for name, old in zip(names, rows[index]))

        return change

    def both(rows, _partitions, consumed):
        row(4, value=b"w")(rows, _partitions, consumed)
        consumed[1]["value"] = "w"

    changes = {
        "value": (row(4, value=b"w"), "t/1 offset 0 (a.parquet row 4): value"),
        "null for an empty key": (row(2, key=None), "t/0 offset 11 (a.parquet row 2): key"),
        "null for an empty value": (row(2, value=None), "value"),
        "one bit of invalid UTF-8": (row(3, key=b"\xfe\x00"), "t/0 offset 12 (a.parquet row 3): key"),
        "a millisecond": (row(3, timestamp_us=253402300799998999), "timestamp"),
        "order of headers": (row(2, headers=[("h", b"2"), ("h", b"1"), ("h", None), ("", b"")]), "headers"),
        "a duplicate header lost": (row(2, headers=[("h", b"1"), ("h", None), ("", b"")]), "headers"),
        "a header's null": (row(2, headers=[("h", b"1"), ("h", b"2"), ("h", b""), ("", b"")]), "headers"),
        "partition": (row(4, partition=0), "partition"),
        "topic": (row(4, topic="other"), "topic"),
        "rows swapped": (lambda r, p, c: r.__setitem__(slice(2, 4), [r[3], r[2]]), "t/0 offset 11"),
        "first row": (lambda r, p, c: p[1]["slices"][0].update(first_row=0), "topic"),
        "rows past the end": (lambda r, p, c: p[1]["slices"][0].update(first_row=5), "slice rows 5+1"),
        "base": (lambda r, p, c: p[0]["slices"][0].update(base=9), "the slices end at 12"),
        "high watermark": (lambda r, p, c: p[1].update(high_watermark=2), "the slices end at 1"),
        "gap between slices": (lambda r, p, c: p[1].update(slices=[slice_of(0, 1, 4), slice_of(2, 1, 4)]), "followed by"),
        "log start": (lambda r, p, c: p[0].update(log_start=10), "missing 10"),
        "record not consumed": (lambda r, p, c: c.pop(1), "missing 0"),
        "consumed twice": (lambda r, p, c: c.append(c[2]), "offset 12 after 12"),
        "unknown partition": (lambda r, p, c: c.append({**c[1], "partition": 2}), "does not know: [2]"),
        "inline slice": (lambda r, p, c: p[1]["slices"][0].update(inline=True, object=None), "is inline"),
        "missing object": (lambda r, p, c: p[1]["slices"][0].update(object="l0/b.parquet"), "cannot read"),
        "changed on the way in": (both, "produced 1 of"),
    }
    failures = []
    if difference := run_sample():
        failures.append(f"right data: {difference}")
    for name, (change, expected) in changes.items():
        difference = run_sample(change)
        if difference is None or expected not in difference:
            failures.append(f"{name}: expected '{expected}', got: {difference}")
    # Each reader notices alone, so that one of them cannot stand in for the other.
    for kept in list(READERS):
        others = {name: READERS.pop(name) for name in list(READERS) if name != kept}
        difference = run_sample(changes["value"][0])
        if difference is None or kept not in difference:
            failures.append(f"{kept} alone: {difference}")
        READERS.update(others)
    for failure in failures:
        print(f"self-test FAILED: {failure}")
    if not failures:
        print(f"self-test: right data agrees, {len(changes)} changes of it are noticed")
    return 1 if failures else 0


def main():
    args = sys.argv[1:]
    if args == ["--self-test"]:
        return self_test()
    if len(args) not in (3, 4):
        print(__doc__, file=sys.stderr)
        return 2
    try:
        print(check(*args))
    except Difference as difference:
        print(f"DIFFERENT: {difference}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
