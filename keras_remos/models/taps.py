"""Taps on the calls of layers in any Keras model.

A submodel (`keras.Model(inputs, layer.output)`) cannot look inside composite, nested or subclassed layers. A tap sits
on the call of the layer object itself, so it sees every one, also while a backend traces or compiles the model.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from difflib import get_close_matches
from typing import Any

import keras

from keras_remos.errors import RemosError
from keras_remos.models import layers as kinds
from keras_remos.models.kernels import Tensor

Listener = Callable[[keras.Layer, Tensor, Tensor, dict[str, Any]], Any]


@contextmanager
def capture(layers: Iterable[keras.Layer], listener: Listener, *, model: keras.Model | None = None) -> Iterator[None]:
    """Calls `listener(layer, inputs, outputs, kwargs)` after every call of the given layers.

    `inputs` is the call's first tensor and `outputs` the first tensor that it returns. The listener runs inside
    whatever the backend is doing at that moment (tracing, compiling, running): what it computes must be returned
    through the traced function, never kept. What it returns, unless that is `None`, takes the place of `outputs`.

    Args:
        layers: The layer objects to listen to. A call by `layer(...)` or `layer.call(...)` is seen.
        listener: Called in the order in which the calls end.
        model: The model that is run. Needed for the two parts of a `Bidirectional` layer: on a GPU Keras runs them as
            one and calls neither, but inside this capture it calls both.

    Raises:
        RuntimeError: If one of the layers is being captured already.

    Example:
    ```python
    with capture([model.get_layer("conv1")], lambda layer, x, y, kwargs: print(layer.name, y.shape)):
        model(images, training=False)
    ```
    """

    def around(layer: keras.Layer, call: Callable[..., Any]) -> Callable[..., Any]:
        def tapped(*args: Any, **kwargs: Any) -> Any:
            outputs = call(*args, **kwargs)
            first, *others = keras.tree.flatten(outputs)
            if isinstance(first, keras.Variable):  # a table of positions that returns itself
                first = first.value
            replacement = listener(layer, _first(args, kwargs), first, kwargs)
            if replacement is None:
                return outputs
            return keras.tree.pack_sequence_as(outputs, [replacement, *others])

        return tapped

    with _tapped(layers, around), nullcontext() if model is None else kinds.unfused(model):
        yield


@contextmanager
def substitute(layer: keras.Layer, replacement: Callable[[Any], Any]) -> Iterator[None]:
    """Gives a layer's callers something else than what it returns.

    Args:
        layer: The layer.
        replacement: Called with what the layer returns; its result takes the place of that.

    Raises:
        RuntimeError: If the layer is being captured already.
    """

    def around(layer: keras.Layer, call: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args, **kwargs: replacement(call(*args, **kwargs))

    with _tapped([layer], around):
        yield


def run_until(model: keras.Model, layers: Iterable[keras.Layer], x: Any) -> tuple[keras.Layer, Tensor, Any] | None:
    """Runs a model up to the end of the first call of one of some layers, and no further.

    Args:
        model: The model, in inference mode.
        layers: The layers.
        x: What the model takes.

    Returns:
        The layer, the first tensor that it was given, and what it returned; `None` if none of them runs.

    Raises:
        RuntimeError: If one of the layers is being captured already.
    """

    def around(layer: keras.Layer, call: Callable[..., Any]) -> Callable[..., Any]:
        def last(*args: Any, **kwargs: Any) -> Any:
            raise _Reached(layer, _first(args, kwargs), call(*args, **kwargs))

        return last

    try:
        with _tapped(layers, around), kinds.unfused(model):
            model(x, training=False)
    except _Reached as reached:
        return reached.layer, reached.inputs, reached.outputs
    return None


def layer_at(model: keras.Model, path: str) -> keras.Layer:
    """The layer of a path, among those whose calls a tap may watch.

    Raises:
        RemosError: If there is none; names those that are near.
    """
    layers = dict(kinds.visible(model))
    if path not in layers:
        near = get_close_matches(path, layers, n=3, cutoff=0.4) or list(layers)[:3]
        raise RemosError(
            f"Model {model.name!r} has no layer {path!r}: did you mean {' or '.join(map(repr, near))}? Paths are layer "
            "names joined by '/'."
        )
    return layers[path]


class _Reached(BaseException):
    """Ends a forward pass at the layer of interest. No `Exception`: Keras would rewrap that on its way out."""

    def __init__(self, layer: keras.Layer, inputs: Tensor, outputs: Any) -> None:
        super().__init__(layer.name)
        self.layer = layer
        self.inputs = inputs
        self.outputs = outputs


def _first(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """The first tensor of a call's arguments."""
    return (keras.tree.flatten(args) or keras.tree.flatten(kwargs))[0]


@contextmanager
def _tapped(
    layers: Iterable[keras.Layer], around: Callable[[keras.Layer, Callable[..., Any]], Callable[..., Any]]
) -> Iterator[None]:
    """Puts what `around` makes of a layer and its `call` in the place of that, for a while."""
    tapped: list[tuple[keras.Layer, str]] = []
    try:
        for layer in layers:
            method = kinds.called_method(layer)
            if method in vars(layer):
                raise RuntimeError(f"Layer {layer.name!r} is being captured already: captures cannot be nested.")
            vars(layer)[method] = around(layer, getattr(layer, method))
            tapped.append((layer, method))
        yield
    finally:
        for layer, method in tapped:
            del vars(layer)[method]
