"""`Distillation`: a student whose features are held near the teacher's while it trains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_remos.errors import RemosError
from keras_remos.models.features import FeatureExtractor
from keras_remos.models.kernels import Tensor
from keras_remos.models.layers import is_channels_first
from keras_remos.training.trainer import Training


class Distillation(Training):
    """Adds to the loss how far the student's features are from the teacher's.

    One forward pass of the student and one of the teacher make a step. The distance in each feature layer is the mean
    square of the difference. With `attention` it is DELTA's: half the square of the difference, its mean over
    positions times the channel's weight, summed over channels and over the samples of the batch. That is larger than
    the mean square by half the number of channels times the batch size, and grows with both.

    Args:
        student: The student.
        teacher: Of the same architecture up to the head; a copy that does not train.
        paths: The feature layers.
        weight: What the sum over the layers is multiplied by.
        attention: For each path the weights of its channels, of mean 1.
        dropout: Share of the channels of each feature map that the rest of the student does not get to see, in
            training. Features are compared before. It is no part of the student.
        example: A batch of inputs, for models without symbolic ones.

    Raises:
        RemosError: If `weight` is negative or `dropout` no share.
    """

    def __init__(
        self,
        student: keras.Model,
        teacher: keras.Model,
        *,
        paths: Sequence[str],
        weight: float,
        attention: Mapping[str, np.ndarray] | None = None,
        dropout: float = 0.0,
        example: Any = None,
    ) -> None:
        if not weight >= 0:
            raise RemosError(f"`feature_weight` must be at least 0, received {weight!r}.")
        if not 0 <= dropout < 1:
            raise RemosError(f"`dropout` must be at least 0 and less than 1, received {dropout!r}.")
        super().__init__(student)
        self.teacher = teacher
        self.weight = weight
        self.dropout = dropout
        self.generator = keras.random.SeedGenerator(0)  # each epoch starts it anew
        self._channels_first = is_channels_first(student)
        self.attention = dict(attention or {})
        self._of_student = FeatureExtractor(student, paths, example=example)
        self._of_teacher = FeatureExtractor(teacher, paths, example=example)

    def call(self, x: Any, training: bool = False) -> Any:
        if not training:
            return super().call(x)
        _, targets = self._of_teacher(x)
        drop = self._drop_channels if self.dropout else None
        outputs, features = self._of_student(x, training=True, pass_on=drop)
        distances = [self._distance(*each) for each in zip(self._of_student.paths, features, targets, strict=True)]
        self.add_loss(self.weight * sum(distances[1:], start=distances[0]))
        return outputs

    def _distance(self, path: str, feature: Tensor, target: Tensor) -> Tensor:
        difference = ops.cast(feature, "float32") - ops.stop_gradient(ops.cast(target, "float32"))
        squares = ops.square(difference)
        if not self.attention:
            return ops.mean(squares)
        weights = ops.convert_to_tensor(self.attention[path], "float32")
        return ops.sum(over_positions(squares, channels_first=self._channels_first) * weights) / 2

    def _drop_channels(self, path: str, feature: Tensor) -> Tensor:
        """Spatial dropout: a channel goes or stays as a whole."""
        shape = channel_shape(len(feature.shape), channels_first=self._channels_first)
        sides = [size if side == -1 else 1 for size, side in zip(feature.shape, shape, strict=True)]
        ones = ops.ones((ops.shape(feature)[0], *sides[1:]))
        kept = keras.random.dropout(ones, self.dropout, seed=self.generator)
        return feature * ops.cast(kept, feature.dtype)


def channel_shape(rank: int, *, channels_first: bool) -> tuple[int, ...]:
    """The shape that one value a channel is given to go with a feature tensor of that rank."""
    axis = 1 if channels_first and rank > 2 else rank - 1
    return tuple(-1 if index == axis else 1 for index in range(rank))


def over_positions(features: Tensor, *, channels_first: bool) -> Tensor:
    """The mean of each channel of each sample over all positions, shape `(batch, channels)`."""
    shape = channel_shape(len(features.shape), channels_first=channels_first)
    positions = [axis for axis, side in enumerate(shape) if side == 1 and axis > 0]
    return ops.mean(features, axis=positions) if positions else features
