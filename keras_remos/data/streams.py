"""Batches of NumPy arrays from whatever `model.fit` takes, and a digest of a data set that no batch size changes."""

import hashlib
import itertools
import operator
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import keras
import numpy as np

from keras_remos.data.arrays import is_plain, is_plain_list, is_sparse, kind_of, leaves, map_arrays, mro_has, to_numpy
from keras_remos.data.checked_streams import data_errors
from keras_remos.errors import DataError
from keras_remos.untrusted import pieces

DEFAULT_BATCH_SIZE = 32

Batch = tuple[Any, Any, Any]
"""`(x, y, sample_weight)`: each a NumPy array, a dict, list or tuple of them, or (the last two) `None`."""

_STREAM_KINDS = {"DatasetV2", "DataLoader", "MapDataset", "IterDataset"}  # tf.data, PyTorch, grain


def batches(data: Any, *, batch_size: int | None = None, steps: int | None = None) -> "Batches":
    """Makes one kind of stream out of all the kinds of data that `model.fit` takes.

    A tuple is always read as `(x,)`, `(x, y)` or `(x, y, sample_weight)`, as Keras does with the batches of a data
    set; several inputs go into a list or a dict. Nothing is read before the result is iterated over.

    Args:
        data: Arrays (NumPy, pandas, TensorFlow, PyTorch, JAX; a list of strings is one array), a dict or list of
            arrays, a tuple of those, `tf.data.Dataset`, `keras.utils.PyDataset`, PyTorch `DataLoader`, grain
            `DataLoader`, `MapDataset` or `IterDataset`, or any iterable or generator of batches, with or without
            labels and sample weights. All but the arrays bring their own batches.
        batch_size: Samples in a batch, for arrays only; 32 when not given.
        steps: Stop after so many batches. Data without an end need it.

    Returns:
        A `Batches`, to be iterated over.

    Raises:
        DataError: If the data are empty or of an unknown kind, arrays differ in length, `batch_size` is given for
            data that are batched already, or the data have no end and `steps` is not given.

    Example:
    ```python
    for x, y, sample_weight in batches((images, labels), batch_size=64):
        ...
    ```
    """
    _check_positive("batch_size", batch_size)
    _check_positive("steps", steps)
    if isinstance(data, Batches):
        return _limited(data, batch_size, steps)
    if is_array_data(data):
        return _array_batches(data, batch_size or DEFAULT_BATCH_SIZE, steps)
    if batch_size is not None:
        raise DataError(
            f"`batch_size` is for arrays; {kind_of(data)} brings its own batches. Received {batch_size}: "
            "leave it out and set the batch size where the data set is made."
        )
    return _stream_batches(data, steps)


class Batches:
    """A stream of `(x, y, sample_weight)` batches of NumPy arrays.

    It can be iterated over again when its source can: arrays and data sets yes, generators and iterators no (`once`).
    Strings come as `str` arrays and bfloat16 as float32 (which holds the same values), whatever they came as. Batches
    without a sample are left out.

    Attributes:
        num_batches: Number of batches, at most `steps`; `None` where the source does not tell.
        kind: What the source is, in words.
        once: Whether the source can be read only once.
    """

    def __init__(
        self,
        source: Callable[[int | None], Iterable[Any]],
        *,
        num_batches: int | None = None,
        steps: int | None = None,
        kind: str = "the data",
        once: bool = False,
    ) -> None:
        self.num_batches = _smallest(num_batches, steps)
        self.kind = kind
        self.once = once
        self._source = source
        self._steps = steps

    def __iter__(self) -> Iterator[Batch]:
        """Yields the batches.

        Raises:
            DataError: If there is no batch at all, or a batch cannot be used.
        """
        taken = 0
        with data_errors():
            for number, raw in enumerate(self._source(self._steps), start=1):
                batch = _to_batch(raw, number)
                if next(len(leaf) for _, leaf in leaves(batch[0])):
                    taken += 1
                    yield batch
        if not taken:
            raise DataError(f"Expected at least one batch with a sample, but {self.kind} gave none. {self._way_out()}")

    def _way_out(self) -> str:
        if self.once:
            return "A generator or iterator can be read only once: was it read before? Make a new one, or pass arrays."
        return "Check that the data set is not empty (a filter, a wrong path, `drop_remainder` on a small set)."


