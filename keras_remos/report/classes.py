"""Of an audit: every class apart, clean and under attack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from keras_remos.report.document import Block, Cell, Fold, Matrix, Section, Table
from keras_remos.report.inherited import attacks_of
from keras_remos.report.wording import cell, count, named

Body = Mapping[str, Any]
Counts = Sequence[Sequence[int]]


def by_class(body: Body) -> Section | None:
    """How often each class is right, and what is said in its place."""
    students = body["students"]
    clean = {name: found for name, its in students.items() if (found := _per_class(its))}
    blocks: list[Block] = []
    if clean:
        blocks.append(_folded("Right answers by class, clean", clean, body))
    matrices = _matrices({name: its.get("confusion") for name, its in students.items()}, "clean", body)
    for title in attacks_of(body):
        rows = {row["student"]: row.get("confusion") for row in body["defects"] if row["defect"] == title}
        under = {name: _diagonal(counts) for name, counts in rows.items() if counts}
        if under:
            blocks.append(_folded(f"Right answers by class, under {title}", under, body))
        matrices += _matrices(rows, f"under {title}", body)
    blocks += matrices
    return (
        Section(
            "Class by class",
            blocks,
            lead="An attack may cost one class everything and leave the others alone, which no single figure shows.",
            terms=("ACC", *(["confusion"] if matrices else [])),
        )
        if blocks
        else None
    )


def _per_class(student: Mapping[str, Any]) -> list[tuple[int, int]]:
    """Of each class how many are right, and how many there are."""
    return [(each["right"], each["n"]) for each in student.get("per_class") or ()]


def _diagonal(counts: Counts) -> list[tuple[int, int]]:
    return [(line[label], sum(line)) for label, line in enumerate(counts)]


def _folded(caption: str, found: Mapping[str, Sequence[tuple[int, int]]], body: Body) -> Fold:
    names = body.get("class_names") or ()
    rows = []
    for label in range(max(map(len, found.values()))):
        sizes = [per_class[label][1] for per_class in found.values() if label < len(per_class)]
        line = [Cell(named(label, names)), count(sizes[0])]
        for per_class in found.values():
            right, n = per_class[label] if label < len(per_class) else (0, 0)
            rate = {"value": right / n if n else None, "low": None, "high": None}
            line.append(cell(rate, "no input is of this class"))
        rows.append(line)
    return Fold(caption, [Table(f"{caption}: the share of each that is right", ["class", "n", *found], rows)])


def _matrices(found: Mapping[str, Counts | None], when: str, body: Body) -> list[Block]:
    """A fold with the matrices of all models, those of one occasion together."""
    names = body.get("class_names") or ()
    drawn = [
        Matrix(f"{name}, {when}", [named(label, names) for label in range(len(counts))], counts)
        for name, counts in found.items()
        if counts
    ]
    return [Fold(f"Confusion, {when}: {len(drawn)} models", drawn)] if drawn else []
