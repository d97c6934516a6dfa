"""Checks that keep a text with swapped words close to the clean one: in meaning, and in how natural it reads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from keras_remos.defects.words import Passage
from keras_remos.errors import DataError, RemosError

METRICS = ("angular", "cosine", "euclidean")
# TextFooler's released code takes 1 minus the angle in radians for a similarity and asks for 0.7 of it.
TEXTFOOLER_SIMILARITY = 1 - 0.3 / np.pi


class TextCheck(Protocol):
    """What compares a text before and after a swap. Texts are compared in batches, equal pairs once.

    Attributes:
        name: Different for each check of an attack.
    """

    name: str

    def pair(self, original: Passage, current: Passage, changed: Passage, index: int) -> tuple[str, str] | None:
        """The two texts to compare.

        Args:
            original: The text before any swap.
            current: The text before this swap.
            changed: The text after it.
            index: The place of the swapped word.

        Returns:
            Before and after, or `None` where there is nothing to check.
        """
        ...

    def score(self, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        """How alike the texts of each pair are, shape `(pairs,)`: the higher, the more."""
        ...

    def admits(self, score: float) -> bool:
        """Whether that is alike enough."""
        ...

    def get_config(self) -> dict[str, Any]:
        """The options, as plain values for JSON."""
        ...


@dataclass(frozen=True)
class SentenceSimilarity:
    """The meaning of a text stays what it is, as a sentence encoder sees it.

    Args:
        encode: Texts to vectors, `(texts,)` to `(texts, dimensions)`: a `TextEncoder` of any KerasHub model, a
            sentence-transformer's `encode`, or `WordVectors.mean_vectors`.
        threshold: The least similarity, or the greatest distance if the metric is Euclidean.
        metric: `"angular"` (1 minus the angle over pi), `"cosine"` or `"euclidean"`.
        window: How many words around the swapped one are compared; `None` compares whole texts.
        skip_short: Whether texts that have fewer words than the window pass unchecked, as in the released code.
        against: `"current"` compares with the text before this swap, `"original"` with that before any.

    Raises:
        RemosError: If an option has no such value.

    Example:
    ```python
    TextEncoder(keras_remos.load_teacher("minilm"))                         # any KerasHub text classifier
    SentenceSimilarity(encoder)                                             # TextFooler's
    SentenceSimilarity(vectors.mean_vectors, metric="euclidean", threshold=0.2, window=None, against="original")
    ```

    Note:
        The defaults are TextFooler's, made for the Universal Sentence Encoder; another encoder's similarities spread
        in another way. The last line of the example is the thought-vector check of Kuleshov et al. (Eq. 4).
    """

    encode: Callable[[list[str]], np.ndarray]
    threshold: float = TEXTFOOLER_SIMILARITY
    metric: str = "angular"
    window: int | None = 15
    skip_short: bool = True
    against: str = "current"

    name = "sentence similarity"

    def __post_init__(self) -> None:
        if self.metric not in METRICS:
            raise RemosError(f"Unknown metric {self.metric!r}: expected one of {', '.join(METRICS)}.")
        if self.against not in ("current", "original"):
            raise RemosError(f"`against` must be 'current' or 'original', received {self.against!r}.")
        if self.window is not None and self.window < 1:
            raise RemosError(f"`window` must be at least one word, or None for the whole text, received {self.window}.")

    def pair(self, original: Passage, current: Passage, changed: Passage, index: int) -> tuple[str, str] | None:
        before = original if self.against == "original" else current
        if self.window is None:
            return before.text, changed.text
        if self.skip_short and len(before.words) < self.window:
            return None
        return before.window(index, self.window), changed.window(index, self.window)

    def score(self, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        texts = list(dict.fromkeys(text for pair in pairs for text in pair))
        vectors = np.asarray(self.encode(texts), np.float64)
        if vectors.ndim != 2 or len(vectors) != len(texts) or not np.isfinite(vectors).all():
            raise DataError(
                f"Expected a finite vector from the sentence encoder for each of {len(texts)} texts, received shape "
                f"{vectors.shape}."
            )
        rows = dict(zip(texts, vectors, strict=True))
        before, after = (np.stack([rows[pair[side]] for pair in pairs]) for side in (0, 1))
        if self.metric == "euclidean":
            return -np.linalg.norm(before - after, axis=1)
        lengths = np.linalg.norm(before, axis=1) * np.linalg.norm(after, axis=1)
        cosine = np.clip((before * after).sum(axis=1) / np.maximum(lengths, np.finfo(np.float64).tiny), -1, 1)
        return cosine if self.metric == "cosine" else 1 - np.arccos(cosine) / np.pi

    def admits(self, score: float) -> bool:
        return score >= (-self.threshold if self.metric == "euclidean" else self.threshold)

    def get_config(self) -> dict[str, Any]:
        options = {"threshold": float(self.threshold), "metric": self.metric, "window": self.window}
        return {"encode": _called(self.encode), **options, "skip_short": self.skip_short, "against": self.against}


@dataclass(frozen=True)
class Fluency:
    """A text stays as likely as it was, as a language model sees it (Kuleshov et al., Eq. 5).

    Args:
        log_probability: Texts to the natural logarithms of their probabilities, `(texts,)` to `(texts,)`.
        max_difference: How far these may be apart, in nats; 2 in the paper.
    """

    log_probability: Callable[[list[str]], np.ndarray]
    max_difference: float = 2.0

    name = "fluency"

    def pair(self, original: Passage, current: Passage, changed: Passage, index: int) -> tuple[str, str] | None:
        return original.text, changed.text

    def score(self, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        texts = list(dict.fromkeys(text for pair in pairs for text in pair))
        values = np.asarray(self.log_probability(texts), np.float64)
        if values.shape != (len(texts),) or not np.isfinite(values).all():
            raise DataError(
                f"Expected a finite log-probability from the language model for each of {len(texts)} texts, received "
                f"shape {values.shape}."
            )
        likely = dict(zip(texts, values, strict=True))
        return np.array([-abs(likely[before] - likely[after]) for before, after in pairs])

    def admits(self, score: float) -> bool:
        return score >= -self.max_difference

    def get_config(self) -> dict[str, Any]:
        return {"log_probability": _called(self.log_probability), "max_difference": self.max_difference}


def _called(function: Any) -> str:
    return str(getattr(function, "__qualname__", None) or getattr(function, "name", None) or type(function).__name__)
