"""What each backend does in its own way: derive, compile, say what is made from what. No other file imports one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import keras
from keras import ops, tree

from keras_remos.errors import RemosError, TeacherError
from keras_remos.models.kernels import Tensor

# Of the errors that the backends raise when memory runs out, in their class names or messages, in lower case.
_OUT_OF_MEMORY = (
    *("outofmemory", "out of memory", "resource_exhausted", "resourceexhausted"),
    *("can't allocate memory", "not enough memory", "status_alloc_failed"),
)


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


def data_flow(run: Callable[[Any, Callable[[Tensor], Any]], Any], x: Any) -> tuple[list[Any], dict[Any, set[Any]]]:
    """Which tensors of a computation are made from which.

    Args:
        run: Called as `run(x, mark)` while Keras works out shapes (in a layer's `call` on symbolic tensors). It calls
            `mark` with every tensor that is of interest.
        x: Tensors.

    Returns:
        A key for each marked tensor, in that order: two have the same key where one is a copy of the other, or the
        same values in another type. And for each key those of the tensors that it is computed from.
    """
    marked, sources, copies = _on_backend(_FLOW)(run, x)

    def original(key: Any) -> Any:
        while key in copies:
            key = copies[key]
        return key

    made: dict[Any, set[Any]] = {}
    for key, of in sources.items():
        made.setdefault(original(key), set()).update(map(original, of))
    return list(map(original, marked)), made


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of a backend says that the device's or the computer's memory does not suffice."""
    said = f"{type(error).__name__} {error}".lower()
    return isinstance(error, MemoryError) or any(mark in said for mark in _OUT_OF_MEMORY)


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


_Flow = tuple[list[Any], dict[Any, list[Any]], dict[Any, Any]]


def _flow_on_tensorflow(run: Callable[..., Any], x: Any) -> _Flow:
    marked: list[Any] = []
    run(x, marked.append)

    def key(tensor: Any) -> Any:
        return (id(tensor.graph), tensor.name) if hasattr(tensor, "op") else id(tensor)

    sources: dict[Any, list[Any]] = {}
    copies, ahead = {}, list(marked)
    while ahead:
        tensor = ahead.pop()
        if key(tensor) in sources or not hasattr(tensor, "op"):
            continue
        inputs = list(tensor.op.inputs)
        sources[key(tensor)] = list(map(key, inputs))
        if tensor.op.type in ("Cast", "Identity", "StopGradient", "PreventGradient"):
            copies[key(tensor)] = key(inputs[0])
        ahead += inputs
    return list(map(key, marked)), sources, copies


def _flow_on_torch(run: Callable[..., Any], x: Any) -> _Flow:
    from torch import Tensor as TorchTensor
    from torch.utils._python_dispatch import TorchDispatchMode

    marked: list[Any] = []
    sources: dict[Any, list[Any]] = {}
    copies: dict[Any, Any] = {}
    # While a tensor lives, no other has its id.
    alive: list[Any] = []

    class Recorder(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            outputs = function(*args, **(kwargs or {}))
            taken, made = (
                [leaf for leaf in tree.flatten(side) if isinstance(leaf, TorchTensor)]
                for side in ([args, kwargs], outputs)
            )
            alive.extend([*taken, *made])
            for tensor in made:
                sources.setdefault(id(tensor), []).extend(map(id, taken))
                copied = function.overloadpacket.__name__ in ("_to_copy", "clone", "detach", "alias", "lift_fresh")
                if copied and tensor is not taken[0]:
                    copies[id(tensor)] = id(taken[0])
            return outputs

    with Recorder():
        run(x, marked.append)
    return list(map(id, marked)), sources, copies


def _flow_on_jax(run: Callable[..., Any], x: Any) -> _Flow:
    import jax
    from jax import ad_checkpoint

    name: Callable[..., Any] = ad_checkpoint.checkpoint_name
    marks = 0

    def mark(tensor: Any) -> None:
        nonlocal marks
        # Leaves an equation that names the tensor, however deep inside other functions this is.
        name(tensor, f"remos {marks}")
        marks += 1

    named: dict[int, Any] = {}
    sources: dict[Any, list[Any]] = {}
    copies: dict[Any, Any] = {}

    def variables(found: Any) -> list[Any]:
        return [variable for variable in found if not hasattr(variable, "val")]  # no literals

    def read(jaxpr: Any) -> bool:
        """Whether anything is named in it."""
        before = len(named)
        for equation in jaxpr.eqns:
            taken, made = variables(equation.invars), variables(equation.outvars)
            kind = equation.primitive.name
            parameters = jax.tree.leaves(list(equation.params.values()), is_leaf=lambda p: _inner_jaxpr(p) is not None)
            inner = [part for part in map(_inner_jaxpr, parameters) if part is not None]
            if kind == "name" and str(equation.params["name"]).startswith("remos "):
                named[int(equation.params["name"].split()[1])] = taken[0]
            if kind in ("convert_element_type", "copy", "name") and taken:
                copies[made[0]] = taken[0]
            # One that is called twice may be shared: its variables stand for one call only where they were named.
            within = [part for part in inner if read(part)]
            for part in within:
                for variable in part.invars:
                    sources.setdefault(variable, []).extend(taken)
            for variable in made:
                sources.setdefault(variable, []).extend(
                    [*taken, *(v for part in within for v in variables(part.outvars))]
                )
        return len(named) > before

    read(jax.make_jaxpr(lambda x: run(x, mark))(x).jaxpr)
    # What was named in a function that left no trace is linked to nothing.
    return [named.get(number, -1 - number) for number in range(marks)], sources, copies


def _inner_jaxpr(parameter: Any) -> Any:
    """The function that a parameter of an equation holds, if it holds one."""
    found = getattr(parameter, "jaxpr", parameter)
    return found if hasattr(found, "eqns") else None


_DIFFERENTIATE = {
    "tensorflow": _differentiate_on_tensorflow,
    "torch": _differentiate_on_torch,
    "jax": _differentiate_on_jax,
}
_COMPILE = {"tensorflow": _compile_on_tensorflow, "torch": _compile_on_torch, "jax": _compile_on_jax}
_FLOW = {"tensorflow": _flow_on_tensorflow, "torch": _flow_on_torch, "jax": _flow_on_jax}
# What makes second derivatives exact.
_TWICE = {"tensorflow": _twice_on_tensorflow, "torch": _twice_on_torch, "jax": nullcontext}
