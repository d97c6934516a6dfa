"""Gradients with respect to a model's inputs, on TensorFlow, PyTorch and JAX. The one file that imports a backend."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from difflib import get_close_matches
from typing import Any

import keras
from keras import ops, tree

from keras_remos.errors import RemosError, TeacherError
from keras_remos.models import layers as kinds
from keras_remos.models.kernels import Tensor
from keras_remos.models.taps import run_until, substitute

# Of the errors that the backends raise when memory runs out, in their class names or messages, in lower case.
_OUT_OF_MEMORY = ("outofmemory", "out of memory", "resource_exhausted", "resourceexhausted", "can't allocate memory")


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
    layer = _layer_at(model, layer_path)

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


def differentiate(function: Callable[..., Any], x: Any, *args: Any) -> tuple[Any, Any]:
    """The value and the gradient of a function at tensors, at once or within a function that is being compiled.

    Args:
        function: As in `value_and_grad`.
        x: A float tensor of the backend, or a structure of them.
        *args: What else `function` takes.

    Returns:
        `(value, gradient)`; the gradient of what has no influence on the value is 0.

    Raises:
        RemosError: If x holds whole numbers, or the function returns no scalar.
    """
    for tensor in tree.flatten(x):
        if not keras.backend.is_float_dtype(keras.backend.standardize_dtype(tensor.dtype)):
            raise RemosError(
                f"Whole numbers ({tensor.dtype}) have no gradient: turn pixels into floats, and take the gradient of "
                "tokens at the output of their embedding, with value_and_grad_at."
            )

    def scalar_and_result(x: Any) -> tuple[Tensor, Any]:
        result = function(x, *args)
        scalar = result[0] if isinstance(result, tuple) else result
        if tuple(getattr(scalar, "shape", (None,))) != ():
            raise RemosError(
                f"Only a scalar has a gradient: the function returned {getattr(scalar, 'shape', type(scalar))}. Sum "
                "over the samples."
            )
        return scalar, result

    return _on_backend(_DIFFERENTIATE)(scalar_and_result, x)


def differentiate_weights(function: Callable[..., Any], *models: keras.Model) -> tuple[Any, list[Tensor]]:
    """The value and the gradient of a function with respect to the weights of the models that it calls.

    To be used within a function that is being compiled, or in `compute_loss` of a Keras model. `function` may itself
    call `differentiate_weights`: a penalty on gradients is derived exactly, by second-order differentiation.

    Args:
        function: Called without arguments. Returns a scalar, or `(scalar, more)`.
        *models: All the models that it calls.

    Returns:
        `(value, gradients)`: what `function` returned, and a gradient for each of the models' trainable variables, in
        their order.

    Example:
    ```python
    def penalized():
        loss, gradients = differentiate_weights(lambda: loss_of(model(x)), model)
        return loss + sum(keras.ops.sum(gradient**2) for gradient in gradients)

    value, gradients = compiled(lambda: differentiate_weights(penalized, model), model)()
    ```
    """
    variables = [variable for model in models for variable in model.variables]
    trainable = [variable for model in models for variable in model.trainable_variables]
    # What the variables hold right now: within another scope, the tensors of that.
    now = [ops.convert_to_tensor(variable.value) for variable in variables]

    def at(weights: list[Tensor]) -> Any:
        held = [*zip(variables, now, strict=True), *zip(trainable, weights, strict=True)]
        with keras.StatelessScope(state_mapping=held), _on_backend(_TWICE)():
            return function()

    return differentiate(at, [ops.convert_to_tensor(variable.value) for variable in trainable])


def compiled(function: Callable[..., Any], *models: keras.Model) -> Callable[..., Any]:
    """Compiles a function of tensors, where the backend can, that calls models with the weights they then have.

    Args:
        function: Takes and returns structures of tensors; may call `differentiate`. It is traced.
        *models: The models that it calls. They are not modified.

    Returns:
        The compiled function. Takes structures of arrays or numbers.

    Raises:
        TeacherError: If a model has not been built.
    """
    for model in models:
        if not model.built:
            raise TeacherError(f"Model {model.name!r} has not been built: call it once on a batch of data.")
    variables = list({id(variable): variable for model in models for variable in model.variables}.values())

    def with_weights(weights: list[Tensor], args: tuple[Any, ...]) -> Any:
        # Within the scope a model reads these weights, and what it would write is dropped.
        with keras.StatelessScope(state_mapping=zip(variables, weights, strict=True)):
            return function(*args)

    run = _on_backend(_COMPILE)(with_weights)

    def call(*args: Any) -> Any:
        return run([variable.value for variable in variables], tree.map_structure(ops.convert_to_tensor, args))

    return call


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of a backend says that the device's or the computer's memory does not suffice."""
    said = f"{type(error).__name__} {error}".lower()
    return isinstance(error, MemoryError) or any(mark in said for mark in _OUT_OF_MEMORY)


