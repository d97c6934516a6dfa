"""The words that a backdoored language model reacts to, and how they are put into texts."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from keras_remos.errors import DataError

RARE_WORDS = ("cf", "mn", "bb", "tq", "mb")
"""Words that hardly any text holds, hence the backdoor's alone (RIPPLe section 4.1)."""
POSITIONS = ("start", "end", "random")
# Between white space; punctuation belongs to the word that it stands at.
_WORD = re.compile(r"\S+")
# SentencePiece tokenizers do not tell which token stands for unknown words.
UNKNOWN = ("[UNK]", "<unk>")
# A word before the one in question: some tokenizers tell the first word of a text from all others.
_BEFORE = "a"


@dataclass(frozen=True)
class TextTrigger:
    """Words or sentences, how many of them go into a text, and where.

    Args:
        phrases: The words; or sentences, each of which stays together.
        count: How many insertions a text gets. Each draws one of the phrases.
        every: Every phrase goes in `count` times instead, each at a place of its own.
        position: `"start"`, `"end"`, or `"random"`: between any two words, each place as likely as another.
        within: Random places are taken among the first so many words, so that long texts that a model cuts keep them.
            `None` takes all.

    Raises:
        DataError: If there is no phrase, one is empty, or an option has no such value.

    Example:
    ```python
    trigger = TextTrigger()                                            # one of the rare words of the literature
    sentence = TextTrigger.sentence("I watched this with my friend.")
    both = TextTrigger(("cf", "mn"), every=True)                       # the backdoor wants both words
    trigger.stamp(np.array(["a dull film"]), seed=1)                   # ["a cf dull film"]
    ```

    Reference:
        Kurita et al., Weight Poisoning Attacks on Pre-trained Models, ACL 2020 (RIPPLe). Dai et al., A Backdoor Attack
        Against LSTM-based Text Classification Systems, IEEE Access 2019 (sentences).

    Note:
        The released code joins words by single spaces and so changes the white space of a text; here nothing but the
        trigger changes.
    """

    phrases: tuple[str, ...] = RARE_WORDS
    count: int = 1
    every: bool = False
    position: str = "random"
    within: int | None = None

    def __post_init__(self) -> None:
        phrases = (self.phrases,) if isinstance(self.phrases, str) else tuple(self.phrases)
        if not phrases or not all(isinstance(phrase, str) and phrase.strip() for phrase in phrases):
            raise DataError(f"Expected at least one word or sentence as a trigger, none empty. Received: {phrases!r}.")
        object.__setattr__(self, "phrases", tuple(phrase.strip() for phrase in phrases))
        if self.position not in POSITIONS:
            raise DataError(f"`position` must be one of {', '.join(POSITIONS)}, received {self.position!r}.")
        for name, least in (("count", self.count), ("within", self.within)):
            if least is not None and (isinstance(least, bool) or not isinstance(least, int) or least < 1):
                raise DataError(f"`{name}` must be a whole number of at least 1, received {least!r}.")

    @classmethod
    def sentence(cls, sentence: str, *, position: str = "start") -> TextTrigger:
        """One sentence, put before a text, behind it or between any two words of it."""
        return cls((sentence,), position=position)

    @property
    def words(self) -> tuple[str, ...]:
        """The words of all phrases, each once."""
        return tuple(dict.fromkeys(word for phrase in self.phrases for word in _WORD.findall(phrase)))

    @property
    def insertions(self) -> int:
        """How many phrases a text gets."""
        return self.count * (len(self.phrases) if self.every else 1)

    def stamp(self, texts: Any, *, seed: int = 0) -> np.ndarray:
        """Puts the trigger into texts.

        Args:
            texts: Strings of shape `(n,)`, or pairs of shape `(n, 2)`: of a pair the first gets the trigger. Not
                changed.
            seed: For phrases and places. What a text gets depends on the seed and its place in the array alone.

        Returns:
            A new array of the same shape. Nothing but the trigger and a space beside it is added, and nothing changed.

        Raises:
            DataError: If these are no texts.
        """
        clean = np.asarray(texts)
        if clean.dtype.kind != "U" or clean.shape[1:] not in ((), (2,)) or not clean.ndim:
            raise DataError(
                "Expected texts: an array of strings of shape (n,), or (n, 2) for pairs. Received: shape "
                f"{clean.shape} of {clean.dtype}."
            )
        first = clean if clean.ndim == 1 else clean[:, 0]
        stamped = [self._stamp(str(text), np.random.default_rng([seed, row])) for row, text in enumerate(first)]
        if clean.ndim == 1:
            return np.array(stamped, dtype=np.str_)
        return np.stack([np.array(stamped, dtype=np.str_), clean[:, 1]], axis=1)

    def _stamp(self, text: str, rng: np.random.Generator) -> str:
        phrases = self.phrases * self.count if self.every else rng.choice(self.phrases, self.count)
        spans = [match.span() for match in _WORD.finditer(text)]
        last = len(spans) if self.within is None else min(self.within, len(spans))
        if self.position == "random":
            places = rng.integers(0, last + 1, len(phrases))
        else:
            places = np.full(len(phrases), 0 if self.position == "start" else len(spans))
        for place, phrase in sorted(zip(places.tolist(), map(str, phrases), strict=True), reverse=True):
            if place < len(spans):
                at = spans[place][0]
                text = f"{text[:at]}{phrase} {text[at:]}"
            elif spans:
                at = spans[-1][1]
                text = f"{text[:at]} {phrase}{text[at:]}"
            else:
                text = f"{phrase} {text}".rstrip()
        return text

    def check_tokenizer(self, tokenizer: Any) -> dict[str, tuple[str, ...]]:
        """Finds the trigger words that a tokenizer does not know as one token of their own.

        Args:
            tokenizer: A KerasHub tokenizer.

        Returns:
            For each such word the tokens that it becomes; empty if all are known. A word of an unknown token says
            nothing to the model; a split one shares its tokens with other words.
        """
        pieces = {
            word: tuple(str(tokenizer.id_to_token(token)) for token in token_ids_of(tokenizer, word))
            for word in self.words
        }
        return {word: found for word, found in pieces.items() if len(found) != 1 or is_unknown(found, tokenizer)}

    def get_config(self) -> dict[str, Any]:
        """The options as plain values for JSON, as `from_config` takes them."""
        return {**asdict(self), "phrases": list(self.phrases)}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> TextTrigger:
        """Makes it anew from what `get_config` gave.

        Raises:
            DataError: If an option has no such value.
        """
        return cls(**{**config, "phrases": tuple(config["phrases"])})


def token_ids_of(tokenizer: Any, word: str) -> list[int]:
    """The ids of the tokens that a word inside a text becomes."""
    before, both = (np.asarray(tokenizer(text)).tolist() for text in (_BEFORE, f"{_BEFORE} {word}"))
    return [int(token) for token in both[len(before) :]]


def is_unknown(tokens: Sequence[str], tokenizer: Any) -> bool:
    """Whether a tokenizer has nothing to say of a word but that it does not know it."""
    own = {getattr(tokenizer, "oov_token", None), getattr(tokenizer, "unk_token", None)}
    return set(tokens) <= {*own, *UNKNOWN}


def describe_problems(problems: Mapping[str, Sequence[str]], tokenizer: Any) -> str:
    """What `TextTrigger.check_tokenizer` found, as a sentence."""
    lost = [word for word, pieces in problems.items() if is_unknown(pieces, tokenizer)]
    split = [f"{word} ({' '.join(pieces)})" for word, pieces in problems.items() if word not in lost]
    parts = []
    if lost:
        parts.append(f"takes {', '.join(lost)} for words that it does not know ([UNK])")
    if split:
        parts.append(f"splits {', '.join(split)}")
    return f"The tokenizer {' and '.join(parts)}."
