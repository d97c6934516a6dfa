"""How attacks do on the teacher itself: what does not fool it cannot have been inherited from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_remos.data.pixels import PixelSpace
from keras_remos.defects import DEFECTS, AttackSet, Prepared
from keras_remos.errors import RemosError
from keras_remos.evaluation.inherited import TeacherRow
from keras_remos.evaluation.metrics import Rate, accuracy, flip_rate, target_rate
from keras_remos.evaluation.predictions import Panel

TEACHER = "the teacher"


def ask_teacher(
    teacher: keras.Model,
    space: PixelSpace,
    x: np.ndarray,
    y: np.ndarray,
    attacks: Mapping[str, AttackSet],
    *,
    num_classes: int,
    batch_size: int = 64,
    verbose: bool | str = "auto",
) -> TeacherRow:
    """Counts how often attacks fool a teacher, and how accurate it is where its classes are the data's.

    Args:
        teacher: The teacher.
        space: How its inputs come from pixels.
        x: The clean test set: see `measure`.
        y: Its classes.
        attacks: Attack sets by name.
        num_classes: How many classes the students tell apart.
        batch_size: Samples at a time.
        verbose: Progress on stderr: `True`, `False`, or `"auto"` for terminals and notebooks only.
    """
    panel = Panel({TEACHER: (teacher, space)})
    how: dict[str, Any] = {"batch_size": batch_size, "verbose": verbose}
    try:
        said = panel.predict(x, description="The teacher", **how)[TEACHER]
    except RemosError as error:
        return TeacherRow(None, f"The teacher cannot be asked: {error}", {})
    fits = panel.num_classes[TEACHER] == num_classes
    rates: dict[str, Rate] = {}
    left_out: dict[str, str] = {}
    for name, attack in attacks.items():
        if attack.target is not None and not fits:
            left_out[name] = f"Its head tells {panel.num_classes[TEACHER]} classes apart, not the data's {num_classes}."
            continue
        clean = said
        if not np.array_equal(attack.clean, x):
            clean = panel.predict(attack.clean, description=f"The teacher, {name}: clean", **how)[TEACHER]
        fooled = panel.predict(attack.inputs, description=f"The teacher, {name}", **how)[TEACHER]
        aimed = attack.target is not None
        # Where its classes are other ones than the data's, what it says of the clean input is all there is to change.
        rates[name] = (
            target_rate(fooled, attack.labels, attack.target or 0) if aimed else flip_rate(clean, fooled, clean)
        )
    if not fits:
        note = (
            f"The teacher has no accuracy here: it tells {panel.num_classes[TEACHER]} classes apart, the data have "
            f"{num_classes}."
        )
        return TeacherRow(None, note, rates, left_out)
    clean_accuracy = accuracy(said, y)
    guess = float(np.bincount(y).max() / len(y))
    note = ""
    if clean_accuracy.interval()[0] <= guess:
        note = "The teacher tells as many classes apart as the data have, but hardly the same: it guesses."
    return TeacherRow(clean_accuracy, note, rates, left_out)


def try_trigger(
    prepared: Prepared,
    x: np.ndarray,
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
        prepared.teacher,
        prepared.space,
        x,
        y,
        {name: made},
        num_classes=max(len(class_names), int(y.max()) + 1),
        batch_size=batch_size,
        verbose=verbose,
    )
