"""Checkpoints: a training run that was killed goes on from its last epoch, if it is the same run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypedDict

import keras
import numpy as np

from keras_remos.errors import FileError, MismatchError
from keras_remos.saving import write_archive
from keras_remos.untrusted import Between, Count, PathLike, complete, read_archive
from keras_remos.writing import check_folder, reserved


class _Header(TypedDict):
    arguments: dict[str, Any]
    epochs: Count
    finished: bool
    history: dict[str, Annotated[list[float], Between(1, 2**31)]]
    count: Count


class _Checked(_Header, total=False):
    validation: str | None


@dataclass(frozen=True, eq=False)
class Progress:
    """How far a run has come.

    Args:
        epochs: How many epochs are done, from the first of the whole run.
        finished: Whether there is nothing left to do.
        history: What `fit` reported, epoch by epoch.
        values: The values of the variables.
        extras: What else the method keeps from epoch to epoch.
        validation: What the figures that begin with `val_` were measured on: a digest; `None` if it is not known.
    """

    epochs: int
    finished: bool
    history: Mapping[str, list[float]]
    values: Sequence[np.ndarray] = ()
    extras: Mapping[str, np.ndarray] = field(default_factory=dict)
    validation: str | None = None

    def restore(self, variables: Sequence[keras.Variable]) -> None:
        """Gives variables the values that they had."""
        for variable, raw in zip(variables, self.values, strict=True):
            current = keras.ops.convert_to_numpy(variable.value)
            variable.assign(np.frombuffer(raw.tobytes(), dtype=current.dtype).reshape(current.shape))


class Checkpoint:
    """The file of one stage of a run, replaced as a whole after each epoch. Nothing in it is ever unpickled.

    Args:
        folder: Made if it is not there.
        stage: The file's name.
        arguments: Everything that decides the result, as plain values for JSON.
        of_format_1: What a file of format 1 has in place of some of them.

    Raises:
        FileError: If the folder cannot be made.
    """

    def __init__(
        self, folder: PathLike, stage: str, arguments: Mapping[str, Any], of_format_1: Mapping[str, Any]
    ) -> None:
        check_folder(folder, "Checkpoints")
        try:
            Path(folder).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FileError(f"Checkpoints need a folder, and {folder} cannot be one ({error}).") from error
        self.path = Path(folder) / f"{stage}.npz"
        # As JSON gives them back: tuples as lists.
        self.arguments = json.loads(json.dumps(arguments))
        self.of_format_1 = json.loads(json.dumps(of_format_1))

    def reserved(self) -> AbstractContextManager[None]:
        """Keeps the file from other runs.

        Raises:
            FileError: If another run writes it.
        """
        return reserved(self.path, overwrite=True)

    def load(self) -> Progress | None:
        """How far the run has come; `None` if it has not begun.

        Raises:
            MismatchError: If the file belongs to a run with other arguments; names the first that differs.
            FileError: If it is damaged.
        """
        if not self.path.exists():
            return None
        header, arrays = read_archive(self.path, "checkpoint", _Checked)
        before = self.of_format_1 if header["format"] == 1 else {}
        self._check({**self.arguments, **before}, header["arguments"])
        with complete(self.path):
            return Progress(
                epochs=header["epochs"],
                finished=header["finished"],
                history=header["history"],
                values=[arrays[f"value/{index}"] for index in range(header["count"])],
                extras={name[6:]: array for name, array in arrays.items() if name.startswith("extra/")},
                validation=header.get("validation"),
            )

    def save(self, progress: Progress, variables: Sequence[keras.Variable]) -> None:
        """Replaces the file.

        Args:
            progress: How far the run has come; its `values` are read from the variables.
            variables: All that is needed to go on.
        """
        # As bytes: NumPy's files know no bfloat16.
        values = [np.frombuffer(keras.ops.convert_to_numpy(v.value).tobytes(), np.uint8) for v in variables]
        header = {
            "arguments": self.arguments,
            "epochs": progress.epochs,
            "finished": progress.finished,
            "history": progress.history,
            "count": len(values),
            "validation": progress.validation,
        }
        arrays = {f"value/{index}": value for index, value in enumerate(values)}
        arrays |= {f"extra/{name}": array for name, array in progress.extras.items()}
        write_archive(self.path, "checkpoint", header, arrays, overwrite=True, compress=False)

    def _check(self, expected: Mapping[str, Any], found: Mapping[str, Any]) -> None:
        name = first_difference(expected, found)
        if name is not None:
            wanted, got = (json.dumps(arguments.get(name))[:200] for arguments in (expected, found))
            raise MismatchError(
                f"The checkpoint {self.path} is of another run: its {name} is {got}, this run's is {wanted}. "
                "Start it with the same arguments to go on, or give this run a folder of its own."
            )


def describe_checkpoint(path: PathLike) -> dict[str, Any]:
    """What a checkpoint says of its run, and how far that has come, as plain values for JSON.

    Raises:
        FileError: If it is damaged, or no checkpoint.
    """
    header, _ = read_archive(path, "checkpoint", _Checked)
    history = header["history"]
    return {
        "epochs": header["epochs"],
        "finished": header["finished"],
        "last": {name: values[-1] for name, values in history.items()},
        "history": history,
        "num_variables": header["count"],
        "arguments": header["arguments"],
    }


def first_difference(expected: Mapping[str, Any], found: Mapping[str, Any]) -> str | None:
    """The first argument in which a run that was kept differs from this one; `None` if it is the same run."""
    return next((name for name in {**expected, **found} if expected.get(name) != found.get(name)), None)
