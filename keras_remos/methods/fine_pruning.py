"""Fine-pruning: the channels that clean data hardly wake go, and the rest is fine-tuned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import keras
import numpy as np
from keras import ops

from keras_remos.data import batches
from keras_remos.errors import RemosError
from keras_remos.methods.distillation import over_positions
from keras_remos.methods.mag_prune import CONVOLUTION_LAYERS
from keras_remos.methods.method import FromTeacher
from keras_remos.models.features import FeatureExtractor
from keras_remos.models.heads import Forward
from keras_remos.models.kernels import SliceableLayer, Tensor
from keras_remos.models.layers import FOLLOWED, is_channels_first, weight_holders
from keras_remos.progress import track
from keras_remos.slicing.student import KeepReset
from keras_remos.training.task import Task
from keras_remos.training.trainer import Trainer, Training


@dataclass(frozen=True, kw_only=True)
class FinePruning(FromTeacher):
    """Takes out the channels of the last convolution that are least active on clean data, then fine-tunes.

    A backdoor is thought to live in channels that only a trigger wakes. The clean data are the student's own.

    Args:
        prune_ratio: The share of channels that goes, at least 0 and less than 1.
        layers: How many convolutions lose it, counted from the last one.
        keep_head: The student starts with the teacher's head, the attacker's if there is one, instead of a fresh one.

    Raises:
        RemosError: If an option is out of range; in training, if the model has no convolution but its head.
        DataError: In training, if the data can be read once only.

    Reference:
        K. Liu, B. Dolan-Gavitt and S. Garg, Fine-Pruning: Defending Against Backdooring Attacks on Deep Neural
        Networks, RAID 2018, section 3.

    Note:
        The authors prune the poisoned classifier itself, channel by channel, until its accuracy on validation data
        falls by 4 points. A student of other classes has no accuracy yet: the share is given. Activations are means
        over positions and samples, read behind batch normalization and activation; where a sum follows before any
        activation, what is below 0 counts as 0. A channel goes with its bias and with scale and shift of the batch
        normalization behind it, and stays away: in a residual network the shortcut still fills it.
    """

    prune_ratio: float = 0.5
    layers: int = 1

    name: ClassVar[str] = "fine-pruning"

    def __post_init__(self) -> None:
        if not 0 <= self.prune_ratio < 1:
            raise RemosError(f"`prune_ratio` must be at least 0 and less than 1, received {self.prune_ratio!r}.")
        if not isinstance(self.layers, int) or self.layers < 1:
            raise RemosError(f"`layers` must be a whole number of at least 1, received {self.layers!r}.")

    def fit(self, task: Task, trainer: Trainer) -> keras.Model:
        found = last_convolutions(task, self.layers)
        kept = {}
        for each, means in zip(found, mean_activations(task, found, verbose=trainer.verbose), strict=True):
            kept[each.path] = np.ones(means.size, bool)
            kept[each.path][np.argsort(means, kind="stable")[: round(self.prune_ratio * means.size)]] = False
        trainer.put_on_record(pruned={path: int(np.count_nonzero(~channels)) for path, channels in kept.items()})
        masks = {name: mask for each in found for name, mask in each.masks(kept[each.path]).items()}
        student = task.masked(masks, freeze=True)
        holders = dict(weight_holders(student))
        for each in found:
            for path in (each.path, *each.normalizations):
                silence(holders[path], kept[each.path])
        trainer.fit(Training(student))
        return student


@dataclass(frozen=True)
class Convolution:
    """A convolution whose channels may go.

    Args:
        path: Its path.
        layer: What its kernels' axes mean.
        read_at: The path of the layer behind which its channels are read.
        normalizations: Paths of the batch normalizations on the way there.
        clamped: Whether what is below 0 counts as 0 there.
    """

    path: str
    layer: SliceableLayer
    read_at: str
    normalizations: tuple[str, ...]
    clamped: bool

    def masks(self, kept: np.ndarray) -> dict[str, np.ndarray]:
        """For each kernel that writes the channels a boolean array of its shape: `True` where a weight is kept."""
        made = {}
        for kernel in self.layer.kernels:
            if kernel.writes == "output":
                sides = [size if axis in kernel.output_axes else 1 for axis, size in enumerate(kernel.view)]
                mask = np.broadcast_to(kept.reshape(sides), kernel.view)
                made[f"{self.path}/{kernel.name}"] = mask.reshape(kernel.variable.shape)
        return made


def last_convolutions(task: Task, count: int) -> list[Convolution]:
    """The last convolutions of a task's teacher, from the last one back.

    Raises:
        RemosError: If there is none but the head.
    """
    seen = Forward(task.teacher, task.example, head=task.head)
    found: dict[str, Convolution] = {}
    for index in reversed(range(len(seen.calls))):
        layer = seen.calls[index].layer
        path = seen.paths[id(layer)]
        if path in (*found, *task.heads) or len(found) == count or not isinstance(layer, CONVOLUTION_LAYERS):
            continue
        if id(layer) in seen.trace.sliceable:
            chain = seen.trace.follow(index, FOLLOWED)
            behind = [seen.trace.calls[place].layer for place in chain[1:]]
            normalizations = [each for each in behind if isinstance(each, keras.layers.BatchNormalization)]
            found[path] = Convolution(
                path,
                seen.trace.sliceable[id(layer)],
                read_at=seen.paths[id(behind[-1] if behind else layer)],
                normalizations=tuple(seen.paths[id(each)] for each in normalizations),
                clamped=not seen.trace.activations(chain),
            )
    if not found:
        raise RemosError(
            f"Model {task.teacher.name!r} has no convolution to prune but its head: fine-pruning needs one."
        )
    return list(found.values())


def mean_activations(task: Task, convolutions: list[Convolution], *, verbose: bool | str = "auto") -> list[np.ndarray]:
    """How active the channels of convolutions are on the training data, on average: for each one `(channels,)`."""
    reader = _Reader(task, convolutions)
    data = batches(task.plain_data())
    totals: list[Any] = [0.0] * len(convolutions)
    samples = 0
    with track(data, total=data.num_batches, description="Reading channels", verbose=verbose) as tracked:
        for x, _, _ in tracked:
            means = reader.predict_on_batch(x)
            totals = [total + mean.sum(axis=0, dtype=np.float64) for total, mean in zip(totals, means, strict=True)]
            samples += len(means[0])
    return [total / samples for total in totals]


class _Reader(keras.Model):
    """The means of channels over positions: for each convolution `(batch, channels)`."""

    def __init__(self, task: Task, convolutions: list[Convolution]) -> None:
        super().__init__(name="channels", autocast=False)
        self.teacher = task.teacher
        self.clamped = [each.clamped for each in convolutions]
        self.built = True
        self._extract = FeatureExtractor(task.teacher, [each.read_at for each in convolutions])

    def call(self, x: Any) -> list[Tensor]:
        _, tensors = self._extract(x)
        first = is_channels_first(self.teacher)
        seen = [ops.cast(tensor, "float32") for tensor in tensors]
        return [
            over_positions(ops.relu(tensor) if clamped else tensor, channels_first=first)
            for tensor, clamped in zip(seen, self.clamped, strict=True)
        ]


def silence(layer: keras.Layer, kept: np.ndarray) -> None:
    """Sets what a layer adds to channels, or multiplies them by, to zero where they go, and holds it there."""
    for name in ("bias", "gamma", "beta"):
        variable = getattr(layer, name, None)
        if variable is not None:
            zeros = np.zeros(kept.shape, "float32")
            variable.assign(np.where(kept, ops.convert_to_numpy(variable.value), zeros))
            variable.constraint = KeepReset(kept, zeros, first=variable.constraint)
