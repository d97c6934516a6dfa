"""`describe_model`: which weights of a model can be sliced, which not, and why."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras

from keras_remos.models.finite import layers_not_finite, say_not_finite
from keras_remos.models.layers import symbolic_inputs
from keras_remos.models.loading import check_model
from keras_remos.models.reading_plan import plan_readings
from keras_remos.models.sliceable import find_sliceable
from keras_remos.models.trace import at_guessed_sizes
from keras_remos.untrusted import in_lines


@dataclass(frozen=True, repr=False)
class ModelDescription:
    """What a slice of a model would decide on.

    Args:
        name: The model's name.
        num_weights: How many weights it has in all.
        kernels: `(path, layer type, shape)` of every kernel that can be sliced.
        skipped: `(path, reason)` for every layer with weights that is left whole.
        not_finite: Paths of the layers that have NaN or infinite weights.
    """

    name: str
    num_weights: int
    kernels: tuple[tuple[str, str, tuple[int, ...]], ...]
    skipped: tuple[tuple[str, str], ...]
    not_finite: tuple[str, ...] = ()

    @property
    def num_sliceable(self) -> int:
        """How many weights can be sliced."""
        return sum(math.prod(shape) for _, _, shape in self.kernels)

    def __repr__(self) -> str:
        return f"<ModelDescription of {self.name!r}: {self.num_sliceable:,} of {self.num_weights:,} weights sliceable>"

    def describe(self) -> dict[str, Any]:
        """The same as plain values, for JSON."""
        return {
            "name": self.name,
            "num_weights": self.num_weights,
            "num_sliceable": self.num_sliceable,
            "kernels": [{"path": path, "layer": kind, "shape": list(shape)} for path, kind, shape in self.kernels],
            "skipped": [{"path": path, "reason": reason} for path, reason in self.skipped],
            "not_finite": list(self.not_finite),
        }

    def summary(self) -> str:
        """The same as a table."""
        width = max([len(path) for path, _, _ in self.kernels] + [len("kernel")])
        lines = [f"{'kernel':<{width}}  {'layer':<22}  {'weights':>12}  shape"]
        lines += [
            f"{path:<{width}}  {kind:<22}  {math.prod(shape):>12,}  {shape}" for path, kind, shape in self.kernels
        ]
        share = self.num_sliceable / max(self.num_weights, 1)
        lines.append(f"{self.name}: {self.num_sliceable:,} of {self.num_weights:,} weights can be sliced ({share:.1%})")
        if self.not_finite:
            lines.append(say_not_finite(self.not_finite))
        return in_lines([*lines, *list_skipped(self.skipped)])


def describe_model(model: keras.Model) -> ModelDescription:
    """Lists the weights of a model that can be sliced, if any, and the layers that are left whole with the reason.

    Args:
        model: A built Keras model. If it is a subclassed one without symbolic inputs, its head and layers that are
            never called cannot be told before it has seen data, and are listed as sliceable.

    Raises:
        TeacherError: If the model is not built.
        RemosError: If its inputs are of unknown size, and it takes none that was tried.
    """
    check_model(model)
    if model.built and not model.weights:
        return ModelDescription(model.name, 0, (), ())
    if symbolic_inputs(model) is not None:
        plan = at_guessed_sizes(model, "described", lambda inputs: plan_readings(model, inputs, may_be_empty=True))
        found = list({id(layer): layer for layer in plan.layers.values()}.values())
        skipped = plan.skipped
    else:
        found, skipped = find_sliceable(model)
    kernels = tuple(
        (f"{layer.path}/{kernel.name}", type(layer.layer).__name__, tuple(kernel.variable.shape))
        for layer in found
        for kernel in layer.weights
    )
    return ModelDescription(model.name, model.count_params(), kernels, tuple(skipped), layers_not_finite(model))


def list_skipped(skipped: Sequence[tuple[str, str]]) -> list[str]:
    """Lines that say which layers are left whole, by reason."""
    by_reason: dict[str, list[str]] = {}
    for path, reason in skipped:
        by_reason.setdefault(reason, []).append(path)
    lines = []
    for reason, paths in by_reason.items():
        shown = ", ".join(paths[:3]) + (f" and {len(paths) - 3} more" if len(paths) > 3 else "")
        lines.append(f"  {shown}: {reason}")
    return ["left whole:", *lines] if lines else []
