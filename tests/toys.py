"""Small models of every kind that a teacher may be, each with a forward pass by hand that shows every neuron.

A toy's `sites(model, x)` calls the plain Keras layers one by one, and works out by NumPy what no layer returns. It uses
nothing of keras_remos. Weights come from NumPy: initialisers differ from backend to backend.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import layers as kl
from oracle import Neurons, Site, Tokens, neurons


@dataclass(frozen=True)
class Toy:
    """A model, its data, and what its neurons do."""

    build: Callable[[], keras.Model]
    data: Callable[[np.random.Generator, int], Any]
    sites: Callable[[keras.Model, Any], list[Site]]


def fill(model: keras.Layer, seed: int = 0) -> Any:
    """Gives a built model weights that do not depend on the backend."""
    rng = np.random.default_rng(seed)
    for variable in model.variables:
        if "float" not in str(variable.dtype):
            continue  # the state of a random generator
        if variable.name in ("gamma", "moving_variance", "scale"):
            values = rng.uniform(0.5, 1.5, variable.shape)
        else:
            values = rng.normal(0, 0.5, variable.shape)
        variable.assign(values.astype("float32"))
    return model


def run(layer: keras.Layer, *inputs: Any, **kwargs: Any) -> np.ndarray:
    """One layer, called eagerly."""
    return numpy(layer(*inputs, **kwargs))


def numpy(tensor: Any) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(tensor)).astype("float32")


def relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0)


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def site(
    kernel: str, inputs: Neurons | Tokens, output: np.ndarray, after: np.ndarray | None = None, **how: Any
) -> Site:
    """A site whose output neurons are on the last axis, unless `axes=` says otherwise."""
    return Site(kernel, inputs, neurons(output, **how), neurons(output if after is None else after, **how))


def normal(*shape: int) -> Callable[[np.random.Generator, int], np.ndarray]:
    return lambda rng, n: rng.normal(size=(n, *shape)).astype("float32")


# Sequential -----------------------------------------------------------------------------------------------------------


def build_mlp() -> keras.Model:
    return fill(
        keras.Sequential(
            [
                keras.Input((6,)),
                kl.Dense(8, activation="relu", name="first"),
                kl.Dropout(0.5),
                kl.Dense(5, name="second"),
                kl.Activation("tanh"),
                kl.Dense(3, activation="softmax", name="head"),
            ],
            name="mlp",
        )
    )


def mlp_sites(model: keras.Model, x: np.ndarray) -> list[Site]:
    first = run(model.get_layer("first"), x)
    second = run(model.get_layer("second"), first)
    return [
        site("first/kernel", neurons(x), first),
        site("second/kernel", neurons(first), second, np.tanh(second)),
    ]


# Functional, with a residual ------------------------------------------------------------------------------------------


def build_cnn() -> keras.Model:
    x = keras.Input((8, 8, 3))
    h = kl.Conv2D(4, 3, padding="same", use_bias=False, name="conv1")(x)
    h = shortcut = kl.ReLU(name="relu1")(kl.BatchNormalization(name="bn1")(h))
    h = kl.Conv2D(4, 3, padding="same", name="conv2")(h)
    h = kl.Add(name="add")([kl.BatchNormalization(name="bn2")(h), shortcut])
    h = kl.GlobalAveragePooling2D(name="pool")(kl.ReLU(name="relu2")(h))
    return fill(keras.Model(x, kl.Dense(3, activation="softmax", name="head")(h), name="cnn"))


def cnn_sites(model: keras.Model, x: np.ndarray) -> list[Site]:
    conv1 = run(model.get_layer("conv1"), x)
    relu1 = relu(run(model.get_layer("bn1"), conv1))
    conv2 = run(model.get_layer("conv2"), relu1)
    bn2 = run(model.get_layer("bn2"), conv2)
    return [
        site("conv1/kernel", neurons(x), conv1, relu1),
        # The chain ends at the Add before any activation: read as if the ReLU behind the Add stood before it.
        site("conv2/kernel", neurons(relu1), conv2, relu(bn2)),
    ]


# A functional model in a Sequential -----------------------------------------------------------------------------------


def build_nested() -> keras.Model:
    x = keras.Input((6, 6, 2))
    h = kl.Conv2D(3, 3, strides=2, name="conv")(kl.ZeroPadding2D(name="pad")(x))
    inner = keras.Model(x, kl.ReLU(name="relu")(kl.BatchNormalization(name="bn")(h)), name="inner")
    return fill(
        keras.Sequential(
            [
                keras.Input((6, 6, 2)),
                inner,
                kl.Flatten(),
                kl.Dense(5, activation="relu", name="hidden"),
                kl.Dense(3, activation="softmax", name="head"),
            ],
            name="nested",
        )
    )


def nested_sites(model: keras.Model, x: np.ndarray) -> list[Site]:
    inner = model.get_layer("inner")
    padded = run(inner.get_layer("pad"), x)
    conv = run(inner.get_layer("conv"), padded)
    after = relu(run(inner.get_layer("bn"), conv))
    flat = after.reshape(len(x), -1)
    return [
        site("inner/conv/kernel", neurons(padded), conv, after),
        site("hidden/kernel", neurons(flat), run(model.get_layer("hidden"), flat)),
    ]


# Subclassed -----------------------------------------------------------------------------------------------------------


class Residual(keras.Model):
    """No submodel can look inside, and no merging layer shows the addition."""

    def __init__(self, classes: int = 3, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.classes = classes
        self.first = kl.Dense(5, activation="relu", name="first")
        self.second = kl.Dense(5, name="second")
        self.idle = kl.Dense(2, name="idle")
        self.head = kl.Dense(classes, activation="softmax", name="head")

    def build(self, shape: Any) -> None:
        self.first.build(shape)
        self.second.build((None, 5))
        self.idle.build((None, 5))
        self.head.build((None, 5))
        self.built = True

    def call(self, x: Any) -> Any:
        h = self.first(x)
        return self.head(keras.ops.relu(self.second(h) + h))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "classes": self.classes}

    def get_build_config(self) -> dict[str, Any]:
        return {"shape": [None, 6]}

    def build_from_config(self, config: dict[str, Any]) -> None:
        self.build(config["shape"])


def build_subclassed() -> keras.Model:
    model = Residual(name="subclassed")
    model.build((None, 6))
    return fill(model)


def subclassed_sites(model: Any, x: np.ndarray) -> list[Site]:
    first = run(model.first, x)
    second = run(model.second, first)
    return [
        site("first/kernel", neurons(x), first),
        site("second/kernel", neurons(first), second, relu(second)),
    ]


# One layer called twice -----------------------------------------------------------------------------------------------


def build_shared() -> keras.Model:
    left, right = keras.Input((4,), name="left"), keras.Input((4,), name="right")
    tower = kl.Dense(6, activation="tanh", name="tower")
    h = kl.Concatenate(name="both")([tower(left), tower(right)])
    return fill(keras.Model([left, right], kl.Dense(2, activation="softmax", name="head")(h), name="shared"))


def shared_sites(model: keras.Model, x: list[np.ndarray]) -> list[Site]:
    tower = model.get_layer("tower")
    return [site("tower/kernel", neurons(side), run(tower, side)) for side in x]


# Attention ------------------------------------------------------------------------------------------------------------


def attend(query: np.ndarray, key: np.ndarray, value: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
    """Attention over `(batch, time, heads, size)`; fewer key heads than query heads are repeated."""
    repeats = query.shape[2] // key.shape[2]
    key, value = np.repeat(key, repeats, axis=2), np.repeat(value, repeats, axis=2)
    scores = np.einsum("bthd,bshd->bhts", query, key) / np.sqrt(query.shape[-1])
    if mask is not None:
        scores = np.where(mask[:, None, None, :], scores, -1e9)
    return np.einsum("bhts,bshd->bthd", softmax(scores), value).astype("float32")


def attention_sites(layer: Any, path: str, x: np.ndarray, mask: np.ndarray | None = None) -> list[Site]:
    projected = [run(part, x) for part in (layer._query_dense, layer._key_dense, layer._value_dense)]
    read = neurons(x, mask=mask)
    found = [
        site(f"{path}/{name}/kernel", read, out, axes=(-2, -1), mask=mask)
        for name, out in zip(("query", "key", "value"), projected, strict=True)
    ]
    mixed = attend(*projected, mask)
    output = run(layer._output_dense, mixed)
    return [*found, site(f"{path}/attention_output/kernel", neurons(mixed, (-2, -1), mask), output, mask=mask)]


def build_attention(make: Callable[[], keras.Layer]) -> keras.Model:
    x = keras.Input((5, 8))
    h = kl.LayerNormalization(name="norm1")(kl.Add()([x, make()(x, x)]))
    h = kl.LayerNormalization(name="norm2")(kl.Add()([h, kl.Dense(8, activation="gelu", name="mlp")(h)]))
    return fill(keras.Model(x, kl.Dense(3, name="head")(kl.GlobalAveragePooling1D()(h)), name="attention"))


def build_multi_head() -> keras.Model:
    return build_attention(lambda: kl.MultiHeadAttention(2, 4, name="attention"))


def build_grouped_query() -> keras.Model:
    return build_attention(lambda: kl.GroupQueryAttention(4, 4, 2, name="attention"))


def block_sites(model: keras.Model, x: np.ndarray) -> list[Site]:
    found = attention_sites(model.get_layer("attention"), "attention", x)
    mixed = run(model.get_layer("attention"), x, x)
    h = run(model.get_layer("norm1"), x + mixed)
    return [*found, site("mlp/kernel", neurons(h), run(model.get_layer("mlp"), h))]


# Tied embedding -------------------------------------------------------------------------------------------------------


def build_tied() -> keras.Model:
    x = keras.Input((5,), dtype="int32")
    table = kl.ReversibleEmbedding(11, 6, tie_weights=True, name="table")
    h = kl.Dense(6, activation="relu", name="hidden")(table(x))
    return fill(keras.Model(x, table(h, reverse=True), name="tied"))


def tied_sites(model: keras.Model, x: np.ndarray) -> list[Site]:
    rows = run(model.get_layer("table"), x)
    return [site("hidden/kernel", neurons(rows), run(model.get_layer("hidden"), rows))]


# MobileNet-like -------------------------------------------------------------------------------------------------------


def build_mobile() -> keras.Model:
    x = keras.Input((6, 6, 4))
    h = kl.ReLU(6, name="relu1")(kl.BatchNormalization(name="bn1")(kl.Conv2D(8, 1, use_bias=False, name="expand")(x)))
    h = kl.DepthwiseConv2D(3, padding="same", use_bias=False, name="depthwise")(h)
    h = kl.ReLU(6, name="relu2")(kl.BatchNormalization(name="bn2")(h))
    h = kl.BatchNormalization(name="bn3")(kl.Conv2D(4, 1, use_bias=False, name="project")(h))
    h = kl.GlobalAveragePooling2D(name="pool")(kl.Add(name="add")([x, h]))
    return fill(keras.Model(x, kl.Dense(3, name="logits")(h), name="mobile"))


def mobile_sites(model: keras.Model, x: np.ndarray) -> list[Site]:
    expand = run(model.get_layer("expand"), x)
    relu1 = run(model.get_layer("relu1"), run(model.get_layer("bn1"), expand))
    depthwise = run(model.get_layer("depthwise"), relu1)
    relu2 = run(model.get_layer("relu2"), run(model.get_layer("bn2"), depthwise))
    project = run(model.get_layer("project"), relu2)
    return [
        site("expand/kernel", neurons(x), expand, relu1),
        site("depthwise/kernel", neurons(relu1), depthwise, relu2),
        site("project/kernel", neurons(relu2), project, relu(run(model.get_layer("bn3"), project))),
    ]


# Text with padding ----------------------------------------------------------------------------------------------------


def build_text() -> keras.Model:
    x = keras.Input((7,), dtype="int32")
    h = kl.Embedding(13, 4, mask_zero=True, name="table")(x)
    h = kl.Dense(5, activation="relu", name="tokenwise")(h)
    h = kl.LSTM(6, name="lstm")(h)
    return fill(keras.Model(x, kl.Dense(2, activation="softmax", name="head")(h), name="text"))


def padded_tokens(rng: np.random.Generator, n: int) -> np.ndarray:
    tokens = rng.integers(1, 13, (n, 7), dtype="int32")
    lengths = rng.integers(3, 8, n)
    return np.where(np.arange(7) < lengths[:, None], tokens, 0).astype("int32")


def text_sites(model: keras.Model, x: np.ndarray) -> list[Site]:
    mask = x != 0
    rows = run(model.get_layer("table"), x)
    dense = run(model.get_layer("tokenwise"), rows)
    # keras.layers.LSTM itself, told the mask: the last state before the padding.
    state = numpy(model.get_layer("lstm")(dense, mask=keras.ops.convert_to_tensor(mask)))
    return [
        Site("table/embeddings", Tokens(x, mask, 13)),
        site("tokenwise/kernel", neurons(rows, mask=mask), dense, mask=mask),
        site("lstm/kernel", neurons(dense, mask=mask), state),
        site("lstm/recurrent_kernel", neurons(state), state),
    ]


# A tiny BERT ----------------------------------------------------------------------------------------------------------


def build_bert() -> keras.Model:
    import keras_hub

    return fill(
        keras_hub.models.BertBackbone(
            vocabulary_size=17, num_layers=2, num_heads=2, hidden_dim=8, intermediate_dim=12, max_sequence_length=6
        )
    )


def bert_inputs(rng: np.random.Generator, n: int) -> dict[str, np.ndarray]:
    lengths = rng.integers(3, 7, n)
    mask = (np.arange(6) < lengths[:, None]).astype("int32")
    return {
        "token_ids": rng.integers(1, 17, (n, 6), dtype="int32") * mask,
        "segment_ids": (np.arange(6) > 2).astype("int32") * mask,
        "padding_mask": mask,
    }


def bert_sites(model: Any, x: dict[str, np.ndarray]) -> list[Site]:
    mask = x["padding_mask"] != 0
    token, segment = model.token_embedding, model.get_layer("segment_embedding")
    found = [
        Site("token_embedding/embeddings", Tokens(x["token_ids"], mask, 17)),
        Site("segment_embedding/embeddings", Tokens(x["segment_ids"], mask, 2)),
    ]
    rows = run(token, x["token_ids"])
    h = rows + run(model.get_layer("position_embedding"), rows) + run(segment, x["segment_ids"])
    h = run(model.get_layer("embeddings_layer_norm"), h)
    for index in range(2):
        block = model.get_layer(f"transformer_layer_{index}")
        path = f"transformer_layer_{index}"
        found += attention_sites(block._self_attention_layer, f"{path}/self_attention_layer", h, mask)
        attended = run(block._self_attention_layer, h, h, attention_mask=np.repeat(mask[:, None], 6, axis=1))
        h = run(block._self_attention_layer_norm, h + attended)
        wide = run(block._feedforward_intermediate_dense, h)
        narrow = run(block._feedforward_output_dense, wide)
        found.append(site(f"{path}/feedforward_intermediate_dense/kernel", neurons(h, mask=mask), wide, mask=mask))
        found.append(site(f"{path}/feedforward_output_dense/kernel", neurons(wide, mask=mask), narrow, mask=mask))
        h = run(block._feedforward_layer_norm, h + narrow)
    return found


TOYS: dict[str, Toy] = {
    "mlp": Toy(build_mlp, normal(6), mlp_sites),
    "cnn": Toy(build_cnn, normal(8, 8, 3), cnn_sites),
    "nested": Toy(build_nested, normal(6, 6, 2), nested_sites),
    "subclassed": Toy(build_subclassed, normal(6), subclassed_sites),
    "shared": Toy(build_shared, lambda rng, n: [normal(4)(rng, n), normal(4)(rng, n)], shared_sites),
    "multi_head": Toy(build_multi_head, normal(5, 8), block_sites),
    "grouped_query": Toy(build_grouped_query, normal(5, 8), block_sites),
    "tied": Toy(build_tied, lambda rng, n: rng.integers(0, 11, (n, 5), dtype="int32"), tied_sites),
    "mobile": Toy(build_mobile, normal(6, 6, 4), mobile_sites),
    "text": Toy(build_text, padded_tokens, text_sites),
    "bert": Toy(build_bert, bert_inputs, bert_sites),
}


def make(name: str, samples: int = 7, seed: int = 1) -> tuple[keras.Model, Any, Toy]:
    """A toy's model and data. A toy of KerasHub is skipped where that is not installed."""
    if name == "bert":
        import pytest

        pytest.importorskip("keras_hub")
    toy = TOYS[name]
    return toy.build(), toy.data(np.random.default_rng(seed), samples), toy
