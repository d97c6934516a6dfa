"""Runs many searches at once, so that what they ask goes to the model in large batches, each text once.

All the searches of a group take a step together. What a step asks for is scored in full batches, and every score is
kept until the group is finished. The scores are also what goes to disk: an interrupted run makes its searches anew,
which find their scores there and arrive, in the same step and with the same batches to come, where it stopped.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from keras_remos.defects.resuming import INTERVAL, KIND, Whole, check_whole
from keras_remos.defects.word_swaps.search import CLASSES, Outcome, Search
from keras_remos.errors import DataError
from keras_remos.models.text_models import Text
from keras_remos.saving import write_archive
from keras_remos.untrusted import Count, PathLike, complete, read_archive


class _Header(Whole):
    outcomes: list[tuple[Literal["success", "failed", "skipped"], list[tuple[Count, str]]]]
    queries: list[Count]
    calls: dict[str, Count]


DIGEST_BYTES = 16
# Searches run together until their texts hold so many words or are so many: this bounds what is kept in memory, which
# for a greedy search grows with the square of its text's length.
GROUP_WORDS = 4096
GROUP_TEXTS = 256
Score = Callable[[Sequence[Any]], np.ndarray]


class Scorer:
    """Scores texts in batches, each different one once.

    Args:
        function: A batch of texts to scores, float of shape `(texts,)` or `(texts, classes)`.
        batch_size: How many texts it gets at most.

    Attributes:
        calls: How many batches it has got.
    """

    def __init__(self, function: Score, batch_size: int) -> None:
        self.function = function
        self.batch_size = batch_size
        self.calls = 0
        self._scores: dict[bytes, np.ndarray] = {}

    def request(self, texts: Sequence[Text]) -> Iterator[None]:
        """Scores what has not been scored yet; stops after each batch."""
        new = {key: text for text in texts if (key := _digest(text)) not in self._scores}
        # Texts of one length need the least padding.
        keys = sorted(new, key=lambda key: _length(new[key]))
        for start in range(0, len(keys), self.batch_size):
            batch = keys[start : start + self.batch_size]
            scores = np.asarray(self.function([new[key] for key in batch]), np.float32)
            if scores.ndim not in (1, 2) or len(scores) != len(batch) or not np.isfinite(scores).all():
                raise DataError(
                    f"Expected finite scores for a batch of {len(batch)} texts, received an array of shape "
                    f"{scores.shape}{'' if np.isfinite(scores).all() else ' with NaN or infinity'}."
                )
            self._scores.update(zip(batch, scores.reshape(len(batch), -1), strict=True))
            self.calls += 1
            yield

    def answer(self, texts: Sequence[Text]) -> np.ndarray:
        """The scores of texts that have been requested, `(texts, columns)`."""
        return np.stack([self._scores[_digest(text)] for text in texts])

    def forget(self) -> None:
        """Drops all scores."""
        self._scores.clear()

    def to_arrays(self) -> dict[str, np.ndarray]:
        """What a file holds of it."""
        keys = np.frombuffer(b"".join(self._scores), np.uint8).reshape(-1, DIGEST_BYTES)
        return {"keys": keys, "scores": np.stack(list(self._scores.values())) if self._scores else np.empty((0, 0))}

    def restore(self, arrays: Mapping[str, np.ndarray], calls: int) -> None:
        """Takes what `to_arrays` gave, and how many calls it took."""
        found, scores = arrays["keys"], arrays["scores"].astype(np.float32)
        if found.shape[1:] != (DIGEST_BYTES,) or scores.ndim != 2 or not np.isfinite(scores).all():
            raise ValueError("scores of texts in it are none")
        self._scores = dict(zip((key.tobytes() for key in found), scores, strict=True))
        self.calls = calls


def _digest(text: Text) -> bytes:
    # repr tells a pair from a text, and writes out what UTF-8 cannot hold.
    return hashlib.blake2b(repr(text).encode(), digest_size=DIGEST_BYTES).digest()


def _length(text: Text) -> int:
    return len(text) if isinstance(text, str) else sum(map(len, text))


class Lockstep:
    """Runs searches in groups, and can go on where an interrupted run stopped.

    Args:
        scorers: What answers each kind of question.
        path: A file for partial results, or `None`.
        whole: What is to be made: everything that has a say in the result, as plain values for JSON.

    Attributes:
        outcomes: Of the searches that are finished.
        queries: How many different texts each of these asked the classifier for.

    Raises:
        FileError: If the file is damaged or of another kind.
        MismatchError: If it is the part of something else.
    """

    def __init__(self, scorers: Mapping[str, Scorer], path: PathLike | None, whole: Mapping[str, Any]) -> None:
        self.scorers = dict(scorers)
        self.path = None if path is None else Path(path)
        self.whole = dict(whole)
        self.outcomes: list[Outcome] = []
        self.queries: list[int] = []
        self._written = time.monotonic()
        if self.path is not None and self.path.exists():
            self._read(self.path)

    def run(self, groups: Sequence[Sequence[Callable[[], Search]]]) -> Iterator[int]:
        """Runs what is not finished yet, group after group.

        Args:
            groups: Searches, as functions that start them.

        Yields:
            How many searches have finished since the last time.
        """
        done = 0
        if self.outcomes:
            yield len(self.outcomes)
        for group in groups:
            done += len(group)
            if done <= len(self.outcomes):
                continue
            try:
                yield from self._run_group([start() for start in group])
            except BaseException:
                self.write()
                raise
            for scorer in self.scorers.values():
                scorer.forget()

    def _run_group(self, searches: list[Search]) -> Iterator[int]:
        outcomes: dict[int, Outcome] = {}
        asked: list[set[bytes]] = [set() for _ in searches]
        waiting = {number: next(search) for number, search in enumerate(searches)}
        while waiting:
            for kind, scorer in self.scorers.items():
                texts = [text for question in waiting.values() if question.kind == kind for text in question.texts]
                for _ in scorer.request(texts):
                    if time.monotonic() - self._written >= INTERVAL:
                        self.write()
            before = len(outcomes)
            for number, question in list(waiting.items()):
                if question.kind == CLASSES:
                    asked[number].update(map(_digest, question.texts))
                try:
                    waiting[number] = searches[number].send(self.scorers[question.kind].answer(question.texts))
                except StopIteration as stop:
                    outcomes[number] = stop.value
                    del waiting[number]
            yield len(outcomes) - before
        self.outcomes += [outcomes[number] for number in range(len(searches))]
        self.queries += [len(texts) for texts in asked]

    def write(self) -> None:
        """Writes what is finished, and the scores of what is not."""
        if self.path is None:
            return
        header = {
            "whole": self.whole,
            "outcomes": [[outcome.status, outcome.swaps] for outcome in self.outcomes],
            "queries": self.queries,
            "calls": {kind: scorer.calls for kind, scorer in self.scorers.items()},
        }
        arrays = {
            f"{kind}/{name}": array
            for kind, scorer in self.scorers.items()
            for name, array in scorer.to_arrays().items()
        }
        write_archive(self.path, KIND, header, arrays, overwrite=True)
        self._written = time.monotonic()

    def _read(self, path: Path) -> None:
        header, arrays = read_archive(path, KIND, _Header)
        check_whole(path, self.whole, header["whole"])
        with complete(path):
            self.outcomes = [
                Outcome(status, tuple((index, word) for index, word in swaps)) for status, swaps in header["outcomes"]
            ]
            self.queries = header["queries"]
            if len(self.queries) != len(self.outcomes):
                raise ValueError(f"{len(self.queries)} counts of queries for {len(self.outcomes)} texts")
            for kind, scorer in self.scorers.items():
                own = {name: arrays[f"{kind}/{name}"] for name in ("keys", "scores")}
                scorer.restore(own, header["calls"][kind])


def in_groups(searches: Sequence[Callable[[], Search]], words: Sequence[int]) -> list[list[Callable[[], Search]]]:
    """Which searches run together.

    Args:
        searches: Functions that start them.
        words: How many words the text of each has.

    Returns:
        The searches in their order, in groups that the memory can hold.
    """
    groups: list[list[Callable[[], Search]]] = [[]]
    total = 0
    for search, count in zip(searches, words, strict=True):
        total += count
        if groups[-1] and (total > GROUP_WORDS or len(groups[-1]) == GROUP_TEXTS):
            groups.append([])
            total = count
        groups[-1].append(search)
    return groups
