"""Batches from all that `model.fit` takes, and digests of data sets."""

import hashlib

import keras
import numpy as np
import pytest

from keras_remos.data import Fingerprint, batches
from keras_remos.errors import DataError

RNG = np.random.default_rng(0)
X = RNG.normal(size=(10, 4)).astype("float32")
Y = np.arange(10)


def joined(data, **options):
    return np.concatenate([x for x, _, _ in batches(data, **options)])


class Squares(keras.utils.PyDataset):
    def __init__(self, count=3):
        super().__init__(workers=2, use_multiprocessing=True)
        self.count = count
        self.calls = []

    @property
    def num_batches(self):
        return self.count

    def __getitem__(self, index):
        return np.full((2, 1), index**2), np.zeros(2)

    def on_epoch_begin(self):
        self.calls.append("begin")

    def on_epoch_end(self):
        self.calls.append("end")


@pytest.mark.parametrize(("batch_size", "sizes"), [(None, [10]), (4, [4, 4, 2]), (5, [5, 5]), (1, [1] * 10)])
def test_arrays_are_cut_into_batches(batch_size, sizes):
    stream = batches((X, Y), batch_size=batch_size)
    found = list(stream)
    assert [len(x) for x, _, _ in found] == sizes
    assert stream.num_batches == len(sizes)
    np.testing.assert_array_equal(np.concatenate([y for _, y, _ in found]), Y)
    np.testing.assert_array_equal(joined((X, Y), batch_size=batch_size), X)


def test_default_batch_size_is_that_of_keras():
    assert [len(x) for x, _, _ in batches(np.zeros((70, 1)))] == [32, 32, 6]


def test_arrays_and_data_sets_can_be_read_again():
    for data in (X, Squares(), [(X, Y)]):
        stream = batches(data)
        assert len(list(stream)) == len(list(stream)) > 0
        assert not stream.once


@pytest.mark.parametrize("data", [X, (X,), (X, None)])
def test_without_labels(data):
    [(x, y, weight)] = batches(data)
    np.testing.assert_array_equal(x, X)
    assert y is None and weight is None


def test_labels_and_sample_weights():
    [(_, y, weight)] = batches((X, Y, Y / 10))
    np.testing.assert_array_equal(y, Y)
    np.testing.assert_array_equal(weight, Y / 10)


def test_structures_keep_their_shape():
    [(x, _, _)] = batches(({"b": X, "a": [X, (Y,)]}, Y))
    assert list(x) == ["b", "a"] and isinstance(x["a"], list) and isinstance(x["a"][1], tuple)
    [(x, y, _)] = batches([X, X[:, :2]])
    assert [part.shape for part in x] == [(10, 4), (10, 2)] and y is None


@pytest.mark.parametrize(
    "texts",
    [["a", "bcd", "é"], np.array(["a", "bcd", "é"]), np.array(["a", "bcd", "é"], object), ["a", b"bcd", "é".encode()]],
)
def test_strings_in_any_form_become_str(texts):
    [(x, y, _)] = batches((texts, [0, 1, 0]))
    assert x.dtype.kind == "U" and x.tolist() == ["a", "bcd", "é"]
    assert y.tolist() == [0, 1, 0]


def test_a_batch_of_strings_is_no_pair():
    [(x, y, _)] = batches(iter([["a", "b"]]))
    assert x.tolist() == ["a", "b"] and y is None


def test_a_pair_of_string_lists_is_two_inputs():
    [(x, y, _)] = batches([["a", "b"], ["c", "d"]])
    assert [part.tolist() for part in x] == [["a", "b"], ["c", "d"]] and y is None


def test_tensors_of_the_backend():
    tensor = keras.ops.convert_to_tensor(X)
    np.testing.assert_array_equal(joined((tensor, Y), batch_size=3), X)
    [(x, _, _)] = batches(iter([(tensor, tensor)]))
    assert type(x) is np.ndarray


def test_bfloat16_becomes_float32():
    tensor = keras.ops.cast(keras.ops.convert_to_tensor(X), "bfloat16")
    result = joined(tensor)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, X, rtol=1e-2)


def test_variables():
    np.testing.assert_array_equal(joined(keras.Variable(X)), X)


