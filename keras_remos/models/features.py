"""Layers whose outputs describe what a model sees: the ends of its blocks, and what enters its head."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import keras

from keras_remos.errors import RemosError
from keras_remos.models import layers as kinds
from keras_remos.models.heads import Forward, find_heads
from keras_remos.models.kernels import Tensor
from keras_remos.models.taps import capture, layer_at
from keras_remos.models.trace import Call

PENULTIMATE = "penultimate"
"""Stands for the tensor that enters the head wherever the path of a feature layer is expected."""

# One stage of a convolutional network ends where the number of positions falls by at least this factor; unpadded
# convolutions take off less.
_SHRINKS_BY = 2
_ADDITIVE_MERGES = (keras.layers.Add, keras.layers.Concatenate, keras.layers.Average)
_AFTER_MERGE = (keras.layers.BatchNormalization, *kinds.ACTIVATIONS)


def find_features(model: keras.Model, example: Any = None, *, head: str | None = None) -> list[str]:
    """Finds the ends of a model's blocks.

    In a transformer: each encoder block (or, where blocks are no layers of their own, the normalization that hands
    its output on). In a network whose maps shrink: at each resolution the last sum of a residual block with its
    activation, or else the last layer. In any other network: the hidden activations. Heads, and pooling, padding and
    dropout layers, are never among them.

    Args:
        model: A built model.
        example: A batch of its inputs (only shapes and dtypes are used), for models that were not built from symbolic
            inputs of known size.
        head: The path of the layer that is the head, where it is not found.

    Returns:
        Layer paths, as in `RelevantSlice.masks` without the name of the kernel, in the order in which they run.

    Raises:
        RemosError: If no such layer is found, or the model cannot be traced without an example.

    Example:
    ```python
    find_features(keras.applications.ResNet50(weights=None))
    # ["conv1_relu", "conv2_block3_out", "conv3_block4_out", "conv4_block6_out", "conv5_block3_out"]
    ```
    """
    forward = _Ends(model, example, head=head)
    calls = forward.blocks() or forward.normalizations() or forward.stages() or forward.hidden()
    if not calls:
        raise RemosError(
            f"No feature layers were found in model {model.name!r}: it has no blocks, shrinking maps or hidden "
            "activations. Name them by their paths (see keras_remos.describe_model)."
        )
    return list(dict.fromkeys(forward.paths[id(call.layer)] for call in calls))


def penultimate(model: keras.Model, example: Any = None, *, head: str | None = None) -> FeatureExtractor:
    """Gives access to the tensor that enters a model's head; to its output if it has no head.

    Args:
        model: A built model.
        example: See `find_features`.
        head: See `find_features`.

    Example:
    ```python
    outputs, [features] = penultimate(teacher)(images)
    ```
    """
    return FeatureExtractor(model, [PENULTIMATE], example=example, head=head)


class FeatureExtractor:
    """Runs a model and gives what it returns together with what some of its layers return.

    It is a plain callable: use it in a layer or model of your own, in a function that a backend compiles or
    differentiates, or by itself. It holds no copy of the model, and weights stay the model's own.

    Args:
        model: A built model.
        paths: Paths of layers, nested and composite ones included; `PENULTIMATE` for the tensor that enters the head
            (or the model's output, if it has no head).
        example: For `PENULTIMATE`, see `find_features`; as for `head`.

    Raises:
        RemosError: If there is no layer of that path, or the model has several heads and `PENULTIMATE` is asked for.

    Example:
    ```python
    extract = FeatureExtractor(teacher, find_features(teacher))
    outputs, features = extract(images)
    ```

    Note:
        Of a layer that is called several times in one pass, the last call counts. A layer that returns several tensors
        gives its first.
    """

    def __init__(
        self, model: keras.Model, paths: Sequence[str], *, example: Any = None, head: str | None = None
    ) -> None:
        self.model = model
        self.paths = tuple(paths)
        self._tapped = [None if path == PENULTIMATE else layer_at(model, path) for path in self.paths]
        self._head: keras.Layer | None = None
        if None in self._tapped:
            heads = find_heads(model, example, head=head)
            if len(heads) > 1:
                raise RemosError(
                    f"Model {model.name!r} has {len(heads)} heads ({', '.join(heads)}): name the feature layer."
                )
            self._head = layer_at(model, heads[0]) if heads else None

    def __call__(
        self, x: Any, training: bool = False, *, pass_on: Callable[[str, Tensor], Tensor] | None = None
    ) -> tuple[Any, list[Tensor]]:
        """Runs one forward pass.

        Args:
            x: What the model takes.
            training: Passed on to the model.
            pass_on: Called with the path of a feature layer and what it returns; the rest of the model gets the result
                in its place. It leaves no trace in the model.

        Returns:
            What the model returns, and the feature tensors in the order of the paths.

        Raises:
            RemosError: If one of the layers does not run in the pass.
        """
        entered: dict[int, Tensor] = {}
        left: dict[int, Tensor] = {}
        paths = {id(layer): path for path, layer in zip(self.paths, self._tapped, strict=True) if layer is not None}

        def listen(layer: keras.Layer, inputs: Tensor, outputs: Tensor, kwargs: dict[str, Any]) -> Tensor | None:
            entered[id(layer)], left[id(layer)] = inputs, outputs
            return pass_on(paths[id(layer)], outputs) if pass_on and id(layer) in paths else None

        taps = {id(layer): layer for layer in (*self._tapped, self._head) if layer is not None}
        with capture(taps.values(), listen, model=self.model):
            outputs = self.model(x, training=training)
        for path, layer in zip(self.paths, self._tapped, strict=True):
            if layer is not None and id(layer) not in left:
                raise RemosError(f"Layer {path!r} does not run when model {self.model.name!r} does: name another.")
        before_head = keras.tree.flatten(outputs)[0] if self._head is None else entered[id(self._head)]
        return outputs, [before_head if layer is None else left[id(layer)] for layer in self._tapped]


class _Ends(Forward):
    """What may be a block's end among the calls of a forward pass up to the head."""

    def blocks(self) -> list[Call]:
        """Composite layers that keep the shape and normalize inside: encoder blocks. The outermost ones."""
        composites = {
            self.paths[id(call.layer)]: call
            for call in self.calls
            if not kinds.is_leaf(call.layer)
            and len(call.outputs.shape) >= 3
            and tuple(call.inputs.shape) == tuple(call.outputs.shape)
            and any(isinstance(inner, kinds.LAYER_NORMALIZATIONS) for _, inner in kinds.walk(call.layer))
        }
        return [call for path, call in composites.items() if not any(path.startswith(f"{p}/") for p in composites)]

    def normalizations(self) -> list[Call]:
        """In a transformer of plain layers: the normalizations that feed an attention layer, and the last one."""
        attended = [call for call in self.calls if isinstance(call.layer, kinds.ATTENTIONS)]
        if not attended:
            return []
        norms = [call for call in self.calls if isinstance(call.layer, kinds.LAYER_NORMALIZATIONS)]
        # What enters the first attention layer has not been through a block.
        fed = {call.inputs.key for call in attended[1:]}
        return [call for call in norms if call.outputs.key in fed or call is norms[-1]]

    def stages(self) -> list[Call]:
        """The last block of each resolution, if there are maps."""
        shallow = any(isinstance(call.layer, keras.layers.Conv1D) for call in self.calls)
        positions = slice(2, None) if self.channels_first else slice(1, -1)
        passed_on = (*kinds.PADDINGS, *kinds.DROPOUTS, *kinds.POOLINGS)
        # Before the first kernel inputs are scaled and padded: they are no features yet.
        start = next((index for index, call in enumerate(self.calls) if id(call.layer) in self.trace.sliceable), 0)
        maps = [
            (index, call, math.prod(call.outputs.shape[positions]))
            for index, call in enumerate(self.calls)
            if index >= start
            and len(call.outputs.shape) >= (3 if shallow else 4)
            and not isinstance(call.layer, passed_on)
        ]
        # A map of one position inside a network (squeeze and excite) is followed by larger ones again: from the end.
        ends: list[tuple[int, int]] = []
        for index, _, size in reversed(maps):
            if size > 1 and (not ends or size >= _SHRINKS_BY * ends[-1][1]):
                ends.append((index, size))
        final = [self.calls[index] for index, _ in ends[:1]]
        return [self._block_end(index, size, maps) for index, size in reversed(ends[1:])] + final

    def _block_end(self, last: int, size: int, maps: list[tuple[int, Call, int]]) -> Call:
        """The end of a stage that another follows: behind its last sum stand the first layers of the next block."""
        merges = [
            index
            for index, call, positions in maps
            if index <= last and positions == size and isinstance(call.layer, _ADDITIVE_MERGES)
        ]
        return self.calls[self.trace.follow(merges[-1], _AFTER_MERGE)[-1] if merges else last]

    def hidden(self) -> list[Call]:
        """Whatever applies a nonlinearity."""
        return [call for call in self.calls if kinds.activation_name(call.layer) not in (None, "softmax")]
