"""Gradients with respect to a model's inputs, or to what one of its layers returns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import tree

from keras_remos.errors import RemosError
from keras_remos.models.gradients import compiled, differentiate
from keras_remos.models.kernels import Tensor
from keras_remos.models.taps import layer_at, run_until, substitute


def value_and_grad(function: Callable[..., Any], *models: keras.Model) -> Callable[..., tuple[Any, Any]]:
    """Makes a function that returns a function's value and its gradient, compiled where the backend can.

    Args:
        function: Called as `function(x, *args)` with tensors. Returns a scalar, or `(scalar, more)` where `more` is
            any structure of tensors that is to be returned too. It is traced: what it prints or keeps, it does once.
        *models: The models that `function` calls. The result uses the weights that they have when it is called;
            they are not modified, not even by `training=True`.

    Returns:
        A function of `(x, *args)`: x a float array or a structure of them, args arrays or structures of them. Returns
        `(value, gradient)`: what `function` returned, and the scalar's gradient with respect to x, in the structure of
        x. Keep it: a new one is compiled anew, as is each new shape.

    Raises:
        RemosError: When called, if x holds whole numbers (see `value_and_grad_at`), or there is no scalar to derive.

    Example:
    ```python
    def loss(x, y):
        return keras.ops.mean(keras.losses.sparse_categorical_crossentropy(y, model(x, training=False)))

    value, gradient = value_and_grad(loss, model)(images, labels)
    ```
    """
    return compiled(lambda x, *args: differentiate(function, x, *args), *models)


def value_and_grad_at(
    model: keras.Model, layer_path: str, function: Callable[..., Any]
) -> Callable[..., tuple[Any, Any]]:
    """As `value_and_grad`, with respect to what a layer returns: for models of tokens, which have no gradient.

    Args:
        model: A built model.
        layer_path: The layer, mostly an embedding: its own name and those of the layers around it, joined by `/`. It
            must be called once in a forward pass.
        function: Called as `function(outputs, *args)` with what the model returns. Returns a scalar, or
            `(scalar, more)`.

    Returns:
        A function of `(x, *args)`, x being what the model takes. Returns `(value, gradient)`, the gradient in the
        shape of the layer's output.

    Raises:
        RemosError: If there is no such layer; when called, if the layer runs not once or returns several tensors.

    Example:
    ```python
    score = value_and_grad_at(model, "embedding", lambda outputs: keras.ops.sum(outputs[:, 1]))
    value, gradient = score(token_ids)      # (batch, length, width)
    ```
    """
    layer = layer_at(model, layer_path)

    def run(x: Any, *args: Any) -> tuple[Any, Any]:
        def from_layer(hidden: Tensor) -> Any:
            calls = 0

            def replacement(outputs: Tensor) -> Tensor:
                nonlocal calls
                calls += 1
                return hidden

            with substitute(layer, replacement):
                outputs = model(x, training=False)
            if calls != 1:
                raise RemosError(
                    f"Layer {layer_path!r} is called {calls} times in a forward pass: a gradient at its output needs "
                    "a layer that is called once."
                )
            return function(outputs, *args)

        return differentiate(from_layer, _output_at(model, layer, layer_path, x))

    return compiled(run, model)


def _output_at(model: keras.Model, layer: keras.Layer, path: str, x: Any) -> Tensor:
    """What a layer returns, without running what comes after it."""
    reached = run_until(model, [layer], x)
    if reached is None:
        raise RemosError(f"Layer {path!r} is never called when model {model.name!r} runs: choose another.")
    _, _, outputs = reached
    if len(tree.flatten(outputs)) > 1:
        raise RemosError(f"Layer {path!r} returns several tensors: choose one that returns a single one.")
    return outputs
