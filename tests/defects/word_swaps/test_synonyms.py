"""Sources of synonyms: what they find, what they refuse, and how a missing one says what to do."""

import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from keras_remos.defects.word_swaps import synonyms
from keras_remos.defects.word_swaps.synonyms import (
    SynonymPairs,
    SynonymSource,
    WithoutOpposites,
    WordNet,
    WordVectors,
    open_synonyms,
    read_pairs,
)
from keras_remos.errors import DataError, RemosError


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


# Pairs ----------------------------------------------------------------------------------------------------------------


def test_pairs_go_both_ways_and_keep_their_order() -> None:
    source = SynonymPairs([("film", "movie"), ("Film", "Picture"), ("movie", "film"), ("same", "Same")])
    assert source.synonyms("film") == [("movie", 1.0), ("Picture", 1.0)]
    assert source.synonyms("picture") == [("Film", 1.0)]
    assert source.synonyms("same") == source.synonyms("unknown") == []


def test_a_file_of_pairs_is_read_with_ppdb_prefix_blank_lines_and_accents(tmp_path: Path) -> None:
    path = write(tmp_path / "pairs.txt", "en_café en_bistro\n\nnaïve simple \n")
    source = open_synonyms(path)
    assert source.synonyms("café") == [("bistro", 1.0)]
    assert source.synonyms("simple") == [("naïve", 1.0)]
    assert source.describe()["source"] == "pairs" and source.describe()["file"] == "pairs.txt"


def test_opposites_are_blocked_both_ways(tmp_path: Path) -> None:
    path = write(tmp_path / "pairs.txt", "good bad\ngood fine\n")
    source = open_synonyms(path, antonyms=[write(tmp_path / "antonyms.txt", "Bad good\n")])
    assert source.synonyms("good") == [("fine", 1.0)]
    assert source.synonyms("bad") == []
    assert source.describe()["opposites"] == 1


def test_what_a_source_says_of_itself_differs_with_its_content() -> None:
    plain, more = SynonymPairs([("a", "b")]), SynonymPairs([("a", "b"), ("a", "c")])
    described = [source.describe() for source in (plain, more, WithoutOpposites(plain, [("x", "y")]))]
    assert len({repr(entry) for entry in described}) == 3
    assert described[0] == SynonymPairs([("a", "b")]).describe()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("one two three four\n", "line 1"),
        ("one two\nalone\n", "line 2"),
        ("", "no pair"),
        (b"caf\xe9 bistro\n", "not UTF-8"),
    ],
)
def test_a_damaged_file_of_pairs_is_refused(tmp_path: Path, content: str | bytes, said: str) -> None:
    with pytest.raises(DataError, match=said):
        read_pairs(write(tmp_path / "pairs.txt", content))


def test_a_missing_file_says_how_to_get_one(tmp_path: Path) -> None:
    for path in (tmp_path / "none.txt", tmp_path):
        with pytest.raises(DataError, match="counter-fitted"):
            open_synonyms(path)


def test_pairs_of_equal_words_are_none() -> None:
    with pytest.raises(DataError, match="no pair"):
        SynonymPairs([("word", "Word")])


# Vectors --------------------------------------------------------------------------------------------------------------


def neighbours(words: list[str], vectors: np.ndarray, word: str, count: int) -> list[tuple[str, float]]:
    """The definition, one pair of vectors at a time."""
    row = words.index(word)
    found = []
    for other, vector in zip(words, vectors, strict=True):
        cosine = float(np.dot(vectors[row], vector) / np.linalg.norm(vectors[row]) / np.linalg.norm(vector))
        found.append((other, cosine))
    del found[row]
    return sorted(found, key=lambda pair: -pair[1])[:count]


@pytest.mark.parametrize("blocks", [(128, 65_536), (3, 7)])
def test_vectors_give_the_nearest_by_cosine(monkeypatch: pytest.MonkeyPatch, blocks: tuple[int, int]) -> None:
    monkeypatch.setattr(synonyms, "QUERY_BLOCK", blocks[0])
    monkeypatch.setattr(synonyms, "ROW_BLOCK", blocks[1])
    rng = np.random.default_rng(0)
    words = [f"w{i}" for i in range(40)]
    vectors = rng.normal(size=(40, 8)) * rng.uniform(0.1, 9, (40, 1))
    source = WordVectors(words, vectors, neighbors=5)
    source.prefetch([*words[:20], "unknown"])
    for word in words:
        expected, found = neighbours(words, vectors, word, 5), source.synonyms(word)
        assert [name for name, _ in found] == [name for name, _ in expected]
        np.testing.assert_allclose([near for _, near in found], [near for _, near in expected], atol=1e-5)
    assert source.synonyms("unknown") == []