class Fingerprint:
    """A digest (SHA-256) of the samples of a data set, the same whatever the batch size.

    Each input array has its own running digest over dtype, sample shape and bytes; strings count as UTF-8. Labels are
    no part of it unless they are passed in.

    Example:
    ```python
    fingerprint = Fingerprint()
    for x, _, _ in batches(data):
        fingerprint.update(x)
    fingerprint.hexdigest()
    ```
    """

    def __init__(self) -> None:
        self.num_samples = 0
        self._digests: dict[str, Any] = {}
        self._headers: dict[str, str] = {}

    @classmethod
    def of(cls, *arrays: Any) -> str:
        """The digest of arrays of one length, or of what is sliced as they are: piece by piece."""
        marks = cls()
        for piece in pieces(arrays[0]):
            marks.update([array[piece] for array in arrays])
        return marks.hexdigest()

    def update(self, x: Any) -> None:
        """Adds one batch.

        Args:
            x: An array of shape `(batch, ...)`, or a dict, list or tuple of such arrays.
        """
        size = 0
        for path, leaf in leaves(x):
            array = to_numpy(leaf)
            self._update_leaf(path, array)
            size = len(array)
        self.num_samples += size

    def hexdigest(self) -> str:
        """Returns the digest of all samples so far, as 64 hexadecimal digits."""
        total = hashlib.sha256()
        for path in sorted(self._digests):
            total.update(f"{path}\0{self._digests[path].hexdigest()}\n".encode())
        return total.hexdigest()

    def _update_leaf(self, path: str, array: np.ndarray) -> None:
        digest = self._digests.setdefault(path, hashlib.sha256())
        text = array.dtype.kind == "U"
        # The width of a str dtype is that of the longest string in the batch: it would let the batch size in.
        header = f"{'str' if text else array.dtype.newbyteorder('<').str}{array.shape[1:]}"
        if self._headers.get(path) != header:
            self._headers[path] = header
            digest.update(header.encode())
        if text:
            encoded = [item.encode("utf-8", "surrogatepass") for item in array.ravel().tolist()]
            digest.update(b"".join(len(item).to_bytes(8, "little") + item for item in encoded))
        elif array.size:
            little_endian = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
            digest.update(little_endian.reshape(-1).view(np.uint8).data)


# --- arrays -----------------------------------------------------------------------------------------------------------


