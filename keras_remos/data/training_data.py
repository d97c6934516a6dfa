"""`TrainingData`: the batches of `fit`, in an order and with an augmentation that every method shares."""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_remos.data.arrays import kind_of, map_arrays, to_numpy
from keras_remos.data.checked_streams import checked_stream
from keras_remos.data.datasets import Dataset
from keras_remos.data.labels import check_labels, count_label_classes, is_one_hot
from keras_remos.data.other_tasks import refuse_other_tasks
from keras_remos.data.streams import Batch, Fingerprint, as_arrays, is_array_data
from keras_remos.data.twins import Twins
from keras_remos.errors import DataError
from keras_remos.progress import track

Augmentation = str | Callable[[np.ndarray, np.random.Generator], np.ndarray]
AUGMENTATIONS = ("flip-crop", "none")
# Of an image's side, as usual for CIFAR: 4 pixels of 32.
_MOST_SHIFT = 1 / 8
# For a fingerprint: samples at a time, and of how many it counts what a model gets.
_PIECE = 1024
_LOOKED_AT = 128


def training_data(data: Any, *, num_classes: int, **options: Any) -> Any:
    """Wraps what can be put in order; whatever else `fit` takes stays as it is, but for its labels being checked.

    Args:
        data: Arrays `(x, y)` or `(x, y, sample_weight)`, a `Dataset`, or anything that `fit` takes.
        num_classes: How many classes the labels are of.
        options: See `TrainingData`.

    Raises:
        DataError: If arrays or a `Dataset` are empty, have no labels, labels of one class only, or labels that are
            not class ids from 0 to `num_classes - 1` (or one-hot rows of that length). A stream of batches raises it
            while it is read: see `checked_stream`.
    """
    if isinstance(data, Dataset) or (isinstance(data, tuple) and is_array_data(data)):
        return TrainingData(data, num_classes=num_classes, **options)
    if is_array_data(data):
        raise _unlabelled()
    return data if isinstance(data, TrainingData) else checked_stream(data, num_classes)


def count_classes(data: Any) -> int:
    """How many classes training data have, where that can be known before they are read.

    Args:
        data: See `training_data`.

    Raises:
        DataError: If they do not tell.
    """
    if isinstance(data, Dataset) and data.num_classes is not None:
        return data.num_classes
    if isinstance(data, tuple) and is_array_data(data):
        _, y, _ = as_arrays(data)
        if y is None:
            raise _unlabelled()
        refuse_other_tasks(y)
        return count_label_classes(y)
    if isinstance(data, Dataset):
        return count_label_classes(data.required_labels())
    if is_array_data(data):
        raise _unlabelled()
    raise DataError(f"Expected `num_classes`: {kind_of(data)} does not tell how many classes there are. Pass it.")


def _unlabelled() -> DataError:
    return DataError("Expected inputs with labels, as a tuple (x, y). Received: inputs alone.")


@dataclass(frozen=True, eq=False)
class _Epoch:
    """What is drawn for one epoch: for each place in it the sample, whether it is mirrored, and where it is cut out.

    And a number that decides whether its twin stands in for it.
    """

    number: int
    order: np.ndarray
    mirrored: np.ndarray
    places: np.ndarray
    keys: np.ndarray


