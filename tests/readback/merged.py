#!/usr/bin/env python3
"""Reads the merged files of topics with engines that nobody here wrote, and compares them, row for row, with what
`tidelog consume` gives.

    merged.py [--s3 ENDPOINT] [--engines NAME,…] TOPIC…
    merged.py --self-test

The store is TIDELOG_STORE, a folder. What each engine reads is what `tidelog files` says: its query where there is one for
the engine, else its JSON. With --s3 the files are copied into the bucket `tidelog` of that endpoint (access key and secret
are `test`) and read from there, by the engines that take an endpoint.

Exits 0 when all agree, 1 with the first difference.
"""

import base64
import collections
import json
import logging
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

# Times in µs; bytes or None; headers ((key, bytes or None), …).
Row = collections.namedtuple("Row", "topic partition offset timestamp append_time timestamp_type key value headers")
COLUMNS = list(Row._fields)
BUCKET, KEYS = "tidelog", "test"


class Difference(Exception):
    """What does not agree, in words."""


def tidelog(*args):
    done = subprocess.run(["tidelog", *args], capture_output=True, text=True)
    if done.returncode != 0:
        raise Difference(f"tidelog {' '.join(args)}: exit {done.returncode}: {done.stderr}")
    return done.stdout


# --- what is to be read -----------------------------------------------------------------------------------------------


class List:
    """A list of `tidelog files`, and the queries over it. With a folder what is not merged yet is in it, too, written anew for
    each query, there under a name that is hard to quote."""

    def __init__(self, topic, *options, folder=None, s3=None):
        self.topic, self.options, self.folder, self.s3 = topic, options, folder, s3
        self.json = json.loads(self.run("json"))
        if s3:
            copy(self.json["files"], s3)
            for file in self.json["files"]:
                file["path"] = f"s3://{BUCKET}{file['path']}"

    def run(self, output):
        prefix = "rest-" if output == "json" else "it's [r]est "
        rest = tempfile.mkdtemp(prefix=prefix, dir=self.folder) if self.folder else None
        return tidelog("files", self.topic, *self.options, *(["--materialize", rest] if rest else []), "--output", output)

    def query(self, engine):
        text = self.run(engine)
        if self.s3:
            for file in self.json["files"]:
                local = file["path"].removeprefix(f"s3://{BUCKET}")
                text = text.replace(local, file["path"])
        return text

    def files(self, prefix="s3://"):
        """(path, None or what of it counts: [(partition, base, end)])."""
        for file in self.json["files"]:
            path = file["path"].replace("s3://", prefix) if self.s3 else file["path"]
            bounds = [(r["partition"], r["base"], r["end"]) for r in file["ranges"]]
            yield path, bounds if file["straddles"] else None


def where(bounds, quote='"'):
    """The bounds of a file, for engines without a query of their own."""
    if bounds is None:
        return "true"
    offset = f"{quote}offset{quote}"
    terms = (f"({quote}partition{quote} = {p} AND {offset} >= {base} AND {offset} < {end})" for p, base, end in bounds)
    return " OR ".join(terms)


def filesystem(endpoint):
    from pyarrow.fs import S3FileSystem

    host = endpoint.removeprefix("http://")
    return S3FileSystem(access_key=KEYS, secret_key=KEYS, endpoint_override=host, scheme="http", region="us-east-1")


def copy(files, endpoint):
    there = filesystem(endpoint)
    for file in files:
        with there.open_output_stream(f"{BUCKET}{file['path']}") as out:
            out.write(pathlib.Path(file["path"]).read_bytes())


# --- the engines: List → rows -----------------------------------------------------------------------------------------


def rows_of(table):
    """Rows of an Arrow table."""
    columns = []
    for name in COLUMNS:
        column = table[name]
        if name in ("timestamp", "append_time"):
            kind = column.type
            if not pa.types.is_timestamp(kind) or kind.unit != "us" or kind.tz not in ("UTC", "+00:00", "Etc/UTC"):
                raise Difference(f"{name} is {kind}, and not microseconds in UTC")
            column = column.cast(pa.int64())
        columns.append(column.to_pylist())
    return [row(*fields) for fields in zip(*columns)]


