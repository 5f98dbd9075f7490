#!/usr/bin/env bash
# The whole stack on LocalStack, from nothing: deploy, ship, read back, destroy; at the end nothing of it is left.
# TIDELOG_SHIPPERS=all: also with those that take minutes to build, the OpenTelemetry Collector and Telegraf.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."
tests/emulators localstack oteljs syslogng
if [[ ${TIDELOG_SHIPPERS:-} == all ]]; then tests/emulators otelcol telegraf; fi
tests/need strip binutils
python=$("$here/../venv" "$here/requirements.txt")
stack() { python3 localstack/stack.py --name localstack-test "$@"; }
trap 'stack down' EXIT
stack down
# The check invokes upkeep itself: a schedule that comes between would make it count wrongly.
never="cron(0 0 1 1 ? 2090)"
up=(up --output json --parameter "UpkeepSchedule=$never" --parameter "WholeSweepSchedule=$never")
state=$(stack "${up[@]}" --port 0)
pid=$(python3 -c 'import json; print(json.load(open(".emu/localstack-test/state.json"))["pid"])')

"$python" "$here/check.py" "$(tests/built tidelog)" "$state" .emu/localstack-test/localstack.log

# Deployed again, nothing changes; destroyed, nothing is left in the account.
[[ $(stack "${up[@]}") == "$state" ]] || { echo "FAILED: a second up gives other places"; exit 1; }
echo one >.emu/localstack-test/one.txt
stack seed seeded .emu/localstack-test/one.txt
stack reset
endpoint=${state##*endpoint=}
aws=$PWD/.emu/localstack/venv/bin/python
ask() { env -u AWS_PROFILE AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test AWS_DEFAULT_REGION=us-east-1 AWS_ENDPOINT_URL="${endpoint%\"*}" "$aws" "$@"; }
ask infra/deploy.py destroy --stack tidelog --yes
left=$(ask -c '
import boto3
print(boto3.client("s3").list_buckets()["Buckets"], boto3.client("dynamodb").list_tables()["TableNames"],
      [f["FunctionName"] for f in boto3.client("lambda").list_functions()["Functions"]])')
[[ $left == "[] [] []" ]] || { echo "FAILED: destroy leaves $left"; exit 1; }
echo "ok: destroy leaves nothing"

stack down
# Who is dead and only not waited for is gone.
left=$(ps -eo sid=,stat=,args= | awk -v sid="$pid" '$1 == sid && $2 !~ /Z/')
[[ -z $left && ! -e .emu/localstack-test ]] || { echo "FAILED: down leaves $left"; exit 1; }
echo "ok: down leaves nothing"
