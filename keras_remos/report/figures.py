"""`write_figures`: the charts of a report as PNG and SVG, for papers and slides."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_remos.report.build import build
from keras_remos.report.charts import Bars, Curves, Heatmap, Intervals
from keras_remos.report.document import Chart
from keras_remos.report.results import Source, as_results
from keras_remos.untrusted import PathLike, printable
from keras_remos.writing import check_folder, check_writable, replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MISSING = 'Figures are drawn by Matplotlib, which is not installed: pip install "keras-remos[report]"'
FORMATS = ("png", "svg")
# Okabe and Ito's: told apart by readers who see few colours, too. With lines and marks, for print in black.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#56B4E9")
_DASHES = ("-", "--", ":", "-.", "-", "--")
_ROLES = {
    "student": ("#0072B2", "o"),
    "control": ("#D55E00", "D"),
    "floor": ("#666666", "o"),
    "teacher": ("#000000", "s"),
}
_SETTINGS: Any = {
    "font.size": 8.0,
    "axes.titlesize": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "savefig.dpi": 200,
    # The same result gives the same bytes.
    "svg.hashsalt": "keras-remos",
}
# In inches: as wide as a page's text, a row, a panel and what stands around it, a letter of a name. Matplotlib can find
# out itself what fits, and then takes twice as long.
_WIDTH = 6.5
_ROW, _PANEL, _GAP, _LETTER = 0.2, 1.3, 0.35, 0.065
_TOP, _BOTTOM, _LEFT, _RIGHT = 0.55, 0.5, 0.65, 0.15
_LONGEST_NAME = 40
_PER_LINE = 3


def write_figures(
    results: Source | Sequence[Source],
    folder: PathLike,
    *,
    formats: Sequence[str] = FORMATS,
    overwrite: bool = False,
) -> list[Path]:
    """Draws every chart of a report into files of their own.

    Args:
        results: See `page`.
        folder: Where to; made if it is not there.
        formats: `"png"`, `"svg"` or both.
        overwrite: Whether existing files may be replaced.

    Returns:
        The files, in the order of the report; empty where there is nothing to draw. The same results give the same
        names, and with one version of Matplotlib the same bytes.

    Raises:
        FileError: If one is no result that a report can be made of, or a file cannot be written.
        MismatchError: If they were measured on different inputs.
        ImportError: If Matplotlib is missing.
    """
    try:
        import matplotlib as mpl
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(MISSING) from error
    charts = _named(build(as_results(results)).charts())
    target = Path(folder)
    check_folder(target, "Figures")
    paths = {(name, ending): target / f"{name}.{ending}" for name in charts for ending in formats}
    if target.is_dir():
        for path in paths.values():
            check_writable(path, overwrite=overwrite)
    target.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(_SETTINGS), warnings.catch_warnings():
        # A name in letters that the font lacks is drawn as boxes: that is all that can be done about it.
        warnings.filterwarnings("ignore", "Glyph .* missing")
        for name, chart in charts.items():
            figure = Figure()
            FigureCanvasAgg(figure)
            _DRAWN_BY[type(chart)](figure, chart)
            _as_text(figure)
            for ending in formats:
                with replacing(paths[name, ending], overwrite=overwrite) as temporary:
                    figure.savefig(temporary, format=ending, metadata={"Date": None} if ending == "svg" else None)
    return list(paths.values())


def _named(charts: Any) -> dict[str, Chart]:
    """Charts by the names of their files; those of a second result of a kind are numbered."""
    found: dict[str, Chart] = {}
    for chart in charts:
        name, number = chart.name, 1
        while name in found:
            number += 1
            name = f"{chart.name}.{number}"
        found[name] = chart
    return found


def _as_text(figure: Figure) -> None:
    """Takes every text as it is: names come from files, and a dollar sign in one is no formula."""
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        text.set_parse_math(False)
        text.set_text(printable(text.get_text(), lines=True))


def _frame(
    figure: Figure, width: float, height: float, left: float = _LEFT, bottom: float = _BOTTOM, lines: int = 1
) -> None:
    """Sizes a figure, and leaves room for what stands around `lines` of axes. All in inches."""
    figure.set_size_inches(width, height)
    figure.subplots_adjust(
        left=left / width,
        right=1 - _RIGHT / width,
        bottom=bottom / height,
        top=1 - _TOP / height,
        hspace=_GAP * lines / max(height - _TOP - bottom - _GAP * (lines - 1), 0.1),
        wspace=0.12,
    )


def _short(name: str) -> str:
    """A name that leaves room for the chart. It comes from a file: axes are told it anew at every drawing."""
    name = printable(name)
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 3]}..."


def _intervals(figure: Figure, chart: Intervals) -> None:
    rows = [row for _, rows in chart.groups for row in rows]
    names = [_short(row.name if row.role == "student" else f"{row.name} ({row.role})") for row in rows]
    left = 0.3 + _LETTER * max(map(len, names))
    _frame(figure, _WIDTH, _TOP + _BOTTOM + _ROW * len(rows), left)
    axes = figure.add_subplot()
    for at, row in enumerate(rows):
        colour, marker = _ROLES[row.role]
        if row.value is None:
            axes.text(chart.axis.low, at, "undefined", va="center", color="#666666")
            continue
        if row.low is not None and row.high is not None:
            axes.plot([row.low, row.high], [at, at], color=colour, alpha=0.5, linewidth=2, clip_on=False)
        fill = "white" if row.role == "floor" else colour
        axes.plot(row.value, at, marker, color=colour, mfc=fill, markersize=5, clip_on=False, zorder=3)
    axes.set_yticks(range(len(rows)), names)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(chart.axis.low, chart.axis.high)
    axes.set_xlabel(chart.x)
    axes.set_title(chart.title, loc="left")
    axes.grid(visible=False, axis="y")


def _panels(figure: Figure, chart: Curves | Bars) -> list[Axes]:
    """A panel for each, three in a line, on the same axes."""
    many = len(chart.panels)
    columns = min(many, _PER_LINE)
    lines = -(-many // columns)
    bottom = _BOTTOM + (0.3 if isinstance(chart, Curves) else 0.0)
    height = _TOP + bottom + _PANEL * lines + _GAP * (lines - 1) + (0.6 if lines == 1 else 0.0)
    _frame(figure, _WIDTH if columns > 1 else _WIDTH / 1.6, height, bottom=bottom, lines=lines)
    grid = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True)
    found: list[Axes] = list(grid.flat)
    for axes in found[many:]:
        axes.set_axis_off()
    for axes, panel in zip(found, chart.panels, strict=False):
        axes.set_title(_short(str(panel[0])), loc="left", fontsize=8)
        axes.set_xticks(chart.x_axis.ticks)
        axes.set_yticks(chart.y_axis.ticks)
        axes.set_xlim(chart.x_axis.low, chart.x_axis.high)
        axes.set_ylim(chart.y_axis.low, chart.y_axis.high)
    figure.suptitle(chart.title, x=0.1 / _WIDTH, y=1 - 0.08 / height, ha="left", va="top", fontsize=9)
    figure.supxlabel(chart.x, y=(bottom - 0.4) / height, va="bottom", fontsize=8)
    figure.supylabel(chart.y, x=0.1 / _WIDTH, fontsize=8)
    return found[:many]


def _curves(figure: Figure, chart: Curves) -> None:
    looks = {label: (_COLOURS[at % 6], _DASHES[at % 6]) for at, label in enumerate(chart.labels)}
    seen: dict[str, Any] = {}
    for axes, (_, curves) in zip(_panels(figure, chart), chart.panels, strict=True):
        for curve in curves:
            colour, dash = looks[curve.label]
            for run in curve.runs():
                (line,) = axes.plot(
                    [p.x for p in run], [p.y for p in run if p.y is not None], dash, color=colour, linewidth=1.3
                )
                if len(run) == 1:
                    line.set_marker("o")
                    line.set_markersize(3)
                seen.setdefault(curve.label, line)
            ends = [(p.x, p.low, p.high) for p in curve.points if p.low is not None and p.high is not None]
            for x, low, high in ends:
                axes.plot([x, x], [low, high], color=colour, alpha=0.5)
    if seen:
        figure.legend(list(seen.values()), list(seen), loc="lower center", ncols=min(3, 1 + len(chart.panels)))


def _bars(figure: Figure, chart: Bars) -> None:
    for axes, (_, edges, shares, _) in zip(_panels(figure, chart), chart.panels, strict=True):
        axes.stairs(shares, edges, fill=True, color=_COLOURS[0])


def _heatmap(figure: Figure, chart: Heatmap) -> None:
    many = len(chart.layers)
    rows = len(chart.excluded[0]) if chart.excluded else 0
    _frame(figure, _WIDTH, 3.2 if rows else 1.8)
    grid = figure.subplots(2 if rows else 1, 1, squeeze=False, sharex=True)
    top = grid[0, 0]
    top.stairs(chart.kept, range(many + 1), fill=True, color=_COLOURS[0])
    top.set_ylim(0, 1)
    top.set_xlim(0, many)
    top.set_ylabel("share kept")
    top.set_title(chart.title, loc="left")
    if chart.excluded:
        below = grid[1, 0]
        below.grid(visible=False)
        shares = [list(row) for row in zip(*chart.excluded, strict=True)]
        mesh = below.pcolormesh(shares, cmap="Oranges", vmin=0, vmax=1)
        below.set_yticks([0, rows], ["small", "large"])
        below.set_ylabel("magnitude")
        figure.colorbar(mesh, ax=list(grid.flat), label="share excluded")
    grid[-1, 0].set_xlabel("layer")


_DRAWN_BY: Mapping[type, Callable[[Any, Any], None]] = {
    Intervals: _intervals,
    Curves: _curves,
    Bars: _bars,
    Heatmap: _heatmap,
}