def test_torch():
    torch = pytest.importorskip("torch")
    tensor = torch.tensor(X, requires_grad=True)
    np.testing.assert_array_equal(joined(tensor), X)
    assert joined(tensor.to(torch.bfloat16)).dtype == np.float32
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.tensor(X), torch.tensor(Y)), batch_size=4)
    stream = batches(loader)
    assert stream.num_batches == 3
    found = list(stream)
    np.testing.assert_array_equal(np.concatenate([x for x, _, _ in found]), X)
    np.testing.assert_array_equal(np.concatenate([y for _, y, _ in found]), Y)
    with pytest.raises(DataError, match="dense"):
        list(batches(torch.eye(3).to_sparse()))


def test_tf_data():
    tf = pytest.importorskip("tensorflow")
    data = tf.data.Dataset.from_tensor_slices((X, Y))
    stream = batches(data.batch(4))
    assert stream.num_batches == 3
    np.testing.assert_array_equal(joined(data.batch(4)), X)
    np.testing.assert_array_equal(joined(data.batch(5).repeat(), steps=2), X)
    with pytest.raises(DataError, match="steps"):
        batches(data.batch(5).repeat())
    with pytest.raises(DataError, match="not batched"):
        list(batches(data))
    with pytest.raises(DataError, match="gave none"):
        list(batches(data.filter(lambda x, y: False).batch(2)))
    [(x, _, _)] = batches(tf.data.Dataset.from_tensor_slices(["a", "é"]).batch(2))
    assert x.tolist() == ["a", "é"]


@pytest.mark.parametrize("kind", ["ragged", "sparse"])
def test_tf_ragged_and_sparse_are_refused(kind):
    tf = pytest.importorskip("tensorflow")
    data = tf.ragged.constant([[1], [2, 3]]) if kind == "ragged" else tf.sparse.from_dense([[0, 1], [1, 0]])
    for source in (data, iter([data])):
        with pytest.raises(DataError, match="dense"):
            list(batches(source))


def test_grain():
    grain = pytest.importorskip("grain")
    samples = [(x, y) for x, y in zip(X, Y, strict=True)]
    data = grain.MapDataset.source(samples).batch(4)
    stream = batches(data)
    assert stream.num_batches == 3
    found = list(stream)
    np.testing.assert_array_equal(np.concatenate([x for x, _, _ in found]), X)
    np.testing.assert_array_equal(np.concatenate([y for _, y, _ in found]), Y)
    np.testing.assert_array_equal(joined(data.to_iter_dataset()), X)
    with pytest.raises(DataError, match="steps"):
        batches(data.repeat())
    loader = grain.DataLoader(
        data_source=samples,
        sampler=grain.samplers.SequentialSampler(10, grain.sharding.NoSharding()),
        operations=[grain.transforms.Batch(5)],
    )
    np.testing.assert_array_equal(joined(loader), X)


def test_py_dataset_is_read_in_this_process():
    data = Squares()
    stream = batches(data)
    assert stream.num_batches == 3
    assert [x[0, 0] for x, _, _ in stream] == [0, 1, 4]
    assert data.calls == ["begin", "end"]
    assert [x[0, 0] for x, _, _ in batches(data, steps=2)] == [0, 1]
    assert data.calls == ["begin", "end"] * 2


def test_endless_py_dataset_needs_steps():
    with pytest.raises(DataError, match="steps"):
        batches(Squares(None))
    assert len(list(batches(Squares(None), steps=7))) == 7


def test_a_generator_goes_on_where_it_was_left_and_says_when_it_is_used_up():
    generator = ((X[index : index + 5], Y[index : index + 5]) for index in (0, 5))
    stream = batches(generator, steps=1)
    assert stream.once and stream.num_batches == 1
    np.testing.assert_array_equal(next(iter(stream))[0], X[:5])
    np.testing.assert_array_equal(joined(generator), X[5:])
    with pytest.raises(DataError, match="only once"):
        list(batches(generator))


def test_streaming_reads_one_batch_at_a_time():
    read = []

    def source():
        for index in range(5):
            read.append(index)
            yield np.zeros((2, 1))

    stream = iter(batches(source()))
    assert read == []
    next(stream)
    assert read == [0]


def test_memory_maps_are_read_by_batch(tmp_path):
    np.save(tmp_path / "x.npy", X)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    np.testing.assert_array_equal(joined(mapped, batch_size=3), X)


def test_batches_without_a_sample_are_left_out():
    stream = batches(iter([X[:0], X[:2], X[:0]]))
    assert [len(x) for x, _, _ in stream] == [2]


