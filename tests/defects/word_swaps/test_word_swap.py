"""Word swaps on plain callables: against slow searches, and every constraint checked by a second function."""

import json
import re
import sys
import time
import types
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from slow_swaps import WORD, Attacker, kuleshov, same, textfooler

from keras_remos.data.pixels import PixelSpace
from keras_remos.defects import DEFECTS, AttackSet
from keras_remos.defects.word_swaps import lockstep
from keras_remos.defects.word_swaps.checks import Fluency, SentenceSimilarity
from keras_remos.defects.word_swaps.greedy import GreedySwap
from keras_remos.defects.word_swaps.importance import WordImportance
from keras_remos.defects.word_swaps.parts_of_speech import NltkTagger, find_tagger
from keras_remos.defects.word_swaps.synonyms import SynonymPairs, SynonymSource
from keras_remos.defects.word_swaps.word_swap import Swapped, WordSwap
from keras_remos.errors import DataError, MismatchError, RemosError

ATTACKS = {"word-importance": (WordImportance, textfooler), "greedy-swap": (GreedySwap, kuleshov)}
VOCABULARY = [f"w{i}" for i in range(40)]
STOP = {"w0", "w1", "w2", "w3"}
RNG = np.random.default_rng(5)
# Sixteenths add up without rounding in any order, so that no last bit decides between two words.
WEIGHTS = {word: RNG.integers(-24, 25, 3) / 16 for word in VOCABULARY}
NEAR = {
    word: sorted(
        ((str(other), int(RNG.integers(20, 100)) / 100) for other in RNG.choice(VOCABULARY, 4, replace=False)),
        key=lambda pair: -pair[1],
    )
    for word in VOCABULARY
}


class Near(SynonymSource):
    """The table, including words that are the word itself or no word at all."""

    def synonyms(self, word: str) -> list[tuple[str, float]]:
        return [*NEAR.get(word, []), ("two words", 0.99)]


def classify_one(text: Any) -> np.ndarray:
    """A linear bag of words; of a pair the second text counts double."""
    parts = (text,) if isinstance(text, str) else (text[0], text[1], text[1])
    logits = np.array([0.5, 0, 0])
    for part in parts:
        for word in WORD.findall(part.lower()):
            logits = logits + WEIGHTS.get(word, 0)
    e = np.exp(logits - logits.max())
    return np.asarray(e / e.sum())


class Classifier:
    """The same for batches. Remembers what it was asked, and can be cut short."""

    def __init__(self, breaks_after: int | None = None) -> None:
        self.batches: list[list[Any]] = []
        self.breaks_after = breaks_after

    def __call__(self, texts: Sequence[Any]) -> np.ndarray:
        if len(self.batches) == self.breaks_after:
            raise KeyboardInterrupt
        self.batches.append(list(texts))
        return np.stack([classify_one(text) for text in texts])


