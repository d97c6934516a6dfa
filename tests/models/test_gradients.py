"""Gradients against finite differences in float64 and against formulas worked out by hand."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import toys
from keras import layers as kl
from keras import ops
from toys import numpy

from keras_remos.errors import RemosError, TeacherError
from keras_remos.models.gradients import compiled, differentiate, is_out_of_memory
from keras_remos.models.input_gradients import value_and_grad, value_and_grad_at

RNG = np.random.default_rng(0)


def smooth_cnn() -> keras.Model:
    x = keras.Input((5, 5, 2))
    h = kl.Conv2D(3, 3, activation="tanh", name="conv")(x)
    h = kl.BatchNormalization(name="norm")(h)
    return toys.fill(keras.Model(x, kl.Dense(3, name="head")(kl.GlobalAveragePooling2D()(h))))


def smooth_cnn_by_hand(model: keras.Model, x: np.ndarray) -> np.ndarray:
    kernel, bias, gamma, beta, mean, variance, weights, head_bias = (w.astype("float64") for w in model.get_weights())
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(1, 2))
    h = np.tanh(np.einsum("nijcab,abco->nijo", windows, kernel) + bias)
    h = (h - mean) / np.sqrt(variance + 1e-3) * gamma + beta
    return h.mean(axis=(1, 2)) @ weights + head_bias


def differences(function: Callable[[np.ndarray], float], x: np.ndarray, step: float = 1e-5) -> np.ndarray:
    x = x.astype("float64")
    gradient = np.zeros_like(x)
    for place in np.ndindex(x.shape):
        moved = x.copy()
        moved[place] += step
        above = function(moved)
        moved[place] -= 2 * step
        gradient[place] = (above - function(moved)) / (2 * step)
    return gradient


def test_the_gradient_is_that_of_finite_differences_and_follows_the_weights() -> None:
    model, x = smooth_cnn(), RNG.normal(size=(2, 5, 5, 2)).astype("float32")
    score = value_and_grad(lambda x: ops.sum(ops.square(model(x, training=False))), model)
    for _ in range(2):
        value, gradient = score(x)

        def by_hand(x: np.ndarray) -> float:
            return float(np.sum(smooth_cnn_by_hand(model, x) ** 2))

        assert float(value) == pytest.approx(by_hand(x.astype("float64")), rel=1e-5)
        np.testing.assert_allclose(numpy(gradient), differences(by_hand, x), atol=1e-4, rtol=1e-4)
        model.get_layer("conv").kernel.assign(0.5 * numpy(model.get_layer("conv").kernel))
        model.get_layer("norm").moving_mean.assign([0.3, -0.2, 0.1])


@pytest.mark.parametrize("name", ["nested", "subclassed", "multi_head"])
def test_any_model_has_a_gradient(name: str) -> None:
    model, x, _ = toys.make(name, samples=2)
    direction = np.random.default_rng(1).normal(size=x.shape).astype("float32")
    score = value_and_grad(lambda x: ops.mean(ops.square(model(x, training=False))), model)
    _, gradient = score(x)
    step = 1e-3
    slope = (float(score(x + step * direction)[0]) - float(score(x - step * direction)[0])) / (2 * step)
    assert float(np.sum(numpy(gradient) * direction)) == pytest.approx(slope, rel=0.02, abs=1e-3)


def test_several_inputs_further_arguments_and_further_results() -> None:
    model, x, _ = toys.make("shared", samples=3)

    def score(x: list[Any], weight: Any, offsets: dict[str, Any]) -> tuple[Any, Any]:
        outputs = model(x, training=False)
        return weight * ops.sum(x[0] ** 3) + ops.sum(offsets["a"] * x[1]), {"outputs": outputs}

    offset = RNG.normal(size=x[1].shape).astype("float32")
    (value, more), gradient = value_and_grad(score, model)(x, 2.0, {"a": offset})
    assert float(value) == pytest.approx(2 * np.sum(x[0] ** 3) + np.sum(offset * x[1]), rel=1e-4)
    np.testing.assert_allclose(numpy(more["outputs"]), numpy(model(x, training=False)), atol=1e-5)
    np.testing.assert_allclose(numpy(gradient[0]), 6 * x[0] ** 2, atol=1e-4)
    np.testing.assert_allclose(numpy(gradient[1]), offset, atol=1e-6)


def test_what_has_no_influence_has_gradient_zero() -> None:
    x = np.ones((2, 3), "float32")
    assert not numpy(value_and_grad(lambda x: ops.sum(ops.zeros((2,))))(x)[1]).any()
    used, unused = value_and_grad(lambda pair: ops.sum(pair[0]))([x, x])[1]
    assert numpy(used).all() and not numpy(unused).any()


def test_the_model_stays_as_it_is_even_in_training() -> None:
    model, x = smooth_cnn(), RNG.normal(size=(4, 5, 5, 2)).astype("float32")
    before = [numpy(weight) for weight in model.weights]
    inference = float(value_and_grad(lambda x: ops.sum(model(x, training=False)), model)(x)[0])
    training = float(value_and_grad(lambda x: ops.sum(model(x, training=True)), model)(x)[0])
    assert training != inference
    for weight, old in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(numpy(weight), old)
    assert float(numpy(ops.sum(model(x, training=False)))) == pytest.approx(inference, rel=1e-4)


def test_a_step_is_compiled_once_for_a_shape() -> None:
    model, x = smooth_cnn(), RNG.normal(size=(2, 5, 5, 2)).astype("float32")
    runs = 0

    def step(x: Any, size: Any) -> Any:
        nonlocal runs
        runs += 1
        _, gradient = differentiate(lambda x: ops.sum(model(x, training=False)), x)
        return x + size * ops.sign(gradient)

    move = compiled(step, model)
    moved = [numpy(move(x, size)) for size in (0.5, 1.0, 1.5)]
    np.testing.assert_allclose(moved[2] - x, 3 * (moved[0] - x), atol=1e-5)
    assert runs == (3 if keras.backend.backend() == "torch" else 1)


@pytest.mark.parametrize(
    ("function", "x", "message"),
    [
        (lambda x: ops.sum(x), np.ones((2, 2), "int32"), "value_and_grad_at"),
        (lambda x: x * 2, np.ones((2, 2), "float32"), "Sum over the samples"),
        (lambda x: "no tensor", np.ones((2, 2), "float32"), "Only a scalar"),
    ],
)
def test_what_cannot_be_derived(function: Callable[..., Any], x: np.ndarray, message: str) -> None:
    with pytest.raises(RemosError, match=message):
        value_and_grad(function)(x)


def test_a_model_that_has_not_been_built() -> None:
    model = keras.Sequential([kl.Dense(3)])
    with pytest.raises(TeacherError, match="has not been built"):
        value_and_grad(lambda x: ops.sum(model(x)), model)


# At the output of an embedding ----------------------------------------------------------------------------------------


def token_model(width: int = 4) -> keras.Model:
    tokens = keras.Input((5,), dtype="int32")
    h = kl.Embedding(7, width, mask_zero=True, name="table")(tokens)
    return toys.fill(keras.Model(tokens, kl.Dense(2, name="head")(kl.GlobalAveragePooling1D()(h))))


def test_the_gradient_at_an_embedding_is_that_of_the_formula() -> None:
    model = token_model()
    tokens = np.array([[3, 1, 0, 0, 0], [2, 2, 5, 6, 1]], "int32")
    value, gradient = value_and_grad_at(model, "table", lambda out, which: ops.sum(out[:, which] ** 2))(tokens, 1)
    outputs = numpy(model(tokens))[:, 1]
    # The mean runs over tokens that are no padding; each gets an equal part of 2 y w.
    valid = (tokens != 0)[:, :, None]
    weights = numpy(model.get_layer("head").kernel)[:, 1]
    expected = 2 * outputs[:, None, None] * weights * valid / valid.sum(axis=1, keepdims=True)
    assert float(value) == pytest.approx(float(np.sum(outputs**2)), rel=1e-5)
    np.testing.assert_allclose(numpy(gradient), expected, atol=1e-4)
    model.get_layer("head").kernel.assign(2 * numpy(model.get_layer("head").kernel))
    assert float(numpy(ops.sum(model(tokens)[:, 1] ** 2))) != pytest.approx(float(value))


def test_the_gradient_at_a_nested_layer() -> None:
    inner = token_model()
    x = keras.Input((5,), dtype="int32")
    model = keras.Model(x, inner(x) * 3.0)
    tokens = np.array([[1, 2, 3, 4, 5]], "int32")
    outside = value_and_grad_at(model, f"{inner.name}/table", lambda out: ops.sum(out))(tokens)[1]
    inside = value_and_grad_at(inner, "table", lambda out: ops.sum(out))(tokens)[1]
    np.testing.assert_allclose(numpy(outside), 3 * numpy(inside), atol=1e-5)


def test_the_gradient_at_the_embedding_of_a_transformer() -> None:
    """Moving the row of a token that occurs once moves the score by the gradient at its place."""
    model, x, _ = toys.make("bert", samples=2)
    tokens = x["token_ids"]
    token = next(token for token in np.unique(tokens[0]) if np.sum(tokens == token) == 1 and token)
    place = tuple(np.argwhere(tokens == token)[0])
    assert x["padding_mask"][place]
    score = value_and_grad_at(model, "token_embedding", lambda out: ops.sum(ops.square(out["pooled_output"][:, :3])))
    gradient = numpy(score(x)[1])[place]
    table = model.get_layer("token_embedding").embeddings
    rows, moved = numpy(table.value).copy(), []
    for step in (1e-2, -1e-2):
        changed = rows.copy()
        changed[token] += step * gradient / np.linalg.norm(gradient)
        table.assign(changed)
        moved.append(float(score(x)[0]))
    assert (moved[0] - moved[1]) / 2e-2 == pytest.approx(float(np.linalg.norm(gradient)), rel=0.02)


def test_layers_that_have_no_gradient() -> None:
    model = token_model()
    with pytest.raises(RemosError, match="no layer 'tabel'.*'table'"):
        value_and_grad_at(model, "tabel", ops.sum)
    table = kl.Embedding(7, 3, name="table")
    a, b = keras.Input((2,), dtype="int32"), keras.Input((2,), dtype="int32")
    twice = keras.Model([a, b], kl.Add()([table(a), table(b)]))
    pair = [np.ones((1, 2), "int32")] * 2
    with pytest.raises(RemosError, match="called 2 times"):
        value_and_grad_at(twice, "table", ops.sum)(pair)


def test_the_backends_words_for_too_little_memory() -> None:
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 123 bytes"))
    assert is_out_of_memory(type("OutOfMemoryError", (RuntimeError,), {})("CUDA"))
    assert is_out_of_memory(type("ResourceExhaustedError", (Exception,), {})("OOM when allocating tensor"))
    assert is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"))
    assert not is_out_of_memory(ValueError("shapes differ"))