def row(topic, partition, offset, timestamp, append_time, timestamp_type, key, value, headers):
    if headers is None:
        raise Difference(f"{topic}/{partition} offset {offset}: headers is null; no headers is an empty list")
    pairs = tuple((pair(h, "key", 0), data(pair(h, "value", 1))) for h in headers)
    topic = topic if isinstance(topic, str) else bytes(topic).decode()
    return Row(topic, partition, offset, timestamp, append_time, timestamp_type, data(key), data(value), pairs)


def pair(header, name, place):
    found = header[name] if isinstance(header, dict) else header[place]
    return found.decode() if name == "key" and isinstance(found, bytes) else found


def data(value):
    return None if value is None else bytes(value)


def by_pyarrow(listed):
    where_from = filesystem(listed.s3) if listed.s3 else None
    for path, bounds in listed.files(prefix=""):
        table = pq.read_table(path, filesystem=where_from, partitioning=None)
        if bounds is not None:
            kept = pa.array([False] * table.num_rows)
            for partition, base, end in bounds:
                here = pc.and_(pc.greater_equal(table["offset"], base), pc.less(table["offset"], end))
                kept = pc.or_(kept, pc.and_(here, pc.equal(table["partition"], partition)))
            table = table.filter(kept)
        yield from rows_of(table)


def by_duckdb(listed):
    import duckdb

    columns = 'topic, partition, "offset", epoch_us(timestamp), epoch_us(append_time), timestamp_type, key, value, headers'
    for fields in duckdb.execute(f"SELECT {columns} FROM ({listed.query('duckdb')})").fetchall():
        yield row(*fields)


def by_polars(listed):
    import polars as pl

    query = listed.query("polars")
    if listed.s3:
        options = {
            "aws_endpoint_url": listed.s3,
            "aws_access_key_id": KEYS,
            "aws_secret_access_key": KEYS,
            "aws_region": "us-east-1",
            "aws_allow_http": "true",
        }
        query = query.replace("glob=False,", f"glob=False, storage_options={options!r},")
    named = {}
    exec(query, named)
    times = [pl.col("timestamp").to_physical(), pl.col("append_time").to_physical()]
    for fields in named["frame"].with_columns(times).select(COLUMNS).collect().rows():
        yield row(*fields)


def by_datafusion(listed):
    from datafusion import SessionContext
    from datafusion.object_store import AmazonS3

    context = SessionContext()
    if listed.s3:
        store = AmazonS3(
            BUCKET, region="us-east-1", access_key_id=KEYS, secret_access_key=KEYS, endpoint=listed.s3, allow_http=True
        )
        context.register_object_store("s3://", store, BUCKET)
    columns = ", ".join(f'"{name}"' for name in COLUMNS)
    for number, (path, bounds) in enumerate(listed.files()):
        context.register_parquet(f"t{number}", path)
        found = context.sql(f"SELECT {columns} FROM t{number} WHERE {where(bounds)}").collect()
        if found:
            yield from rows_of(pa.Table.from_batches(found))


def by_clickhouse(listed):
    import chdb

    times = "toUnixTimestamp64Micro(timestamp), toUnixTimestamp64Micro(append_time)"
    names = f"topic, partition, offset, {times}, timestamp_type, key, value, headers"
    for path, bounds in listed.files(prefix=""):
        quoted = path.replace("\\", "\\\\").replace("'", "\\'")
        source = f"file('{quoted}', 'Parquet')"
        if listed.s3:
            source = f"s3('{listed.s3}/{quoted}', '{KEYS}', '{KEYS}', 'Parquet')"
        settings = "SETTINGS output_format_arrow_string_as_string = 0"
        found = chdb.query(f"SELECT {names} FROM {source} WHERE {where(bounds, '`')} {settings}", "Arrow").bytes()
        table = pa.ipc.open_file(found).read_all() if found else None
        for fields in zip(*(column.to_pylist() for column in table.columns)) if table else ():
            yield row(*fields)


