"""`Samples`: pixels that are read when they are asked for, where an array of all of them might not fit the memory."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from functools import cached_property
from numbers import Number
from typing import Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from keras_remos.data.datasets import Dataset
from keras_remos.data.pixels import LEVELS, PREPROCESSOR, PixelSpace
from keras_remos.errors import DataError
from keras_remos.progress import track
from keras_remos.untrusted import Rows, pieces
from keras_remos.untrusted.rows import numbered


class Samples(NDArrayOperatorsMixin, ABC):
    """Pixels of many images that are sliced as an array is, and read when they are.

    `samples[3]`, `samples[10:20]` and `samples[numbers]` are arrays of float32. So is `np.asarray(samples)`, which
    takes the memory for all of them, as does calculating with them.

    Args:
        shape: Of all of them, `(n, ...)`.
        space: What the pixels mean.
    """

    dtype = np.dtype(np.float32)

    def __init__(self, shape: tuple[int, ...], space: PixelSpace) -> None:
        self.shape = tuple(shape)
        self.space = space

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def ndim(self) -> int:
        """How many axes they have, that of the samples included."""
        return len(self.shape)

    @abstractmethod
    def __getitem__(self, rows: Any) -> np.ndarray:
        """Reads samples: a slice, numbers or booleans; one number gives one sample without the axis of the batch."""

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[:].astype(dtype or self.dtype, copy=False)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        if not all(isinstance(each, (np.ndarray, Number, Samples)) for each in inputs):
            return NotImplemented
        arrays = [each[:] if isinstance(each, Samples) else each for each in inputs]
        return getattr(ufunc, method)(*arrays, **options)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of shape {self.shape}, {self.space.low:g} to {self.space.high:g}>"

    def levels(self, rows: Any) -> np.ndarray:
        """The same, as the nearest of the 256 levels of an image file: uint8."""
        return self.space.nearest_levels(self[rows])[0]

    @property
    def limits(self) -> tuple[float, float]:
        """What no pixel is below, and what none is above."""
        return self._survey.least, self._survey.most

    @property
    def are_levels(self) -> bool:
        """Whether all of them are images of 8 bits: each pixel is one of the 256 levels of an image file."""
        return self._survey.are_levels

    @property
    def content(self) -> str:
        """A digest of them, the same in whatever form they are kept and however they are read."""
        return self._survey.content

    @cached_property
    def _survey(self) -> _Survey:
        found = _Survey(self.space)
        for piece in pieces(self):
            found.add(self[piece])
        return found


class Pixels(Samples):
    """Pixels of an array, or of rows in a file.

    Args:
        rows: Shape `(n, ...)`, any type of numbers.
        space: What the pixels mean.
    """

    def __init__(self, rows: np.ndarray | Rows, space: PixelSpace) -> None:
        super().__init__(rows.shape, space)
        self.rows = rows

    def __getitem__(self, rows: Any) -> np.ndarray:
        return self.rows[rows].astype(np.float32, copy=False)

    def levels(self, rows: Any) -> np.ndarray:
        return self.space.nearest_levels(self.rows[rows])[0]

    @cached_property
    def _survey(self) -> _Survey:
        found = _Survey(self.space)
        for piece in pieces(self):
            found.add(self.rows[piece])
        return found


class Levels(Samples):
    """Images of 8 bits, of an array or of rows in a file.

    Args:
        rows: uint8, shape `(n, ...)`: 0 is the smallest pixel, 255 the largest.
        space: What the pixels mean.
    """

    def __init__(self, rows: np.ndarray | Rows, space: PixelSpace) -> None:
        super().__init__(rows.shape, space)
        self.rows = rows

    def __getitem__(self, rows: Any) -> np.ndarray:
        return self.space.from_levels(self.rows[rows])

    def levels(self, rows: Any) -> np.ndarray:
        return self.rows[rows]

    @property
    def limits(self) -> tuple[float, float]:
        low, high = self.space.from_levels(np.array([0, LEVELS], np.uint8)).tolist()
        return low, high

    @property
    def are_levels(self) -> bool:
        return True

    @cached_property
    def _survey(self) -> _Survey:
        found = _Survey(self.space)
        for piece in pieces(self.rows):
            found.add_levels(self.rows[piece])
        return found


class AsLevels:
    """Samples of 8 bits as the array of whole numbers that a file holds of them.

    Args:
        samples: Images of 8 bits.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, samples: Samples) -> None:
        self.shape = samples.shape
        self._samples = samples

    def __getitem__(self, rows: Any) -> np.ndarray:
        return self._samples.levels(rows)


