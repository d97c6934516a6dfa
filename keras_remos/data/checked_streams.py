"""Streams that come in batches of their own: the same streams, with their labels checked as they pass."""

from __future__ import annotations

import importlib
import re
import types
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from multiprocessing.sharedctypes import RawArray
from typing import Any

import keras
import numpy as np

from keras_remos.data.arrays import leaves
from keras_remos.data.labels import batch_ids
from keras_remos.data.other_tasks import other_task, several_outputs
from keras_remos.errors import DataError


def checked_stream(data: Any, num_classes: int) -> Any:
    """The same stream for `fit`, with its labels checked as they pass.

    It gives the same batches in the same order, can be read as often, and has the same length; a `PyDataset` keeps its
    attributes, hooks and workers, tf.data stay a part of the graph, and a generator is read one batch at a time.

    Whoever reads it gets a DataError, which names the batch, if labels are none, are not class ids from 0 to
    `num_classes - 1` (or one-hot rows of that length), or if all that were seen by the end of the first pass are of one
    class. TensorFlow makes another error of it: see `data_errors`.

    Args:
        data: A generator, tf.data, a `PyDataset`, a `DataLoader` of PyTorch, or a data set or `DataLoader` of grain;
            whatever else there is comes back untouched.
        num_classes: How many classes the labels are of.

    Raises:
        DataError: If tf.data have no labels, several, or strings.

    Note:
        What the worker processes of a `PyDataset` see is known here where they are forked. Where they are spawned each
        batch is checked there, but not whether all are of one class.
    """
    if isinstance(data, keras.utils.PyDataset):
        return _py_dataset(data, num_classes)
    seen = _Seen(num_classes)
    if isinstance(data, types.GeneratorType):
        return seen.through(data, None)
    if _is_of(data, "tensorflow", "DatasetV2"):
        return _tf_data(data, seen)
    if _is_of(data, "torch", "DataLoader"):
        return _same_but(data, __iter__=lambda twin: seen.through(super(type(twin), twin).__iter__(), _length(twin)))
    if _is_of(data, "grain", "MapDataset", "IterDataset", "DataLoader"):
        return _grain(data, seen)
    return data


@contextmanager
def data_errors() -> Iterator[None]:
    """Raises errors of the data as such, whatever TensorFlow made of them: it keeps the text and no more.

    Raises:
        DataError: If one was raised in what tf.data run.
    """
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        found = re.search(rf"{DataError.__module__}\.{DataError.__name__}: (.+)", str(error))
        if found is None:
            raise
        raise DataError(found[1]) from error


class _Seen:
    """What was seen of the labels of one stream."""

    def __init__(self, num_classes: int, num_batches: int = 0) -> None:
        self._num_classes = num_classes
        # In memory that forked worker processes have in common with this one.
        self._classes, self._batches = (
            np.frombuffer(RawArray("b", max(length, 1)), np.int8) for length in (num_classes, num_batches)
        )

    def look(self, y: Any, index: int) -> None:
        """Checks the labels of a batch."""
        try:
            ids = batch_ids(y, self._num_classes)
        except DataError as error:
            raise DataError(f"Batch {index + 1}: {error}") from None
        self._classes[ids] = 1

    def is_last(self, index: int) -> bool:
        """Whether, with this one, every batch was seen: those who read them may take them in any order."""
        if index < len(self._batches):
            self._batches[index] = 1
        return bool(self._batches.all())

    def end(self) -> None:
        """Checks what was seen in a whole pass."""
        found = np.flatnonzero(self._classes)
        if len(found) == 1:
            raise DataError(
                f"Expected samples of two or more classes. Received: only class {found[0]} in all batches of the data."
            )

    def through(self, batches: Iterable[Any], count: int | None) -> Iterator[Any]:
        """Yields batches as they are; `count` is their number, if it is known: nobody may ask for one more."""
        for index, batch in enumerate(batches):
            self.look(_labels_of(batch), index)
            if index + 1 == count:
                self.end()
            yield batch
        self.end()


def _labels_of(batch: Any) -> Any:
    return keras.utils.unpack_x_y_sample_weight(batch)[1]


