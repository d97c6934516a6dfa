"""The attack on a teacher's last features, which needs nothing of the student (Rezaei & Liu)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Self

import keras
import numpy as np
from keras import ops

from keras_remos.data.pixels import PixelSpace
from keras_remos.defects.adversarial.projected import Objective, ProjectedAttack
from keras_remos.errors import RemosError
from keras_remos.models.features import FeatureExtractor, penultimate
from keras_remos.models.kernels import Tensor

ANY: Literal["any"] = "any"
# Keeps the neurons that are drawn apart from what starts and steps draw.
NEURON = 3


@dataclass(frozen=True, kw_only=True)
class PenultimateAttack(ProjectedAttack):
    """Drives one neuron of the teacher's last features up and keeps the others down (ReMoS section 5.1).

    A head that was trained on these features takes such an image for whatever class that neuron speaks for.

    Args:
        epsilon: See `ProjectedAttack`, as for `steps`, `step_size`, `random_start` and `head`.
        neuron: The neuron to drive up: its position in the tensor that enters the teacher's head. Or several, of which
            `each` makes an attack apiece; or `"any"`: each image has its own, drawn by the seed.
        height: The paper's m: the activation that it is driven towards.
        others_weight: The weight of the other neurons' mean square.
        clip: Cuts scaled inputs at plus and minus this value, after the projection. The released code's is 2.2; the
            images' brightest pixels then move by more than epsilon. `None` cuts at the range of pixels only.

    Raises:
        RemosError: If an option is out of range.

    Example:
    ```python
    attack = PenultimateAttack()
    prepared = attack.prepare(teacher, space=PixelSpace("imagenet"))
    attack_set = attack.inputs(prepared, x_test, y_test)

    # How well it works depends on the neuron: try several, and look at the worst and the mean.
    sets = {
        f"penultimate {single.neuron}": single.inputs(prepared, x_test, y_test)
        for single in PenultimateAttack(neuron=(0, 7, 21)).each()
    }
    ```

    Reference:
        S. Rezaei and X. Liu, A Target-Agnostic Attack on Deep Models, ICLR 2020. ReMoS, section 5.1.

    Note:
        The released code works on scaled inputs throughout: its epsilon of 0.1 is about 5.7 levels in each channel of
        ImageNet's scaling. It stops after 56 images; this attacks every one.

        Rezaei and Liu try one neuron after the other; ReMoS' code, and the default, drive the first one alone. That is
        one draw: with neurons 0, 7, 21, 40 and 63 of one teacher the same student read .32, .82, .59, .61 and .12.
    """

    neuron: int | Sequence[int] | Literal["any"] = 0
    height: float = 1000.0
    others_weight: float = 0.1
    clip: float | None = None

    name: ClassVar[str] = "penultimate"

    def __post_init__(self) -> None:
        super().__post_init__()
        neurons = self._neurons
        if not neurons or any(neuron != ANY and (not isinstance(neuron, int) or neuron < 0) for neuron in neurons):
            raise RemosError(
                f"`neuron` must be a whole number of at least 0, several of them, or {ANY!r}, received {self.neuron!r}."
            )
        if len(set(neurons)) < len(neurons):
            raise RemosError(f"Each neuron is driven up once, received `neuron={self.neuron!r}`.")
        if not self.height > 0:
            raise RemosError(f"`height` must be above 0, received {self.height!r}.")
        if not self.others_weight >= 0:
            raise RemosError(f"`others_weight` must be at least 0, received {self.others_weight!r}.")
        if self.clip is not None and not self.clip > 0:
            raise RemosError(f"`clip` must be above 0, or None, received {self.clip!r}.")

    def each(self) -> tuple[Self, ...]:
        """This attack, once for each of its neurons: the spread over neurons can be seen."""
        return tuple(replace(self, neuron=neuron) for neuron in self._neurons)

    @property
    def _neurons(self) -> list[Any]:
        if isinstance(self.neuron, Sequence) and not isinstance(self.neuron, str):
            return list(self.neuron)
        return [self.neuron]

    def objective(self, model: keras.Model, example: np.ndarray) -> Objective:
        if not isinstance(self.neuron, (int, str)):
            raise RemosError(
                f"One attack set is of one neuron, received `neuron={self.neuron!r}`: make one with every attack of "
                "`each()`."
            )
        return _Peak(self, self.neuron, penultimate(model, example, head=self.head))

    def bounds(self, x: np.ndarray, space: PixelSpace) -> tuple[np.ndarray, np.ndarray]:
        lower, upper = super().bounds(x, space)
        if self.clip is None:
            return lower, upper
        low, high = (space.unscale(np.full((1, *x.shape[1:]), end, np.float32)) for end in (-self.clip, self.clip))
        # The range of pixels comes first: what the released code lets below black is no image.
        low, high = np.maximum(low, space.low).astype(np.float32), np.minimum(high, space.high).astype(np.float32)
        return np.clip(lower, low, high), np.clip(upper, low, high)


class _Peak(Objective):
    """One high feature, the others low."""

    def __init__(self, attack: PenultimateAttack, neuron: int | str, extract: FeatureExtractor) -> None:
        self.attack = attack
        self.neuron = neuron
        self.extract = extract

    def begin(self, inputs: np.ndarray, labels: np.ndarray, rows: np.ndarray, seed: int) -> Any:
        if isinstance(self.neuron, int):
            return ()
        # Shares of the number of neurons, which is known where the features are.
        shares = [np.random.default_rng((seed, row, NEURON)).random() for row in rows]
        return np.array(shares, np.float32)

    def __call__(self, inputs: Tensor, state: Any, drawn: Any) -> tuple[Tensor, Any]:
        _, [features] = self.extract(inputs)
        neurons = math.prod(features.shape[1:])
        features = ops.cast(ops.reshape(features, (-1, neurons)), "float32")
        if isinstance(self.neuron, int) and self.neuron >= neurons:
            raise RemosError(
                f"The last features of model {self.extract.model.name!r} are {neurons} neurons, received "
                f"`neuron={self.neuron}`: expected 0 to {neurons - 1}."
            )
        if isinstance(self.neuron, int):
            peak = features[:, self.neuron]
        else:
            driven = ops.minimum(ops.cast(state * neurons, "int32"), neurons - 1)
            peak = ops.squeeze(ops.take_along_axis(features, driven[:, None], axis=1), axis=1)
        # Zero for the peak, so that the mean is that of the others (there may be none).
        others = ops.sum(features**2, axis=1) - peak**2
        loss = (peak - self.attack.height) ** 2 + self.attack.others_weight * others / max(neurons - 1, 1)
        # A factor changes no sign; with this one the gradients fit half precision.
        return -loss / (2 * self.attack.height), state
