"""Feature displacement: images whose features are as far from the clean ones as they get."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import keras
import numpy as np
from keras import ops

from keras_remos.defects.adversarial.projected import Objective, ProjectedAttack
from keras_remos.errors import RemosError
from keras_remos.models.features import PENULTIMATE, FeatureExtractor, find_features
from keras_remos.models.gradients import compiled
from keras_remos.models.kernels import Tensor

MIDDLE = "middle"
"""Stands for the middle one of a teacher's feature layers (see `find_features`) wherever `layer` is expected."""


@dataclass(frozen=True, kw_only=True)
class DisplacementAttack(ProjectedAttack):
    """Moves a layer's features as far as possible from those of the clean image.

    It knows no class and no student: whatever a head makes of these features, it was not trained on them.

    Args:
        epsilon: See `ProjectedAttack`, as for `steps`, `step_size` and `head`.
        random_start: Has to be true: at the clean image itself the distance is 0 and has no gradient.
        layer: The path of the layer, `"penultimate"` for what enters the teacher's head, or `"middle"` for the middle
            one of its feature layers. Or several, of which `each` makes an attack apiece.

    Raises:
        RemosError: If an option is out of range; in `inputs`, if there is no such layer.

    Example:
    ```python
    attack = DisplacementAttack(layer="middle")
    prepared = attack.prepare(teacher, space=PixelSpace("imagenet"))
    attack_set = attack.inputs(prepared, x_test, y_test)
    ```

    Reference:
        M. Naseer, S. Khan, M. Hayat, F. S. Khan and F. Porikli, A Self-supervised Approach for Adversarial Robustness,
        CVPR 2020, section 3.1 (self-supervised perturbation).

    Note:
        The distance is the mean square over all features of the layer. What is raised is its logarithm, which has the
        same maxima and gradients of one size from the first step to the last, so that half precision holds them.
    """

    layer: str | Sequence[str] = PENULTIMATE

    name: ClassVar[str] = "displacement"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.random_start:
            raise RemosError(
                "`random_start` must be True: at the clean image the distance of features has no gradient."
            )
        if not self.layer or not all(isinstance(path, str) and path for path in self._wanted):
            raise RemosError(f"`layer` must be the path of a layer, or several, received {self.layer!r}.")

    @property
    def _wanted(self) -> tuple[Any, ...]:
        return (self.layer,) if isinstance(self.layer, str) else tuple(self.layer)

    def each(self) -> tuple[Self, ...]:
        """This attack, once for each of its layers."""
        return tuple(replace(self, layer=path) for path in self._wanted)

    def objective(self, model: keras.Model, example: np.ndarray) -> Objective:
        if not isinstance(self.layer, str):
            raise RemosError(
                f"One attack set is of one layer, received `layer={self.layer!r}`: make one with every attack of "
                "`each()`."
            )
        path = self.layer
        if path == MIDDLE:
            found = find_features(model, example, head=self.head)
            path = found[(len(found) - 1) // 2]
        return _Distance(FeatureExtractor(model, [path], example=example, head=self.head))


class _Distance(Objective):
    """How far features are from the clean ones. Its state: the clean ones."""

    # Of squared features: far below what any change of an image makes, and no zero.
    NOTHING = 1e-12

    def __init__(self, extract: FeatureExtractor) -> None:
        self.extract = extract
        self._clean = compiled(self._features, extract.model)

    def begin(self, inputs: np.ndarray, labels: np.ndarray, rows: np.ndarray, seed: int) -> Any:
        return self._clean(inputs)

    def __call__(self, inputs: Tensor, state: Any, drawn: Any) -> tuple[Tensor, Any]:
        moved = self._features(inputs) - state
        others = tuple(range(1, len(moved.shape)))
        return ops.log(ops.mean(moved**2, axis=others) + self.NOTHING), state

    def _features(self, inputs: Tensor) -> Tensor:
        _, [features] = self.extract(inputs)
        return ops.cast(features, "float32")
