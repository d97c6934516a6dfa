"""Texts as arrays of strings, and as the token arrays that a KerasHub model makes of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_remos.data.arrays import map_arrays, to_numpy
from keras_remos.errors import DataError, MismatchError, TeacherError

# Vocabularies are often filled up to a multiple of this, for speed.
VOCABULARY_MULTIPLE = 128


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
    if _are_columns(x):
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


def holds_text(x: np.ndarray) -> bool:
    """Whether samples are texts, not pixels."""
    return x.dtype.kind == "U"


def tokenize(model: keras.Model, texts: np.ndarray) -> dict[str, np.ndarray]:
    """What a KerasHub task's own preprocessor makes of texts.

    Args:
        model: A task that brings its preprocessor.
        texts: As `as_texts` returns them.

    Returns:
        Token ids, padding mask and whatever else the model takes, shape `(n, sequence length)` each. Texts that are
        longer are cut, as the preprocessor's `sequence_length` says.

    Raises:
        TeacherError: If the model brings no preprocessor.
        MismatchError: If its tokenizer knows more tokens than the model.
    """
    check_tokenizer(model)
    prepared, _, _ = keras.utils.unpack_x_y_sample_weight(model.preprocess_samples(segments(texts)))
    if not isinstance(prepared, Mapping):
        prepared = {"token_ids": prepared}
    return dict(map_arrays(ops.convert_to_numpy, prepared))


def segments(x: Any) -> Any:
    """Texts as every KerasHub preprocessor takes them: a list, pairs as a tuple of two lists.

    Args:
        x: An array of strings of shape `(n,)` or `(n, 2)`, or a tuple or list of two of shape `(n,)`. Anything else
            comes back as it is.
    """
    if _are_columns(x):
        return tuple(segments(column) for column in x)
    if not isinstance(x, np.ndarray) or x.dtype.kind != "U":
        return x
    return tuple(column.tolist() for column in x.T) if x.shape[1:] == (2,) else x.tolist()


def _are_columns(x: Any) -> bool:
    """Whether these are the first texts of all pairs, and the second ones. A list of lists may be two pairs instead."""
    arrays = (np.ndarray, list) if isinstance(x, tuple) else np.ndarray
    return isinstance(x, (tuple, list)) and len(x) == 2 and all(isinstance(part, arrays) for part in x)


def reads_text(model: keras.Model) -> bool:
    """Whether a model brings a tokenizer, and so takes texts."""
    return find_tokenizer(model) is not None


def find_tokenizer(model: keras.Model) -> Any:
    """The tokenizer that a model brings, or `None`."""
    return getattr(getattr(model, "preprocessor", None), "tokenizer", None)


def tokenizer_of(model: keras.Model) -> Any:
    """The tokenizer that a model brings.

    Raises:
        TeacherError: If it brings none.
    """
    tokenizer = find_tokenizer(model)
    if tokenizer is None:
        raise TeacherError(
            f"{type(model).__name__} {model.name!r} brings no tokenizer, so it cannot read text. Use a KerasHub text "
            "classifier with its preprocessor: keras_hub.models.BertTextClassifier(backbone, num_classes=2, "
            "preprocessor=...), or load_teacher(folder)."
        )
    return tokenizer


def check_tokenizer(model: keras.Model) -> str | None:
    """Compares the vocabulary of a model's tokenizer with that of its embedding table.

    Args:
        model: A KerasHub task.

    Returns:
        What looks wrong and may be right, as a sentence; `None` if nothing does.

    Raises:
        TeacherError: If the model brings no tokenizer.
        MismatchError: If the tokenizer knows more tokens than the table has rows.
    """
    known = int(tokenizer_of(model).vocabulary_size())
    rows = getattr(getattr(model, "backbone", None), "vocabulary_size", known)
    advice = "Use the tokenizer that the model was trained with."
    if known > rows:
        raise MismatchError(f"The tokenizer knows {known:,} tokens, the model {rows:,}: they disagree. {advice}")
    if rows - known >= VOCABULARY_MULTIPLE:
        return f"The tokenizer knows {known:,} tokens, the model {rows:,}: they may not belong together. {advice}"
    return None
