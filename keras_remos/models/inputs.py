"""What a model takes: the shape of its images, and whether a batch is what it expects."""

from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from keras_remos.errors import DataError
from keras_remos.models.tokenizers import segments


def preprocessed(model: keras.Model, x: Any) -> Any:
    """What a KerasHub task's own preprocessor makes of its raw inputs; other models take them as they are."""
    if getattr(model, "preprocessor", None) is None or _is_prepared(model, x):
        return x
    prepared, _, _ = keras.utils.unpack_x_y_sample_weight(model.preprocess_samples(segments(x)))
    return keras.tree.map_structure(ops.convert_to_numpy, prepared)


def _is_prepared(model: keras.Model, x: Any) -> bool:
    return isinstance(x, Mapping) and isinstance(model.input, Mapping) and set(model.input) <= set(x)


def check_inputs(model: keras.Model, inputs: Any) -> None:
    """Makes sure that a batch is what a model takes.

    Args:
        model: The model.
        inputs: A structure of arrays, preprocessed.

    Raises:
        DataError: If it holds text, or its arrays are not as many or not of the shape that the model takes.
    """
    arrays = keras.tree.flatten(inputs)
    if any(getattr(array, "dtype", None) is None or array.dtype.kind in "OUS" for array in arrays):
        raise DataError(
            f"Model {model.name!r} takes numbers, the data holds text or objects. Tokenize it first, or use a KerasHub "
            "task, which brings its preprocessor."
        )
    expected = keras.tree.flatten(model.inputs) if getattr(model, "inputs", None) else []
    if expected and not isinstance(inputs, Mapping) and len(arrays) != len(expected):
        raise DataError(
            f"Model {model.name!r} takes {len(expected)} inputs, the data has {len(arrays)}. Several inputs come as a "
            "list or a dict, labels in a tuple: (x, y)."
        )
    if len(expected) == 1 and len(arrays) == 1:
        wanted, got = tuple(expected[0].shape), tuple(arrays[0].shape)
        fits = len(wanted) == len(got) and all(w in (None, g) for w, g in zip(wanted[1:], got[1:], strict=True))
        if not fits:
            raise DataError(
                f"Model {model.name!r} takes batches of shape {wanted}, the data has {got}. Check image size, "
                "channels, and whether the data set is batched."
            )


def image_shape(model: keras.Model) -> tuple[tuple[int | None, int | None, int | None] | None, str]:
    """`(height, width, channels)` of the images that a model takes, if it takes any, and its data format."""
    inputs = keras.tree.flatten(getattr(model, "inputs", None) or [])
    if len(inputs) != 1 or len(inputs[0].shape) != 4:
        return None, "channels_last"
    _, first, second, third = inputs[0].shape
    if first in (1, 3, 4) and third not in (1, 3, 4):
        return (second, third, first), "channels_first"
    return (first, second, third), "channels_last"
