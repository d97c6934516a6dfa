"""Models that people write themselves, of every form that Keras has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import own_layers as own
import toys
from keras import layers as kl
from specimen import Specimen

own.registered(toys.Residual)


def ended(x: Any, h: Any, *, classes: int = 3) -> keras.Model:
    """A model that ends in a softmax."""
    return keras.Model(x, kl.Dense(classes, activation="softmax", name="head")(h))


def around(layer: Callable[[], kl.Layer], *shape: int) -> Callable[[], keras.Model]:
    """A layer between two dense ones."""

    def build() -> keras.Model:
        x = keras.Input(shape)
        h = layer()(kl.Dense(6, activation="relu", name="before")(x))
        h = h if len(h.shape) == 2 else kl.GlobalAveragePooling1D()(h)
        return ended(x, kl.Dense(5, activation="relu", name="after")(h))

    return build


def recurrent(*layers: Callable[[], kl.Layer]) -> Callable[[], keras.Model]:
    def build() -> keras.Model:
        h = x = keras.Input((6,), dtype="int32")
        h = kl.Embedding(12, 6, mask_zero=True)(h)
        for layer in layers:
            h = layer()(h)
        return ended(x, h)

    return build


def stateful() -> keras.Model:
    x = keras.Input(batch_shape=(4, 5, 3))
    return ended(x, kl.LSTM(6, stateful=True)(x))


def two_inputs() -> keras.Model:
    image, numbers = keras.Input((12, 12, 3), name="image"), keras.Input((5,), name="numbers")
    h = kl.GlobalAveragePooling2D()(kl.Conv2D(6, 3, activation="relu")(image))
    h = kl.Concatenate()([h, kl.Dense(4, activation="relu")(numbers)])
    return ended({"image": image, "numbers": numbers}, kl.Dense(6, activation="relu")(h))


def two_outputs() -> keras.Model:
    x = keras.Input((8, 8, 3))
    h = kl.Flatten()(kl.Conv2D(6, 3, activation="relu")(x))
    kind, size = kl.Dense(3, activation="softmax", name="kind")(h), kl.Dense(1, name="size")(h)
    return keras.Model(x, {"kind": kind, "size": size})


def tabular() -> keras.Model:
    scale = kl.Normalization()
    scale.adapt(np.random.default_rng(0).normal(3, 2, (32, 6)))
    x = keras.Input((6,))
    h = kl.Dropout(0.2)(kl.BatchNormalization()(kl.Dense(8, activation="relu")(scale(x))))
    return ended(x, kl.Dense(5, activation="relu")(h))


def wide_and_deep() -> keras.Model:
    shop, user = keras.Input((1,), dtype="int32", name="shop"), keras.Input((1,), dtype="int32", name="user")
    wide = kl.CategoryEncoding(12, output_mode="one_hot")(shop)
    deep = kl.Concatenate()([kl.Flatten()(kl.Embedding(12, 4)(each)) for each in (shop, user)])
    h = kl.Concatenate()([wide, kl.Dense(6, activation="relu")(deep)])
    return ended([shop, user], h)


def regression() -> keras.Model:
    x = keras.Input((6,))
    return keras.Model(x, kl.Dense(1)(kl.Dense(8, activation="relu")(kl.Dense(8, activation="relu")(x))))


def augmented() -> keras.Model:
    x = keras.Input((16, 16, 3))
    h = kl.RandomRotation(0.1)(kl.RandomFlip()(kl.Rescaling(1 / 255)(x)))
    h = kl.MaxPooling2D()(kl.Conv2D(6, 3, activation="relu")(h))
    return ended(x, kl.Flatten()(kl.SeparableConv2D(8, 3, activation="relu")(h)))


def unet() -> keras.Model:
    x = keras.Input((16, 16, 3))
    down = kl.Conv2D(6, 3, padding="same", activation="relu")(x)
    h = kl.Conv2D(8, 3, padding="same", activation="relu")(kl.MaxPooling2D()(down))
    h = kl.Concatenate()([kl.Conv2DTranspose(6, 2, strides=2, activation="relu")(h), down])
    return keras.Model(x, kl.Conv2D(1, 1, activation="sigmoid", name="mask")(h))


def variational() -> keras.Model:
    x = keras.Input((8,))
    h = kl.Dense(6, activation="relu")(x)
    drawn = own.Sampling()([kl.Dense(2, name="mean")(h), kl.Dense(2, name="log_variance")(h)])
    return keras.Model(x, kl.Dense(8, activation="sigmoid")(kl.Dense(6, activation="relu")(drawn)))


def vision_transformer() -> keras.Model:
    x = keras.Input((16, 16, 3))
    h = own.Positions()(own.ClassToken()(kl.Dense(8)(own.Patches()(x))))
    h = own.Block()(own.Block()(h))
    return ended(x, h[:, 0])


def language_model() -> keras.Model:
    x = keras.Input((6,), dtype="int32")
    h = own.Positions()(kl.Embedding(12, 8)(x))
    h = h + kl.MultiHeadAttention(2, 4)(h, h, use_causal_mask=True)
    return keras.Model(x, kl.Dense(12)(own.ScaleNorm()(h)))


def untied() -> keras.Model:
    x = keras.Input((6,), dtype="int32")
    table = kl.ReversibleEmbedding(12, 6, tie_weights=False)
    h = kl.Dense(6, activation="relu")(kl.Dense(8, activation="relu")(table(x)))
    return keras.Model(x, table(h, reverse=True))


def siamese() -> keras.Model:
    tower = keras.Sequential([keras.Input((6,)), kl.Dense(8, activation="relu"), kl.Dense(4)])
    one, two = keras.Input((6,)), keras.Input((6,))
    return keras.Model([one, two], kl.Dense(1, activation="sigmoid")(kl.Subtract()([tower(one), tower(two)])))


def dilated() -> keras.Model:
    h = x = keras.Input((16, 3))
    for rate in (1, 2, 4):
        kept = kl.Conv1D(6, 1)(h)
        h = kl.Conv1D(6, 3, padding="causal", dilation_rate=rate)(h)
        h = kl.Add()([kept, kl.Activation("relu")(kl.GroupNormalization(2)(h))])
    return ended(x, kl.GlobalMaxPooling1D()(h))


def video() -> keras.Model:
    x = keras.Input((3, 12, 12, 2))
    h = kl.TimeDistributed(kl.Conv2D(4, 3, strides=2, activation="relu"))(x)
    h = kl.TimeDistributed(kl.GlobalAveragePooling2D())(h)
    return ended(x, kl.GRU(5)(h))


def convolutional_lstm() -> keras.Model:
    x = keras.Input((3, 8, 2))
    return ended(x, kl.GlobalAveragePooling1D()(kl.Conv1D(5, 3, activation="relu")(kl.ConvLSTM1D(4, 3)(x))))


def changed(change: Callable[[Any], None]) -> Callable[[], keras.Model]:
    """An MLP of which one layer, or all, has been changed."""

    def build() -> keras.Model:
        x = keras.Input((8,))
        h = kl.Dense(8, activation="relu", name="second")(kl.Dense(8, activation="relu", name="first")(x))
        model = ended(x, h)
        change(model)
        return model

    return build


def merged(model: Any) -> None:
    layer = model.get_layer("first")
    layer.enable_lora(2)
    layer.lora_kernel_b.assign(np.ones(layer.lora_kernel_b.shape))
    config = layer.get_config()
    kernel = keras.ops.convert_to_numpy(layer.kernel)
    assert config["lora_rank"] == 2
    # What a person does who is done with an adapter: the sum in a plain layer.
    layer.lora_enabled = False
    layer._tracker.unlock()
    for variable in (layer.lora_kernel_a, layer.lora_kernel_b):
        layer._untrack_variable(variable)
    layer.lora_kernel_a = layer.lora_kernel_b = layer.lora_rank = None
    layer._tracker.lock()
    layer._kernel.trainable = True
    layer._kernel.assign(kernel)


def half() -> keras.Model:
    x = keras.Input((8, 8, 3))
    h = kl.Conv2D(6, 3, activation="relu", dtype="mixed_bfloat16")(x)
    h = kl.Flatten(dtype="mixed_bfloat16")(h)
    return keras.Model(x, kl.Dense(3, activation="softmax", dtype="float32")(h))


def looked_up(layer: Callable[[], Any], learned: Any, dtype: str) -> Callable[[], keras.Model]:
    def build() -> keras.Model:
        lookup = layer()
        lookup.adapt(learned)
        x = keras.Input((1,), dtype=dtype)
        h = kl.Embedding(lookup.vocabulary_size(), 6)(lookup(x))
        return ended(x, kl.Dense(6, activation="relu")(kl.GlobalAveragePooling1D()(h)))

    return build


WORDS = np.array([["good film"], ["dull film"], ["good actor"], ["a story"]])
CODES = np.array([[7], [90], [7], [12]])
LOOKUPS = [
    Specimen(
        "IntegerLookup",
        looked_up(kl.IntegerLookup, CODES, "int64"),
        data=lambda rng, n: CODES,
    ),
    Specimen("StringLookup", looked_up(kl.StringLookup, WORDS, "string"), data=lambda rng, n: WORDS),
    Specimen(
        "TextVectorization",
        looked_up(lambda: kl.TextVectorization(output_sequence_length=4), WORDS, "string"),
        data=lambda rng, n: WORDS,
    ),
]


def encoder() -> keras.Model:
    model = own.Encoder()
    model.build((None, 5, 8))
    return model


def own_batch() -> keras.Model:
    model = own.OwnBatch()
    model.build((4, 6))
    return model


def of_toy(name: str) -> Specimen:
    toy = toys.TOYS[name]
    return Specimen(f"toy: {name}", toy.build, data=toy.data)


SPECIMENS = [
    *(of_toy(name) for name in toys.TOYS if name != "bert"),
    Specimen("regression", regression),
    Specimen("tabular, with Normalization", tabular),
    Specimen("wide and deep", wide_and_deep),
    Specimen("images, with augmentation", augmented),
    Specimen("U-Net", unet),
    Specimen("variational autoencoder", variational),
    Specimen("siamese", siamese),
    Specimen("two inputs", two_inputs),
    Specimen("two outputs", two_outputs),
    Specimen("dilated causal convolutions", dilated),
    Specimen("LSTM, stacked", recurrent(lambda: kl.LSTM(6, return_sequences=True), lambda: kl.LSTM(5))),
    Specimen("GRU", recurrent(lambda: kl.GRU(6))),
    Specimen("Bidirectional LSTM", recurrent(lambda: kl.Bidirectional(kl.LSTM(6)))),
    # On PyTorch, Keras cannot fit a stateful layer: its states are changed in place.
    *([Specimen("LSTM, stateful", stateful)] if keras.backend.backend() != "torch" else []),
    Specimen("video: TimeDistributed and GRU", video),
    Specimen("ConvLSTM", convolutional_lstm),
    Specimen("blocks without names, subclassed", encoder, data=toys.normal(5, 8)),
    Specimen("vision transformer of own layers", vision_transformer),
    Specimen("language model of own layers", language_model),
    Specimen("language model, untied", untied),
    Specimen("own dense layer", around(own.Linear, 8)),
    Specimen("experts in one kernel", around(own.Experts, 8)),
    Specimen("experts as layers", around(own.Mixture, 8)),
    Specimen("inside ops.scan", around(own.Scan, 5, 8)),
    Specimen("inside ops.while_loop", around(own.While, 8)),
    Specimen("inside ops.cond", around(own.Cond, 8)),
    Specimen("inside ops.vectorized_map", around(own.Mapped, 8)),
    Specimen("subclassed, its own batch size", own_batch, data=toys.normal(6)),
    Specimen("SpectralNormalization", around(lambda: kl.SpectralNormalization(kl.Dense(6)), 8)),
    Specimen("LoRA on one layer", changed(lambda model: model.get_layer("first").enable_lora(2))),
    Specimen("LoRA, merged", changed(merged)),
    Specimen("int8, one layer", changed(lambda model: model.get_layer("first").quantize("int8"))),
    Specimen("int8, the whole model", changed(lambda model: model.quantize("int8")), refused="Nothing in model"),
    Specimen("mixed bfloat16", half),
    *(LOOKUPS if keras.backend.backend() == "tensorflow" else []),
]
