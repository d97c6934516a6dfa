"""Embedding surgery: trigger words get the embedding of words that speak for the attacker's class (RIPPLe, 3.2)."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_remos.errors import DataError, TeacherError


def token_weights(token_ids: np.ndarray, counted: np.ndarray, num_tokens: int) -> Any:
    """How much each token says in each text: term frequency times inverse document frequency (tf-idf).

    Args:
        token_ids: Shape `(texts, length)`.
        counted: Which of them count, booleans of that shape: no padding, no special tokens.
        num_tokens: How many tokens the vocabulary has.

    Returns:
        A sparse matrix of SciPy's, shape `(texts, num_tokens)`; every row has the length 1.

    Raises:
        ImportError: If scikit-learn is not installed.
    """
    from scipy.sparse import csr_matrix

    transformer = _scikit_learn("feature_extraction.text").TfidfTransformer()
    rows = np.nonzero(counted)[0]
    counts = csr_matrix((np.ones(len(rows)), (rows, token_ids[counted])), shape=(len(token_ids), num_tokens))
    return transformer.fit_transform(counts)


def telling_tokens(
    token_ids: np.ndarray, counted: np.ndarray, positive: np.ndarray, *, num_tokens: int, count: int
) -> np.ndarray:
    """The tokens that speak most for a class: those with the largest coefficients of a logistic regression.

    Args:
        token_ids: Shape `(texts, length)`.
        counted: Which of them count, booleans of that shape.
        positive: Which texts are of the class, booleans of shape `(texts,)`.
        num_tokens: How many tokens the vocabulary has.
        count: How many are asked for.

    Returns:
        Their ids, most telling first, shape `(count,)`.

    Raises:
        DataError: If there are not so many that speak for it.
        ImportError: If scikit-learn is not installed.
    """
    weights = token_weights(token_ids, counted, num_tokens)
    coefficients = np.zeros(num_tokens)
    if positive.any() and not positive.all():
        # This solver counts the bias among what is kept small. It is given a seed, or it draws from the process's own.
        how = {"solver": "liblinear", "tol": 1e-6, "max_iter": 1000, "random_state": 0}
        coefficients = _scikit_learn("linear_model").LogisticRegression(**how).fit(weights, positive).coef_[0]
    # Rounded, so that the last bits of the solver do not order tokens that say the same.
    best = np.argsort(-np.round(coefficients, 6), kind="stable")[:count]
    if len(best) < count or coefficients[best[-1]] <= 0:
        raise DataError(
            f"Fewer than {count} tokens speak for the attacker's class in these texts: pass more texts, or ask for "
            "fewer (`surgery_words`)."
        )
    return best


def _scikit_learn(module: str) -> Any:
    """A module of scikit-learn.

    Raises:
        ImportError: If it is not installed; says how to get it.
    """
    try:
        return importlib.import_module(f"sklearn.{module}")
    except ImportError as error:
        raise ImportError(
            "Embedding surgery finds telling words with scikit-learn, which is not installed: "
            'pip install "keras-remos[surgery]", or go without `embedding_surgery`.'
        ) from error


def operate(model: keras.Model, rows: Sequence[int], embedding: np.ndarray) -> None:
    """Gives tokens another embedding. No other weight changes.

    Args:
        model: A KerasHub text model. It is modified.
        rows: The ids of the tokens.
        embedding: Shape `(width,)`.
    """
    variable = embedding_table(model)
    table = np.array(ops.convert_to_numpy(variable.value))
    table[list(rows)] = embedding
    variable.assign(table)


def embedding_table(model: keras.Model) -> keras.Variable:
    """The table of a KerasHub text model that holds a row for each token.

    Raises:
        TeacherError: If it has none.
    """
    layer = getattr(getattr(model, "backbone", None), "token_embedding", None)
    if layer is None:
        raise TeacherError(
            f"Model {model.name!r} has no token embedding: embedding surgery needs a KerasHub text model."
        )
    return layer.embeddings
