"""What settling a student costs: the short trainings, planned in whole epochs so that a budget is kept."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from keras_remos.errors import RemosError

Item = TypeVar("Item")

BUDGET = 12
"""How many trainings a student may cost where something is left open, its own included."""
# What one open question is worth, in trainings.
MOST_EACH = 4
# As many are trained in full at the end.
FINALISTS = 2


@dataclass(frozen=True)
class Round:
    """Trainings that are compared.

    Args:
        count: How many.
        epochs: How long each.
    """

    count: int
    epochs: int


@dataclass(frozen=True)
class Plan:
    """What it takes to make a student, or several alike.

    Args:
        epochs: Of one whole training.
        rate: What choosing the learning rate may cost, in trainings; 0 if it is not to be chosen.
        share: What choosing the share that is kept may cost, in trainings; 0 if it is not to be chosen.
        rate_epochs: How many epochs of it are planned.
        share_epochs: The same.
        twins: What making twins takes, in epochs.
        controls: How many classifiers are trained for twins to be made from.
        students: How many students are trained in the end.
    """

    epochs: int
    rate: float = 0.0
    share: float = 0.0
    rate_epochs: int = 0
    share_epochs: int = 0
    twins: float = 0.0
    controls: int = 0
    students: int = 1

    @property
    def cost(self) -> float:
        """All of it, in trainings."""
        settling = self.rate_epochs + self.share_epochs + self.twins
        return settling / self.epochs + self.controls + self.students

    def summary(self) -> str:
        """One line: what it takes, and what for."""
        parts = {
            "the learning rate": self.rate_epochs / self.epochs,
            "how much to keep": self.share_epochs / self.epochs,
            "twins": self.twins / self.epochs,
            "what twins are made from": self.controls,
            "the student" if self.students == 1 else "the students": self.students,
        }
        told = ", ".join(f"{cost:.3g} for {name}" for name, cost in parts.items() if cost)
        length = "1 epoch" if self.epochs == 1 else f"{self.epochs} epochs"
        return f"This takes as long as about {self.cost:.1f} trainings of {length}: {told}."


def plan_student(
    epochs: int,
    budget: float,
    *,
    rates: int,
    shares: int,
    least: int,
    twins: float = 0.0,
    twins_of_trials: float = 0.0,
    controls: int = 0,
) -> Plan:
    """Deals out a budget: the student itself and what its twins are made from, then the learning rate, then the share.

    What the rest does not pay for is not asked. Twins take from the share's part, and only from that, so that hardened
    students are tuned as others are.

    Args:
        epochs: Of one whole training.
        budget: How many trainings all of it may cost.
        rates: How many learning rates there are to choose from; 0 if it is not open.
        shares: How many shares there are to choose from; 0 if it is not open.
        least: How many epochs a training takes at least.
        twins: What making the student's twins takes, in epochs.
        twins_of_trials: What making those takes that trials share, if there are any.
        controls: How many classifiers are trained for twins to be made from.

    Raises:
        RemosError: If the budget does not pay for the student itself.
    """
    left = budget - 1 - controls
    if left < 0:
        raise RemosError(
            f"`budget` must be at least {1 + controls} trainings, received {budget:g}: hardening with `of_control` "
            "trains a classifier besides the student."
        )
    rate, rate_epochs = min(left, MOST_EACH), 0
    found = rounds(rates, epochs, rate, least=least) if rates and rate >= 1 else ()
    # One candidate is no choice.
    if found and found[0].count > 1:
        rate_epochs = epochs_of(found)
        left -= rate
    share, share_epochs = min(left - (twins + twins_of_trials) / epochs, MOST_EACH), 0
    if shares and share >= 1 and whole(share * epochs) > 2:
        one = side_by_side(shares, epochs, share)
        share_epochs = epochs_of([one])
    return Plan(
        epochs,
        rate if rate_epochs else 0.0,
        share if share_epochs else 0.0,
        rate_epochs,
        share_epochs,
        twins + (twins_of_trials if rate_epochs or share_epochs else 0),
        controls,
    )


def rounds(candidates: int, epochs: int, budget: float, *, least: int = 1) -> tuple[Round, ...]:
    """Successive halving in whole epochs. Where they are few there are fewer rounds, then fewer candidates.

    Args:
        candidates: How many there are.
        epochs: Of one whole training.
        budget: How many trainings it may cost.
        least: How many epochs each takes at least.

    Returns:
        The rounds, each longer than the one before; none if not even one candidate can be trained.
    """
    for count in range(candidates, 0, -1):
        plan: list[Round] = []
        left = count
        for share, kept in stages(count, budget):
            length = min(epochs, max(least, whole(share * epochs)))
            # Another round of the same length would train the same again.
            if not plan or length > plan[-1].epochs:
                plan.append(Round(left, length))
            left = kept
        if epochs_of(plan) <= whole(budget * epochs):
            return tuple(plan)
    return ()


def epochs_of(plan: Iterable[Round]) -> int:
    """How many epochs are trained in all."""
    return sum(each.count * each.epochs for each in plan)


def side_by_side(candidates: int, epochs: int, budget: float) -> Round:
    """A reference and as many candidates as a budget pays for, all for as long.

    Raises:
        RemosError: If it does not pay for a reference and one candidate.
    """
    allowed = whole(budget * epochs)
    count = 1 + min(candidates, allowed - 1)
    if count < 2:
        raise RemosError(
            f"`budget` must pay for two trainings of an epoch, received {budget:g} trainings of {epochs} epochs."
        )
    return Round(count, min(epochs, allowed // count))


def stages(candidates: int, budget: float) -> list[tuple[float, int]]:
    """How candidates are tried, stage by stage: `(share of their epochs, how many go on)`.

    The last stage has up to two candidates and as many whole trainings as half of the budget pays for; the stages
    before it halve the candidates, and share the rest of the budget equally.
    """
    counts = [candidates]
    while counts[-1] > FINALISTS:
        counts.append(math.ceil(counts[-1] / 2))
    if len(counts) == 1:
        return [(min(1.0, budget / candidates), candidates)]
    last = min(float(counts[-1]), budget / 2)
    each = (budget - last) / (len(counts) - 1)
    shares = [*(min(1.0, each / count) for count in counts[:-1]), last / counts[-1]]
    return list(zip(shares, [*counts[1:], counts[-1]], strict=True))


def spread(items: Sequence[Item], count: int) -> list[Item]:
    """So many of a list, spread over it evenly: one is the middle."""
    return [items[int((number + 0.5) * len(items) / count)] for number in range(count)]


def whole(epochs: float) -> int:
    """Whole epochs, rounded down; what is short of one by a rounding error is one."""
    return math.floor(epochs + 1e-9)
