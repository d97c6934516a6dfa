"""Feature layers: the ends of blocks in every kind of network, and what enters the head, in one forward pass."""

from typing import Any

import keras
import numpy as np
import pytest
import toys
from keras import layers as kl

from keras_remos import RemosError
from keras_remos.models.features import PENULTIMATE, FeatureExtractor, find_features, penultimate
from keras_remos.models.heads import find_heads, returns_probabilities

EXPECTED = {
    "mlp": ["first", "(activation)"],
    "cnn": ["relu2"],
    "nested": ["inner/relu"],
    "subclassed": ["first"],
    "shared": ["tower"],
    "multi_head": ["norm2"],
    "mobile": ["add"],
    "text": ["tokenwise", "lstm"],
    "bert": ["transformer_layer_0", "transformer_layer_1"],
}


def expected(name: str, model: keras.Model) -> list[str]:
    """The paths by name; what has none of its own is numbered by Keras."""
    return [model.layers[3].name if path == "(activation)" else path for path in EXPECTED[name]]


@pytest.mark.parametrize("name", EXPECTED)
def test_the_ends_of_blocks_are_found(name: str) -> None:
    model, x, _ = toys.make(name)
    # Without symbolic inputs a batch has to show what the model takes.
    assert find_features(model, x if name == "subclassed" else None) == expected(name, model)


def residual(h: Any, channels: int, strides: int, name: str) -> Any:
    """A block as in ResNet: what stands behind the sum belongs to the block's end."""
    main = kl.BatchNormalization()(kl.Conv2D(channels, 3, strides, padding="same", name=f"{name}_conv")(h))
    short = kl.Conv2D(channels, 1, strides, name=f"{name}_short")(h)
    return kl.ReLU(name=f"{name}_out")(kl.Add(name=f"{name}_add")([main, short]))


def test_each_resolution_gives_its_last_block() -> None:
    x = keras.Input((32, 32, 3))
    h = kl.Rescaling(1 / 255, name="rescaling")(x)
    h = kl.ReLU(name="stem")(kl.Conv2D(4, 3, padding="same")(h))
    h = residual(residual(h, 4, 1, "a1"), 4, 1, "a2")
    # The next stage begins with layers that do not shrink yet: no end of a block.
    h = kl.Conv2D(4, 1, activation="relu", name="expand")(h)
    h = residual(residual(h, 6, 2, "b1"), 6, 1, "b2")
    # Squeeze and excite: a map of one position that larger ones follow.
    gate = kl.Conv2D(6, 1, activation="sigmoid", name="gate")(kl.GlobalAveragePooling2D(keepdims=True)(h))
    h = kl.Multiply(name="excite")([h, gate])
    h = kl.ZeroPadding2D(1)(h)
    h = kl.Conv2D(8, 3, strides=2, name="last_conv")(h)
    h = kl.ReLU(name="last")(kl.BatchNormalization()(h))
    h = kl.Dropout(0.1)(kl.MaxPooling2D(2, name="pool")(h))
    model = keras.Model(x, kl.Dense(3, name="head")(kl.GlobalAveragePooling2D()(h)))
    assert find_features(model) == ["a2_out", "b2_out", "last"]
    assert find_heads(model) == ("head",)


def test_channels_may_come_first() -> None:
    x = keras.Input((3, 16, 16))
    h = kl.ReLU(name="wide")(kl.Conv2D(64, 3, padding="same", data_format="channels_first")(x))
    h = kl.ReLU(name="narrow")(kl.Conv2D(64, 3, 2, padding="same", data_format="channels_first")(h))
    h = kl.GlobalAveragePooling2D(data_format="channels_first")(h)
    assert find_features(keras.Model(x, kl.Dense(2, name="head")(h))) == ["wide", "narrow"]


def test_shrinking_sequences_and_pre_norm_transformers_have_blocks_too() -> None:
    x = keras.Input((16, 3))
    h = kl.Conv1D(4, 3, padding="same", activation="relu", name="wide")(x)
    h = kl.Conv1D(4, 3, strides=2, padding="same", activation="relu", name="narrow")(h)
    model = keras.Model(x, kl.Dense(2, name="head")(kl.GlobalMaxPooling1D()(h)))
    assert find_features(model) == ["wide", "narrow"]

    x = h = keras.Input((5, 8))
    for number in (1, 2):
        normal = kl.LayerNormalization(name=f"norm{number}a")(h)
        h = kl.Add()([h, kl.MultiHeadAttention(2, 4, name=f"attention{number}")(normal, normal)])
        h = kl.Add()([h, kl.Dense(8, activation="gelu")(kl.LayerNormalization(name=f"norm{number}b")(h))])
    h = kl.LayerNormalization(name="final")(h)
    model = keras.Model(x, kl.Dense(2, name="head")(kl.GlobalAveragePooling1D()(h)))
    assert find_features(model) == ["norm2a", "final"]


def test_unknown_sizes_are_guessed_or_asked_for() -> None:
    x = keras.Input((None, None, 3))
    h = kl.Conv2D(4, 3, strides=2, padding="same", activation="relu", name="conv")(x)
    assert find_features(keras.Model(x, kl.Dense(2)(kl.GlobalAveragePooling2D()(h)))) == ["conv"]
    model, x, _ = toys.make("subclassed")
    with pytest.raises(RemosError, match="pass a batch"):
        find_features(model)
    linear = keras.Sequential([keras.Input((3,)), kl.Dense(2, name="head")])
    with pytest.raises(RemosError, match="No feature layers"):
        find_features(linear)


