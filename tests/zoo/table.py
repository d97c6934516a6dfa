"""Writes docs/zoo.md from what the runs on each backend have found: `python table.py PAGE ROWS...`.

Of one backend there may be several files: what was tried again in a later one replaces what was found before.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

INTRO = """# Every model that people have

What becomes of a model: which of its kernels can be sliced, which layers are left whole and why, and whether a student
can be made of it, trained, saved and opened by a plain Keras. Each model here is small, has random weights, and goes
through all of that: profile, slice, student, one step of `fit`, `save`, and the same predictions in a process that has
Keras and no keras-remos. `nox -s zoo` writes this page.

*Head* says whether the student got a new one for two classes (`num_classes=2`), or why it keeps the teacher's.
*Left whole* counts layers; the reasons are below each table. A model without a word for a backend was not tried there.
"""
HEADER = """| model | weights | kernels | sliceable | left whole | head | {backends} |
|---|---:|---:|---:|---|---|{marks}|
"""


def page(runs: dict[str, tuple[dict[str, str], list[dict[str, Any]]]]) -> str:
    """The whole page.

    Args:
        runs: For each backend the versions that it was run with, and a row for each model.
    """
    rows: dict[str, dict[str, dict[str, dict[str, Any]]]] = {}
    for backend, (_, found) in runs.items():
        for row in found:
            rows.setdefault(row["group"], {}).setdefault(row["name"], {})[backend] = row
    made = [INTRO, "Made with:\n"]
    made += [
        f"- {backend}: {', '.join(f'{name} {version}' for name, version in versions.items())}; {_tally(found)}"
        for backend, (versions, found) in runs.items()
    ]
    for group, models in rows.items():
        reasons: dict[str, None] = {}
        for by_backend in models.values():
            reasons |= dict.fromkeys(reason for row in by_backend.values() for reason in map(_kind, row["skipped"]))
        numbers = {reason: number for number, reason in enumerate(reasons, start=1)}
        lines = [_line(name, by_backend, list(runs), numbers) for name, by_backend in models.items()]
        made.append(f"\n## {group}\n")
        made.append(HEADER.format(backends=" | ".join(runs), marks="|".join("---" for _ in runs)) + "\n".join(lines))
        made.append("\nLeft whole:\n")
        made += [f"{number}. {reason}" for reason, number in numbers.items()]
    return "\n".join(made) + "\n"


def _tally(rows: list[dict[str, Any]]) -> str:
    counts = Counter(row["result"].partition(":")[0] for row in rows)
    return ", ".join(f"{count} {result}" for result, count in counts.most_common())


def _line(name: str, by_backend: dict[str, dict[str, Any]], backends: list[str], numbers: dict[str, int]) -> str:
    row = max(by_backend.values(), key=lambda row: row["kernels"])
    skipped: Counter[str] = Counter()
    for reason, count in row["skipped"].items():
        skipped[_kind(reason)] += count
    left = ", ".join(f"{count} ({numbers[reason]})" for reason, count in skipped.items())
    share = f"{row.get('sliceable', 0) / max(row.get('weights', 0), 1):.0%}"
    results = [_cell(by_backend[backend]["result"]) if backend in by_backend else "" for backend in backends]
    cells = [name, f"{row.get('weights', 0):,}", str(row["kernels"]), share, left, _cell(row["head"]), *results]
    return f"| {' | '.join(cells)} |"


def _kind(reason: str) -> str:
    """A reason without the names and sizes of one layer's weights."""
    return reason.partition(": ")[0] if reason.startswith("weights of its own") else reason.partition("; ")[0]


def _cell(words: str) -> str:
    return re.sub(r"\x1b\[\d*m", "", words).replace("|", "\\|").replace("{", "&#123;").replace("<", "&lt;")


def runs_of(files: list[str]) -> dict[str, tuple[dict[str, str], list[dict[str, Any]]]]:
    """The versions and rows of each backend, from files that `test_zoo` wrote."""
    versions: dict[str, dict[str, str]] = {}
    rows: dict[str, dict[str, dict[str, Any]]] = {}
    for file in files:
        run = json.loads(Path(file).read_text(encoding="utf-8"))
        versions[run["backend"]] = run["versions"]
        rows.setdefault(run["backend"], {}).update({row["name"]: row for row in run["rows"]})
    return {backend: (versions[backend], list(found.values())) for backend, found in rows.items()}


if __name__ == "__main__":
    target, *files = sys.argv[1:]
    Path(target).write_text(page(runs_of(files)), encoding="utf-8")
