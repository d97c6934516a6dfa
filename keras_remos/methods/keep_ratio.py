"""The smallest slice that costs no accuracy, found on validation data without any attack."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np

from keras_remos.methods.plan import side_by_side, spread
from keras_remos.methods.tuning import Trainable, right_after_training
from keras_remos.progress import track_named
from keras_remos.training.recipe import Recipe

RATIOS = (0.95, 0.9, 0.8, 0.7, 0.6)
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
        keep_ratio: The smallest share that loses no more than one standard error and the tolerance; the largest if
            all lose more.
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


def search(
    control: Trainable,
    candidates: Mapping[float, Trainable],
    teacher: keras.Model,
    train: Any,
    validation: Any,
    *,
    recipe: Recipe,
    budget: float,
    tolerance: float,
    verbose: bool | str = "auto",
    **options: Any,
) -> KeepRatio:
    """Trains a control and a student of each share, all for as long, and compares them.

    Args:
        control: What fine-tunes.
        candidates: What trains a student of each share.
        teacher: See `Method.train`.
        train: What students learn from.
        validation: What accuracy is measured on.
        recipe: How students are trained, in whole.
        budget: See `tune_keep_ratio`, as for `tolerance`.
        tolerance: The accuracy that a slice may cost at most.
        verbose: Progress on stderr: `True`, `False`, or `"auto"` for terminals and notebooks only.
        **options: More for `Method.train`.

    Warns:
        UserWarning: See `tune_keep_ratio`.
    """
    plan = side_by_side(len(candidates), recipe.epochs, budget)
    short = replace(recipe, epochs=plan.epochs)
    ratios = spread(sorted(candidates, reverse=True), plan.count - 1)
    tried = {"fine-tuned": control, **{f"{ratio:g} kept": candidates[ratio] for ratio in ratios}}
    with track_named(tried, description="Trial", verbose=verbose) as tracked:
        reference, *others = (
            right_after_training(method, teacher, train, validation, short, verbose=verbose, **options)
            for _, method in tracked
        )
    steps = []
    for ratio, right in zip(ratios, others, strict=True):
        lost = reference.astype(np.float64) - right
        steps.append(Step(ratio, float(right.mean()), float(lost.mean()), float(lost.std() / math.sqrt(len(lost)))))
    _warn_if_blind(steps, tolerance, len(reference))
    near = [step.keep_ratio for step in steps if step.lost <= min(step.error, tolerance)]
    accuracy = float(reference.mean())
    if not near:
        largest = steps[0]
        warnings.warn(
            f"Every slice costs accuracy: the largest, {largest.keep_ratio:g} kept, {largest.lost:.3f} of "
            f"{reference.mean():.3f}. It is taken all the same: what keeps more keeps the teacher's defects.",
            stacklevel=4,
        )
    chosen = min(near, default=steps[0].keep_ratio)
    return KeepRatio(chosen, tuple(steps), accuracy, short.epochs, len(reference), tolerance)


def _warn_if_blind(steps: Sequence[Step], tolerance: float, samples: int) -> None:
    error = sorted(step.error for step in steps)[len(steps) // 2]
    if not tolerance or error <= tolerance:
        return
    enough = math.ceil(samples * (error / tolerance) ** 2)
    warnings.warn(
        f"{samples:,} validation samples tell accuracies apart by about {error:.3f}, not by the tolerance of "
        f"{tolerance:g}: about {enough:,} would. The share that is chosen is partly chance.",
        stacklevel=4,
    )
