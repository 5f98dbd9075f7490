#!/usr/bin/env bash
# The handlers of the functions over HTTP: schemathesis holds them to functions/openapi.yaml, then real clients write and
# read. The server is the development server, on a folder; nothing of it is left.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."
python=$("$here/../venv" "$here/requirements.txt")
program=$(tests/built tidelog-http)
work=$(mktemp -d)
server=
trap '[[ -n $server ]] && kill "$server" 2>/dev/null; rm -rf "$work"' EXIT

# A long poll ends with its request, and many of those to come ask for twenty seconds.
request_ms=4000
"$program" --store "$work/log" --listen 127.0.0.1:0 --auto-create-partitions 3 --otlp-topic otlp \
  --timeout-ms "$request_ms" \
  >"$work/url" 2>"$work/server.log" &
server=$!
for _ in $(seq 100); do [[ -s $work/url ]] && break; sleep 0.1; done
url=$(head -n 1 "$work/url")

"$python" "$here/clients.py" "$url"
# One seed, one worker (Python 3.11's parser is not safe with more). Left out are checks of rights, which nobody has here, of
# what a group must still be after others changed it, and that whatever the schema allows is accepted: it cannot say all.
export SCHEMATHESIS_HOOKS=tests.functions.hooks
"$(dirname "$python")/schemathesis" run functions/openapi.yaml --url "$url" --seed 1 --max-examples 60 --workers 1 \
  --checks all --exclude-checks ignored_auth,use_after_free,ensure_resource_availability,positive_data_acceptance \
  --phases examples,coverage,fuzzing --suppress-health-check all --no-color
kill -0 "$server" || { echo "the server is gone"; cat "$work/server.log"; exit 1; }
