#!/usr/bin/env python3
"""Runs `tidelog` under a clock that jumps (libfaketime), while it runs and between runs.

A folder has no clock of its own, so there is nothing to refuse an append by (DESIGN §3.7: only where the store has
a time; the core's tests have such stores). What holds all the same: commit times never go back, offsets and order are as
ever, nothing waits for the clock, and a record's timestamp is the clock's that was shown.
Usage: clock.py BINARY
"""

import glob
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

HOUR_MS = 3_600_000
JUMPS = [("as it is", "+0"), ("an hour on", "+3600"), ("an hour back", "-3600"), ("ten minutes off", "+600"),
         ("twenty years on", "+630720000"), ("1971", "-1700000000"), ("as it is again", "+0")]


def library():
    found = glob.glob("/usr/lib/*/faketime/libfaketimeMT.so.1")
    if not found:
        print("libfaketime is not where Debian has it")
        sys.exit(77)
    return found[0]


def faked(control):
    """The environment of a process whose wall clock is as the file `control` says at each look."""
    return {**os.environ, "LD_PRELOAD": library(), "FAKETIME_TIMESTAMP_FILE": str(control), "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1"}


def commits(binary, store):
    out = subprocess.run([binary, "--store", store, "inspect", "ledger", "--output", "json"], check=True, timeout=60,
                         stdout=subprocess.PIPE).stdout
    return [(commit["slot"], commit["time_ms"]) for commit in json.loads(out)["commits"]]


def records(binary, store):
    out = subprocess.run([binary, "--store", store, "consume", "t", "--until", "end", "--format", "json"], check=True,
                         timeout=60, stdout=subprocess.PIPE).stdout
    return [json.loads(line) for line in out.splitlines()]


def jumps_in_one_process(binary, work):
    """One producer lives through all of it, a consumer follows; the control file is replaced whole."""
    store, control, acks = work / "one", work / "clock", work / "acks"

    def set_clock(offset):
        (work / "clock.new").write_text(offset + "\n")
        (work / "clock.new").rename(control)

    set_clock("+0")
    run = lambda *args: [binary, "--store", store, *args]
    subprocess.run(run("topic", "create", "t", "--partitions", "1"), check=True, stdout=subprocess.DEVNULL)
    producer = subprocess.Popen(run("produce", "t", "--acks-out", acks), stdin=subprocess.PIPE, env=faked(control),
                                stderr=subprocess.PIPE)
    consumer = subprocess.Popen(run("consume", "t"), stdout=subprocess.PIPE, env=faked(control))
    wanted, shown = [], []
    for number, (name, offset) in enumerate(JUMPS):
        set_clock(offset)
        time.sleep(0.1)
        began = time.monotonic()
        producer.stdin.write(b"%d\n" % number)
        producer.stdin.flush()
        line = consumer.stdout.readline()
        took = time.monotonic() - began
        assert line == b"%d\n" % number, f"{name}: the consumer saw {line}"
        assert took < 5, f"{name}: {took:.1f} s from line to reader"
        wanted.append(str(number))
        shown.append(time.time() * 1000 + float(offset) * 1000)
    producer.stdin.close()
    consumer.kill()
    assert producer.wait(timeout=60) == 0, producer.stderr.read()
    found = records(binary, store)
    assert [record["value"] for record in found] == wanted, found
    assert [record["offset"] for record in found] == list(range(len(wanted))), found
    for (name, _), record, clock in zip(JUMPS, found, shown):
        off = abs(record["timestamp"] - clock)
        assert off < 60_000, f"{name}: the timestamp is {off} ms off the clock that was shown: the clock is not faked"
    return store


def jumps_between_processes(binary, work):
    """Each run starts under another clock, on one store; one of them creates it in the future."""
    store, control = work / "many", work / "clock-many"
    for number, (name, offset) in enumerate([("first, an hour on", "+3600")] + JUMPS):
        control.write_text(offset + "\n")
        env = faked(control)
        if number == 0:
            subprocess.run([binary, "--store", store, "topic", "create", "t", "--partitions", "1"], check=True, env=env,
                           stdout=subprocess.DEVNULL)
        done = subprocess.run([binary, "--store", store, "produce", "t"], input=b"%d\n" % number, env=env, timeout=60,
                              stderr=subprocess.PIPE)
        assert done.returncode == 0, f"{name}: {done.stderr}"
        assert len(records(binary, store)) == number + 1, name
    return store


def main(binary):
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        for play in (jumps_in_one_process, jumps_between_processes):
            store = play(binary, work)
            times = [time for _, time in commits(binary, store)]
            assert times == sorted(times), f"{play.__name__}: commit times go back: {times}"
            assert times[0] != times[-1]
            done = subprocess.run([binary, "--store", store, "verify"], timeout=60, stdout=subprocess.PIPE)
            assert done.returncode == 0, done.stdout
            print(f"{play.__name__}: {len(times)} commits, times from {times[0]} to {times[-1]}, never back")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
