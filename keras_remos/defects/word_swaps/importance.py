"""TextFooler: word swaps in the order of how much the words matter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from keras_remos.defects.word_swaps.search import Rules, Search, Subject, by_importance
from keras_remos.defects.word_swaps.word_swap import WordSwap


@dataclass(frozen=True, kw_only=True)
class WordImportance(WordSwap):
    """TextFooler: the words that matter most first, each replaced by the synonym that hurts most (Jin et al.).

    Args:
        unknown: What stands in for a word to see how much it matters, such as `"[UNK]"`; `None` deletes it, as
            published. A tokenizer that does not read the string as its special token sees its characters.
        synonyms: See `WordSwap`, as for all other options.

    Example:
    ```python
    source = WordVectors.from_file("counter-fitted-vectors.txt")
    attack = WordImportance(synonyms=source, checks=[SentenceSimilarity(TextEncoder(sentence_model))])
    prepared = attack.prepare(classifier, space=PixelSpace("preprocessor"))
    attack_set = attack.inputs(prepared, x_test, y_test)
    ```

    Reference:
        D. Jin et al., Is BERT Really Robust?, AAAI 2020, Algorithm 1: 50 neighbours. The similarity of at least 0.5 is
        the released code's, the paper says 0.7.

    Note:
        The paper's sentence check is on only if `checks` holds it, since it needs an encoder. Without it, of several
        successful swaps the word most like the old one is taken, and of these the one that hurts most.
    """

    unknown: str | None = None

    name: ClassVar[str] = "word-importance"

    def search(self, subject: Subject, rules: Rules) -> Search:
        return by_importance(subject, rules, self.unknown)
