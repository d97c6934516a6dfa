"""`LayerSummary`: what a slice keeps of one kernel, by magnitude."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from keras_remos.slicing.ranking import blocks

# So many magnitudes of a kernel tell where its tenths end.
SAMPLE = 20_000


@dataclass(frozen=True)
class LayerSummary:
    """What a slice keeps of one kernel.

    Args:
        path: The kernel.
        kept: How many of its weights are kept.
        total: How many it has.
        mean_kept: Mean magnitude of the weights that are kept; NaN if there are none.
        mean_excluded: Mean magnitude of the weights that are reset; NaN if there are none.
        excluded_by_magnitude: Of each tenth of the weights, from the smallest magnitudes to the largest, the share that
            is reset (Fig. 10 of the paper); empty where it was not counted.
    """

    path: str
    kept: int
    total: int
    mean_kept: float
    mean_excluded: float
    excluded_by_magnitude: tuple[float, ...] = ()

    def describe(self) -> dict[str, Any]:
        """The same as plain values for JSON."""
        return {**vars(self), "excluded_by_magnitude": list(self.excluded_by_magnitude)}

    @classmethod
    def read(cls, described: Mapping[str, Any]) -> LayerSummary:
        """The summary that `describe` described; what else is there is left out."""
        own = {field.name: described[field.name] for field in fields(cls) if field.name in described}
        return cls(**{**own, "excluded_by_magnitude": tuple(own.get("excluded_by_magnitude", ()))})


class Magnitudes:
    """The magnitudes of a kernel's weights, from which the summary of one mask after the other is made.

    Args:
        path: The kernel.
        weights: Of any float type and shape.
    """

    def __init__(self, path: str, weights: np.ndarray) -> None:
        self._path = path
        self._weights = weights.astype(np.float32, copy=False).ravel()
        # Of so many weights the tenths are known well enough; all of them would have to be sorted. An odd step meets
        # every channel.
        sample = np.abs(self._weights[:: max(self._weights.size // SAMPLE, 1) | 1])
        ends = np.quantile(sample, np.linspace(0.1, 0.9, 9)).astype(np.float32)
        self._tenths = np.empty(self._weights.size, np.uint8)
        self._total = 0.0
        for block in blocks(self._weights.size):
            magnitudes, tenths = np.abs(self._weights[block]), self._tenths[block]
            self._total += float(magnitudes.sum(dtype=np.float64))
            np.greater(magnitudes, ends[0], out=tenths.view(bool))
            for end in ends[1:]:
                tenths += magnitudes > end
        self._counts = [int(np.count_nonzero(self._tenths == tenth)) for tenth in range(10)]

    def summary(self, mask: np.ndarray) -> LayerSummary:
        """What a mask of the kernel's shape keeps."""
        flat = mask.ravel()
        kept, total_kept = 0, 0.0
        excluded = np.zeros(10, np.int64)
        for block in blocks(flat.size):
            chosen, tenths = flat[block], self._tenths[block]
            kept += int(np.count_nonzero(chosen))
            total_kept += float((np.abs(self._weights[block]) * chosen).sum(dtype=np.float64))
            # What is kept is brought out of the way of the ten.
            left = tenths | (chosen.view(np.uint8) << 4)
            excluded += [np.count_nonzero(left == tenth) for tenth in range(10)]
        lost = flat.size - kept
        return LayerSummary(
            self._path,
            kept,
            flat.size,
            total_kept / kept if kept else float("nan"),
            (self._total - total_kept) / lost if lost else float("nan"),
            tuple((excluded / np.maximum(self._counts, 1)).tolist()),
        )
