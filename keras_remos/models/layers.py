"""What a Keras layer is and holds, and how layers stand in each other.

With `kernels`, this is the only file that looks into Keras layers: what of theirs is private is used here alone.
"""

import copy
import math
import random
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import FrameType
from typing import Any

import keras
import numpy as np
from keras import layers as kl
from keras.src.backend.common import global_state
from keras.src.backend.common.masking import get_keras_mask
from keras.src.backend.common.stateless_scope import StatelessScope
from keras.src.models.functional import Functional
from keras.src.saving.serialization_lib import SafeModeScope
from keras.src.utils.naming import to_snake_case

from keras_remos.models.adapters import spent_adapter
from keras_remos.models.kernels import Tensor

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
LOOKUPS = (kl.TextVectorization, kl.StringLookup, kl.IntegerLookup, kl.Hashing)
NORMALIZATIONS = (*LAYER_NORMALIZATIONS, kl.BatchNormalization, kl.GroupNormalization, kl.Normalization)


# What axes of unknown size are taken for where no example is given, one pair after the other: the side of an image, and
# the length of a sequence.
GUESSED_SIZES = ((64, 4), (224, 2), (299, 1))

Into = Callable[[keras.Layer], bool]


def walk(model: keras.Layer, *, into: Into = lambda layer: True) -> Iterator[tuple[str, keras.Layer]]:
    """Yields `(path, layer)` for every layer below `model`, each once, parents first.

    The path is made of `lasting_name`s, so that it is the same however, wherever and how often the model was built; the
    second of two siblings with one name gets `#2`; see `inside` for a model in a model. (Keras' own `layer.path`
    depends on how a model was built.)

    Args:
        model: The model.
        into: Whether to go on with the layers below a layer, too.
    """
    seen: set[int] = {id(model)}

    def below(parent: keras.Layer, prefix: str) -> Iterator[tuple[str, keras.Layer]]:
        for path, child in children(parent, prefix, seen):
            yield path, child
            if into(child):
                yield from below(child, inside(child, path, parent, prefix))

    yield from below(model, "")


def children(parent: keras.Layer, prefix: str, seen: set[int]) -> Iterator[tuple[str, keras.Layer]]:
    """The layers right below one, with their paths; what has been seen is left out, and what is yielded added."""
    names: Counter[str] = Counter()
    for child in parent._layers:
        if id(child) in seen:
            continue
        seen.add(id(child))
        name = lasting_name(child, parent)
        names[name] += 1
        yield prefix + (name if names[name] == 1 else f"{name}#{names[name]}"), child


def inside(layer: keras.Layer, path: str, parent: keras.Layer, prefix: str) -> str:
    """What the paths of the layers in a layer begin with.

    A model that stands in another of its own name, as one that a new head was put on, lends its place to its layers:
    they have the paths that they have in the model by itself.
    """
    stands_in = isinstance(layer, keras.Model) and isinstance(parent, keras.Model) and layer.name == parent.name
    return prefix if stands_in else f"{path}/"


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


@contextmanager
def unchanged_tensors(model: keras.Layer) -> Iterator[None]:
    """Puts back what layers keep of a call for the next one, as tables that the first call computes.

    A trace computes nothing: what it leaves has no values.
    """
    layers = [model, *(layer for _, layer in walk(model))]
    before = [dict(vars(layer)) for layer in layers]
    try:
        yield
    finally:
        for layer, kept in zip(layers, before, strict=True):
            for name, value in list(vars(layer).items()):
                if value is kept.get(name) or not any(map(keras.ops.is_tensor, keras.tree.flatten(value))):
                    continue
                if name in kept:
                    vars(layer)[name] = kept[name]
                else:
                    del vars(layer)[name]


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


def is_plain(model: keras.Model) -> bool:
    """Whether a model is a functional or sequential one of no class of its own: made of layers that can be saved."""
    return type(model) in (Functional, keras.Sequential)


def symbolic_inputs(model: keras.Model) -> Any:
    """What a model takes, as a structure of symbolic tensors; `None` if it was not built from some."""
    return _functional(model).input if getattr(model, "inputs", None) else None


def symbolic_outputs(model: keras.Model) -> Any:
    """What a model returns, as a structure of symbolic tensors; `None` if it was not built from some."""
    return _functional(model).output if getattr(model, "outputs", None) else None


def _functional(model: keras.Model) -> keras.Model:
    # A Sequential model wraps a functional one, and does not tell its own input.
    return getattr(model, "_functional", None) or model


def symbolic_batch(symbolic: Any, sizes: tuple[int, int] = GUESSED_SIZES[0]) -> Any:
    """A batch of what a model takes: symbolic tensors with a size for each axis of unknown size."""
    side, length = sizes

    def sized(tensor: keras.KerasTensor) -> keras.KerasTensor:
        batch, *axes = tensor.shape
        unknown = side if len(axes) > 2 else length
        return keras.KerasTensor((batch or 2, *(axis or unknown for axis in axes)), dtype=tensor.dtype)

    return keras.tree.map_structure(sized, symbolic)


def weight_holders(model: keras.Layer) -> list[tuple[str, keras.Layer]]:
    """`(path, layer)` for the model itself (path `""`) and every layer below it that holds weights of its own."""
    return [(path, layer) for path, layer in [("", model), *walk(model)] if own_variables(layer)]


def is_rematerialized(layer: keras.Layer) -> bool:
    """Whether Keras computes the layer anew for its gradient, and to that end calls it out of sight."""
    return layer._remat_mode is not None


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


class TooLargeError(Exception):
    """A model takes more than it was given room for."""


class _Counted(list[Any]):
    """Variables that have no values yet; stops the building of a model that has too many."""

    def __init__(self, most_variables: int, most_values: int) -> None:
        super().__init__()
        self._room = most_variables, most_values
        self._values = 0

    def append(self, variable: Any) -> None:
        super().append(variable)
        self._values += math.prod(variable.shape)
        if len(self) > self._room[0] or self._values > self._room[1]:
            raise TooLargeError(f"its layers want {len(self):,} variables, {self._values:,} values or more")


def outline(build: Callable[[], Any], *, most_variables: int, most_values: int) -> None:
    """Builds a model whose variables have shapes and no values, and so takes no memory; and stops if it has too many.

    Args:
        build: What builds the model. Keras is afterwards as if it had not: as to names, seeds and random numbers.
        most_variables: How many variables it may have.
        most_values: How many values in all of them.

    Raises:
        TooLargeError: If it has more.
        Exception: Whatever `build` raises.
    """
    state, drawn = vars(global_state.GLOBAL_STATE_TRACKER), random.getstate()
    before = {name: copy.copy(value) if isinstance(value, dict) else value for name, value in state.items()}
    try:
        with StatelessScope(initialize_variables=False):
            global_state.set_global_attribute("uninitialized_variables", _Counted(most_variables, most_values))
            build()
    finally:
        state.clear()
        state.update(before)
        random.setstate(drawn)


def keras_mask(tensor: Tensor) -> Tensor | None:
    """The padding mask that Keras attached to a tensor, shape `(batch, time)`, or `None`."""
    # Not every backend's tensors carry it themselves.
    return get_keras_mask(tensor)


def graph_of(model: keras.Model) -> list[Any]:
    """The calls that a model's graph is made of, each with its `operation`, `input_tensors` and `output_tensors`.

    There are none where the model has no graph.
    """
    return [node for nodes in getattr(_functional(model), "_nodes_by_depth", {}).values() for node in nodes]
