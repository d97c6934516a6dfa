"""Input scaling: which one a teacher was trained with, and NumPy functions that apply it.

A teacher file seldom says how its images were scaled, and a wrong scaling makes coverage meaningless without any
error. Its first batch normalization layer remembers: moving mean and variance are the statistics of the training data
there. `choose_scaling` runs a few images up to that layer in each scaling and takes the one that fits. Whether a model
scales its inputs itself is measured too, as that may be done by layers or by operators, on the outside or within: by
what reaches its first kernel when it sees black, white and coloured images.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_remos.errors import DataError
from keras_remos.models.inputs import image_shape
from keras_remos.models.layers import NORMALIZATIONS, holds_kernel, own_variables, visible, walk
from keras_remos.models.names import APPLICATIONS
from keras_remos.models.origin import where_from
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

# What pixels become in the scalings that keep them in a range; a model that scales by means of its own takes one of
# these.
_RANGES = {"none": "0 to 255", "0-1": "0 to 1", "-1-1": "-1 to 1"}
# Of the spread of the pixels: half precision rounds them.
_TOLERANCE = 0.02
# What a side of unknown size is taken for.
_UNKNOWN_SIDE = 64


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
        raise DataError(f"Expected `data_format` 'channels_last' or 'channels_first'. Received: {data_format!r}.")
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


def guess_scaling(
    model: keras.Model, *, shape: Sequence[int] | None = None, data_format: str | None = None
) -> tuple[str | None, str]:
    """Guesses the scaling from what a model does to its inputs and from its name.

    Args:
        model: The teacher.
        shape: Of one image, without the batch, as the model takes it; its own where that is left out.
        data_format: "channels_last" or "channels_first"; the model's own where that is left out.

    Returns:
        Name of the scaling, `None` if there is no clue, and the reason in words. A model that scales its inputs itself
        mostly takes them as they are ("none"); one that begins with `2 * x - 1` takes "0-1".
    """
    inside = _scaling_inside(model, shape, data_format)
    if inside is not None:
        return inside
    for part in (model, *(layer for _, layer in walk(model) if isinstance(layer, keras.Model))):
        for start in sorted(_FAMILIES, key=len, reverse=True):
            if part.name.lower().startswith(start):
                return _FAMILIES[start], f"the model's name {part.name!r} is that of a family trained so"
    return None, "neither what the model does to its inputs nor its name tells"


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

    What was loaded by its name from `keras.applications` is known. For the rest, in this order: a clear winner by
    `batch_norm_gap`, as those statistics come from the training data; what goes together with a scaling inside the
    model, be it of layers or of operators; the name of its family (which is only a habit: a ResNet-50 converted from
    PyTorch has the name, and not the scaling, of the one in `keras.applications`); a narrow winner by
    `batch_norm_gap`; "0-1".

    Args:
        model: The teacher.
        raw_batch: Some tens of images, values 0 to 255, of all classes if possible; shape as in `scale_inputs`.
        data_format: "channels_last" or "channels_first".

    Returns:
        Name of the scaling, one of `SCALINGS`, and the reason as a sentence for a user.

    Note:
        Data that are scaled already stay as they are; if the model then scales them once more, a warning says so.
    """
    low, high = float(np.min(raw_batch)), float(np.max(raw_batch))
    how: dict[str, Any] = {"shape": raw_batch.shape[1:], "data_format": data_format}
    if low < 0 or high <= 1:
        inside = _scaling_inside(model, **how)
        if inside is not None and inside[0] != ("-1-1" if low < 0 else "0-1"):
            warnings.warn(
                f"The data are scaled already (values from {low:.3g} to {high:.3g}), and {inside[1]}: they are scaled "
                "twice. Give pixels as they are in image files.",
                stacklevel=2,
            )
        return ("none", f"The data are scaled already (values from {low:.3g} to {high:.3g}).")
    guessed, reason = guess_scaling(model, **how)
    published = where_from(model).name or ""
    if guessed is not None and published.startswith(APPLICATIONS):
        return guessed, f"{published} was loaded by its name, and {reason}."
    gaps = scaling_gaps(model, raw_batch, data_format=data_format)
    ranked = sorted(gaps, key=gaps.__getitem__)
    clear = bool(ranked) and gaps[ranked[0]] <= _LARGEST_GAP and gaps[ranked[1]] >= _LEAST_MARGIN * gaps[ranked[0]]
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


@dataclass(frozen=True)
class _Arrival:
    """What becomes of pixels, as far as each value comes from one channel and grows with it evenly.

    Args:
        order: The channels in the order in which they arrive.
        black: What 0 in a channel becomes, by channel.
        white: What 255 becomes.
    """

    order: tuple[int, ...]
    black: np.ndarray
    white: np.ndarray

    @property
    def spread(self) -> float:
        return float(np.abs(self.white - self.black).max())

    def same_as(self, other: "_Arrival") -> bool:
        if self.order != other.order:
            return False
        off = max(np.abs(self.black - other.black).max(), np.abs(self.white - other.white).max())
        return bool(off <= _TOLERANCE * other.spread)


