"""Taps: they see every call in every kind of model, they leave no trace, and neurons are read where they are used."""

from typing import Any

import keras
import numpy as np
import pytest
import toys
from keras import layers as kl

from keras_remos import capture, profile
from keras_remos.models.features import FeatureExtractor
from keras_remos.models.layers import is_leaf, visible
from keras_remos.models.reading_plan import plan_readings


def leaves(model: keras.Model) -> list[keras.Layer]:
    return [layer for _, layer in visible(model) if is_leaf(layer)]


def test_a_tap_sees_inputs_and_outputs() -> None:
    model, x, _ = toys.make("nested")
    layer = model.get_layer("inner").get_layer("conv")
    seen: list[Any] = []
    with capture([layer], lambda *call: seen.append(call)):
        model(x, training=False)
    [(found, before, after, _)] = seen
    assert found is layer
    np.testing.assert_allclose(toys.numpy(after), toys.run(layer, toys.numpy(before)), atol=1e-6)


class Positions(keras.Layer):
    """Returns its own weight, not what it made of it, as KerasHub's tables of angles do."""

    def build(self, shape: Any) -> None:
        self.table = self.add_weight(shape=shape[1:], initializer="ones")

    def call(self, x: Any) -> Any:
        return self.table

    def compute_output_shape(self, shape: Any) -> Any:
        return shape[1:]


def test_a_layer_that_returns_its_own_weight_is_seen() -> None:
    x = keras.Input((6,))
    positions = Positions()
    model = keras.Model(x, kl.Dense(3)(kl.Dense(6, "relu")(x) * positions(x)))
    seen: list[Any] = []
    with capture([positions], lambda *call: seen.append(call[2])):
        model(np.ones((2, 6), "float32"), training=False)
    assert not isinstance(seen[0], keras.Variable)
    counted = profile(model, np.ones((4, 6), "float32"), verbose=False)
    assert len(counted.layers) == 1  # the other makes the scores


@pytest.mark.parametrize("name", ["mlp", "cnn", "nested", "subclassed", "shared", "multi_head", "text"])
def test_taps_change_nothing_and_leave_no_trace(name: str) -> None:
    model, x, _ = toys.make(name)
    before = keras.tree.map_structure(toys.numpy, model(x, training=False))
    seen: list[str] = []
    with capture(leaves(model), lambda layer, *_: seen.append(layer.name)):
        during = keras.tree.map_structure(toys.numpy, model(x, training=False))
        assert all("call" in vars(layer) for layer in leaves(model))
    assert seen
    count = len(seen)
    after = keras.tree.map_structure(toys.numpy, model(x, training=False))
    assert len(seen) == count
    assert not any("call" in vars(layer) for layer in leaves(model))
    for other in (during, after):
        keras.tree.map_structure(np.testing.assert_array_equal, before, other)


def test_the_parts_of_a_two_way_layer_are_called_where_a_gpu_would_run_them_as_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    inputs = keras.Input((4, 3))
    model = keras.Model(inputs, kl.Bidirectional(kl.LSTM(2))(inputs))
    layer = model.layers[1]
    x = np.ones((2, 4, 3), np.float32)
    before = toys.numpy(model(x))
    fused: list[int] = []

    def as_on_a_gpu(sequences: Any, *_: Any, **__: Any) -> Any:
        fused.append(1)
        last = keras.ops.zeros((len(sequences), 2))
        return (last, None, []), (last, None, [])

    # Older versions of Keras never do: there the capture has nothing to prevent.
    monkeypatch.setattr("keras.src.backend.bidirectional_lstm", as_on_a_gpu, raising=False)
    seen: list[str] = []
    parts = [layer.forward_layer, layer.backward_layer]
    with capture(parts, lambda part, *_: seen.append(part.name), model=model):
        np.testing.assert_array_equal(toys.numpy(model(x)), before)
    assert seen == [part.name for part in parts]
    assert not fused
    assert not layer.stateful
    plan = plan_readings(model, x)
    paths = [f"{layer.name}/{name}" for name in ("forward_lstm", "backward_lstm")]
    assert list(dict.fromkeys(name.rsplit("/", 1)[0] for name in plan.kernels)) == paths
    assert not fused
    outputs, features = FeatureExtractor(model, paths)(x)
    np.testing.assert_array_equal(toys.numpy(outputs), before)
    np.testing.assert_array_equal(np.concatenate([toys.numpy(part) for part in features], axis=1), before)
    model(x)
    assert bool(fused) == hasattr(layer, "_call_fused_lstm")


def test_a_shared_layer_is_seen_once_a_call() -> None:
    model, x, _ = toys.make("shared")
    seen: list[np.ndarray] = []
    with capture([model.get_layer("tower")], lambda layer, before, after, kwargs: seen.append(toys.numpy(before))):
        model(x, training=False)
    np.testing.assert_array_equal(seen, x)