class OfDataset(Samples):
    """The samples of a data set that can be read, in its order. All of them are read once when it is made.

    Args:
        dataset: In pixels.
        space: What the pixels mean.
        limit: How many samples at most.

    Attributes:
        numbers: Which samples of the data set they are, in the order on disk.

    Raises:
        DataError: If none can be read, or a sample has several inputs.
    """

    def __init__(self, dataset: Dataset, space: PixelSpace, limit: int | None = None) -> None:
        self._dataset = dataset
        order, size = dataset.order, dataset.batch_size
        survey, found = _Survey(space), [np.empty(0, np.int64)]
        shape: tuple[int, ...] = ()
        starts = range(0, len(order), size)
        with track(starts, total=len(starts), description="Reading the data") as tracked:
            for start in tracked:
                left = None if limit is None else limit - sum(map(len, found))
                if left == 0:
                    break
                x, numbers = dataset.read(order[start : start + size])
                if not len(numbers):
                    continue
                if not isinstance(x, np.ndarray):
                    raise DataError(f"{dataset.description}: expected one input a sample, received several.")
                survey.add(x[:left])
                found.append(numbers[:left])
                shape = x.shape[1:]
        self.numbers = np.concatenate(found)
        if not len(self.numbers):
            raise dataset.nothing_readable()
        super().__init__((len(self.numbers), *shape), space)
        self._survey = survey

    def __getitem__(self, rows: Any) -> np.ndarray:
        """Reads samples.

        Raises:
            DataError: If one that could be read before cannot be read any more.
        """
        chosen = numbered(rows, len(self))
        if chosen.ndim == 0:
            return self[chosen[np.newaxis]][0]
        if not len(chosen):
            return np.empty((0, *self.shape[1:]), np.float32)
        if isinstance(rows, slice):
            # Who goes through them will ask for these next.
            end = int(chosen[-1]) + 1
            self._dataset.expect(self.numbers[end : end + len(chosen)])
        x, found = self._dataset.read(self.numbers[chosen])
        if len(found) < len(chosen):
            raise DataError(
                f"{self._dataset.description}: {len(chosen) - len(found)} of the samples could be read before, and "
                "cannot be read any more. Leave the data alone while they are used, and start again."
            )
        return x.astype(np.float32, copy=False)


class _Survey:
    """What is to be known of pixels before they are used, found in one pass.

    Args:
        space: What the pixels mean.
    """

    def __init__(self, space: PixelSpace) -> None:
        self.least, self.most = np.inf, -np.inf
        self.are_levels = True
        self._space = space
        self._digest = hashlib.sha256()
        self._begun = False

    def add(self, x: np.ndarray) -> None:
        """Takes some more samples in: pixels."""
        # Not Python's: NaN is neither more nor less than anything.
        self.least = float(np.minimum(self.least, x.min()))
        self.most = float(np.maximum(self.most, x.max()))
        levels, whole = self._space.nearest_levels(x)
        if whole.all():
            self.add_levels(levels)
            return
        self.are_levels = False
        self._begin(x)
        for number, is_whole in enumerate(whole):
            kept = levels[number] if is_whole else x[number].astype(np.float32)
            self._digest.update(b"\x01" if is_whole else b"\x04")
            self._digest.update(np.ascontiguousarray(kept).data)

    def add_levels(self, levels: np.ndarray) -> None:
        """Takes some more samples in: levels."""
        self._begin(levels)
        for sample in levels:
            self._digest.update(b"\x01")
            self._digest.update(np.ascontiguousarray(sample).data)

    @property
    def content(self) -> str:
        return self._digest.hexdigest()

    def _begin(self, x: np.ndarray) -> None:
        if not self._begun:
            self._digest.update(repr((x.shape[1:], self._space.low, self._space.high)).encode())
            self._begun = True


AnySamples = np.ndarray | Samples
"""What is asked for samples: texts as an array of strings, or pixels."""


def as_samples(x: Any, space: PixelSpace) -> AnySamples:
    """Samples to be sliced: pixels as float32, in whatever form they are given; texts, and what is none, as they are.

    Args:
        x: An array or a list of pixels or texts, rows of pixels in a file, or `Samples`.
        space: What pixels mean.
    """
    if isinstance(x, Samples):
        return x
    if isinstance(x, Rows):
        return Pixels(x, space)
    array = np.asarray(x)
    return Pixels(array, space) if array.shape and array.dtype.kind in "uif" else array


def read_samples(dataset: Dataset, space: PixelSpace, *, limit: int | None = None) -> tuple[AnySamples, np.ndarray]:
    """The samples of a data set and their classes.

    Args:
        dataset: In pixels, or texts.
        space: What the pixels mean.
        limit: How many samples at most.

    Returns:
        `(x, y)`: pixels that are read when they are asked for, or all texts; and class ids, int32.

    Raises:
        DataError: If nothing can be read, there are no labels, or a sample has several inputs.
    """
    labels = dataset.required_labels()
    if dataset.kind == "text":
        x, y = dataset.read_all()
        return x[:limit], y[:limit]
    found = OfDataset(dataset, space, limit)
    return found, labels[found.numbers]


def scaled(data: Any, space: PixelSpace) -> Any:
    """Training data in pixels as a model takes them; texts as they are.

    Args:
        data: `(x, y)` or a `Dataset`, which stays on the disk.
        space: How the model's inputs come from pixels.

    Raises:
        DataError: If they are something else, or no pixels of this range.
    """
    if space.scaling == PREPROCESSOR:
        return data
    if isinstance(data, Dataset):
        return data.scaled(space)
    if not (isinstance(data, tuple) and len(data) == 2):
        raise DataError(
            f"Expected training data as (x, y) in pixels, or as a Dataset. Received: {type(data).__name__}."
        )
    x, y = (np.asarray(part) for part in data)
    space.check(x)
    return space.scale(x), y


def same_samples(one: AnySamples, other: AnySamples, space: PixelSpace) -> bool:
    """Whether samples are the same, in whatever form they are kept."""
    one, other = (as_samples(samples, space) for samples in (one, other))
    if one is other or one.shape != other.shape:
        return one is other
    if isinstance(one, Samples) and isinstance(other, Samples):
        return one.content == other.content
    return bool(np.array_equal(np.asarray(one), np.asarray(other)))
