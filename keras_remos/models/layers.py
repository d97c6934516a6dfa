"""Which layers of a model can be sliced, and why the others are left whole.

With `kernels`, this is the only file that looks into Keras layers: what of theirs is private is used here alone.
"""

import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from types import FrameType
from typing import Any

import keras
import numpy as np
from keras import layers as kl
from keras.src.backend.common.masking import get_keras_mask
from keras.src.models.functional import Functional
from keras.src.saving.serialization_lib import SafeModeScope
from keras.src.utils.naming import to_snake_case

from keras_remos.models.adapters import MERGE, has_adapter, spent_adapter
from keras_remos.models.kernels import SliceableLayer, Tensor, describe

ACTIVATIONS = (kl.Activation, kl.ReLU, kl.LeakyReLU, kl.ELU, kl.PReLU, kl.Softmax)
DROPOUTS = (
    kl.Dropout,
    kl.SpatialDropout1D,
    kl.SpatialDropout2D,
    kl.SpatialDropout3D,
    kl.GaussianDropout,
    kl.GaussianNoise,
    kl.AlphaDropout,
)
POOLINGS = (
    kl.AveragePooling1D,
    kl.AveragePooling2D,
    kl.AveragePooling3D,
    kl.MaxPooling1D,
    kl.MaxPooling2D,
    kl.MaxPooling3D,
    kl.GlobalAveragePooling1D,
    kl.GlobalAveragePooling2D,
    kl.GlobalAveragePooling3D,
    kl.GlobalMaxPooling1D,
    kl.GlobalMaxPooling2D,
    kl.GlobalMaxPooling3D,
)
PADDINGS = (kl.ZeroPadding1D, kl.ZeroPadding2D, kl.ZeroPadding3D)
# What a layer's output goes through before the network uses it; each keeps the meaning of the channel axis.
FOLLOWED = (kl.BatchNormalization, kl.ActivityRegularization, kl.Identity, *ACTIVATIONS, *DROPOUTS, *PADDINGS)
# What may end a classifier: any other nonlinearity belongs inside a network.
ENDS = frozenset({"softmax", "log_softmax", "sigmoid", "hard_sigmoid", "tanh"})
# What leaves no element below 0, and what keeps it so.
RELUS = frozenset({"relu", "relu6"})
KEEP_SIGNS = (kl.Identity, *DROPOUTS, *PADDINGS)
MERGES = (kl.Add, kl.Average, kl.Concatenate, kl.Dot, kl.Maximum, kl.Minimum, kl.Multiply, kl.Subtract)
LAYER_NORMALIZATIONS = (kl.LayerNormalization, kl.RMSNormalization)
ATTENTIONS = (kl.MultiHeadAttention, kl.GroupQueryAttention)
NORMALIZATIONS = (*LAYER_NORMALIZATIONS, kl.BatchNormalization, kl.GroupNormalization, kl.Normalization)


# Why a layer is left whole.
COMPUTED = "its kernel is computed, by SpectralNormalization"
VECTORS = "no kernel: it holds vectors, to scale, to shift or to put in"

# What an axis of unknown size is taken for where no example is given.
IMAGE_SIDE, SEQUENCE_LENGTH = 64, 4

Into = Callable[[keras.Layer], bool]


def walk(model: keras.Layer, *, into: Into = lambda layer: True) -> Iterator[tuple[str, keras.Layer]]:
    """Yields `(path, layer)` for every layer below `model`, each once, parents first.

    The path is made of `lasting_name`s, so that it is the same however, wherever and how often the model was built; the
    second of two siblings with one name gets `#2`. (Keras' own `layer.path` depends on how a model was built.)

    Args:
        model: The model.
        into: Whether to go on with the layers below a layer, too.
    """
    seen: set[int] = {id(model)}

    def below(parent: keras.Layer, prefix: str) -> Iterator[tuple[str, keras.Layer]]:
        for path, child in _children(parent, prefix, seen):
            yield path, child
            if into(child):
                yield from below(child, f"{path}/")

    yield from below(model, "")


def _children(parent: keras.Layer, prefix: str, seen: set[int]) -> Iterator[tuple[str, keras.Layer]]:
    """The layers right below one, with their paths; what has been seen is left out, and what is yielded added."""
    names: Counter[str] = Counter()
    for child in parent._layers:
        if id(child) in seen:
            continue
        seen.add(id(child))
        name = lasting_name(child, parent)
        names[name] += 1
        yield prefix + (name if names[name] == 1 else f"{name}#{names[name]}"), child