def by_pyiceberg(listed):
    from pyiceberg.catalog.sql import SqlCatalog

    with tempfile.TemporaryDirectory() as folder:
        properties = {"uri": f"sqlite:///{folder}/catalog.db", "warehouse": f"file://{folder}"}
        if listed.s3:
            properties |= {
                "warehouse": f"s3://{BUCKET}/warehouse",
                "s3.endpoint": listed.s3,
                "s3.access-key-id": KEYS,
                "s3.secret-access-key": KEYS,
                "s3.region": "us-east-1",
            }
        catalog = SqlCatalog("tidelog", **properties)
        catalog.create_namespace("logs")
        name = f"logs.t{time.monotonic_ns()}"
        table = catalog.create_table(name, schema=iceberg_schema(), properties={"format-version": "2"})
        for number, (path, bounds) in enumerate(listed.files()):
            table.add_files([path])
            found = table.scan().to_arrow()
            # A file at a time, so that its bounds are its own.
            if bounds is not None:
                found = found.filter(bounds_of(bounds))
            yield from rows_of(found)
            table.delete()


def bounds_of(bounds):
    terms = [
        (pc.field("partition") == p) & (pc.field("offset") >= base) & (pc.field("offset") < end) for p, base, end in bounds
    ]
    kept = terms[0]
    for term in terms[1:]:
        kept = kept | term
    return kept


def by_spark(listed):
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.master("local[2]").config("spark.sql.session.timeZone", "UTC")
    spark = builder.config("spark.ui.enabled", "false").config("spark.driver.memory", "2g").getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    named = {"spark": spark}
    exec(listed.query("spark"), named)
    times = ["unix_micros(timestamp)", "unix_micros(append_time)"]
    columns = ["topic", "partition", "`offset`", *times, "timestamp_type", "key", "value", "headers"]
    for fields in named["frame"].selectExpr(*columns).toLocalIterator():
        yield row(*fields[:8], [(h["key"], h["value"]) for h in fields[8]])


TRINO_COLUMNS = (
    'topic varchar, "partition" integer, "offset" bigint, "timestamp" timestamp(6), append_time timestamp(6),'
    " timestamp_type integer, key varbinary, value varbinary, headers array(row(key varchar, value varbinary))"
)


def by_trino(listed):
    """Over a table as `--output athena` makes it, in Trino's words: of its rows those of the list, by file and offset."""
    import trino

    host, port = os.environ["TRINO"].split(":")
    connection = trino.dbapi.connect(host=host, port=int(port), user="readback", catalog="hive", schema="logs")

    def run(sql, attempts=30):
        cursor = connection.cursor()
        try:
            cursor.execute(sql)
            return cursor.fetchall()
        except trino.exceptions.TrinoQueryError as error:
            # It knows itself a little later than it answers.
            if error.error_name != "NO_NODES_AVAILABLE" or attempts == 1:
                raise
            time.sleep(1)
            return run(sql, attempts - 1)

    run("CREATE SCHEMA IF NOT EXISTS hive.logs")
    topics = f"local://{os.path.abspath(os.environ['TIDELOG_STORE'])}/topics/{listed.topic}/{listed.json['topic_id']}"
    projected = f"""
        "date" varchar WITH (
          partition_projection_type = 'date', partition_projection_format = 'yyyy-MM-dd', partition_projection_interval = 1,
          partition_projection_interval_unit = 'DAYS', partition_projection_range = ARRAY['NOW-2DAYS', 'NOW+1DAYS']
        ),
        "hour" integer WITH (
          partition_projection_type = 'integer', partition_projection_range = ARRAY['0', '23'], partition_projection_digits = 2
        )"""
    options = f"""partitioned_by = ARRAY['date', 'hour'], partition_projection_enabled = true,
        partition_projection_location_template = '{topics}/date=${{date}}/hour=${{hour}}/'"""
    wanted = {f"local://{file['path']}": file["ranges"] for file in listed.json["files"]}
    # What is not merged lies in a folder of its own.
    tables = [(topics, f", {projected}", f", {options}")]
    tables += [(folder, "", "") for folder in {path.rsplit("/", 1)[0] for path in wanted if not path.startswith(topics)}]
    time_ms = "date_diff('millisecond', timestamp '1970-01-01 00:00:00', {})"
    times = f"{time_ms.format('timestamp')}, {time_ms.format('append_time')}"
    for folder, more, options in tables:
        name = f"t{time.monotonic_ns()}"
        place = f"format = 'PARQUET', external_location = '{folder}/'"
        run(f"CREATE TABLE {name} ({TRINO_COLUMNS}{more}) WITH ({place}{options})")
        names = f'"$path", topic, partition, "offset", {times}, timestamp_type, key, value, headers'
        for path, topic, partition, offset, said_ms, append_ms, *others in run(f"SELECT {names} FROM {name}"):
            ranges = wanted.get(path, ())
            if any(r["partition"] == partition and r["base"] <= offset < r["end"] for r in ranges):
                yield row(topic, partition, offset, said_ms * 1000, append_ms * 1000, *others)


