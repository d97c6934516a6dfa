"""Progress: bars where somebody watches, lines in a log file that asked for them. On stderr, or in a notebook's cell.

Loops run inside each other: a training in a trial, in an attack. There is one display for all of them, in which each
has a row, or its part of a line.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, TypeVar

from keras_remos.progress.levels import Epochs, Level
from keras_remos.progress.printing import print_line

if TYPE_CHECKING:
    from keras_remos.progress.displays import Display

__all__ = ["Epochs", "say", "showing", "track", "track_epochs", "track_named"]

Item = TypeVar("Item")
Shown = TypeVar("Shown", bound=Level)

# What "auto" stands for.
_auto: ContextVar[bool | str] = ContextVar("auto", default="auto")
_current: ContextVar[Display | None] = ContextVar("display", default=None)


@contextmanager
def showing(verbose: bool | str) -> Iterator[None]:
    """Decides for everything inside what `verbose="auto"` means.

    Args:
        verbose: `True` shows progress even where stderr is a log file, `False` says nothing, `"auto"` is as ever.
    """
    token = _auto.set(verbose)
    try:
        yield
    finally:
        _auto.reset(token)


def say(message: str, *, verbose: bool | str = "auto") -> None:
    """Says on stderr what a user should know beside the result, unless it is to be quiet.

    Args:
        message: One line.
        verbose: `False` says nothing.
    """
    if _meant(verbose):
        print_line(message)


@contextmanager
def track(
    items: Iterable[Item],
    *,
    total: int | None,
    description: str,
    verbose: bool | str = "auto",
    name: Callable[[Item], object] | None = None,
) -> Iterator[Iterator[Item]]:
    """Shows how far a loop got, until the block ends. A loop that fails leaves nothing on the screen.

    Args:
        items: What to go through.
        total: How many there are, if that is known.
        description: What is being done; with `name`, what one item is: `"Attack"`.
        verbose: `True`, `False`, or `"auto"`: only where somebody watches, on a terminal or in a notebook.
        name: What an item is called, where each is a piece of work of its own: `Attack 2 of 4: pgd`.

    Yields:
        The items, to be gone through once.
    """
    with _shown(Level(description, total), verbose) as level:
        yield _each(items, level, name)


def track_named(
    items: Mapping[str, Item], *, description: str, verbose: bool | str = "auto"
) -> AbstractContextManager[Iterator[tuple[str, Item]]]:
    """The same for pieces of work by their names. For the arguments see `track`."""
    pairs = items.items()
    return track(pairs, total=len(pairs), description=description, verbose=verbose, name=lambda pair: pair[0])


@contextmanager
def track_epochs(
    description: str, *, first: int, last: int, steps: int, verbose: bool | str = "auto"
) -> Iterator[Epochs | None]:
    """Shows how far a training got, until the block ends.

    Args:
        description: What is being trained.
        first: The epoch that it begins with, counted from 0.
        last: The epoch that it stops before.
        steps: Of one epoch.
        verbose: See `track`.

    Yields:
        What is to be told of each step; `None` where nobody watches.
    """
    with _shown(Epochs(description, first, last, steps), verbose) as level:
        yield level if level.is_shown else None


def _meant(verbose: bool | str) -> bool | str:
    return _auto.get() if verbose == "auto" else verbose


def _each(items: Iterable[Item], level: Level, name: Callable[[Item], object] | None) -> Generator[Item, None, None]:
    for number, item in enumerate(items, start=1):
        if name is not None:
            level.begin(name(item))
        yield item
        level.reach(number)


@contextmanager
def _shown(level: Shown, verbose: bool | str) -> Iterator[Shown]:
    """Has a level on display until the block ends: on the one that is there, or on one of its own."""
    wanted, display = _meant(verbose), _current.get()
    if wanted and display is None and (fresh := _fitting(wanted)) is not None:
        with _on(fresh, level):
            _current.set(fresh)
            try:
                with fresh.open():
                    yield level
            finally:
                _current.set(None)
    elif wanted and display is not None:
        with _on(display, level):
            yield level
    else:
        yield level


def _fitting(wanted: bool | str) -> Display | None:
    # Rich is for those who show something.
    from keras_remos.progress.displays import fitting

    return fitting(wanted)


@contextmanager
def _on(display: Display, level: Level) -> Iterator[None]:
    display.levels.append(level)
    level.watcher = display
    try:
        yield
    finally:
        display.levels.remove(level)