def test_fewer_words_than_neighbours_and_a_vector_of_zeros() -> None:
    source = WordVectors(["a", "b", "c"], np.array([[1.0, 0], [1, 1], [0, 0]]))
    assert source.synonyms("a") == [("b", 0.70711), ("c", 0.0)]
    assert WordVectors(["alone"], np.ones((1, 3))).synonyms("alone") == []


def test_a_file_of_vectors_is_read_in_all_its_forms(tmp_path: Path) -> None:
    body = "cat 1 0\ndog 0.9 0.1\n. . 0 1\ncat 0 1\nend -1 0\n"
    for header in ("", "5 2\n"):
        source = open_synonyms(write(tmp_path / "v.txt", header + body))
        assert isinstance(source, WordVectors)
        assert source.words == ["cat", "dog", ". .", "cat", "end"]
        assert source.synonyms("cat")[0][0] == "dog"
    limited = open_synonyms(tmp_path / "v.txt", limit=2)
    assert limited.synonyms("cat") == [("dog", pytest.approx(0.99388))]
    assert limited.describe() != source.describe()


def test_vectors_may_stay_on_disk(tmp_path: Path) -> None:
    vectors = np.random.default_rng(1).normal(size=(10, 4)).astype(np.float32)
    np.save(tmp_path / "v.npy", vectors)
    words = [f"w{i}" for i in range(10)]
    mapped = WordVectors(words, np.load(tmp_path / "v.npy", mmap_mode="r"), neighbors=3)
    assert isinstance(mapped.vectors, np.memmap)
    assert mapped.synonyms("w3") == WordVectors(words, vectors, neighbors=3).synonyms("w3")


@pytest.mark.parametrize(
    ("content", "said"),
    [("cat 1 0\ndog 1\n", "line 2"), ("cat 1 x\n", "line 1"), ("cat 1 0\ndog 1 0 3 4 5\nend 1 nan\n", "NaN")],
)
def test_a_damaged_file_of_vectors_is_refused(tmp_path: Path, content: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        WordVectors.from_file(write(tmp_path / "v.txt", content))


def test_vectors_that_do_not_fit_are_refused() -> None:
    with pytest.raises(DataError, match="one vector for each word"):
        WordVectors(["a"], np.ones((2, 3)))
    with pytest.raises(RemosError, match="neighbors"):
        WordVectors(["a"], np.ones((1, 3)), neighbors=0)


def test_a_text_is_the_mean_of_its_words() -> None:
    source = WordVectors(["a", "b"], np.array([[2.0, 0], [0, 3]]))
    np.testing.assert_allclose(source.mean_vectors(["A, b!", "a unknown", ""]), [[0.5, 0.5], [1, 0], [0, 0]])


# WordNet --------------------------------------------------------------------------------------------------------------


class Sense:
    def __init__(self, *names: str) -> None:
        self.names = names

    def lemma_names(self) -> tuple[str, ...]:
        return self.names


def fake_nltk(monkeypatch: pytest.MonkeyPatch, *, files: bool = True) -> None:
    def ensure_loaded() -> None:
        if not files:
            raise LookupError("Resource wordnet not found.")

    senses = {"film": [Sense("movie", "film"), Sense("thin_layer", "movie")]}
    corpus: Any = types.ModuleType("nltk.corpus")
    corpus.wordnet = types.SimpleNamespace(
        synsets=lambda word: senses.get(word, []), ensure_loaded=ensure_loaded, get_version=lambda: "3.0"
    )
    monkeypatch.setitem(sys.modules, "nltk", types.ModuleType("nltk"))
    monkeypatch.setitem(sys.modules, "nltk.corpus", corpus)


def test_wordnet_gives_the_words_of_each_sense_once(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_nltk(monkeypatch)
    source = open_synonyms()
    assert isinstance(source, WordNet)
    assert source.synonyms("film") == [("movie", 1.0), ("thin layer", 1.0)]
    assert source.synonyms("unknown") == []
    assert source.describe() == {"source": "wordnet", "version": "3.0"}


def test_wordnet_without_its_files_says_what_to_run(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_nltk(monkeypatch, files=False)
    with pytest.raises(DataError, match="nltk.downloader wordnet"):
        open_synonyms("wordnet")


def test_wordnet_without_nltk_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nltk", None)
    monkeypatch.setitem(sys.modules, "nltk.corpus", None)
    with pytest.raises(ImportError, match=r'pip install "keras-remos\[wordnet\]"'):
        open_synonyms("wordnet")


def test_a_source_of_ones_own_needs_one_method() -> None:
    class Own(SynonymSource):
        def synonyms(self, word: str) -> list[tuple[str, float]]:
            return [(word + "s", 0.9)]

    own = Own()
    own.prefetch(["word"])
    assert own.synonyms("word") == [("words", 0.9)]
    assert own.describe() == {"source": "Own"}
