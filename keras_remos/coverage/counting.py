"""`CoverageModel`: runs a teacher and returns, for a whole batch, how many samples cover each of its neurons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_remos.coverage.activations import Activations, Padding, Positions
from keras_remos.coverage.criteria import Criterion, count_tokens, warn_if_blind
from keras_remos.errors import RemosError
from keras_remos.models.kernels import Tensor
from keras_remos.models.layers import keras_mask, operation_around
from keras_remos.models.placement import Reading
from keras_remos.models.reading_plan import ReadingPlan
from keras_remos.models.taps import capture


class CoverageModel(keras.Model):
    """Runs a teacher and returns what its neurons did: one int32 vector for the whole batch.

    Keras compiles it like any model's `predict`. `split` takes the vector, or a sum of several, apart.

    Args:
        teacher: The model to watch.
        plan: What to read, from `plan_readings`.
        rule: When a neuron is covered.
        count_padding: Whether padding counts.
    """

    def __init__(self, teacher: keras.Model, plan: ReadingPlan, rule: Criterion, count_padding: bool) -> None:
        super().__init__(autocast=False, name="coverage")
        self.teacher = teacher
        self.plan = plan
        self.rule = rule
        self.count_padding = count_padding
        self.built = True

    def call(self, inputs: Mapping[str, Any], training: bool = False) -> Tensor:
        x, valid = inputs["x"], inputs["valid"]
        due: dict[int, list[tuple[int, Reading]]] = {}
        for index, reading in enumerate(self.plan.readings):
            due.setdefault(reading.call, []).append((index, reading))
        masks = _Masks(x, enabled=not self.count_padding)
        results: dict[int, tuple[Tensor, Positions, Tensor]] = {}
        calls = 0

        def listen(layer: keras.Layer, before: Tensor, after: Tensor, kwargs: dict[str, Any]) -> None:
            nonlocal calls
            if operation_around() is not None:
                return  # which function `cond` calls may depend on the data; none of its tensors can leave it
            masks.see(before)
            for index, reading in due.get(calls, ()):
                results[index] = self._read(layer, before, after, reading, masks, valid)
            calls += 1

        with capture(self.plan.taps, listen, model=self.teacher):
            self.teacher(x, training=False)
        if calls != self.plan.num_calls:
            raise RemosError(
                f"Model {self.teacher.name!r} made {self.plan.num_calls} calls of its layers when it was traced and "
                f"{calls} when it ran: what it does depends on more than its inputs' shapes. It cannot be profiled."
            )
        counts, positions, checks = zip(*(results[index] for index in range(len(self.plan.readings))), strict=True)
        vectors: list[Tensor] = []
        # All readings at once: on a GPU each operation of PyTorch is a launch.
        for of_tokens, group in groupby(counts, key=lambda tensor: len(tensor.shape) == 1):
            found = list(group)
            if not of_tokens:
                found = [ops.sum(ops.cast(ops.concatenate(found, axis=1), "int32") * valid[:, None], axis=0)]
            vectors += found
        broken = ops.cast(~ops.isfinite(ops.stack(checks)), "int32")
        return ops.concatenate([*vectors, _total_positions(positions, valid), ops.sum(broken * valid, axis=1)])

    @property
    def length(self) -> int:
        """How many numbers the vector holds."""
        return sum(reading.neurons + 2 for reading in self.plan.readings)

    def split(self, vector: np.ndarray) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
        """Takes apart what the model returned, or the sum of what it returned for several batches.

        Returns:
            For each reading the counts of its neurons, the number of positions, and how many samples had activations
            that are not finite.
        """
        ends = np.cumsum([reading.neurons for reading in self.plan.readings])
        *counts, rest = np.split(vector, ends)
        positions, broken = np.split(rest, 2)
        return counts, positions, broken

    def warn_if_blind(self, vector: np.ndarray) -> None:
        """Warns if next to none of the neurons behind kernels is ever covered, or all of them always are.

        What enters the first kernels does not count: of images it may all be positive, or none of it.

        Args:
            vector: The sum of what the model returned.

        Warns:
            UserWarning: See above.
        """
        counts, positions, _ = self.split(vector)
        behind = {
            index
            for _, written in self.plan.kernels.values()
            for index in written
            if self.plan.readings[index].neuron_axes and positions[index]
        }
        warn_if_blind(
            self.rule,
            float(sum(counts[index].sum() / positions[index] for index in behind)),
            sum(self.plan.readings[index].neurons for index in behind),
            len(behind),
            way_out="Weights are then ranked by their magnitudes alone: choose another criterion or threshold, or read "
            "elsewhere (`on='output'` for a share of the range, `on='activation'` for what is above 0).",
        )

    def _read(
        self, layer: keras.Layer, before: Tensor, after: Tensor, reading: Reading, masks: _Masks, valid: Tensor
    ) -> tuple[Tensor, Positions, Tensor]:
        """Counts, positions, and a number that is finite where all activations are: of each sample."""
        (samples,) = ops.shape(valid)
        told_apart = reading.leading == "samples"
        if not reading.neuron_axes:
            tokens = reading.by_sample(before, samples)
            mask = masks.of_tokens(layer, tokens) if told_apart else None
            # What is looked up for one sample that stands for all is looked up for each.
            stands_for = ops.sum(valid)[None] if reading.leading == "constant" else valid
            counts = count_tokens(tokens, reading.neurons, mask, stands_for)
            return counts, 1, ops.cast(valid, "float32")
        tensor = self.plan.neurons(reading, before, after, samples)
        padding = masks.of_neurons(tensor, reading.neuron_axes) if told_apart else None
        activations = Activations(tensor, reading.neuron_axes, padding, reading.relu, reading.nonnegative).merged()
        pieces = [(*self.rule.count(piece), piece.check()) for piece in activations.pieces()]
        counts, positions, checks = map(_joined, zip(*pieces, strict=True))
        if reading.leading == "constant":
            # One stands for every sample.
            counts = ops.broadcast_to(counts, (samples, reading.neurons))
            checks = ops.broadcast_to(checks, (samples,))
            positions = positions if isinstance(positions, int) else ops.broadcast_to(positions, (samples,))
        return counts, positions, checks


def _joined(parts: tuple[Any, ...]) -> Any:
    """The parts of a batch as one."""
    return parts[0] if len(parts) == 1 or isinstance(parts[0], int) else ops.concatenate(parts)


def _total_positions(positions: Sequence[Positions], valid: Tensor) -> Tensor:
    """How many positions of all samples count, for each reading, int32."""
    fixed = [number for number, each in enumerate(positions) if isinstance(each, int)]
    others = [number for number, each in enumerate(positions) if not isinstance(each, int)]
    parts = []
    if fixed:
        parts.append(ops.convert_to_tensor([positions[number] for number in fixed], "int32") * ops.sum(valid))
    if others:
        parts.append(ops.sum(ops.stack([positions[number] for number in others]) * valid, axis=1))
    if len(parts) == 1:
        return parts[0]
    return ops.take(ops.concatenate(parts), np.argsort([*fixed, *others]))


class _Masks:
    """The padding masks that a forward pass has shown so far, by the length of the sequence that they are for."""

    def __init__(self, inputs: Any, enabled: bool) -> None:
        self.enabled = enabled
        self.by_length: dict[int | None, Tensor] = {}
        self._paddings: dict[int, Padding] = {}
        if isinstance(inputs, Mapping):
            for name, tensor in inputs.items():
                if name.endswith("padding_mask"):
                    self.by_length[tensor.shape[1]] = ops.cast(tensor, "bool")

    def see(self, tensor: Tensor) -> None:
        mask = keras_mask(tensor)
        if mask is not None and len(mask.shape) == 2:
            self.by_length.setdefault(mask.shape[1], mask)

    def of_tokens(self, layer: keras.Layer, tokens: Tensor) -> Tensor | None:
        if not self.enabled or len(tokens.shape) != 2:
            return None
        mask = layer.compute_mask(tokens)
        return self.by_length.get(tokens.shape[1]) if mask is None else mask

    def of_neurons(self, tensor: Tensor, neuron_axes: tuple[int, ...]) -> Padding | None:
        """The padding of a tensor, if axis 1 is a sequence that has some."""
        rank = len(tensor.shape)
        if not self.enabled or rank < 3 or 1 in {axis % rank for axis in neuron_axes}:
            return None
        mask = keras_mask(tensor)
        if mask is None or len(mask.shape) != 2:
            mask = self.by_length.get(tensor.shape[1])
        # It holds the mask, so that no other one gets its number.
        return None if mask is None else self._paddings.setdefault(id(mask), Padding(mask))
