"""Ships lines into the deployed stack with software that nobody here wrote, and reads back exactly those: through the fetch
function, the command line on the same store, and DuckDB and pyarrow on the bucket's Parquet.

    check.py TIDELOG STATE LOG      the binary; what `just localstack up --output json` printed; where LocalStack logs
"""

import base64
import collections
import concurrent.futures
import gzip
import http.client
import json
import logging
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request

import boto3
import duckdb
import pyarrow.parquet as pq
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.resources import Resource
from pyarrow.fs import S3FileSystem

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
TIDELOG, STATE, LOG = sys.argv[1], json.loads(sys.argv[2]), pathlib.Path(sys.argv[3])
INGEST, FETCH, STORE = STATE["ingest_url"], STATE["fetch_url"], STATE["store"]
ENDPOINT = urllib.parse.parse_qs(urllib.parse.urlparse(STORE).query)["endpoint"][0]
BUCKET = urllib.parse.urlparse(STORE).netloc
LINES = (HERE / "lines.log").read_text().splitlines()

for name in [name for name in os.environ if name.startswith("AWS_")]:
    del os.environ[name]
os.environ |= {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
# Names that end with .localhost are known to curl alone; everybody else asks LocalStack itself.
os.environ |= {"HTTP_PROXY": ENDPOINT, "http_proxy": ENDPOINT, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}


def check(what, got, wanted):
    if got != wanted:
        sys.exit(f"FAILED {what}: {str(got)[:500]} is not {str(wanted)[:500]}")
    print(f"ok: {what}", flush=True)


def ask(url, body=None, headers=()):
    """Status, headers and body of one request to a Function URL."""
    host = urllib.parse.urlparse(url).netloc
    connection = http.client.HTTPConnection(urllib.parse.urlparse(ENDPOINT).netloc, timeout=120)
    path = url.split(host, 1)[1]
    connection.request("POST" if body is not None else "GET", path, body, {"host": host, **dict(headers)})
    answer = connection.getresponse()
    return answer.status, answer.headers, answer.read()


def post(topic, body, **headers):
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    status, _, answer = ask(f"{INGEST}/v1/topics/{topic}/records", body, {"content-type": "text/plain", **named})
    return status, json.loads(answer)


def tidelog(*args):
    done = subprocess.run([TIDELOG, "--store", STORE, *args], capture_output=True, check=False)
    if done.returncode:
        sys.exit(f"FAILED tidelog {args}: {done.stderr.decode()}")
    return done.stdout


def fetched(topic):
    """Every record, through the function: partition → values."""
    found = collections.defaultdict(list)
    for partition in json.loads(ask(f"{FETCH}/v1/topics/{topic}")[2])["partitions"]:
        number, offset = partition["partition"], partition["log_start"]
        while offset < partition["high_watermark"]:
            path = f"/v1/topics/{topic}/partitions/{number}/records?from={offset}&max_records=500"
            page = json.loads(ask(FETCH + path)[2])
            assert [record["offset"] for record in page["records"]] == list(range(offset, page["next_offset"]))
            found[number] += [value(record) for record in page["records"]]
            offset = page["next_offset"]
    return found


def value(record):
    return base64.b64decode(record["value_base64"]).decode() if "value_base64" in record else record["value"]


def consumed(topic):
    """Every record, by the command line: partition → values."""
    found = collections.defaultdict(list)
    for line in tidelog("consume", topic, "--until", "end", "--format", "json").splitlines():
        record = json.loads(line)
        found[record["partition"]].append(value(record))
    return found


def places(answer):
    return [(record["partition"], record["offset"]) for record in answer["records"]]


def both_read(what, topic, wanted):
    """Both ways of reading give exactly these values, in any order over all partitions."""
    found = fetched(topic)
    check(f"{what}: the function reads what was shipped", sorted(sum(found.values(), [])), sorted(wanted))
    check(f"{what}: the command line reads the same, in the same order", consumed(topic), found)


def run_until(topic, count, command, environment, said):
    """Runs a shipper until the topic has as many records."""
    with open(said, "wb") as out:
        process = subprocess.Popen(command, env=environment, stdout=out, stderr=out)
    try:
        for _ in range(600):
            status, _, answer = ask(f"{FETCH}/v1/topics/{topic}")
            partitions = json.loads(answer)["partitions"] if status == 200 else []
            if sum(partition["high_watermark"] for partition in partitions) >= count:
                return
            if process.poll() is not None:
                sys.exit(f"FAILED {command[0]} ended: {said.read_text()}")
            time.sleep(0.1)
        sys.exit(f"FAILED {command[0]}: {partitions} are not {count} records after a minute: {said.read_text()[-2000:]}")
    finally:
        process.terminate()
        process.wait()


def curl():
    body = "\n".join(LINES * 25)
    command = ["curl", "-sS", "-w", " %{http_code}", "-H", "content-type: text/plain", "-H", "idempotency-key: one"]
    command += ["-H", "expect:", "--data-binary", "@-", f"{INGEST}/v1/topics/curl/records"]
    answers = [
        subprocess.run(command, input=body, check=True, capture_output=True, text=True).stdout for _ in range(2)
    ]
    check("curl: status", [answer.rsplit(" ", 1)[1] for answer in answers], ["200", "200"])
    first, second = (places(json.loads(answer.rsplit(" ", 1)[0])) for answer in answers)
    check("curl: the same event again gets the same places", second, first)
    both_read("curl", "curl", LINES * 25)


def opentelemetry_python():
    provider = LoggerProvider(resource=Resource.create({"service.name": "shop-py"}))
    exporter = OTLPLogExporter(endpoint=f"{INGEST}/v1/logs", compression=Compression.Gzip)
    provider.add_log_record_processor(BatchLogRecordProcessor(exporter))
    logger = logging.getLogger("tidelog-test")
    logger.addHandler(LoggingHandler(logger_provider=provider))
    logger.setLevel(logging.INFO)
    logger.propagate = False
    for number in range(400):
        logger.info("order %d", number)
    provider.shutdown()
    check_otlp("OpenTelemetry for Python (protobuf, gzip)", "otlp", 400)


def opentelemetry_javascript():
    modules = ROOT / ".emu/oteljs/node_modules"
    environment = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    command = ["node", str(HERE / "ship.js"), INGEST, "oteljs", "400"]
    # `require` looks beside the script; the packages lie elsewhere.
    subprocess.run(command, check=True, env={**environment, "NODE_PATH": str(modules)})
    check_otlp("OpenTelemetry for JavaScript (JSON, chunked)", "oteljs", 400)


def check_otlp(what, topic, count):
    found = fetched(topic)
    check(f"{what}: one service, one partition", len(found), 1)
    bodies = [log_record(one)["body"]["stringValue"] for one in next(iter(found.values()))]
    check(f"{what}: every log record once, in order", bodies, [f"order {number}" for number in range(count)])
    check(f"{what}: the command line reads the same", consumed(topic), found)


def log_record(document):
    return json.loads(document)["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0]


def syslog_ng():
    root = ROOT / ".emu/syslogng/root/usr"
    library = root / "lib/syslog-ng"
    wanted = [f"{number} {line}" for number, line in enumerate(LINES * 40)]
    with tempfile.TemporaryDirectory() as folder:
        place = pathlib.Path(folder)
        (place / "in.log").write_text("\n".join(wanted) + "\n")
        (place / "syslog-ng.conf").write_text(f"""@version: 3.38
options {{ stats-freq(0); }};
source lines {{ file("{place}/in.log" flags(no-parse) follow-freq(0.1)); }};
destination tidelog {{ http(
  url("{INGEST}/v1/topics/syslog/records?as=records")
  method("POST") headers("content-type: application/json")
  batch-lines(50) batch-timeout(200) workers(1)
  body-prefix("[") delimiter(",") body-suffix("]") body('$(format-json value=$MESSAGE)')); }};
log {{ source(lines); destination(tidelog); }};
""")
        libraries = [library, root / "lib/x86_64-linux-gnu", root.parent / "lib/x86_64-linux-gnu"]
        environment = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
        environment["LD_LIBRARY_PATH"] = ":".join(map(str, libraries))
        files = [f"--{name}={place}/{name}" for name in ("persist-file", "pidfile", "control")]
        module_path = f"--module-path={next(library.glob('3.*'))}"
        command = [str(root / "sbin/syslog-ng"), "-F", "--no-caps", module_path, "-f", f"{place}/syslog-ng.conf", *files]
        run_until("syslog", len(wanted), command, environment, place / "said")
    both_read("syslog-ng", "syslog", wanted)


def collector():
    """The OpenTelemetry Collector tails a file: protobuf and gzip, as it is without settings."""
    wanted = [f"{number} {line}" for number, line in enumerate(LINES * 40)]
    with tempfile.TemporaryDirectory() as folder:
        place = pathlib.Path(folder)
        (place / "in.log").write_text("\n".join(wanted) + "\n")
        (place / "otelcol.yaml").write_text(f"""
receivers: {{file_log: {{include: ["{place}/in.log"], start_at: beginning}}}}
processors: {{batch: {{timeout: 200ms, send_batch_size: 100}}}}
exporters:
  otlp_http: {{logs_endpoint: "{INGEST}/v1/logs", headers: {{x-tidelog-topic: collector}}}}
service:
  telemetry: {{metrics: {{level: none}}}}
  pipelines: {{logs: {{receivers: [file_log], processors: [batch], exporters: [otlp_http]}}}}
""")
        command = [str(ROOT / ".emu/otelcol/bin/otelcol"), f"--config=file:{place}/otelcol.yaml"]
        run_until("collector", len(wanted), command, os.environ, place / "said")
    found = fetched("collector")
    bodies = [log_record(one)["body"]["stringValue"] for one in sum(found.values(), [])]
    check("OpenTelemetry Collector: every line once", sorted(bodies), sorted(wanted))
    check("OpenTelemetry Collector: the command line reads the same", consumed("collector"), found)


def telegraf():
    """Telegraf tails a file: JSON, gzip and chunked."""
    wanted = [f"{number} {line}" for number, line in enumerate(LINES * 40)]
    with tempfile.TemporaryDirectory() as folder:
        place = pathlib.Path(folder)
        (place / "in.log").write_text("\n".join(wanted) + "\n")
        (place / "telegraf.conf").write_text(f"""
[agent]
  flush_interval = "200ms"
  metric_batch_size = 100
[[inputs.tail]]
  files = ["{place}/in.log"]
  initial_read_offset = "beginning"
  data_format = "value"
  data_type = "string"
[[outputs.http]]
  url = "{INGEST}/v1/topics/telegraf/records?timestamp_pointer=/timestamp"
  use_system_proxy = true
  content_encoding = "gzip"
  data_format = "json"
  json_timestamp_units = "1ms"
  json_transformation = "metrics[]"
  [outputs.http.headers]
    content-type = "application/json"
""")
        command = [str(ROOT / ".emu/telegraf/bin/telegraf"), "--config", f"{place}/telegraf.conf"]
        run_until("telegraf", len(wanted), command, os.environ, place / "said")
    found = fetched("telegraf")
    lines = [json.loads(one)["fields"]["value"] for one in sum(found.values(), [])]
    check("Telegraf (JSON, gzip, chunked): every line once", sorted(lines), sorted(wanted))
    check("Telegraf: the command line reads the same", consumed("telegraf"), found)


def many_at_once():
    """64 invocations at once, each event delivered twice: each line once."""
    events = {f"event-{number}": [f"{number} {line}" for line in LINES] for number in range(64)}

    def deliver(key):
        answers = []
        while len(answers) < 2:
            status, answer = post("many", "\n".join(events[key]).encode(), idempotency_key=key)
            # Busy is an answer, too: the same again, under the same key.
            assert status in (200, 429, 503), (status, answer)
            answers += [places(answer)] if status == 200 else []
        return answers

    with concurrent.futures.ThreadPoolExecutor(64) as pool:
        answers = list(pool.map(deliver, events))
    check("64 at once: the second delivery gets the places of the first", *zip(*answers))
    both_read("64 at once, twice", "many", sum(events.values(), []))


def parquet():
    """The bucket's objects by two readers of Parquet, at the row ranges that the slices name."""
    tidelog("topic", "create", "columns", "--partitions", "2", "--config", "inline.bytes.max=0")
    for number in range(5):
        lines = [f"{number}-{i} {line}" for i, line in enumerate(LINES)]
        check("a segment a request", post("columns", "\n".join(lines).encode())[0], 200)
    s3 = boto3.client("s3", endpoint_url=ENDPOINT)
    with tempfile.TemporaryDirectory() as folder:
        place, prefix = pathlib.Path(folder), "log/"
        for found in s3.list_objects_v2(Bucket=BUCKET, Prefix=prefix + "l0/")["Contents"]:
            file = place / found["Key"].removeprefix(prefix)
            file.parent.mkdir(parents=True, exist_ok=True)
            s3.download_file(BUCKET, found["Key"], str(file))
        (place / "slices.json").write_bytes(tidelog("inspect", "partition", "columns", "--output", "json"))
        (place / "consumed.json").write_bytes(tidelog("consume", "columns", "--until", "end", "--format", "json"))
        command = [sys.executable, ROOT / "tests/readback/readback.py", place, place / "slices.json", place / "consumed.json"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        check("DuckDB and pyarrow read the bucket as consume does", (done.returncode, done.stderr), (0, ""))
    both_read("segments", "columns", [f"{n}-{i} {line}" for n in range(5) for i, line in enumerate(LINES)])
    check("verify", json.loads(tidelog("verify", "--output", "json"))["damage"], [])


# Dollars of a million requests of the least size (us-east-1, on demand, September 2026). Listings are not here: the check lists, too.
DOLLARS = {
    "s3.PutObject": 5, "s3.GetObject": 0.4, "s3.HeadObject": 0.4,
    "dynamodb.PutItem": 0.625, "dynamodb.Query": 0.125, "dynamodb.GetItem": 0.125,
}


def requests_since(place):
    """What LocalStack was asked since its log was so long, by what it costs."""
    with LOG.open("rb") as log:
        log.seek(place)
        asked = re.findall(rb"AWS (\w+\.\w+) => ", log.read())
    return collections.Counter(name.decode() for name in asked if name.decode() in DOLLARS)


def tell(what, asked, records):
    dollars = sum(DOLLARS[name] * count for name, count in asked.items()) / 1e6
    counts = ", ".join(f"{count} {name}" for name, count in sorted(asked.items()))
    print(f"requests: {what}: {counts}: at least ${dollars:.6f} for {records} records", flush=True)


def upkeep():
    """The table's stream wakes upkeep, which merges; DuckDB reads what it made, as consume does; then retention and sweep."""
    lambdas, s3 = (boto3.client(name, endpoint_url=ENDPOINT) for name in ("lambda", "s3"))
    function = next(f["FunctionName"] for f in lambdas.list_functions()["Functions"] if "Upkeep" in f["FunctionName"])
    # One process, or a run that meets the stream's would be the first of a second.
    lambdas.put_function_concurrency(FunctionName=function, ReservedConcurrentExecutions=1)

    def merged():
        return [found["Key"] for found in s3.list_objects_v2(Bucket=BUCKET, Prefix="log/topics/merged/").get("Contents", [])]

    tidelog("topic", "create", "merged", "--partitions", "2", "--config", "merge.max.age.ms=1000")
    before = LOG.stat().st_size
    for number in range(5):
        check("a request", post("merged", "\n".join(f"{number}-{i} {line}" for i, line in enumerate(LINES)).encode())[0], 200)
    until = time.monotonic() + 90
    while not merged() and time.monotonic() < until:
        time.sleep(1)
    check("the stream wakes upkeep, which merges", bool(merged()), True)

    def run(**event):
        event = {"source": "aws.events", "detail-type": "Scheduled Event"} | event
        answer = lambdas.invoke(FunctionName=function, Payload=json.dumps(event))
        done = json.loads(answer["Payload"].read())
        check("a scheduled run", (answer.get("FunctionError"), done["more"], done["damage"]), (None, False, 0))
        return done

    # What came after the stream's event is a second old by now, too.
    time.sleep(1.2)
    swept = run()["swept"]
    check("the first of a process sweeps what was let go", (swept["whole"], swept["objects"]), (False, 0))
    asked = requests_since(before)
    tell("five requests, merged by the stream and by a scheduled run", asked, 5 * len(LINES))
    # The five ride inside their commits. A merged segment at least; fold, row and `Indexed` of it.
    check("no less than ingest and merge are", (asked["s3.PutObject"] >= 1, asked["dynamodb.PutItem"] >= 8), (True, True))
    consumed_ = [json.loads(line) for line in tidelog("consume", "merged", "--until", "end", "--format", "json").splitlines()]
    with tempfile.TemporaryDirectory() as folder:
        for number, key in enumerate(merged()):
            s3.download_file(BUCKET, key, f"{folder}/{number}.parquet")
        rows = duckdb.sql(f"""SELECT partition, "offset", decode(value) FROM '{folder}/*.parquet' ORDER BY 1, 2""").fetchall()
    wanted = sorted((record["partition"], record["offset"], record["value"]) for record in consumed_)
    check("DuckDB over topics/ reads what consume does", rows, wanted)
    check("all of it is merged", len(rows), 5 * len(LINES))
    listed = json.loads(tidelog("files", "merged", "--output", "json"))
    check("`tidelog files` leaves no rest", listed["rest"], [])
    bucket = S3FileSystem(
        access_key="test", secret_key="test", endpoint_override=urllib.parse.urlparse(ENDPOINT).netloc, scheme="http", region="us-east-1"
    )
    read = [pq.read_table(file["path"].removeprefix("s3://"), filesystem=bucket, partitioning=None) for file in listed["files"]]
    named = [row for table in read for row in zip(*(table[name].to_pylist() for name in ("partition", "offset", "value")))]
    check(
        "pyarrow reads the s3:// paths that `tidelog files` names",
        sorted((partition, offset, value.decode()) for partition, offset, value in named), wanted,
    )
    # Retention by time: what is two seconds old goes, and nothing else.
    tidelog("topic", "create", "aged", "--partitions", "1", "--config", "retention.ms=2000")
    check("a request", post("aged", "\n".join(LINES).encode())[0], 200)
    time.sleep(2.2)
    done = run()
    check("the next one of a quarter of an hour does not sweep, but trims", (done["swept"], done["trimmed"]), (None, 1))
    check("retention by time leaves nothing of it", consumed("aged"), {})
    check("and all of what has none", sum(map(len, consumed("merged").values())), len(rows))
    check("a request after it", post("aged", b"young")[0], 200)
    check("is read", sum(fetched("aged").values(), []), ["young"])
    tidelog("topic", "delete-records", "merged", "--before", "end")
    check("nor does the one after that", run()["swept"], None)

    # What was let go today stays until it is an hour old; a checkpoint goes once there are two newer ones.
    def checkpoints():
        return {found["Key"] for found in s3.list_objects_v2(Bucket=BUCKET, Prefix="log/ckpt/").get("Contents", [])}

    until, gone = time.monotonic() + 120, set()
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        while not gone and time.monotonic() < until:
            # They ride inside their commits; half a mebibyte of those is a checkpoint's worth.
            answers = pool.map(lambda n: post("merged", f"{n} {'x' * 3_800}".encode()), range(150))
            check("requests of 3.8 kB", {status for status, _ in answers}, {200})
            run()
            before = checkpoints()
            swept = run(sweep="whole")["swept"]
            gone = before - checkpoints()
            check("a sweep of all there is deletes what it says", (swept["whole"], swept["objects"]), (True, len(gone)))
    # Two may be made at once, of which one is named: those that are left may be more than two.
    left = sorted(checkpoints())
    check("the oldest checkpoints", (bool(gone), len(left) >= 2 and max(gone) < left[0]), (True, True))
    check("verify", json.loads(tidelog("verify", "--output", "json"))["damage"], [])


def gaps():
    """Where LocalStack differs from AWS, each as localstack/GAPS.md says. One that is gone there must go there, too."""
    status, _ = post("curl", b"unsigned", idempotency_key="gap")
    check("gap: a request without a signature is let through", status, 200)
    packed = gzip.compress(b"packed line")
    status, answer = post("gaps", packed, content_encoding="gzip")
    check("gap: a gzip body comes unpacked, and is taken", (status, sum(fetched("gaps").values(), [])), (200, ["packed line"]))
    s3 = boto3.client("s3", endpoint_url=ENDPOINT)
    key = "log/l0/0000/0000/0000000000000000/gap"
    for _ in range(2):
        s3.put_object(Bucket=BUCKET, Key=key, Body=b"over and over")
    s3.delete_object(Bucket=BUCKET, Key=key)
    check("gap: the bucket's policy is kept, and not held", bool(s3.get_bucket_policy(Bucket=BUCKET)["Policy"]), True)
    large = b"x" * (5 << 20) + b"\n" + b"y" * (2 << 20)
    status, _, _ = ask(f"{INGEST}/v1/topics/curl/records", large, {"content-type": "text/plain"})
    check("an event above 6 MiB is refused before the function, by our executor: 502 where AWS says 413", status, 502)


SHIPPERS = [curl, opentelemetry_python, opentelemetry_javascript, syslog_ng]
if os.environ.get("TIDELOG_SHIPPERS") == "all":
    SHIPPERS += [collector, telegraf]
for part in (*SHIPPERS, many_at_once, parquet, upkeep, gaps):
    part()
