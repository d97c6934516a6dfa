"""`Trials`: the short trainings that settle what is open, kept so that a run that was killed repeats none of them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from keras_remos.errors import DivergedError, MismatchError, RemosError
from keras_remos.saving import write_archive
from keras_remos.training.checkpoints import first_difference
from keras_remos.untrusted import PathLike, complete, read_archive
from keras_remos.writing import reserved

KIND = "trials"


class _Header(TypedDict):
    arguments: dict[str, Any]
    trials: list[str]


def describe_trials(path: PathLike) -> dict[str, Any]:
    """What short trainings were tried and how many validation samples each got right, as plain values for JSON.

    Raises:
        FileError: If the file is damaged, or holds no trials.
    """
    header, arrays = read_archive(path, KIND, _Header)
    with complete(path):
        right = [np.asarray(arrays[str(number)], bool) for number in range(len(header["trials"]))]
        trials = [
            {"trial": json.loads(key), "n": len(each), "accuracy": float(each.mean()) if each.size else None}
            for key, each in zip(header["trials"], right, strict=True)
        ]
    return {"trials": trials, "arguments": header["arguments"]}


def check_budget(budget: float) -> None:
    """Raises a RemosError unless so many trainings are at least one."""
    if not budget >= 1:  # nor is NaN
        raise RemosError(f"`budget` must be at least 1 training, received {budget!r}.")


def told_apart(samples: int, error: float, wanted: float) -> str:
    """A sentence on what validation data cannot tell.

    Args:
        samples: How many there are.
        error: The standard error of what is compared on them.
        wanted: The difference that is to be told.
    """
    enough = math.ceil((samples + 2) * (error / wanted) ** 2)
    return (
        f"{samples:,} validation samples tell accuracies apart by about {error:.3f}; about {enough:,} would tell "
        f"{wanted:g} apart."
    )


class Trials:
    """Which validation samples the student of each short training got right: in memory, and in a checkpoint's folder.

    Args:
        folder: Of the checkpoint; `None` keeps them in memory alone. `kept_in` keeps it from other runs, too.
        arguments: What all trials have in common, as plain values for JSON.

    Raises:
        MismatchError: If the folder holds trials of another run; names the first difference.
        FileError: If its file is damaged.
    """

    def __init__(self, folder: PathLike | None = None, arguments: Mapping[str, Any] | None = None) -> None:
        self._path = None if folder is None else Path(folder) / f"{KIND}.npz"
        self._arguments = json.loads(json.dumps(arguments or {}))
        self._right: dict[str, np.ndarray] = {}
        if self._path is not None and self._path.exists():
            self._read(self._path)

    @classmethod
    @contextmanager
    def kept_in(cls, folder: PathLike, arguments: Mapping[str, Any]) -> Iterator[Trials]:
        """The trials in a checkpoint's folder, which no other run adds to until the block ends.

        Raises:
            FileError: If another run does; see also `Trials`.
        """
        Path(folder).mkdir(parents=True, exist_ok=True)
        with reserved(Path(folder) / f"{KIND}.npz", overwrite=True):
            yield cls(folder, arguments)

    def right(self, trial: Mapping[str, Any], train: Callable[[], np.ndarray]) -> np.ndarray:
        """What a trial came to; it is trained unless that is known.

        Args:
            trial: What tells it from the others, as plain values for JSON.
            train: Trains it, and says which validation samples it got right: booleans.

        Raises:
            DivergedError: If its training diverged, now or before.
        """
        key = json.dumps(trial, sort_keys=True)
        if key not in self._right:
            try:
                self._keep(key, train())
            except DivergedError:
                self._keep(key, np.zeros(0, bool))
                raise
        if not self._right[key].size:
            raise DivergedError(f"Training diverged: {key}.")
        return self._right[key]

    def forget_diverged(self) -> None:
        """Has what diverged tried again: where nothing is left to choose from, each restart would fail at once."""
        self._right = {key: right for key, right in self._right.items() if right.size}
        self._write()

    def _keep(self, key: str, right: np.ndarray) -> None:
        self._right[key] = right
        self._write()

    def _write(self) -> None:
        if self._path is None:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        header = {"arguments": self._arguments, "trials": list(self._right)}
        arrays = {str(number): each for number, each in enumerate(self._right.values())}
        write_archive(self._path, KIND, header, arrays, overwrite=True)

    def _read(self, path: Path) -> None:
        header, arrays = read_archive(path, KIND, _Header)
        with complete(path):
            found, keys = header["arguments"], header["trials"]
            right = {str(key): np.asarray(arrays[str(number)], bool) for number, key in enumerate(keys)}
        name = first_difference(self._arguments, found)
        if name is not None:
            raise MismatchError(
                f"{path} holds trials of another run: its {name} differs. Start it with the same arguments and data "
                "to go on, or give this run a `checkpoint` of its own."
            )
        self._right = right