def _array_batches(data: Any, batch_size: int, steps: int | None) -> Batches:
    """Cuts arrays into batches; a backend's tensors go to the host once, as they are held in memory anyway."""
    parts = as_arrays(data)
    count = _num_samples(parts, "the data")

    def source(steps: int | None) -> Iterator[Batch]:
        for start in itertools.islice(range(0, count, batch_size), steps):
            piece = slice(start, start + batch_size)
            yield map_arrays(operator.itemgetter(piece), parts)

    return Batches(source, num_batches=-(-count // batch_size), steps=steps, kind="the arrays")


def as_arrays(data: Any) -> Batch:
    """Takes array data apart.

    Args:
        data: Arrays, a list or dict of them (inputs alone), or a tuple `(x,)`, `(x, y)` or `(x, y, sample_weight)`.

    Returns:
        `(x, y, sample_weight)` of NumPy arrays, or of arrays on disk that can be cut before they are read.

    Raises:
        DataError: If there are no samples, or not as many of each.
    """
    parts = map_arrays(_sliceable, _unpack((data,) if isinstance(data, list) else data, "the data"))
    if not _num_samples(parts, "the data"):
        raise DataError("Expected at least one sample. Received: arrays of length 0.")
    return parts


def is_array_data(data: Any) -> bool:
    """Whether these are arrays, or a structure of nothing but arrays, and no stream of batches."""
    if isinstance(data, (list, tuple)):
        return all(item is None or is_array_data(item) or is_plain(item) for item in data)
    if isinstance(data, Mapping):
        return all(is_array_data(item) for item in data.values())
    if isinstance(data, keras.utils.PyDataset) or mro_has(data, *_STREAM_KINDS):
        return False
    return hasattr(data, "shape") or hasattr(data, "__array__") or is_sparse(data)


def _sliceable(leaf: Any) -> Any:
    """Leaves on disk (memory maps, HDF5) are cut before they are read; all else is converted once."""
    on_disk = isinstance(leaf, np.memmap) or type(leaf).__module__.partition(".")[0] == "h5py"
    return leaf if on_disk else to_numpy(leaf)


# --- streams ----------------------------------------------------------------------------------------------------------


def _stream_batches(data: Any, steps: int | None) -> Batches:
    kind = kind_of(data)
    _check_stream(data, kind)
    is_py_dataset = isinstance(data, keras.utils.PyDataset)
    count, endless = _py_dataset_length(data) if is_py_dataset else _length(data)
    if endless and steps is None:
        raise DataError(f"Expected data that end, or `steps`. Received {kind} without an end: say how many `steps`.")

    def source(limit: int | None) -> Iterator[Any]:
        if is_py_dataset:
            return _py_dataset_source(data, _smallest(count, limit))
        # An object with `__getitem__` alone may never raise IndexError: its length is the end.
        return itertools.islice(data, limit if isinstance(data, Iterable) else _smallest(count, limit))

    return Batches(source, num_batches=count, steps=steps, kind=kind, once=isinstance(data, Iterator))


def _check_stream(data: Any, kind: str) -> None:
    if isinstance(data, (str, bytes)):
        raise DataError(f"Expected arrays or batches. Received the string {data!r}: for a path, use `open_dataset`.")
    if isinstance(data, (list, tuple, Mapping)):
        raise DataError(
            f"Expected a {kind} of arrays, or a data set by itself. Received: a {kind} with something else in it. "
            "A data set brings its own labels: pass it alone."
        )
    if not isinstance(data, Iterable) and not hasattr(data, "__getitem__"):
        raise DataError(
            "Expected what `model.fit` takes: arrays, tf.data, PyDataset, a DataLoader, grain, or an iterable of "
            f"batches. Received: {kind}."
        )


def _length(data: Any) -> tuple[int | None, bool]:
    """Number of batches where it is known without reading, and whether the stream is known to have no end."""
    if hasattr(data, "cardinality"):
        cardinality = int(data.cardinality())  # tf.data: -1 is infinite, -2 unknown
        return (cardinality, False) if cardinality >= 0 else (None, cardinality == -1)
    try:
        length = len(data)
    except (TypeError, NotImplementedError):
        return None, False
    # A grain data set that repeats for ever has the largest length that Python allows.
    return (None, True) if length >= sys.maxsize // 2 else (length, False)


def _py_dataset_length(data: Any) -> tuple[int | None, bool]:
    try:
        count = data.num_batches
    except NotImplementedError:
        count = None
    return count, count is None


def _py_dataset_source(data: Any, count: int | None) -> Iterator[Any]:
    """Reads in this process: the workers of a `PyDataset` start in `fit` only."""
    data.on_epoch_begin()
    try:
        yield from itertools.islice(iter(data), count)
    finally:
        data.on_epoch_end()


def _limited(data: Batches, batch_size: int | None, steps: int | None) -> Batches:
    if batch_size is not None:
        raise DataError("These data are in batches already: leave `batch_size` out.")
    if steps is None:
        return data
    return Batches(
        lambda limit: itertools.islice(data, limit),
        num_batches=data.num_batches,
        steps=steps,
        kind=data.kind,
        once=data.once,
    )


# --- one batch --------------------------------------------------------------------------------------------------------


def _to_batch(raw: Any, number: int) -> Batch:
    if isinstance(raw, list) and is_plain_list(raw):
        raw = (raw,)  # a batch of strings, not x and y
    try:
        x, y, sample_weight = map_arrays(to_numpy, _unpack(raw, f"batch {number}"))
    except DataError as error:
        raise DataError(f"Batch {number}: {error}") from error
    _num_samples((x, y, sample_weight), f"batch {number}")
    return x, y, sample_weight


def _unpack(raw: Any, what: str) -> Batch:
    if isinstance(raw, (list, tuple)) and not 1 <= len(raw) <= 3:
        raise DataError(
            f"Expected {what} as x, (x,), (x, y) or (x, y, sample_weight). Received: {len(raw)} items. "
            "Several inputs go into one list or dict: ([a, b, c, d], y)."
        )
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(raw)
    if x is None:
        raise DataError(f"Expected inputs x in {what}. Received: None.")
    return x, y, sample_weight


def _num_samples(parts: Batch, what: str) -> int:
    """The length that all arrays share."""
    sizes: dict[str, int] = {}
    for path, leaf in leaves(dict(zip(("x", "y", "sample_weight"), parts, strict=True))):
        if not leaf.shape:
            raise DataError(
                f"Expected arrays of shape (batch, ...) in {what}. Received: a single value at {path}. "
                "Is the data set not batched? Call its `batch(...)`."
            )
        sizes[path] = int(leaf.shape[0])
    if "x" not in {path.split("/")[0] for path in sizes}:
        raise DataError(f"Expected at least one input array in {what}. Received: none.")
    if len(set(sizes.values())) > 1:
        listed = ", ".join(f"{path}: {size}" for path, size in sizes.items())
        raise DataError(f"Expected arrays of one length in {what}. Received: {listed}.")
    return next(iter(sizes.values()))


def _smallest(first: int | None, second: int | None) -> int | None:
    known = [number for number in (first, second) if number is not None]
    return min(known, default=None)


def _check_positive(name: str, value: int | None) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1):
        raise DataError(f"Expected `{name}` to be a whole number from 1 up. Received: {name}={value!r}.")
