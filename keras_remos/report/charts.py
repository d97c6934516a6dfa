"""Charts as what they show: figures, names and axes. The page draws them as SVG, `figures` with Matplotlib.

In the page they are SVG in the HTML itself, and not Plotly's: its script alone is over 3 MB, more than a whole page may
have, and it would be code that runs in the reader's browser. Hovering needs neither: SVG has `<title>`. Positions are
in percent of the drawing, so that it takes any width, while lines stay as thin and letters as large as they are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

MOST_TICKS = 5


@dataclass(frozen=True)
class Axis:
    """A range and the figures that are written along it."""

    low: float
    high: float
    ticks: Sequence[float]

    @classmethod
    def over(cls, values: Sequence[float], *, low: float | None = None, high: float | None = None) -> Axis:
        """One that has room for all values, with round figures along it.

        Args:
            values: What is to be shown; may be empty.
            low: Where it begins at the latest.
            high: Where it ends at the earliest.
        """
        least = min([*values, *([] if low is None else [low])], default=0.0)
        most = max([*values, *([] if high is None else [high])], default=1.0)
        if most - least < 1e-12 * max(1.0, abs(most)):
            least, most = least - 0.5, most + 0.5
        step = _round_step((most - least) / MOST_TICKS)
        first, last = math.floor(least / step + 1e-9), math.ceil(most / step - 1e-9)
        return cls(first * step, last * step, [number * step for number in range(first, last + 1)])

    def place(self, value: float) -> float:
        """Where a value lies, in percent from the low end; at an end, if it lies beyond."""
        return round(100 * min(max((value - self.low) / (self.high - self.low), 0.0), 1.0), 3)

    def label(self, tick: float) -> str:
        """What is written at a tick."""
        return f"{tick:.10g}" if abs(tick) < 1e5 else f"{tick:.1e}"


def _round_step(least: float) -> float:
    """1, 2 or 5 times a power of ten: the first that is not below."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= least * (1 - 1e-9))


@dataclass(frozen=True)
class Interval:
    """A figure with its interval, in a row of its own.

    Args:
        name: Of the model.
        role: `"student"`, `"control"`, `"floor"` or `"teacher"`.
        value: `None` where it is undefined.
        low: `None` where there is no interval.
        high: The other end.
        said: The figure in words: for whoever points at it.
    """

    name: str
    role: str
    value: float | None
    low: float | None
    high: float | None
    said: str


@dataclass(frozen=True)
class Intervals:
    """Figures of several models side by side, one group below the other, on one axis.

    Args:
        name: For a file.
        title: What is shown.
        x: What the axis is.
        groups: Title and rows.
    """

    kind: ClassVar[str] = "intervals"
    name: str
    title: str
    x: str
    groups: Sequence[tuple[str, Sequence[Interval]]]

    @cached_property
    def axis(self) -> Axis:
        """From 0 to 1, and further if a figure lies beyond."""
        shown = [v for _, rows in self.groups for row in rows for v in (row.value, row.low, row.high) if v is not None]
        return Axis.over(shown, low=0.0, high=1.0)


@dataclass(frozen=True)
class Point:
    """A point of a curve; `low` and `high` are the ends of its interval, if it has one."""

    x: float
    y: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Curve:
    """Points that are joined; a gap where one is undefined."""

    label: str
    points: Sequence[Point]

    def runs(self) -> list[list[Point]]:
        """The points in the pieces that undefined ones leave of the curve."""
        found: list[list[Point]] = [[]]
        for point in self.points:
            if point.y is None:
                found.append([])
            else:
                found[-1].append(point)
        return [run for run in found if run]


@dataclass(frozen=True)
class Curves:
    """Curves in panels that share their axes.

    Args:
        name: For a file.
        title: What is shown.
        x: What is along.
        y: What is upward.
        panels: Title and curves of each.
        is_share: Whether all figures lie from 0 to 1, and the axis does.
    """

    kind: ClassVar[str] = "curves"
    name: str
    title: str
    x: str
    y: str
    panels: Sequence[tuple[str, Sequence[Curve]]]
    is_share: bool = True

    @property
    def labels(self) -> list[str]:
        """What the curves are called, each once: the first has the first colour in every panel."""
        return list(dict.fromkeys(curve.label for _, curves in self.panels for curve in curves))

    def _points(self) -> list[Point]:
        return [point for _, curves in self.panels for curve in curves for point in curve.points]

    @cached_property
    def x_axis(self) -> Axis:
        """As far as there are points."""
        return Axis.over([point.x for point in self._points()])

    @cached_property
    def y_axis(self) -> Axis:
        """From 0, unless something is below."""
        shown = [v for point in self._points() for v in (point.y, point.low, point.high) if v is not None]
        return Axis.over(shown, low=0.0, high=1.0 if self.is_share else None)


@dataclass(frozen=True)
class Bars:
    """Histograms in panels that share their axes.

    Args:
        name: For a file.
        title: What is shown.
        x: What is counted by.
        y: What is counted.
        panels: Of each the title, the ends of the bins, the share in each, and a sentence about the rest.
    """

    kind: ClassVar[str] = "bars"
    name: str
    title: str
    x: str
    y: str
    panels: Sequence[tuple[str, Sequence[float], Sequence[float], str]]

    @cached_property
    def x_axis(self) -> Axis:
        """Over all bins."""
        return Axis.over([edge for _, edges, _, _ in self.panels for edge in edges])

    @cached_property
    def y_axis(self) -> Axis:
        """From 0 to the longest bar."""
        return Axis.over([share for _, _, shares, _ in self.panels for share in shares], low=0.0)


@dataclass(frozen=True)
class Heatmap:
    """What was kept of each layer, and what was excluded of it, by magnitude.

    Args:
        name: For a file.
        title: What is shown.
        layers: Their paths, the first first.
        kept: The share that is kept of each.
        excluded: Of each layer the share that is excluded of each tenth of its weights, the smallest first; `None`
            where that is not known.
    """

    kind: ClassVar[str] = "heatmap"
    name: str
    title: str
    layers: Sequence[str]
    kept: Sequence[float]
    excluded: Sequence[Sequence[float]] | None = None