def test_batches_of_batches():
    stream = batches((X, Y), batch_size=2)
    assert batches(stream) is stream
    assert batches(stream, steps=3).num_batches == 3
    np.testing.assert_array_equal(joined(batches(stream, steps=3)), X[:6])
    with pytest.raises(DataError, match="batch_size"):
        batches(stream, batch_size=2)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (X[:0], "length 0"),
        ((X, Y[:3]), r"x: 10, y: 3"),
        ([X, X[:4]], r"x/0: 10, x/1: 4"),
        ([], "none"),
        ({}, "none"),
        ((), "0 items"),
        ((X, Y, Y, Y), "4 items"),
        ((None, Y), "None"),
        (np.float32(3), "single value"),
        ([[1, 2], [3, 4]], "asarray"),
        (np.array([[1], [2, 3]], object), "Pad"),
        (np.array(["2020-01-01"], "datetime64[D]"), "datetime64"),
        ([b"\xff"], "UTF-8"),
        ("folder", "open_dataset"),
        (3, "int"),
        (object(), "object"),
        ((iter([X]), Y), "pass it alone"),
        (keras.Input((3,)), "KerasTensor"),
    ],
)
def test_bad_data_are_named(data, message):
    with pytest.raises(DataError, match=message):
        list(batches(data))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "only once"),
        ([X[:0]], "only once"),
        ([(X, Y[:2])], r"batch 1.*x: 10, y: 2"),
        ([X, 3.0], "batch 2"),
        ([(X, Y, Y, Y)], "4 items"),
    ],
)
def test_bad_batches_are_named(data, message):
    with pytest.raises(DataError, match=message):
        list(batches(iter(data)))


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"steps": 0}, {"batch_size": 2.5}, {"steps": True}])
def test_bad_options(options):
    with pytest.raises(DataError, match="whole number"):
        batches(X, **options)


def test_streams_bring_their_own_batches():
    with pytest.raises(DataError, match="brings its own batches"):
        batches(iter([X]), batch_size=2)


# --- digests ----------------------------------------------------------------------------------------------------------


def digest(data, **options):
    fingerprint = Fingerprint()
    for x, _, _ in batches(data, **options):
        fingerprint.update(x)
    return fingerprint.hexdigest()


@pytest.mark.parametrize(
    "data",
    [
        X,
        {"a": X, "b": Y},
        [X, [Y, X]],
        ["a", "bcd", "", "é"],
        np.asfortranarray(X),
        X[::-1],
        RNG.random((9, 2, 2)) > 0.5,
    ],
)
def test_digest_does_not_depend_on_batch_size(data):
    assert len({digest(data, batch_size=size) for size in (1, 2, 3, 4, 10)}) == 1


def test_digest_does_not_depend_on_the_longest_string_of_a_batch():
    one_by_one, at_once = Fingerprint(), Fingerprint()
    for text in ["a", "bcd", ""]:
        one_by_one.update(np.array([text]))
    at_once.update(np.array(["a", "bcd", ""]))
    assert one_by_one.hexdigest() == at_once.hexdigest()


def test_digest_sees_every_difference():
    changed = X.copy()
    changed[7, 1] += 1e-6
    data = [X, changed, X[::-1], X[:9], X.reshape(10, 2, 2), X.astype("float64"), {"x": X}, [X, X], X.reshape(20, 2)]
    assert len({digest(item) for item in data}) == len(data)
    assert digest(["ab", "c"]) != digest(["a", "bc"])


def test_digest_does_not_depend_on_container_or_byte_order():
    assert digest({"a": X, "b": Y}) == digest({"b": Y, "a": X})
    assert digest(X) == digest(X.astype(">f4")) == digest(np.asfortranarray(X))
    assert digest(["é", "b"]) == digest(np.array(["é".encode(), b"b"], object))


def test_digest_is_pinned():
    leaf = hashlib.sha256(b"<f4(4,)" + X.tobytes()).hexdigest()
    assert digest(X, batch_size=3) == hashlib.sha256(f"\0{leaf}\n".encode()).hexdigest()


def test_digest_counts_samples():
    fingerprint = Fingerprint()
    fingerprint.update({"a": X, "b": Y})
    fingerprint.update({"a": X, "b": Y})
    assert fingerprint.num_samples == 20
