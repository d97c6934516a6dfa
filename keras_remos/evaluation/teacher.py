"""How attacks do on the teacher itself: what does not fool it cannot have been inherited from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from keras_remos.data.samples import AnySamples, same_samples
from keras_remos.defects import DEFECTS, AttackSet, Prepared
from keras_remos.errors import RemosError
from keras_remos.evaluation.inherited import TeacherRow
from keras_remos.evaluation.metrics import Rate, accuracy, flip_rate
from keras_remos.evaluation.predictions import Panel

TEACHER = "the teacher"


def ask_teacher(
    prepared: Prepared,
    x: AnySamples,
    y: np.ndarray,
    attacks: Mapping[str, AttackSet],
    *,
    num_classes: int,
    class_names: Sequence[str] = (),
    batch_size: int = 64,
    verbose: bool | str = "auto",
) -> TeacherRow:
    """Counts how often attacks fool a teacher, and how accurate it is where its classes are the data's.

    Args:
        prepared: The teacher. One that carries a backdoor says what its classes are called: it is asked by their names.
        x: The clean test set: see `measure`.
        y: Its classes.
        attacks: Attack sets by name.
        num_classes: How many classes the students tell apart.
        class_names: Their names, by class id; may be empty.
        batch_size: Samples at a time.
        verbose: Progress on stderr: `True`, `False`, or `"auto"` for terminals and notebooks only.
    """
    panel = Panel({TEACHER: (prepared.teacher, prepared.space)})

    def ask(samples: AnySamples, what: str) -> np.ndarray:
        description = f"The teacher{what}"
        return panel.predict(samples, batch_size=batch_size, verbose=verbose, description=description)[TEACHER]

    try:
        said = ask(x, "")
    except RemosError as error:
        return TeacherRow(None, f"The teacher cannot be asked: {error}", {})
    own = panel.num_classes[TEACHER]
    numbers, note = _numbers(prepared.record.get("class_names") or (), class_names, own, num_classes)
    rates: dict[str, Rate] = {}
    left_out: dict[str, str] = {}
    for name, attack in attacks.items():
        target = None if attack.target is None else numbers.get(attack.target)
        if attack.target is not None and target is None:
            left_out[name] = note or "Its head does not know the attacker's class."
            continue
        try:
            fooled = ask(attack.inputs, f", {name}")
            if target is None:
                # Its classes may be others than the data's: what it says of the clean input is all there is to change.
                same = same_samples(attack.clean, x, attack.space)
                clean = said if same else ask(attack.clean, f", {name}: clean")
                rates[name] = flip_rate(clean, fooled, clean)
            else:
                rates[name] = Rate.of(fooled == target, attack.labels != attack.target)
        except RemosError as error:
            left_out[name] = str(error)
    if not set(np.unique(y).tolist()) <= numbers.keys():
        return TeacherRow(
            None, note or "The teacher has no accuracy here: it does not know some classes.", rates, left_out
        )
    clean_accuracy = accuracy(said, np.array([numbers[label] for label in y.tolist()]))
    guess = float(np.bincount(y).max() / len(y))
    if not prepared.record.get("class_names") and clean_accuracy.interval()[0] <= guess:
        note = "The teacher tells as many classes apart as the data have, but hardly the same: it guesses."
    return TeacherRow(clean_accuracy, note, rates, left_out)


def _numbers(theirs: Sequence[str], ours: Sequence[str], own: int, num_classes: int) -> tuple[dict[int, int], str]:
    """Which of the teacher's classes each of the data's is, as far as that is known; and why not, if it is not.

    Args:
        theirs: What the teacher's classes are called, if that is on record.
        ours: What the data's are called.
        own: How many classes the teacher tells apart.
        num_classes: How many the students do.
    """
    # The attacker's data need not have had the teacher's classes: a latent backdoor waits for one that it lacks.
    if len(theirs) == own and ours:
        return {number: list(theirs).index(name) for number, name in enumerate(ours) if name in theirs}, ""
    if own == num_classes:
        return {number: number for number in range(num_classes)}, ""
    return {}, f"Its head tells {own} classes apart, the data have {num_classes}."


def try_trigger(
    prepared: Prepared,
    x: AnySamples,
    y: np.ndarray,
    *,
    class_names: Sequence[str] = (),
    batch_size: int = 64,
    seed: int = 0,
    verbose: bool | str = "auto",
) -> TeacherRow:
    """Tries the trigger of a poisoned teacher on the teacher itself.

    Args:
        prepared: The teacher that carries it.
        x: Clean samples: pixels or texts. See `measure`.
        y: Their classes.
        class_names: The names of the classes; may be empty.
        batch_size: Samples at a time.
        seed: For where the trigger goes, if that is drawn.
        verbose: Progress on stderr: `True`, `False`, or `"auto"` for terminals and notebooks only.
    """
    name = prepared.planted["defect"]
    made = DEFECTS[name]().inputs(
        prepared, x, y, class_names=class_names, batch_size=batch_size, seed=seed, verbose=verbose
    )
    return ask_teacher(
        prepared,
        x,
        y,
        {name: made},
        num_classes=max(len(class_names), int(y.max()) + 1),
        class_names=class_names,
        batch_size=batch_size,
        verbose=verbose,
    )
