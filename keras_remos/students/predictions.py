"""`Predictions`: which classes a student names for some samples, and how sure it is."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_remos.untrusted import PathLike, in_lines, printable
from keras_remos.writing import replacing

# As wide as a terminal leaves room for beside a class.
_WIDEST = 60


@dataclass(frozen=True, eq=False, repr=False)
class Predictions:
    """What a student says of some samples.

    Args:
        inputs: What each sample is called: its file, the line of its table, a text itself, or its number.
        probabilities: What it gives to each class, float32 of shape `(n, classes)`.
        class_names: The classes, in the order of the columns.
        top: How many classes are shown of each sample.
        skipped: `(path, reason)` of what could not be read.
    """

    inputs: tuple[str, ...]
    probabilities: np.ndarray
    class_names: tuple[str, ...]
    top: int = 3
    skipped: tuple[tuple[str, str], ...] = ()

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def classes(self) -> list[str]:
        """The likeliest class of each sample, by name."""
        return [self.class_names[number] for number in self.probabilities.argmax(axis=-1)]

    def likeliest(self) -> list[list[tuple[str, float]]]:
        """For each sample its `top` classes and their probabilities, the likeliest first."""
        order = np.argsort(-self.probabilities, axis=-1, kind="stable")[:, : self.top]
        return [
            [(self.class_names[number], float(row[number])) for number in best]
            for row, best in zip(self.probabilities, order, strict=True)
        ]

    def describe(self) -> dict[str, Any]:
        """The same as plain values, for JSON."""
        return {
            "class_names": list(self.class_names),
            "predictions": [
                {"input": name, "top": [{"class": said, "probability": sure} for said, sure in best]}
                for name, best in zip(self.inputs, self.likeliest(), strict=True)
            ],
            "skipped": [{"path": path, "reason": reason} for path, reason in self.skipped],
        }

    def summary(self) -> str:
        """A line for each sample: the likeliest classes with their probabilities."""
        names = [_shortened(printable(name)) for name in self.inputs]
        width = max(map(len, names), default=0)
        said = (", ".join(f"{name} {sure:.1%}" for name, sure in best) for best in self.likeliest())
        return in_lines(f"{name:<{width}}  {line}" for name, line in zip(names, said, strict=True))

    def save_csv(self, path: PathLike, *, overwrite: bool = False) -> None:
        """Writes a table in UTF-8: the input, and for each of its `top` classes the name and the probability.

        Args:
            path: The file.
            overwrite: Whether an existing file may be replaced.

        Raises:
            FileError: If the file exists and may not be replaced.
        """
        table = io.StringIO(newline="")
        csv.writer(table).writerows(self._rows())
        with replacing(path, overwrite=overwrite) as temporary:
            # Names of files need not be text.
            temporary.write_bytes(table.getvalue().encode("utf-8", "backslashreplace"))

    def _rows(self) -> Iterator[list[Any]]:
        shown = min(self.top, len(self.class_names))
        yield ["input", *(f"{what}_{rank}" for rank in range(1, shown + 1) for what in ("class", "probability"))]
        for name, best in zip(self.inputs, self.likeliest(), strict=True):
            yield [name, *(value for said, sure in best for value in (said, f"{sure:.6g}"))]

    def __repr__(self) -> str:
        return f"<Predictions of {len(self):,} samples, {len(self.class_names)} classes>"


def _shortened(name: str) -> str:
    """A path or a text of which the middle may be left out."""
    half = (_WIDEST - 3) // 2
    return name if len(name) <= _WIDEST else f"{name[:half]}...{name[-half:]}"
