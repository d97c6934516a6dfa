"""Asks students about clean and malicious inputs, and counts."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from keras_remos.data.other_tasks import refuse_other_tasks
from keras_remos.data.pixels import PixelSpace
from keras_remos.data.samples import AnySamples, as_samples, same_samples
from keras_remos.data.texts import holds_text
from keras_remos.defects.attack_set import AttackSet
from keras_remos.defects.prepared import Prepared
from keras_remos.errors import DataError, MismatchError
from keras_remos.evaluation.inheritance import InheritanceReport
from keras_remos.evaluation.inherited import Answers, Inherited
from keras_remos.evaluation.metrics import (
    Rate,
    accuracy,
    check_class_ids,
    confusion,
    flip_rate,
    missing_classes,
    target_rate,
)
from keras_remos.evaluation.predictions import Panel
from keras_remos.evaluation.teacher import ask_teacher
from keras_remos.evaluation.verdict import judge, plants, takes_a_copy
from keras_remos.untrusted import check_seed

Students = Mapping[str, tuple[keras.Model, PixelSpace]]
Attacks = Mapping[str, AttackSet | Mapping[str, AttackSet]]


def measure(
    students: Students,
    x: AnySamples,
    y: np.ndarray,
    attacks: Attacks,
    *,
    control: str | None = None,
    floors: Mapping[str, str] | None = None,
    teacher: tuple[keras.Model, PixelSpace] | Prepared | None = None,
    class_names: Sequence[str] = (),
    beside: Collection[str] = (),
    batch_size: int = 64,
    seed: int = 0,
    verbose: bool | str = "auto",
) -> InheritanceReport:
    """Measures what students inherited from a teacher.

    Every batch of images goes to the device once for all students, and clean samples that attacks share are asked about
    once.

    Args:
        students: Classifiers by name, each with how its inputs come from pixels.
        x: The clean test set: pixels, shape `(n, ...)`, as an array or `Samples`; or texts, strings of shape `(n,)`,
            pairs `(n, 2)`.
        y: Its classes, whole numbers of shape `(n,)`.
        attacks: Attack sets by name, made with the students' teacher. For an attacker who makes a set of its own for
            each student, as the adaptive one does, these sets by the student's name; other students have no row there.
            The floor is then read under the same set as the student that it is compared with.
        control: The name of the student that the others are compared to.
        floors: By the attack's name, the student that cannot have inherited it: from scratch, or for a backdoor from
            the teacher before it was poisoned. Needs a control.
        teacher: The teacher and how its inputs come from pixels, to see how often the attacks fool it: as a pair, or as
            `Prepared`, which also tells what its classes are called. Sets that an attacker made for one student are not
            tried on it.
        class_names: Of the test set, for sentences that name a class; by default those that attack sets bring.
        beside: Students that are no candidates, as floors are that no attack here has: they are not judged.
        batch_size: Samples at a time.
        seed: For the bootstrap intervals of ratios.
        verbose: Progress on stderr: `True`, `False`, or `"auto"` for terminals and notebooks only.

    Raises:
        DataError: If the samples do not fit a student, or there are classes that it does not know.
        MismatchError: If an attack set holds texts and the test set images or the other way round, its pixels mean
            something else than a student's, or there is no such control.
    """
    check_seed(seed)
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
    # Its range and its digest are found once.
    x = as_samples(x, next(iter(students.values()))[1])
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
    shared = {name: each for name, each in attacks.items() if isinstance(each, AttackSet)}
    neurons = _neurons(shared)

    def ask(title: str, attack: AttackSet) -> dict[str, Answers]:
        same = attack.record.get("unchanged", 0)
        if same:
            warnings.append(f"{title}: {same} of {len(attack)} inputs are as they were, and count as withstood.")
        how: dict[str, Any] = {"batch_size": batch_size, "verbose": verbose}
        clean = said
        if not same_samples(attack.clean, x, attack.space):
            clean = panel.predict(attack.clean, description=f"{title}: clean", **how)
        fooled = panel.predict(attack.inputs, description=title, **how)
        return {name: Answers(clean[name], fooled[name]) for name in students}

    for defect, made in attacks.items():
        if isinstance(made, AttackSet):
            answers = ask(defect, made)
            under = dict.fromkeys(students, (made, answers))
        else:
            under = {name: (own, ask(f"{defect} ({name})", own)) for name, own in made.items()}
        rates = {
            (name, each): _rates(said_then, own)
            for name, (own, answers) in under.items()
            for each, said_then in answers.items()
        }
        for name, (own, answers) in under.items():
            compared = excess = None
            if control is not None and control in under:
                ours, theirs = (_wanted(rates[each, each]) for each in (name, control))
                compared = ours.relative(theirs, seed=seed)
                if defect in floors:
                    excess = ours.excess(theirs, _wanted(rates[name, floors[defect]]), seed=seed)
            rows.append(
                Inherited(
                    name,
                    defect,
                    *rates[name, name],
                    compared,
                    of_text=own.holds_text,
                    excess=excess,
                    neuron=neurons.get(defect),
                    floor=_wanted(rates[name, floors[defect]]) if defect in floors else None,
                    answers=answers[name],
                    confusion=confusion(own.labels, answers[name].attacked, panel.num_classes[name]),
                )
            )
    names_of_classes = class_names or max((each.class_names for each in flat.values()), key=len, default=())
    of_teacher = None
    if teacher is not None:
        of_teacher = ask_teacher(
            teacher if isinstance(teacher, Prepared) else Prepared(*teacher),
            x,
            y,
            shared,
            num_classes=max(panel.num_classes.values()),
            class_names=names_of_classes,
            batch_size=batch_size,
            verbose=verbose,
        )
    kinds = {name: _sets(made)[0].defect for name, made in attacks.items()}
    report = InheritanceReport(
        accuracies,
        {} if control is None else {n: r.relative(accuracies[control], seed=seed) for n, r in accuracies.items()},
        tuple(rows),
        control,
        tuple(warnings),
        floors,
        confusions={name: confusion(y, classes, panel.num_classes[name]) for name, classes in said.items()},
        teacher=of_teacher,
        plants=frozenset(name for name, kind in kinds.items() if plants(kind)),
        on_copies=frozenset(name for name, kind in kinds.items() if takes_a_copy(kind)),
        beside=frozenset(beside),
    )
    return replace(report, verdicts=judge(report, class_names=names_of_classes))


def dir_of(attack: AttackSet, ask: Callable[[AnySamples], np.ndarray]) -> Rate:
    """DIR of one model: of what the attacker is after.

    Args:
        attack: The attack set.
        ask: What the model says of samples, as class ids. Clean ones are asked about only where they count.
    """
    attacked = ask(attack.inputs)
    if attack.target is not None:
        return target_rate(attacked, attack.labels, attack.target)
    return flip_rate(ask(attack.clean), attacked, attack.labels)


def _sets(made: AttackSet | Mapping[str, AttackSet]) -> list[AttackSet]:
    return [made] if isinstance(made, AttackSet) else list(made.values())


def _wanted(rates: tuple[Rate, Rate | None]) -> Rate:
    """What the attacker is after, of flipped and targeted."""
    flipped, targeted = rates
    return flipped if targeted is None else targeted


def _rates(said: Answers, attack: AttackSet) -> tuple[Rate, Rate | None]:
    flipped = flip_rate(said.clean, said.attacked, attack.labels)
    return flipped, None if attack.target is None else target_rate(said.attacked, attack.labels, attack.target)


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
