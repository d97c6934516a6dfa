"""`Twins`: other inputs with the same labels, which stand in for a share of the samples of every training batch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from keras_remos.data.pixels import PixelSpace
from keras_remos.data.streams import Fingerprint
from keras_remos.errors import RemosError
from keras_remos.untrusted import Rows, pieces


@dataclass(frozen=True, eq=False)
class Twins:
    """Other inputs for the samples of a data set, kept as 8-bit images.

    Args:
        levels: uint8, shape `(n, ...)`: one for each sample, in the order in which the source stores them; in memory or
            in a file.
        present: Booleans, shape `(n,)`: which samples have one.
        space: How a model's inputs come from pixels.
        share: Of each batch, at least 0 and less than 1: so many of its samples give way to their twins.

    Raises:
        RemosError: If the share is out of range.
    """

    levels: np.ndarray | Rows
    present: np.ndarray
    space: PixelSpace
    share: float

    def __post_init__(self) -> None:
        if not 0 <= self.share < 1:
            raise RemosError(f"`share` must be at least 0 and less than 1, received {self.share!r}.")

    def inputs(self, rows: np.ndarray) -> np.ndarray:
        """What the model takes for the twins of these samples: float32."""
        scaled: np.ndarray = self.space.scale(self.space.from_levels(self.levels[rows]))
        return scaled.astype(np.float32, copy=False)

    def chosen(self, rows: np.ndarray, keys: np.ndarray) -> np.ndarray:
        """Which samples of a batch give way.

        Args:
            rows: The batch's samples, by their numbers in the source.
            keys: A random number for each: the samples with the smallest ones give way.

        Returns:
            Booleans, one for each of `rows`. The same share of every batch, as far as samples have twins.
        """
        count = min(round(self.share * len(rows)), int(np.count_nonzero(self.present[rows])))
        order = np.argsort(np.where(self.present[rows], keys, np.inf), kind="stable")
        chosen = np.zeros(len(rows), bool)
        chosen[order[:count]] = True
        return chosen

    def fingerprint(self) -> str:
        """A digest of all of it."""
        marks = Fingerprint()
        for piece in pieces(self.levels):
            # The share is one number, whatever the pieces.
            marks.update([self.levels[piece], self.present[piece], np.array([self.share])[piece]])
        return marks.hexdigest()
