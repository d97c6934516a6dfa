"""The tokenizer that a KerasHub model brings: what it makes of texts, and whether it belongs to the model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_remos.errors import MismatchError, TeacherError

# Vocabularies are often filled up to a multiple of this, for speed.
VOCABULARY_MULTIPLE = 128


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
    return {name: ops.convert_to_numpy(array) for name, array in prepared.items()}


def segments(x: Any) -> Any:
    """Texts as every KerasHub preprocessor takes them: a list, pairs as a tuple of two lists.

    Args:
        x: An array of strings of shape `(n,)` or `(n, 2)`, or a tuple or list of two of shape `(n,)`. Anything else
            comes back as it is.
    """
    if are_columns(x):
        return tuple(segments(column) for column in x)
    if not isinstance(x, np.ndarray) or x.dtype.kind != "U":
        return x
    return tuple(column.tolist() for column in x.T) if x.shape[1:] == (2,) else x.tolist()


def are_columns(x: Any) -> bool:
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


def special_tokens(model: keras.Model) -> dict[int, list[int]]:
    """The ids of the tokens that every text may need, by the size of the vocabulary they belong to."""
    tokenizer = find_tokenizer(model)
    if tokenizer is None:
        return {}
    unknown = _unknown_id(tokenizer)
    ids = [*getattr(tokenizer, "special_token_ids", ()), *([] if unknown is None else [unknown])]
    return {tokenizer.vocabulary_size(): sorted({int(i) for i in ids if i is not None})}


def unknown_token(model: keras.Model) -> tuple[int, int] | None:
    """`(vocabulary size, id)` of the token that stands for unknown words, if the model's tokenizer has one."""
    tokenizer = find_tokenizer(model)
    unknown = None if tokenizer is None else _unknown_id(tokenizer)
    return None if tokenizer is None or unknown is None else (tokenizer.vocabulary_size(), unknown)


def _unknown_id(tokenizer: Any) -> int | None:
    token = getattr(tokenizer, "oov_token", None) or getattr(tokenizer, "unk_token", None)
    return None if token is None else int(tokenizer.token_to_id(token))
