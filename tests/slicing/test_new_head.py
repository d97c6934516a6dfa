"""A student's new head stands on the teacher's features, never on its class scores, and ends in one softmax."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import toys
from keras import layers as kl
from keras import ops

from keras_remos import RelevantSlicer, StudentError
from keras_remos.models.ends import before_token_scores
from keras_remos.models.features import FeatureExtractor
from keras_remos.models.heads import find_heads
from keras_remos.models.layers import walk, weight_holders
from keras_remos.slicing import student

# Keras' own layer writes 1e-12 in half precision.
pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered in cast:RuntimeWarning")

X = np.random.default_rng(0).normal(size=(5, 6)).astype("float32")


def dense(h: Any, name: str = "fc", **options: Any) -> Any:
    return kl.Dense(4, name=name, **options)(h)


class OwnHead(kl.Layer):
    def build(self, shape: Any) -> None:
        self.matrix = self.add_weight(shape=(shape[-1], 4), name="matrix")

    def call(self, x: Any) -> Any:
        return ops.matmul(x, self.matrix)


ENDS: dict[str, Callable[[Any], Any]] = {
    "logits": dense,
    "softmax": lambda h: dense(h, activation="softmax"),
    "softmax in float32": lambda h: kl.Activation("softmax", dtype="float32")(dense(h)),
    "softmax, then linear in float32": lambda h: kl.Activation("linear", dtype="float32")(
        dense(h, activation="softmax")
    ),
    "a softmax layer, then linear": lambda h: kl.Activation("linear", dtype="float32")(kl.Softmax()(dense(h))),
    "ReLU, then softmax": lambda h: kl.Softmax()(dense(h, activation="relu")),
    "ops.softmax": lambda h: ops.softmax(dense(h)),
    "a temperature": lambda h: ops.softmax(dense(h) / 2),
    "clipped": lambda h: ops.clip(dense(h), -1, 1),
    "batch normalization": lambda h: kl.BatchNormalization()(dense(h)),
    "unit normalization": lambda h: kl.UnitNormalization()(dense(h)),
    "average": lambda h: kl.Average()([dense(h), dense(h, "fc2")]),
    "concatenation": lambda h: kl.Concatenate()([dense(h), dense(h, "fc2")]),
    "a head of one's own": lambda h: OwnHead(name="fc")(h),
    "spectral normalization": lambda h: kl.SpectralNormalization(kl.Dense(4), name="fc")(h),
}


def ending(end: Callable[[Any], Any]) -> keras.Model:
    x = keras.Input((6,))
    return toys.fill(keras.Model(x, end(kl.Dense(8, activation="relu", name="hidden")(x))))


def certain(model: keras.Model) -> float:
    """How sure of a class a model can be: with a head that says nothing else."""
    head = next(layer for path, layer in walk(model) if path in ("fc", "head"))
    weights = [np.zeros(w.shape, "float32") for w in head.get_weights()]
    weights[-1][0] = 50
    head.set_weights(weights)
    return float(model.predict(X, verbose=0)[:, 0].min())


HALF = ["softmax in float32", "softmax, then linear in float32", "ops.softmax", "average"]


@pytest.mark.once
@pytest.mark.parametrize(
    ("name", "dtype"), [(name, "float32") for name in ENDS] + [(name, "mixed_float16") for name in HALF]
)
def test_whatever_the_teacher_ends_in_the_head_stands_on_its_features(name: str, dtype: str) -> None:
    keras.config.set_dtype_policy(dtype)
    try:
        model = ending(ENDS[name])
    finally:
        keras.config.set_dtype_policy("float32")
    made = RelevantSlicer(model, keep_ratio=1).apply(X, num_classes=2, verbose=False)
    probabilities = made.predict(X, verbose=0).astype("float32")
    np.testing.assert_allclose(probabilities.sum(axis=-1), 1, atol=2e-3)
    features = keras.Model(made.inputs, made.get_layer("hidden").output).predict(X, verbose=0)
    expected = keras.Model(model.inputs, model.get_layer("hidden").output).predict(X, verbose=0)
    np.testing.assert_array_equal(features, expected)
    [head] = find_heads(made)
    kernel, bias = (toys.numpy(weight.value).astype("float32") for weight in made.get_layer(head).weights)
    assert kernel.shape == (8, 2)
    np.testing.assert_allclose(
        probabilities,
        toys.softmax(features.astype("float32") @ kernel + bias),
        atol=5e-3 if dtype != "float32" else 1e-5,
    )
    assert certain(made) > 0.99  # twice through a softmax: at most 0.731
    if name not in HALF:
        return
    # The same from fresh weights.
    fresh = student.from_scratch(model, heads=find_heads(model), num_classes=2)
    assert fresh.output_shape == (None, 2) and certain(fresh) > 0.99


def test_lora_and_quantized_heads_are_replaced() -> None:
    for how in ("lora", "int8"):
        model = ending(dense)
        head = model.get_layer("fc")
        head.enable_lora(2) if how == "lora" else head.quantize(how)
        made = RelevantSlicer(model, keep_ratio=0.9).apply(X, num_classes=2, verbose=False)
        assert made.output_shape == (None, 2)
        assert type(made.get_layer("fc")) is kl.Dense and made.get_layer("fc").quantization_mode is None


def test_a_classifier_inside_another_model_is_opened() -> None:
    inner = ending(dense)
    x = keras.Input((6,))
    model = keras.Model(x, kl.Softmax()(inner(kl.Rescaling(2.0)(x))))
    assert find_heads(model) == (f"{inner.name}/fc",)
    made = RelevantSlicer(model, keep_ratio=1).apply(X, num_classes=3, verbose=False)
    assert made.output_shape == (None, 3) and certain(made) > 0.99
    np.testing.assert_array_equal(
        made.get_layer(inner.name).get_layer("hidden").kernel, inner.get_layer("hidden").kernel
    )


def unet(**options: Any) -> keras.Model:
    x = keras.Input((8, 8, 3))
    h = kl.Conv2D(4, 3, padding="same", activation="relu", name="wide")(x)
    return toys.fill(keras.Model(x, kl.Conv2D(3, 1, name="out", **options)(h)))


def test_a_student_of_a_segmenter_stands_on_its_features() -> None:
    model = unet(activation="softmax")
    images = np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype("float32")
    slicer = RelevantSlicer(model, keep_ratio=0.5)
    made = slicer.slice(slicer.profile(images, verbose=False))
    assert list(made.masks) == ["wide/kernel"]  # its own head is never sliced
    new = made.apply(model, num_classes=2)
    assert new.output_shape == (None, 2) and new.get_layer("out").kernel.shape == (4, 2)
    assert made.apply(model).output_shape == (None, 8, 8, 3)


def pooled(h: Any) -> Any:
    return kl.GlobalAveragePooling2D(keepdims=True, name="pool")(h)


def mobilenet(h: Any) -> Any:
    """The end of MobileNet: a convolution behind the pooling makes the scores."""
    h = kl.ReLU(6.0)(kl.DepthwiseConv2D(3, padding="same", name="depthwise")(h))
    h = kl.Dropout(0.1)(pooled(kl.ReLU(6.0)(kl.Conv2D(5, 1, name="pointwise")(h))))
    return kl.Activation("softmax")(kl.Reshape((4,))(kl.Conv2D(4, 1, name="scores")(h)))


def mobilenet_v3(h: Any) -> Any:
    """The end of MobileNetV3: squeeze and excite, and a hidden convolution between the pooling and the scores."""
    squeezed = kl.Conv2D(2, 1, activation="relu", name="squeeze")(kl.GlobalAveragePooling2D(keepdims=True)(h))
    h = kl.Multiply()([h, kl.Conv2D(6, 1, activation="hard_sigmoid", name="excite")(squeezed)])
    h = kl.Activation("hard_swish")(kl.Conv2D(7, 1, name="hidden")(pooled(h)))
    return kl.Activation("softmax")(kl.Flatten()(kl.Conv2D(4, 1, name="scores")(h)))


# What stands on six maps; its kernels, all to be sliced, and the size of the features that the new head gets.
IMAGE_ENDS: dict[str, tuple[Callable[[Any], Any], list[str], int]] = {
    "MobileNet": (mobilenet, ["depthwise", "pointwise"], 5),
    "MobileNetV3": (mobilenet_v3, ["squeeze", "excite", "hidden"], 7),
    "a reshaped dense layer": (
        lambda h: kl.Softmax()(kl.Reshape((4,))(kl.Dense(4, name="scores")(kl.Flatten()(pooled(h))))),
        [],
        6,
    ),
    "features that were averaged": (lambda h: kl.Flatten()(pooled(kl.Conv2D(7, 3, name="last")(h))), ["last"], 7),
    "the largest features": (lambda h: kl.GlobalMaxPooling2D()(kl.Conv2D(7, 1, name="last")(h)), ["last"], 7),
}


@pytest.mark.parametrize("name", IMAGE_ENDS)
def test_a_head_need_not_be_dense_and_a_last_convolution_need_not_be_one(name: str) -> None:
    end, kernels, width = IMAGE_ENDS[name]
    x = keras.Input((8, 8, 3))
    model = toys.fill(keras.Model(x, end(kl.Conv2D(6, 3, activation="relu", name="stem")(x))))
    images = np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype("float32")
    slicer = RelevantSlicer(model, keep_ratio=0.5)
    chosen = slicer.slice(slicer.profile(images, verbose=False))
    assert list(chosen.masks) == [f"{layer}/kernel" for layer in ("stem", *kernels)]
    made = chosen.apply(model, num_classes=2)
    head = made.get_layer("scores" if chosen.heads else "head")
    assert type(head) is kl.Dense and head.kernel.shape == (width, 2) and made.output is head.output
    for layer in ("stem", *kernels):
        kept = chosen.masks[f"{layer}/kernel"]
        teachers = toys.numpy(model.get_layer(layer).kernel)
        np.testing.assert_array_equal(toys.numpy(made.get_layer(layer).kernel), np.where(kept, teachers, 0))


@pytest.mark.parametrize("wrapped", [False, True])
def test_recurrent_features_are_sliced_and_get_a_head(wrapped: bool) -> None:
    x = keras.Input((5, 3))
    lstm = kl.Bidirectional(kl.LSTM(4), name="both") if wrapped else kl.LSTM(4, name="lstm")
    model = toys.fill(keras.Model(x, lstm(x)))
    series = np.random.default_rng(0).normal(size=(4, 5, 3)).astype("float32")
    slicer = RelevantSlicer(model, keep_ratio=0.5)
    chosen = slicer.slice(slicer.profile(series, verbose=False))
    below = ("both/forward_lstm", "both/backward_lstm") if wrapped else ("lstm",)
    assert chosen.heads == ()
    assert list(chosen.masks) == [f"{path}/{kernel}" for path in below for kernel in ("kernel", "recurrent_kernel")]
    assert chosen.apply(model, num_classes=2).get_layer("head").kernel.shape == (8 if wrapped else 4, 2)


class Unseen(keras.Model):
    """Nobody sees what it does to its scores."""

    def __init__(self) -> None:
        super().__init__(name="unseen")
        self.hidden, self.fc = kl.Dense(8, activation="relu", name="hidden"), kl.Dense(4, name="fc")

    def build(self, shape: Any) -> None:
        self.hidden.build(shape)
        self.fc.build((None, 8))
        self.built = True

    def call(self, x: Any) -> Any:
        return ops.softmax(self.fc(self.hidden(x)))

    def get_config(self) -> dict[str, Any]:
        return {}

    def get_build_config(self) -> dict[str, Any]:
        return {"input_shape": (None, 6)}


def gated(x: Any) -> Any:
    """Probabilities that no one layer makes."""
    scores = kl.Dense(4, name="scores")(x)
    return ops.softmax(scores * kl.Dense(4, activation="sigmoid", name="gate")(scores))


REFUSED: dict[str, tuple[Callable[[], keras.Model], str]] = {
    "two heads on different features": (
        lambda: ending(lambda h: kl.Average()([dense(h), dense(kl.Dense(5, activation="relu")(h), "fc2")])),
        "different features.*head=",
    ),
    "no head to be found": (lambda: ending(gated), "probabilities.*head="),
    "a subclassed model": (lambda: toys.fill(_built(Unseen())), "subclassed.*functional"),
    "a subclassed model that ends plainly": (toys.build_subclassed, "subclassed.*functional"),
}


def _built(model: keras.Model) -> keras.Model:
    model.build((None, 6))
    return model


@pytest.mark.parametrize("name", REFUSED)
def test_where_no_head_can_be_replaced_that_is_said(name: str) -> None:
    make, message = REFUSED[name]
    with pytest.raises(StudentError, match=message):
        RelevantSlicer(make()).apply(X, num_classes=2, verbose=False)


def test_a_named_layer_makes_place() -> None:
    model = ending(gated)
    made = RelevantSlicer(model, keep_ratio=0.5, head="scores").apply(X, num_classes=2, verbose=False)
    assert [layer.name for layer in made.layers][1:] == ["hidden", "scores"] and made.output_shape == (None, 2)


def test_an_option_of_that_name_that_means_something_else_is_left_alone() -> None:
    @keras.saving.register_keras_serializable("tests")
    class Own(keras.Model):
        def __init__(self, num_classes: int, activation: str = "gelu", **kwargs: Any) -> None:
            x = keras.Input((6,))
            h = kl.Dense(8, activation=activation, name="hidden")(x)
            super().__init__(x, kl.Dense(num_classes, name="fc")(h), **kwargs)
            self.num_classes, self.activation = num_classes, activation

        def get_config(self) -> dict[str, Any]:
            return {"num_classes": self.num_classes, "activation": self.activation, "name": self.name}

        @classmethod
        def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "Own":
            return cls(**config)

    made = RelevantSlicer(toys.fill(Own(4))).apply(X, num_classes=2, verbose=False)
    assert dict(walk(made))["hidden"].activation is keras.activations.gelu
    np.testing.assert_allclose(made.predict(X, verbose=0).sum(axis=-1), 1, atol=1e-5)
    assert made.output_shape == (None, 2) and certain(made) > 0.99


def test_channels_in_front_are_pooled_over_positions() -> None:
    x = keras.Input((3, 8, 6))
    h = kl.Conv2D(5, 3, activation="relu", data_format="channels_first", name="conv")(x)
    made = student.build(toys.fill(keras.Model(x, h)), {}, num_classes=2)
    assert made.get_layer("head").kernel.shape == (5, 2)


def test_names_of_the_teachers_own_layers_are_not_taken() -> None:
    x = keras.Input((6, 6, 3))
    h = kl.Conv2D(4, 3, activation="relu", name="head")(x)
    h = kl.Conv2D(5, 3, activation="relu", name="pooled_features")(h)
    model = toys.fill(keras.Model(x, kl.Conv2D(6, 2, activation="relu", name="probabilities")(h)))
    images = np.random.default_rng(0).normal(size=(5, 6, 6, 3)).astype("float32")
    student = RelevantSlicer(model, keep_ratio=0.5).apply(images, num_classes=2, verbose=False)
    names = ["head", "pooled_features", "probabilities", "pooled_features_2", "head_2"]
    assert [layer.name for layer in student.layers][1:] == names
    assert student.output_shape == (None, 2)


@pytest.mark.parametrize("tied", [True, False])
def test_a_head_on_a_language_model_stands_on_its_states_and_not_on_scores_of_tokens(tied: bool) -> None:
    x = keras.Input((5,), dtype="int32")
    table = kl.ReversibleEmbedding(11, 6, tie_weights=tied, name="table")
    h = kl.Dense(6, activation="relu", name="hidden")(table(x))
    model = toys.fill(keras.Model(x, table(h, reverse=True)))
    tokens = np.random.default_rng(0).integers(0, 11, (4, 5), dtype="int32")
    student = RelevantSlicer(model, keep_ratio=1.0).apply(tokens, num_classes=2, verbose=False)
    head = student.get_layer("head")
    assert tuple(head.kernel.shape) == (6, 2)
    states = toys.run(model.get_layer("hidden"), toys.run(table, tokens)).mean(axis=1)
    np.testing.assert_allclose(toys.numpy(student(tokens)), toys.run(head, states), atol=1e-6)


def test_a_head_on_a_pooled_output_has_a_name_of_its_own() -> None:
    """What makes that output, as a tanh of the first token's state, looks like a head and stays."""
    x = keras.Input((4, 6))
    states = kl.Dense(6, activation="relu", name="hidden")(x)
    pooled = kl.Dense(5, activation="tanh", name="pooled_dense")(states[:, 0])
    model = toys.fill(keras.Model(x, {"sequence_output": states, "pooled_output": pooled}))
    data = np.random.default_rng(0).normal(size=(6, 4, 6)).astype("float32")
    student = RelevantSlicer(model, keep_ratio=0.9).apply(data, num_classes=2, verbose=False)
    assert tuple(student.get_layer("head").kernel.shape) == (5, 2)
    assert tuple(student(data).shape) == (6, 2)


