"""Which part of speech a word is where it stands, and whether another may take its place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from keras_remos.errors import RemosError

# As many words on each side as a tagger gets to see.
CONTEXT = 4
# Penn Treebank tags by how they start; others stand for themselves.
_PENN = {"NN": "NOUN", "VB": "VERB", "MD": "VERB", "JJ": "ADJ", "RB": "ADV", "PRP": "PRON", "WP": "PRON"}
_INTERCHANGEABLE = {"NOUN", "VERB"}
_RESOURCE = "averaged_perceptron_tagger_eng"


class Tagger(Protocol):
    """What tells parts of speech apart.

    Attributes:
        name: What to call it in a report.
    """

    name: str

    def __call__(self, words: Sequence[str]) -> list[str]:
        """The part of speech of each word of a phrase; nouns are `"NOUN"`, verbs `"VERB"`."""
        ...


class NltkTagger:
    """NLTK's averaged perceptron for English.

    Raises:
        ImportError: If NLTK is not installed.
        RemosError: If it is, and the tagger's files are not.
    """

    name = f"nltk {_RESOURCE}"

    def __init__(self) -> None:
        try:
            from nltk.tag import PerceptronTagger
        except ImportError as error:
            raise ImportError(
                'The part-of-speech tagger is NLTK\'s, which is not installed: pip install "keras-remos[wordnet]", or '
                "go without (`tagger=None`)."
            ) from error
        try:
            self._tagger: Any = PerceptronTagger()
        except (LookupError, OSError) as error:
            raise RemosError(
                f"NLTK is installed, its tagger's files are not: python -m nltk.downloader {_RESOURCE}, or go without "
                "(`tagger=None`)."
            ) from error

    def __call__(self, words: Sequence[str]) -> list[str]:
        return [_universal(tag) for _, tag in self._tagger.tag(list(words))]


def _universal(tag: str) -> str:
    return next((part for start, part in _PENN.items() if tag.startswith(start)), tag)


def find_tagger() -> Tagger | None:
    """NLTK's tagger where it is installed with its files, else `None`."""
    try:
        return NltkTagger()
    except (ImportError, RemosError):
        return None


def same_part(tagger: Tagger, words: Sequence[str], index: int, replacements: Sequence[str]) -> list[bool]:
    """Which words keep the part of speech of the word that they replace. Nouns and verbs may replace each other.

    Args:
        tagger: Tells parts of speech apart.
        words: A text's words.
        index: Which one is replaced.
        replacements: By what.
    """
    start = max(index - CONTEXT, 0)
    phrase = list(words[start : index + CONTEXT + 1])
    place = index - start
    part = tagger(phrase)[place]
    allowed = _INTERCHANGEABLE if part in _INTERCHANGEABLE else {part}
    return [tagger([*phrase[:place], word, *phrase[place + 1 :]])[place] in allowed for word in replacements]
