#!/usr/bin/env python3
"""Runs docs/COOKBOOK.md as a reader would, in a fresh folder: every ```sh, ```python and ```sql block in turn. The last
statement of an ```sql block must give what the ```text block after it says. Then it shows what the page warns of: a glob that
counts twice what `tidelog files` has once.

    cookbook.py FILE        (`tidelog` is on PATH)
"""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

FILES = re.compile(r":(files [^)]*)")


def blocks(text):
    """(line, kind, body) of each fenced block."""
    kind, start, body = None, 0, []
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("```"):
            if kind is None:
                kind, start, body = line[3:], number, []
            else:
                yield start, kind, "\n".join(body) + "\n"
                kind = None
        elif kind is not None:
            body.append(line)


def tidelog(*args):
    return subprocess.run(["tidelog", *args], check=True, stdout=subprocess.PIPE, text=True).stdout


def shown(found):
    rows = [[name for name, *_ in found.description], *found.fetchall()]
    return "".join(" | ".join(str(field) for field in row) + "\n" for row in rows)


def main(page):
    found = list(blocks(pathlib.Path(page).read_text()))
    named, ran, result = {}, 0, None
    os.environ.pop("TIDELOG_STORE", None)
    for line, kind, body in found:
        if kind == "text":
            if result != body:
                sys.exit(f"FAILED: {page}:{line}: expected\n{body}got\n{result}")
            result = None
            continue
        ran += 1
        if result is not None:
            sys.exit(f"FAILED: {page}:{line}: the query before it has no result to compare with")
        try:
            if kind == "sh":
                subprocess.run(["bash", "-e", "-o", "pipefail", "-c", body], check=True)
            elif kind == "python":
                exec(body, named)
            else:
                query = FILES.sub(lambda match: tidelog(*match[1].split(), "--output", "duckdb"), body)
                result = shown(named["db"].execute(query))
        except Exception as error:
            sys.exit(f"FAILED: {page}:{line}: {type(error).__name__}: {error}")
    glob(named["db"])
    print(f"{pathlib.Path(page).name}: {ran} blocks run, all as the page says")


def glob(db):
    """A killed upkeep leaves a file that nothing names; the exact list does not have it."""
    tidelog("topic", "alter", "access", "--config", "merge.max.age.ms=1000")
    time.sleep(1.1)
    tidelog("upkeep", "--once")
    for one in list(pathlib.Path("tidelog-data/topics/access").rglob("*.parquet")):
        shutil.copy(one, one.with_name(f"{one.stem[:-26]}{'0' * 26}.parquet"))
    counts = [
        db.execute(f"SELECT count(*) FROM {source}").fetchone()[0]
        for source in ("'tidelog-data/topics/access/**/*.parquet'", f"({tidelog('files', 'access', '--output', 'duckdb')})")
    ]
    if counts != [16, 8]:
        sys.exit(f"FAILED: glob and exact list count {counts}, must be [16, 8]")


if __name__ == "__main__":
    page = os.path.abspath(sys.argv[1])
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        main(page)
