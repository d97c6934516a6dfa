"""Progress: on stderr; bars only where somebody watches."""

import sys
from collections.abc import Generator, Iterable
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from keras_remos.untrusted import printable

Item = TypeVar("Item")


def say(message: str, *, verbose: bool | str = "auto") -> None:
    """Says on stderr what a longer run is about to do, unless it is to be quiet.

    Args:
        message: One line.
        verbose: `False` says nothing.
    """
    if verbose:
        print(message, file=sys.stderr)


def track(
    items: Iterable[Item], *, total: int | None, description: str, verbose: bool | str = "auto"
) -> Generator[Item, None, None]:
    """Yields the items, showing how far it got.

    Args:
        items: What to go through.
        total: How many there are, if that is known.
        description: What is being done.
        verbose: `True`, `False`, or `"auto"`: only where stderr is a terminal.
    """
    console = Console(stderr=True)
    if not verbose or (verbose == "auto" and not console.is_terminal):
        yield from items
        return
    # Names of files are no markup.
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        yield from progress.track(items, total=total, description=printable(description))
