"""Counts equal the oracle's, whatever the model, the layer, the criterion, the batches and the backend."""

import itertools
from pathlib import Path
from typing import Any

import keras
import numpy as np
import oracle
import pytest
import toys
from keras import layers as kl
from toy_layers import LAYER_TOYS

from keras_remos import CoverageProfile, DataError, MismatchError, RelevantSlicer, RemosError, TeacherError, profile
from keras_remos.coverage.criteria import NeuronCoverage, as_criterion

# So few neurons are often all covered, or none.
pytestmark = pytest.mark.filterwarnings("ignore:Criterion:UserWarning")

CRITERIA: dict[str, dict[str, Any]] = {
    "minmax": {"name": "nc", "threshold": 0.5},
    "minmax-share": {"name": "nc", "threshold": 0.6, "positions": "share"},
    "absolute": {"name": "nc", "threshold": 0.1, "scale": "none"},
    "absolute-share": {"name": "nc", "threshold": 0.03, "scale": "none", "positions": "share"},
    "paper": {"name": "nc", "threshold": 0.0, "scale": "none", "positions": "share"},
    "absmean-share": {"name": "nc", "threshold": 1.0, "scale": "absmean", "positions": "share"},
    "tknc": {"name": "tknc", "k": 2},
    "snac": {"name": "snac", "k": 3.0},
}
# Every model meets the two that differ most, one model of each sort (flat, image, padded text) meets them all.
BOTH = ("minmax", "absolute-share")
PAIRS = [(name, rule) for name in toys.TOYS for rule in CRITERIA if rule in BOTH or name in ("mlp", "cnn", "text")]


def counts(found: CoverageProfile) -> dict[str, tuple[list[int], list[int], int, int]]:
    """A profile as the oracle writes it."""
    return {
        path: (c.inputs.tolist(), c.outputs.tolist(), c.input_positions, c.output_positions)
        for path, c in found.layers.items()
    }


def take(x: Any, which: Any) -> Any:
    return keras.tree.map_structure(lambda array: array[which], x)


@pytest.mark.parametrize(("name", "criterion"), PAIRS)
def test_counts_equal_the_oracle_on_every_kind_of_model(name: str, criterion: str) -> None:
    model, x, toy = toys.make(name)
    options = CRITERIA[criterion]
    sites = toy.sites(model, x)
    assert counts(profile(model, x, criterion=options, batch_size=4)) == oracle.profile(sites, **options)


@pytest.mark.parametrize("name", toys.TOYS)
def test_raw_outputs_may_be_counted_instead(name: str) -> None:
    model, x, toy = toys.make(name)
    expected = oracle.profile(toy.sites(model, x), on="output", **CRITERIA["minmax"])
    assert counts(profile(model, x, criterion=CRITERIA["minmax"], on="output")) == expected


@pytest.mark.parametrize("name", LAYER_TOYS)
def test_counts_equal_the_oracle_on_every_kind_of_layer(name: str) -> None:
    toy = LAYER_TOYS[name]
    x = toys.normal(*toy.shape)(np.random.default_rng(5), 4)
    try:
        model = toy.build()
        model(x)
    except Exception as error:
        if toy.channels_first and keras.backend.backend() == "tensorflow":
            pytest.skip(f"TensorFlow has no such channels_first layer on this device: {type(error).__name__}")
        raise
    sites = toy.sites(model, x)
    for options in (CRITERIA[rule] for rule in BOTH):
        assert counts(profile(model, x, criterion=options)) == oracle.profile(sites, **options)


@pytest.mark.parametrize("name", ["text", "bert"])
def test_padding_counts_only_if_asked_for(name: str) -> None:
    model, x, toy = toys.make(name)
    sites = toy.sites(model, x)
    options = CRITERIA["absolute-share"]
    without = profile(model, x, criterion=options)
    with_padding = profile(model, x, criterion=options, count_padding=True)
    assert counts(with_padding) == oracle.profile(sites, count_padding=True, **options)
    assert counts(without) != counts(with_padding)


