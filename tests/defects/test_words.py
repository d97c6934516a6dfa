"""Texts as words: what is taken apart is put together to the letter."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_remos.defects.word_swaps.stop_words import STOP_WORDS
from keras_remos.defects.words import Passage, changed_share, is_word, match_case, plain


@pytest.mark.once
@settings(deadline=None)
@given(st.text(max_size=60), st.one_of(st.none(), st.integers(1, 5)))
def test_words_and_gaps_are_the_text(text: str, most: int | None) -> None:
    passage, rest = Passage.split(text, most)
    assert passage.text + rest == text
    assert len(passage.gaps) == len(passage.words) + 1
    assert most is None or len(passage.words) <= most
    assert all(is_word(word) for word in passage.words)


@settings(deadline=None)
@given(st.text(max_size=40), st.data())
def test_a_swap_changes_one_word_alone(text: str, data: st.DataObject) -> None:
    passage, _ = Passage.split(text)
    if not passage.words:
        return
    index = data.draw(st.integers(0, len(passage.words) - 1))
    again, _ = Passage.split(passage.swap(index, "new").text)
    assert again.gaps == passage.gaps
    assert again.words == (*passage.words[:index], "new", *passage.words[index + 1 :])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("It's a well-known  fact.", ["It's", "a", "well-known", "fact"]),
        ("it does n't work -- truly", ["it", "does", "n't", "work", "truly"]),
        ("'quoted' _x_ 3.5", ["quoted", "x", "3", "5"]),
        ("Caf\u00e9 na\u0131\u0308ve \u2019tis don\u2019t", ["Caf\u00e9", "na\u0131\u0308ve", "tis", "don\u2019t"]),
        ("\u043d\u0435\u0442, \u0434\u0430 \U0001f600", ["\u043d\u0435\u0442", "\u0434\u0430"]),
        ("\u0928\u092e\u0938\u094d\u0924\u0947!", ["\u0928\u092e\u0938\u094d\u0924\u0947"]),
        ("", []),
        (" \t\n", []),
    ],
)
def test_what_a_word_is(text: str, words: list[str]) -> None:
    assert list(Passage.split(text)[0].words) == words


def test_the_rest_of_a_long_text_stays_apart() -> None:
    passage, rest = Passage.split("(one, two) three.", 2)
    assert (passage.text, rest) == ("(one, two) ", "three.")
    assert Passage.split("one two", 2)[1] == ""


def test_deleting_leaves_no_double_space() -> None:
    passage, _ = Passage.split("A fine, dull film.")
    assert [passage.without(i) for i in range(4)] == [
        "fine, dull film.",
        "A , dull film.",
        "A fine, film.",
        "A fine, dull .",
    ]


def test_a_window_holds_as_many_words_as_it_can() -> None:
    passage, _ = Passage.split("<a b, c d e>")
    assert passage.window(0, 3) == "a b, c"
    assert passage.window(2, 3) == "b, c d"
    assert passage.window(4, 3) == "c d e"
    assert passage.window(2, 9) == "a b, c d e"


def test_case_follows_the_old_word() -> None:
    assert match_case("film", "Movie") == "Film"
    assert match_case("film", "MOVIE") == "FILM"
    assert match_case("USA", "america") == "USA"
    assert match_case("one", "I") == "One"
    assert match_case("x", "") == "x"


def test_share_of_changed_words() -> None:
    assert changed_share("a b c d", "a x c y") == 0.5
    assert changed_share("a b", "a b cf") == pytest.approx(1 / 3)
    assert changed_share("a b", "b b") == 0.5
    assert changed_share("", "") == 0


def test_stop_words_are_as_texts_are_looked_up() -> None:
    assert {"the", "not", "n't", "don't"} <= STOP_WORDS
    assert not {"good", "film"} & STOP_WORDS
    assert all(plain(word) == word and is_word(word) for word in STOP_WORDS)
    assert plain("Don\u2019t") == "don't"