def _scaling_inside(
    model: keras.Model, shape: Sequence[int] | None = None, data_format: str | None = None
) -> tuple[str, str] | None:
    """What a model takes that scales its inputs itself, and how it does; `None` if it does not.

    Probes go through it in each scaling, up to its first kernel. It takes the scaling in which they arrive there in one
    of the usual forms (or, where its means are its own, the first in which they do not spread further than pixels). A
    model in which they arrive as they were sent does not scale.
    """
    taken, own_format = image_shape(model)
    data_format = data_format or own_format
    if shape is None and taken is not None:
        height, width, channels = taken[0] or _UNKNOWN_SIDE, taken[1] or _UNKNOWN_SIDE, taken[2] or 3
        shape = (channels, height, width) if data_format == "channels_first" else (height, width, channels)
    if shape is None or len(shape) != 3:
        return _scaling_layer(model)
    sent: dict[str, _Arrival | None] = {}
    arrived: dict[str, _Arrival | None] = {}
    for name in SCALINGS:
        try:
            probes = scale_inputs(_probes(shape, data_format), name, data_format=data_format)
        except DataError:  # images of one or many channels have no ImageNet scaling
            continue
        sent[name], arrived[name] = _read(probes), _read(_at_first_kernel(model, probes))
    found = {name: arrival for name, arrival in arrived.items() if arrival is not None}
    if not found:
        return _scaling_layer(model)
    if all(name in found and found[name].same_as(as_sent) for name, as_sent in sent.items() if as_sent is not None):
        return None
    usual = [name for name in found if any(found[name].same_as(form) for form in sent.values() if form is not None)]
    within = [name for name in _RANGES if name in found and found[name].spread <= 255 * (1 + _TOLERANCE)]
    if not usual and not within:
        return _scaling_layer(model)
    name = (usual or within)[0]
    ends = np.stack([found[name].black, found[name].white])
    given = _RANGES.get(name, f"inputs scaled as {name}")
    return name, (
        f"the model scales its inputs itself (its first weights see {given} as {ends.min():.3g} to {ends.max():.3g})"
    )


def _probes(shape: Sequence[int], data_format: str) -> np.ndarray:
    """Images of one colour: black, grey (102), white, and one for each channel in which it alone is 255."""
    axis = 0 if data_format == "channels_first" else 2
    channels = shape[axis]
    colours = np.concatenate([np.outer((0, 102, 255), np.ones(channels)), 255 * np.eye(channels)])
    sides = [1, 1, 1]
    sides[axis] = channels
    return np.broadcast_to(colours.reshape(-1, *sides), (len(colours), *shape)).astype(np.float32)


def _read(probes: np.ndarray | None) -> _Arrival | None:
    """What `_probes` have become, whatever axes they have now; `None` if that is no scaling."""
    if probes is None or not np.isfinite(probes).all():
        return None
    black, grey, white, *single = probes.reshape(len(probes), -1).astype(np.float64)
    changes = np.abs(np.stack(single) - black)
    reacts = changes > _TOLERANCE * max(changes.max(), 1e-9)
    from_one = reacts.sum(axis=0) == 1
    # What reacts to nothing is padding; where most react to several channels, colours are mixed.
    if not from_one.any() or from_one.sum() < 0.5 * reacts.any(axis=0).sum():
        return None
    strength, channel = changes.max(axis=0), np.where(from_one, reacts.argmax(axis=0), -1)
    order = tuple(dict.fromkeys(channel[from_one].tolist()))
    # Pooling and resizing mix padding into what is next to it, which then reacts less.
    pure = [(channel == c) & (strength >= (1 - _TOLERANCE) * strength[channel == c].max()) for c in sorted(order)]
    low, middle, high = (np.array([np.median(values[of_one]) for of_one in pure]) for values in (black, grey, white))
    arrival = _Arrival(order, low, high)
    even = np.abs(middle - low - 0.4 * (high - low)).max() <= _TOLERANCE * arrival.spread
    return arrival if even else None


def _at_first_kernel(model: keras.Model, x: np.ndarray) -> np.ndarray | None:
    """What images have become when they reach the first layer that learned from them; `None` if none is reached."""
    learned = [
        layer
        for _, layer in visible(model)
        if not isinstance(layer, (keras.layers.Normalization, keras.layers.Embedding))
        and (holds_kernel(layer) or isinstance(layer, NORMALIZATIONS))
    ]
    try:
        reached = run_until(model, learned, x)
    except Exception:  # whatever a user's layers raise for such inputs
        return None
    if reached is None or len(reached[1].shape) < 2 or reached[1].shape[0] != len(x):
        return None
    return _to_float64(reached[1])


def _scaling_layer(model: keras.Model) -> tuple[str, str] | None:
    """The same by the layers alone, where it cannot be measured: one that scales, before the first with weights."""
    for _, layer in walk(model):
        if isinstance(layer, (keras.layers.Rescaling, keras.layers.Normalization)):
            return "none", f"the model scales its inputs itself (layer {layer.name!r})"
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