ENGINES = {
    "DuckDB": by_duckdb,
    "Polars": by_polars,
    "pyarrow": by_pyarrow,
    "DataFusion": by_datafusion,
    "ClickHouse": by_clickhouse,
    "PyIceberg": by_pyiceberg,
}
# DuckDB wants an extension for it.
ENGINES_S3 = [name for name in ENGINES if name != "DuckDB"]
ENGINES_MORE = {"Spark": by_spark, "Trino": by_trino}


# --- what the files are -----------------------------------------------------------------------------------------------

# Name, Parquet's type, its logical type, levels: what Athena and Iceberg v2 read. No INT96, nothing unsigned, no nanoseconds,
# lists of three levels.
TIME = "Timestamp(isAdjustedToUTC=true, timeUnit=microseconds, is_from_converted_type=false, force_set_converted_type=false)"
LEAVES = [
    ("topic", "BYTE_ARRAY", "String", 0, 0),
    ("partition", "INT32", "None", 0, 0),
    ("offset", "INT64", "None", 0, 0),
    ("timestamp", "INT64", TIME, 0, 0),
    ("append_time", "INT64", TIME, 0, 0),
    ("timestamp_type", "INT32", "None", 0, 0),
    ("key", "BYTE_ARRAY", "None", 1, 0),
    ("value", "BYTE_ARRAY", "None", 1, 0),
    ("headers.list.element.key", "BYTE_ARRAY", "String", 1, 1),
    ("headers.list.element.value", "BYTE_ARRAY", "None", 2, 1),
]


def iceberg_schema():
    """The table that Iceberg v2 has of a topic, with the field ids of the files."""
    from pyiceberg import types as t
    from pyiceberg.schema import Schema

    pair = t.StructType(
        t.NestedField(11, "key", t.StringType(), required=True), t.NestedField(12, "value", t.BinaryType(), required=False)
    )
    return Schema(
        t.NestedField(1, "topic", t.StringType(), required=True),
        t.NestedField(2, "partition", t.IntegerType(), required=True),
        t.NestedField(3, "offset", t.LongType(), required=True),
        t.NestedField(4, "timestamp", t.TimestamptzType(), required=True),
        t.NestedField(5, "append_time", t.TimestamptzType(), required=True),
        t.NestedField(6, "timestamp_type", t.IntegerType(), required=True),
        t.NestedField(7, "key", t.BinaryType(), required=False),
        t.NestedField(8, "value", t.BinaryType(), required=False),
        t.NestedField(9, "headers", t.ListType(10, pair, element_required=True), required=True),
    )


def check_schema(path):
    from pyiceberg.io.pyarrow import pyarrow_to_schema

    file = pq.ParquetFile(path)
    found = [file.schema.column(number) for number in range(len(file.schema))]
    leaves = [
        (c.path, c.physical_type, str(c.logical_type), c.max_definition_level, c.max_repetition_level) for c in found
    ]
    if leaves != LEAVES:
        raise Difference(f"{path}: the columns are {leaves}, must be {LEAVES}")
    # By the ids in the file alone.
    if pyarrow_to_schema(file.schema_arrow) != iceberg_schema():
        raise Difference(f"{path}: Iceberg sees {pyarrow_to_schema(file.schema_arrow)}, must be {iceberg_schema()}")


