"""What students inherited: their accuracy, and how each of them does on attacks that were made with the teacher."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from keras_remos.evaluation.inherited import Inherited, TeacherRow, Verdict, as_rows, described
from keras_remos.evaluation.intervals import Estimate, finite
from keras_remos.evaluation.metrics import Rate, balanced_accuracy
from keras_remos.evaluation.tables import accuracy_lines, inherited_lines, teacher_lines
from keras_remos.notebooks import html_table
from keras_remos.untrusted import in_lines, printable

# Of sentences below a table, in columns.
WIDTH = 100


@dataclass(frozen=True, repr=False)
class InheritanceReport:
    """What was measured of several students on the same inputs.

    Args:
        accuracies: ACC of each student on the whole test set.
        relative_accuracies: The same over that of the control: rACC. Empty without one.
        inherited: A row for each student and attack.
        control: The student that the others are compared to, usually the fine-tuned one.
        warnings: What a reader of the figures has to know.
        floors: By the attack's name, the student that cannot have inherited it.
        confusions: What each student says of the clean test set: see `metrics.confusion`.
        teacher: How the teacher itself does, where it was asked.
        plants: The attacks among them that are backdoors.
        on_copies: Those that were made on a copy of the teacher: what they do to the teacher itself says little.
        beside: Students that are there to be compared with, beyond those that an attack names as its floor.
        verdicts: What the figures come to, and where they say nothing, in sentences.
    """

    accuracies: dict[str, Rate]
    relative_accuracies: dict[str, Estimate]
    inherited: tuple[Inherited, ...]
    control: str | None
    warnings: tuple[str, ...] = ()
    floors: Mapping[str, str] = field(default_factory=dict)
    confusions: Mapping[str, np.ndarray] = field(default_factory=dict)
    teacher: TeacherRow | None = None
    plants: frozenset[str] = frozenset()
    on_copies: frozenset[str] = frozenset()
    beside: frozenset[str] = frozenset()
    verdicts: tuple[Verdict, ...] = ()

    @property
    def aside(self) -> set[str | None]:
        """Who is there to be compared with, and is not judged: the control and the floors."""
        return {self.control, *self.floors.values(), *self.beside}

    @property
    def over_neurons(self) -> dict[str, dict[str, float]]:
        """Of each student, where attacks drive several neurons one by one: how many, and DIR's worst and mean.

        One neuron is one draw: of one teacher and student, DIR was from .12 to .82.
        """
        found: dict[str, list[float]] = {}
        for row in self.inherited:
            if row.neuron is not None and row.rate.total:
                found.setdefault(row.student, []).append(row.rate.value)
        return {
            student: {"neurons": len(rates), "worst": max(rates), "mean": sum(rates) / len(rates)}
            for student, rates in found.items()
            if len(rates) > 1
        }

    @property
    def worst_first(self) -> tuple[Inherited, ...]:
        """The rows, those of the attack first that fools a student most: the control and the floors do not count."""
        strength: dict[str, float] = {}
        for row in self.inherited:
            if row.student not in self.aside or not set(self.accuracies) - self.aside:
                strength[row.defect] = max(np.nan_to_num(row.rate.value), strength.get(row.defect, 0.0))
        return tuple(sorted(self.inherited, key=lambda row: -strength.get(row.defect, 0.0)))

    def __repr__(self) -> str:
        attacks = len({row.defect for row in self.inherited})
        return f"<InheritanceReport: {len(self.accuracies)} students, {attacks} attacks, control {self.control}>"

    def _repr_html_(self) -> str:
        accurate = [
            (name, f"{rate.value:.3f}", rate.total, _shown(self.relative_accuracies.get(name)))
            for name, rate in self.accuracies.items()
        ]
        inherited = [
            (row.defect, row.student, f"{row.rate.value:.3f}", row.rate.total, _shown(row.relative))
            for row in self.worst_first
        ]
        tables = [html_table(repr(self)[1:-1], ("student", "ACC", "n", "rACC"), accurate)]
        if inherited:
            tables.append(html_table("What was inherited", ("defect", "student", "DIR", "n", "rDIR"), inherited))
        return "".join(tables)

    def describe(self) -> dict[str, Any]:
        """The same as plain values for JSON, the attack first that fools a student most."""
        return {
            "control": self.control,
            "floors": dict(self.floors),
            "warnings": list(self.warnings),
            "verdicts": [verdict.describe() for verdict in self.verdicts],
            "teacher": None if self.teacher is None else self.teacher.describe(),
            "students": {name: self._student(name) for name in self.accuracies},
            "defects": [row.describe() for row in self.worst_first],
            "over_neurons": self.over_neurons,
        }

    def _student(self, name: str) -> dict[str, Any]:
        found = {
            "accuracy": self.accuracies[name].describe(),
            "relative_accuracy": described(self.relative_accuracies.get(name)),
        }
        if name not in self.confusions:
            return found
        counts = self.confusions[name]
        return found | {
            "balanced_accuracy": finite(balanced_accuracy(counts)),
            "per_class": [{"n": int(row.sum()), "right": int(row[label])} for label, row in enumerate(counts)],
            "confusion": as_rows(counts),
        }

    def summary(self) -> str:
        """The same as two tables of at most 100 columns, and how to read them."""
        rows = self.worst_first
        lines = accuracy_lines(self.accuracies, self.relative_accuracies)
        if rows:
            lines += inherited_lines(rows, max(map(len, self.accuracies)), self.over_neurons)
        if self.teacher is not None:
            lines += teacher_lines(self.teacher)
        if self.control is not None:
            lines.append(f"rACC, rDIR: over those of the control, {self.control}, on the same inputs.")
        for floor in dict.fromkeys(self.floors.values()):
            lines.append(f"excess: 0 is the DIR of the floor, {floor}, which cannot have inherited; 1 the control's.")
        if any(row.relative is not None or row.excess is not None for row in self.inherited):
            lines.append("Intervals are over test inputs only: other training seeds would differ by more.")
        lines += [f"Warning: {warning}" for warning in self.warnings]
        if self.verdicts:
            # A name in it may be of any length, but not of several lines.
            said = [textwrap.fill(printable(verdict.text), WIDTH) for verdict in self.verdicts]
            return "\n".join([in_lines(lines), "", *said])
        return in_lines(lines)


def _shown(estimate: Estimate | None) -> str:
    return "" if estimate is None else f"{estimate.value:.3f}"
