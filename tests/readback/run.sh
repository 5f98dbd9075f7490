#!/usr/bin/env bash
# Writes a store from odd records and from plain lines, none of them inline, and has DuckDB and pyarrow read it back; and
# what `tidelog export` makes of it, too.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
python=$("$here/../venv" "$here/requirements.txt")
"$python" "$here/readback.py" --self-test

PATH=$("$here/../bin"):$PATH
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export TIDELOG_STORE=$work/store

"$python" "$here/records.py" "$work"
tidelog init
tidelog topic create odd --partitions 3
tidelog topic create plain --partitions 2
# Two runs of `odd`, so that it has slices in more than one segment.
tidelog produce odd --format ndjson --inline-bytes-max 0 "$work/odd-1.ndjson"
tidelog produce odd --format ndjson --inline-bytes-max 0 --compression none "$work/odd-2.ndjson"
tidelog produce plain --format lines --inline-bytes-max 0 "$work/lines.txt"

for topic in odd plain; do
  tidelog inspect partition "$topic" --output json >"$work/inspect.json"
  tidelog consume "$topic" --from start --until end --format json >"$work/consumed.ndjson"
  case $topic in odd) produced=odd.ndjson ;; plain) produced=lines.ndjson ;; esac
  "$python" "$here/readback.py" "$TIDELOG_STORE" "$work/inspect.json" "$work/consumed.ndjson" "$work/$produced"
  for form in parquet csv; do
    tidelog export "$topic" --to "$work/$topic.$form"
    "$python" "$here/exported.py" "$work/$topic.$form" "$work/consumed.ndjson"
  done
done
