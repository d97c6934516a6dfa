"""Which layers can be sliced, under which names, why the others cannot, and what the axes of a kernel mean."""

import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import toys
from keras import layers as kl
from keras import ops
from toy_layers import LAYER_TOYS

from keras_remos import TeacherError, profile
from keras_remos.models.kernels import describe
from keras_remos.models.layers import walk, weight_holders
from keras_remos.models.sliceable import VECTORS, find_sliceable


def skipped(model: keras.Model, x: Any, **options: Any) -> dict[str, str]:
    return dict(profile(model, x, **options).skipped)


def test_paths_are_unique_and_the_same_for_every_copy() -> None:
    for name in toys.TOYS:
        if name == "bert":
            pytest.importorskip("keras_hub")
        first, second = toys.TOYS[name].build(), toys.TOYS[name].build()
        paths = [path for path, _ in walk(first)]
        assert len(paths) == len(set(paths))
        assert len({id(layer) for _, layer in walk(first)}) == len(paths)
        # Layers without weights have names that Keras numbers on and on.
        assert [path for path, _ in weight_holders(second)] == [path for path, _ in weight_holders(first)]


def test_siblings_of_one_name_are_told_apart() -> None:
    class Twins(kl.Layer):
        def __init__(self) -> None:
            super().__init__(name="twins")
            self.parts = [kl.Dense(4, name="same"), kl.Dense(4, name="same")]

        def build(self, shape: Any) -> None:
            for part in self.parts:
                part.build((None, 4))
            self.built = True

        def call(self, x: Any) -> Any:
            return self.parts[1](self.parts[0](x))

    model = toys.fill(keras.Sequential([keras.Input((4,)), Twins(), kl.Dense(2, name="head")]))
    assert [found.path for found in find_sliceable(model)[0]] == ["twins/same", "twins/same#2", "head"]
    found = profile(model, np.ones((3, 4), "float32"))
    assert list(found.layers) == ["twins/same/kernel", "twins/same#2/kernel"]


# The others hold two kernels, or one that is seen only through a state or a layer between.
ONE_KERNEL = [
    name for name in LAYER_TOYS if not name.startswith(("separable", "lstm", "gru", "simple", "bidirectional"))
]


@pytest.mark.parametrize("name", ONE_KERNEL)
def test_every_weight_of_a_kernel_lies_between_two_neurons(name: str) -> None:
    """Moves one weight and watches which output neurons move, when which input neurons are not zero."""
    toy = LAYER_TOYS[name]
    model = toy.build()
    layer = model.layers[1]
    [kernel] = next(found.kernels for found in find_sliceable(model)[0] if found.path == toy.path)
    assert math.prod(kernel.view) == math.prod(kernel.variable.shape)
    rng = np.random.default_rng(0)
    weights = toys.numpy(kernel.variable.value)
    x = rng.uniform(0.5, 1, (1, *toy.shape)).astype("float32")
    for flat in rng.choice(weights.size, min(8, weights.size), replace=False):
        position = np.unravel_index(flat, kernel.view)
        read = tuple(position[a] for a in kernel.input_axes)
        written = tuple(position[a] for a in kernel.output_axes)
        moved = weights.copy().reshape(-1)
        moved[flat] += 1

        def changes(inputs: np.ndarray, moved: np.ndarray = moved) -> np.ndarray:
            kernel.variable.assign(weights)
            before = toys.run(layer, inputs)
            kernel.variable.assign(moved.reshape(weights.shape))
            after = toys.run(layer, inputs)
            kernel.variable.assign(weights)
            return np.abs(after - before) > 1e-6

        changed = changes(x)
        assert {tuple(at[a] for a in toy.writes) for at in np.argwhere(changed)} == {
            on_tensor(written, [kernel.view[a] for a in kernel.output_axes], [changed.shape[a] for a in toy.writes])
        }
        silenced = x.copy()
        neuron = on_tensor(read, [kernel.view[a] for a in kernel.input_axes], [x.shape[a] for a in toy.reads])
        np.moveaxis(silenced, toy.reads, range(len(toy.reads)))[neuron] = 0
        assert not changes(silenced).any()


def on_tensor(neuron: tuple[int, ...], kernel_sizes: list[int], tensor_sizes: list[int]) -> tuple[int, ...]:
    """A neuron's place on a tensor's axes, which may be fewer than the kernel's (groups and channels are one axis)."""
    return tuple(int(i) for i in np.unravel_index(np.ravel_multi_index(neuron, kernel_sizes), tensor_sizes))


