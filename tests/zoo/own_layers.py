"""Layers and models of their own, as people write them. All can be saved, and opened where this file is imported."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers as kl
from keras import ops

registered = keras.saving.register_keras_serializable("zoo")


@registered
class Block(kl.Layer):
    """A transformer block whose layers have no names."""

    def __init__(self, size: int = 8, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.size = size
        self.attend = kl.MultiHeadAttention(2, size // 2)
        self.one, self.two = kl.LayerNormalization(), kl.LayerNormalization()
        self.wide, self.narrow = kl.Dense(2 * size, activation="gelu"), kl.Dense(size)

    def build(self, shape: Any) -> None:
        self.attend.build(shape, shape)
        self.one.build(shape)
        self.two.build(shape)
        self.wide.build(shape)
        self.narrow.build((*shape[:-1], 2 * self.size))
        self.built = True

    def call(self, x: Any) -> Any:
        h = self.one(x + self.attend(x, x))
        return self.two(h + self.narrow(self.wide(h)))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "size": self.size}


@registered
class Positions(kl.Layer):
    """A vector for each position, added."""

    def build(self, shape: Any) -> None:
        self.table = self.add_weight(shape=tuple(shape[1:]), initializer="uniform", name="table")

    def call(self, x: Any) -> Any:
        return x + self.table


@registered
class ClassToken(kl.Layer):
    """A vector in front of a sequence."""

    def build(self, shape: Any) -> None:
        self.token = self.add_weight(shape=(1, 1, shape[-1]), initializer="uniform", name="token")

    def call(self, x: Any) -> Any:
        return ops.concatenate([ops.broadcast_to(self.token, (ops.shape(x)[0], 1, x.shape[-1])), x], axis=1)


@registered
class Patches(kl.Layer):
    """Squares of an image as a sequence."""

    def call(self, x: Any) -> Any:
        cut = ops.image.extract_patches(x, 4)
        return ops.reshape(cut, (-1, cut.shape[1] * cut.shape[2], cut.shape[3]))


@registered
class ScaleNorm(kl.Layer):
    """A root mean square normalization, written out."""

    def build(self, shape: Any) -> None:
        self.scale = self.add_weight(shape=(shape[-1],), initializer="ones", name="scale")

    def call(self, x: Any) -> Any:
        return x * self.scale * ops.rsqrt(ops.mean(ops.square(x), axis=-1, keepdims=True) + 1e-6)


@registered
class Linear(kl.Layer):
    """A dense layer, written out: the first that everybody writes."""

    def __init__(self, units: int = 6, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = units

    def build(self, shape: Any) -> None:
        self.w = self.add_weight(shape=(shape[-1], self.units), initializer="glorot_uniform", name="w")
        self.b = self.add_weight(shape=(self.units,), initializer="zeros", name="b")

    def call(self, x: Any) -> Any:
        return ops.matmul(x, self.w) + self.b

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units}


@registered
class Experts(kl.Layer):
    """All experts in one kernel of rank 3, mixed by a router."""

    def __init__(self, units: int = 6, count: int = 3, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units, self.count = units, count
        self.router = kl.Dense(count, activation="softmax")

    def build(self, shape: Any) -> None:
        self.router.build(shape)
        size = (self.count, shape[-1], self.units)
        self.kernels = self.add_weight(shape=size, initializer="glorot_uniform", name="kernels")
        self.built = True

    def call(self, x: Any) -> Any:
        return ops.einsum("bi,eio,be->bo", x, self.kernels, self.router(x))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units, "count": self.count}


@registered
class Mixture(kl.Layer):
    """Experts that are layers: each sample goes through all, and the two that the router likes best count."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.router = kl.Dense(3)
        self.experts = [kl.Dense(6, activation="relu") for _ in range(3)]

    def build(self, shape: Any) -> None:
        for layer in (self.router, *self.experts):
            layer.build(shape)
        self.built = True

    def call(self, x: Any) -> Any:
        scores = self.router(x)
        best = ops.top_k(scores, 2)[0][:, -1:]
        shares = ops.softmax(ops.where(scores >= best, scores, -1e9))
        return sum(shares[:, i : i + 1] * expert(x) for i, expert in enumerate(self.experts))


class _Within(kl.Layer):
    """A dense layer that is called inside a function that the backend traces by itself."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.inner = kl.Dense(6, activation="tanh")

    def build(self, shape: Any) -> None:
        self.inner.build((None, 6))
        self.built = True


@registered
class Scan(_Within):
    def call(self, x: Any) -> Any:
        def step(state: Any, now: Any) -> Any:
            state = self.inner(state + now)
            return state, state

        return ops.scan(step, ops.zeros_like(x[:, 0]), ops.transpose(x, (1, 0, 2)))[0]

    def compute_output_shape(self, shape: Any) -> Any:
        return (shape[0], 6)


@registered
class While(_Within):
    def call(self, x: Any) -> Any:
        def step(index: Any, h: Any) -> Any:
            return index + 1, self.inner(h)

        return ops.while_loop(lambda index, h: index < 3, step, (0, x), maximum_iterations=3)[1]

    def compute_output_shape(self, shape: Any) -> Any:
        return shape


@registered
class Cond(_Within):
    def call(self, x: Any) -> Any:
        return ops.cond(ops.mean(x) > 0, lambda: self.inner(x), lambda: x * 0.5)

    def compute_output_shape(self, shape: Any) -> Any:
        return shape


@registered
class Mapped(_Within):
    def call(self, x: Any) -> Any:
        return ops.vectorized_map(lambda one: self.inner(one[None])[0], x)

    def compute_output_shape(self, shape: Any) -> Any:
        return shape


@registered
class OwnBatch(keras.Model):
    """Takes batches of four only, as its reshape says."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.first, self.second = kl.Dense(6, activation="relu"), kl.Dense(5, activation="relu")
        self.head = kl.Dense(3, activation="softmax")

    def build(self, shape: Any) -> None:
        self.first.build((None, 3))
        self.second.build((None, 12))
        self.head.build((None, 5))
        self.built = True

    def call(self, x: Any) -> Any:
        h = self.first(ops.reshape(x, (4, 2, 3)))
        return self.head(self.second(ops.reshape(h, (4, 12))))

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name}


@registered
class Encoder(keras.Model):
    """Subclassed, of blocks without names."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.blocks = [Block(), Block()]
        self.pool, self.head = kl.GlobalAveragePooling1D(), kl.Dense(3, activation="softmax")

    def build(self, shape: Any) -> None:
        for block in self.blocks:
            block.build(shape)
        self.head.build((None, shape[-1]))
        self.built = True

    def call(self, x: Any) -> Any:
        for block in self.blocks:
            x = block(x)
        return self.head(self.pool(x))

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name}


@registered
class Sampling(kl.Layer):
    """A variational autoencoder's draw: the mean at rest."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.generator = keras.random.SeedGenerator(0)

    def call(self, inputs: Any, training: bool = False) -> Any:
        mean, log_variance = inputs
        if not training:
            return mean
        return mean + ops.exp(log_variance / 2) * keras.random.normal(ops.shape(mean), seed=self.generator)
