"""How much each channel of a teacher's features matters to a task: DELTA's attention."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_remos.data import batches
from keras_remos.methods.distillation import channel_shape
from keras_remos.models.features import PENULTIMATE, FeatureExtractor, penultimate
from keras_remos.models.kernels import Tensor
from keras_remos.models.layers import is_channels_first
from keras_remos.progress import track
from keras_remos.training.task import Task

# The classifier on the teacher's frozen features is a linear one: enough steps to settle, whatever the task.
_HEAD_STEPS = 500
_HEAD_BATCH = 256


def channel_attention(
    task: Task, teacher: keras.Model, paths: Sequence[str], *, samples: int, verbose: bool | str = "auto"
) -> dict[str, np.ndarray]:
    """Weighs the channels of feature layers by how much the task's loss grows when each of them is silent.

    A linear classifier is fitted on what enters the teacher's head; then the loss is measured with one channel after
    the other set to zero.

    Args:
        task: Gives data, classes and seed.
        teacher: A copy that does not train.
        paths: The feature layers.
        samples: On how many training samples the loss is measured.
        verbose: Progress on stderr.

    Returns:
        For each path one weight a channel, positive and of mean 1: the softmax of the losses, times their number.

    Reference:
        Li et al., DELTA: Deep Learning Transfer using Feature Map with Attention, ICLR 2019, section 3.3.
    """
    data = batches(task.plain_data())
    reader = _Penultimate(teacher, task.example)
    pairs = [(reader.predict_on_batch(x), task.class_ids(y)) for x, y, _ in data]
    head = _fit_head(np.concatenate([f for f, _ in pairs]), np.concatenate([y for _, y in pairs]), task)
    x, y = task.some_samples(samples)
    _, found = FeatureExtractor(teacher, paths)(keras.tree.map_structure(lambda leaf: leaf[:1], x))
    channels_first = is_channels_first(teacher)
    channels = {
        path: int(tensor.shape[channel_shape(len(tensor.shape), channels_first=channels_first).index(-1)])
        for path, tensor in zip(paths, found, strict=True)
    }
    silenced = _Silenced(teacher, head, channels, task.example)
    total = sum(channels.values())
    losses = np.zeros(total)
    for channel in track(range(total), total=total, description="Weighing channels", verbose=verbose):
        heard = np.ones(total, np.float32)
        heard[channel] = 0
        losses[channel] = silenced.mean_loss(x, y, heard, batch_size=task.recipe.batch_size)
    split = np.split(losses, np.cumsum(list(channels.values()))[:-1])
    return {path: _softmax(each) * each.size for path, each in zip(channels, split, strict=True)}


def _softmax(values: np.ndarray) -> np.ndarray:
    exponentials = np.exp(values - values.max())
    return exponentials / exponentials.sum()


def _pooled(features: Tensor, *, channels_first: bool) -> Tensor:
    """One value a channel."""
    shape = channel_shape(len(features.shape), channels_first=channels_first)
    positions = [axis for axis, side in enumerate(shape) if side == 1 and axis > 0]
    return ops.mean(ops.cast(features, "float32"), axis=positions) if positions else ops.cast(features, "float32")


def _fit_head(features: np.ndarray, labels: np.ndarray, task: Task) -> keras.Model:
    start = keras.initializers.GlorotUniform(seed=task.seed)
    head = keras.Sequential(
        [keras.Input(features.shape[1:]), keras.layers.Dense(task.num_classes, kernel_initializer=start)]
    )
    head.compile(keras.optimizers.Adam(0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    rng = np.random.default_rng(task.seed)
    for _ in range(_HEAD_STEPS):
        chosen = rng.integers(len(labels), size=_HEAD_BATCH)
        head.train_on_batch(features[chosen], labels[chosen])
    head.trainable = False
    return head


class _Penultimate(keras.Model):
    """What enters a teacher's head."""

    def __init__(self, teacher: keras.Model, example: Any) -> None:
        super().__init__(name="features")
        self.teacher = teacher
        self.built = True
        self._extract = penultimate(teacher, example)

    def call(self, x: Any) -> Tensor:
        _, [features] = self._extract(x)
        return _pooled(features, channels_first=is_channels_first(self.teacher))


class _Silenced(keras.Model):
    """The loss of a classifier on a teacher's features when channels are silent."""

    def __init__(self, teacher: keras.Model, head: keras.Model, channels: Mapping[str, int], example: Any) -> None:
        super().__init__(name="silenced")
        self.teacher = teacher
        self.head = head
        self.built = True
        self._places = dict(zip(channels, np.cumsum([0, *channels.values()]).tolist(), strict=False))
        self._channels = dict(channels)
        self._extract = FeatureExtractor(teacher, [*channels, PENULTIMATE], example=example)

    def call(self, inputs: Mapping[str, Any]) -> Tensor:
        channels_first = is_channels_first(self.teacher)

        def silence(path: str, feature: Tensor) -> Tensor:
            start, count = self._places[path], self._channels[path]
            _, *sides = channel_shape(len(feature.shape), channels_first=channels_first)
            shape = (-1, *(count if side == -1 else side for side in sides))
            return feature * ops.cast(ops.reshape(inputs["heard"][:, start : start + count], shape), feature.dtype)

        _, tensors = self._extract(inputs["x"], pass_on=silence)
        scores = self.head(_pooled(tensors[-1], channels_first=channels_first))
        return keras.losses.sparse_categorical_crossentropy(inputs["y"], scores, from_logits=True)

    def mean_loss(self, x: Any, y: np.ndarray, heard: np.ndarray, *, batch_size: int) -> float:
        """The mean over samples, with the channels silent where `heard` is 0."""
        total = 0.0
        for start in range(0, len(y), batch_size):
            part = slice(start, start + batch_size)
            batch = keras.tree.map_structure(lambda leaf, part=part: leaf[part], x)
            rows = np.broadcast_to(heard, (len(y[part]), heard.size))
            total += float(self.predict_on_batch({"x": batch, "y": y[part], "heard": rows}).sum())
        return total / len(y)