def lasting_name(layer: keras.Layer, parent: keras.Layer) -> str:
    """The name of a layer, the same in every copy of the model that it is in.

    Functional and sequential models keep their layers' names in their configuration. Elsewhere a layer without a name
    is named anew whenever the model is built: after its class, with a number that counts up. That is left off.

    Args:
        layer: The layer.
        parent: What it is in.
    """
    if type(parent) in (Functional, keras.Sequential):
        return layer.name
    found = re.fullmatch(rf"((?:forward_|backward_)?{to_snake_case(type(layer).__name__)})(?:_\d+)?", layer.name)
    return found[1] if found else layer.name


def visible(model: keras.Layer) -> Iterator[tuple[str, keras.Layer]]:
    """The layers of `walk` whose calls a tap may watch: not those that a loop over time steps calls."""
    return walk(model, into=lambda layer: not isinstance(layer, (kl.RNN, kl.TimeDistributed)))


@contextmanager
def unfused(model: keras.Layer) -> Iterator[None]:
    """Makes each `Bidirectional` layer in a model call its two parts, where a GPU would run them as one."""
    fused = [layer for _, layer in walk(model) if isinstance(layer, kl.Bidirectional) and not layer.stateful]
    try:
        for layer in fused:
            # Keras fuses none that keeps a state, and asks for nothing else about it in a call.
            vars(layer)["stateful"] = True
        yield
    finally:
        for layer in fused:
            vars(layer)["stateful"] = False


def is_leaf(layer: keras.Layer) -> bool:
    """Whether the layer is made of no other layers."""
    return not layer._layers


def called_method(layer: keras.Layer) -> str:
    """The name of the method that runs when a layer is called."""
    return "call" if layer.quantization_mode is None else "quantized_call"


def holds_kernel(layer: keras.Layer) -> bool:
    """Whether a layer computes each of its outputs from several inputs, by weights that it holds itself."""
    if isinstance(layer, (*NORMALIZATIONS, *ACTIVATIONS)):
        return False
    if isinstance(layer, (kl.RNN, kl.TimeDistributed)):
        inside = layer.weights
    elif is_leaf(layer) or isinstance(layer, kl.Wrapper):
        inside = own_variables(layer)
    else:
        inside = []  # what a block holds beside its layers goes in with what they compute
    return any(len(variable.shape) > 1 for variable in inside)


def holds_assets(layer: keras.Layer) -> bool:
    """Whether a layer has learned something that is no weight, as the vocabulary that a lookup was adapted to."""
    return hasattr(layer, "save_assets")


@contextmanager
def unchanged_states(model: keras.Layer) -> Iterator[None]:
    """Puts back what stateful recurrent layers remember of the batch before."""
    states = [
        variable
        for _, layer in walk(model)
        if isinstance(layer, kl.RNN) and layer.stateful
        for variable in keras.tree.flatten(layer.states)
        if variable is not None
    ]
    before = [keras.ops.convert_to_numpy(variable.value) for variable in states]
    try:
        yield
    finally:
        for variable, value in zip(states, before, strict=True):
            variable.assign(value)


def own_variables(layer: keras.Layer) -> list[keras.Variable]:
    """The weights that the layer itself holds and uses, without those of the layers below it."""
    spent = {id(variable) for variable in spent_adapter(layer)}
    return [v for v in (*layer._trainable_variables, *layer._non_trainable_variables) if id(v) not in spent]


def set_trainable(model: keras.Layer, trainable: bool) -> None:
    """Sets the flag of every layer in a model: on TensorFlow, the model's own reaches them only when it changes."""
    for _, layer in [("", model), *walk(model)]:
        layer.trainable = trainable


def reseed(model: keras.Layer, rng: np.random.Generator) -> None:
    """Starts every random generator in a model anew: what dropout draws from now on depends on `rng` alone."""
    for _, layer in [("", model), *walk(model)]:
        for generator in layer._seed_generators:
            generator.state.assign(np.array([rng.integers(2**31), 0]))
            # Without a seed of its own, PyTorch's dropout draws from the process's generator instead.
            generator._initial_seed = generator._initial_seed or 0