class TrainingData(keras.utils.PyDataset):
    """Labelled batches, shuffled and augmented anew for each epoch.

    Order and augmentation depend on the seed and the number of the epoch alone: not on the model, the backend, or what
    was read before. Whoever runs the epochs sets `epoch` when one begins.

    Args:
        source: Arrays `(x, y)` or `(x, y, sample_weight)`, or a `Dataset`.
        num_classes: How many classes the labels are of.
        batch_size: Samples a batch.
        seed: For order and augmentation. `None` keeps the source's order.
        augment: `"flip-crop"`: images are mirrored at random and shifted by up to an eighth of their side, what comes
            in from outside being reflected; inputs that are no images stay as they are. `"none"`, or a function of a
            batch of inputs and a `numpy.random.Generator`.
        data_format: Of the images.
        transform: Applied to the inputs of each batch before they are augmented.

    Attributes:
        labels: Class ids, shape `(n,)`, in the source's own order.
        one_hot: Whether they were one-hot rows.

    Raises:
        DataError: See `training_data`.
    """

    def __init__(
        self,
        source: Any,
        *,
        num_classes: int,
        batch_size: int = 128,
        seed: int | None = 0,
        augment: Augmentation = "flip-crop",
        data_format: str = "channels_last",
        transform: Callable[[Any], Any] | None = None,
    ) -> None:
        super().__init__()
        self.batch_size = batch_size
        self.seed = seed
        self.augment = augment
        self.data_format = data_format
        self.transform = transform
        self.epoch = 0
        if isinstance(source, Dataset):
            if source.num_classes not in (None, num_classes):
                raise DataError(
                    f"Expected a data set of {num_classes} classes, as `num_classes` says. Received: "
                    f"{source.description}, with {source.num_classes} ({', '.join(source.class_names[:5])}, ...). "
                    "Classes are numbered by their names: a missing one shifts the others."
                )
            self._source: Dataset | Batch = source
            self.labels = check_labels(source.required_labels(), num_classes)
            self.one_hot = False
        else:
            x, y, sample_weight = as_arrays(source)
            self.labels = check_labels(y, num_classes)
            self.one_hot = is_one_hot(to_numpy(y), num_classes)
            self._source = x, self.labels, sample_weight
        self.num_samples = len(self.labels)
        self._drawn: _Epoch | None = None
        self._last = 0
        self._twins: Twins | None = None
        self._of_samples: str | None = None

    def __len__(self) -> int:
        return math.ceil(self.num_samples / self.batch_size)

    def __getitem__(self, index: int) -> Any:
        """Returns a batch of the current epoch, or the next one of which something can be read.

        Raises:
            DataError: If no sample at all can be read.
        """
        epoch = self._draw()
        if index == self._last + 1:
            self._expect(epoch, index + 1)
        self._last = index
        for offset in range(len(self)):
            number = (index + offset) % len(self)
            places = slice(number * self.batch_size, (number + 1) * self.batch_size)
            batch = self._with_twins(epoch.order[places], epoch.keys[places])
            if batch is not None:
                x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
                x = self._augmented(x if self.transform is None else self.transform(x), epoch, number, places)
                return keras.utils.pack_x_y_sample_weight(x, y, sample_weight)
        raise DataError("Expected readable samples. Received: none of the data set can be read.")

    def plain(self) -> TrainingData:
        """The same data in the source's own order, without augmentation: to be measured, not to be trained on."""
        twin = self.unaugmented()
        twin.seed, twin._drawn = None, None
        return twin

    def unaugmented(self) -> TrainingData:
        """The same data in the order of the current epoch, without augmentation."""
        twin = copy.copy(self)
        twin.augment, twin._twins = "none", None
        return twin

    def with_twins(self, twins: Twins) -> TrainingData:
        """The same data in the same order, a share of each batch being replaced by its twins.

        A twin is augmented as a sample is. Batches stay as large as they are, so epochs stay as long.

        Args:
            twins: One for each sample, in the order of `plain`.
        """
        hardened = copy.copy(self)
        hardened._twins = twins
        return hardened

    def fingerprint(self, *, verbose: bool | str = False) -> str:
        """A digest of what is trained on: samples, labels, weights and twins.

        Samples are read for it once. All that is stored of them counts, and what a model gets of some that lie all over
        the data: scaled, resized and tokenized. So files are read, and not decoded.

        Args:
            verbose: Progress on stderr: `True`, `False`, or `"auto"` for terminals and notebooks only.
        """
        if self._of_samples is None:
            self._of_samples = self._digest_of_samples(verbose)
        twins = "" if self._twins is None else self._twins.fingerprint()
        return hashlib.sha256(f"{self._of_samples}{twins}".encode()).hexdigest()

    def _digest_of_samples(self, verbose: bool | str) -> str:
        total = hashlib.sha256(self.labels.tobytes())
        pieces = range(0, self.num_samples, _PIECE)
        with track(pieces, total=len(pieces), description="Fingerprint of the data", verbose=verbose) as tracked:
            for start in tracked:
                total.update(self._stored(np.arange(start, min(start + _PIECE, self.num_samples))))
        seen = self._take(np.unique(np.linspace(0, self.num_samples - 1, _LOOKED_AT).astype(np.int64)))
        if seen is not None:
            x, *_ = keras.utils.unpack_x_y_sample_weight(seen)
            total.update(_digest(x if self.transform is None else self.transform(x)))
        return total.hexdigest()

    def _stored(self, rows: np.ndarray) -> bytes:
        if isinstance(self._source, Dataset):
            return self._source.digest(rows)
        x, _, weights = map_arrays(lambda leaf: _pick(leaf, rows), self._source)
        return _digest({"x": x, "weights": weights})

    def fingerprint_of_augmentation(self) -> str:
        """A digest of what the very first batch becomes: a function that augments has no other mark.

        Raises:
            DataError: If it becomes something else each time.
        """
        twice = []
        for _ in range(2):
            data = copy.copy(self)
            data.epoch = 0
            twice.append(_digest(keras.utils.unpack_x_y_sample_weight(data[0])[0]))
        if twice[0] != twice[1]:
            raise DataError(
                "A run goes on from its `checkpoint` only if its data are the same, and these differ each time that "
                "they are read: an augmentation, or a function that they are mapped by, draws numbers of its own. Have "
                "it draw from the generator that it is given, or leave `checkpoint` out."
            )
        return twice[0].decode()

    def fingerprint_of_format_1(self) -> str:
        """What checkpoints of format 1 hold: of a `Dataset` a digest of its description and labels alone."""
        marks = Fingerprint()
        if not isinstance(self._source, Dataset):
            marks.update(self._source[0])
        described = self._source.description if isinstance(self._source, Dataset) else marks.hexdigest()
        twins = "" if self._twins is None else self._twins.fingerprint()
        return hashlib.sha256(described.encode() + self.labels.tobytes() + twins.encode()).hexdigest()[:16]

    def _draw(self) -> _Epoch:
        drawn = self._drawn
        # Kept whole and replaced whole: a backend may read ahead in a thread of its own.
        if drawn is None or drawn.number != self.epoch:
            drawn = self._drawn = _draw(self.num_samples, self.seed, self.epoch)
        return drawn

    def read(self, rows: np.ndarray) -> tuple[np.ndarray, Any]:
        """Reads samples by their numbers in the source: the numbers of those that can be read, and their inputs."""
        if isinstance(self._source, Dataset):
            x, found = self._source.read(rows)
            return found, x
        return rows, map_arrays(lambda leaf: _pick(leaf, rows), self._source[0])

    def _with_twins(self, rows: np.ndarray, keys: np.ndarray) -> Any:
        replaced = np.zeros(len(rows), bool) if self._twins is None else self._twins.chosen(rows, keys)
        if self._twins is None or not replaced.any():
            return self._take(rows)
        labels, weights = self.labels, None if isinstance(self._source, Dataset) else self._source[2]
        stand_ins = rows[replaced]
        twins = (
            self._twins.inputs(stand_ins),
            labels[stand_ins],
            None if weights is None else _pick(weights, stand_ins),
        )
        rest = self._take(rows[~replaced])
        if rest is None:
            return keras.utils.pack_x_y_sample_weight(*twins)
        # Where in a batch a sample stands does not matter.
        others = keras.utils.unpack_x_y_sample_weight(rest)
        joined = [
            None if twin is None else np.concatenate([other, twin]) for other, twin in zip(others, twins, strict=True)
        ]
        return keras.utils.pack_x_y_sample_weight(*joined)

    def _expect(self, epoch: _Epoch, index: int) -> None:
        """Has the batches from one on read meanwhile: those of this epoch, as the next may never be asked for."""
        if isinstance(self._source, Dataset):
            ahead = range(index, min(index + self._source.max_queue_size, len(self)))
            rows = [self._to_be_read(epoch, slice(i * self.batch_size, (i + 1) * self.batch_size)) for i in ahead]
            self._source.expect(np.concatenate([*rows, epoch.order[:0]]))

    def _to_be_read(self, epoch: _Epoch, places: slice) -> np.ndarray:
        rows = epoch.order[places]
        return rows if self._twins is None else rows[~self._twins.chosen(rows, epoch.keys[places])]

    def _take(self, indices: np.ndarray) -> Any:
        if isinstance(self._source, Dataset):
            return self._source.take(indices)
        return map_arrays(lambda leaf: _pick(leaf, indices), self._source)

    def _augmented(self, x: Any, epoch: _Epoch, number: int, places: slice) -> Any:
        if callable(self.augment):
            return self.augment(x, np.random.default_rng([self.seed or 0, epoch.number, number]))
        if self.augment == "none" or not isinstance(x, np.ndarray) or x.ndim != 4:
            return x
        # Samples that cannot be read are missing at the end of the batch: which draw a sample gets does not matter.
        count = slice(places.start, places.start + len(x))
        return flip_crop(x, epoch.mirrored[count], epoch.places[count], data_format=self.data_format)