class OwnConfiguration(keras.Model):
    """A functional model of a class that does not write its layers down, as KerasHub's backbones are."""

    def __init__(self, units: int = 8, **kwargs: Any) -> None:
        x = keras.Input((6,))
        h = kl.Dense(units, activation="relu", name="hidden")(x)
        super().__init__(inputs=x, outputs=kl.Dense(4, name="fc")(h), **kwargs)
        self.units = units

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name, "units": self.units}


def test_a_head_that_its_configuration_does_not_show_is_cut_off() -> None:
    model = toys.fill(OwnConfiguration(name="own"))
    new = RelevantSlicer(model, keep_ratio=1.0).apply(X, num_classes=2, verbose=False)
    assert tuple(new.get_layer("fc").kernel.shape) == (8, 2)
    states = toys.run(model.get_layer("hidden"), X)
    np.testing.assert_allclose(toys.numpy(new(X)), toys.run(new.get_layer("fc"), states), atol=1e-6)


def test_features_of_a_model_that_takes_no_guessed_size_carry_a_head() -> None:
    """Its reshape takes six steps; its input says any number."""
    x = keras.Input((None, 2))
    h = kl.ReLU()(kl.Dense(5, name="wide")(kl.Reshape((12,))(x)))
    model = toys.fill(keras.Model(x, h))
    data = np.random.default_rng(0).normal(size=(4, 6, 2)).astype("float32")
    new = RelevantSlicer(model, keep_ratio=0.9).apply(data, num_classes=2, verbose=False)
    assert tuple(new(data).shape) == (4, 2)


