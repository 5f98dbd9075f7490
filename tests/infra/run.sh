#!/usr/bin/env bash
# The template by cfn-lint, and against what else says the same: the table's schema, the policies of RUNNING_ON_AWS.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."
python=$("$here/../venv" "$here/requirements.txt")
"$(dirname "$python")/cfn-lint" --non-zero-exit-code informational infra/template.yaml
"$python" "$here/check.py"
