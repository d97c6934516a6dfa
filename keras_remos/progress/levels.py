"""How far loops got: what they tell of themselves, in words and numbers."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Protocol

from keras_remos.untrusted import printable


class Watcher(Protocol):
    """What wants to know how far a loop got."""

    def moved(self, now: float) -> None:
        """A step is done, at a time of `time.monotonic`."""

    def arrived(self, level: Level) -> None:
        """Something worth a line has begun or ended."""


class Level:
    """How far one loop got.

    Args:
        description: What is being done.
        total: In how many steps; `None` if that is not known.
    """

    def __init__(self, description: str, total: int | None) -> None:
        self.description = printable(description)
        self.total = total
        self.done = 0
        self.watcher: Watcher | None = None
        self._name: str | None = None
        self._started = self._last = time.monotonic()
        self._first: tuple[int, float] | None = None

    @property
    def is_shown(self) -> bool:
        """Whether somebody watches."""
        return self.watcher is not None

    def reach(self, done: int) -> None:
        """Says how many steps are done. Costs next to nothing, and waits for no device."""
        if done <= self.done:
            return
        self.done, self._last = done, time.monotonic()
        if self._first is None:
            self._first = done, self._last
        if self.watcher is not None:
            self.watcher.moved(self._last)

    def begin(self, name: object) -> None:
        """Says what the step is that begins now."""
        self._name = printable(name)
        if self.watcher is not None:
            self.watcher.arrived(self)

    @property
    def heading(self) -> str:
        """What is being done now."""
        if self._name is None:
            return self.description
        if self.total is None:
            return f"{self.description} {self.done + 1}: {self._name}"
        return f"{self.description} {min(self.done + 1, self.total)} of {self.total}: {self._name}"

    @property
    def count(self) -> str:
        """How many steps are done, where the heading does not tell."""
        if self._name is not None or not self.done:
            return ""
        return str(self.done) if self.total is None else f"{self.done}/{self.total}"

    @property
    def figures(self) -> str:
        """What has come of it so far."""
        return ""

    def left(self) -> float | None:
        """How many seconds it will take, by the pace so far; `None` before the first step is done, and when it is late.

        The first step, in which programs are compiled, says nothing about the others once there are some.
        """
        if self.total is None or self._first is None:
            return None
        steps, until = self._first
        pace = (self._last - until) / (self.done - steps) if self.done > steps else (until - self._started) / steps
        left = pace * (self.total - self.done) - (time.monotonic() - self._last)
        return left if left > 0 else None

    def line(self) -> str:
        """All that is known, for a log file."""
        left = self.left()
        known = (self.count.replace("/", " of "), self.figures, "" if left is None else f"{clock(left)} left")
        return ", ".join(part for part in (self.heading, *known) if part)

    def ended(self) -> str:
        """What there is to say at the end."""
        took = clock(time.monotonic() - self._started)
        return ", ".join(part for part in (f"{self.description}: done in {took}", self.figures) if part)


class Epochs(Level):
    """How far a training got. For the arguments see `track_epochs`."""

    def __init__(self, description: str, first: int, last: int, steps: int) -> None:
        super().__init__(description, (last - first) * steps)
        self.first, self.last, self.steps = first, last, steps
        self.epoch = first
        self._values: dict[str, float] = {}

    def step(self, epoch: int, step: int) -> None:
        """Says which step of which epoch begins, both counted from 0."""
        self.epoch = epoch
        self.reach((epoch - self.first) * self.steps + min(step, self.steps))

    def see(self, values: Mapping[str, Any]) -> None:
        """Takes in loss and metrics, as numbers. May come from another thread."""
        self._values = {**self._values, **values}

    def end(self, epoch: int, values: Mapping[str, Any]) -> None:
        """Says that an epoch has ended, and with what."""
        self.see(values)
        self.step(epoch, self.steps)
        if self.watcher is not None:
            self.watcher.arrived(self)

    @property
    def heading(self) -> str:
        return f"{self.description}: epoch {self.epoch + 1} of {self.last}"

    @property
    def count(self) -> str:
        done = self.done - (self.epoch - self.first) * self.steps
        return f"{done}/{self.steps}" if 0 < done < self.steps else ""

    @property
    def figures(self) -> str:
        return ", ".join(f"{printable(name)} {value:.4g}" for name, value in self._values.items())


def clock(seconds: float) -> str:
    """Seconds as minutes and hours: `1:05`, `2:00:00`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
