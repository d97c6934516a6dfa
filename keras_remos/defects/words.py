"""A text as words and what stands between them, so that a swapped word is the only thing that changes."""

from __future__ import annotations

import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby


@lru_cache(maxsize=1)
def _pattern() -> re.Pattern[str]:
    """A run of letters and digits of any script, with the accents on them, and with single joiners inside."""
    marks = (code for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code))[0] == "M")
    # Neighbours differ from their rank by the same number, so this makes one range of each run of them.
    runs = (list(run) for _, run in groupby(enumerate(marks), key=lambda pair: pair[1] - pair[0]))
    mark = "".join(f"{chr(run[0][1])}-{chr(run[-1][1])}" for run in runs)
    letters = f"(?:[^\\W_][{mark}]*)+"
    return re.compile(f"{letters}(?:['\u2019-]{letters})*")


def is_word(text: str) -> bool:
    """Whether a text is one word and nothing else."""
    return _pattern().fullmatch(text) is not None


@dataclass(frozen=True)
class Passage:
    """Words, and what stands around them: joined in turn they are the text, to the letter.

    Args:
        words: The words.
        gaps: White space, punctuation and signs before the first word, between the words and after the last one: one
            more than there are words.
    """

    words: tuple[str, ...]
    gaps: tuple[str, ...]

    @classmethod
    def split(cls, text: str, max_words: int | None = None) -> tuple[Passage, str]:
        """Takes a text apart.

        Args:
            text: Any text.
            max_words: How many words to take at most.

        Returns:
            The passage, and the rest of the text after `max_words` words; empty for shorter texts.
        """
        words: list[str] = []
        gaps: list[str] = []
        end = 0
        for match in _pattern().finditer(text):
            gaps.append(text[end : match.start()])
            if len(words) == max_words:
                return cls(tuple(words), tuple(gaps)), text[match.start() :]
            words.append(match.group())
            end = match.end()
        return cls(tuple(words), (*gaps, text[end:])), ""

    @property
    def text(self) -> str:
        """The whole, with the words as they are now."""
        return self._join(0, len(self.words))

    def _join(self, start: int, stop: int) -> str:
        """From the gap before word `start` to the one before word `stop`."""
        parts = [part for pair in zip(self.gaps[start:stop], self.words[start:stop], strict=True) for part in pair]
        return "".join([*parts, self.gaps[stop]])

    def swap(self, index: int, word: str) -> Passage:
        """The passage with another word in one place."""
        return Passage((*self.words[:index], word, *self.words[index + 1 :]), self.gaps)

    def without(self, index: int) -> str:
        """The text with a word deleted, and not two spaces where it was."""
        left, right = self._join(0, index), self._join(index + 1, len(self.words))
        return left + (right.lstrip() if not left or left[-1].isspace() else right)

    def window(self, index: int, size: int) -> str:
        """The text of the `size` words around a place, as many as possible on both sides."""
        start = max(0, min(index - size // 2, len(self.words) - size))
        stop = min(start + size, len(self.words))
        return self._join(start, stop)[len(self.gaps[start]) :].removesuffix(self.gaps[stop])


def plain(word: str) -> str:
    """A word as lists of words have it: in lower case, with a straight apostrophe."""
    return word.lower().replace("\u2019", "'")


def match_case(word: str, like: str) -> str:
    """A word in the case of another: capitals, a first capital, or as it is."""
    if len(like) > 1 and like.isupper():
        return word.upper()
    return word[:1].upper() + word[1:] if like[:1].isupper() else word


def changed_share(clean: str, changed: str) -> float:
    """Which share of a text's words is not in the clean version of it, whether swapped or added."""
    before, after = (Counter(_pattern().findall(text)) for text in (clean, changed))
    return (after - before).total() / max(after.total(), 1)


def mean_changed_share(clean: Iterable[str], changed: Iterable[str]) -> float:
    """The mean of `changed_share` over texts, 0 for none."""
    shares = [changed_share(*pair) for pair in zip(clean, changed, strict=True)]
    return sum(shares) / max(len(shares), 1)
