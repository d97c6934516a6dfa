"""Input scaling: which one a teacher was trained with, and NumPy functions that apply it.

A teacher file seldom says how its images were scaled, and a wrong scaling makes coverage meaningless without any
error. Its first batch normalization layer remembers: moving mean and variance are the statistics of the training data
there. `choose_scaling` runs a few images up to that layer in each scaling and takes the one that fits.
"""

from typing import Any

import keras
import numpy as np

from keras_remos.errors import DataError
from keras_remos.models.layers import own_variables, visible, walk
from keras_remos.models.taps import run_until

SCALINGS = ("none", "0-1", "-1-1", "imagenet", "caffe")
DEFAULT_SCALING = "0-1"

# What Keras' own `preprocess_input` calls the scalings that it has.
_KERAS_MODES = {"-1-1": "tf", "imagenet": "torch", "caffe": "caffe"}

# By start of the model's name, the longest first; from each family's `preprocess_input` in keras.applications.
# Those that scale inside the model are here for copies built without it (`include_preprocessing=False`).
_FAMILIES = {
    "resnet50v2": "-1-1",
    "resnet101v2": "-1-1",
    "resnet152v2": "-1-1",
    "resnet50": "caffe",
    "resnet101": "caffe",
    "resnet152": "caffe",
    "vgg16": "caffe",
    "vgg19": "caffe",
    "mobilenet": "-1-1",
    "inception_v3": "-1-1",
    "inception_resnet_v2": "-1-1",
    "xception": "-1-1",
    "nasnet": "-1-1",
    "densenet": "imagenet",
    "convnext": "imagenet",
    "efficientnetv2-b": "imagenet",
    "efficientnetv2-": "-1-1",
    "efficientnetb": "none",
}

# A scaling is a clear winner when its gap is small and the next best is at least twice as far off. The right one of two
# CIFAR-10 ResNets reads 0.006 to 0.022 on four sets of photos, the next best 0.14 to 0.18; on digits 0.04 and 0.08.
_LARGEST_GAP = 0.25
_INITIAL_SHARES = (0.0, 0.003, 0.01, 0.03, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8)
_LEAST_MARGIN = 2.0


def scale_inputs(x: np.ndarray, name: str, *, data_format: str = "channels_last") -> np.ndarray:
    """Scales images in one of the usual ways.

    Args:
        x: Images of shape `(batch, height, width, channels)`, or `(batch, channels, height, width)` with
            `data_format="channels_first"`; RGB or grey, values 0 to 255.
        name: "none" (as they are), "0-1" (x / 255), "-1-1" (x / 127.5 - 1), "imagenet" (x / 255 less the mean of
            ImageNet, over its standard deviation; PyTorch's way) or "caffe" (BGR, less the mean of ImageNet).
        data_format: "channels_last" or "channels_first".

    Returns:
        A new float32 array of the same shape.

    Raises:
        DataError: If the name is unknown, or "imagenet" or "caffe" is asked for images that have not three channels.

    Example:
    ```python
    scale_inputs(np.full((1, 2, 2, 3), 255.0), "-1-1")  # all ones
    ```
    """
    if name not in SCALINGS:
        raise DataError(f"Expected a scaling out of {', '.join(SCALINGS)}. Received: {name!r}.")
    if data_format not in ("channels_last", "channels_first"):
        raise DataError(f"Expected data_format 'channels_last' or 'channels_first'. Received: {data_format!r}.")
    scaled = np.array(x, dtype=np.float32)
    if name == "0-1":
        scaled /= 255
    elif name in _KERAS_MODES:
        if name != "-1-1":
            _check_colours(scaled, name, -1 if data_format == "channels_last" else 1)
        scaled = keras.applications.imagenet_utils.preprocess_input(scaled, data_format, _KERAS_MODES[name])
        # BGR comes as a view that is read backwards, which not every backend's tensors can be made of.
        scaled = np.ascontiguousarray(scaled)
    return scaled


def guess_scaling(model: keras.Model) -> tuple[str | None, str]:
    """Guesses the scaling from what a model is made of and from its name.

    Args:
        model: The teacher.

    Returns:
        Name of the scaling, `None` if there is no clue, and the reason in words.
    """
    layer = _built_in_scaling(model)
    if layer is not None:
        return "none", f"the model scales its inputs itself (layer {layer.name!r})"
    for part in (model, *(layer for _, layer in walk(model) if isinstance(layer, keras.Model))):
        for start in sorted(_FAMILIES, key=len, reverse=True):
            if part.name.lower().startswith(start):
                return _FAMILIES[start], f"the model's name {part.name!r} is that of a family trained so"
    return None, "neither the model's layers nor its name tell"


