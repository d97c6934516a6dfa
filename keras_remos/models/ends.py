"""How a model ends, by its graph and its configuration, and how it is built anew with another end."""

import inspect
from collections.abc import Iterator
from typing import Any

import keras
from keras import layers as kl

from keras_remos.models import layers as kinds
from keras_remos.models.adapters import has_adapter

Config = dict[str, Any]


def without_compilation(config: Config) -> Config:
    """A serialized model that comes back uncompiled."""
    return {key: value for key, value in config.items() if key != "compile_config"}


def has_option(config: Config, option: str) -> bool:
    """Whether a serialized model is built from an option of that name, as KerasHub's classifiers are."""
    return option in config["config"]


def set_option(config: Config, option: str, value: Any) -> None:
    """Changes an option of a serialized model, if it has one of that name."""
    if has_option(config, option):
        config["config"][option] = value


def unsaid_options(model: keras.Model) -> list[str]:
    """Options that a model was made with, as its attributes of their names tell, and that its configuration omits."""
    said = model.get_config()
    known = inspect.signature(type(model).__init__).parameters.values()
    return [
        f"{option.name}={getattr(model, option.name)}"
        for option in known
        if isinstance(option.default, (bool, int, float, str))
        and option.name not in said
        and getattr(model, option.name, option.default) != option.default
    ]


def ends_plainly(model: keras.Model, head: str) -> bool:
    """Whether a model ends in a dense layer with no more than one nonlinearity, and dropout, behind its weights.

    Args:
        model: The model. One that has no graph ends plainly where the layer itself applies a softmax.
        head: The path of the layer.
    """
    layer: Any = dict(kinds.walk(model)).get(head)
    if type(layer) is not kl.Dense or has_adapter(layer) or layer.quantization_mode is not None:
        return False
    if kinds.symbolic_outputs(model) is None:
        return kinds.activation_name(layer) == "softmax"
    behind = _layers_behind(model, layer)
    nonlinear = [name for name in map(kinds.activation_name, [layer, *behind]) if name is not None]
    last = [layer, *behind][-1]
    made = [tensor for node in kinds.graph_of(model) if node.operation is last for tensor in node.output_tensors]
    ends = len(made) == 1 and made[0] is kinds.symbolic_outputs(model)
    plain = all(isinstance(found, (kl.Activation, kl.Softmax, kl.Identity, *kinds.DROPOUTS)) for found in behind)
    return ends and plain and len(nonlinear) <= 1 and set(nonlinear) <= kinds.ENDS


def applies_softmax(model: keras.Model) -> bool | None:
    """Whether the last layer of a model's graph applies a softmax; `None` where that says nothing.

    It says nothing where the model has no graph or several outputs, or ends in an operator or a layer of another kind.
    """
    last = _last_operation(model)
    if isinstance(last, kl.Softmax):
        return True if last.axis in (-1, len(kinds.symbolic_outputs(model).shape) - 1) else None
    if type(last) in (kl.Dense, kl.Activation) and kinds.activation_name(last) == "softmax":
        return True
    return False if type(last) is kl.Dense and kinds.activation_name(last) is None else None


def applies_sigmoid(model: keras.Model) -> bool:
    """Whether the last operation of a model's graph is a sigmoid, so that it says yes or no of each class by itself."""
    last = _last_operation(model)
    is_operator = type(last).__name__ == "Sigmoid"
    return is_operator or (isinstance(last, keras.Layer) and kinds.activation_name(last) == "sigmoid")


def _last_operation(model: keras.Model) -> Any:
    """What makes the one output of a model; `None` if it has no graph or several outputs."""
    output = kinds.symbolic_outputs(model)
    makers = [node.operation for node in kinds.graph_of(model) if any(made is output for made in node.output_tensors)]
    if len(makers) != 1:
        return None
    return _last_operation(makers[0]) if isinstance(makers[0], keras.Model) else makers[0]