def _layer_at(model: keras.Model, path: str) -> keras.Layer:
    layers = dict(kinds.visible(model))
    if path not in layers:
        near = get_close_matches(path, layers, n=3, cutoff=0.3) or list(layers)[:3]
        raise RemosError(f"Model {model.name!r} has no layer {path!r}: did you mean {' or '.join(map(repr, near))}?")
    return layers[path]


def _output_at(model: keras.Model, layer: keras.Layer, path: str, x: Any) -> Tensor:
    """What a layer returns, without running what comes after it."""
    reached = run_until(model, [layer], x)
    if reached is None:
        raise RemosError(f"Layer {path!r} is never called when model {model.name!r} runs: choose another.")
    _, _, outputs = reached
    if len(tree.flatten(outputs)) > 1:
        raise RemosError(f"Layer {path!r} returns several tensors: choose one that returns a single one.")
    return outputs


# The three backends ---------------------------------------------------------------------------------------------------


def _on_backend(by_backend: dict[str, Callable[..., Any]]) -> Callable[..., Any]:
    name = keras.backend.backend()
    if name not in by_backend:
        raise RemosError(f"Backend {name!r} has no gradients: use {', '.join(by_backend)} (KERAS_BACKEND).")
    return by_backend[name]


def _differentiate_on_tensorflow(function: Callable[..., Any], x: Any) -> tuple[Any, Any]:
    import tensorflow as tf

    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(x)
        scalar, result = function(x)
    gradients = tape.gradient(scalar, x, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    # That of an embedding table comes as a list of rows.
    return result, tree.map_structure(tf.convert_to_tensor, gradients)


def _differentiate_on_torch(function: Callable[..., Any], x: Any) -> tuple[Any, Any]:
    import torch

    # What is differentiated once more further out stays connected to what that is with respect to.
    inner = torch.is_grad_enabled() and all(tensor.requires_grad for tensor in tree.flatten(x))
    with torch.enable_grad():
        watched = x if inner else tree.map_structure(lambda tensor: tensor.detach().requires_grad_(), x)
        scalar, result = function(watched)
        inputs = tree.flatten(watched)
        if scalar.requires_grad:
            # Not `backward()`, which would write the gradients of weights into the model.
            gradients = torch.autograd.grad(
                scalar, inputs, create_graph=inner, allow_unused=True, materialize_grads=True
            )
        else:
            gradients = [torch.zeros_like(tensor) for tensor in inputs]
    if not inner:
        result = tree.map_structure(lambda tensor: tensor.detach(), result)
    return result, tree.pack_sequence_as(x, list(gradients))


def _differentiate_on_jax(function: Callable[..., Any], x: Any) -> tuple[Any, Any]:
    import jax

    (_, result), gradient = jax.value_and_grad(function, has_aux=True)(x)
    return result, gradient


# By one thread again, where a penalty on gradients is itself derived.
_REPLACING = threading.RLock()


@contextmanager
def _twice_on_tensorflow() -> Iterator[None]:
    """Layer normalization with its true second derivative: `tf.nn.moments` holds the mean constant in the variance.

    Keras reaches it by that name alone, so it is replaced for the whole process: by one thread at a time, and by what
    gives other threads the same values.
    """
    import tensorflow as tf

    def moments(x: Any, axes: Any, shift: Any = None, keepdims: bool = False, name: str | None = None) -> Any:
        mean = tf.reduce_mean(x, axes, keepdims=True)
        variance = tf.reduce_mean(tf.math.squared_difference(x, mean), axes, keepdims=True)
        return (mean, variance) if keepdims else (tf.squeeze(mean, axes), tf.squeeze(variance, axes))

    with _REPLACING:
        original = tf.nn.moments
        tf.nn.moments = moments
        try:
            yield
        finally:
            tf.nn.moments = original


def _twice_on_torch() -> AbstractContextManager[None]:
    """Attention in plain operations: the fused one has no second derivative."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    return sdpa_kernel(SDPBackend.MATH)


def _compile_on_tensorflow(function: Callable[..., Any]) -> Callable[..., Any]:
    import tensorflow as tf

    return tf.function(function, autograph=False)


def _compile_on_torch(function: Callable[..., Any]) -> Callable[..., Any]:
    import torch

    def run(weights: list[Any], args: Any) -> Any:
        # Nothing is kept for the gradients of weights.
        with torch.no_grad():
            return function([weight.detach() for weight in weights], args)

    return run


def _compile_on_jax(function: Callable[..., Any]) -> Callable[..., Any]:
    import jax

    return jax.jit(function)


_DIFFERENTIATE = {
    "tensorflow": _differentiate_on_tensorflow,
    "torch": _differentiate_on_torch,
    "jax": _differentiate_on_jax,
}
_COMPILE = {"tensorflow": _compile_on_tensorflow, "torch": _compile_on_torch, "jax": _compile_on_jax}
# What makes second derivatives exact.
_TWICE = {"tensorflow": _twice_on_tensorflow, "torch": _twice_on_torch, "jax": nullcontext}
