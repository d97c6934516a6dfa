"""How far training took a student's weights from its teacher's (Fig. 9 of the ReMoS paper)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_remos.models.sliceable import kernels_by_path

# Where fine-tuned students' ratios lie, finely; what is outside is counted.
EDGES = np.linspace(-0.5, 2.5, 61)


@dataclass(frozen=True, eq=False)
class WeightChange:
    """The weights of a student over those of its teacher, kernel by kernel, as a histogram.

    Args:
        counts: How many ratios fall between two edges, from -0.5 to 2.5 in 60 steps. A weight that did not move is at
            1, one that was reset and stayed so at 0.
        below: How many are smaller.
        above: How many are larger.

    Reference:
        ReMoS (ICSE 2022), section 5.5 and Figure 9.
    """

    counts: np.ndarray
    below: int
    above: int

    def describe(self) -> dict[str, Any]:
        """The same as plain values for JSON."""
        edges = [round(float(edge), 6) for edge in EDGES]
        return {"edges": edges, "counts": self.counts.tolist(), "below": self.below, "above": self.above}


def weight_change(teacher: keras.Model, student: keras.Model) -> WeightChange | None:
    """Compares a student's weights with its teacher's.

    Args:
        teacher: The teacher.
        student: A model that was made from it: its layers have the teacher's paths.

    Returns:
        The histogram over the kernels that both have; `None` if they have none in common. Weights that are 0 in the
        teacher have no ratio, and do not count.
    """
    theirs, ours = _kernels(teacher), _kernels(student)
    common = [path for path, kernel in theirs.items() if path in ours and ours[path].shape == kernel.shape]
    counts, below, above = np.zeros(len(EDGES) - 1, np.int64), 0, 0
    for path in common:
        before, after = (np.asarray(keras.ops.convert_to_numpy(each[path]), np.float32) for each in (theirs, ours))
        with np.errstate(over="ignore"):
            ratios = after[before != 0] / before[before != 0]
        counts += np.histogram(ratios, EDGES)[0]
        below += int(np.count_nonzero(ratios < EDGES[0]))
        above += int(np.count_nonzero(ratios > EDGES[-1]))
    return WeightChange(counts, below, above) if common else None


def _kernels(model: keras.Model) -> dict[str, keras.Variable]:
    return {path: kernel.variable for path, (_, kernel) in kernels_by_path(model).items()}
