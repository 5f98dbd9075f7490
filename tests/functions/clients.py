"""Clients that nobody here wrote, against a running server: the OpenTelemetry SDK, http.client (chunked, gzip), curl, pyarrow.

What was sent is read back record by record, and compared.
"""

import gzip
import http.client
import io
import json
import logging
import subprocess
import sys
import urllib.parse
import urllib.request

import pyarrow.ipc
import pyarrow.parquet
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.resources import Resource

url = sys.argv[1]


def ask(path, accept="application/json"):
    request = urllib.request.Request(url + path, headers={"accept": accept})
    with urllib.request.urlopen(request) as answer:
        return answer.headers, answer.read()


def records(topic):
    found = []
    for partition in json.loads(ask(f"/v1/topics/{topic}")[1])["partitions"]:
        offset = partition["log_start"]
        while offset < partition["high_watermark"]:
            path = f"/v1/topics/{topic}/partitions/{partition['partition']}/records?from={offset}&max_records=300"
            body = json.loads(ask(path)[1])
            found += body["records"]
            offset = body["next_offset"]
    return found


def check(what, got, wanted):
    assert got == wanted, f"{what}: {got!r} is not {wanted!r}"
    print(f"ok: {what}")


def otlp():
    for packed in (Compression.Gzip, Compression.Deflate, Compression.NoCompression):
        provider = LoggerProvider(resource=Resource.create({"service.name": f"shop-{packed.value}", "n": 7}))
        exporter = OTLPLogExporter(endpoint=f"{url}/v1/logs", compression=packed)
        provider.add_log_record_processor(BatchLogRecordProcessor(exporter))
        logger = logging.getLogger(packed.value)
        logger.addHandler(LoggingHandler(logger_provider=provider))
        logger.setLevel(logging.INFO)
        logger.propagate = False
        for number in range(1_000):
            logger.info("order %d", number, extra={"order": number})
        provider.shutdown()
    found = records("otlp")
    for packed in ("gzip", "deflate", "none"):
        mine = [json.loads(record["value"]) for record in found if record["key"] == f"shop-{packed}"]
        logs = [value["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0] for value in mine]
        bodies = [log["body"]["stringValue"] for log in logs]
        check(f"OpenTelemetry SDK, {packed}: every log record once, in order", bodies, [f"order {n}" for n in range(1_000)])
        attributes = {one["key"]: one["value"] for one in logs[5]["attributes"]}
        check("64-bit numbers are strings", attributes["order"], {"intValue": "5"})


def chunked():
    lines = [f"line {number} ü" for number in range(5_000)]
    body = gzip.compress("\n".join(lines).encode())
    pieces = (body[at : at + 1_000] for at in range(0, len(body), 1_000))
    connection = http.client.HTTPConnection(urllib.parse.urlparse(url).netloc)
    headers = {"content-type": "text/plain", "content-encoding": "gzip", "x-tidelog-partition": "1"}
    connection.request("POST", "/v1/topics/chunked/records", pieces, headers, encode_chunked=True)
    answer = connection.getresponse()
    places = json.loads(answer.read())["records"]
    check("chunked and packed: status", answer.status, 200)
    check("offsets are dense", [place["offset"] for place in places], list(range(5_000)))
    check("every line once, in order", [record["value"] for record in records("chunked")], lines)


def curl():
    command = ["curl", "-sS", "-w", " %{http_code}", "-H", "content-type: application/json", "-H", "idempotency-key: one"]
    command += ["--data-binary", '[{"id":"a","n":1},{"id":"b","n":2}]', f"{url}/v1/topics/curl/records?key_pointer=/id"]
    for _ in range(3):
        answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        check("curl", answer.rsplit(" ", 1)[1], "200")
    found = sorted((record["key"], record["value"]) for record in records("curl"))
    check("three times under one key is once", found, [("a", '{"id":"a","n":1}'), ("b", '{"id":"b","n":2}')])


def columns():
    path = "/v1/topics/chunked/partitions/1/records?from=10&max_records=100"
    headers, body = ask(path, "application/vnd.apache.arrow.stream")
    arrow = pyarrow.ipc.open_stream(body).read_all()
    parquet = pyarrow.parquet.read_table(io.BytesIO(ask(path, "application/vnd.apache.parquet")[1]))
    check("next offset", headers["x-tidelog-next-offset"], "110")
    check("Arrow and Parquet hold the same", arrow.to_pylist(), parquet.to_pylist())
    check("values", arrow["value"].to_pylist()[:2], ["line 10 ü".encode(), "line 11 ü".encode()])
    check("offsets", arrow["offset"].to_pylist(), list(range(10, 110)))


for part in (otlp, chunked, curl, columns):
    part()