def check_bloom_filter(path, wanted):
    """Whether DuckDB finds by the file's own filter that a row group cannot have a key that nobody wrote."""
    import duckdb

    probe = "SELECT count(*) FROM parquet_bloom_probe(?, 'key', 'nobody wrote it'::BLOB) WHERE bloom_filter_excludes"
    found = duckdb.execute(probe, [path]).fetchone()[0] > 0
    if found != wanted:
        raise Difference(f"{path}: a bloom filter on the key that excludes: {found}, must be {wanted}")


# --- the comparison ---------------------------------------------------------------------------------------------------


def read_bytes(fields, name):
    """`name` as text, or `name_base64` for what is no UTF-8; null or absent is None."""
    if fields.get(name + "_base64") is not None:
        return base64.b64decode(fields[name + "_base64"], validate=True)
    text = fields.get(name)
    return None if text is None else text.encode()


def consumed(topic):
    """{(partition, offset): (topic, time in ms, key, value, headers)}."""
    found = {}
    for line in tidelog("consume", topic, "--until", "end", "--format", "json").split("\n"):
        if not line:
            continue
        fields = json.loads(line)
        headers = tuple((h["key"], read_bytes(h, "value")) for h in fields.get("headers") or [])
        key, value = read_bytes(fields, "key"), read_bytes(fields, "value")
        found[fields["partition"], fields["offset"]] = (fields["topic"], fields["timestamp"], key, value, headers)
    return found


