"""Stochastic weight averaging: the mean of the weights along the way, and batch normalization that fits it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_remos.data import batches
from keras_remos.models.kernels import Tensor
from keras_remos.models.layers import visible
from keras_remos.models.taps import capture
from keras_remos.progress import track


class WeightAverage:
    """The mean of a model's trainable weights over the ends of epochs.

    Args:
        model: The model.
    """

    def __init__(self, model: keras.Model) -> None:
        self._weights = model.trainable_weights
        self._count = 0
        self._means = [np.zeros(tuple(weight.shape)) for weight in self._weights]

    def update(self) -> None:
        """Counts the weights as they are now in."""
        self._count += 1
        for mean, weight in zip(self._means, self._weights, strict=True):
            mean += (ops.convert_to_numpy(ops.cast(weight.value, "float32")) - mean) / self._count

    def apply(self) -> None:
        """Gives the model the mean."""
        for mean, weight in zip(self._means, self._weights, strict=True):
            weight.assign(mean.astype("float32"))

    def arrays(self) -> dict[str, np.ndarray]:
        """For a checkpoint."""
        return {"count": np.array(self._count), **{str(index): mean for index, mean in enumerate(self._means)}}

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """From a checkpoint."""
        self._count = int(arrays["count"])
        means = [arrays[str(index)].copy() for index in range(len(self._means))]
        if any(mean.shape != own.shape for mean, own in zip(means, self._means, strict=True)):
            raise ValueError("a mean is of another shape than its weights")
        self._means = means


def reestimate_batch_norm(model: keras.Model, data: Any, *, verbose: bool | str = "auto") -> None:
    """Gives each batch normalization the statistics that its inputs have now.

    Needed after weights were changed from outside, as by averaging: the moving statistics are of weights that no
    longer are. Each batch is normalized by its own statistics on the way, as in training; dropout is off. The new
    moving statistics are the means over all batches.

    Args:
        model: Changed in place.
        data: What the model was trained on: whatever `fit` takes and can be read again.
        verbose: Progress on stderr.
    """
    norms = [layer for _, layer in visible(model) if isinstance(layer, keras.layers.BatchNormalization)]
    if not norms:
        return
    statistics = _Statistics(model, norms)
    source = batches(data)
    total, samples = np.zeros(0), 0
    with track(source, total=source.num_batches, description="Batch statistics", verbose=verbose) as tracked:
        for x, _, _ in tracked:
            size = len(keras.tree.flatten(x)[0])
            batch = np.asarray(statistics.predict_on_batch(x), np.float64)
            total = size * batch if samples == 0 else total + size * batch
            samples += size
    means = iter(np.split(total / samples, np.cumsum([norm.moving_mean.shape[0] for norm in norms for _ in "mv"])[:-1]))
    for norm in norms:
        norm.moving_mean.assign(next(means).astype("float32"))
        norm.moving_variance.assign(next(means).astype("float32"))


class _Statistics(keras.Model):
    """Mean and variance of what enters each batch normalization when each normalizes by those of the batch."""

    def __init__(self, model: keras.Model, norms: list[keras.layers.BatchNormalization]) -> None:
        super().__init__(name="statistics")
        self.model = model
        self.built = True
        self._norms = norms

    def call(self, x: Any) -> Tensor:
        found: dict[int, list[Tensor]] = {}

        def normalize(layer: keras.Layer, inputs: Tensor, outputs: Tensor, kwargs: dict[str, Any]) -> Tensor:
            axis = layer.axis % len(inputs.shape)
            others = [index for index in range(len(inputs.shape)) if index != axis]
            mean, variance = ops.moments(ops.cast(inputs, "float32"), axes=others)
            # Of a layer that is called several times, the last call counts.
            found[id(layer)] = [mean, variance]
            shape = [-1 if index == axis else 1 for index in range(len(inputs.shape))]
            factor = ops.rsqrt(variance + layer.epsilon)
            factor = factor * layer.gamma if layer.scale else factor
            shift = layer.beta - mean * factor if layer.center else -mean * factor
            normalized = ops.cast(inputs, "float32") * ops.reshape(factor, shape) + ops.reshape(shift, shape)
            return ops.cast(normalized, outputs.dtype)

        with capture(self._norms, normalize):
            self.model(x, training=False)
        return ops.concatenate([part for norm in self._norms for part in found[id(norm)]])
