"""Where progress is shown: rows on a terminal, lines in a log file, one line in a notebook's cell."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from keras_remos.progress.levels import Level, clock
from keras_remos.progress.printing import print_line

# In seconds. A log file gets a line an epoch, or a minute; where epochs are shorter than a second, a line a second.
LONGEST_SILENCE = 60.0
SHORTEST_SILENCE = 1.0
# How often a notebook's cell is written anew. Bars are drawn by a thread of their own.
REFRESH = 0.5


def fitting(verbose: bool | str) -> Display | None:
    """The display for whoever reads stderr; `None` where nobody does, unless it is asked for."""
    console = Console(stderr=True)
    if console.is_jupyter:
        return Cell()
    # Rich takes a file for a terminal where FORCE_COLOR is set.
    if sys.stderr is not None and sys.stderr.isatty() and console.is_terminal and not console.is_dumb_terminal:
        return Bars(console)
    return None if verbose == "auto" else Lines()


class Display:
    """Shows the loops that run now.

    Attributes:
        levels: The outermost first.
    """

    def __init__(self) -> None:
        self.levels: list[Level] = []

    @contextmanager
    def open(self) -> Iterator[None]:
        """Shows them, until the outermost has ended."""
        yield

    def moved(self, now: float) -> None:
        """A step is done."""

    def arrived(self, level: Level) -> None:
        """Something worth a line has begun or ended."""

    def line(self, innermost: Level | None = None) -> str:
        """All of them in one line: where it is, and what the innermost has come to."""
        levels = self.levels[: self.levels.index(innermost) + 1] if innermost is not None else self.levels
        return ". ".join([*(level.heading for level in levels[:-1]), levels[-1].line()])


class Bars(Display):
    """A row for each, on a terminal, drawn by a thread some times a second: whoever counts steps waits for nothing."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    @contextmanager
    def open(self) -> Iterator[None]:
        # Standard output is for results, wherever that leads.
        above = sys.stdout.isatty()
        with Live(console=self._console, get_renderable=self._drawn, transient=True, redirect_stdout=above):
            yield

    def _drawn(self) -> Table:
        table = Table.grid(padding=(0, 1))
        for depth, level in enumerate(tuple(self.levels)):
            left = level.left()
            # Names of files are no markup.
            table.add_row(
                Text(f"{'  ' * depth}{level.heading}"),
                ProgressBar(total=level.total, completed=level.done, width=max(8, self._console.width // 8)),
                Text(level.count),
                Text("" if left is None else f"{clock(left)} left"),
                Text(level.figures),
            )
        return table


class Lines(Display):
    """A line where something has ended or begun, or a minute has passed: for log files."""

    def __init__(self) -> None:
        super().__init__()
        self._last = -math.inf
        self._began = time.monotonic()

    def moved(self, now: float) -> None:
        if now - max(self._last, self._began) >= LONGEST_SILENCE:
            self._print(self.line())

    def arrived(self, level: Level) -> None:
        if time.monotonic() - self._last >= SHORTEST_SILENCE or level.done == level.total:
            self._print(self.line(level))

    def _print(self, line: str) -> None:
        self._last = time.monotonic()
        print_line(line)


class Cell(Display):
    """One line in a notebook, which is written anew."""

    def __init__(self) -> None:
        super().__init__()
        self._last = 0.0
        self._handle: Any = None

    @contextmanager
    def open(self) -> Iterator[None]:
        from IPython.display import display

        self._handle = display(self._bundle(self.line()), raw=True, display_id=True)
        outermost = self.levels[0]
        try:
            yield
        except BaseException:
            self._handle.update(self._bundle(""), raw=True)
            raise
        self._handle.update(self._bundle(outermost.ended()), raw=True)

    def moved(self, now: float) -> None:
        if now - self._last >= REFRESH:
            self._last = now
            self._handle.update(self._bundle(self.line()), raw=True)

    def arrived(self, level: Level) -> None:
        self.moved(time.monotonic())

    @staticmethod
    def _bundle(line: str) -> dict[str, str]:
        return {"text/plain": line}
