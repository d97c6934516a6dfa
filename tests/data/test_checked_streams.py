"""Labels of streams are checked as they pass, and the streams stay what they were."""

import pickle
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

import keras
import numpy as np
import pytest

from keras_remos.data import batches, training_data
from keras_remos.data.checked_streams import data_errors
from keras_remos.data.datasets import ArrayReader, Dataset
from keras_remos.errors import DataError

pytestmark = pytest.mark.filterwarnings("ignore:Your input ran out of data")  # Keras says so of all without a length

X = np.random.default_rng(0).normal(size=(12, 4)).astype("float32")
Y = np.arange(12) % 3


class Own(keras.utils.PyDataset):
    """Batches of four, with hooks that change what it gives."""

    def __init__(self, y: np.ndarray, **options: Any) -> None:
        super().__init__(**options)
        self.y = y
        self.calls: list[str] = []

    def __len__(self) -> int:
        return -(-len(self.y) // 4)

    def __getitem__(self, index: int) -> Any:
        return X[4 * index : 4 * index + 4], self.y[4 * index : 4 * index + 4]

    def on_epoch_begin(self) -> None:
        self.calls.append("begin")

    def on_epoch_end(self) -> None:
        self.calls.append("end")


def generator(y: np.ndarray) -> Iterator[Any]:
    yield from Own(y)


def from_grain(y: np.ndarray) -> Any:
    return pytest.importorskip("grain").MapDataset.source(list(zip(X, y, strict=True))).batch(4)


def grain_loader(y: np.ndarray) -> Any:
    grain = pytest.importorskip("grain")
    return grain.DataLoader(
        data_source=list(zip(X, y, strict=True)),
        sampler=grain.samplers.SequentialSampler(12, grain.sharding.NoSharding()),
        operations=[grain.transforms.Batch(4)],
    )


def tf_data(y: np.ndarray) -> Any:
    return pytest.importorskip("tensorflow").data.Dataset.from_tensor_slices((X, y)).batch(4)


def torch_loader(y: np.ndarray) -> Any:
    data = pytest.importorskip("torch").utils.data
    samples = [
        (x, label if isinstance(label, (str, np.ndarray)) else label.item()) for x, label in zip(X, y, strict=True)
    ]
    return data.DataLoader(samples, batch_size=4)


def torch_stream(y: np.ndarray) -> Any:
    data = pytest.importorskip("torch").utils.data

    class Stream(data.IterableDataset):  # type: ignore[misc, name-defined]
        def __iter__(self) -> Iterator[Any]:
            return iter(Own(y))

    return data.DataLoader(Stream(), batch_size=None)


KINDS: dict[str, Callable[[np.ndarray], Any]] = {
    "generator": generator,
    "PyDataset": Own,
    "PyDataset-threads": lambda y: Own(y, workers=2),
    "grain-map": from_grain,
    "grain-iter": lambda y: from_grain(y).to_iter_dataset(),
    "grain-loader": grain_loader,
}
if keras.backend.backend() != "jax":  # which warns of forks
    KINDS["PyDataset-processes"] = lambda y: Own(y, workers=2, use_multiprocessing=True)
if find_spec("tensorflow"):
    KINDS["tf.data"] = tf_data
    KINDS["tf.data-unknown"] = lambda y: tf_data(y).apply(lambda data: data.filter(_all_of_them))
if find_spec("torch"):
    KINDS["DataLoader"] = torch_loader
    KINDS["DataLoader-unknown"] = torch_stream


def _all_of_them(x: Any, y: Any) -> bool:
    return True


@pytest.fixture(params=KINDS)
def make(request: pytest.FixtureRequest) -> Callable[[np.ndarray], Any]:
    return KINDS[request.param]


def fitted(data: Any, *, epochs: int = 1) -> list[np.ndarray]:
    """The weights of a small model after training on some data."""
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, kernel_initializer="zeros")])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.5), loss, run_eagerly=False)
    model.fit(data, epochs=epochs, shuffle=False, verbose=0)
    return model.get_weights()