def batch_norm_gap(model: keras.Model, x: np.ndarray) -> float:
    """How far inputs are from those that a model was trained on, as its first batch normalization remembers them.

    For each channel at that layer, the Bhattacharyya distance between two normal distributions: the one with the mean
    and variance of these inputs, and the one with `moving_mean` and `moving_variance`. It grows with the logarithm of
    a wrong scale, and the median over channels lets no single one (a channel for a colour that these images lack)
    decide. After a short training the moving statistics are still on the way from their initial values (mean 0,
    variance 1) to those of the data: the share that is left of the initial ones is fitted, up to the smallest
    moving variance in the whole model, which it cannot exceed (in a well trained one that is next to nothing).

    Args:
        model: The teacher, called in inference mode up to that layer. It is not changed.
        x: Inputs of the model, scaled; shape `(batch, ...)`.

    Returns:
        0 for the same statistics, above 0.1 for a wrong scaling as a rule; NaN if the model has no batch
        normalization, or an untrained one, or cannot be run on `x`.
    """
    inputs, layer = _first_batch_norm_inputs(model, x)
    if inputs is None or layer is None:
        return float("nan")
    trained_mean, trained_variance = (_to_float64(v) for v in (layer.moving_mean, layer.moving_variance))
    if np.all(trained_mean == 0) and np.all(trained_variance == 1):
        return float("nan")  # as initialised: it has seen nothing
    axis = layer.axis % inputs.ndim
    others = tuple(place for place in range(inputs.ndim) if place != axis)
    mean, variance = inputs.mean(axis=others), inputs.var(axis=others)
    most = min(float(_to_float64(norm.moving_variance).min()) for norm in _batch_norms(model))
    return min(
        _gap((1 - left) * mean, (1 - left) * variance + left, trained_mean, trained_variance, layer.epsilon)
        for left in _INITIAL_SHARES
        if left <= most
    )


def choose_scaling(model: keras.Model, raw_batch: np.ndarray, *, data_format: str = "channels_last") -> tuple[str, str]:
    """Finds the input scaling that a model was trained with.

    In this order: a clear winner by `batch_norm_gap`, as those statistics come from the training data; a scaling
    layer inside the model; the name of its family (which is only a habit: a ResNet-50 converted from PyTorch has the
    name, and not the scaling, of the one in `keras.applications`); a narrow winner by `batch_norm_gap`; "0-1".

    Args:
        model: The teacher.
        raw_batch: Some tens of images, values 0 to 255, of all classes if possible; shape as in `scale_inputs`.
        data_format: "channels_last" or "channels_first".

    Returns:
        Name of the scaling, one of `SCALINGS`, and the reason as a sentence for a user.
    """
    low, high = float(np.min(raw_batch)), float(np.max(raw_batch))
    if low < 0 or high <= 1:
        return ("none", f"The data are scaled already (values from {low:.3g} to {high:.3g}).")
    gaps = scaling_gaps(model, raw_batch, data_format=data_format)
    ranked = sorted(gaps, key=gaps.__getitem__)
    clear = bool(ranked) and gaps[ranked[0]] <= _LARGEST_GAP and gaps[ranked[1]] >= _LEAST_MARGIN * gaps[ranked[0]]
    guessed, reason = guess_scaling(model)
    if not clear and guessed is not None:
        return guessed, f"{reason[0].upper()}{reason[1:]}."
    if not ranked:
        return (
            DEFAULT_SCALING,
            "Nothing in the model tells how its inputs were scaled: this is the usual way, a guess.",
        )
    best, second = ranked[:2]
    return best, (
        f"The statistics in the model's first batch normalization fit these images best with it"
        f"{'' if clear else ', narrowly'} (gap {gaps[best]:.3f}; next best {second}: {gaps[second]:.3f})."
    )


def scaling_gaps(model: keras.Model, raw_batch: np.ndarray, *, data_format: str = "channels_last") -> dict[str, float]:
    """Returns `batch_norm_gap` for each scaling that these images can have; empty if it cannot be measured."""
    gaps: dict[str, float] = {}
    for name in SCALINGS:
        try:
            scaled = scale_inputs(raw_batch, name, data_format=data_format)
        except DataError:  # grey images have no ImageNet scaling
            continue
        gaps[name] = batch_norm_gap(model, scaled)
        if not np.isfinite(gaps[name]):
            return {}
    return gaps


def _gap(
    mean: np.ndarray, variance: np.ndarray, trained_mean: np.ndarray, trained_variance: np.ndarray, epsilon: float
) -> float:
    """Median Bhattacharyya distance; epsilon is what the layer itself adds, so that dead channels do no harm."""
    variance, trained_variance = variance + epsilon, trained_variance + epsilon
    mixed = variance + trained_variance
    distance = (mean - trained_mean) ** 2 / (4 * mixed)
    distance += 0.5 * np.log(mixed / (2 * np.sqrt(variance * trained_variance)))
    return float(np.median(distance))


def _check_colours(x: np.ndarray, name: str, axis: int) -> None:
    if x.ndim < 2 or x.shape[axis] != 3 or (axis == 1 and x.ndim != 4):
        raise DataError(
            f"Expected images with three channels for the scaling {name!r}. Received: shape {x.shape}. "
            "Use 'none', '0-1' or '-1-1' for other images."
        )


def _built_in_scaling(model: keras.Model) -> keras.layers.Layer | None:
    """The scaling layer before the first layer with a kernel, if there is one."""
    for _, layer in walk(model):
        if isinstance(layer, (keras.layers.Rescaling, keras.layers.Normalization)):
            return layer
        if own_variables(layer):
            return None
    return None


def _batch_norms(model: keras.Model) -> list[keras.layers.BatchNormalization]:
    return [layer for _, layer in visible(model) if isinstance(layer, keras.layers.BatchNormalization) and layer.built]


def _first_batch_norm_inputs(
    model: keras.Model, x: np.ndarray
) -> tuple[np.ndarray | None, keras.layers.BatchNormalization | None]:
    """Runs the model up to the first batch normalization that is called: nested and subclassed models too."""
    try:
        reached = run_until(model, _batch_norms(model), x)
    except Exception:  # whatever a user's layers raise for such inputs
        return None, None
    if reached is None:
        return None, None
    layer, inputs, _ = reached
    return _to_float64(inputs), layer


def _to_float64(tensor: Any) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(tensor)).astype(np.float64)
