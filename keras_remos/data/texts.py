"""Texts, or pairs of texts, as arrays of strings."""

from typing import Any

import numpy as np

from keras_remos.data.arrays import to_numpy
from keras_remos.errors import DataError
from keras_remos.models.tokenizers import are_columns


def as_texts(x: Any, *, allow_empty: bool = False) -> np.ndarray:
    """Turns texts, or pairs of texts, into one array of strings.

    Args:
        x: Strings or UTF-8 bytes: an array or list of shape `(n,)`; pairs as an array `(n, 2)`, or as a tuple or list
            of two arrays of shape `(n,)`.
        allow_empty: Whether texts may have nothing in them.

    Returns:
        `str`, shape `(n,)` or `(n, 2)`.

    Raises:
        DataError: If there are none, they are something else, or one is empty.
    """
    if are_columns(x):
        columns = [to_numpy(column) for column in x]
        if columns[0].shape != columns[1].shape or columns[0].ndim != 1:
            shapes = " and ".join(str(column.shape) for column in columns)
            raise DataError(f"Expected pairs of texts: two arrays of one length. Received: shapes {shapes}.")
        x = np.stack(columns, axis=1)
    parts = to_numpy(x)
    if parts.dtype.kind != "U" or not parts.size or parts.shape[1:] not in ((), (2,)):
        raise DataError(
            "Expected at least one text: strings of shape (n,), or (n, 2) for pairs. Received: shape "
            f"{parts.shape} of {parts.dtype}."
        )
    if allow_empty:
        return parts
    empty = np.flatnonzero((np.char.str_len(np.char.strip(parts)) == 0).reshape(len(parts), -1).any(axis=1))
    if empty.size:
        shown = ", ".join(map(str, empty[:5])) + (", ..." if empty.size > 5 else "")
        raise DataError(f"Expected texts with something in them. Received: {empty.size} empty ones ({shown}).")
    return parts


def holds_text(x: Any) -> bool:
    """Whether samples are texts, not pixels."""
    return x.dtype.kind == "U"
