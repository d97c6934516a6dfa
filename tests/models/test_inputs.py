"""What a model takes: where its images have their channels, and whether it is a model of language."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import toys
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers as kl
from keras import ops

from keras_remos import PRESETS, DataError, RelevantSlicer, profile
from keras_remos.coverage.criteria import POSITIVE, recommended_criterion
from keras_remos.models.inputs import image_shape, runs_on_tokens
from keras_remos.slicing.presets import FOR_LANGUAGE

# --- axes -------------------------------------------------------------------------------------------------------------


def pooling(height: int | None, width: int | None, channels: int | None, data_format: str) -> keras.Model:
    """A model that any sides and channels fit, known or not."""
    shape = (channels, height, width) if data_format == "channels_first" else (height, width, channels)
    return keras.Sequential(
        [keras.Input(shape), kl.AveragePooling2D(1, data_format=data_format), kl.Activation("relu")]
    )


@settings(max_examples=50, deadline=None)
@given(
    sides=st.tuples(*[st.one_of(st.none(), st.integers(1, 130))] * 2),
    channels=st.integers(1, 14),
    data_format=st.sampled_from(["channels_last", "channels_first"]),
)
def test_layers_tell_the_axes_and_sizes_do_not(
    sides: tuple[int | None, int | None], channels: int, data_format: str
) -> None:
    assert image_shape(pooling(*sides, channels, data_format)) == ((*sides, channels), data_format)


@pytest.mark.parametrize(
    ("shape", "data_format", "expected"),
    [
        ((64, 64, 12), "channels_last", (64, 64, 12)),
        ((12, 64, 64), "channels_first", (64, 64, 12)),
        ((2, 32, 32), "channels_first", (32, 32, 2)),
        ((1, 128, 2), "channels_last", (1, 128, 2)),
        ((3, 32, 3), "channels_first", (32, 3, 3)),
    ],
)
def test_shapes_that_were_guessed_wrong(shape: Any, data_format: str, expected: Any) -> None:
    model = keras.Sequential([keras.Input(shape), kl.GlobalAveragePooling2D(data_format=data_format)])
    assert image_shape(model) == (expected, data_format)


def test_a_model_that_turns_its_images_first_takes_them_the_other_way() -> None:
    to_last = [kl.Permute((2, 3, 1)), kl.GlobalAveragePooling2D()]
    to_first = [kl.Permute((3, 1, 2)), kl.GlobalAveragePooling2D(data_format="channels_first")]
    assert image_shape(keras.Sequential([keras.Input((5, 8, 9)), *to_last])) == ((8, 9, 5), "channels_first")
    assert image_shape(keras.Sequential([keras.Input((8, 9, 5)), *to_first])) == ((8, 9, 5), "channels_last")


def test_models_of_unknown_shape_have_a_data_format_all_the_same() -> None:
    class Subclassed(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.pool = kl.GlobalAveragePooling2D(data_format="channels_first")

        def call(self, x: Any) -> Any:
            return self.pool(x)

    assert image_shape(Subclassed()) == (None, "channels_first")


# --- tokens -----------------------------------------------------------------------------------------------------------


class Positions(kl.Layer):
    """Adds a table of positions to patches, as vision transformers do."""

    def __init__(self, count: int, size: int, whole_batch: bool) -> None:
        super().__init__()
        self.table = kl.Embedding(count, size)
        self.count = count
        self.whole_batch = whole_batch

    def build(self, shape: Any) -> None:
        self.table.build((None, self.count))

    def call(self, x: Any) -> Any:
        ids = ops.expand_dims(ops.arange(self.count, dtype="int32"), 0)
        return x + self.table(ops.repeat(ids, x.shape[0], axis=0) if self.whole_batch and x.shape[0] else ids)


def vision_transformer(whole_batch: bool = False) -> keras.Model:
    x = keras.Input((8, 8, 3))
    h = kl.Reshape((16, 6))(kl.Conv2D(6, 2, strides=2)(x))
    h = Positions(16, 6, whole_batch)(h)
    h = kl.LayerNormalization()(kl.Add()([h, kl.MultiHeadAttention(2, 3)(h, h)]))
    return keras.Model(x, kl.Dense(3)(kl.GlobalAveragePooling1D()(h)))


def subclassed_vision_transformer() -> keras.Model:
    class Subclassed(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.patches, self.flat = kl.Conv2D(6, 2, strides=2), kl.Reshape((16, 6))
            self.positions, self.head = Positions(16, 6, False), kl.Dense(3)

        def call(self, x: Any) -> Any:
            return self.head(ops.mean(self.positions(self.flat(self.patches(x))), axis=1))

    model = Subclassed()
    model(np.zeros((2, 8, 8, 3), "float32"))
    return model


def entities_by_column() -> keras.Model:
    columns = [keras.Input((1,), dtype="int32", name=f"column_{n}") for n in range(3)]
    numbers = keras.Input((4,), name="numbers")
    rows = [kl.Flatten()(kl.Embedding(9, 3)(column)) for column in columns]
    h = kl.Dense(8, activation="relu")(kl.Concatenate()([*rows, numbers]))
    return keras.Model([*columns, numbers], kl.Dense(2)(h))


def entities_side_by_side() -> keras.Model:
    columns = [keras.Input((1,), dtype="int32", name=f"column_{n}") for n in range(3)]
    h = kl.Concatenate(axis=1)([kl.Embedding(9, 4)(column) for column in columns])
    return keras.Model(columns, kl.Dense(2)(kl.Flatten()(kl.Dense(8, activation="relu")(h))))


def entities_in_one_table() -> keras.Model:
    return keras.Sequential(
        [keras.Input((5,), dtype="int32"), kl.Embedding(40, 3), kl.Flatten(), kl.Dense(8), kl.Dense(2)]
    )


def codebook() -> keras.Model:
    """Images as the numbers of the nearest rows of a table: what is looked up was computed by weights."""
    x = keras.Input((16, 4))
    codes = ops.argmax(kl.Dense(9)(x), axis=-1)
    return keras.Model(x, kl.Dense(2)(kl.Flatten()(kl.Dense(5)(kl.Embedding(9, 4)(codes)))))


def text_tower() -> Any:
    tokens = keras.Input((6,), dtype="int32", name="tokens")
    h = kl.Embedding(30, 8)(tokens)
    h = kl.Add()([h, kl.MultiHeadAttention(2, 4)(h, h)])
    return tokens, kl.GlobalAveragePooling1D()(h)


def image_and_text() -> keras.Model:
    """As CLIP: the larger part sees images."""
    images = keras.Input((8, 8, 3), name="images")
    h = kl.Conv2D(32, 3, activation="relu")(kl.Conv2D(32, 3, activation="relu")(images))
    tokens, text = text_tower()
    return keras.Model([images, tokens], kl.Dense(2)(kl.Concatenate()([kl.GlobalAveragePooling2D()(h), text])))


def text_and_a_number() -> keras.Model:
    tokens, text = text_tower()
    number = keras.Input((1,), name="number")
    return keras.Model([tokens, number], kl.Dense(2)(kl.Concatenate()([text, kl.Dense(4)(number)])))


def recurrent(dtype: str = "int32", length: int | None = None) -> keras.Model:
    table = kl.Embedding(20, 4, mask_zero=True)
    return keras.Sequential([keras.Input((length,), dtype=dtype), table, kl.Bidirectional(kl.LSTM(5)), kl.Dense(2)])


def subclassed_language() -> keras.Model:
    class Subclassed(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.conv, self.head = kl.Embedding(20, 4), kl.Conv1D(6, 3), kl.Dense(2)

        def call(self, x: Any) -> Any:
            return self.head(ops.max(self.conv(self.table(x)), axis=1))

    model = Subclassed()
    model(np.zeros((2, 7), "int32"))
    return model


def quantized() -> keras.Model:
    model = recurrent(length=7)
    model.layers[0].quantize("int8")
    return model


NOT_OF_LANGUAGE: dict[str, Callable[[], keras.Model]] = {
    "vision transformer": vision_transformer,
    "positions for the whole batch": lambda: vision_transformer(whole_batch=True),
    "subclassed vision transformer": subclassed_vision_transformer,
    "entities by column": entities_by_column,
    "entities side by side": entities_side_by_side,
    "entities in one table": entities_in_one_table,
    "codebook": codebook,
    "image and text": image_and_text,
    "no table": lambda: toys.make("cnn")[0],
    "time series": lambda: toys.make("multi_head")[0],
}
OF_LANGUAGE: dict[str, Callable[[], keras.Model]] = {
    "recurrent": recurrent,
    "tokens as floats": lambda: recurrent("float32"),
    "nested": lambda: keras.Sequential([keras.Input((7,), dtype="int32"), recurrent(length=7), kl.Softmax()]),
    "text and a number": text_and_a_number,
    "subclassed": subclassed_language,
    "quantized": quantized,
    "tied": lambda: toys.make("tied")[0],
    "text": lambda: toys.make("text")[0],
    "bert": lambda: toys.make("bert")[0],
}


@pytest.mark.parametrize("kind", NOT_OF_LANGUAGE)
def test_a_table_makes_no_model_of_language(kind: str) -> None:
    model = NOT_OF_LANGUAGE[kind]()
    assert not runs_on_tokens(model)
    assert recommended_criterion(model) == POSITIVE
    assert RelevantSlicer(model).settings == PRESETS["recommended"]


@pytest.mark.parametrize("kind", OF_LANGUAGE)
def test_what_runs_on_tokens_is_a_model_of_language(kind: str) -> None:
    model = OF_LANGUAGE[kind]()
    assert runs_on_tokens(model)
    assert RelevantSlicer(model).settings == FOR_LANGUAGE["recommended"]


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_half_precision_changes_nothing(policy: str) -> None:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        models = vision_transformer(), entities_by_column(), recurrent(), recurrent("float32")
        assert [runs_on_tokens(model) for model in models] == [False, False, True, True]
    finally:
        keras.config.set_dtype_policy(before)


def test_the_model_is_left_as_it_was() -> None:
    model = recurrent()
    assert runs_on_tokens(model)
    assert not any("call" in vars(layer) for layer in model.layers) and model.name.startswith("sequential")
    assert toys.numpy(model(np.ones((3, 5), "int32"))).shape == (3, 2)


def test_what_cannot_be_traced_is_taken_by_its_table() -> None:
    class Subclassed(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.head = kl.Embedding(20, 4), kl.Dense(2)

        def call(self, x: Any) -> Any:
            return self.head(ops.max(self.table(x["tokens"]), axis=1))

    model = Subclassed()
    model({"tokens": np.zeros((2, 7), "int32"), "more": np.zeros((2, 1), "float32")})
    assert runs_on_tokens(model)


@pytest.mark.parametrize("name", ["ViTBackbone", "SigLIPVisionEncoder", "CLIPVisionEncoder"])
def test_vision_models_of_keras_hub(name: str) -> None:
    hub = pytest.importorskip("keras_hub")
    if name == "ViTBackbone":
        model = hub.models.ViTBackbone((16, 16, 3), (4, 4), num_layers=1, num_heads=2, hidden_dim=8, mlp_dim=8)
    elif name == "SigLIPVisionEncoder":
        model = hub.models.SigLIPVisionEncoder(4, 8, 1, 2, 8, image_shape=(16, 16, 3))
    else:
        model = hub.models.CLIPVisionEncoder(4, 8, 1, 2, 8, image_shape=(16, 16, 3))
    assert not runs_on_tokens(model)


@pytest.mark.filterwarnings("ignore:Criterion")
@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("a",), "no 'b'"),
        (("a", "c"), "no 'b' and also 'c'"),
        (("a", "b", "c"), "also 'c'"),
    ],
)
def test_inputs_of_other_names_are_refused(given: tuple[str, ...], said: str) -> None:
    inputs = {name: keras.Input((3,), name=name) for name in ("a", "b")}
    h = keras.layers.Dense(4, activation="relu")(keras.layers.Concatenate()(list(inputs.values())))
    x = {name: np.ones((5, 3), "float32") for name in given}
    with pytest.raises(DataError, match=f"takes inputs named 'a', 'b'. Received: {said}"):
        profile(keras.Model(inputs, keras.layers.Dense(2)(h)), x, verbose=False)
    # A model that takes a list finds its inputs in a dict by their names, whatever else is there.
    if "b" in given:
        assert profile(keras.Model(list(inputs.values()), keras.layers.Dense(2)(h)), x, verbose=False).num_samples == 5
