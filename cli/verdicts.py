"""Limits that users hold students to, and the exit code that tells a pipeline."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from keras_remos.evaluation import InheritanceReport, Verdict

# 1 is a run that failed, 2 wrong usage.
NOT_KEPT = 3


@dataclass(frozen=True)
class Limits:
    """What a student must reach, in the user's words."""

    strict_verdict: bool
    max_excess: float | None
    min_accuracy: float | None

    def judge(self, report: InheritanceReport) -> tuple[Verdict, ...]:
        """Whether students keep the limits that the user set."""
        from keras_remos.evaluation import against_limits

        return against_limits(report, max_excess=self.max_excess, min_accuracy=self.min_accuracy)

    def leave(self, verdicts: Iterable[Verdict]) -> None:
        """Ends the program with code 3 where the user is strict, and a verdict is bad."""
        if self.strict_verdict and any(verdict.level == "bad" for verdict in verdicts):
            raise click.exceptions.Exit(NOT_KEPT)
