#!/usr/bin/env python3
"""Shows by strace that an ack comes after object fsync, folder fsync and database fsync, in this order.

Traces two runs of `tidelog produce --acks-out` (nothing inline, one flush each): the first makes the store and every
folder above the segment, the second only the segment. `fsync.py --self-test` shows that the checks can fail.
Usage: fsync.py BINARY | --self-test
"""

import collections
import os
import pathlib
import re
import subprocess
import sys
import tempfile

CALLS = "openat,mkdir,mkdirat,link,linkat,rename,renameat,renameat2,fsync,fdatasync,write,pwrite64,writev,pwritev"
RESUMED = re.compile(r"^(\d+) +<\.\.\. (\w+) resumed>(.*)$")
CALL = re.compile(r"^(\d+) +(\w+)\((.*)$")
FD = re.compile(r"^\d+<([^>]*)>")
PATH = re.compile(r'"((?:[^"\\]|\\.)*)"')
ANSWER = re.compile(r"= (-?\d+|\?)(?:<[^>]*>)?(?: \w+ \(.*\))?$")

Event = collections.namedtuple("Event", "kind path")


def calls(trace):
    """Yields (name, arguments) of each call that succeeded, in the order in which they ended."""
    begun = {}
    for line in trace.splitlines():
        if match := RESUMED.match(line):
            pid, name, rest = match.groups()
            line = begun.pop((pid, name), "") + rest
        else:
            match = CALL.match(line)
            if not match:
                continue
            pid, name, line = match.groups()
            if line.endswith("<unfinished ...>"):
                begun[pid, name] = line.removesuffix("<unfinished ...>")
                continue
        answer = ANSWER.search(line)
        if answer and answer[1] not in ("-1", "?"):
            yield name, line


def events(trace, cwd):
    """Yields `made` (a name came into being), `written` and `synced`, each with an absolute path."""
    absolute = lambda path: os.path.normpath(os.path.join(cwd, path))
    for name, line in calls(trace):
        if name in ("fsync", "fdatasync"):
            yield Event("synced", FD.match(line)[1])
        elif "write" in name:
            if match := FD.match(line):
                yield Event("written", match[1])
        elif name == "openat":
            if "O_CREAT" in line:
                yield Event("made", absolute(PATH.search(line)[1]))
        elif name.startswith("mkdir"):
            yield Event("made", absolute(PATH.search(line)[1]))
        else:
            yield Event("made", absolute(PATH.findall(line)[-1]))


def check(found, store, acks):
    """Every reason why the acks came too early; also what was seen."""
    found = list(found)
    ack = next((at for at, event in enumerate(found) if event == Event("written", acks)), None)
    if ack is None:
        return ["no ack was written"], {}
    before, wrong = found[:ack], []
    last = lambda kind, test: max((at for at, e in enumerate(before) if e.kind == kind and test(e.path)), default=None)
    segment = last("made", lambda path: path.startswith(f"{store}/l0/") and path.endswith(".parquet"))
    if segment is None:
        return ["no segment was made before the ack"], {}
    name = before[segment].path
    # It is written under another name, then linked.
    written = last("written", lambda path: path.startswith(name))
    content = last("synced", lambda path: path.startswith(name))
    folder = last("synced", lambda path: path == os.path.dirname(name))
    log = f"{store}/table.sqlite-wal"
    commit = next((at for at, e in enumerate(before) if at > segment and e == Event("written", log)), None)
    database = last("synced", lambda path: path == log)
    frames = last("written", lambda path: path == log)
    order = [("segment written", written), ("segment fsync", content), ("segment linked", segment),
             ("folder fsync", folder), ("commit written", commit), ("commit's last frame", frames),
             ("database fsync", database), ("ack", ack)]
    for (first, at), (second, then) in zip(order, order[1:]):
        if at is None or then is None or at > then:
            wrong.append(f"{first} ({at}) is not before {second} ({then})")
    # Whatever was made in or for the store: the folder above it is synced, after that and before the ack.
    for at, event in enumerate(before):
        inside = event.path == store or event.path.startswith(store + "/")
        passing = event.path.endswith("-shm") or "#" in os.path.basename(event.path)
        if event.kind != "made" or not inside or passing or at > segment:
            continue
        above = os.path.dirname(event.path)
        if not any(e == Event("synced", above) for e in before[at:]):
            wrong.append(f"{event.path} was made, but {above} was not synced before the ack")
    return wrong, dict(order)


def trace(binary, work, store, acks, lines):
    out = work / "trace"
    command = ["strace", "-f", "-y", "-s", "4096", "-e", f"trace={CALLS}", "-o", out, binary]
    produce = ["produce", "t", "--inline-bytes-max", "0", "--linger-ms", "200", "--acks-out", acks]
    subprocess.run([*command, "--store", store, *produce], cwd=work, input=lines, check=True, stderr=subprocess.DEVNULL)
    return list(events(out.read_text(errors="replace"), work))


def main(binary):
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder).resolve()
        store, failed = work / "a" / "store", []
        subprocess.run([binary, "--store", store, "topic", "create", "t", "--partitions", "1"], check=True,
                       stdout=subprocess.DEVNULL)
        for run in ("the first segment", "a later segment"):
            acks = work / f"acks-{len(failed)}-{run.split()[1]}"
            wrong, order = check(trace(binary, work, store, acks, b"one\ntwo\n"), str(store), str(acks))
            print(f"{run}: " + " < ".join(f"{what} {at}" for what, at in order.items()))
            failed += [f"{run}: {words}" for words in wrong]
            if acks.read_text().count("\n") != 2:
                failed.append(f"{run}: not two acks")
        print("\n".join(failed) or "ok: object fsync, folder fsync, database fsync, ack")
        return 1 if failed else 0


def self_test():
    s, o = "/w/s", "/w/s/l0/0/1/a.parquet"
    made, written, synced = (lambda p, k=k: Event(k, p) for k in ("made", "written", "synced"))
    good = [made("/w/s/l0"), synced("/w/s"), made("/w/s/l0/0"), synced("/w/s/l0"), made("/w/s/l0/0/1"),
            synced("/w/s/l0/0"), made(o + "#1"), written(o + "#1"), synced(o + "#1"), made(o), synced("/w/s/l0/0/1"),
            written(s + "/table.sqlite-wal"), synced(s + "/table.sqlite-wal"), written("/w/acks")]
    assert check(good, s, "/w/acks")[0] == [], check(good, s, "/w/acks")
    for at, event in enumerate(good):
        if event.kind == "synced":
            assert check(good[:at] + good[at + 1:], s, "/w/acks")[0], f"without {event} it is still green"
    swapped = good[:-2] + [good[-1], good[-2]]
    assert check(swapped, s, "/w/acks")[0], "an ack before the database's fsync is still green"
    text = '7 mkdir("a/b", 0777) = -1 EEXIST (File exists)\n7 fsync(3</x> <unfinished ...>\n8 mkdir("a", 0777) = 0\n' \
           '7 <... fsync resumed>) = 0\n'
    assert list(events(text, "/w")) == [made("/w/a"), synced("/x")], list(events(text, "/w"))
    return 0


if __name__ == "__main__":
    sys.exit(self_test() if sys.argv[1:] == ["--self-test"] else main(pathlib.Path(sys.argv[1]).resolve()))
