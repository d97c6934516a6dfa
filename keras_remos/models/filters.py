"""Which layers of a model are meant: by a pattern of their path, or by a function."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Sequence

import keras

from keras_remos.errors import RemosError
from keras_remos.models.layers import weight_holders

LayerFilter = Callable[[str, keras.Layer], bool]
Filters = str | Sequence[str] | LayerFilter


def as_filter(filters: Filters | None, model: keras.Model) -> LayerFilter | None:
    """A function of path and layer from whatever says which layers are meant.

    Args:
        filters: A regular expression or several, searched for in a layer's path, or a callable of path and layer;
            `None` means all.
        model: The model whose layers they are.

    Raises:
        RemosError: If it is something else or no regular expression, or one of them matches no layer.
    """
    if filters is None or callable(filters):
        return filters
    try:
        patterns = [re.compile(pattern) for pattern in ([filters] if isinstance(filters, str) else filters)]
    except (re.error, TypeError, OverflowError, RecursionError) as error:  # of repetitions, and of parentheses
        raise RemosError(
            f"`filters` must be a regular expression, several, or a callable of path and layer; received {filters!r} "
            f"({error})."
        ) from None
    paths = [path for path, _ in weight_holders(model)]
    for pattern in patterns:
        if paths and not any(map(pattern.search, paths)):
            near = difflib.get_close_matches(pattern.pattern, paths, n=3, cutoff=0)
            raise RemosError(
                f"`filters`: {pattern.pattern!r} matches no layer with weights of model {model.name!r}. Among them are "
                f"{', '.join(near)}."
            )
    return lambda path, layer: any(pattern.search(path) for pattern in patterns)