def test_fit_takes_the_checked_stream_and_learns_the_same(make: Callable[[np.ndarray], Any]) -> None:
    epochs = 1 if make is generator else 2
    for found, wanted in zip(
        fitted(training_data(make(Y), num_classes=3), epochs=epochs), fitted(make(Y), epochs=epochs), strict=True
    ):
        np.testing.assert_array_equal(found, wanted)


def test_the_stream_stays_what_it_was(make: Callable[[np.ndarray], Any]) -> None:
    data = make(Y)
    checked = training_data(data, num_classes=3)
    one, other = batches(checked), batches(make(Y))
    assert (one.once, one.num_batches) == (other.once, other.num_batches)
    for _ in range(1 if one.once else 2):
        found = [(x, y) for x, y, _ in one]
        np.testing.assert_array_equal(np.concatenate([x for x, _ in found]), X)
        np.testing.assert_array_equal(np.concatenate([y for _, y in found]), Y)
    np.testing.assert_array_equal(next(iter(batches(make(np.eye(3)[Y]))))[1], np.eye(3)[Y[:4]])


WRONG = {
    "from 1": (Y + 1, "Received: 1 to 3"),
    "below 0": (np.where(np.arange(12) == 6, -1, Y), "Batch 2: .*Received: -1 to 2"),
    "too large": (np.where(np.arange(12) == 9, 3, Y), "Batch 3: .*Received: 1 to 3"),
    "fractions": (np.where(np.arange(12) == 6, 0.5, Y), "Batch 2: .*whole numbers.*Received: 0.5"),
    "NaN": (np.where(np.arange(12) == 6, np.nan, Y), "Batch 2: .*whole numbers.*Received: nan"),
    "infinity": (np.where(np.arange(12) == 6, np.inf, Y), "Batch 2: .*whole numbers.*Received: inf"),
    "strings": (np.array(list("abc"))[Y], r"Expected (labels y|class ids).*Received: .*(<U1|tf.string)"),
    "shares": (np.full((12, 3), 1 / 3), "Batch 1: .*not one-hot"),
    "too many columns": (np.eye(4)[Y], r"Batch 1: .*whole numbers.*\(4, 4\)"),
    "one class": (Y * 0 + 1, "two or more classes. Received: only class 1 in all batches"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_labels_are_refused_as_they_pass(make: Callable[[np.ndarray], Any], wrong: str) -> None:
    y, message = WRONG[wrong]
    with pytest.raises(DataError, match=message):
        for _ in batches(training_data(make(y), num_classes=3)):
            pass


@pytest.mark.parametrize("wrong", ["below 0", "NaN", "strings", "one class"])
def test_fit_stops_with_the_same_words(make: Callable[[np.ndarray], Any], wrong: str) -> None:
    y, message = WRONG[wrong]
    with pytest.raises(DataError, match=message), data_errors():
        fitted(training_data(make(y), num_classes=3))


def test_one_class_in_some_batches_is_no_fault(make: Callable[[np.ndarray], Any]) -> None:
    y = np.repeat([0, 1, 2], 4)
    stream = training_data(make(y), num_classes=3)
    if not batches(stream).once:
        for _ in range(3):  # the first batch alone, again and again
            next(iter(batches(stream)))
    assert sum(len(found) for _, found, _ in batches(stream)) == 12


@pytest.mark.parametrize("labels", [Y[:, None], np.eye(3)[Y], Y.astype("float32"), Y.astype("uint8")])
def test_ids_and_one_hot_rows_of_any_type_pass(make: Callable[[np.ndarray], Any], labels: np.ndarray) -> None:
    found = np.concatenate([y for _, y, _ in batches(training_data(make(labels), num_classes=3))])
    np.testing.assert_array_equal(found, labels)


def test_sample_weights_pass() -> None:
    weights = np.linspace(0, 1, 12)
    kinds: list[Any] = [iter_of((X, Y, weights))]
    if find_spec("tensorflow"):
        kinds.append(pytest.importorskip("tensorflow").data.Dataset.from_tensor_slices((X, Y, weights)).batch(4))
    for data in kinds:
        found = [weight for _, _, weight in batches(training_data(data, num_classes=3))]
        np.testing.assert_array_equal(np.concatenate(found), weights)


def iter_of(*found: Any) -> Iterator[Any]:
    yield from found


@pytest.mark.parametrize("batch", [X, (X,), (X, None), (X, [Y, Y]), (X, {"a": Y})])
def test_labels_that_are_none_or_several_are_refused(batch: Any) -> None:
    with pytest.raises(DataError, match="Batch 1: Expected labels y, one array"):
        list(training_data(iter_of(batch), num_classes=3))


def test_tf_data_without_labels_or_with_several_are_refused_at_once() -> None:
    data = pytest.importorskip("tensorflow").data.Dataset
    for found, message in ((X, "one dense tensor"), ((X, {"a": Y, "b": Y}), "a, b.*several"), ((X, (Y, Y)), "several")):
        with pytest.raises(DataError, match=message):
            training_data(data.from_tensor_slices(found).batch(4), num_classes=3)


def test_a_py_dataset_keeps_its_hooks_and_its_attributes() -> None:
    own = Own(Y, workers=3, max_queue_size=5)
    checked = training_data(own, num_classes=3)
    assert isinstance(checked, Own) and type(checked).__name__ == "Own"
    assert (len(checked), checked.num_batches, checked.workers, checked.max_queue_size) == (3, 3, 3, 5)
    plain = Own(Y, workers=3)
    fitted(checked)
    fitted(plain)
    assert own.calls == checked.calls == plain.calls and "begin" in own.calls
    own.y = Y + 5  # what its owner changes is changed here too
    with pytest.raises(DataError, match="Batch 2"):
        checked[1]


def test_a_py_dataset_can_be_sent_to_another_process() -> None:
    checked = pickle.loads(pickle.dumps(training_data(Own(np.where(np.arange(12) == 6, 3, Y)), num_classes=3)))
    assert isinstance(checked, Own) and len(checked[0][1]) == 4
    with pytest.raises(DataError, match="Batch 2"):
        checked[1]


def test_a_py_dataset_without_an_end_is_checked_too() -> None:
    class Endless(Own):
        @property
        def num_batches(self) -> None:
            return None

        def __getitem__(self, index: int) -> Any:
            return super().__getitem__(index % 3)

    stream = training_data(Endless(Y * 0), num_classes=3)
    assert len(list(batches(stream, steps=5))) == 5
    with pytest.raises(DataError, match="Batch 2"):
        list(batches(training_data(Endless(np.where(np.arange(12) == 6, 3, Y)), num_classes=3), steps=5))


def test_a_generator_is_read_one_batch_at_a_time() -> None:
    read = []

    def source() -> Iterator[Any]:
        for batch in Own(Y):
            read.append(batch)
            yield batch

    checked = training_data(source(), num_classes=3)
    assert read == []
    next(checked)
    assert len(read) == 1


def test_shuffled_tf_data_stay_shuffled_and_of_known_length() -> None:
    tf = pytest.importorskip("tensorflow")
    data = tf.data.Dataset.from_tensor_slices((X, Y)).shuffle(12, seed=1).batch(4).prefetch(2)
    checked = training_data(data, num_classes=3)
    assert int(checked.cardinality()) == 3 and checked.element_spec == data.element_spec
    orders = [np.concatenate([x for x, _, _ in batches(checked)]).tobytes() for _ in range(3)]
    assert len(set(orders)) == 3


def test_what_was_checked_before_passes_untouched() -> None:
    checked = training_data((X, Y), num_classes=3)
    assert training_data(checked, num_classes=3) is checked
    assert training_data(None, num_classes=3) is None


def test_other_errors_of_a_stream_stay_what_they_are() -> None:
    def source() -> Iterator[Any]:
        yield from Own(Y)
        raise KeyError("something of the user's own")

    with pytest.raises(Exception, match="something of the user's own") as raised, data_errors():
        fitted(training_data(source(), num_classes=3))
    assert not isinstance(raised.value, DataError)


def test_errors_of_our_own_data_sets_come_out_of_fit_as_such() -> None:
    class Unreadable(ArrayReader):
        def read(self, indices: np.ndarray) -> Any:
            self.skipped["x.png"] = "damaged"
            return super().read(indices[:0])

    data = training_data(Dataset(Unreadable(X), Y, kind="array", class_names="abc"), num_classes=3)
    with pytest.raises(DataError, match="none of the data set can be read"), data_errors():
        fitted(data)
