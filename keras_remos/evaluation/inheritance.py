"""What students inherited: their accuracy, and how each of them does on attacks that were made with the teacher."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from keras_remos.data.other_tasks import refuse_other_tasks
from keras_remos.data.pixels import PixelSpace
from keras_remos.data.texts import holds_text
from keras_remos.defects.attack_set import AttackSet
from keras_remos.errors import DataError, MismatchError
from keras_remos.evaluation.intervals import Estimate
from keras_remos.evaluation.metrics import (
    Rate,
    accuracy,
    as_f1,
    check_class_ids,
    flip_rate,
    missing_classes,
    target_rate,
)
from keras_remos.evaluation.predictions import Panel
from keras_remos.evaluation.verdict import why_no_test
from keras_remos.notebooks import html_table
from keras_remos.untrusted import in_lines

Students = Mapping[str, tuple[keras.Model, PixelSpace]]
Attacks = Mapping[str, AttackSet | Mapping[str, AttackSet]]


@dataclass(frozen=True)
class Inherited:
    """One student under one attack.

    Args:
        student: Its name.
        defect: The attack's name.
        flipped: Of the inputs that the student gets right when clean, how many it gets wrong when attacked.
        targeted: Of the inputs that are not of the attacker's class, how many it calls so; `None` without a target.
        relative: `flipped`, or `targeted` where there is a target, over that of the control: rDIR. `None` without one.
        of_text: Whether the inputs are texts.
        excess: How much of what the control inherits is in it, above the floor; `None` without a control or floor.
        neuron: Where this and other attacks differ in the one neuron that they drive and in nothing else, which it is.
    """

    student: str
    defect: str
    flipped: Rate
    targeted: Rate | None
    relative: Estimate | None
    of_text: bool = False
    excess: Estimate | None = None
    neuron: int | None = None

    @property
    def rate(self) -> Rate:
        """DIR: what the attacker is after."""
        return self.flipped if self.targeted is None else self.targeted

    @property
    def f1(self) -> float | None:
        """The rate as Table 2 of the paper prints it; `None` but for triggers in texts. See `as_f1`."""
        return as_f1(self.targeted) if self.of_text and self.targeted is not None else None


@dataclass(frozen=True, repr=False)
class InheritanceReport:
    """What was measured of several students on the same inputs.

    Args:
        accuracies: ACC of each student on the whole test set.
        relative_accuracies: The same over that of the control: rACC. Empty without one.
        inherited: A row for each student and attack.
        control: The student that the others are compared to, usually the fine-tuned one.
        floors: By the attack's name, the student that cannot have inherited it.
        warnings: What a reader of the figures has to know.
    """

    accuracies: dict[str, Rate]
    relative_accuracies: dict[str, Estimate]
    inherited: tuple[Inherited, ...]
    control: str | None
    warnings: tuple[str, ...] = ()
    floors: Mapping[str, str] = field(default_factory=dict)

    @property
    def over_neurons(self) -> dict[str, dict[str, float]]:
        """Of each student, where attacks drive several neurons one by one: how many, and DIR's worst and mean.

        One neuron is one draw: of one teacher and student, DIR was from .12 to .82.
        """
        found: dict[str, list[float]] = {}
        for row in self.inherited:
            if row.neuron is not None:
                found.setdefault(row.student, []).append(row.rate.value)
        return {
            student: {"neurons": len(rates), "worst": max(rates), "mean": sum(rates) / len(rates)}
            for student, rates in found.items()
            if len(rates) > 1
        }

    @property
    def worst_first(self) -> tuple[Inherited, ...]:
        """The rows, those of the attack first that fools a student most: the control and the floors do not count."""
        aside = {self.control, *self.floors.values()}
        strength: dict[str, float] = {}
        for row in self.inherited:
            if row.student not in aside or not set(self.accuracies) - aside:
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
        """The same as plain values for JSON."""
        return {
            "control": self.control,
            "floors": dict(self.floors),
            "warnings": list(self.warnings),
            "students": {
                name: {
                    "accuracy": rate.describe(),
                    "relative_accuracy": _described(self.relative_accuracies.get(name)),
                }
                for name, rate in self.accuracies.items()
            },
            "defects": [
                {
                    "student": row.student,
                    "defect": row.defect,
                    "flipped": row.flipped.describe(),
                    "targeted": _described(row.targeted),
                    "relative": _described(row.relative),
                    "excess": _described(row.excess),
                    "f1": row.f1,
                }
                for row in self.inherited
            ],
            "over_neurons": self.over_neurons,
        }

    def summary(self) -> str:
        """The same as two tables of at most 100 columns, and how to read them."""
        width = max(len(name) for name in (*self.accuracies, "student"))
        lines = [
            f"{'student':<{width}}  {'ACC':>6}  {'95 % interval':>15}  {'n':>6}  {'rACC':>6}  {'95 % interval':>15}"
        ]
        for name, rate in self.accuracies.items():
            compared = self.relative_accuracies.get(name)
            lines.append(f"{name:<{width}}  {_rate(rate)}  {_estimate(compared)}".rstrip())
        if self.inherited:
            wide = max(len(row.defect) for row in self.inherited)
            head = f"{'DIR':>6}  {'95 % interval':>15}  {'n':>6}  {'rDIR':>6}  {'95 % interval':>15}"
            as_f1s = any(row.f1 is not None for row in self.inherited)
            lines += ["", f"{'defect':<{wide}}  {'student':<{width}}  {head}{'    F1' if as_f1s else ''}"]
            for row in self.worst_first:
                figures = f"{_rate(row.rate)}  {_estimate(row.relative):<23}"
                f1 = "" if row.f1 is None else f"  {row.f1:.3f}"
                lines.append(f"{row.defect:<{wide}}  {row.student:<{width}}  {figures}{f1}".rstrip())
            lines += [
                f"{student}, over {spread['neurons']} neurons: DIR {spread['worst']:.3f} at worst, on average "
                f"{spread['mean']:.3f}."
                for student, spread in self.over_neurons.items()
            ]
            over_floor = [row for row in self.worst_first if row.excess is not None]
            if over_floor:
                lines += ["", f"{'defect':<{wide}}  {'student':<{width}}  {'excess':>6}  {'95 % interval':>15}"]
                lines += [
                    f"{row.defect:<{wide}}  {row.student:<{width}}  {_estimate(row.excess)}" for row in over_floor
                ]
            lines += ["", *_legend(self.inherited)]
        if self.control is not None:
            lines.append(f"rACC, rDIR: over those of the control, {self.control}, on the same inputs.")
        for floor in dict.fromkeys(self.floors.values()):
            lines.append(f"excess: 0 is the DIR of the floor, {floor}, which cannot have inherited; 1 the control's.")
        if any(row.relative is not None or row.excess is not None for row in self.inherited):
            lines.append("Intervals are over test inputs only: other training seeds would differ by more.")
        return in_lines([*lines, *(f"Warning: {warning}" for warning in self.warnings)])


def measure(
    students: Students,
    x: np.ndarray,
    y: np.ndarray,
    attacks: Attacks,
    *,
    control: str | None = None,
    floors: Mapping[str, str] | None = None,
    batch_size: int = 64,
    seed: int = 0,
    verbose: bool | str = "auto",
) -> InheritanceReport:
    """Measures what students inherited from a teacher.

    Every batch of images goes to the device once for all students, and clean samples that attacks share are asked about
    once.

    Args:
        students: Classifiers by name, each with how its inputs come from pixels.
        x: The clean test set: pixels, shape `(n, ...)`; or texts, strings of shape `(n,)`, pairs `(n, 2)`.
        y: Its classes, whole numbers of shape `(n,)`.
        attacks: Attack sets by name, made with the students' teacher. For an attacker who makes a set of its own for
            each student, as the adaptive one does, these sets by the student's name; other students have no row there.
            The floor is then read under the same set as the student that it is compared with.
        control: The name of the student that the others are compared to.
        floors: By the attack's name, the student that cannot have inherited it: from scratch, or for a backdoor from
            the teacher before it was poisoned. Needs a control.
        batch_size: Samples at a time.
        seed: For the bootstrap intervals of ratios.
        verbose: Progress on stderr: `True`, `False`, or `"auto"` for terminals and notebooks only.

    Raises:
        DataError: If the samples do not fit a student, or there are classes that it does not know.
        MismatchError: If an attack set holds texts and the test set images or the other way round, its pixels mean
            something else than a student's, or there is no such control.
    """
    refuse_other_tasks(y)
    check_class_ids(y=y)
    floors = dict(floors or {})
    for role, named in (("control", [control] if control is not None else []), ("floor", floors.values())):
        for name in named:
            if name not in students:
                raise MismatchError(f"The {role} {name!r} is not one of the students: {', '.join(students)}.")
    for name, attack in ((name, each) for name, found in attacks.items() for each in _sets(found)):
        if attack.holds_text != holds_text(x):
            raise MismatchError(
                f"Attack {name!r} is made of {'texts' if attack.holds_text else 'images'}, the test set of "
                f"{'texts' if holds_text(x) else 'images'}."
            )
        for student, (_, space) in students.items():
            try:
                space.check_same_pixels(attack.space)
            except MismatchError as error:
                raise MismatchError(f"Attack {name!r} and student {student!r}: {error}") from None
    panel = Panel(students)
    warnings = []
    said = panel.predict(x, batch_size=batch_size, verbose=verbose, description="Clean")
    flat = {f"{name} {number}": each for name, found in attacks.items() for number, each in enumerate(_sets(found))}
    _check_classes(panel, y, flat)
    absent = missing_classes(y, max(panel.num_classes.values()))
    if absent:
        names = ", ".join(_class_name(label, flat) for label in absent)
        warnings.append(f"no test sample is of class {names}: nothing is said about it.")
    accuracies = {name: accuracy(classes, y) for name, classes in said.items()}
    rows: list[Inherited] = []
    neurons = _neurons({name: each for name, each in attacks.items() if isinstance(each, AttackSet)})

    def ask(title: str, attack: AttackSet) -> dict[str, tuple[Rate, Rate | None]]:
        same = attack.record.get("unchanged", 0)
        if same:
            warnings.append(f"{title}: {same} of {len(attack)} inputs are as they were, and count as withstood.")
        how: dict[str, Any] = {"batch_size": batch_size, "verbose": verbose}
        clean = said
        if not np.array_equal(attack.clean, x):
            clean = panel.predict(attack.clean, description=f"{title}: clean", **how)
        fooled = panel.predict(attack.inputs, description=title, **how)
        return {name: _rates(clean[name], fooled[name], attack) for name in students}

    for defect, made in attacks.items():
        if isinstance(made, AttackSet):
            rates = ask(defect, made)
            under = dict.fromkeys(students, rates)
        else:
            under = {name: ask(f"{defect} ({name})", own) for name, own in made.items()}
        for name, rates in under.items():
            flipped, targeted = rates[name]
            compared = excess = None
            if control is not None and control in under:
                ours, theirs = _wanted(rates[name]), _wanted(under[control][control])
                compared = ours.relative(theirs, seed=seed)
                if defect in floors:
                    excess = ours.excess(theirs, _wanted(rates[floors[defect]]), seed=seed)
            rows.append(
                Inherited(
                    name,
                    defect,
                    flipped,
                    targeted,
                    compared,
                    of_text=_sets(made)[0].holds_text,
                    excess=excess,
                    neuron=neurons.get(defect),
                )
            )
        if control in under and defect in floors:
            both = [_wanted(under[control][each]) for each in (control, floors[defect])]
            warnings += why_no_test(defect, *both, excess=rows[-1].excess, defect=_sets(made)[0].defect)
    relative = {} if control is None else {n: r.relative(accuracies[control], seed=seed) for n, r in accuracies.items()}
    return InheritanceReport(accuracies, relative, tuple(rows), control, tuple(warnings), floors)


def _sets(made: AttackSet | Mapping[str, AttackSet]) -> list[AttackSet]:
    return [made] if isinstance(made, AttackSet) else list(made.values())


def _wanted(rates: tuple[Rate, Rate | None]) -> Rate:
    """What the attacker is after, of flipped and targeted."""
    flipped, targeted = rates
    return flipped if targeted is None else targeted


def _rates(clean: np.ndarray, attacked: np.ndarray, attack: AttackSet) -> tuple[Rate, Rate | None]:
    flipped = flip_rate(clean, attacked, attack.labels)
    return flipped, None if attack.target is None else target_rate(attacked, attack.labels, attack.target)


def _neurons(attacks: Mapping[str, AttackSet]) -> dict[str, int]:
    """The neurons of attacks that differ in nothing else; none where some do, or drive the same one."""
    driven = {
        name: attack.options["neuron"]
        for name, attack in attacks.items()
        if isinstance(attack.options.get("neuron"), int)
    }
    others = {json.dumps({**attacks[name].options, "neuron": None}, sort_keys=True) for name in driven}
    return driven if len(others) == 1 and len(set(driven.values())) == len(driven) else {}


def _class_name(label: int, attacks: Mapping[str, AttackSet]) -> str:
    names = next((attack.class_names for attack in attacks.values() if len(attack.class_names) > label), ())
    return f"{label} ({names[label]})" if names else str(label)


def _check_classes(panel: Panel, y: np.ndarray, attacks: Mapping[str, AttackSet]) -> None:
    most = max([int(y.max(initial=0)), *(int(attack.labels.max(initial=0)) for attack in attacks.values())])
    for name, classes in panel.num_classes.items():
        if most >= classes:
            raise DataError(
                f"Student {name!r} tells {classes} classes apart, and the test set has a class {most}. Test it on the "
                "classes that it was trained on, in the same order."
            )


def _legend(rows: tuple[Inherited, ...]) -> list[str]:
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
    low, high = rate.interval()
    return f"{rate.value:>6.3f}  {f'{low:.3f} to {high:.3f}':>15}  {rate.total:>6,}"


def _estimate(estimate: Estimate | None) -> str:
    if estimate is None:
        return ""
    return f"{estimate.value:>6.3f}  {f'{estimate.low:.3f} to {estimate.high:.3f}':>15}"


def _shown(estimate: Estimate | None) -> str:
    return "" if estimate is None else f"{estimate.value:.3f}"


def _described(value: Rate | Estimate | None) -> dict[str, Any] | None:
    return None if value is None else value.describe()