class Own(keras.layers.Dense):
    """As some of KerasHub's layers, it cannot be made from its own configuration."""

    def get_config(self) -> Any:
        raise NotImplementedError("no configuration of its own")


@keras.saving.register_keras_serializable("new_head")
class Whole(keras.Model):
    """Describes itself as a whole."""

    def __init__(self, width: int, **options: Any) -> None:
        x = keras.Input((4,))
        super().__init__(x, self.end(Own(width, activation="relu", name="own")(x)), **options)
        self.width = width

    @staticmethod
    def end(features: Any) -> Any:
        return features

    def get_config(self) -> Any:
        return {"name": self.name, "width": self.width}

    @classmethod
    def from_config(cls, config: Any) -> Any:
        return cls(**config)


def test_a_model_whose_layers_cannot_be_saved_one_by_one_is_called_whole(tmp_path: Path) -> None:
    teacher = toys.fill(Whole(6, name="whole"))
    x = np.random.default_rng(0).normal(size=(5, 4)).astype("float32")
    slicer = RelevantSlicer(teacher, keep_ratio=0.5, preset="paper")
    relevant = slicer.slice(slicer.profile(x, verbose=False))
    assert list(relevant.masks) == ["own/kernel"]
    made = relevant.apply(teacher, num_classes=2)
    # The paths are the teacher's: what is looked for by them is found.
    assert {"own", "head"} <= {path for path, _ in walk(made)}
    kernel = toys.numpy(FeatureExtractor(made, ["own"])._tapped[0].kernel)
    mask = relevant.masks["own/kernel"]
    np.testing.assert_array_equal(kernel[mask], toys.numpy(teacher.get_layer("own").kernel)[mask])
    assert (kernel[~mask] == 0).all() and (~mask).any()
    made.save(tmp_path / "student.keras")
    opened = keras.saving.load_model(tmp_path / "student.keras")
    np.testing.assert_allclose(toys.numpy(opened(x)), toys.numpy(made(x)), atol=1e-6)
    assert [path for path, _ in weight_holders(opened)] == [path for path, _ in weight_holders(made)] == ["own", "head"]
    # A student may be a teacher.
    again = RelevantSlicer(opened).apply(x, num_classes=3, verbose=False)
    assert again(x).shape == (5, 3)


