"""One model of the zoo: how it is built, and what goes in. Nothing here uses keras_remos."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

SAMPLES = 4
# An axis of unknown size is so long: of a sequence, and of an image.
LENGTH, SIDE = 6, 32
# Token ids are below this in every tiny vocabulary.
TOKENS = 8
# Other whole numbers, by a part of their input's name.
RANGES = {"segment": (0, 2), "positions": (0, LENGTH), "labels": (0, 2)}


@dataclass(frozen=True)
class Specimen:
    """A model and what it is given.

    Args:
        name: Of the model in the table.
        build: Makes it.
        shapes: Of one sample of an input, by its name, where some axis is of unknown size.
        values: Makes an input by its name, `(rng, shape) -> array`, where random ones say nothing to the model.
        data: Makes all of the inputs, where the model does not tell what it takes.
        refused: A part of the words in which nothing but a refusal is expected.
        changed: Why a file of a trained one need not predict the same, by the doing of the model itself.
    """

    name: str
    build: Callable[[], keras.Model]
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    values: Mapping[str, Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]] = field(default_factory=dict)
    data: Callable[[np.random.Generator, int], Any] | None = None
    refused: str | None = None
    changed: str | None = None

    def inputs(self, model: keras.Model, seed: int = 0) -> Any:
        """Samples of what the model takes."""
        rng = np.random.default_rng(seed)
        if self.data is not None:
            return self.data(rng, SAMPLES)
        taken = model.input
        if isinstance(taken, Mapping):
            return {name: self._array(name, tensor, rng) for name, tensor in taken.items()}
        return keras.tree.map_structure(lambda tensor: self._array(tensor.name, tensor, rng), taken)

    def _array(self, name: str, tensor: keras.KerasTensor, rng: np.random.Generator) -> np.ndarray:
        axes = tuple(tensor.shape)[1:]
        unknown = SIDE if len(axes) > 2 else LENGTH
        shape = (SAMPLES, *self.shapes.get(name, tuple(axis or unknown for axis in axes)))
        dtype = keras.backend.standardize_dtype(tensor.dtype)
        if name in self.values:
            return np.asarray(self.values[name](rng, shape)).astype(dtype)
        if "mask" in name and len(shape) < 4:
            return np.ones(shape, dtype)
        if dtype.startswith(("int", "uint")):
            first, last = next((range_ for part, range_ in RANGES.items() if part in name), (1, TOKENS))
            return rng.integers(first, last, shape).astype(dtype)
        return rng.normal(size=shape).astype(dtype)