def test_captures_cannot_be_nested() -> None:
    model, x, _ = toys.make("mlp")
    first, second = model.get_layer("first"), model.get_layer("second")
    seen: list[str] = []
    with capture([second], lambda layer, *_: seen.append(layer.name)):
        with pytest.raises(RuntimeError, match="'second' is being captured already"):
            with capture([first, second], lambda *_: None):
                raise AssertionError("entered")
        # The refused capture undid what it had begun, and no more.
        assert "call" not in vars(first)
        model(x, training=False)
    assert seen == ["second"]
    assert "call" not in vars(second)


def test_an_exception_removes_the_taps() -> None:
    model, x, _ = toys.make("mlp")

    def fail(*_: Any) -> None:
        raise KeyError("listener")

    with pytest.raises(KeyError), capture(leaves(model), fail):
        model(x, training=False)
    assert not any("call" in vars(layer) for layer in leaves(model))
    model(x, training=False)


def test_a_call_of_its_own_is_put_back() -> None:
    """A user may have replaced a layer's call: not ours to throw away."""
    model, x, _ = toys.make("mlp")
    layer = model.get_layer("first")
    own = layer.call
    layer.call = lambda inputs: own(inputs) * 2
    replaced = layer.call
    doubled = toys.numpy(model(x))
    try:
        with capture([layer], lambda *_: None):
            pass
    except RuntimeError:
        pass  # to refuse is as good
    assert layer.call is replaced
    np.testing.assert_array_equal(toys.numpy(model(x)), doubled)


def test_taps_work_while_a_backend_compiles() -> None:
    model, x, _ = toys.make("cnn")
    layer = model.get_layer("conv2")

    class Means(keras.Model):
        def call(self, inputs: Any) -> Any:
            found: list[Any] = []
            with capture(
                [layer], lambda layer, before, after, kwargs: found.append(keras.ops.mean(after, axis=(1, 2)))
            ):
                model(inputs, training=False)
            return found[0]

    means = Means().predict(x, batch_size=4, verbose=0)
    relu1 = toys.relu(toys.run(model.get_layer("bn1"), toys.run(model.get_layer("conv1"), x)))
    np.testing.assert_allclose(means, toys.run(layer, relu1).mean(axis=(1, 2)), atol=1e-5)
    assert "call" not in vars(layer)


def test_the_teachers_compiled_functions_never_see_a_tap() -> None:
    model, x, _ = toys.make("cnn")
    model.compile("sgd", "sparse_categorical_crossentropy")
    before = model.predict(x, verbose=0)
    profile(model, x)
    np.testing.assert_array_equal(model.predict(x, verbose=0), before)
    fresh, _, _ = toys.make("cnn")
    profile(fresh, x)
    np.testing.assert_array_equal(fresh.predict(x, verbose=0), before)
    fresh.compile("sgd", "sparse_categorical_crossentropy")
    fresh.fit(x, np.zeros(len(x)), verbose=0)


def readings(model: keras.Model, x: Any, **options: Any) -> dict[str, Any]:
    """For each kernel the reading of its output neurons."""
    plan = plan_readings(model, x, **options)
    return {path: [plan.readings[index] for index in written] for path, (_, written) in plan.kernels.items()}


def residual(activation: str, merge: bool = True) -> tuple[keras.Model, np.ndarray]:
    x = keras.Input((4,))
    h = kl.Dense(4, activation=activation, name="first")(x)
    y = kl.BatchNormalization(name="bn")(kl.Dense(4, name="second")(h))
    if merge:
        y = kl.Activation(activation)(kl.Add()([y, h]))
    return toys.fill(keras.Model(x, kl.Dense(2, name="head")(y))), np.ones((2, 4), "float32")


@pytest.mark.parametrize(
    ("activation", "merge", "clamped"),
    [("relu", True, True), ("relu6", True, True), ("gelu", True, False), ("tanh", True, False), ("relu", False, False)],
)
def test_a_chain_of_a_relu_network_that_ends_at_a_merge_is_clamped(activation: str, merge: bool, clamped: bool) -> None:
    model, x = residual(activation, merge)
    assert [reading.relu for reading in readings(model, x)["second/kernel"]] == [clamped]
    assert [reading.relu for reading in readings(model, x, on="output")["second/kernel"]] == [False]