def _digest(arrays: Any) -> bytes:
    marks = Fingerprint()
    marks.update(arrays)
    return marks.hexdigest().encode()


def _pick(leaf: Any, indices: np.ndarray) -> np.ndarray:
    if type(leaf) is np.ndarray:
        return leaf[indices]
    # What lies on disk is read from front to back; HDF5 takes no other order.
    order = np.argsort(indices)
    return np.asarray(leaf[indices[order]])[np.argsort(order)]


def flip_crop(x: np.ndarray, mirrored: np.ndarray, places: np.ndarray, *, data_format: str) -> np.ndarray:
    """Mirrors and shifts images.

    Args:
        x: Images of shape `(batch, height, width, channels)`, or as `data_format` says.
        mirrored: For each whether left and right change places, shape `(batch,)`.
        places: Where each is cut out of the image with its reflected surroundings, vertically and horizontally:
            shape `(batch, 2)`, from 0 (furthest up or left) to less than 1 (furthest down or right).
        data_format: `"channels_last"` or `"channels_first"`.
    """
    images = np.moveaxis(x, 1, -1) if data_format == "channels_first" else x
    count, height, width = images.shape[:3]
    rows, columns = _shifted(height, places[:, 0]), _shifted(width, places[:, 1])
    columns = np.where(mirrored[:, None], columns[:, ::-1], columns)
    cut = images[np.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]
    return np.moveaxis(cut, -1, 1) if data_format == "channels_first" else cut


def _shifted(side: int, places: np.ndarray) -> np.ndarray:
    """For each image the pixels that it shows along one side."""
    most = int(side * _MOST_SHIFT)
    shifts = np.floor(places * (2 * most + 1)).astype(np.int64) - most
    pixels = np.abs(np.arange(side) + shifts[:, None])
    return np.where(pixels < side, pixels, 2 * (side - 1) - pixels)


def _draw(num_samples: int, seed: int | None, epoch: int) -> _Epoch:
    if seed is None:
        samples = np.arange(num_samples)
        still = np.zeros(num_samples, bool), np.full((num_samples, 2), 0.5)
        return _Epoch(epoch, samples, *still, np.zeros(num_samples))
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(num_samples)
    mirrored, places = rng.random(num_samples) < 0.5, rng.random((num_samples, 2))
    return _Epoch(epoch, order, mirrored, places, rng.random(num_samples))