def is_channels_first(model: keras.Layer) -> bool:
    """Whether the maps in a model have their channels on axis 1."""
    return any(getattr(layer, "data_format", None) == "channels_first" for _, layer in walk(model))


def is_built(model: keras.Layer) -> bool:
    """Whether the model has been built, so that it has weights."""
    return bool(model.built and model.weights)


def symbolic_inputs(model: keras.Model) -> Any:
    """What a model takes, as a structure of symbolic tensors; `None` if it was not built from some."""
    return _functional(model).input if getattr(model, "inputs", None) else None


def symbolic_outputs(model: keras.Model) -> Any:
    """What a model returns, as a structure of symbolic tensors; `None` if it was not built from some."""
    return _functional(model).output if getattr(model, "outputs", None) else None


def _functional(model: keras.Model) -> keras.Model:
    # A Sequential model wraps a functional one, and does not tell its own input.
    return getattr(model, "_functional", None) or model


def symbolic_batch(symbolic: Any) -> Any:
    """A batch of what a model takes: symbolic tensors with a size for each axis of unknown size."""

    def sized(tensor: keras.KerasTensor) -> keras.KerasTensor:
        batch, *axes = tensor.shape
        unknown = IMAGE_SIDE if len(axes) > 2 else SEQUENCE_LENGTH
        return keras.KerasTensor((batch or 2, *(axis or unknown for axis in axes)), dtype=tensor.dtype)

    return keras.tree.map_structure(sized, symbolic)


def weight_holders(model: keras.Layer) -> list[tuple[str, keras.Layer]]:
    """`(path, layer)` for the model itself (path `""`) and every layer below it that holds weights of its own."""
    return [(path, layer) for path, layer in [("", model), *walk(model)] if own_variables(layer)]


def find_sliceable(model: keras.Layer) -> tuple[list[SliceableLayer], list[tuple[str, str]]]:
    """Sorts the layers of a model that hold weights into those that can be sliced and the others.

    Args:
        model: A built Keras model of any kind.

    Returns:
        The sliceable layers in the order of `walk`, and `(path, reason)` for every other layer that holds weights.
    """
    sliceable: list[SliceableLayer] = []
    skipped = [("(the model itself)", what_it_holds(model))] if own_variables(model) else []
    seen: set[int] = {id(model)}

    def sort(parent: keras.Layer, prefix: str) -> None:
        for path, layer in _children(parent, prefix, seen):
            found, out_of_sight = _describe(layer, path)
            if found is not None:
                sliceable.append(found)
                skipped.extend(_beside(found))
            elif own_variables(layer):
                skipped.append((path, _why_not(layer)))
            if out_of_sight is None:
                sort(layer, f"{path}/")
            else:
                leave_whole(layer, f"{path}/", out_of_sight)

    def leave_whole(parent: keras.Layer, prefix: str, reason: str) -> None:
        for path, layer in _children(parent, prefix, seen):
            if reason and own_variables(layer):
                skipped.append((path, reason))
            leave_whole(layer, f"{path}/", reason)

    sort(model, "")
    return _without_tied(model, sliceable, skipped)


def _describe(layer: keras.Layer, path: str) -> tuple[SliceableLayer | None, str | None]:
    """What can be sliced in a layer, and why the layers below it never show their calls.

    Returns:
        The reason is `None` where they do, and empty where the layer speaks for them.
    """
    if isinstance(layer, kl.TimeDistributed):
        inner = describe(layer.layer, f"{path}/{lasting_name(layer.layer, layer)}")
        if inner is None or inner.table is not None:
            return None, "inside TimeDistributed, which calls it out of sight"
        return replace(inner, layer=layer), ""
    found = describe(layer, path)
    if isinstance(layer, kl.RNN):
        return found, "" if found else "a recurrent cell, which is called out of sight"
    return found, None


def _without_tied(
    model: keras.Layer, sliceable: list[SliceableLayer], skipped: list[tuple[str, str]]
) -> tuple[list[SliceableLayer], list[tuple[str, str]]]:
    owners = Counter(id(v) for _, layer in walk(model) for v in own_variables(layer))
    untied = [found for found in sliceable if all(owners[id(kernel.variable)] == 1 for kernel in found.weights)]
    spectral = tuple(f"{path}/" for path, layer in walk(model) if isinstance(layer, kl.SpectralNormalization))
    tied = [
        (found.path, COMPUTED if found.path.startswith(spectral) else "tied: two layers share its weight")
        for found in sliceable
        if found not in untied
    ]
    return untied, skipped + tied