@pytest.mark.parametrize("name", ["mlp", "cnn", "nested", "subclassed", "text"])
def test_features_are_what_the_layers_return(name: str) -> None:
    model, x, _ = toys.make(name)
    paths = expected(name, model)
    seen: dict[str, Any] = {}

    def kept(path: str, tensor: Any) -> None:
        seen[path] = toys.numpy(tensor)

    extract = FeatureExtractor(model, [*paths, PENULTIMATE], example=x)
    outputs, features = extract(x, pass_on=kept)
    assert len(features) == len(paths) + 1
    for path, feature in zip(paths, features, strict=False):
        np.testing.assert_array_equal(toys.numpy(feature), seen[path])
    plain = keras.tree.map_structure(toys.numpy, model(x, training=False))
    keras.tree.map_structure(lambda a, b: np.testing.assert_array_equal(toys.numpy(a), b), outputs, plain)
    assert not any("call" in vars(layer) for layer in model.layers)


def test_what_enters_the_head_makes_the_output() -> None:
    model, x, _ = toys.make("cnn")
    outputs, [features] = penultimate(model)(x)
    head = model.get_layer("head")
    np.testing.assert_allclose(toys.run(head, toys.numpy(features)), toys.numpy(outputs), atol=1e-6)
    # Without a head it is the output itself.
    body = keras.Model(model.input, model.get_layer("relu2").output)
    outputs, [features] = penultimate(body)(x)
    np.testing.assert_array_equal(toys.numpy(features), toys.numpy(outputs))


def test_it_works_inside_another_model_that_a_backend_compiles() -> None:
    model, x, _ = toys.make("cnn")

    class Means(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.model = model
            self.extract = FeatureExtractor(model, ["relu1", PENULTIMATE])
            self.built = True

        def call(self, inputs: Any) -> Any:
            _, [relu1, last] = self.extract(inputs)
            return keras.ops.concatenate([keras.ops.mean(relu1, axis=(1, 2)), last], axis=-1)

    found = Means().predict(x, batch_size=4, verbose=0)
    conv1 = toys.run(model.get_layer("conv1"), x)
    relu1 = toys.relu(toys.run(model.get_layer("bn1"), conv1))
    np.testing.assert_allclose(found[:, :4], relu1.mean(axis=(1, 2)), atol=1e-5)
    np.testing.assert_allclose(found[:, 4:], toys.numpy(penultimate(model)(x)[1][0]), atol=1e-5)


def test_what_is_passed_on_is_what_the_rest_sees() -> None:
    model, x, _ = toys.make("cnn")
    before = toys.numpy(model(x))
    outputs, [features] = FeatureExtractor(model, ["relu2"])(x, pass_on=lambda path, tensor: tensor * 0)
    assert toys.numpy(features).any()
    bias = toys.softmax(toys.numpy(model.get_layer("head").bias.value))
    np.testing.assert_allclose(toys.numpy(outputs), np.broadcast_to(bias, (7, 3)), atol=1e-6)
    # And it leaves no trace.
    np.testing.assert_array_equal(toys.numpy(model(x)), before)


def test_training_mode_reaches_the_model() -> None:
    model, x, _ = toys.make("cnn")
    _, [still] = FeatureExtractor(model, ["bn1"])(x)
    _, [moving] = FeatureExtractor(model, ["bn1"])(x, training=True)
    assert (toys.numpy(still) != toys.numpy(moving)).any()


def test_a_wrong_path_names_those_that_are_near() -> None:
    model, x, _ = toys.make("nested")
    with pytest.raises(RemosError, match=r"no layer 'inner/rellu': did you mean 'inner/relu'"):
        FeatureExtractor(model, ["inner/rellu"])
    subclassed, x, _ = toys.make("subclassed")
    with pytest.raises(RemosError, match="'idle' does not run"):
        FeatureExtractor(subclassed, ["idle"])(x)


def test_several_heads_have_no_one_input() -> None:
    x = keras.Input((4,))
    h = kl.Dense(5, activation="relu", name="hidden")(x)
    model = keras.Model(x, [kl.Dense(2, name="one")(h), kl.Dense(3, name="two")(h)])
    assert sorted(find_heads(model)) == ["one", "two"]
    with pytest.raises(RemosError, match="2 heads"):
        penultimate(model)
    assert find_features(model) == ["hidden"]


@pytest.mark.parametrize(
    ("end", "is_softmax"),
    [
        ([kl.Dense(3, activation="softmax")], True),
        ([kl.Dense(3), kl.Softmax()], True),
        ([kl.Dense(3), kl.Activation("softmax")], True),
        ([kl.Dense(3)], False),
        ([kl.Dense(3, activation="sigmoid")], False),
    ],
)
def test_logits_and_probabilities_are_told_apart(end: list[keras.Layer], is_softmax: bool) -> None:
    model = keras.Sequential([keras.Input((4,)), kl.Dense(5, activation="relu"), *end])
    assert returns_probabilities(model) is is_softmax
