"""An attacker with data of their own: the teacher, fine-tuned on it, stands in for the students (a surrogate)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import keras
import numpy as np
from keras import ops

from keras_remos.defects.adversarial.projected import Objective
from keras_remos.defects.adversarial.transfer import TransferPGD
from keras_remos.defects.base import Preparation
from keras_remos.defects.prepared import Prepared
from keras_remos.errors import DataError, RemosError
from keras_remos.models.inputs import image_shape
from keras_remos.models.kernels import Tensor

# The least share of an image's side that diversity leaves of it.
SMALLEST = 0.9
# Keeps what diversity draws apart from what starts draw.
DIVERSITY = 2


@dataclass(frozen=True, kw_only=True)
class SurrogateAttack(TransferPGD):
    """Attacks a surrogate: the attacker's own fine-tune of the teacher, by gradients with momentum.

    It is the strongest attack that the teacher and some data allow. The data have to be of the students' classes, and
    should not be theirs: an attacker hardly has the very images that a student was trained on.

    Args:
        epsilon: See `ProjectedAttack`, as for `steps`, `step_size`, `random_start` and `head`.
        target: See `TransferPGD`, as for `recipe` and `epochs`.
        momentum: How much of a step's gradient counts in the next, from 0.
        restarts: From how many random starts each image is attacked. The one that the surrogate likes least counts.
        diversity: How often a step sees the images smaller and shifted, 0 to 1.

    Raises:
        RemosError: If an option is out of range.
        DataError: In `prepare`, if it gets no data.

    Example:
    ```python
    attack = SurrogateAttack(recipe=Recipe(learning_rate=0.05))
    prepared = attack.prepare(teacher, (x_attacker, y_attacker), space=PixelSpace("imagenet"))
    attack_set = attack.inputs(prepared, x_test, y_test)
    ```

    Reference:
        Y. Dong et al., Boosting Adversarial Attacks with Momentum, CVPR 2018. C. Xie et al., Improving Transferability
        of Adversarial Examples with Input Diversity, CVPR 2019.

    Note:
        Momentum adds up gradients divided by the mean of their absolute values, as Dong et al. do. Xie et al. enlarge
        images for a network of that larger size; here they shrink, to at least 0.9 of each side, and zeros (in what the
        model takes) stand around them. One draw holds for all images of a step.
    """

    steps: int = 20
    momentum: float = 1.0
    restarts: int = 1
    diversity: float = 0.0

    name: ClassVar[str] = "surrogate"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.momentum >= 0:
            raise RemosError(f"`momentum` must be at least 0, received {self.momentum!r}.")
        if isinstance(self.restarts, bool) or not isinstance(self.restarts, int) or self.restarts < 1:
            raise RemosError(f"`restarts` must be a whole number of at least 1, received {self.restarts!r}.")
        if self.restarts > 1 and not self.random_start:
            raise RemosError(f"`restarts={self.restarts}` needs `random_start`: without it all runs are the same.")
        if not 0 <= self.diversity <= 1:
            raise RemosError(f"`diversity` must be from 0 to 1, received {self.diversity!r}.")

    @property
    def memory(self) -> float:
        return self.momentum

    @property
    def starts(self) -> int:
        return self.restarts

    def make_prepared(self, teacher: keras.Model, how: Preparation) -> Prepared:
        """Fine-tunes the surrogate on the attacker's data.

        Raises:
            DataError: If there are none.
        """
        if how.data is None:
            raise DataError(
                "A surrogate is the teacher fine-tuned on the attacker's own data: give some (`attacker_data`), of the "
                "students' classes. Without data an attacker has the attacks on the teacher itself."
            )
        return super().make_prepared(teacher, how)

    def objective(self, model: keras.Model, example: np.ndarray) -> Objective:
        objective = super().objective(model, example)
        if not self.diversity:
            return objective
        if example.ndim != 4:
            raise RemosError(f"`diversity` is for images, received inputs of shape {example.shape[1:]}: leave it at 0.")
        return _Diverse(objective, self.diversity, example, channels_first=image_shape(model)[1] == "channels_first")


class _Diverse(Objective):
    """Another objective on images that are sometimes smaller and shifted."""

    def __init__(self, objective: Objective, share: float, example: np.ndarray, *, channels_first: bool) -> None:
        self.objective = objective
        self.share = share
        self.axes = (2, 3) if channels_first else (1, 2)
        self.sides = tuple(example.shape[axis] for axis in self.axes)
        self._seed = 0

    def begin(self, inputs: np.ndarray, labels: np.ndarray, rows: np.ndarray, seed: int) -> Any:
        self._seed = seed
        return self.objective.begin(inputs, labels, rows, seed)

    def draw(self, step: int | None) -> Any:
        # Of the seed and the step alone: neither the batch nor a restart changes it.
        generator = None if step is None else np.random.default_rng((self._seed, step, DIVERSITY))
        if generator is not None and generator.random() >= self.share:
            generator = None
        return [_shrunk(side, generator) for side in self.sides], self.objective.draw(step)

    def __call__(self, inputs: Tensor, state: Any, drawn: Any) -> tuple[Tensor, Any]:
        sides, of_objective = drawn
        for axis, (taken, shown) in zip(self.axes, sides, strict=True):
            shape = [-1 if place == axis else 1 for place in range(4)]
            inputs = ops.take(inputs, taken, axis=axis) * ops.reshape(shown, shape)
        return self.objective(inputs, state, of_objective)


def _shrunk(side: int, generator: np.random.Generator | None) -> tuple[np.ndarray, np.ndarray]:
    """For each pixel along a side which one it shows, and whether it shows any (1 or 0); without a generator itself."""
    places = np.arange(side, dtype=np.int32)
    if generator is None:
        return places, np.ones(side, np.float32)
    smaller = int(generator.integers(math.ceil(SMALLEST * side), side + 1))
    inside = places - generator.integers(side - smaller + 1)
    shown = (inside >= 0) & (inside < smaller)
    return np.where(shown, inside * side // smaller, 0).astype(np.int32), shown.astype(np.float32)
