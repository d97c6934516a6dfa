"""`Dataset`: samples on disk as a `keras.utils.PyDataset`, in batches that any backend's `fit` takes."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, Protocol

import keras
import numpy as np

from keras_remos.data.other_tasks import OtherTaskError
from keras_remos.data.pixels import PixelSpace
from keras_remos.data.streams import Fingerprint
from keras_remos.data.texts import as_texts
from keras_remos.errors import DataError
from keras_remos.notebooks import html_table

Kind = Literal["image", "array", "text"]
Split = Literal["train", "test"]
MAX_QUEUE_SIZE = 2
"""Batches that are read ahead; more cost memory, and help only where batches differ much in what they take."""


class Reader(Protocol):
    """What a `Dataset` reads its samples from."""

    skipped: dict[str, str]

    def __len__(self) -> int:
        """Number of samples listed."""
        ...

    def expect(self, indices: np.ndarray) -> None:
        """Says which samples will be asked for after the next `read`, so that they may be read meanwhile."""
        ...

    def read(self, indices: np.ndarray) -> tuple[Any, np.ndarray]:
        """Returns the inputs of those samples that can be read, and their indices."""
        ...

    def digest(self, indices: np.ndarray) -> bytes:
        """Returns a digest of what is stored of those samples, which need not be decoded for it."""
        ...


class Dataset(keras.utils.PyDataset):
    """`(x, y)` batches from disk; `y` are int32 class ids, and absent where the source has no labels.

    Samples come in one fixed, shuffled order, so that the first batches are a fair sample of all classes. A sample
    that cannot be read is left out and listed in `skipped`. `fit` asks for batches by number and must get something:
    a batch of which nothing can be read is replaced by the next one there. Iteration (and `batches`) leaves it out,
    so that no sample is counted twice.

    Images are read by the threads that `open_dataset` was told of as `workers`. The attribute of that name is Keras'
    own: it stays 1, so that `fit` starts none of its threads beside them.

    Attributes:
        kind: "image" (float32, 0 to 255, shape `(batch, height, width, channels)`), "array" or "text" (`str` arrays).
        class_names: Name of each class id; empty without labels.
        num_classes: Number of classes, or `None` without labels.
        labels: The class id of each sample in the order on disk, or `None`.
        num_samples: Samples listed, those that turn out unreadable included.
        description: What was read, in words.
        numbering: How classes are numbered, in words that follow "Classes are numbered"; empty without labels.
        max_queue_size: How many batches are read ahead while they are asked for one after the other.
        space: How its inputs came from pixels, where they were scaled by `scaled`; else `None`.
        unread: Why there are no labels though the source has some: they are of another task. Empty otherwise.
    """

    def __init__(
        self,
        reader: Reader,
        labels: np.ndarray | None,
        *,
        kind: Kind,
        class_names: Sequence[str] = (),
        batch_size: int = 32,
        seed: int | None = 0,
        description: str = "",
        numbering: str = "",
        unread: str = "",
        transform: Callable[[Any], Any] | None = None,
        space: PixelSpace | None = None,
        max_queue_size: int = MAX_QUEUE_SIZE,
    ) -> None:
        super().__init__(max_queue_size=max_queue_size)
        self.kind = kind
        self.class_names = list(class_names)
        self.num_classes = len(class_names) if labels is not None else None
        self.num_samples = len(reader)
        self.batch_size = batch_size
        self.description = description
        self.numbering = numbering
        self.unread = unread
        self._reader = reader
        self.labels = labels
        self._seed = seed
        self._transform = transform
        self.space = space
        self._last = 0
        order = np.arange(len(reader))
        self._order = order if seed is None else np.random.default_rng(seed).permutation(order)

    def __len__(self) -> int:
        return math.ceil(self.num_samples / self.batch_size)

    def __getitem__(self, index: int) -> Any:
        """Returns batch `index`, or the next one of which something can be read.

        Raises:
            DataError: If no sample of the whole data set can be read.
        """
        follows, self._last = index == self._last + 1, index
        for offset in range(len(self)):
            batch = self._read((index + offset) % len(self), is_followed=follows)
            if batch is not None:
                return batch
        raise self.nothing_readable()

    def __iter__(self) -> Iterator[Any]:
        """Yields each sample that can be read exactly once.

        Raises:
            DataError: If no sample can be read.
        """
        empty = True
        for index in range(len(self)):
            batch = self._read(index, is_followed=True)
            if batch is not None:
                empty = False
                yield batch
        if empty:
            raise self.nothing_readable()

    def __repr__(self) -> str:
        return f"<Dataset {self.description or self.kind}: batches of {self.batch_size}>"

    def _repr_html_(self) -> str:
        counts = [] if self.labels is None else np.bincount(self.labels, minlength=len(self.class_names)).tolist()
        rows = list(zip(self.class_names, counts, strict=True)) or [("(no labels)", self.num_samples)]
        return html_table(repr(self)[1:-1], ("class", "samples"), rows)

    @property
    def order(self) -> np.ndarray:
        """The samples, by their numbers in the order on disk, in the order in which they come."""
        return self._order

    @property
    def skipped(self) -> list[tuple[str, str]]:
        """What was left out so far: `(path, reason)`. Unreadable files are found when they are read."""
        return sorted(self._reader.skipped.items())

    def required_labels(self) -> np.ndarray:
        """The class id of each sample in the order on disk.

        Raises:
            OtherTaskError: If the source's labels are of another task.
            DataError: If it has none.
        """
        if self.labels is not None:
            return self.labels
        if self.unread:
            raise OtherTaskError(self.unread)
        raise DataError(f"{self.description}: there are no labels. Put images into one sub-folder a class, or add y.")

    def read_all(self) -> tuple[np.ndarray, np.ndarray]:
        """Reads the whole data set into memory, in its order.

        Returns:
            `(x, y)`: all inputs in one array, pairs of texts with shape `(n, 2)`, and their class ids, shape `(n,)`,
            int32.

        Raises:
            DataError: If nothing can be read, there are no labels, or a sample has several inputs.
        """
        self.required_labels()
        parts = [keras.utils.unpack_x_y_sample_weight(batch)[:2] for batch in self]
        inputs = [as_texts(x, allow_empty=True) if self.kind == "text" else x for x, _ in parts]
        if not isinstance(inputs[0], np.ndarray):
            raise DataError(f"{self.description}: expected one input a sample, received several.")
        return np.concatenate(inputs), np.concatenate([y for _, y in parts])

    def map(self, transform: Callable[[Any], Any]) -> "Dataset":
        """Returns the same data set with a function applied to the inputs of each batch (scaling, tokenizing).

        Args:
            transform: From the inputs `x` of a batch to the new inputs; applied after those of earlier `map` calls.

        Returns:
            A new `Dataset`; it shares the samples and the `skipped` list with this one.
        """
        before = self._transform
        return self._but(transform=transform if before is None else lambda x: transform(before(x)), space=None)

    def scaled(self, space: PixelSpace) -> "Dataset":
        """Returns the same data set, its pixels scaled as a model takes them.

        Args:
            space: What the pixels mean, and how the model's inputs come from them.
        """
        return self.map(space.scale)._but(space=space)

    def part(self, rows: np.ndarray, which: str) -> "Dataset":
        """Returns some of the samples as a data set of their own.

        Args:
            rows: Their numbers in the order on disk.
            which: What part it is, in words that precede the description.
        """
        return self._but(
            reader=_Part(self._reader, rows),
            labels=None if self.labels is None else self.labels[rows],
            description=f"{which} {self.description}",
        )

    def _but(self, **changes: Any) -> "Dataset":
        """The same data set, made with some other arguments."""
        arguments: dict[str, Any] = {
            "reader": self._reader,
            "labels": self.labels,
            "kind": self.kind,
            "class_names": self.class_names,
            "batch_size": self.batch_size,
            "seed": self._seed,
            "description": self.description,
            "numbering": self.numbering,
            "unread": self.unread,
            "transform": self._transform,
            "space": self.space,
            "max_queue_size": self.max_queue_size,
        }
        return Dataset(**arguments | changes)

    def _read(self, index: int, *, is_followed: bool) -> Any:
        end = (index + 1) * self.batch_size
        if is_followed:
            self.expect(self._order[end : end + self.max_queue_size * self.batch_size])
        return self.take(self._order[end - self.batch_size : end])

    def expect(self, indices: np.ndarray) -> None:
        """Says which samples (numbers in the order on disk) will be asked for after the next `take` or `read`.

        Images are read meanwhile. What was expected before is replaced.
        """
        self._reader.expect(indices)

    def take(self, indices: np.ndarray) -> Any:
        """Returns a batch of those samples (numbers in the order on disk) that can be read; `None` if none can."""
        x, indices = self.read(indices)
        if not len(indices):
            return None
        # Two inputs without labels must not look like (x, y): pack them.
        return keras.utils.pack_x_y_sample_weight(x, None if self.labels is None else self.labels[indices])

    def read(self, indices: np.ndarray) -> tuple[Any, np.ndarray]:
        """Returns the inputs of those samples (numbers in the order on disk) that can be read, and their numbers."""
        x, indices = self._reader.read(indices)
        return (x if self._transform is None or not len(indices) else self._transform(x)), indices

    def digest(self, indices: np.ndarray) -> bytes:
        """A digest of what is stored of those samples (numbers in the order on disk), whatever they are mapped to."""
        return self._reader.digest(indices)

    def nothing_readable(self) -> DataError:
        """What is raised where no sample can be read."""
        examples = "; ".join(f"{path}: {reason}" for path, reason in self.skipped[:3])
        return DataError(f"Expected readable samples. Received: none of {self.num_samples} can be read ({examples}).")


class _Part:
    """Some of the samples that another reader reads."""

    def __init__(self, reader: Reader, rows: np.ndarray) -> None:
        self.skipped = reader.skipped
        self._reader = reader
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def expect(self, indices: np.ndarray) -> None:
        """Says which samples will be asked for next."""
        self._reader.expect(self._rows[indices])

    def read(self, indices: np.ndarray) -> tuple[Any, np.ndarray]:
        """Returns the samples that can be read, and their numbers in this part."""
        wanted = self._rows[indices]
        x, found = self._reader.read(wanted)
        # Readers keep the order in which they are asked.
        return x, indices[np.isin(wanted, found)]

    def digest(self, indices: np.ndarray) -> bytes:
        """Returns a digest of what is stored of those samples."""
        return self._reader.digest(self._rows[indices])


class ArrayReader:
    """Samples of an array in memory, or of several of one length."""

    def __init__(self, *arrays: np.ndarray | list[str], dtype: Any = None) -> None:
        self.skipped: dict[str, str] = {}
        self._arrays = arrays
        self._dtype = dtype

    def __len__(self) -> int:
        return len(self._arrays[0])

    def expect(self, indices: np.ndarray) -> None:
        """Makes no difference: all of them are at hand."""

    def read(self, indices: np.ndarray) -> tuple[Any, np.ndarray]:
        """Returns the samples, and the same indices."""
        parts = [self._take(array, indices) for array in self._arrays]
        return (parts[0] if len(parts) == 1 else parts), indices

    def digest(self, indices: np.ndarray) -> bytes:
        """Returns a digest of those samples."""
        return Fingerprint.of(*(self._take(array, indices) for array in self._arrays)).encode()

    def _take(self, array: np.ndarray | list[str], indices: np.ndarray) -> np.ndarray:
        if isinstance(array, list):
            return np.array([array[index] for index in indices], dtype=np.str_)
        taken: np.ndarray = array[indices].astype(self._dtype or array.dtype, copy=False)
        return taken
