"""`CoverageModel`: runs a teacher and returns, for a whole batch, how many samples cover each of its neurons."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from keras_remos.activations import Reading, ReadingPlan, capture
from keras_remos.coverage import Activations, Criterion, Padding, count_tokens
from keras_remos.errors import RemosError
from keras_remos.kernels import Tensor
from keras_remos.layers import keras_mask


class CoverageModel(keras.Model):
    """Runs a teacher and returns what its neurons did: one int32 vector for the whole batch.

    Keras compiles it like any model's `predict`. The vector holds, reading after reading, the count of each neuron,
    the number of positions, and how many samples had activations that are not finite.

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
        results: dict[int, Tensor] = {}
        calls = 0

        def listen(layer: keras.Layer, before: Tensor, after: Tensor, kwargs: dict[str, Any]) -> None:
            nonlocal calls
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
        return ops.concatenate([results[index] for index in range(len(self.plan.readings))])

    def _read(
        self, layer: keras.Layer, before: Tensor, after: Tensor, reading: Reading, masks: _Masks, valid: Tensor
    ) -> Tensor:
        if not reading.neuron_axes:
            counts = count_tokens(before, reading.neurons, masks.of_tokens(layer, before), valid)
            return ops.concatenate([counts, ops.sum(valid)[None], ops.zeros((1,), dtype="int32")])
        tensor = self.plan.neurons(reading, before, after)
        padding = masks.of_neurons(tensor, reading.neuron_axes)
        activations = Activations(tensor, reading.neuron_axes, padding, reading.relu, reading.nonnegative).merged()
        rows = []
        for piece in activations.pieces():
            counts, positions = self.rule.count(piece)
            broken = ops.cast(~piece.finite(), "int32")
            rows.append(ops.concatenate([counts, positions[:, None], broken[:, None]], axis=1))
        return ops.sum((rows[0] if len(rows) == 1 else ops.concatenate(rows)) * valid[:, None], axis=0)


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
