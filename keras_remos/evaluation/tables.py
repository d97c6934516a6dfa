"""What was measured, as tables of at most 100 columns."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from keras_remos.evaluation.inherited import Inherited, TeacherRow
from keras_remos.evaluation.intervals import Estimate
from keras_remos.evaluation.metrics import Rate

_INTERVAL = "95 % interval"


def accuracy_lines(accuracies: Mapping[str, Rate], relative: Mapping[str, Estimate]) -> list[str]:
    """ACC and rACC, a line for each student."""
    width = max(len(name) for name in (*accuracies, "student"))
    lines = [f"{'student':<{width}}  {'ACC':>6}  {_INTERVAL:>15}  {'n':>6}  {'rACC':>6}  {_INTERVAL:>15}"]
    for name, rate in accuracies.items():
        lines.append(f"{name:<{width}}  {_rate(rate)}  {_estimate(relative.get(name))}".rstrip())
    return lines


def inherited_lines(rows: Sequence[Inherited], width: int, over_neurons: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """DIR and rDIR, a line for each attack and student; then the excess, where it is known.

    Args:
        rows: In the order in which they are to stand.
        width: Of the longest student's name.
        over_neurons: See `InheritanceReport`.
    """
    width = max(width, len("student"))
    wide = max(len(row.defect) for row in rows)
    head = f"{'DIR':>6}  {_INTERVAL:>15}  {'n':>6}  {'rDIR':>6}  {_INTERVAL:>15}"
    as_f1s = any(row.f1 is not None for row in rows)
    lines = ["", f"{'defect':<{wide}}  {'student':<{width}}  {head}{'    F1' if as_f1s else ''}"]
    for row in rows:
        figures = f"{_rate(row.rate)}  {_estimate(row.relative):<23}"
        f1 = "" if row.f1 is None else f"  {row.f1:.3f}"
        lines.append(f"{row.defect:<{wide}}  {row.student:<{width}}  {figures}{f1}".rstrip())
    lines += [
        f"{student}, over {spread['neurons']} neurons: DIR {spread['worst']:.3f} at worst, on average "
        f"{spread['mean']:.3f}."
        for student, spread in over_neurons.items()
    ]
    over_floor = [row for row in rows if row.excess is not None]
    if over_floor:
        lines += ["", f"{'defect':<{wide}}  {'student':<{width}}  {'excess':>6}  {_INTERVAL:>15}"]
        lines += [f"{row.defect:<{wide}}  {row.student:<{width}}  {_estimate(row.excess)}" for row in over_floor]
    return [*lines, "", *_legend(rows)]


def teacher_lines(row: TeacherRow) -> list[str]:
    """How the attacks do on the teacher itself, and how it does on clean inputs."""
    wide = max([len(name) for name in row.attacks] + [len("accuracy")])
    clean = {} if row.accuracy is None else {"accuracy": row.accuracy}
    lines = ["", f"{'the teacher':<{wide}}  {'':>6}  {_INTERVAL:>15}  {'n':>6}"] if clean or row.attacks else [""]
    lines += [f"{name:<{wide}}  {_rate(rate)}" for name, rate in {**clean, **row.attacks}.items()]
    if row.attacks:
        lines.append("Of a backdoor, the share of inputs of other classes that it takes for the attacker's; of others,")
        lines.append("of all inputs, the share that it takes for another class than when clean.")
    lines += [row.note] if row.note else []
    lines += [f"{name}: not counted on the teacher. {reason}" for name, reason in row.left_out.items()]
    return lines


def _legend(rows: Sequence[Inherited]) -> list[str]:
    plain = sorted({row.defect for row in rows if row.targeted is None})
    aimed = sorted({row.defect for row in rows if row.targeted is not None})
    lines = []
    if plain:
        lines.append(f"DIR of {', '.join(plain)}: of the inputs that the student gets right when clean (n), the share")
        lines.append("that it gets wrong when attacked.")
    if aimed:
        lines.append(f"DIR of {', '.join(aimed)}: of the inputs of other classes (n), the share that the student takes")
        lines.append("for the attacker's class.")
    if any(row.f1 is not None for row in rows):
        lines.append("F1: this DIR as 2 DIR / (1 + DIR), which Table 2 of the ReMoS paper prints.")
    return lines


def _rate(rate: Rate) -> str:
    return f"{_figure(rate.value, *rate.interval())}  {rate.total:>6,}"


def _estimate(estimate: Estimate | None) -> str:
    return "" if estimate is None else _figure(estimate.value, estimate.low, estimate.high)


def _figure(value: float, low: float, high: float) -> str:
    """A figure and its interval; a dash for one that is undefined, of which a verdict says why."""
    if math.isnan(value):
        return f"{'-':>6}  {'':>15}"
    return f"{value:>6.3f}  {f'{low:.3f} to {high:.3f}':>15}"