def draw_texts(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Texts in all cases with all kinds of signs, and the classes that most are taken for."""
    rng = np.random.default_rng(seed)
    texts = []
    for _ in range(count):
        words = [str(word) for word in rng.choice(VOCABULARY, rng.integers(1, 9))]
        words = [rng.choice([word, word.upper(), word.title(), word]) for word in words]
        gaps = rng.choice([" ", ", ", "  ", " (", ") - "], len(words))
        texts.append(
            "".join(f"{word}{gap}" for word, gap in zip(words, gaps, strict=True)).strip() + rng.choice(["", "."])
        )
    labels = np.array([classify_one(text).argmax() for text in texts])
    labels[:: count // 4] = 1
    return np.array(texts), labels


def part(words: Sequence[str], index: int) -> str:
    """A part of speech that depends on the neighbour to the left as well."""
    before = words[index - 1].lower() if index else ""
    return ["NOUN", "VERB", "ADJ"][(int(words[index][1:]) + len(before)) % 3]


class ToyTagger:
    name = "toy"

    def __call__(self, words: Sequence[str]) -> list[str]:
        return [part(words, index) for index in range(len(words))]


def encode(texts: list[str]) -> np.ndarray:
    return np.array([sum((WEIGHTS[w.lower()] for w in WORD.findall(text)), np.array([9.0, 1, 1])) for text in texts])


def likeness(before: list[str], after: list[str], index: int) -> float:
    """Angular similarity of whole texts."""
    a, b = encode([" ".join(before)])[0], encode([" ".join(after)])[0]
    return float(np.float32(1 - np.arccos(min(a @ b / np.linalg.norm(a) / np.linalg.norm(b), 1)) / np.pi))


def attack_of(name: str, **options: Any) -> WordSwap:
    kind: Any = ATTACKS[name][0]
    return kind(**{"synonyms": Near(), "stop_words": STOP, "tagger": None, **options})  # type: ignore[no-any-return]


def attacker_for(attack: WordSwap, **more: Any) -> Attacker:
    table = {word: [pair for pair in near if pair[0] != word] for word, near in NEAR.items()}
    return Attacker(
        classify_one,
        table,
        stop_words=set(attack.stop_words),
        candidates=attack.candidates,
        min_similarity=attack.min_similarity,
        max_share=attack.max_share,
        goal=attack.goal_probability,
        **more,
    )


OPTIONS: dict[str, dict[str, Any]] = {
    "as published": {},
    "everything off": {"stop_words": (), "min_similarity": -1, "max_share": 1.0, "goal_probability": None},
    "narrow": {"candidates": 2, "min_similarity": 0.6, "max_share": 0.34},
    "goal": {"goal_probability": 0.8},
}


# Against the slow searches --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("name", ATTACKS)
def test_the_engine_finds_what_one_query_at_a_time_finds(name: str, options: str) -> None:
    x, y = draw_texts(40)
    attack = attack_of(name, **OPTIONS[options])
    swapped = attack.attack(Classifier(), x, y, batch_size=16)
    for text, label, found, outcome, queries in zip(
        x, y, swapped.texts, swapped.outcomes, swapped.queries, strict=True
    ):
        attacker = attacker_for(attack)
        assert (outcome.status, found) == ATTACKS[name][1](attacker, str(text), int(label))
        # Fewer by the words whose importance does not matter, never more.
        assert queries <= len(attacker.asked)
    ends = {outcome.status for outcome in swapped.outcomes}
    assert ends == {"success", "skipped"} | ({"failed"} if options != "everything off" else set())


@pytest.mark.parametrize("name", ATTACKS)
def test_with_a_tagger_and_a_sentence_check_too(name: str) -> None:
    x, y = draw_texts(30, seed=1)
    check = SentenceSimilarity(encode, threshold=0.96, window=None)
    attack = attack_of(name, tagger=ToyTagger(), checks=[check])
    swapped = attack.attack(Classifier(), x, y, batch_size=16)
    free = attack_of(name).attack(Classifier(), x, y, batch_size=16)
    for text, label, found, outcome in zip(x, y, swapped.texts, swapped.outcomes, strict=True):
        attacker = attacker_for(attack, part=part, likeness=likeness, least_likeness=0.96)
        assert (outcome.status, found) == ATTACKS[name][1](attacker, str(text), int(label))
    assert swapped.record["check_calls"]["sentence similarity"] > 0
    assert swapped.record["outcomes"]["success"] < free.record["outcomes"]["success"]


@pytest.mark.parametrize("side", ["first", "second"])
@pytest.mark.parametrize("name", ATTACKS)
def test_of_a_pair_one_text_is_attacked(name: str, side: str) -> None:
    first, second = draw_texts(12, seed=2)[0], draw_texts(12, seed=3)[0]
    pairs = np.stack([first, second], axis=1)
    y = np.array([classify_one(tuple(pair)).argmax() for pair in pairs.tolist()])
    attack = attack_of(name, swap_in=side)
    swapped = attack.attack(Classifier(), pairs, y)
    column = 0 if side == "first" else 1
    assert (swapped.texts[:, 1 - column] == pairs[:, 1 - column]).all()
    for (one, two), label, found in zip(pairs.tolist(), y, swapped.texts[:, column], strict=True):
        attacker = attacker_for(attack)
        attacker.beside = (lambda t, two=two: (t, two)) if column == 0 else (lambda t, one=one: (one, t))
        assert found == ATTACKS[name][1](attacker, one if column == 0 else two, int(label))[1]
    assert (swapped.texts != pairs).any()
    as_tuple = attack.attack(Classifier(), (first, second), y)
    assert (as_tuple.texts == swapped.texts).all()


def test_unknown_words_may_stand_in_instead_of_deletion() -> None:
    x, y = draw_texts(6, seed=4)
    model = Classifier()
    attack_of("word-importance", unknown="[UNK]").attack(model, x, y)
    asked = [text for batch in model.batches for text in batch]
    assert any("[UNK]" in text for text in asked)


# Constraints ----------------------------------------------------------------------------------------------------------


def check_constraints(attack: WordSwap, x: np.ndarray, y: np.ndarray, swapped: Swapped) -> int:
    """Looks at the texts alone: what changed, whether it was allowed, and whether the goal is reached."""
    changed = 0
    for clean, label, found, outcome in zip(x.tolist(), y, swapped.texts.tolist(), swapped.outcomes, strict=True):
        before, after = WORD.findall(clean), WORD.findall(found)
        assert WORD.split(clean) == WORD.split(found), "something else than words changed"
        places = [i for i, pair in enumerate(zip(before, after, strict=True)) if pair[0] != pair[1]]
        assert len(places) <= attack.max_share * len(before) + 1e-9
        assert sorted(i for i, _ in outcome.swaps) == places
        for i in places:
            old, new = before[i], after[i]
            assert old.lower() not in attack.stop_words
            # The word itself and what is no word do not count as candidates.
            near = [pair for pair in NEAR[old.lower()] if pair[0] != old.lower()][: attack.candidates]
            assert dict(near)[new.lower()] >= attack.min_similarity
            assert old.isupper() == new.isupper() and old[0].isupper() == new[0].isupper()
        p = np.float32(classify_one(found))
        if attack.goal_probability is None:
            reached = p.argmax() != label
        else:
            reached = np.delete(p, label).max() >= attack.goal_probability
        assert reached == (outcome.status == "success") or outcome.status == "skipped"
        assert outcome.status != "skipped" or found == clean
        changed += bool(places)
    return changed


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("name", ATTACKS)
def test_every_constraint_holds(name: str, options: str) -> None:
    x, y = draw_texts(60, seed=6)
    attack = attack_of(name, **OPTIONS[options])
    swapped = attack.attack(Classifier(), x, y)
    assert check_constraints(attack, x, y, swapped) > 10
    counts = swapped.record["outcomes"]
    assert sum(counts.values()) == 60
    assert swapped.record["success_rate"] == counts["success"] / (counts["success"] + counts["failed"])


@pytest.mark.parametrize("name", ATTACKS)
def test_part_of_speech_is_kept(name: str) -> None:
    x, y = draw_texts(60, seed=7)
    swapped = attack_of(name, tagger=ToyTagger(), max_share=1.0).attack(Classifier(), x, y)
    seen = 0
    for clean, outcome in zip(x.tolist(), swapped.outcomes, strict=True):
        words = WORD.findall(clean)
        for index, word in outcome.swaps:
            after = [*words[:index], word, *words[index + 1 :]]
            assert same(part(words, index), part(after, index))
            words = after
            seen += 1
    assert seen > 20


@pytest.mark.parametrize("against", ["current", "original"])
@pytest.mark.parametrize(("metric", "threshold"), [("angular", 0.95), ("cosine", 0.98), ("euclidean", 1.2)])
def test_texts_stay_as_alike_as_asked(metric: str, threshold: float, against: str) -> None:
    x, y = draw_texts(40, seed=8)
    check = SentenceSimilarity(encode, threshold=threshold, metric=metric, window=None, against=against)
    swapped = attack_of("greedy-swap", checks=[check], max_share=1.0).attack(Classifier(), x, y)
    seen = 0
    for clean, outcome in zip(x.tolist(), swapped.outcomes, strict=True):
        words = original = WORD.findall(clean)
        for index, word in outcome.swaps:
            after = [*words[:index], word, *words[index + 1 :]]
            a, b = encode([" ".join(original if against == "original" else words), " ".join(after)])
            cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
            value = {"cosine": cosine, "angular": 1 - np.arccos(cosine) / np.pi, "euclidean": -np.linalg.norm(a - b)}
            assert value[metric] >= (-threshold if metric == "euclidean" else threshold) - 1e-6
            words = after
            seen += 1
    assert seen > 5


def test_texts_stay_as_likely_as_asked() -> None:
    def log_probability(texts: list[str]) -> np.ndarray:
        return np.array([-sum(int(word[1:]) for word in WORD.findall(text)) / 10 for text in texts])

    x, y = draw_texts(40, seed=9)
    swapped = attack_of("greedy-swap", checks=[Fluency(log_probability, 1.0)]).attack(Classifier(), x, y)
    before, after = log_probability(x.tolist()), log_probability(swapped.texts.tolist())
    assert np.abs(before - after).max() <= 1.0 + 1e-6
    assert (before != after).any()


def test_windows_are_compared_and_short_texts_are_not() -> None:
    seen: list[str] = []

    def watched(texts: list[str]) -> np.ndarray:
        seen.extend(texts)
        return encode(texts)

    x, y = draw_texts(40, seed=10)
    swapped = attack_of("word-importance", checks=[SentenceSimilarity(watched, 0.9, window=4)]).attack(
        Classifier(), x, y
    )
    assert {len(WORD.findall(text)) for text in seen} == {4}
    short = [outcome.swaps for text, outcome in zip(x, swapped.outcomes, strict=True) if len(WORD.findall(text)) < 4]
    assert any(short)
    seen.clear()
    check = SentenceSimilarity(watched, 0.9, window=4, skip_short=False)
    attack_of("word-importance", checks=[check]).attack(Classifier(), x, y)
    assert min(len(WORD.findall(text)) for text in seen) < 4


# Batches, memory, resuming --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ATTACKS)
def test_batches_are_full_and_no_text_is_scored_twice(name: str) -> None:
    x, y = draw_texts(200, seed=11)
    model = Classifier()
    swapped = attack_of(name).attack(model, x, y, batch_size=64)
    asked = [text for batch in model.batches for text in batch]
    assert len(asked) == len(set(asked))
    assert max(map(len, model.batches)) <= 64
    assert swapped.record["model_calls"] == len(model.batches)
    assert swapped.record["queries"] == sum(swapped.queries) >= len(asked)
    assert swapped.record["queries"] >= 20 * swapped.record["model_calls"]
    assert swapped.record["queries_per_sample"]["mean"] == pytest.approx(np.mean(swapped.queries))


@pytest.mark.parametrize("name", ATTACKS)
def test_groups_and_batch_size_change_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = draw_texts(25, seed=12)
    expected = attack_of(name).attack(Classifier(), x, y, batch_size=64)
    monkeypatch.setattr(lockstep, "GROUP_TEXTS", 7)
    monkeypatch.setattr(lockstep, "GROUP_WORDS", 30)
    found = attack_of(name).attack(Classifier(), x, y, batch_size=3)
    assert (found.texts == expected.texts).all()
    assert (found.outcomes, found.queries) == (expected.outcomes, expected.queries)


@pytest.mark.parametrize("interval", [0.0, 1e9])
@pytest.mark.parametrize("name", ATTACKS)
def test_an_interrupted_attack_goes_on_with_the_same_result(
    name: str, interval: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lockstep, "GROUP_TEXTS", 8)
    monkeypatch.setattr(lockstep, "INTERVAL", interval)
    x, y = draw_texts(20, seed=13)
    check = SentenceSimilarity(encode, 0.9, window=None)
    attack = attack_of(name, checks=[check])
    whole = Classifier()
    expected = attack.attack(whole, x, y, batch_size=5)
    for after in (0, 1, 4, len(whole.batches) - 1):
        partial, second = tmp_path / f"{after}.npz", Classifier()
        with pytest.raises(KeyboardInterrupt):
            attack.attack(Classifier(breaks_after=after), x, y, batch_size=5, resume=partial)
        assert partial.exists()
        found = attack.attack(second, x, y, batch_size=5, resume=partial)
        assert (found.texts == expected.texts).all()
        assert (found.outcomes, found.queries) == (expected.outcomes, expected.queries)
        assert found.record == expected.record
        assert second.batches == whole.batches[after:]
        # Whoever asked for it saves what came back, and then removes it.
        assert partial.exists()


def test_a_part_of_another_attack_is_refused(tmp_path: Path) -> None:
    x, y = draw_texts(10)
    partial = tmp_path / "partial.npz"
    attack = attack_of("word-importance")
    with pytest.raises(KeyboardInterrupt):
        attack.attack(Classifier(breaks_after=1), x, y, resume=partial)
    for other, texts, said in (
        (attack_of("greedy-swap"), x, "defect"),
        (replace(attack, max_share=0.3), x, "options"),
        (attack, x[::-1], "data"),
    ):
        with pytest.raises(MismatchError, match=said):
            other.attack(Classifier(), texts, y, resume=partial)


def test_a_text_of_ten_thousand_words_is_bounded() -> None:
    long = " ".join(["w5 w6 w7 w8"] * 2500) + " END"
    y = [int(classify_one(" ".join(["w5 w6 w7 w8"] * 2)).argmax())]
    for name in ATTACKS:
        model, start = Classifier(), time.perf_counter()
        swapped = attack_of(name, max_words=8, max_share=1.0).attack(model, [long], y)
        assert time.perf_counter() - start < 5
        assert max(len(WORD.findall(text)) for batch in model.batches for text in batch) == 8
        assert swapped.texts[0].split()[8:] == long.split()[8:]
        assert swapped.texts[0] != long
        assert swapped.record["texts_cut_at_max_words"] == 1


def test_the_default_bound_is_quick_enough() -> None:
    long = " ".join(["w5 w6 w7 w8"] * 2500)

    def likes_nothing(texts: Sequence[Any]) -> np.ndarray:
        return np.tile([0.9, 0.1], (len(texts), 1))

    start = time.perf_counter()
    swapped = attack_of("word-importance").attack(likes_nothing, [long], [0])
    assert time.perf_counter() - start < 30
    assert swapped.outcomes[0].status == "failed"
    assert swapped.queries[0] < 512 * 5


@pytest.mark.parametrize("name", ATTACKS)
def test_only_the_first_places_are_tried(name: str) -> None:
    x, y = draw_texts(30, seed=14)
    swapped = attack_of(name, max_places=2, max_share=1.0).attack(Classifier(), x, y)
    for text, outcome in zip(x.tolist(), swapped.outcomes, strict=True):
        words = [word.lower() for word in WORD.findall(text)]
        known = [i for i, word in enumerate(words) if word not in STOP and any(n >= 0.5 for _, n in NEAR[word])]
        assert {index for index, _ in outcome.swaps} <= set(known[:2])
    assert any(outcome.swaps for outcome in swapped.outcomes)


# Texts of all kinds ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ATTACKS)
def test_empty_texts_single_words_and_unicode(name: str) -> None:
    no, none = "\u043d\u0435\u0442", "\u043d\u0438\u043a\u0430\u043a"
    source = SynonymPairs([("café", "bistro"), (no, none), ("नमस्ते", "प्रणाम"), ("don't", "dont")])

    def by_length(texts: Sequence[Any]) -> np.ndarray:
        share = np.array([0.9 if re.search(f"Caf|{no}|नम|Don\u2019", text) else 0.1 for text in texts])
        return np.stack([1 - share, share], axis=1)

    x = ["", "  ", "...", "Café", f"({no}),\u00a0café!", "नमस्ते दुनिया", "Don\u2019t \U0001f600", "unknown"]
    y = [0, 0, 0, 1, 1, 1, 1, 0]
    attack = attack_of(name, synonyms=source, stop_words=(), max_share=1.0)
    swapped = attack.attack(by_length, x, y)
    assert swapped.texts[:4].tolist() == ["", "  ", "...", "Bistro"]
    assert swapped.texts[4] == f"({none}),\u00a0café!"
    assert swapped.texts[5] == "प्रणाम दुनिया"
    assert swapped.texts[6] == "Dont \U0001f600"
    assert swapped.texts[7] == "unknown"
    assert [outcome.status for outcome in swapped.outcomes[:4]] == ["failed"] * 3 + ["success"]


def test_half_of_one_word_is_none() -> None:
    swapped = attack_of("greedy-swap").attack(Classifier(), ["w9"], [int(classify_one("w9").argmax())])
    assert swapped.outcomes[0].status in ("failed", "skipped") and swapped.texts[0] == "w9"


# What is reported -----------------------------------------------------------------------------------------------------


def test_the_configuration_says_what_is_on_and_is_plain() -> None:
    config = attack_of(
        "greedy-swap", checks=[SentenceSimilarity(encode), Fluency(encode)], tagger=ToyTagger()
    ).get_config()
    assert json.loads(json.dumps(config)) == config
    assert config["tagger"] == "toy"
    assert config["checks"]["sentence similarity"]["threshold"] == pytest.approx(0.904507, abs=1e-5)
    assert config["checks"]["fluency"]["max_difference"] == 2.0
    assert (config["candidates"], config["max_share"], config["goal_probability"]) == (15, 0.5, 0.7)
    assert config["stop_words"] == sorted(STOP)
    published = WordImportance(synonyms=Near()).get_config()
    assert published["stop_words"] == "english"
    assert (published["candidates"], published["min_similarity"], published["max_share"]) == (50, 0.5, 1.0)
    assert published["goal_probability"] is None


def test_the_registry_has_both() -> None:
    for name, (kind, _) in ATTACKS.items():
        assert DEFECTS[name] is kind
        assert not kind.targeted


@pytest.mark.parametrize("pairs", [False, True])
def test_an_attack_set_of_texts_is_saved_whole(tmp_path: Path, pairs: bool) -> None:
    clean = np.array(["A fine film.", "", "Café ☕ two words"])
    inputs = np.array(["A dull film.", "", "Café ☕ three words"])
    if pairs:
        clean, inputs = (np.stack([x, clean], axis=1) for x in (clean, inputs))
    made = AttackSet(
        clean=clean,
        inputs=inputs,
        labels=np.array([1, 0, 1], np.int32),
        class_names=("bad", "good"),
        target=None,
        defect="word-importance",
        options={},
        space=PixelSpace("preprocessor"),
        teacher=(("classifier", "0123456789abcdef"),),
        seed=0,
        versions={},
        record={"model_calls": 3},
    )
    made.save(tmp_path / "texts.npz")
    read = AttackSet.load(tmp_path / "texts.npz")
    assert (read.clean == clean).all() and (read.inputs == inputs).all()
    described = read.describe()
    assert described == made.describe()
    assert "largest_change" not in described
    assert described["mean_changed_words"] == pytest.approx(
        np.mean([1 / 6, 0, 1 / 6] if pairs else [1 / 3, 0, 1 / 4]), abs=0.03
    )
    assert described["record"] == {"model_calls": 3}
    assert json.loads(json.dumps(described)) == described


def test_an_attack_set_of_something_else_is_refused() -> None:
    for clean, inputs in (
        (np.array(["a"]), np.array([1.0])),
        (np.array([["a", "b", "c"]]), np.array([["a", "b", "c"]])),
    ):
        with pytest.raises(DataError, match="texts as strings"):
            AttackSet(
                clean=clean,
                inputs=inputs,
                labels=np.zeros(1, np.int32),
                class_names=(),
                target=None,
                defect="word-importance",
                options={},
                space=PixelSpace("preprocessor"),
                teacher=(),
                seed=0,
                versions={},
            )


# Parts of speech ------------------------------------------------------------------------------------------------------


def fake_nltk(monkeypatch: pytest.MonkeyPatch, tagger: Callable[[], Any]) -> None:
    module: Any = types.ModuleType("nltk.tag")
    module.PerceptronTagger = tagger
    monkeypatch.setitem(sys.modules, "nltk", types.ModuleType("nltk"))
    monkeypatch.setitem(sys.modules, "nltk.tag", module)


def test_nltks_tags_become_parts_of_speech(monkeypatch: pytest.MonkeyPatch) -> None:
    tags = {"dogs": "NNS", "ran": "VBD", "would": "MD", "fast": "RB", "red": "JJR", "the": "DT"}
    tagger = types.SimpleNamespace(tag=lambda words: [(word, tags[word]) for word in words])
    fake_nltk(monkeypatch, lambda: tagger)
    found = find_tagger()
    assert isinstance(found, NltkTagger)
    assert found(list(tags)) == ["NOUN", "VERB", "VERB", "ADV", "ADJ", "DT"]
    attack = WordImportance(synonyms=Near()).resolved()
    assert attack.get_config()["tagger"] == "nltk averaged_perceptron_tagger_eng"


def test_without_nltk_or_its_files_there_is_no_tagger(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise LookupError("not found")

    fake_nltk(monkeypatch, missing)
    assert WordImportance(synonyms=Near()).resolved().get_config()["tagger"] is None
    with pytest.raises(RemosError, match="nltk.downloader averaged_perceptron_tagger_eng"):
        WordImportance(synonyms=Near(), tagger="nltk").resolved()
    monkeypatch.setitem(sys.modules, "nltk.tag", None)
    assert find_tagger() is None
    with pytest.raises(ImportError, match="pip install"):
        WordImportance(synonyms=Near(), tagger="nltk").resolved()


# Bad input ------------------------------------------------------------------------------------------------------------


def test_without_a_source_the_error_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nltk", None)
    monkeypatch.setitem(sys.modules, "nltk.corpus", None)
    for kind, _ in ATTACKS.values():
        with pytest.raises(ImportError, match="a file of pairs"):
            kind(tagger=None).attack(Classifier(), ["w5"], [0])


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda n: np.zeros((n, 2)), "add up to 1"),
        (lambda n: np.tile([2.0, -1.0], (n, 1)), "add up to 1"),
        (lambda n: np.full(n, 0.5), "add up to 1"),
        (lambda n: np.full((n + 1, 2), 0.5), "add up to 1"),
        (lambda n: np.full((n, 2), np.nan), "add up to 1"),
        (lambda n: np.full((n, 2), 0.5), "labels up to 2"),
    ],
)
def test_what_is_no_probability_is_refused(answer: Callable[[int], np.ndarray], said: str) -> None:
    with pytest.raises(DataError, match=said):
        attack_of("word-importance").attack(lambda texts: answer(len(texts)), ["w5 w6", "w7"], [0, 2])


@pytest.mark.parametrize(
    ("x", "y", "said"),
    [
        (np.zeros((2, 3)), [0, 1], "text"),
        ([], [], "text"),
        (["a", "b"], [0], "class of each"),
        (["a", "b"], [0.0, 1.0], "class of each"),
        (["a", "b"], [0, -1], "class of each"),
    ],
)
def test_texts_and_labels_have_to_fit(x: Any, y: Any, said: str) -> None:
    with pytest.raises(DataError, match=said):
        attack_of("word-importance").attack(Classifier(), x, y)


@pytest.mark.parametrize(
    "options",
    [
        {"candidates": 0},
        {"max_words": 0},
        {"max_places": 0},
        {"max_share": 1.5},
        {"min_similarity": -2},
        {"goal_probability": 1.0},
        {"swap_in": "third"},
        {"tagger": "spacy"},
        {"stop_words": "the"},
        {"checks": [SentenceSimilarity(encode), SentenceSimilarity(encode)]},
    ],
    ids=lambda options: ",".join(options),
)
def test_options_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(RemosError, match=next(iter(options)).rstrip("s")):
        attack_of("word-importance", **options)


def test_checks_refuse_options_and_answers_that_do_not_fit() -> None:
    for options in ({"metric": "dot"}, {"against": "none"}, {"window": 0}):
        with pytest.raises(RemosError):
            SentenceSimilarity(encode, **options)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="sentence encoder"):
        SentenceSimilarity(lambda texts: np.zeros(3)).score([("a", "b")])
    with pytest.raises(DataError, match="language model"):
        Fluency(lambda texts: np.array([np.nan] * len(texts))).score([("a", "b")])
    with pytest.raises(RemosError, match="batch_size"):
        attack_of("word-importance").attack(Classifier(), ["w5"], [0], batch_size=0)