def _is_of(data: Any, package: str, *names: str) -> bool:
    """Whether an object is of one of these classes of a package, which need not be installed."""
    return any(
        parent.__name__ in names and parent.__module__.partition(".")[0] == package for parent in type(data).__mro__
    )


def _length(data: Any) -> int | None:
    try:
        return len(data)
    except (TypeError, NotImplementedError):
        return None


def _same_but(data: Any, **methods: Callable[..., Any]) -> Any:
    """The same object once more, sharing all its attributes, with other methods."""
    kind = type(data)
    meta: Any = type(kind)
    namespace = {"__module__": kind.__module__, "__qualname__": kind.__qualname__, "__doc__": kind.__doc__, **methods}
    twin = object.__new__(meta(kind.__name__, (kind,), namespace))
    object.__setattr__(twin, "__dict__", data.__dict__)
    return twin


def _py_dataset(data: keras.utils.PyDataset, num_classes: int) -> Any:
    try:
        count = data.num_batches
    except NotImplementedError:
        count = None
    seen = _Seen(num_classes, count or 0)

    def item(twin: Any, index: int) -> Any:
        batch = super(type(twin), twin).__getitem__(index)
        seen.look(_labels_of(batch), index)
        if count is not None and seen.is_last(index):
            seen.end()
        return batch

    # A class that is made here cannot be pickled for a worker process: it is made there again.
    return _same_but(data, __getitem__=item, __reduce__=lambda twin: (_py_dataset, (data, num_classes)))


def _tf_data(data: Any, seen: _Seen) -> Any:
    # Nothing is computed with it here: whoever brings tf.data has it, whatever the backend.
    tf = importlib.import_module("tensorflow")
    spec = data.element_spec
    found = list(leaves(spec[1])) if isinstance(spec, tuple) and len(spec) > 1 else []
    if any(path for path, _ in found):
        raise other_task(several_outputs([path for path, _ in found]))
    is_one = [path for path, _ in found] == [""] and isinstance(found[0][1], tf.TensorSpec)
    if not is_one or found[0][1].dtype == tf.string:
        raise DataError(f"Expected labels y, one dense tensor of class ids. Received: tf.data of {spec}.")
    count = int(data.cardinality())

    def look(index: np.ndarray, y: np.ndarray) -> np.ndarray:
        seen.look(y, int(index))
        if int(index) + 1 == count:
            seen.end()
        return y

    @tf.autograph.experimental.do_not_convert  # type: ignore[untyped-decorator]
    def passed(index: Any, batch: Any) -> Any:
        x, y, *rest = batch
        checked = tf.numpy_function(look, [index, y], y.dtype)
        checked.set_shape(y.shape)
        return (x, checked, *rest)

    def at_end() -> Iterator[Any]:
        seen.end()
        yield from ()

    checked = data.enumerate().map(passed)
    # Of known length, nobody asks for more; else what comes behind the last batch is not there, but looks.
    return (
        checked
        if count != tf.data.UNKNOWN_CARDINALITY
        else checked.concatenate(tf.data.Dataset.from_generator(at_end, output_signature=data.element_spec))
    )


def _grain(data: Any, seen: _Seen) -> Any:
    grain = importlib.import_module("grain")

    class Batches(grain.DatasetIterator):  # type: ignore[name-defined]
        """Where a pass over the data stands."""

        def __init__(self) -> None:
            super().__init__()
            self._source = iter(data)
            self._passing = seen.through(self._source, _length(data))

        def __next__(self) -> Any:
            return next(self._passing)

        def get_state(self) -> Any:
            return self._source.get_state()

        def set_state(self, state: Any) -> None:
            self._source.set_state(state)

    class Checked(grain.IterDataset):  # type: ignore[name-defined]
        """Any data set or loader of grain, as Keras takes it: it would read a loader past us."""

        def __iter__(self) -> Any:
            return Batches()

        def __len__(self) -> int:
            return len(data)

        def __bool__(self) -> bool:
            return True

    Checked.__name__ = type(data).__name__
    return Checked()
