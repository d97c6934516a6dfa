"""Where the marks of a chart stand in an SVG of the page: numbers and paths of numbers, never a name."""

from __future__ import annotations

import math
from collections.abc import Sequence

from keras_remos.report.charts import Curve, Curves, Heatmap

# Shades in which shares are drawn: each is one path, which keeps a page of many layers small.
SHADES = 10
# Of a curve, so many points can be pointed at.
MOST_DOTS = 60


def polylines(curve: Curve, chart: Curves) -> list[str]:
    """The runs of a curve, as `points` of a drawing of 100 by 100."""
    return [
        " ".join(f"{chart.x_axis.place(p.x):g},{100 - chart.y_axis.place(p.y):g}" for p in run if p.y is not None)
        for run in curve.runs()
    ]


def dots(curve: Curve) -> Sequence[int]:
    """The numbers of the points that can be pointed at, among them the last."""
    every = -(-len(curve.points) // MOST_DOTS)
    return [at for at in range(len(curve.points)) if (len(curve.points) - 1 - at) % max(every, 1) == 0]


def kept_bars(chart: Heatmap) -> str:
    """What is kept of each layer, as bars in a drawing as wide as there are layers, and 1 high."""
    return "".join(f"M{at} 1v-{share:.3g}h1V1z" for at, share in enumerate(chart.kept) if share > 0)


def shades(chart: Heatmap) -> list[tuple[int, str]]:
    """What is excluded, by shade from 1 on: a square for each layer and tenth, the largest weights at the top."""
    paths: dict[int, list[str]] = {}
    rows = rows_of(chart)
    for column, shares in enumerate(chart.excluded or ()):
        for row, share in enumerate(shares):
            shade = math.ceil(share * SHADES)
            if shade:
                paths.setdefault(shade, []).append(f"M{column} {rows - 1 - row}h1v1h-1z")
    return [(shade, "".join(squares)) for shade, squares in sorted(paths.items())]


def rows_of(chart: Heatmap) -> int:
    """In how many parts the weights of a layer come, by magnitude."""
    return len(chart.excluded[0]) if chart.excluded else 0


def about_layer(chart: Heatmap, at: int) -> str:
    """What is excluded of one layer, in words."""
    shares = " ".join(f"{100 * share:.0f}" for share in (chart.excluded or ())[at])
    return f"{chart.layers[at]}: excluded in % of each tenth, the smallest weights first: {shares}"


def about_curves(title: str, curves: Sequence[Curve]) -> str:
    """Where curves begin and end, for whoever does not see them."""
    said = []
    for curve in curves:
        known = [point for point in curve.points if point.y is not None]
        if known:
            first, last = known[0], known[-1]
            said.append(f"{curve.label} from {first.y:.3f} at {first.x:g} to {last.y:.3f} at {last.x:g}")
    return f"{title}: {'; '.join(said)}" if title else "; ".join(said)
