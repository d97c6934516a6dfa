"""Triggers made of words: what is put in, where, and that nothing else changes."""

import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_remos.defects import TextTrigger
from keras_remos.defects.triggers.text import RARE_WORDS, describe_problems
from keras_remos.errors import DataError

TEXTS = np.array(["a dull film", "  so, so\tboring!  ", "one", "it was a long story and a good one ."])
# Words without the letters of the triggers, between white space of any kind.
SPACES = st.sampled_from([" ", "  ", "\t", "\n", " \n"])
WRITTEN = st.lists(st.tuples(st.text("aeiou.,'", min_size=1, max_size=5), SPACES), min_size=1, max_size=12).map(
    lambda parts: "".join(word + space for word, space in parts)
)


def without(text: str, phrase: str) -> str:
    """Takes a phrase out of a text together with the space that came with it: the opposite of stamping."""
    return re.sub(f" {re.escape(phrase)}(?!\\S)|(?<!\\S){re.escape(phrase)} ", "", text)


@given(text=WRITTEN, trailing=st.booleans(), count=st.integers(1, 6), seed=st.integers(0, 2**31))
@settings(max_examples=60, deadline=None)
def test_the_words_are_there_so_many_times_and_all_else_is_untouched(
    text: str, trailing: bool, count: int, seed: int
) -> None:
    text = text if trailing else text.rstrip()
    stamped = str(TextTrigger(("cf", "mn"), count=count).stamp(np.array([text]), seed=seed)[0])
    added = Counter(stamped.split()) - Counter(text.split())
    assert set(added) <= {"cf", "mn"} and added.total() == count
    assert len(stamped) == len(text) + 3 * count
    left = stamped
    for _ in range(count):
        left = without(without(left, "cf"), "mn")
    assert left == text


@pytest.mark.parametrize(
    ("position", "expected"),
    [("start", ["cf a dull film", "  cf so, so\tboring!  "]), ("end", ["a dull film cf", "  so, so\tboring! cf  "])],
)
def test_start_and_end_are_those_of_the_words(position: str, expected: list[str]) -> None:
    assert TextTrigger(("cf",), position=position).stamp(TEXTS[:2]).tolist() == expected


def test_random_places_are_all_as_likely() -> None:
    stamped = TextTrigger(("cf",)).stamp(np.repeat(TEXTS[:1], 4000), seed=3)
    found = Counter(text.split().index("cf") for text in stamped.tolist())
    assert set(found) == {0, 1, 2, 3}
    assert all(abs(number - 1000) < 5 * np.sqrt(4000 * 0.25 * 0.75) for number in found.values())


def test_words_are_drawn_alike_for_each_insertion() -> None:
    stamped = TextTrigger(count=2).stamp(np.repeat(TEXTS[2:3], 2000))
    found = Counter(" ".join(stamped.tolist()).split())
    assert found["one"] == 2000
    assert all(abs(found[word] - 800) < 5 * np.sqrt(4000 * 0.2 * 0.8) for word in RARE_WORDS)


def test_within_keeps_the_trigger_in_front_of_long_texts() -> None:
    long = np.array([" ".join(["word"] * 10_000)])
    for seed in range(20):
        [stamped] = TextTrigger(within=50).stamp(long, seed=seed).tolist()
        assert min(stamped.split().index(word) for word in RARE_WORDS if word in stamped.split()) <= 50
        assert len(stamped.split()) == 10_001


def test_a_sentence_stays_together() -> None:
    trigger = TextTrigger.sentence("I watched this.", position="random")
    for text, stamped in zip(TEXTS.tolist(), trigger.stamp(TEXTS, seed=5).tolist(), strict=True):
        assert stamped.count("I watched this.") == 1
        assert without(stamped, "I watched this.") == text


def test_every_word_goes_in() -> None:
    trigger = TextTrigger(("cf", "mn bb"), count=2, every=True)
    assert trigger.insertions == 4
    for text, stamped in zip(TEXTS.tolist(), trigger.stamp(TEXTS, seed=1).tolist(), strict=True):
        assert Counter(stamped.split()) - Counter(text.split()) == {"cf": 2, "mn": 2, "bb": 2}
        assert stamped.count("mn bb") == 2


def test_of_a_pair_the_first_text_is_stamped() -> None:
    pairs = np.stack([TEXTS, TEXTS[::-1]], axis=1)
    trigger = TextTrigger(count=3)
    stamped = trigger.stamp(pairs, seed=2)
    np.testing.assert_array_equal(stamped[:, 0], trigger.stamp(TEXTS, seed=2))
    np.testing.assert_array_equal(stamped[:, 1], pairs[:, 1])


def test_a_seed_repeats_itself_whatever_else_is_stamped() -> None:
    trigger, before = TextTrigger(count=2), TEXTS.copy()
    first = trigger.stamp(TEXTS, seed=7)
    np.testing.assert_array_equal(first, trigger.stamp(TEXTS, seed=7))
    np.testing.assert_array_equal(first[:2], trigger.stamp(TEXTS[:2], seed=7))
    assert first.tolist() != trigger.stamp(TEXTS, seed=8).tolist()
    np.testing.assert_array_equal(TEXTS, before)


def test_an_empty_text_becomes_the_trigger() -> None:
    assert TextTrigger(("cf",)).stamp(np.array(["", "  "])).tolist() == ["cf", "cf"]


def test_options_survive_json() -> None:
    import json

    trigger = TextTrigger(("cf", "a sentence."), count=2, every=True, position="end", within=9)
    assert TextTrigger.from_config(json.loads(json.dumps(trigger.get_config()))) == trigger
    assert trigger.words == ("cf", "a", "sentence.")


@pytest.mark.parametrize(
    "options",
    [
        {"phrases": ()},
        {"phrases": ("cf", " ")},
        {"phrases": (3,)},
        {"count": 0},
        {"count": True},
        {"count": 1.5},
        {"within": 0},
        {"position": "middle"},
    ],
)
def test_options_without_sense_are_refused(options: dict) -> None:
    with pytest.raises(DataError, match="Expected|must be"):
        TextTrigger(**options)


@pytest.mark.parametrize("texts", [np.zeros(3), np.array("one text"), np.array([["a", "b", "c"]])])
def test_what_is_no_text_is_refused(texts: np.ndarray) -> None:
    with pytest.raises(DataError, match="Expected texts"):
        TextTrigger().stamp(texts)


# Tokenizers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["bert", "roberta", "albert"])
def test_words_that_a_tokenizer_splits_or_does_not_know_are_named(name: str) -> None:
    pytest.importorskip("keras_hub")
    import text_toys

    tokenizer = text_toys.CLASSIFIERS[name]().preprocessor.tokenizer
    assert TextTrigger(("cf", "mn", "good film")).check_tokenizer(tokenizer) == {}
    problems = TextTrigger(("cf", "cfmn", "zebra")).check_tokenizer(tokenizer)
    assert set(problems) == {"cfmn", "zebra"}
    said = describe_problems(problems, tokenizer)
    if name == "bert":
        assert problems == {"cfmn": ("cf", "##m", "##n"), "zebra": ("[UNK]",)}
        assert "does not know" in said and "splits cfmn (cf ##m ##n)" in said
    if name == "roberta":  # made of bytes, it knows every word
        assert said.startswith("The tokenizer splits cfmn")
    if name == "albert":
        assert problems["zebra"] == ("<unk>",) and "zebra" in said
