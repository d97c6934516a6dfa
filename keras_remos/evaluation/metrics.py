"""What is said about a student in numbers: rates that know out of how many, and their intervals. Pure NumPy.

DIR ("defect inheritance rate") has two meanings in the literature, and the two are not interchangeable; each has its
own name here. `flip_rate`: of the images that the student gets right when clean, how many it gets wrong when attacked
(the ReMoS paper, for all its vision defects). `target_rate`: of the images that are not of the attacker's class, how
many the student calls so when attacked (the "attack success rate" of backdoors).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any

import numpy as np

from keras_remos.errors import DataError
from keras_remos.evaluation.intervals import (
    CONFIDENCE,
    RESAMPLES,
    Estimate,
    Joint,
    check_confidence,
    finite,
    percentiles,
)

NOT_COUNTED = -1


@dataclass(frozen=True)
class Rate:
    """So many out of so many.

    Args:
        count: How many inputs were hits.
        total: Out of how many that count. 0 makes the rate undefined (NaN), and is no error.
        outcomes: int8 of shape `(n,)`, one for each input of the test set: 1 a hit, 0 none, -1 not counted. What
            `relative` and `paired_bootstrap` need; `None` where only the counts are known.

    Example:
    ```python
    rate = flip_rate(clean, attacked, labels)
    print(f"{rate.value:.3f}, n = {rate.total}")
    low, high = rate.interval()
    ```
    """

    count: int
    total: int
    outcomes: np.ndarray | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not 0 <= self.count <= self.total:
            raise DataError(f"Expected a count from 0 to the total. Received: {self.count} out of {self.total}.")

    @classmethod
    def of(cls, hits: np.ndarray, counted: np.ndarray) -> Rate:
        """The share of hits among the inputs that count.

        Args:
            hits: Booleans of shape `(n,)`.
            counted: Booleans of shape `(n,)`: which inputs the rate is about.
        """
        outcomes = np.where(counted, hits, NOT_COUNTED).astype(np.int8)
        return cls(int(np.count_nonzero(outcomes == 1)), int(np.count_nonzero(counted)), outcomes)

    @property
    def value(self) -> float:
        """The share, 0 to 1; NaN if nothing counts."""
        return self.count / self.total if self.total else math.nan

    def interval(self, confidence: float = CONFIDENCE) -> tuple[float, float]:
        """Wilson's score interval, which holds for small totals and for rates of 0 and 1 too.

        Args:
            confidence: Above 0 and below 1.

        Returns:
            Lower and upper end; NaN for both if nothing counts.

        Reference:
            Wilson, Probable inference, the law of succession, and statistical inference, JASA 1927.
        """
        check_confidence(confidence)
        if not self.total:
            return math.nan, math.nan
        z = NormalDist().inv_cdf((1 + confidence) / 2)
        shrink = 1 + z**2 / self.total
        middle = (self.value + z**2 / (2 * self.total)) / shrink
        half = z / shrink * math.sqrt(self.value * (1 - self.value) / self.total + (z / (2 * self.total)) ** 2)
        # At the ends the formula is exact, and its rounding is not.
        low = 0.0 if self.count == 0 else middle - half
        high = 1.0 if self.count == self.total else middle + half
        return low, high

    def relative(
        self, control: Rate, *, seed: int = 0, confidence: float = CONFIDENCE, resamples: int = RESAMPLES
    ) -> Estimate:
        """This rate over that of a control on the same inputs: rACC and rDIR of ReMoS section 5.1.

        The interval is a paired percentile bootstrap: inputs are drawn anew with both models' outcomes on them.
        Resampling shows no doubt about a rate of 0 or 1; the interval is then the Wilson interval of this rate, over
        the control's value.

        Args:
            control: The control's rate: usually of a fine-tuned student.
            seed: For the bootstrap.
            confidence: Above 0 and below 1.
            resamples: How many samples the bootstrap draws.

        Returns:
            The ratio; NaN where either rate is undefined, or the control's is 0.

        Raises:
            DataError: If the two rates are not of the same inputs, or were made from counts alone.
        """
        joint = Joint(self.outcomes, control.outcomes)
        if not (self.total and control.count):
            return joint.undefined()
        ratio = self.value / control.value
        if self is not control and self.count in (0, self.total):
            low, high = (end / control.value for end in self.interval(confidence))
            return Estimate(ratio, low, high, joint.n)
        ours, theirs = joint.resample(seed, resamples)
        with np.errstate(divide="ignore", invalid="ignore"):
            return Estimate(ratio, *percentiles(ours / theirs, confidence), joint.n)

    def excess(
        self, control: Rate, floor: Rate, *, seed: int = 0, confidence: float = CONFIDENCE, resamples: int = RESAMPLES
    ) -> Estimate:
        """How much of what a control inherits this student inherits, above a floor: (this - floor) / (control - floor).

        A student that never met the teacher is fooled now and then, too, so a ratio to the control alone never reaches
        0. Here the floor reads 0 and the control 1. The interval is a percentile bootstrap over inputs, with the
        outcomes of all three on each. Resampling shows no doubt about a rate of 0 or 1, which is what hardened students
        and floors have: the interval then reaches as far as the ends of that rate's Wilson interval would.

        Args:
            control: The rate of a fine-tuned student.
            floor: The rate of a student that cannot have inherited: from scratch, or from the teacher before it was
                poisoned.
            seed: For the bootstrap.
            confidence: Above 0 and below 1.
            resamples: How many samples the bootstrap draws.

        Returns:
            The excess; below 0 where the student is fooled less than the floor. NaN where a rate is undefined, or the
            control is not clearly above the floor (the interval of their difference reaches 0): then there is nothing
            to inherit.

        Raises:
            DataError: If the rates are not of the same inputs, or were made from counts alone.
        """
        joint = Joint(self.outcomes, control.outcomes, floor.outcomes)
        if not (self.total and control.total and floor.total):
            return joint.undefined()
        ours, theirs, least = joint.resample(seed, resamples)
        if not percentiles(theirs - least, confidence)[0] > 0:
            return joint.undefined()
        with np.errstate(divide="ignore", invalid="ignore"):
            ends = list(percentiles((ours - least) / (theirs - least), confidence))
        if self is not control and self is not floor and self.count in (0, self.total):
            ends += [_above(end, control.value, floor.value) for end in self.interval(confidence)]
        if self is not floor and not floor.count:
            ends += [
                _above(self.value, control.value, end) for end in floor.interval(confidence) if end < control.value
            ]
        return Estimate(_above(self.value, control.value, floor.value), min(ends), max(ends), joint.n)

    def describe(self) -> dict[str, float | int | None]:
        """Count, total, value and 95 % interval as plain values for JSON; `None` for what is undefined."""
        low, high = self.interval()
        return {
            "count": self.count,
            "n": self.total,
            "value": finite(self.value),
            "low": finite(low),
            "high": finite(high),
        }


def _above(value: float, control: float, floor: float) -> float:
    return (value - floor) / (control - floor)


def accuracy(predicted: np.ndarray, labels: np.ndarray) -> Rate:
    """ACC: the share of inputs that a model gets right.

    Args:
        predicted: The classes that it says, whole numbers of shape `(n,)`.
        labels: The true classes, of the same shape.

    Raises:
        DataError: If these are not class ids, or differ in length.
    """
    predicted, labels = check_class_ids(predicted=predicted, labels=labels)
    return Rate.of(predicted == labels, np.ones(len(labels), bool))


def flip_rate(clean: np.ndarray, attacked: np.ndarray, labels: np.ndarray) -> Rate:
    """DIR of ReMoS section 5.1: of the inputs that a model gets right when clean, how many it gets wrong when attacked.

    Each model has its own denominator: its clean-correct inputs. A model that never gets one right has none.

    Args:
        clean: The classes that the model says for the clean inputs, whole numbers of shape `(n,)`.
        attacked: The classes that it says for their malicious versions.
        labels: The true classes.

    Raises:
        DataError: If these are not class ids, or differ in length.
    """
    clean, attacked, labels = check_class_ids(clean=clean, attacked=attacked, labels=labels)
    return Rate.of(attacked != labels, clean == labels)


def target_rate(attacked: np.ndarray, labels: np.ndarray, target: int) -> Rate:
    """Attack success rate: of the inputs that are not of the attacker's class, how many are called so when attacked.

    A clean model has one too: it confuses some inputs with that class anyway. Compare with the rate of a model that
    never met the attack.

    Args:
        attacked: The classes that the model says for the malicious inputs, whole numbers of shape `(n,)`.
        labels: The true classes.
        target: The attacker's class.

    Raises:
        DataError: If these are not class ids, or differ in length.
    """
    attacked, labels = check_class_ids(attacked=attacked, labels=labels)
    return Rate.of(attacked == target, labels != target)


def as_f1(rate: Rate) -> float:
    """A target rate in the form in which Table 2 of the ReMoS paper prints it: 2 r / (1 + r).

    The paper's "DIR" of language models is the F1 score of the attacker's class on triggered texts of other classes.
    All of these count as that class there, so precision is 1, recall is the rate r, and F1 is 2 r / (1 + r): always
    above r, 0.67 for a rate of a half. Compare with the paper by this figure, and judge by the rate.

    Args:
        rate: Of `target_rate`, which is what RIPPLe calls the label-flip rate.

    Returns:
        0 to 1; NaN if nothing counts.
    """
    return 2 * rate.value / (1 + rate.value)


def paired_bootstrap(
    a: Rate, b: Rate, *, seed: int = 0, confidence: float = CONFIDENCE, resamples: int = RESAMPLES
) -> Estimate:
    """How much higher one student's rate is than another's on the same inputs.

    Inputs are drawn anew with both students' outcomes on them, so that what makes an input hard for both cancels out.
    An interval without 0 says that the two differ on inputs like these; it knows nothing of other training seeds.

    Args:
        a: One student's rate.
        b: The other's, of the same test set in the same order.
        seed: For the bootstrap.
        confidence: Above 0 and below 1.
        resamples: How many samples to draw.

    Returns:
        The difference `a - b` with its percentile interval; NaN where either rate is undefined.

    Raises:
        DataError: If the two rates are not of the same inputs, or were made from counts alone.

    Reference:
        Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13.
    """
    joint = Joint(a.outcomes, b.outcomes)
    if not (a.total and b.total):
        return joint.undefined()
    ours, theirs = joint.resample(seed, resamples)
    return Estimate(a.value - b.value, *percentiles(ours - theirs, confidence), joint.n)


def confusion(labels: np.ndarray, predicted: np.ndarray, num_classes: int) -> np.ndarray:
    """How often inputs of each class are called each class.

    Args:
        labels: The true classes, whole numbers of shape `(n,)`.
        predicted: The classes that a model says, of the same shape.
        num_classes: How many classes there are.

    Returns:
        Counts, int64 of shape `(num_classes, num_classes)`: a row for each true class, a column for each one said.

    Raises:
        DataError: If these are not class ids, or differ in length.
    """
    labels, predicted = check_class_ids(labels=labels, predicted=predicted)
    flat = np.ravel_multi_index((labels.astype(np.int64), predicted.astype(np.int64)), (num_classes, num_classes))
    return np.bincount(flat, minlength=num_classes**2).reshape(num_classes, num_classes)


def balanced_accuracy(counts: np.ndarray) -> float:
    """The mean over classes of the share that is called right, of a `confusion`.

    A model that always names the commonest class reads one over the number of classes. Classes without an input do not
    count; NaN if there is no input.
    """
    totals = counts.sum(axis=1)
    there = totals > 0
    return float(np.mean(np.diag(counts)[there] / totals[there])) if there.any() else math.nan


def missing_classes(labels: np.ndarray, num_classes: int) -> tuple[int, ...]:
    """The class ids below `num_classes` that no label has."""
    return tuple(sorted(set(range(num_classes)) - set(np.unique(labels).tolist())))


def check_class_ids(**arrays: Any) -> tuple[np.ndarray, ...]:
    """Makes sure that arrays are class ids, and of one length.

    Raises:
        DataError: If not; names the array.
    """
    found = {name: np.asarray(array) for name, array in arrays.items()}
    for name, array in found.items():
        if array.ndim != 1 or array.dtype.kind not in "biu":
            raise DataError(
                f"Expected class ids in {name}: whole numbers of shape (n,). Received: shape {array.shape}, dtype "
                f"{array.dtype}. For a model's outputs take argmax(axis=-1) first, or predict_classes."
            )
    lengths = {name: len(array) for name, array in found.items()}
    if len(set(lengths.values())) > 1:
        shown = ", ".join(f"{length} in {name}" for name, length in lengths.items())
        raise DataError(f"Expected one class for each input. Received: {shown}.")
    return tuple(found.values())
