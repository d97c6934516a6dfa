"""The smallest slice that costs no accuracy, found on validation data without any attack."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

import keras
import numpy as np

from keras_remos.errors import DivergedError
from keras_remos.methods.plan import side_by_side, spread
from keras_remos.methods.trials import Trials, told_apart
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
        error: The standard error of `lost`: both students answered the same samples. Above 0 also where they agree.
        pooled: `lost`, averaged with its neighbours wherever a smaller share seems to lose less: see `pool`.
    """

    keep_ratio: float
    accuracy: float
    lost: float
    error: float
    pooled: float


@dataclass(frozen=True)
class KeepRatio:
    """What the search for a share found.

    The control is fine-tuned with the student's own hardening, at its learning rate: see `tune_keep_ratio`.

    Args:
        keep_ratio: The smallest share that loses no more than one standard error and the tolerance, once luck is
            averaged out (`Step.pooled`); the largest if all lose more.
        steps: All that was tried and did not diverge, the largest share first.
        fine_tuned: Validation accuracy of the control, which was fine-tuned for as long.
        epochs: For how many epochs each was trained.
        validation_samples: How many samples accuracies are of.
        tolerance: The accuracy that a slice may cost at most.
        diverged: The shares whose training diverged.
    """

    keep_ratio: float
    steps: tuple[Step, ...]
    fine_tuned: float
    epochs: int
    validation_samples: int
    tolerance: float
    diverged: tuple[float, ...] = ()

    def describe(self) -> dict[str, Any]:
        """The same as plain values for JSON."""
        return {**vars(self), "steps": [vars(step) for step in self.steps], "diverged": list(self.diverged)}

    def summary(self) -> str:
        """What was tried, a line for each share."""
        known = f"(fine-tuned: {self.fine_tuned:.3f}, n = {self.validation_samples})"
        lines = [f"kept    accuracy    lost            pooled   {known}"]
        for step in self.steps:
            mark = "  <- chosen" if step.keep_ratio == self.keep_ratio else ""
            lost = f"{step.lost:>8.3f} +- {step.error:.3f}{step.pooled:>9.3f}"
            lines.append(f"{step.keep_ratio:<8g}{step.accuracy:>8.3f}{lost}{mark}")
        lines += [f"{ratio:<8g}diverged" for ratio in self.diverged]
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
    trials: Trials | None = None,
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
        trials: What was tried before, which is not trained again.
        **options: More for `Method.train`.

    Raises:
        DivergedError: If training diverges for the control or for every share.

    Warns:
        UserWarning: See `tune_keep_ratio`.
    """
    plan = side_by_side(len(candidates), recipe.epochs, budget)
    short = replace(recipe, epochs=plan.epochs)
    ratios = spread(sorted(candidates, reverse=True), plan.count - 1)
    tried = {"fine-tuned": control, **{f"{ratio:g} kept": candidates[ratio] for ratio in ratios}}
    trials = trials or Trials()
    answers: list[np.ndarray | None] = []
    with track_named(tried, description="Trial", verbose=verbose) as tracked:
        for name, method in tracked:
            try:
                answers.append(
                    right_after_training(
                        method, teacher, train, validation, short, verbose=verbose, trials=trials, **options
                    )
                )
            except DivergedError:
                answers.append(None)
                if name == "fine-tuned":
                    break
    reference, *others = answers
    if reference is None or all(right is None for right in others):
        trials.forget_diverged()
        which = "the fine-tuned student" if reference is None else "every share"
        raise DivergedError(
            f"The search for how much to keep: training diverged for {which}. "
            "Lower the learning rate, and check that inputs are scaled as the teacher was trained and hold no NaN."
        )
    answered = [(ratio, right) for ratio, right in zip(ratios, others, strict=True) if right is not None]
    diverged = tuple(ratio for ratio in ratios if ratio not in dict(answered))
    steps = pool([compare(ratio, reference, right) for ratio, right in answered])
    _warn_if_blind(steps, tolerance, len(reference))
    near = [step.keep_ratio for step in steps if step.pooled <= min(step.error, tolerance)]
    accuracy = float(reference.mean())
    if not near:
        largest = steps[0]
        warnings.warn(
            f"Every slice costs accuracy: the largest, {largest.keep_ratio:g} kept, {largest.pooled:.3f} of "
            f"{reference.mean():.3f}. It is taken all the same: what keeps more keeps the teacher's defects.",
            stacklevel=4,
        )
    chosen = min(near, default=steps[0].keep_ratio)
    return KeepRatio(chosen, tuple(steps), accuracy, short.epochs, len(reference), tolerance, diverged)


def compare(keep_ratio: float, reference: np.ndarray, right: np.ndarray) -> Step:
    """What a share costs, by which validation samples the control and its student got right: booleans.

    Reference:
        The error: D. Bonett and R. Price, Adjusted Wald Confidence Interval for a Difference of Binomial Proportions
        Based on Paired Data, Journal of Educational and Behavioral Statistics 37, 2012. One more sample is lost and one
        more gained than were, so that a few that agree are no proof.
    """
    samples = len(reference)
    lost, gained = int(np.sum(reference & ~right)), int(np.sum(right & ~reference))
    more, less = (lost + 1) / (samples + 2), (gained + 1) / (samples + 2)
    error = math.sqrt((more + less - (more - less) ** 2) / (samples + 2))
    difference = (lost - gained) / samples
    return Step(keep_ratio, float(right.mean()), difference, error, difference)


def pool(steps: Sequence[Step]) -> list[Step]:
    """What shares lose, on the understanding that a smaller one loses no less: a larger slice holds all that it has.

    Where a smaller share did better by luck, both are given their mean, so that luck does not choose.

    Args:
        steps: The largest share first.

    Reference:
        Isotonic regression by pooling adjacent violators: M. Ayer et al., An Empirical Distribution Function for
        Sampling with Incomplete Information, Annals of Mathematical Statistics 26, 1955.
    """
    blocks: list[list[float]] = []
    for step in steps:
        blocks.append([step.lost])
        while len(blocks) > 1 and fmean(blocks[-2]) > fmean(blocks[-1]):
            last = blocks.pop()
            blocks[-1] += last
    pooled = [fmean(block) for block in blocks for _ in block]
    return [replace(step, pooled=value) for step, value in zip(steps, pooled, strict=True)]


def _warn_if_blind(steps: Sequence[Step], tolerance: float, samples: int) -> None:
    error = sorted(step.error for step in steps)[len(steps) // 2]
    if not tolerance or error <= tolerance:
        return
    chance = "The share that is chosen is partly chance."
    warnings.warn(f"{told_apart(samples, error, tolerance)} {chance}", stacklevel=4)