class Unknown(kl.Layer):
    def build(self, shape: Any) -> None:
        self.scale = self.add_weight(shape=(shape[-1],), name="scale")

    def call(self, x: Any) -> Any:
        return x * self.scale

    def compute_output_shape(self, shape: Any) -> Any:
        return shape


class Own(kl.Layer):
    """Does something with a weight of its own."""

    def __init__(self, size: tuple[int, ...], how: Callable[[Any, Any], Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.size, self.how = size, how

    def build(self, shape: Any) -> None:
        self.own = self.add_weight(shape=self.size, name="own")

    def call(self, x: Any) -> Any:
        return self.how(x, self.own)

    def compute_output_shape(self, shape: Any) -> Any:
        return shape


class Adapted(kl.Dense):
    """A dense layer with something beside its kernel."""

    def build(self, shape: Any) -> None:
        self.adapter = self.add_weight(shape=(shape[-1], self.units), name="adapter")
        super().build(shape)


class Cell(kl.Layer):
    state_size = 4
    output_size = 4

    def build(self, shape: Any) -> None:
        self.kernel = self.add_weight(shape=(shape[-1], 4), name="kernel")

    def call(self, x: Any, states: Any) -> Any:
        h = keras.ops.matmul(x, self.kernel) + states[0]
        return h, [h]


def quantize(layer: keras.Layer) -> None:
    layer.quantize("int8")


def enable_lora(layer: Any) -> None:
    layer.enable_lora(2)


REASONS: dict[str, tuple[Callable[[], keras.Layer], Callable[[Any], None] | None, tuple[int, ...], str, str]] = {
    "quantized": (lambda: kl.Dense(4, name="odd"), quantize, (3,), "odd", "quantized (int8)"),
    "lora": (lambda: kl.Dense(4, name="odd"), enable_lora, (3,), "odd", "LoRA"),
    "vectors": (lambda: Unknown(name="odd"), None, (3,), "odd", "no kernel: it holds vectors"),
    "positions": (lambda: Own((4, 3), ops.add, name="odd"), None, (4, 3), "odd", "for each element of what it returns"),
    "more positions": (
        lambda: Own((9, 3), lambda x, w: x * 0 + w[:4], name="odd"),
        None,
        (4, 3),
        "odd",
        "weights of its own, of which it is not known what their axes mean: own (9 x 3)",
    ),
    "table": (
        lambda: Own((9, 3), lambda x, w: ops.broadcast_to(w[:4], x.shape), name="odd"),
        None,
        (4, 3),
        "odd",
        "the same for every input",
    ),
    "experts": (
        lambda: Own((2, 3, 3), lambda x, w: ops.einsum("bi,eio->bo", x, w), name="odd"),
        None,
        (3,),
        "odd",
        "several kernels in one weight, as experts have",
    ),
    "normalization": (lambda: kl.LayerNormalization(name="odd"), None, (3,), "odd", "normalization"),
    "cell": (lambda: kl.RNN(Cell(name="cell"), name="odd"), None, (5, 3), "odd/cell", "recurrent cell"),
    "stacked cells": (
        lambda: kl.RNN([kl.LSTMCell(3, name="one"), kl.GRUCell(2, name="two")], name="odd"),
        None,
        (5, 3),
        "odd",
        "recurrent cell",
    ),
    "conv lstm": (lambda: kl.ConvLSTM1D(2, 2, name="odd"), None, (4, 5, 3), "odd", "recurrent cell"),
    "in TimeDistributed": (
        lambda: kl.TimeDistributed(Unknown(name="inside"), name="odd"),
        None,
        (5, 3),
        "odd/inside",
        "TimeDistributed",
    ),
}


@pytest.mark.parametrize("name", REASONS)
def test_what_cannot_be_sliced_is_listed_with_its_reason(name: str) -> None:
    make, change, shape, path, reason = REASONS[name]
    x = keras.Input(shape)
    h = kl.Dense(4, activation="relu", name="plain")(kl.Flatten()(make()(x)))
    model = toys.fill(keras.Model(x, kl.Dense(2, name="head")(h)))
    if change:
        change(model.get_layer("odd"))
    found = profile(model, toys.normal(*shape)(np.random.default_rng(0), 3))
    reasons = {where: why for where, why in found.skipped if where.startswith(path)}
    assert reasons and all(reason in why for why in reasons.values()), found.skipped
    assert list(found.layers) == ["plain/kernel"]
    assert dict(found.skipped)["head"].startswith("head")


def test_what_a_layer_holds_beside_its_kernel_is_named() -> None:
    model = keras.Sequential([keras.Input((3,)), Adapted(4, name="odd"), kl.Dense(2, name="head")])
    found = profile(toys.fill(model), np.ones((2, 3), "float32"))
    assert list(found.layers) == ["odd/kernel"]
    assert dict(found.skipped)["odd/adapter"] == "not of the kernels of such a layer"


def test_tied_layers_are_left_whole() -> None:
    model, x, _ = toys.make("tied")
    assert skipped(model, x)["table"].startswith("tied")

    class Tied(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = kl.Dense(4, name="one"), kl.Dense(4, name="two")
            self.free, self.head = kl.Dense(4, name="free"), kl.Dense(2, name="head")

        def build(self, shape: Any) -> None:
            for layer in (self.one, self.two, self.free, self.head):
                layer.build((None, 4))
            self.two._tracker.unlock()
            self.two._trainable_variables.remove(self.two._kernel)
            self.two._kernel = self.one._kernel
            self.two._tracker.lock()
            self.built = True

        def call(self, x: Any) -> Any:
            return self.head(self.free(self.two(self.one(x))))

    model = Tied()
    model.build((None, 4))
    reasons = skipped(toys.fill(model), np.ones((3, 4), "float32"))
    assert reasons["one"].startswith("tied")
    assert reasons["two"].startswith("tied")


def test_an_untied_reversible_embedding_is_sliced() -> None:
    x = keras.Input((5,), dtype="int32")
    table = kl.ReversibleEmbedding(11, 6, tie_weights=False, name="table")
    h = table(kl.Dense(6, activation="relu", name="hidden")(table(x)), reverse=True)
    model = toys.fill(keras.Model(x, h))
    tokens = np.random.default_rng(0).integers(0, 11, (4, 5), dtype="int32")
    found = profile(model, tokens)
    assert found.layers["table/embeddings"].inputs.tolist() == [
        sum(token in row for row in tokens.tolist()) for token in range(11)
    ]
    assert dict(found.skipped) == {"table/reverse_embeddings": "head: it makes scores of tokens, never sliced"}


def test_the_rest_is_named_too() -> None:
    model, x, _ = toys.make("subclassed")
    reasons = skipped(model, x, filters=lambda path, layer: layer.name != "second")
    assert reasons == {
        "idle": "never called when the model runs",
        "second": "filtered",
        "head": "head: replaced or kept as it is, never sliced",
    }
    model, x, _ = toys.make("cnn")
    assert set(skipped(model, x)) == {"bn1", "bn2", "head"}


def test_weights_of_the_model_itself_are_named() -> None:
    class Own(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.head = kl.Dense(4, name="first"), kl.Dense(2, name="head")

        def build(self, shape: Any) -> None:
            self.scale = self.add_weight(shape=(4,), name="scale")
            self.first.build((None, 3))
            self.head.build((None, 4))
            self.built = True

        def call(self, x: Any) -> Any:
            return self.head(self.first(x) * self.scale)

    model = Own()
    model.build((None, 3))
    assert ("(the model itself)", VECTORS) in profile(toys.fill(model), np.ones((2, 3), "float32")).skipped


@pytest.mark.once
def test_every_weight_is_either_sliced_or_named() -> None:
    for name in toys.TOYS:
        model, x, _ = toys.make(name)
        found = profile(model, x)
        named = {path.rpartition("/")[0] for path in found.layers} | {path for path, _ in found.skipped}
        for path, layer in walk(model):
            if layer._trainable_variables:
                # A recurrent layer speaks for its cell.
                assert path in named or path.rpartition("/")[0] in named, (name, path)


def test_a_model_in_which_all_is_odd_is_refused() -> None:
    model = keras.Sequential([keras.Input((3,)), Unknown(name="odd"), kl.Dense(2, name="head")])
    with pytest.raises(TeacherError, match="odd: no kernel: it holds vectors"):
        profile(toys.fill(model), np.ones((2, 3), "float32"))


def test_an_unbuilt_layer_is_not_described() -> None:
    assert describe(kl.Dense(3)) is None


def test_a_kernel_that_is_computed_is_not_called_tied() -> None:
    x = keras.Input((6,))
    h = kl.SpectralNormalization(kl.Dense(4, activation="relu"), name="normed")(x)
    model = keras.Model(x, kl.Dense(2, name="head")(kl.Dense(5, activation="relu", name="hidden")(h)))
    assert dict(find_sliceable(model)[1])["normed/dense"] == "its kernel is computed, by SpectralNormalization"
