"""How much each channel of a teacher's features matters to a task: DELTA's attention."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_remos.data import batches
from keras_remos.methods.distillation import channel_shape, over_positions
from keras_remos.models.features import PENULTIMATE, FeatureExtractor, penultimate
from keras_remos.models.heads import Forward
from keras_remos.models.kernels import Tensor
from keras_remos.models.layers import holds_kernel, is_channels_first
from keras_remos.progress import track
from keras_remos.training.task import Task

# The classifier on the teacher's frozen features is a linear one: enough steps to settle, whatever the task.
_HEAD_STEPS = 500
_HEAD_BATCH = 256

TEMPERATURE = 5.0
"""What losses of deviation 1 are divided by before the softmax (the released code)."""


def channel_attention(
    task: Task, teacher: keras.Model, paths: Sequence[str], *, samples: int, verbose: bool | str = "auto"
) -> dict[str, np.ndarray]:
    """Weighs the channels of feature layers by how much the task's loss grows when each of them is silent.

    A linear classifier is fitted on what enters the teacher's head; then the loss is measured with one channel after
    the other set to zero. Within a layer these losses are brought to mean 0 and deviation 1 and divided by
    `TEMPERATURE`; their softmax are the weights.

    Args:
        task: Gives data, classes and seed.
        teacher: A copy that does not train.
        paths: The feature layers.
        samples: On how many training samples the loss is measured.
        verbose: Progress on stderr.

    Returns:
        For each path one weight a channel, positive and of mean 1: the softmax, times the number of channels.

    Reference:
        Li et al., DELTA: Deep Learning Transfer using Feature Map with Attention, ICLR 2019, section 3.3; scaling and
        temperature are those of the authors' released code (github.com/lixingjian/DELTA).

    Note:
        The classifier is trained by Adam until it settles, theirs by ten epochs of SGD; losses are of unaugmented
        samples, theirs of augmented ones. Where the layer has a bias, it is silent too.
    """
    data = batches(task.plain_data())
    reader = _Penultimate(teacher, task)
    pairs = [(reader.predict_on_batch(x), task.class_ids(y)) for x, y, _ in data]
    head = _fit_head(np.concatenate([f for f, _ in pairs]), np.concatenate([y for _, y in pairs]), task)
    x, y = task.some_samples(samples)
    _, found = FeatureExtractor(teacher, paths)(keras.tree.map_structure(lambda leaf: leaf[:1], x))
    channels_first = is_channels_first(teacher)
    channels = {
        path: int(tensor.shape[channel_shape(len(tensor.shape), channels_first=channels_first).index(-1)])
        for path, tensor in zip(paths, found, strict=True)
    }
    silenced = _Silenced(teacher, head, channels, task)
    total = sum(channels.values())
    losses = np.zeros(total)
    with track(range(total), total=total, description="Weighing channels", verbose=verbose) as tracked:
        for channel in tracked:
            heard = np.ones(total, np.float32)
            heard[channel] = 0
            losses[channel] = silenced.mean_loss(x, y, heard, batch_size=task.recipe.batch_size)
    split = np.split(losses, np.cumsum(list(channels.values()))[:-1])
    return {path: weights_of(each) for path, each in zip(channels, split, strict=True)}


def weights_of(losses: np.ndarray) -> np.ndarray:
    """The weights of a layer's channels, from the loss without each of them; all 1 if these are equal."""
    centred = losses - losses.mean()
    deviation = losses.std()
    exponentials = np.exp(centred / (TEMPERATURE * deviation)) if deviation > 0 else np.ones(losses.shape)
    return exponentials / exponentials.mean()


def last_kernels(task: Task) -> list[str]:
    """The layers that DELTA's attention reads: of each block the last one with a kernel, as it returns it.

    In a residual network these are the last convolutions of the stages, before batch normalization and the sum.
    """
    seen = Forward(task.teacher, task.example, head=task.head)
    paths = [seen.paths[id(call.layer)] for call in seen.calls]
    found = []
    for end in task.feature_paths(None):
        last = max(index for index, path in enumerate(paths) if path == end)
        kernels = [paths[index] for index in range(last + 1) if holds_kernel(seen.calls[index].layer)]
        found.append(kernels[-1] if kernels else end)
    return list(dict.fromkeys(found))


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

    def __init__(self, teacher: keras.Model, task: Task) -> None:
        super().__init__(name="features")
        self.teacher = teacher
        self.built = True
        self._extract = penultimate(teacher, task.example, head=task.head)

    def call(self, x: Any) -> Tensor:
        _, [features] = self._extract(x)
        return over_positions(ops.cast(features, "float32"), channels_first=is_channels_first(self.teacher))


class _Silenced(keras.Model):
    """The loss of a classifier on a teacher's features when channels are silent."""

    def __init__(self, teacher: keras.Model, head: keras.Model, channels: Mapping[str, int], task: Task) -> None:
        super().__init__(name="silenced")
        self.teacher = teacher
        self.head = head
        self.built = True
        self._places = dict(zip(channels, np.cumsum([0, *channels.values()]).tolist(), strict=False))
        self._channels = dict(channels)
        self._extract = FeatureExtractor(teacher, [*channels, PENULTIMATE], example=task.example, head=task.head)

    def call(self, inputs: Mapping[str, Any]) -> Tensor:
        channels_first = is_channels_first(self.teacher)

        def silence(path: str, feature: Tensor) -> Tensor:
            start, count = self._places[path], self._channels[path]
            _, *sides = channel_shape(len(feature.shape), channels_first=channels_first)
            shape = (-1, *(count if side == -1 else side for side in sides))
            return feature * ops.cast(ops.reshape(inputs["heard"][:, start : start + count], shape), feature.dtype)

        _, tensors = self._extract(inputs["x"], pass_on=silence)
        scores = self.head(over_positions(ops.cast(tensors[-1], "float32"), channels_first=channels_first))
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