def test_a_sample_of_padding_only_covers_nothing() -> None:
    model, x, _ = toys.make("text")
    x[2] = 0
    rest = profile(model, np.delete(x, 2, axis=0), criterion={"name": "nc", "threshold": -9.0, "scale": "none"})
    found = profile(model, x, criterion={"name": "nc", "threshold": -9.0, "scale": "none"})
    for path in ("table/embeddings", "tokenwise/kernel"):
        assert found.layers[path].inputs.tolist() == rest.layers[path].inputs.tolist()
        assert found.layers[path].outputs.tolist() == rest.layers[path].outputs.tolist()


def test_what_is_made_of_weights_alone_stands_for_every_sample() -> None:
    class Prompted(kl.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.project = kl.Dense(2, name="project")

        def build(self, shape: Any) -> None:
            self.prompt = self.add_weight(shape=(1, 3, 4), name="prompt")
            self.prompt.assign(np.ones((1, 3, 4)))
            self.project.build((1, 3, 4))

        def call(self, x: Any) -> Any:
            return x + keras.ops.mean(self.project(keras.ops.convert_to_tensor(self.prompt)), axis=1)

    inputs = keras.Input((2,))
    model = keras.Model(inputs, Prompted()(kl.Dense(2)(inputs)))
    found = profile(model, np.ones((5, 2), np.float32), batch_size=3, criterion={"name": "nc", "scale": "none"})
    assert found.layers["prompted/project/kernel"].inputs.tolist() == [5, 5, 5, 5]
    assert found.layers["prompted/project/kernel"].input_positions == 5


def test_a_token_counts_once_a_sample() -> None:
    model, _, _ = toys.make("text")
    x = np.array([[3, 3, 3, 4, 0, 0, 0], [4, 4, 1, 3, 3, 3, 0], [12, 12, 12, 12, 12, 12, 12]], "int32")
    expected = np.zeros(13, int)
    expected[[1, 3, 4, 12]] = [1, 2, 2, 1]
    assert profile(model, x).layers["table/embeddings"].inputs.tolist() == expected.tolist()
    expected[0] = 2
    assert profile(model, x, count_padding=True).layers["table/embeddings"].inputs.tolist() == expected.tolist()


@pytest.mark.parametrize("name", ["cnn", "shared", "text"])
def test_batches_of_any_size_give_the_same_counts(name: str) -> None:
    model, x, toy = toys.make(name, samples=11)
    expected = oracle.profile(toy.sites(model, x), **CRITERIA["minmax"])
    for batch_size in (4, 32):
        assert counts(profile(model, x, criterion=NeuronCoverage(), batch_size=batch_size)) == expected
    for cuts in ([4, 5], [1, 8]):
        parts = [take(x, part) for part in np.split(np.arange(11), cuts)]
        # The labels keep a list of two inputs from being taken for inputs and labels.
        found = profile(
            model, ((part, np.zeros(len(keras.tree.flatten(part)[0]))) for part in parts), criterion=NeuronCoverage()
        )
        assert counts(found) == expected
        assert found.num_samples == 11


@pytest.mark.parametrize("name", ["nested", "bert"])
def test_merging_is_free_of_order_and_equals_one_run(name: str) -> None:
    model, x, _ = toys.make(name, samples=9)
    whole = profile(model, x)
    parts = [profile(model, take(x, part)) for part in np.split(np.arange(9), [2, 5])]
    for a, b, c in itertools.permutations(parts):
        merged = a + b + c
        assert counts(merged) == counts(whole)
        assert merged.num_samples == 9
        assert merged.data == (parts[0] + parts[1] + parts[2]).data


def test_only_profiles_of_one_teacher_and_kind_are_merged() -> None:
    model, x, _ = toys.make("mlp")
    other = toys.fill(toys.build_mlp(), seed=9)
    with pytest.raises(MismatchError, match="different teachers"):
        profile(model, x) + profile(other, x)
    with pytest.raises(MismatchError, match="different options"):
        profile(model, x) + profile(model, x, on="output")
    with pytest.raises(MismatchError, match="different"):
        profile(model, x) + profile(model, x, filters=lambda path, layer: path != "first")


class Sequence(keras.utils.PyDataset):
    def __init__(self, x: np.ndarray) -> None:
        super().__init__()
        self.x = x

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        return self.x[index * 4 : index * 4 + 4], np.zeros(4)


FORMS = {
    "array": lambda x: x,
    "list": lambda x: [x],
    "dict": lambda x: {"input": x},
    "labels": lambda x: (x, np.zeros(len(x))),
    "weights": lambda x: (x, np.zeros(len(x)), np.ones(len(x))),
    "generator": lambda x: (batch for batch in np.split(x, 3)),
    "labelled generator": lambda x: ((batch, np.zeros(4)) for batch in np.split(x, 3)),
    "PyDataset": Sequence,
}


# Keras says so of a list or dict for one input, and takes it.
@pytest.mark.filterwarnings("ignore:The structure of `inputs` doesn't match:UserWarning:keras[.]src")
@pytest.mark.parametrize("form", FORMS)
def test_data_may_be_whatever_fit_takes(form: str) -> None:
    x = toys.normal(6)(np.random.default_rng(0), 12)
    inputs = keras.Input((6,), name="input")
    hidden = kl.Dense(5, activation="relu", name="hidden")(inputs)
    model = toys.fill(keras.Model(inputs, kl.Dense(2, name="head")(hidden)))
    assert counts(profile(model, FORMS[form](x))) == counts(profile(model, x))


def test_steps_stop_the_run() -> None:
    model, x, _ = toys.make("mlp", samples=10)
    found = profile(model, x, batch_size=3, steps=2)
    assert found.num_samples == 6
    assert counts(found) == counts(profile(model, x[:6]))


@pytest.mark.parametrize("name", ["cnn", "subclassed", "bert"])
def test_the_teacher_is_left_as_it_was(name: str) -> None:
    model, x, _ = toys.make(name)
    before = keras.tree.map_structure(np.copy, model.predict(x, verbose=0))
    function, weights = model.predict_function, model.get_weights()
    state = {id(layer): (layer.trainable, sorted(vars(layer))) for layer in [model, *model._flatten_layers()]}
    profile(model, x)
    assert model.predict_function is function
    for old, new in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert state == {id(layer): (layer.trainable, sorted(vars(layer))) for layer in [model, *model._flatten_layers()]}
    keras.tree.map_structure(np.testing.assert_array_equal, before, model.predict(x, verbose=0))


def test_a_half_precision_teacher_is_profiled() -> None:
    x = toys.normal(8, 8, 3)(np.random.default_rng(1), 6)
    full = profile(toys.build_cnn(), x, criterion=NeuronCoverage())
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        half = profile(toys.build_cnn(), x, criterion=NeuronCoverage())
    finally:
        keras.config.set_dtype_policy("float32")
    for path, coverage in full.layers.items():
        # Eight bits of mantissa move few samples over the threshold.
        assert np.abs(coverage.inputs - half.layers[path].inputs).max() <= 2
        assert np.abs(coverage.outputs - half.layers[path].outputs).max() <= 2


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_broken_activations_name_the_layer(value: float) -> None:
    model, x, _ = toys.make("cnn")
    kernel = model.get_layer("conv2").kernel
    broken = toys.numpy(kernel)
    broken[0, 0, 0, 0] = value
    kernel.assign(broken)
    with pytest.raises(RemosError, match="'conv2'.* (NaN|infin)"):
        profile(model, x)
    with pytest.raises(RemosError, match="weights of layer 'conv2'"):
        RelevantSlicer(model).profile(x)
    x[4, 0, 0, 0] = value
    with pytest.raises(RemosError, match="'conv1'"):
        profile(toys.build_cnn(), x, batch_size=2)


def test_a_model_must_be_built_and_have_something_to_slice() -> None:
    x = np.zeros((4, 6), "float32")
    with pytest.raises(TeacherError, match="not been built"):
        profile(keras.Sequential([kl.Dense(3), kl.Dense(2)]), x)
    with pytest.raises(TeacherError, match="Nothing in model"):
        profile(keras.Sequential([keras.Input((6,)), kl.BatchNormalization()]), x)
    with pytest.raises(TeacherError, match="head: replaced or kept"):
        profile(keras.Sequential([keras.Input((6,)), kl.Dense(2)]), x)


BAD_DATA = {
    "empty array": (np.zeros((0, 6), "float32"), "at least one sample"),
    "empty generator": ((batch for batch in ()), "at least one batch"),
    "too wide": (np.zeros((4, 7), "float32"), "takes batches of shape"),
    "too deep": (np.zeros((4, 2, 6), "float32"), "takes batches of shape"),
    "unbatched": ((row for row in np.zeros((4, 6), "float32")), "batches of shape|batched"),
    "text": (np.array(["a", "b"]), "text|numbers"),
    "two inputs": ([np.zeros((4, 6), "float32"), np.zeros((4, 6), "float32")], "does not fit|inputs"),
}


@pytest.mark.parametrize("kind", BAD_DATA)
def test_data_that_does_not_fit_is_refused(kind: str) -> None:
    data, message = BAD_DATA[kind]
    with pytest.raises(DataError, match=message):
        profile(toys.build_mlp(), data)


def test_a_profile_survives_its_file(tmp_path: Path) -> None:
    model, x, _ = toys.make("text")
    made = profile(model, x, criterion={"name": "nc", "positions": "share"})
    made.save(tmp_path / "a.npz")
    read = CoverageProfile.load(tmp_path / "a.npz")
    assert counts(read) == counts(made)
    for name in ("num_samples", "options", "teacher", "data", "skipped", "heads", "versions"):
        assert getattr(read, name) == getattr(made, name), name
    assert list(read.layers) == list(made.layers)
    assert all(c.inputs.dtype == c.outputs.dtype == np.int64 for c in read.layers.values())
    read.save(tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    more = toys.padded_tokens(np.random.default_rng(8), 5)
    extended = read + profile(model, more, criterion=read.options["criterion"])
    assert counts(extended) == counts(profile(model, np.concatenate([x, more]), criterion=read.options["criterion"]))


def test_options_are_recorded() -> None:
    model, x, _ = toys.make("mlp")
    rule = as_criterion({"name": "snac", "k": 4.0})
    found = profile(model, x, criterion=rule, on="output", count_padding=True)
    assert found.options == {"criterion": {"name": "snac", "k": 4.0}, "on": "output", "count_padding": True}
    assert found.num_samples == 7
    assert found.heads == ("head",)


def test_a_model_that_runs_otherwise_than_traced_is_refused() -> None:
    class Fickle(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.hidden, self.head, self.runs = kl.Dense(6, name="hidden"), kl.Dense(2, name="head"), 0

        def call(self, x: Any) -> Any:
            self.runs += 1
            for _ in range(self.runs):
                x = self.hidden(x)
            return self.head(x)

    model, x = Fickle(), np.ones((3, 6), "float32")
    model(x)
    with pytest.raises(RemosError, match="when it was traced"):
        profile(model, x)


def test_what_a_stateful_layer_remembers_is_put_back() -> None:
    x = keras.Input(batch_shape=(4, 5, 3))
    lstm = kl.LSTM(6, stateful=True, name="lstm")
    model = toys.fill(keras.Model(x, kl.Dense(2, name="head")(lstm(x))))
    before = [toys.numpy(state.value) for state in lstm.states]
    assert profile(model, np.ones((8, 5, 3), "float32"), batch_size=4, verbose=False).num_samples == 8
    for state, value in zip(lstm.states, before, strict=True):
        np.testing.assert_array_equal(toys.numpy(state.value), value)
