# Every command of the project. CI runs `./test`, whose stages call the same scripts.

# The recipes.
default:
    @just --list --unsorted

# Format everything.
fmt:
    cargo fmt --all

# Format check, clippy and rustdoc, warnings denied.
lint:
    ./test fmt clippy doc

# Everything that CI runs, or the named stages (`./test --list`).
test *stages:
    ./test {{ stages }}

# Simulator: `just sim --seeds 0..1000`, or `just sim --seed 7` with a trace to read.
sim *args:
    tests/simulate {{ args }}

# What takes longer than half an hour; the dated output is kept.
nightly *stages:
    mkdir -p bench/results
    bash -o pipefail -c './test --nightly {{ stages }} 2>&1 | tee "bench/results/$(date -u +%F)-nightly.txt"'

# Ship this machine's own logs into a fresh folder, kill a writer, and check every promise.
demo:
    cargo demo

# Benches against bare Parquet: medians of alternating runs, into bench/results.
bench *args:
    bench/run {{ args }}

# The log on S3's latencies, beside what others measured: throughput, acks, catch-up.
bench-s3 *args:
    bench/s3 {{ args }}

# The functions as they are deployed: zip, init, first and warm answers, memory.
bench-functions *args:
    bench/functions {{ args }}

# Each line of the cost budget, on the requests that AWS would get, with prices.
counted:
    ./test counted

# Rewrite the golden files. A golden file that changes is a change of format: it needs an RFC.
bless *args:
    TIDELOG_BLESS=1 cargo test --workspace golden {{ args }}

# The library's documentation, opened in a browser.
docs:
    cargo doc --no-deps --workspace --open

# The README's commands, run as written.
readme:
    ./test readme

# DuckDB and pyarrow read what was written, row for row.
readback:
    ./test readback

# Install servers that stand in for AWS into `.emu`: dynamodb, seaweedfs, ministack, localstack.
emulators *names="dynamodb seaweedfs":
    tests/emulators {{ names }}

# The functions over HTTP: schemathesis and real clients against the development server.
functions:
    ./test functions

# Both functions on one port, for development: `just http --store ./data`.
http *args:
    cargo run --quiet --package tidelog-http -- {{ args }}

# The whole stack on this machine, without Docker: `just localstack up|status|logs|seed|reset|down`.
localstack *args="up":
    @python3 localstack/stack.py {{ args }}

# Build the functions for AWS and deploy the template with the credentials of AWS's own tools.
deploy *args:
    infra/build aws
    "$(tests/venv infra/requirements.txt)" infra/deploy.py deploy {{ args }}

# Delete what `just deploy` made, and the log with it, for good. Asks first.
destroy *args:
    "$(tests/venv infra/requirements.txt)" infra/deploy.py destroy {{ args }}

# Duplicate versions, licences and sources of the dependencies.
deny:
    tests/deny

# Fuzz one target (those of tests/fuzz/src/lib.rs) for so many seconds.
fuzz target seconds="60":
    tests/fuzz/run {{ seconds }} {{ target }}
