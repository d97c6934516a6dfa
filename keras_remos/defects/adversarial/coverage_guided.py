"""Attacks that wake neurons: each step raises the activations of neurons chosen by what has been covered so far."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import keras
import numpy as np
from keras import ops

from keras_remos.coverage.activations import Activations
from keras_remos.coverage.criteria import Criterion, as_criterion, warn_if_blind
from keras_remos.defects.adversarial.projected import STEPS, Objective, ProjectedAttack
from keras_remos.errors import RemosError
from keras_remos.models.gradients import compiled
from keras_remos.models.kernels import Tensor
from keras_remos.models.placement import Reading
from keras_remos.models.reading_plan import plan_readings
from keras_remos.models.taps import capture

Strategy = Literal["deepxplore", "dlfuzz", "dlfuzzrr"]
Neurons = Literal["activation", "output", "both"]
# What each step looks for, in turn.
STRATEGIES: dict[str, tuple[str, ...]] = {
    "deepxplore": ("uncovered",),
    "dlfuzz": ("most covered",),
    "dlfuzzrr": ("most covered", "least covered", "heavy"),
}
HEAVY_SHARE = 0.1  # DLFuzz' tenth
NEVER = float("-inf")


@dataclass(frozen=True, kw_only=True)
class CoverageGuidedAttack(ProjectedAttack):
    """Raises the activations of some neurons of each image, chosen anew at each step (ReMoS section 5.1).

    Coverage is counted for each image by itself, from its first step on. All criteria and strategies can be combined.

    Args:
        epsilon: See `ProjectedAttack`, as for `steps`, `step_size`, `random_start` and `head`.
        criterion: When a neuron is covered: `"nc"`, `"tknc"` or `"snac"`, a criterion of `keras_remos.coverage` or its
            configuration.
        strategy: Which neurons to raise. `"deepxplore"`: random ones that no step has covered. `"dlfuzz"`: those that
            most steps have covered. `"dlfuzzrr"`: in turn, those that most steps have covered, those that fewest have
            covered, and random ones among the tenth of all neurons with the largest mean incoming weight.
        num_neurons: How many.
        neurons: Where neurons are read: `"output"` as the layer returns them, `"activation"` after batch normalization
            and activation, `"both"` in both places, which is next to what the released code does.

    Raises:
        RemosError: If an option is out of range.

    Warns:
        UserWarning: In `inputs`, if the criterion covers next to none of the neurons of the first batch, or almost all:
            the strategy then chooses at random.

    Example:
    ```python
    attack = CoverageGuidedAttack(criterion="tknc", strategy="dlfuzz")
    attack_set = attack.inputs(attack.prepare(teacher, space=PixelSpace("imagenet")), x_test, y_test)
    ```

    Reference:
        K. Pei et al., DeepXplore, SOSP 2017. J. Guo et al., DLFuzz, ESEC/FSE 2018. ReMoS, section 5.1.

    Note:
        As in the released code the score is the sum of the chosen neurons' mean activations and has no term for the
        prediction, and each step counts the coverage of the image that it starts from before it chooses. Neurons that
        tie are chosen at random, where the released code goes by the order of the layers. If fewer than `num_neurons`
        are uncovered, all of them are raised.

        The released code reads both raw outputs and what comes out of the ReLUs. Of the latter no scaled mean passes
        the 0.5 of `"nc"` (of the ResNet-20's 688 neurons at most one for an image; of its raw outputs 320), so that
        nothing would guide the attack: the default reads raw outputs only.
    """

    random_start: bool = False
    criterion: str | Mapping[str, Any] | Criterion = "nc"
    strategy: Strategy = "deepxplore"
    num_neurons: int = 20
    neurons: Neurons = "output"

    name: ClassVar[str] = "coverage-guided"

    def __post_init__(self) -> None:
        super().__post_init__()
        as_criterion(self.criterion)
        if self.strategy not in STRATEGIES:
            raise RemosError(f"`strategy` must be one of {', '.join(STRATEGIES)}, received {self.strategy!r}.")
        if self.neurons not in ("activation", "output", "both"):
            raise RemosError(f"`neurons` must be 'activation', 'output' or 'both', received {self.neurons!r}.")
        if not isinstance(self.num_neurons, int) or self.num_neurons < 1:
            raise RemosError(f"`num_neurons` must be a whole number of at least 1, received {self.num_neurons!r}.")

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "criterion": as_criterion(self.criterion).get_config()}

    def objective(self, model: keras.Model, example: np.ndarray) -> Objective:
        neurons = _Neurons(model, example, as_criterion(self.criterion), self.neurons, self.head)
        covered, _ = compiled(neurons, model)(example)
        warn_if_blind(
            neurons.criterion,
            float(ops.convert_to_numpy(covered).sum(axis=1).mean()),
            len(neurons),
            neurons.tensors,
            way_out=f"The strategy {self.strategy!r} then chooses at random: choose another criterion or threshold, or "
            "read elsewhere (`neurons='output'` for a share of the range).",
        )
        return _Wake(self, neurons)


class _Neurons:
    """The neurons of a model, one after the other: their coverage and their activations in one forward pass.

    Args:
        model: The model.
        example: A batch of its inputs.
        criterion: When a neuron is covered.
        where: See `CoverageGuidedAttack`, as for `head`.
    """

    def __init__(
        self, model: keras.Model, example: np.ndarray, criterion: Criterion, where: Neurons, head: str | None = None
    ) -> None:
        self.model = model
        self.criterion = criterion
        self._read_at: dict[int, list[tuple[int, Reading]]] = {}
        weights: dict[tuple[Any, ...], list[np.ndarray]] = {}
        for on in ("output", "activation") if where == "both" else (where,):
            self.plan = plan_readings(model, example, on=on, head=head)
            for name, (_, written) in self.plan.kernels.items():
                for index in written:
                    reading = self.plan.readings[index]
                    if reading.leading == "constant":
                        continue  # no image changes it
                    key = (reading.call, reading.side, reading.neuron_axes, reading.relu)
                    if key not in weights:
                        self._read_at.setdefault(reading.call, []).append((len(weights), reading))
                    weights.setdefault(key, []).append(_incoming(self.plan.layers[name].weights, name))
        # For each neuron, the mean of the weights that lead to it.
        self.weights = np.concatenate([np.mean(kernels, axis=0) for kernels in weights.values()])

    def __len__(self) -> int:
        return len(self.weights)

    @property
    def tensors(self) -> int:
        """In how many tensors they are."""
        return sum(map(len, self._read_at.values()))

    def __call__(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Reads coverage and mean activations, each float32 of shape `(batch, neurons)`."""
        seen: dict[int, tuple[Tensor, Tensor]] = {}
        samples = ops.shape(inputs)[0]
        calls = 0

        def listen(layer: keras.Layer, before: Tensor, after: Tensor, kwargs: dict[str, Any]) -> None:
            nonlocal calls
            for index, reading in self._read_at.get(calls, ()):
                tensor = self.plan.neurons(reading, before, after, samples)
                activations = Activations(tensor, reading.neuron_axes, None, reading.relu, reading.nonnegative)
                seen[index] = self.criterion.count(activations)[0], activations.mean()
            calls += 1

        with capture(self.plan.taps, listen, model=self.model):
            self.model(inputs, training=False)
        covered, means = zip(*(seen[index] for index in range(len(seen))), strict=True)
        return ops.cast(ops.concatenate(covered, axis=1), "float32"), ops.concatenate(means, axis=1)


class _Wake(Objective):
    """The mean activations of the neurons that a strategy chooses. Its state: how many steps covered each neuron."""

    def __init__(self, attack: CoverageGuidedAttack, neurons: _Neurons) -> None:
        self.neurons = neurons
        self.kinds = STRATEGIES[attack.strategy]
        self.chosen = min(attack.num_neurons, len(neurons))
        heavy = math.ceil(HEAVY_SHARE * len(neurons))
        self.heavy = neurons.weights >= np.sort(neurons.weights)[-heavy]
        self._generators: list[np.random.Generator] = []

    def begin(self, inputs: np.ndarray, labels: np.ndarray, rows: np.ndarray, seed: int) -> Any:
        self._generators = [np.random.default_rng((seed, row, STEPS)) for row in rows]
        return np.zeros((len(rows), len(self.neurons)), np.float32)

    def draw(self, step: int | None) -> Any:
        keys = [generator.random(len(self.neurons), np.float32) for generator in self._generators]
        return np.stack(keys), np.int32((step or 0) % len(self.kinds))

    def __call__(self, inputs: Tensor, state: Any, drawn: Any) -> tuple[Tensor, Any]:
        covered, means = self.neurons(inputs)
        counts = state + covered
        chosen = self.choose(counts, *drawn)
        return ops.sum(ops.where(chosen, means, 0.0), axis=1), counts

    def choose(self, counts: Tensor, keys: Tensor, turn: Tensor) -> Tensor:
        """Chooses neurons.

        Args:
            counts: How many steps have covered each neuron of each image, `(batch, neurons)`, float32.
            keys: Random numbers from 0 to 1, below 1, `(batch, neurons)`.
            turn: Which of the strategy's kinds it is the turn of.

        Returns:
            Boolean, `(batch, neurons)`.
        """
        ranks = ops.stack([self._rank(kind, counts, keys) for kind in self.kinds])
        rank = ops.take(ranks, turn, axis=0)
        least = ops.top_k(rank, self.chosen)[0][:, -1:]
        return ops.logical_and(rank >= least, rank > NEVER)

    def _rank(self, kind: str, counts: Tensor, keys: Tensor) -> Tensor:
        """How much each neuron is wanted. Counts are whole numbers, so that keys decide between equal ones only."""
        if kind == "uncovered":
            return ops.where(counts == 0, keys, NEVER)
        if kind == "most covered":
            return counts + keys
        if kind == "least covered":
            return keys - counts
        return ops.where(ops.convert_to_tensor(self.heavy), keys, NEVER)


def _incoming(kernels: Any, name: str) -> np.ndarray:
    """The mean of the weights that lead to each output neuron of a kernel."""
    kernel = next(kernel for kernel in kernels if name.endswith(f"/{kernel.name}"))
    weights = np.asarray(ops.convert_to_numpy(kernel.variable.value), np.float64).reshape(kernel.view)
    others = tuple(axis for axis in range(weights.ndim) if axis not in kernel.output_axes)
    return weights.mean(axis=others).ravel()
