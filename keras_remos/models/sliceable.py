"""Which layers of a model can be sliced, and why the others are left whole."""

from collections import Counter
from dataclasses import replace

import keras
from keras import layers as kl

from keras_remos.models.adapters import MERGE, has_adapter
from keras_remos.models.kernels import Kernel, SliceableLayer, describe
from keras_remos.models.layers import (
    NORMALIZATIONS,
    children,
    inside,
    is_rematerialized,
    lasting_name,
    own_variables,
    walk,
)

# Why a layer is left whole.
COMPUTED = "its kernel is computed, by SpectralNormalization"
VECTORS = "no kernel: it holds vectors, to scale, to shift or to put in"


def find_sliceable(model: keras.Layer) -> tuple[list[SliceableLayer], list[tuple[str, str]]]:
    """Sorts the layers of a model that hold weights into those that can be sliced and the others.

    Args:
        model: A built Keras model of any kind.

    Returns:
        The sliceable layers in the order of `walk`, and `(path, reason)` for every other layer that holds weights.
    """
    sliceable: list[SliceableLayer] = []
    skipped = [("(the model itself)", what_it_holds(model))] if own_variables(model) else []
    seen: set[int] = {id(model)}

    def sort(parent: keras.Layer, prefix: str) -> None:
        for path, layer in children(parent, prefix, seen):
            found, out_of_sight = _describe(layer, path)
            if found is not None:
                sliceable.append(found)
                skipped.extend(_beside(found))
            elif own_variables(layer):
                skipped.append((path, _why_not(layer)))
            below = inside(layer, path, parent, prefix)
            if out_of_sight is None:
                sort(layer, below)
            else:
                leave_whole(layer, below, out_of_sight)

    def leave_whole(parent: keras.Layer, prefix: str, reason: str) -> None:
        for path, layer in children(parent, prefix, seen):
            if reason and own_variables(layer):
                skipped.append((path, reason))
            leave_whole(layer, inside(layer, path, parent, prefix), reason)

    sort(model, "")
    return _without_tied(model, sliceable, skipped)


def kernels_by_path(model: keras.Layer) -> dict[str, tuple[SliceableLayer, Kernel]]:
    """Every weight of a model that can be sliced with its layer, by what it is called: `"conv1/kernel"`."""
    return {
        f"{layer.path}/{kernel.name}": (layer, kernel) for layer in find_sliceable(model)[0] for kernel in layer.weights
    }


def _describe(layer: keras.Layer, path: str) -> tuple[SliceableLayer | None, str | None]:
    """What can be sliced in a layer, and why the layers below it never show their calls.

    Returns:
        The reason is `None` where they do, and empty where the layer speaks for them.
    """
    if isinstance(layer, kl.TimeDistributed):
        inner = describe(layer.layer, f"{path}/{lasting_name(layer.layer, layer)}")
        if inner is None or inner.table is not None:
            return None, "inside TimeDistributed, which calls it out of sight"
        return replace(inner, layer=layer), ""
    found = describe(layer, path)
    if isinstance(layer, kl.RNN):
        return found, "" if found else "a recurrent cell, which is called out of sight"
    return found, None


def _without_tied(
    model: keras.Layer, sliceable: list[SliceableLayer], skipped: list[tuple[str, str]]
) -> tuple[list[SliceableLayer], list[tuple[str, str]]]:
    owners = Counter(id(v) for _, layer in walk(model) for v in own_variables(layer))
    untied = [found for found in sliceable if all(owners[id(kernel.variable)] == 1 for kernel in found.weights)]
    spectral = tuple(f"{path}/" for path, layer in walk(model) if isinstance(layer, kl.SpectralNormalization))
    tied = [
        (found.path, COMPUTED if found.path.startswith(spectral) else "tied: two layers share its weight")
        for found in sliceable
        if found not in untied
    ]
    return untied, skipped + tied


def _beside(found: SliceableLayer) -> list[tuple[str, str]]:
    """Kernels that a layer holds beside those that can be sliced, and why they are left whole."""
    known = {id(kernel.variable) for kernel in found.weights} | {id(getattr(found.layer, "bias", None))}
    others = [v for v in own_variables(found.layer) if len(v.shape) > 1 and id(v) not in known]
    reason = "head: it makes scores of tokens, never sliced" if found.table else "not of the kernels of such a layer"
    return [(f"{found.path}/{variable.name}", reason) for variable in others]


def _why_not(layer: keras.Layer) -> str:
    if has_adapter(layer):
        return f"under LoRA, its kernel is computed: {MERGE}"
    if layer.quantization_mode is not None:
        return f"quantized ({layer.quantization_mode}): slice the float model and quantize the student"
    if is_rematerialized(layer):
        return "rematerialized: it is called out of sight"
    if isinstance(layer, NORMALIZATIONS):
        return "normalization: always kept whole"
    if isinstance(layer, kl.SpectralNormalization):
        return COMPUTED
    return what_it_holds(layer)


def what_it_holds(layer: keras.Layer) -> str:
    """Why the weights of a layer of an unknown kind are left whole: by how many axes they have."""
    kernels = sorted(wide_variables(layer), key=lambda variable: -len(variable.shape))
    if not kernels:
        return VECTORS
    shown = ", ".join(f"{variable.name} ({' x '.join(map(str, variable.shape))})" for variable in kernels[:3])
    if any(sum(side > 1 for side in variable.shape) == 3 for variable in kernels):
        return f"several kernels in one weight, as experts have: what each of them sees is out of sight; {shown}"
    return f"weights of its own, of which it is not known what their axes mean: {shown}"


def wide_variables(layer: keras.Layer) -> list[keras.Variable]:
    """The weights that a layer holds itself, and that are no vectors."""
    return [variable for variable in own_variables(layer) if sum(side > 1 for side in variable.shape) > 1]
