"""`tune_keep_ratio`: the smallest slice that costs no accuracy, found on validation data without any attack."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np

from keras_remos.data.parts import set_aside
from keras_remos.errors import RemosError
from keras_remos.methods.finetune import FineTune
from keras_remos.methods.remos import Remos
from keras_remos.methods.tuning import VALIDATION_SHARE, right_after_training
from keras_remos.slicing.scores import check_keep_ratio
from keras_remos.slicing.slicer import RelevantSlicer
from keras_remos.training.recipe import Recipe, default_recipe
from keras_remos.training.task import Task

RATIOS = (0.9, 0.8, 0.7, 0.6, 0.5)
"""The shares that are tried, largest first."""


@dataclass(frozen=True)
class Step:
    """One share that was tried.

    Args:
        keep_ratio: The share of weights that was kept.
        accuracy: On the validation data.
        lost: How much less that is than the fine-tuned student's.
        error: The standard error of `lost`: both students answered the same samples.
    """

    keep_ratio: float
    accuracy: float
    lost: float
    error: float


@dataclass(frozen=True)
class KeepRatio:
    """What the search for a share found.

    Args:
        keep_ratio: The smallest share that loses no more than one standard error and the tolerance; 1 if none does.
        steps: All that was tried, the largest share first.
        fine_tuned: Validation accuracy of the student that was fine-tuned for as long.
        epochs: For how many epochs each was trained.
        validation_samples: How many samples accuracies are of.
        tolerance: The accuracy that a slice may cost at most.
    """

    keep_ratio: float
    steps: tuple[Step, ...]
    fine_tuned: float
    epochs: int
    validation_samples: int
    tolerance: float

    def describe(self) -> dict[str, Any]:
        """The same as plain values for JSON."""
        return {**vars(self), "steps": [vars(step) for step in self.steps]}

    def summary(self) -> str:
        """What was tried, a line for each share."""
        lines = [f"kept    accuracy    lost   (fine-tuned: {self.fine_tuned:.3f}, n = {self.validation_samples})"]
        for step in self.steps:
            mark = "  <- chosen" if step.keep_ratio == self.keep_ratio else ""
            lines.append(f"{step.keep_ratio:<8g}{step.accuracy:>8.3f}{step.lost:>8.3f} +- {step.error:.3f}{mark}")
        return "\n".join(lines)


def tune_keep_ratio(
    teacher: keras.Model,
    train: Any,
    validation: Any = None,
    *,
    preset: str = "recommended",
    ratios: Sequence[float] = RATIOS,
    recipe: Recipe | None = None,
    budget: float = 4.0,
    tolerance: float = 0.01,
    seed: int = 0,
    verbose: bool | str = "auto",
    **options: Any,
) -> KeepRatio:
    """Finds how little of a teacher a student can be started from without losing accuracy.

    Nested slices of one ranking are trained for as long as the budget allows, and so is a fine-tuned student. The
    smallest slice is taken that loses no more than one standard error, and no more than the tolerance. It knows of no
    attack.

    Args:
        teacher: See `Method.train`.
        train: What students learn from: arrays `(x, y)` or a `Dataset`; with `validation` whatever else `fit` takes.
        validation: What accuracy is measured on. By default a fifth of every class of `train`, which is then not
            trained on.
        preset: How the slices are chosen: see `RelevantSlicer`.
        ratios: The shares that are tried, in (0, 1].
        recipe: How students are trained: the one that will train the student, tuned before.
        budget: How many trainings of `recipe` it may cost. With less than one for each, all are trained for less long.
        tolerance: The accuracy that a slice may cost at most, from 0.
        seed: Of every training, and of what is set aside.
        verbose: Progress on stderr: `True`, `False`, or `"auto"` for a terminal only.
        **options: More for `Method.train`: `num_classes`, `head`, `harden`, `space`.

    Returns:
        The share, and all that was tried.

    Raises:
        RemosError: If an option is out of range, or training diverges.
        DataError: If there are no validation data and none can be set aside.

    Warns:
        UserWarning: If there are too few validation samples to tell the tolerance; says how many would do.

    Example:
    ```python
    found = tune_keep_ratio(teacher, (x, y), recipe=tuning.recipe)
    print(found.summary())
    student = RelevantSlicer(teacher, keep_ratio=found.keep_ratio).apply((x, y), num_classes=10)
    ```

    Reference:
        The rule of one standard error: L. Breiman et al., Classification and Regression Trees, 1984, section 3.4.3.
    """
    ratios = sorted({float(ratio) for ratio in ratios}, reverse=True)
    if not ratios or not budget > 0 or not tolerance >= 0:
        raise RemosError(
            "`ratios` must be one or more shares, `budget` above 0 and `tolerance` at least 0, received "
            f"{list(ratios)}, {budget!r} and {tolerance!r}."
        )
    for ratio in ratios:
        check_keep_ratio(ratio)
    whole = recipe or default_recipe(teacher)
    if validation is None:
        train, validation = set_aside(train, VALIDATION_SHARE, seed=seed)
    share = min(1.0, budget / (len(ratios) + 1))
    short = replace(whole, epochs=max(1, round(share * whole.epochs)))
    of_task = {name: options[name] for name in ("num_classes", "head") if name in options}
    task = Task(teacher, train, recipe=short, seed=seed, **of_task)
    slicer = RelevantSlicer(teacher, preset=preset, head=task.head)
    slices = slicer.sweep(slicer.profile(task.plain_data(), verbose=verbose), keep_ratios=ratios)
    judged = {"seed": seed, "verbose": verbose, **options}
    control = right_after_training(FineTune(), teacher, train, validation, short, **judged)
    steps = []
    for ratio, relevant in slices.items():
        right = right_after_training(Remos(relevant=relevant), teacher, train, validation, short, **judged)
        lost = control.astype(np.float64) - right
        steps.append(Step(ratio, float(right.mean()), float(lost.mean()), float(lost.std() / math.sqrt(len(lost)))))
    _warn_if_blind(steps, tolerance, len(control))
    near = [step.keep_ratio for step in steps if step.lost <= min(step.error, tolerance)]
    return KeepRatio(min(near, default=1.0), tuple(steps), float(control.mean()), short.epochs, len(control), tolerance)


def _warn_if_blind(steps: Sequence[Step], tolerance: float, samples: int) -> None:
    error = sorted(step.error for step in steps)[len(steps) // 2]
    if not tolerance or error <= tolerance:
        return
    enough = math.ceil(samples * (error / tolerance) ** 2)
    warnings.warn(
        f"{samples:,} validation samples tell accuracies apart by about {error:.3f}, not by the tolerance of "
        f"{tolerance:g}: about {enough:,} would. The share that is chosen is partly chance.",
        stacklevel=3,
    )
