"""The two searches for words to swap, each written for one text as its paper gives it.

A search is a generator: it yields the texts whose scores it needs next, and is sent the scores. So it never calls a
model itself, and many searches share their batches (see `lockstep`).
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field

import numpy as np

from keras_remos.defects.word_swaps.checks import TextCheck
from keras_remos.defects.word_swaps.parts_of_speech import Tagger, same_part
from keras_remos.defects.word_swaps.synonyms import SynonymSource
from keras_remos.defects.words import Passage, is_word, match_case, plain
from keras_remos.models.text_models import Text

CLASSES = "classes"


@dataclass(frozen=True)
class Question:
    """What a search needs to know before it goes on.

    Args:
        kind: `CLASSES` for the classifier's probabilities, or the name of a check.
        texts: Texts, or for a check the pairs to compare.
    """

    kind: str
    texts: list[Text]


@dataclass(frozen=True)
class Outcome:
    """How a search ended.

    Args:
        status: `"success"`, `"failed"` (no swaps reached the goal), or `"skipped"` (the clean text is misread already).
        swaps: `(place, word)` in the order in which they were made.
    """

    status: str
    swaps: tuple[tuple[int, str], ...] = ()


Search = Generator[Question, np.ndarray, Outcome]


@dataclass(frozen=True)
class Subject:
    """One text that is attacked.

    Args:
        passage: The part of it whose words may be swapped.
        label: Its true class.
        other: The text that it is paired with, which stays as it is.
        first: Whether the attacked text comes first in the pair.
    """

    passage: Passage
    label: int
    other: str | None = None
    first: bool = True

    def beside(self, text: str) -> Text:
        """A version of the text, as the classifier reads it."""
        if self.other is None:
            return text
        return (text, self.other) if self.first else (self.other, text)


@dataclass(frozen=True)
class Swap:
    """A word that may be put somewhere.

    Args:
        index: Where.
        word: The word, in the case of the one that it replaces.
        likeness: How like the text remains, by each check and then word by word: compared from the first on.
    """

    index: int
    word: str
    likeness: tuple[float, ...]


@dataclass(frozen=True)
class Rules:
    """What an attacker may do, and when the goal is reached. See `WordSwap`, which explains each option."""

    source: SynonymSource
    stop_words: frozenset[str]
    candidates: int
    min_similarity: float
    max_share: float
    max_places: int | None
    goal_probability: float | None
    tagger: Tagger | None
    checks: tuple[TextCheck, ...]
    _known: dict[str, list[tuple[str, float]]] = field(default_factory=dict, repr=False, compare=False)

    def places(self, passage: Passage) -> list[int]:
        """Where a word may be swapped: no stop word, and one that the source knows."""
        return [index for index, word in enumerate(passage.words) if self.synonyms(word)][: self.max_places]

    def synonyms(self, word: str) -> list[tuple[str, float]]:
        """What may stand for a word, the most similar first."""
        word = plain(word)
        if word not in self._known:
            found = [] if word in self.stop_words else self.source.synonyms(word)
            # The nearest are counted before the similarity is looked at, as in the released code.
            near = [pair for pair in found if is_word(pair[0]) and plain(pair[0]) != word][: self.candidates]
            self._known[word] = [pair for pair in near if pair[1] >= self.min_similarity]
        return self._known[word]

    def swaps(self, passage: Passage, index: int) -> list[Swap]:
        """What may stand at a place, part of speech included."""
        old = passage.words[index]
        # Two synonyms may be one word in capitals.
        found: dict[str, float] = {}
        for word, near in self.synonyms(old):
            found.setdefault(match_case(word, old), near)
        words = list(found)
        if self.tagger is not None and words:
            kept = same_part(self.tagger, passage.words, index, words)
            words = [word for word, keeps in zip(words, kept, strict=True) if keeps]
        return [Swap(index, word, (found[word],)) for word in words]

    def most_swaps(self, passage: Passage) -> int:
        """How many words may be swapped."""
        return int(self.max_share * len(passage.words) + 1e-9)

    def reached(self, probabilities: np.ndarray, label: int) -> np.ndarray:
        """Which of some texts, `(texts, classes)`, are where the attacker wants them."""
        if self.goal_probability is None:
            return probabilities.argmax(axis=1) != label
        return _most_wrong(probabilities, label) >= self.goal_probability

    def is_done(self, clean: np.ndarray, label: int) -> bool:
        """Whether a text is misread, or where the attacker wants it, before any swap."""
        return bool(clean.argmax() != label or self.reached(clean[np.newaxis], label)[0])


def by_importance(subject: Subject, rules: Rules, unknown: str | None = None) -> Search:
    """TextFooler's search (Jin et al., Algorithm 1): the most important words first, each swapped at most once.

    Args:
        subject: The text.
        rules: What is allowed.
        unknown: What replaces a word to see how much it matters; `None` deletes it, as published.
    """
    current = subject.passage
    clean = (yield _ask(subject, [current.text]))[0].astype(np.float64)
    if rules.is_done(clean, subject.label):
        return Outcome("skipped")
    # The importance of a word that nothing can replace does not matter: that saves queries and changes nothing.
    places = rules.places(current)
    order: list[int] = []
    if places and rules.most_swaps(current):
        removed = [current.without(i) if unknown is None else current.swap(i, unknown).text for i in places]
        importance = _importance(clean, (yield _ask(subject, removed)).astype(np.float64), subject.label)
        order = [places[i] for i in np.argsort(-importance, kind="stable")]
    made: list[tuple[int, str]] = []
    true = clean[subject.label]
    for index in order:
        if len(made) == rules.most_swaps(current):
            break
        swaps = yield from _admitted(subject, rules, current, rules.swaps(current, index))
        if not swaps:
            continue
        probabilities = yield _ask(subject, [current.swap(index, swap.word).text for swap in swaps])
        lowest = probabilities[:, subject.label]
        reached = np.flatnonzero(rules.reached(probabilities, subject.label))
        if len(reached):
            chosen = max(reached, key=lambda i: (*swaps[i].likeness, -lowest[i]))
            return Outcome("success", (*made, (index, swaps[chosen].word)))
        best = int(lowest.argmin())
        if lowest[best] < true:
            true = lowest[best]
            current = current.swap(index, swaps[best].word)
            made.append((index, swaps[best].word))
    return Outcome("failed", tuple(made))


def greedily(subject: Subject, rules: Rules) -> Search:
    """The search of Kuleshov et al. (Algorithm 1): of all swaps in all places the best, again and again.

    Args:
        subject: The text.
        rules: What is allowed.
    """
    current = subject.passage
    if rules.is_done((yield _ask(subject, [current.text]))[0], subject.label):
        return Outcome("skipped")
    made: list[tuple[int, str]] = []
    free = rules.places(current)
    while free and len(made) < rules.most_swaps(current):
        found = [swap for index in free for swap in rules.swaps(current, index)]
        swaps = yield from _admitted(subject, rules, current, found)
        if not swaps:
            break
        probabilities = yield _ask(subject, [current.swap(swap.index, swap.word).text for swap in swaps])
        best = int(_most_wrong(probabilities, subject.label).argmax())
        swap = swaps[best]
        current = current.swap(swap.index, swap.word)
        made.append((swap.index, swap.word))
        free.remove(swap.index)
        if rules.reached(probabilities, subject.label)[best]:
            return Outcome("success", tuple(made))
    return Outcome("failed", tuple(made))


def _ask(subject: Subject, texts: Sequence[str]) -> Question:
    return Question(CLASSES, [subject.beside(text) for text in texts])


def _importance(clean: np.ndarray, removed: np.ndarray, label: int) -> np.ndarray:
    """How much each word matters (Jin et al., Eq. 2), from the probabilities with it and without it."""
    drop = clean[label] - removed[:, label]
    said = removed.argmax(axis=1)
    gain = removed[np.arange(len(removed)), said] - clean[said]
    return drop + np.where(said != label, gain, 0)


def _most_wrong(probabilities: np.ndarray, label: int) -> np.ndarray:
    """The probability of the likeliest wrong class."""
    return np.delete(probabilities, label, axis=1).max(axis=1)


def _admitted(
    subject: Subject, rules: Rules, current: Passage, swaps: list[Swap]
) -> Generator[Question, np.ndarray, list[Swap]]:
    """The swaps that pass every check; what a check says goes before the likeness of the words."""
    scored: list[tuple[Swap, tuple[float, ...]]] = [(swap, ()) for swap in swaps]
    for check in rules.checks:
        pairs = [
            check.pair(subject.passage, current, current.swap(swap.index, swap.word), swap.index) for swap, _ in scored
        ]
        asked: list[Text] = [pair for pair in pairs if pair is not None]
        answers = iter((yield Question(check.name, asked))[:, 0] if asked else ())
        # What is not checked is as like as can be.
        scores = [float("inf") if pair is None else float(next(answers)) for pair in pairs]
        scored = [
            (swap, (*before, score))
            for (swap, before), pair, score in zip(scored, pairs, scores, strict=True)
            if pair is None or check.admits(score)
        ]
    return [Swap(swap.index, swap.word, (*scores, *swap.likeness)) for swap, scores in scored]
