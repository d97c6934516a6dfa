"""Word swaps by the greedy search of Kuleshov et al."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from keras_remos.defects.word_swaps.search import Rules, Search, Subject, greedily
from keras_remos.defects.word_swaps.word_swap import WordSwap


@dataclass(frozen=True, kw_only=True)
class GreedySwap(WordSwap):
    """Of all words and their synonyms the swap that helps most, again and again (Kuleshov et al.).

    Args:
        synonyms: See `WordSwap`, as for all other options.

    Reference:
        V. Kuleshov et al., Adversarial Examples for Natural Language Classification Problems, 2018, Algorithm 1 and
        section 4: 15 neighbours, at most half of the words, a goal of 0.7.

    Note:
        The goal is the probability of the wrong class, as in the paper, so that a success is misread. TextAttack's
        recipe stops as soon as the true class has less than 0.7: that is `goal_probability=0.3` for two classes. The
        paper's checks of meaning and fluency need an encoder and a language model: give them as `checks`. What the
        search costs grows with the square of a text's length, so unlike in the paper it keeps to the first 128 words
        that have synonyms (`max_places`), which few texts exceed.
    """

    candidates: int = 15
    max_share: float = 0.5
    max_places: int | None = 128
    goal_probability: float | None = 0.7

    name: ClassVar[str] = "greedy-swap"

    def search(self, subject: Subject, rules: Rules) -> Search:
        return greedily(subject, rules)