def before_token_scores(model: keras.Model) -> Any:
    """What enters the layer with which a language model scores tokens: its last hidden states.

    The layer is an embedding that turns hidden states into scores, or holds one, as the head of a masked language model
    does. Such an embedding is part of the model's beginning, too, and no head.

    Returns:
        `None` if a model ends otherwise: what has no weights may stand behind.
    """
    tensor, nodes = kinds.symbolic_outputs(model), kinds.graph_of(model)
    while True:
        node = next((node for node in nodes if any(made is tensor for made in node.output_tensors)), None)
        if node is None or _scores_tokens(node, nodes):
            return None if node is None else node.input_tensors[0]
        if len(node.input_tensors) != 1 or getattr(node.operation, "weights", None):
            return None
        tensor = node.input_tensors[0]


def _scores_tokens(node: Any, nodes: list[Any]) -> bool:
    """Whether a call in a model's graph is that of an embedding in reverse, or of a layer with one from elsewhere."""
    layer = node.operation
    if isinstance(layer, kl.Embedding):
        return kinds.is_reverse_call(node.arguments.kwargs)
    if not isinstance(layer, keras.Layer) or isinstance(layer, keras.Model):
        return False
    # One score for each row of the table.
    size = node.output_tensors[0].shape[-1]
    tables = {
        id(below) for _, below in kinds.walk(layer) if isinstance(below, kl.Embedding) and below.input_dim == size
    }
    others = (other.operation for other in nodes if isinstance(other.operation, keras.Layer))
    elsewhere = (below for other in others if other is not layer for _, below in [("", other), *kinds.walk(other)])
    return bool(tables) and any(id(below) in tables for below in elsewhere)


def set_units(config: Config, model: keras.Model, head: str, units: int) -> bool:
    """Changes a serialized model that ends plainly so that it comes back with a softmax over another number of classes.

    Args:
        config: The model, serialized. Changed in place.
        model: The model itself.
        head: The path of its head.
        units: How many classes.

    Returns:
        Whether it could: a class with a configuration of its own does not show its layers there.
    """
    layer = dict(kinds.walk(model))[head]
    behind = _layers_behind(model, layer)
    applies = [found for found in (layer, *behind) if kinds.activation_name(found) is not None]
    # Where none applies a nonlinearity, the last one that could: it may be there to return float32.
    last = (applies or [layer, *(found for found in behind if isinstance(found, kl.Activation))])[-1]
    of_head, of_last = _config_of(layer, config), _config_of(last, config)
    if of_head is None or of_last is None:
        return False
    of_head["units"] = units
    if not isinstance(last, kl.Softmax):
        of_last["activation"] = "softmax"
    return True


def _layers_behind(model: keras.Model, layer: keras.Layer) -> list[keras.Layer]:
    """The operations of a model that a layer's output passes through one after another, as far as there is one way."""
    behind: list[keras.Layer] = []
    nodes = kinds.graph_of(model)
    while True:
        made = {id(tensor) for node in nodes if node.operation is layer for tensor in node.output_tensors}
        following = [node for node in nodes if made & set(map(id, node.input_tensors))]
        if len(following) != 1:
            return behind
        layer = following[0].operation
        behind.append(layer)


def inputs_within(model: keras.Model, layer: keras.Layer) -> list[Any]:
    """The symbolic tensors that a layer is called on in a model's own graph."""
    return [tensor for node in kinds.graph_of(model) if node.operation is layer for tensor in node.input_tensors]


def _config_of(layer: keras.Layer, config: Any) -> Config | None:
    """The part of a serialized model that describes one layer; `None` if there is none, or it cannot be told."""

    def search(node: Any) -> Iterator[Config]:
        if isinstance(node, dict):
            inner = node.get("config")
            if (
                node.get("class_name") == type(layer).__name__
                and isinstance(inner, dict)
                and inner.get("name") == layer.name
            ):
                yield inner
            for value in node.values():
                yield from search(value)
        elif isinstance(node, (list, tuple)):
            for value in node:
                yield from search(value)

    found = list(search(config))
    return found[0] if len(found) == 1 else None
