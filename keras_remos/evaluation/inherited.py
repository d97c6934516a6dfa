"""One row of what was measured: a student under an attack, and the teacher under all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from keras_remos.evaluation.intervals import Estimate, finite
from keras_remos.evaluation.metrics import Rate, as_f1

# A table of more classes is no table that anybody reads.
MOST_CLASSES = 30


@dataclass(frozen=True, eq=False)
class Answers:
    """The classes that a model says for the inputs of one attack.

    Args:
        clean: For the clean inputs, whole numbers of shape `(n,)`.
        attacked: For their malicious versions.
    """

    clean: np.ndarray
    attacked: np.ndarray


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
        floor: What the floor is fooled by on the same inputs, where there is one.
        answers: What it says for each input.
        confusion: What it says when attacked, int64 of shape `(classes, classes)`: see `metrics.confusion`.
    """

    student: str
    defect: str
    flipped: Rate
    targeted: Rate | None
    relative: Estimate | None
    of_text: bool = False
    excess: Estimate | None = None
    neuron: int | None = None
    floor: Rate | None = None
    answers: Answers | None = field(default=None, repr=False, compare=False)
    confusion: np.ndarray | None = field(default=None, repr=False, compare=False)

    @property
    def rate(self) -> Rate:
        """DIR: what the attacker is after."""
        return self.flipped if self.targeted is None else self.targeted

    @property
    def f1(self) -> float | None:
        """The rate as Table 2 of the paper prints it; `None` but for triggers in texts. See `as_f1`."""
        return as_f1(self.targeted) if self.of_text and self.targeted is not None else None

    def describe(self) -> dict[str, Any]:
        """The same as plain values for JSON."""
        return {
            "student": self.student,
            "defect": self.defect,
            "dir": "flipped" if self.targeted is None else "targeted",
            "flipped": self.flipped.describe(),
            "targeted": described(self.targeted),
            "relative": described(self.relative),
            "excess": described(self.excess),
            "f1": None if self.f1 is None else finite(self.f1),
            "confusion": as_rows(self.confusion),
        }


@dataclass(frozen=True)
class TeacherRow:
    """How the attacks do on the teacher itself: what fools no teacher cannot be inherited.

    Args:
        accuracy: On the clean test set, where its head tells as many classes apart; else `None`.
        note: What has to be known of that accuracy, or why there is none; may be empty.
        attacks: By the attack's name. Of a backdoor how many inputs of other classes it takes for the attacker's; of
            other attacks how many it takes for another class than when they are clean, right or wrong.
        left_out: Attacks that cannot be counted on it, with the reason.
    """

    accuracy: Rate | None
    note: str
    attacks: Mapping[str, Rate]
    left_out: Mapping[str, str] = field(default_factory=dict)

    def describe(self) -> dict[str, Any]:
        """The same as plain values for JSON."""
        return {
            "accuracy": described(self.accuracy),
            "note": self.note,
            "attacks": {name: rate.describe() for name, rate in self.attacks.items()},
            "left_out": dict(self.left_out),
        }


@dataclass(frozen=True)
class Verdict:
    """A sentence about what was measured.

    Args:
        student: Whom it is about; `None` for all.
        attack: By which attack; `None` for none or all.
        code: What kind of sentence: `"inherits"`, `"untested"`, `"guess"`, `"constant"`, `"no-effect"`, `"no-test"`,
            `"undefined"`, `"few"`, `"unlike"`, `"max-excess"`, `"min-accuracy"`.
        level: `"good"`, `"note"` or `"bad"`.
        text: The sentence.
    """

    student: str | None
    attack: str | None
    code: str
    level: str
    text: str

    def describe(self) -> dict[str, str | None]:
        """The same as plain values for JSON."""
        return dict(vars(self))


def described(value: Rate | Estimate | None) -> dict[str, Any] | None:
    """A figure as plain values for JSON; `None` where there is none."""
    return None if value is None else value.describe()


def as_rows(counts: np.ndarray | None) -> list[list[int]] | None:
    """A confusion as plain values for JSON; `None` where there is none, or it is too large to be read."""
    return None if counts is None or len(counts) > MOST_CLASSES else counts.tolist()