class Cut(Whole):
    """Its head is inside, so that it must be opened to take it off."""

    end = staticmethod(dense)


def test_a_student_that_keras_cannot_save_is_named_before_it_is_trained() -> None:
    teacher = toys.fill(Cut(6, name="teacher"))
    x = np.random.default_rng(0).normal(size=(5, 4)).astype("float32")
    with pytest.warns(UserWarning, match="cannot save Cut 'teacher' with a new head.*no configuration"):
        student = RelevantSlicer(teacher).apply(x, num_classes=2, verbose=False)
    assert student(x).shape == (5, 2)


class Vague(Whole):
    """What it returns when it is called is of a size that nobody tells, as of some of KerasHub's backbones."""

    def compute_output_spec(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        return keras.KerasTensor((None, None), "float32")


def test_the_size_of_features_is_what_a_model_knows() -> None:
    x = np.random.default_rng(0).normal(size=(5, 4)).astype("float32")
    student = RelevantSlicer(toys.fill(Vague(6, name="vague"))).apply(x, num_classes=2, verbose=False)
    assert tuple(student.get_layer("head").kernel.shape) == (6, 2)
    assert tuple(student(x).shape) == (5, 2)


@pytest.mark.parametrize("kind", [Whole, Cut])
def test_a_teacher_is_copied_once(kind: type[Whole], monkeypatch: pytest.MonkeyPatch) -> None:
    """Large ones take long to make."""
    made: list[Any] = []
    teacher = toys.fill(kind(6, name="teacher"))
    x = np.random.default_rng(0).normal(size=(5, 4)).astype("float32")
    monkeypatch.setattr(kind, "from_config", classmethod(lambda cls, config: made.append(cls) or cls(**config)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        RelevantSlicer(teacher).apply(x, num_classes=2, verbose=False)
    assert made == [kind]


class Guesser(kl.Layer):
    """The head of a masked language model: it looks at some positions, and scores tokens by the model's own table."""

    def __init__(self, table: Any, **options: Any) -> None:
        super().__init__(**options)
        self.table, self.dense = table, kl.Dense(6, activation="tanh", name="dense")

    def build(self, x_shape: Any, positions_shape: Any) -> None:
        self.dense.build(x_shape)
        self.built = True

    def call(self, x: Any, positions: Any) -> Any:
        return self.table(self.dense(ops.take_along_axis(x, positions[..., None], axis=1)), reverse=True)


class Masked(keras.Model):
    def __init__(self, **options: Any) -> None:
        x, positions = (keras.Input((size,), dtype="int32", name=name) for name, size in (("x", 5), ("positions", 2)))
        table = kl.ReversibleEmbedding(11, 6, name="table")
        states = kl.Dense(6, activation="relu", name="hidden")(table(x))
        scores = kl.Softmax()(Guesser(table, name="guesser")(states, positions))
        super().__init__({"x": x, "positions": positions}, scores, **options)

    def get_config(self) -> Any:
        return {"name": self.name}

    @classmethod
    def from_config(cls, config: Any) -> Any:
        return cls(**config)


def test_a_head_on_a_masked_language_model_stands_on_its_states_too() -> None:
    model, rng = toys.fill(Masked()), np.random.default_rng(0)
    data = {"x": rng.integers(0, 11, (4, 5), "int32"), "positions": rng.integers(0, 5, (4, 2), "int32")}
    student = RelevantSlicer(model, keep_ratio=1.0).apply(data, num_classes=2, verbose=False)
    assert "guesser" not in dict(walk(student))
    head = student.get_layer("head")
    hidden = toys.run(model.get_layer("hidden"), toys.run(model.get_layer("table"), data["x"])).mean(axis=1)
    np.testing.assert_allclose(toys.numpy(student(data)), toys.run(head, hidden), atol=1e-6)


class Decoder(kl.Layer):
    """A block with a table that is used elsewhere, too, as for what each layer adds to its states for a token."""

    def __init__(self, table: Any, **options: Any) -> None:
        super().__init__(**options)
        self.table, self.dense = table, kl.Dense(6, activation="relu", name="dense")

    def build(self, x_shape: Any, states_shape: Any) -> None:
        self.dense.build(states_shape)

    def call(self, x: Any, states: Any) -> Any:
        return self.dense(states + self.table(x))

    def compute_output_shape(self, x_shape: Any, states_shape: Any) -> Any:
        return states_shape


def test_a_last_block_with_a_table_of_its_own_is_no_head() -> None:
    x = keras.Input((5,), dtype="int32")
    table = kl.Embedding(11, 6, name="table")
    model = keras.Model(x, Decoder(table, name="decoder")(x, table(x)))
    assert before_token_scores(model) is None


class Remembers(kl.Dense):
    """Computes a table when it is first called, and keeps it."""

    def call(self, x: Any, **options: Any) -> Any:
        if not hasattr(self, "scale"):
            self.scale = ops.sum(x * 0) + 2.0
        return super().call(x) * self.scale


def test_what_layers_keep_of_their_first_call_is_none_of_a_trace() -> None:
    x = keras.Input((4,))
    model = toys.fill(keras.Model(x, kl.Dense(3, name="head")(Remembers(5, activation="relu")(x))))
    find_heads(model)
    data = np.random.default_rng(0).normal(size=(5, 4)).astype("float32")
    assert np.isfinite(toys.numpy(model(data))).all()


def test_what_a_configuration_leaves_out_is_named() -> None:
    class Forgets(Whole):
        def __init__(self, width: int = 6, wide: bool = False, **options: Any) -> None:
            super().__init__(width + 2 * wide, **options)
            self.wide = wide

        @classmethod
        def from_config(cls, config: Any) -> Any:
            return cls(name=config["name"])

    with pytest.raises(StudentError, match="'own' has other shapes.*leaves out wide=True.*in_place=True"):
        RelevantSlicer(toys.fill(Forgets(wide=True))).apply(X[:, :4], verbose=False)


@pytest.mark.parametrize("seed", [2**32, 2**128])
def test_seeds_may_be_larger_than_those_of_keras(seed: int) -> None:
    """Backends refuse them, each in its own way."""
    model = toys.fill(keras.Sequential([keras.Input((4,)), keras.layers.Dense(6, "relu"), keras.layers.Dense(3)]))
    first, other = (
        RelevantSlicer(model, keep_ratio=0.5).apply(
            np.ones((4, 4), "float32"), num_classes=2, reset="initializer", seed=each
        )
        for each in (seed, seed - 1)
    )
    assert not np.array_equal(first.get_weights()[-2], other.get_weights()[-2])
