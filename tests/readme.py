#!/usr/bin/env python3
"""Runs the README's commands as a reader would: every ```sh block, in an empty folder of its own.

The built `tidelog` is on PATH. A block fails when any command of it does, or after two minutes. A block that cannot run
here says why on the line before it, and is counted as skipped:

    <!-- not run: needs an AWS account -->

Usage: readme.py [--list] [FILE]    (FILE: README.md)
"""

import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
TIMEOUT_S = 120
FENCE = re.compile(r"^(?P<indent> *)(?P<fence>`{3,}|~{3,})(?P<info>.*)$")
NOT_RUN = re.compile(r"^\s*<!--\s*not run:\s*(?P<reason>.+?)\s*-->\s*$")
# Run from here these would start this script again, or build the whole workspace a second time.
RECURSIVE = re.compile(r"^\s*(\./test|cargo demo|just (test|demo|readme))\b", re.MULTILINE)


def blocks(text):
    """Yields (line number of the fence, script, reason not to run it or None) for each ```sh block."""
    reason, fence, start, body, shell, indent = None, None, 0, [], False, ""
    for number, line in enumerate(text.splitlines(), 1):
        match = FENCE.match(line)
        if fence is None:
            if match:
                fence, indent, start, body = match["fence"], match["indent"], number, []
                shell = match["info"].strip() == "sh"
            elif note := NOT_RUN.match(line):
                reason = note["reason"]
            elif line.strip():
                reason = None
        elif match and match["fence"].startswith(fence) and not match["info"].strip():
            if shell:
                yield start, "\n".join(body) + "\n", reason
            fence, reason = None, None
        else:
            body.append(line.removeprefix(indent))
    if fence is not None:
        raise SystemExit(f"line {start}: the block is not closed")


def run(script, path):
    """Runs one block in a fresh folder. Returns None, or what went wrong."""
    with tempfile.TemporaryDirectory(prefix="readme-") as folder:
        env = {**os.environ, "PATH": f"{path}:{os.environ['PATH']}"}
        env.pop("TIDELOG_STORE", None)
        process = subprocess.Popen(
            ["bash", "-e", "-o", "pipefail", "-c", script],
            cwd=folder,
            env=env,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            code = process.wait(TIMEOUT_S)
            return None if code == 0 else f"exit {code}"
        except subprocess.TimeoutExpired:
            return f"still running after {TIMEOUT_S} s"
        finally:
            # Also what the block left behind in the background.
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.wait()


def main():
    args = [arg for arg in sys.argv[1:] if arg != "--list"]
    file = pathlib.Path(args[0]) if args else ROOT / "README.md"
    found = list(blocks(file.read_text()))
    if "--list" in sys.argv:
        for line, script, reason in found:
            print(f"{file}:{line}: {'not run: ' + reason if reason else 'run'}\n{script}")
        return 0
    path = None
    failed = skipped = 0
    for line, script, reason in found:
        print(f"--- {file.name}:{line}", flush=True)
        if reason:
            skipped += 1
            print(f"not run: {reason}", flush=True)
            continue
        print(script, end="", flush=True)
        if recursive := RECURSIVE.search(script):
            problem = f"`{recursive[1]}` would run itself: mark the block `<!-- not run: … -->`"
        else:
            path = path or subprocess.run([ROOT / "tests/bin"], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
            problem = run(script, path)
        if problem:
            failed += 1
            print(f"FAILED: {file.name}:{line}: {problem}", flush=True)
    ran = len(found) - skipped
    print(f"{file.name}: {ran} blocks run, {failed} failed, {skipped} not run")
    if ran == 0:
        print("FAILED: no block was run")
    return 1 if failed or ran == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
