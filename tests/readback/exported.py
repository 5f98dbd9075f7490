#!/usr/bin/env python3
"""Opens what `tidelog export` wrote with DuckDB, and Parquet with pyarrow, too, and compares it, row for row, with what
`tidelog consume` gave.

    exported.py FILE CONSUMED
"""

import base64
import json
import sys

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from readback import Difference, consumed_by_partition, record, short


def parquet_by_duckdb(path):
    query = "SELECT topic, partition, epoch_us(timestamp), key, value, headers, \"offset\" FROM read_parquet(?)"
    return [(record(*row[:6]), row[6]) for row in duckdb.execute(query, [path]).fetchall()]


def parquet_by_pyarrow(path):
    table = pq.ParquetFile(path).read()
    names = ("topic", "partition", "timestamp", "key", "value", "headers", "offset")
    columns = [(table[n].cast(pa.int64()) if n == "timestamp" else table[n]).to_pylist() for n in names]
    return [(record(*row[:6]), row[6]) for row in zip(*columns)]


def text_or_bytes(text, encoded):
    if encoded:
        return base64.b64decode(encoded, validate=True)
    return None if text is None else text.encode()


def from_csv(row):
    """A line of the CSV file; the times are compared by the microseconds that DuckDB made of them."""
    partition, offset, micros, key, key_base64, value, value_base64, headers = row
    pairs = [{"key": h["key"], "value": header_value(h)} for h in json.loads(headers)]
    key, value = text_or_bytes(key, key_base64), text_or_bytes(value, value_base64)
    return record(None, partition, micros, key, value, pairs), offset


def header_value(header):
    return text_or_bytes(header.get("value"), header.get("value_base64"))


def csv_by_duckdb(path):
    # Lines of a mebibyte; and a text in quotes is never null, not even the empty one.
    options = "header = true, quote = '\"', escape = '\"', max_line_size = 8388608, strict_mode = true, allow_quoted_nulls = false"
    columns = (
        "{partition: 'INTEGER', \"offset\": 'BIGINT', timestamp: 'TIMESTAMPTZ', key: 'VARCHAR', key_base64: 'VARCHAR',"
        " value: 'VARCHAR', value_base64: 'VARCHAR', headers: 'VARCHAR'}"
    )
    query = (
        "SELECT partition, \"offset\", epoch_us(timestamp), key, key_base64, value, value_base64, headers"
        f" FROM read_csv(?, {options}, columns = {columns}) ORDER BY partition, \"offset\""
    )
    return [from_csv(row) for row in duckdb.execute(query, [path]).fetchall()]


READERS = {
    "parquet": {"DuckDB": parquet_by_duckdb, "pyarrow": parquet_by_pyarrow},
    "csv": {"DuckDB": csv_by_duckdb},
}


def main(path, consumed):
    wanted = [
        (record, offset) for _, offsets in sorted(consumed_by_partition(consumed).items()) for offset, record in offsets.items()
    ]
    form = path.rsplit(".", 1)[1]
    for reader, read in READERS[form].items():
        found = read(path)
        if len(found) != len(wanted):
            raise Difference(f"{path}: {reader} reads {len(found)} rows, consume gave {len(wanted)}")
        for (got, at), (want, offset) in zip(found, wanted):
            # A CSV file is of one topic, and does not name it.
            got = got._replace(topic=want.topic) if form == "csv" else got
            if (got, at) != (want, offset):
                raise Difference(f"{path}: {reader} reads {short((got, at))}, consume gave {short((want, offset))}")
        print(f"{path.rsplit('/', 1)[1]}: {reader} reads the {len(found)} records of consume")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except Difference as difference:
        sys.exit(f"FAILED: {difference}")
