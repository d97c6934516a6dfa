"""What a model takes: the shape of its images, whether a batch is what it expects, and whether it is of language."""

import math
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_remos.errors import DataError
from keras_remos.models import layers as kinds
from keras_remos.models.ends import inputs_within
from keras_remos.models.tokenizers import segments
from keras_remos.models.trace import Call, trace_pass

# Whether images have their channels in front when they enter a `Permute` layer of such `dims`.
_TURNS = {(2, 3, 1): True, (3, 1, 2): False}


def preprocessed(model: keras.Model, x: Any) -> Any:
    """What a KerasHub task's own preprocessor makes of its raw inputs; other models take them as they are."""
    if getattr(model, "preprocessor", None) is None or _is_prepared(model, x):
        return x
    prepared, _, _ = keras.utils.unpack_x_y_sample_weight(model.preprocess_samples(segments(x)))
    return keras.tree.map_structure(ops.convert_to_numpy, prepared)


def takes_strings(model: keras.Model) -> bool:
    """Whether a model reads strings by layers of its own, as `TextVectorization` and `StringLookup` are."""
    taken = keras.tree.flatten(getattr(model, "inputs", None) or [])
    return any(keras.backend.standardize_dtype(tensor.dtype) == "string" for tensor in taken)


def strings_as_tensors(x: Any) -> Any:
    """A structure of arrays with tensors in place of those of strings: `fit` takes no NumPy strings."""
    return keras.tree.map_structure(
        lambda leaf: ops.convert_to_tensor(leaf, dtype="string") if np.asarray(leaf).dtype.kind in "OUS" else leaf, x
    )


def _is_prepared(model: keras.Model, x: Any) -> bool:
    return isinstance(x, Mapping) and isinstance(model.input, Mapping) and set(model.input) <= set(x)


def check_inputs(model: keras.Model, inputs: Any) -> None:
    """Makes sure that a batch is what a model takes.

    Args:
        model: The model.
        inputs: A structure of arrays, preprocessed.

    Raises:
        DataError: If it holds text, or its arrays are not as many, or not of the names or the shape that the model
            takes.
    """
    arrays = keras.tree.flatten(inputs)
    no_numbers = any(getattr(array, "dtype", None) is None or array.dtype.kind in "OUS" for array in arrays)
    if no_numbers and not takes_strings(model):
        raise DataError(
            f"Model {model.name!r} takes numbers, the data holds text or objects. Tokenize it first, or use a KerasHub "
            "task, which brings its preprocessor."
        )
    if isinstance(inputs, Mapping):
        _check_names(model, inputs)
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


def _check_names(model: keras.Model, inputs: Mapping[str, Any]) -> None:
    wanted = kinds.symbolic_inputs(model)
    if wanted is None:
        return
    by_name = isinstance(wanted, Mapping)
    names = list(wanted) if by_name else [tensor.name for tensor in keras.tree.flatten(wanted)]
    missing = [name for name in names if name not in inputs]
    # A model that takes a list picks from a dict what it needs.
    extra = [name for name in inputs if name not in names] if by_name else []
    if missing or extra:
        wrong = [f"{what} {', '.join(map(repr, found))}" for what, found in (("no", missing), ("also", extra)) if found]
        raise DataError(
            f"Model {model.name!r} takes inputs named {', '.join(map(repr, names))}. Received: {' and '.join(wrong)}."
        )


def image_shape(model: keras.Model) -> tuple[tuple[int | None, int | None, int | None] | None, str]:
    """`(height, width, channels)` of the images that a model takes, if it takes any, and its data format.

    Sizes tell nothing of it: what the model's layers take for the channels decides, turned as far as the model turns
    its images before that.
    """
    inputs = keras.tree.flatten(getattr(model, "inputs", None) or [])
    channels_first = kinds.is_channels_first(model)
    for _, layer in kinds.walk(model):
        if isinstance(layer, keras.layers.Permute) and any(
            taken is given for taken in inputs_within(model, layer) for given in inputs
        ):
            channels_first = _TURNS.get(tuple(layer.dims), channels_first)
    data_format = "channels_first" if channels_first else "channels_last"
    if len(inputs) != 1 or len(inputs[0].shape) != 4:
        return None, data_format
    _, first, second, third = inputs[0].shape
    return (second, third, first) if channels_first else (first, second, third), data_format


def runs_on_tokens(model: keras.Model) -> bool:
    """Whether a model is one of language: whether its main computation runs on a sequence of tokens.

    Token ids come from an input of shape `(batch, time)`, or from one of strings, to an embedding table, and kernels
    read its rows one time step beside the other. A table of positions (as in a vision transformer) is looked up by none
    of the inputs; one of categories has no time axis, or its rows are flattened or pooled before any kernel sees them.
    Of a model with images beside the tokens, that part decides which has more weights.

    Args:
        model: A built model. One that cannot be traced, as Keras does not know its inputs, counts as one of language
            if it has an embedding table.
    """
    tables = [layer for _, layer in kinds.visible(model) if isinstance(layer, keras.layers.Embedding)]
    if not tables:
        return False
    example = _symbolic_example(model)
    if example is None:
        return True
    kernels = [
        layer
        for _, layer in kinds.visible(model)
        if kinds.holds_kernel(layer) and not isinstance(layer, (keras.Model, keras.layers.Embedding))
    ]
    entrance = keras.layers.Identity()
    try:
        seen = trace_pass(_Entered(model, entrance), [entrance, *tables, *kernels], example)
    except Exception:  # whatever a user's layers raise for a guessed size
        return True
    # Of a text there is one string.
    axes = (1, 2) if takes_strings(model) else (2,)
    entered = {call.outputs.key for call in seen.calls if call.layer is entrance and len(call.outputs.shape) in axes}
    weighed = [call for call in seen.calls if call.layer in kernels]
    stop = {call.outputs.key for call in weighed}
    rows = {
        call.outputs.key
        for call in seen.calls
        if call.layer in tables
        and len(call.inputs.shape) > 1
        and call.inputs.shape[1] > 1
        and entered & seen.upstream([call.inputs.key], stop=stop)
    }
    of_tokens = [call for call in weighed if rows & seen.upstream([call.inputs.key])]
    if not any(len(call.inputs.shape) > 2 and max(call.inputs.shape[1:-1]) > 1 for call in of_tokens):
        return False
    return 2 * sum(map(_weights, of_tokens)) > sum(map(_weights, weighed))


def _weights(call: Call) -> int:
    return sum(math.prod(variable.shape) for variable in call.layer.weights if len(variable.shape) > 1)


def _symbolic_example(model: keras.Model) -> Any:
    """What a model takes, with a size for each axis of an unknown one; `None` where Keras does not know it."""
    given = kinds.symbolic_inputs(model)
    if given is None:
        # Subclassed models remember the shape that they were built for, if it was one.
        shape = (model.get_build_config() or {}).get("input_shape")
        if not isinstance(shape, (tuple, list)) or not all(side is None or isinstance(side, int) for side in shape):
            return None
        given = keras.KerasTensor(tuple(shape), dtype="int32" if len(shape) == 2 else "float32")
    return kinds.symbolic_batch(given)


class _Entered(keras.Model):
    """A model behind a layer that shows what enters."""

    def __init__(self, model: keras.Model, entrance: keras.Layer) -> None:
        # TensorFlow takes no name that begins with an underscore.
        super().__init__(name="entered")
        self.model = model
        self.entrance = entrance
        self.built = True

    def call(self, x: Any, training: bool = False) -> Any:
        return self.model(keras.tree.map_structure(self.entrance, x), training=training)
