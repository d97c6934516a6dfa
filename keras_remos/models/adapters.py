"""LoRA: adapters that change what a layer's kernel is, until Keras merges them into it.

Keras has no call that merges an adapter and takes it away. It writes the merged kernel when weights are saved, and when
they are loaded it fills the adapter with zeros, which no training moves. Such a layer is a plain one here.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import keras

MERGE = (
    "merge the adapter first, as Keras does when weights are saved: model.save_weights('merged.weights.h5'), then "
    "model.load_weights('merged.weights.h5')"
)
_NAMES = ("lora_kernel_a", "lora_kernel_b", "lora_embeddings_a", "lora_embeddings_b")


def has_adapter(layer: keras.Layer) -> bool:
    """Whether LoRA changes what a layer computes, or will once it trains."""
    return bool(getattr(layer, "lora_enabled", False)) and any(
        bool(keras.ops.any(keras.ops.not_equal(variable.value, 0))) for variable in _adapter(layer)
    )


def spent_adapter(layer: keras.Layer) -> list[keras.Variable]:
    """The weights of an adapter that has been merged, or switched off: nothing uses them any more."""
    adapter = _adapter(layer)
    return [] if not adapter or has_adapter(layer) else adapter


def _adapter(layer: keras.Layer) -> list[keras.Variable]:
    return [vars(layer)[name] for name in _NAMES if name in vars(layer)]


@contextmanager
def without_spent(layers: list[keras.Layer]) -> Iterator[None]:
    """Lets layers describe themselves without an adapter that is spent: a copy would come with a new one."""
    ranks = [(layer, layer.lora_rank) for layer in layers if spent_adapter(layer)]
    try:
        for layer, _ in ranks:
            layer.lora_rank = None
        yield
    finally:
        for layer, rank in ranks:
            layer.lora_rank = rank


def copy_strength(source: keras.Layer, target: keras.Layer) -> None:
    """Gives a copy the strength of its source's adapter, which Keras forgets for some kinds of layers."""
    if has_adapter(source):
        target.lora_alpha = source.lora_alpha
