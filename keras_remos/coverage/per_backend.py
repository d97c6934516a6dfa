"""What each backend counts fastest: the same numbers, reached in other ways. No definition stands here."""

import math

import keras
from keras import ops

from keras_remos.models.kernels import Tensor

# Elements that PyTorch counts at once on a processor, so that what it writes down in between stays in its cache.
PIECE = 1 << 21


def sum_over(tensor: Tensor, axes: tuple[int, ...]) -> Tensor:
    """The sum over some axes, `keepdims=True`."""
    if keras.backend.backend() != "tensorflow":
        return ops.sum(tensor, axis=axes, keepdims=True)
    for axis in axes:
        # One after the other: TensorFlow is twice as slow at several.
        tensor = ops.sum(tensor, axis=axis, keepdims=True)
    return tensor


def sum_of_samples(tensor: Tensor) -> Tensor:
    """The sum of each sample, shape `(batch,)`."""
    if keras.backend.backend() == "tensorflow":
        return ops.sum(ops.reshape(tensor, (ops.shape(tensor)[0], -1)), axis=1)
    # Not flattened first: PyTorch would copy what a convolution returns.
    return ops.sum(tensor, axis=tuple(range(1, len(tensor.shape))))


def at_a_time(tensor: Tensor) -> int | None:
    """How many samples of a tensor are best counted at a time; `None` for all of them."""
    _, *each = tensor.shape
    in_memory = keras.backend.backend() == "torch" and tensor.device.type == "cpu"
    if not in_memory or math.prod(tensor.shape) <= PIECE:
        return None
    return max(1, PIECE // math.prod(each))