def _beside(found: SliceableLayer) -> list[tuple[str, str]]:
    """Kernels that a layer holds beside those that can be sliced, and why they are left whole."""
    layer = found.layer
    known = {id(kernel.variable) for kernel in found.weights} | {id(getattr(layer, "bias", None))}
    others = [v for v in layer._trainable_variables if len(v.shape) > 1 and id(v) not in known]
    reason = "head: it makes scores of tokens, never sliced" if found.table else "not of the kernels of such a layer"
    return [(f"{found.path}/{variable.name}", reason) for variable in others]


def _why_not(layer: keras.Layer) -> str:
    if has_adapter(layer):
        return f"under LoRA, its kernel is computed: {MERGE}"
    if layer.quantization_mode is not None:
        return f"quantized ({layer.quantization_mode}): slice the float model and quantize the student"
    if layer._remat_mode is not None:
        return "rematerialized: it is called out of sight"
    if isinstance(layer, NORMALIZATIONS):
        return "normalization: always kept whole"
    if isinstance(layer, kl.SpectralNormalization):
        return COMPUTED
    return what_it_holds(layer)


def what_it_holds(layer: keras.Layer) -> str:
    """Why the weights of a layer of an unknown kind are left whole: by how many axes they have."""
    kernels = sorted(wide_variables(layer), key=lambda variable: -len(variable.shape))
    if not kernels:
        return VECTORS
    shown = ", ".join(f"{variable.name} ({' x '.join(map(str, variable.shape))})" for variable in kernels[:3])
    if any(sum(side > 1 for side in variable.shape) == 3 for variable in kernels):
        return f"several kernels in one weight, as experts have: what each of them sees is out of sight; {shown}"
    return f"weights of its own, of which it is not known what their axes mean: {shown}"


def wide_variables(layer: keras.Layer) -> list[keras.Variable]:
    """The weights that a layer holds itself, and that are no vectors."""
    return [variable for variable in own_variables(layer) if sum(side > 1 for side in variable.shape) > 1]


def operation_around() -> str | None:
    """The operation of Keras whose function argument is running right now: `scan`, `cond`, `vectorized_map` ..."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_globals.get("__name__") != "keras.src.ops.core":
        frame = frame.f_back
    if frame is None:
        return None
    owner = frame.f_locals.get("self")
    return frame.f_code.co_name if owner is None else to_snake_case(type(owner).__name__)


def is_reverse_call(kwargs: dict[str, Any]) -> bool:
    """Whether this call of an embedding takes hidden states and returns scores of tokens."""
    return bool(kwargs.get("reverse"))


def is_tied_call(layer: keras.Layer, kwargs: dict[str, Any]) -> bool:
    """Whether this call of an embedding uses its table as an output projection."""
    return is_reverse_call(kwargs) and getattr(layer, "tie_weights", True)


def activation_name(layer: keras.Layer) -> str | None:
    """The name of the nonlinearity that a layer applies, or `None` if it applies none."""
    if isinstance(layer, kl.ReLU):
        return "leaky_relu" if layer.negative_slope else "relu"
    if isinstance(layer, ACTIVATIONS) and not isinstance(layer, kl.Activation):
        return type(layer).__name__.lower()
    name = getattr(getattr(layer, "activation", None), "__name__", None)
    return None if name == "linear" else name


def safe_mode(safe: bool) -> AbstractContextManager[None]:
    """Whether Keras refuses, in a block, to make code of what a preset says: whatever the process allows elsewhere."""
    # Keras refuses where nothing is said. KerasHub takes `True` for being inside an archive, and reads no vocabulary.
    return SafeModeScope(None if safe else False)


def keras_mask(tensor: Tensor) -> Tensor | None:
    """The padding mask that Keras attached to a tensor, shape `(batch, time)`, or `None`."""
    # Not every backend's tensors carry it themselves.
    return get_keras_mask(tensor)


def graph_of(model: keras.Model) -> list[Any]:
    """The calls that a model's graph is made of, each with its `operation`, `input_tensors` and `output_tensors`.

    There are none where the model has no graph.
    """
    return [node for nodes in getattr(_functional(model), "_nodes_by_depth", {}).values() for node in nodes]