def as_consumed(one):
    """A row as `consume` gives it: under LogAppendTime the time is that of the append."""
    time_us = one.append_time if one.timestamp_type == 1 else one.timestamp
    return (one.topic, time_us // 1000, one.key, one.value, one.headers)


def short(value):
    text = repr(value)
    return text if len(text) <= 300 else f"{text[:300]}… ({len(text)} characters)"


def compare(what, engine, rows, wanted):
    """`rows` are the records `wanted`, each once. Returns what consume does not say: the append times."""
    times = {}
    for one in rows:
        place = (one.partition, one.offset)
        if place in times:
            raise Difference(f"{what}: {engine} reads {place} twice")
        if place not in wanted:
            raise Difference(f"{what}: {engine} reads {place}, which is not in the list")
        if as_consumed(one) != wanted[place]:
            raise Difference(f"{what} {place}: {engine} reads {short(as_consumed(one))}, consume gave {short(wanted[place])}")
        times[place] = (one.append_time, one.timestamp, one.timestamp_type)
    if len(times) != len(wanted):
        missing = next(place for place in wanted if place not in times)
        raise Difference(f"{what}: {engine} reads {len(times)} of {len(wanted)} records; missing {missing}")
    return times


def check(what, listed, engines, wanted):
    """Each engine reads the list; answers {(partition, offset): append time}."""
    times = {}
    for name, read in engines.items():
        began = time.monotonic()
        try:
            found = compare(what, name, read(listed), wanted)
        except Difference:
            raise
        except Exception as error:
            raise Difference(f"{what}: {name} cannot read it: {type(error).__name__}: {error}") from error
        if times and found != times:
            place = next(place for place in found if found[place] != times[place])
            raise Difference(f"{what} {place}: {name} reads the times {found[place]}, others read {times[place]}")
        times = found
        print(f"{what}: {name} reads the {len(found)} records of consume ({time.monotonic() - began:.1f} s)", flush=True)
    return {place: append for place, (append, _, _) in times.items()}


def within(wanted, bounds):
    ends = {bound["partition"]: (bound["base"], bound["end"]) for bound in bounds}
    return {place: one for place, one in wanted.items() if ends[place[0]][0] <= place[1] < ends[place[0]][1]}


def check_topic(topic, engines, s3, folder):
    all_of_it = consumed(topic)
    listed = List(topic, s3=s3)
    merged = {place for f in listed.json["files"] for r in f["ranges"] for place in offsets_of(r)}
    if not listed.json["files"] or not listed.json["rest"]:
        raise Difference(f"{topic} must have files and a rest, or this proves little: {listed.json}")
    bloom = "parquet.bloom.filter.key" in json.loads(tidelog("topic", "describe", topic, "--output", "json"))["config"]
    if s3:
        check(f"{topic} on S3", listed, engines, {place: all_of_it[place] for place in all_of_it if place in merged})
        return
    for file in listed.json["files"]:
        check_bloom_filter(file["path"], bloom)
    # With what is not merged yet.
    whole = List(topic, folder=folder)
    for file in whole.json["files"]:
        check_schema(file["path"])
    times = check(topic, whole, engines, all_of_it)
    # As of offsets in the middle of files, and of a partition that is left out, where there are several.
    bounds = listed.json["bounds"]
    half = {p["partition"]: (p["base"] + 2 * p["end"]) // 3 for p in bounds[:-1] or bounds}
    as_of = ",".join(f"{partition}:{offset}" for partition, offset in half.items())
    wanted = {place: one for place, one in all_of_it.items() if place[1] < half.get(place[0], 0) and place in merged}
    check(f"{topic} as of {as_of}", List(topic, "--as-of", as_of), engines, wanted)
    # As of each time at which something was appended, or a dozen of them.
    appends = sorted(set(times.values()))
    if topic == "dripped" and len(appends) < 100:
        raise Difference(f"{topic} must have been appended bit by bit, or this proves little: {len(appends)} appends")
    for append_us in appends[:: 1 + len(appends) // 12]:
        as_of = time_of(append_us)
        listed = List(topic, "--as-of", as_of)
        wanted = {place: one for place, one in all_of_it.items() if times[place] <= append_us and place in merged}
        few = {name: engines[name] for name in list(engines)[:1]}
        check(f"{topic} as of {as_of}", listed, few, wanted)


def offsets_of(bounds):
    return ((bounds["partition"], offset) for offset in range(bounds["base"], bounds["end"]))


def time_of(us):
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(us // 1_000_000))
    return f"{whole}.{us % 1_000_000:06}Z"


def self_test():
    """Right rows agree, and each change of them is noticed."""
    rows = [
        Row("t", 0, 5, 1_000, 9_000, 0, None, b"", (("h", None), ("h", b""))),
        Row("t", 0, 6, 1_000, 9_000, 1, b"", None, ()),
        Row("t", 1, 0, 253402300799999999, 9_000, 0, b"k", b"v", ()),
    ]
    wanted = {(one.partition, one.offset): as_consumed(one) for one in rows}
    changes = {
        "nothing": (rows, None),
        "a row is missing": (rows[:2], "2 of 3"),
        "a row comes twice": (rows + rows[:1], "(0, 5) twice"),
        "another row": (rows + [rows[0]._replace(offset=7)], "(0, 7), which is not"),
        "null for empty": ([rows[0]._replace(value=None), *rows[1:]], "t (0, 5)"),
        "a header's null": ([rows[0]._replace(headers=(("h", b""), ("h", b""))), *rows[1:]], "t (0, 5)"),
        "the time of the append": ([rows[0], rows[1]._replace(append_time=8_000), rows[2]], "t (0, 6)"),
        "the type of time": ([rows[0]._replace(timestamp_type=1), *rows[1:]], "t (0, 5)"),
        "a millisecond": ([*rows[:2], rows[2]._replace(timestamp=253402300799998999)], "t (1, 0)"),
    }
    for name, (changed, expected) in changes.items():
        try:
            compare("t", "self-test", changed, wanted)
            found = None
        except Difference as difference:
            found = str(difference)
        if (found is None) != (expected is None) or (expected and expected not in found):
            raise Difference(f"self-test: {name}: expected {expected}, got {found}")
    print(f"self-test: right rows agree, {len(changes) - 1} changes of them are noticed")


def main():
    # It says of each column that has no statistics that it has none.
    logging.getLogger("pyiceberg").setLevel(logging.ERROR)
    args = sys.argv[1:]
    s3, engines = None, dict(ENGINES)
    while args[0].startswith("--"):
        match args.pop(0):
            case "--self-test":
                return self_test()
            case "--s3":
                s3 = args.pop(0)
            case "--engines":
                engines = {name: (ENGINES | ENGINES_MORE)[name] for name in args.pop(0).split(",")}
    if s3:
        engines = {name: read for name, read in engines.items() if name in ENGINES_S3}
    for topic in args:
        with tempfile.TemporaryDirectory() as folder:
            check_topic(topic, engines, s3, folder)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Difference as difference:
        sys.exit(f"DIFFERENT: {difference}")
