#!/usr/bin/env bash
# Writes a store from odd records and from plain lines. DuckDB and pyarrow read its segments back, and what `tidelog export`
# makes of them; then, when upkeep has merged a part, DuckDB, Polars, pyarrow, DataFusion, ClickHouse and PyIceberg read what
# `tidelog files` lists, from the folder and from S3, and DuckDB runs docs/COOKBOOK.md.
#
#   run.sh          that
#   run.sh Spark    Spark alone reads what `tidelog files` lists
#   run.sh Trino    Trino alone, Athena's engine, over tables as Athena has them
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
alone=${1:-}
if [[ $alone ]]; then
  [[ $alone != Spark ]] || "$here/../need" java openjdk-17-jre-headless
  python=$("$here/../venv" "$here/nightly/requirements.txt")
else
  python=$("$here/../venv" "$here/requirements.txt")
  "$python" "$here/readback.py" --self-test
fi
"$python" "$here/merged.py" --self-test

PATH=$("$here/../bin"):$PATH
work=$(mktemp -d)
server=
trap '[[ -n $server ]] && kill "$server"; rm -rf "$work"' EXIT
export TIDELOG_STORE=$work/store

"$python" "$here/records.py" "$work"
tidelog init
tidelog topic create odd --partitions 3 --config merge.max.age.ms=86400000
tidelog topic create plain --partitions 2 --config merge.max.age.ms=86400000
# Two runs of `odd`, so that it has slices in more than one segment.
tidelog produce odd --format ndjson --inline-bytes-max 0 "$work/odd-1.ndjson"
tidelog produce odd --format ndjson --inline-bytes-max 0 --compression none "$work/odd-2.ndjson"
tidelog produce plain --format lines --inline-bytes-max 0 "$work/lines.txt"

for topic in odd plain; do
  [[ ! $alone ]] || break
  tidelog inspect partition "$topic" --output json >"$work/inspect.json"
  tidelog consume "$topic" --from start --until end --format json >"$work/consumed.ndjson"
  case $topic in odd) produced=odd.ndjson ;; plain) produced=lines.ndjson ;; esac
  "$python" "$here/readback.py" "$TIDELOG_STORE" "$work/inspect.json" "$work/consumed.ndjson" "$work/$produced"
  for form in parquet csv; do
    tidelog export "$topic" --to "$work/$topic.$form"
    "$python" "$here/exported.py" "$work/$topic.$form" "$work/consumed.ndjson"
  done
done

# Merged twice, trimmed within a merged file, and a rest that is not merged.
tidelog topic create stamped --partitions 2 --config message.timestamp.type=LogAppendTime --config parquet.bloom.filter.key=true
tidelog produce stamped --format ndjson "$work/odd-1.ndjson"
# A record or a few each append: what such records share comes in runs that are too short for a run of their own.
tidelog topic create dripped --partitions 1 --config message.timestamp.type=LogAppendTime
drip() {
  "$python" -c 'import sys, time
for i in range(int(sys.argv[1])):
    print(f"drop {i}", flush=True)
    time.sleep(0.004)' "$1" | tidelog produce dripped --format lines --linger-ms 0
}
drip 800
merge() {
  for topic in "$@"; do tidelog topic alter "$topic" --config merge.max.age.ms=1000; done
  sleep 1.1
  tidelog upkeep --once
  for topic in "$@"; do tidelog topic alter "$topic" --config merge.max.age.ms=86400000; done
}
merge odd stamped dripped
drip 10
tidelog produce odd --format ndjson "$work/odd-1.ndjson"
tidelog produce stamped --format ndjson "$work/odd-2.ndjson"
merge odd stamped
tidelog topic delete-records odd --partition 0 --before 100
tidelog topic delete-records stamped --partition 1 --before end
tidelog produce odd --format ndjson "$work/odd-2.ndjson"
tidelog produce stamped --format ndjson "$work/odd-1.ndjson"

if [[ $alone == Trino ]]; then
  port=$("$python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
  mkdir -p "$work/etc/catalog"
  printf '%s\n' node.environment=test "node.data-dir=$work/trino" node.{bind-ip,internal-address}=127.0.0.1 >"$work/etc/node.properties"
  printf '%s\n' coordinator=true node-scheduler.include-coordinator=true "http-server.http.port=$port" \
    "discovery.uri=http://127.0.0.1:$port" >"$work/etc/config.properties"
  printf '%s\n' -Xmx2G -Duser.timezone=UTC --add-modules=jdk.incubator.vector >"$work/etc/jvm.config"
  # Athena, too, takes a folder that is not there for an empty one.
  printf '%s\n' connector.name=hive hive.metastore=file "hive.metastore.catalog.dir=local://$work/metastore" \
    hive.timestamp-precision=MICROSECONDS hive.partition-projection-enabled=true hive.ignore-absent-partitions=true \
    hive.non-managed-table-writes-enabled=true fs.native-local.enabled=true local.location=/ >"$work/etc/catalog/hive.properties"
  trino=$here/../../.emu/trino
  PATH=$trino/java/bin:$PATH JAVA_HOME=$trino/java "$trino/bin/launcher" run --etc-dir "$work/etc" >"$work/trino.log" 2>&1 &
  server=$!
  until grep -q 'SERVER STARTED' "$work/trino.log"; do
    kill -0 "$server" || { tail -n 30 "$work/trino.log"; exit 1; }
    sleep 0.5
  done
  export TRINO=127.0.0.1:$port
fi
"$python" "$here/merged.py" ${alone:+--engines "$alone"} odd stamped dripped
[[ ! $alone ]] || exit 0

"$python" "$here/cookbook.py" "$here/../../docs/COOKBOOK.md"

program=$("$here/../built" tidelog-s3server)
"$program" >"$work/endpoint" &
server=$!
until [[ -s $work/endpoint ]]; do kill -0 "$server"; sleep 0.1; done
"$python" "$here/merged.py" --s3 "$(head -n 1 "$work/endpoint")" odd stamped dripped