def test_what_comes_from_a_relu_is_known_not_to_be_negative() -> None:
    """Through dropout, which returns the very tensor that it was given, and padding, but not through a batch norm."""
    x = keras.Input((6, 6, 3))
    h = kl.ReLU(name="relu")(kl.Conv2D(4, 3, name="first")(x))
    h = kl.Conv2D(4, 3, name="second")(kl.ZeroPadding2D(1)(kl.Dropout(0.5)(h)))
    h = kl.BatchNormalization()(kl.ReLU()(h))
    h = kl.LeakyReLU()(kl.Conv2D(4, 1, name="third")(h))
    h = kl.Conv2D(4, 1, activation="relu", name="fourth")(h)
    model = toys.fill(keras.Model(x, kl.Dense(2, name="head")(kl.Flatten()(h))))
    plan = plan_readings(model, np.ones((2, 6, 6, 3), "float32"))
    found = {
        path: tuple(plan.readings[sites[0]].nonnegative for sites in kernel) for path, kernel in plan.kernels.items()
    }
    assert found == {
        "first/kernel": (False, True),
        "second/kernel": (True, False),
        "third/kernel": (False, False),
        "fourth/kernel": (False, True),
    }


def test_dropout_behind_an_operator_that_no_tap_sees() -> None:
    x = keras.Input((4,))
    h = kl.Dense(4, activation="relu", name="first")(x)
    h = kl.Dense(4, name="second")(kl.Dropout(0.5)(h + x))
    model = toys.fill(keras.Model(x, kl.Dense(2, name="head")(h)))
    plan = plan_readings(model, np.ones((2, 4), "float32"))
    [read], _ = plan.kernels["second/kernel"]
    assert not plan.readings[read].nonnegative


def test_attention_in_a_relu_network_is_not_clamped() -> None:
    """Queries, keys and values go into a product, not into a sum that a ReLU follows."""
    x = keras.Input((5, 8))
    h = kl.Add()([x, kl.MultiHeadAttention(2, 4, name="attention")(x, x)])
    h = kl.Dense(8, activation="relu", name="mlp")(kl.LayerNormalization()(h))
    model = toys.fill(keras.Model(x, kl.Dense(2, name="head")(kl.GlobalAveragePooling1D()(h))))
    found = readings(model, np.ones((2, 5, 8), "float32"))
    clamped = {path for path, seen in found.items() if any(reading.relu for reading in seen)}
    assert not clamped and {"attention/query/kernel", "attention/value/kernel", "mlp/kernel"} <= set(found)


def test_a_recurrent_kernel_reads_the_state_itself() -> None:
    """What a batch norm makes of the states is not what the next step reads."""
    x = keras.Input((5, 3))
    h = kl.BatchNormalization(name="bn")(kl.LSTM(4, return_sequences=True, name="lstm")(x))
    model = toys.fill(keras.Model(x, kl.Dense(2, name="head")(kl.GlobalAveragePooling1D()(h))))
    plan = plan_readings(model, np.ones((2, 5, 3), "float32"))
    [read], _ = plan.kernels["lstm/recurrent_kernel"]
    assert plan.readings[read].layer == "lstm"
    calls: list[str] = []
    with capture(plan.taps, lambda layer, *_: calls.append(layer.name)):
        model(np.ones((2, 5, 3), "float32"), training=False)
    assert calls[plan.readings[read].call] == "lstm"


def test_one_tensor_is_read_once() -> None:
    x = keras.Input((6,))
    h = kl.Dense(5, activation="relu", name="first")(x)
    y = kl.Concatenate()(
        [kl.Dense(4, activation="relu", name="left")(h), kl.Dense(3, activation="relu", name="right")(h)]
    )
    model = toys.fill(keras.Model(x, kl.Dense(2, name="head")(y)))
    plan = plan_readings(model, np.ones((2, 6), "float32"))
    assert len(plan.readings) == 4  # x, the output of each of three layers
    assert plan.kernels["left/kernel"][0] == plan.kernels["right/kernel"][0] == plan.kernels["first/kernel"][1]


def test_kernels_come_in_the_order_in_which_they_run() -> None:
    x = keras.Input((6,))
    last, first = kl.Dense(4, name="last"), kl.Dense(6, name="first")
    model = keras.Model(x, kl.Dense(2, name="head")(last(first(x))))
    assert list(plan_readings(toys.fill(model), np.ones((1, 6), "float32")).kernels) == ["first/kernel", "last/kernel"]

    class Backwards(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.head, self.second, self.first = (
                kl.Dense(2, name="head"),
                kl.Dense(3, name="second"),
                kl.Dense(3, name="first"),
            )

        def build(self, shape: Any) -> None:
            for layer in (self.first, self.second, self.head):
                layer.build((None, 3))
            self.built = True

        def call(self, x: Any) -> Any:
            return self.head(self.second(self.first(x)))

    model = Backwards()
    model.build((None, 3))
    assert list(plan_readings(toys.fill(model), np.ones((1, 3), "float32")).kernels) == [
        "first/kernel",
        "second/kernel",
    ]
