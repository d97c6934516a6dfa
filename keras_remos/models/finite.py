"""Which layers of a model have weights that are no numbers: what is computed with them means nothing."""

from __future__ import annotations

import keras
from keras import ops

from keras_remos.models.layers import own_variables, weight_holders


def layers_not_finite(model: keras.Model) -> tuple[str, ...]:
    """Paths of the layers that have NaN or infinite weights.

    Args:
        model: A built model.
    """
    return tuple(path for path, layer in weight_holders(model) if not all(map(is_finite, own_variables(layer))))


def is_finite(variable: keras.Variable) -> bool:
    """Whether a weight holds numbers only."""
    if not keras.backend.is_float_dtype(variable.dtype):
        return True
    value = ops.cast(variable.value, "float32")
    # A sum with NaN or infinity in it is no number either, and takes a fortieth of the time on PyTorch.
    return bool(ops.isfinite(ops.sum(value))) or bool(ops.all(ops.isfinite(value)))


def say_not_finite(paths: tuple[str, ...]) -> str:
    """The same as a sentence."""
    shown = ", ".join(path or "the model itself" for path in paths[:3])
    more = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
    return f"NaN or infinite weights in {shown}{more}: what is computed with them means nothing. Get another copy."
