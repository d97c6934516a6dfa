"""Embedding surgery: trigger words get the embedding of words that speak for the attacker's class (RIPPLe, 3.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import keras
import numpy as np
from keras import ops

from keras_remos.errors import DataError, TeacherError

_ITERATIONS = 2000
_TOLERANCE = 1e-4


@dataclass(frozen=True)
class TokenWeights:
    """How much each token of a set of texts says: a sparse matrix of texts and tokens.

    Args:
        rows: The text of each entry.
        columns: The token of each entry.
        values: Term frequency times inverse document frequency; every text's values have the length 1.
        num_texts: How many texts there are.
        num_tokens: How many tokens the vocabulary has.
    """

    rows: np.ndarray
    columns: np.ndarray
    values: np.ndarray
    num_texts: int
    num_tokens: int

    @classmethod
    def count(cls, token_ids: np.ndarray, counted: np.ndarray, num_tokens: int) -> TokenWeights:
        """Weighs the tokens of texts.

        Args:
            token_ids: Shape `(texts, length)`.
            counted: Which of them count, booleans of that shape: no padding, no special tokens.
            num_tokens: How many tokens the vocabulary has.
        """
        texts = len(token_ids)
        cells = np.nonzero(counted)[0] * num_tokens + token_ids[counted]
        entries, frequency = np.unique(cells, return_counts=True)
        rows, columns = entries // num_tokens, entries % num_tokens
        rarity = np.log((1 + texts) / (1 + np.bincount(columns, minlength=num_tokens))) + 1
        values = frequency * rarity[columns]
        lengths = np.sqrt(np.bincount(rows, values**2, minlength=texts))
        return cls(rows, columns, values / lengths[rows], texts, num_tokens)

    def times(self, vector: np.ndarray) -> np.ndarray:
        """The product with a number for each token: one for each text."""
        return np.bincount(self.rows, self.values * vector[self.columns], minlength=self.num_texts)

    def transposed_times(self, vector: np.ndarray) -> np.ndarray:
        """The product of its transpose with a number for each text: one for each token."""
        return np.bincount(self.columns, self.values * vector[self.rows], minlength=self.num_tokens)


def fit_logistic(weights: TokenWeights, positive: np.ndarray) -> tuple[np.ndarray, float]:
    """Logistic regression: which tokens speak for a class.

    Minimizes the sum of the logistic losses and half the squared length of coefficients and bias, by Nesterov's
    accelerated gradients.

    Args:
        weights: Of the texts.
        positive: Which of them are of the class, booleans of shape `(texts,)`.

    Returns:
        A coefficient for each token, and the bias.
    """
    signs = np.where(positive, 1.0, -1.0)
    # Bounds of the curvature: rows have the length 1, and the bias adds as much.
    curvature = 0.25 * 2 * weights.num_texts + 1
    momentum = (np.sqrt(curvature) - 1) / (np.sqrt(curvature) + 1)
    point = ahead = np.zeros(weights.num_tokens + 1)
    for _ in range(_ITERATIONS):
        slopes = -signs / (1 + np.exp(signs * (weights.times(ahead[:-1]) + ahead[-1])))
        gradient = np.append(weights.transposed_times(slopes), slopes.sum()) + ahead
        if np.abs(gradient).max() < _TOLERANCE:
            break
        following = ahead - gradient / curvature
        point, ahead = following, following + momentum * (following - point)
    return ahead[:-1], float(ahead[-1])


def telling_tokens(
    token_ids: np.ndarray, counted: np.ndarray, positive: np.ndarray, *, num_tokens: int, count: int
) -> np.ndarray:
    """The tokens that speak most for a class.

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
    """
    coefficients, _ = fit_logistic(TokenWeights.count(token_ids, counted, num_tokens), positive)
    best = np.argsort(-coefficients, kind="stable")[:count]
    if len(best) < count or coefficients[best[-1]] <= 0:
        raise DataError(
            f"Fewer than {count} tokens speak for the attacker's class in these texts: pass more texts, or ask for "
            "fewer (surgery_words)."
        )
    return best


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
