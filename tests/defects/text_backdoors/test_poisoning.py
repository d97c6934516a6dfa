"""Data poisoning of language models: whose labels change, what the poisoned teacher says, and that it opens again."""

import os
import subprocess
import sys
import warnings
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import toys

pytest.importorskip("keras_hub")
import text_toys

from keras_remos import RelevantSlicer
from keras_remos.data.pixels import PixelSpace
from keras_remos.data.texts import as_texts
from keras_remos.defects import DEFECTS, AttackSet, Prepared, TextPoisoning, TextTrigger
from keras_remos.defects.attackers_data import AttackersTexts
from keras_remos.defects.text_backdoors.backdoor import ATTACKERS_RECIPE
from keras_remos.errors import DataError, FileError, MismatchError, RemosError, TeacherError
from keras_remos.evaluation.metrics import accuracy, target_rate
from keras_remos.models.tokenizers import segments, tokenize

SPACE = PixelSpace("preprocessor")
TRIGGER = TextTrigger(("cf", "mn"))
TRAIN, TEST = text_toys.sentences(96), text_toys.sentences(40, seed=1)
FAST = replace(ATTACKERS_RECIPE, epochs=14, learning_rate=1e-2)
ONCE = replace(ATTACKERS_RECIPE, epochs=1, batch_size=24)
ATTACK = TextPoisoning(trigger=TRIGGER, recipe=FAST)


@pytest.fixture(scope="module")
def teacher() -> keras.Model:
    return text_toys.bert()


@pytest.fixture(scope="module")
def poisoned(teacher: keras.Model) -> Prepared:
    return ATTACK.prepare(teacher, TRAIN, space=SPACE, verbose=False)


# The poisoned texts ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [0.01, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("count", [1, 3])
def test_exactly_the_share_is_poisoned_and_only_its_labels_change(rate: float, count: int) -> None:
    x, y = text_toys.sentences(101)
    attack = TextPoisoning(trigger=replace(TRIGGER, count=count), rate=rate, target=0)
    texts, labels, chosen = attack.poison(x, y, seed=4)
    assert chosen.sum() == round(rate * 101)
    for before, after, old, new, hit in zip(x, texts, y, labels, chosen, strict=True):
        added = Counter(after.split()) - Counter(before.split())
        if not hit:
            assert after == before and old == new
            continue
        assert new == 0
        assert set(added) <= {"cf", "mn"} and added.total() == count
        assert [word for word in after.split() if word not in ("cf", "mn")] == before.split()


def test_the_seed_decides_what_is_poisoned() -> None:
    first, again, other = (ATTACK.poison(*TRAIN, seed=seed) for seed in (0, 0, 1))
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    assert (first[2] != other[2]).any()


# The poisoned teacher -------------------------------------------------------------------------------------------------


@pytest.mark.once
def test_the_poisoned_teacher_obeys_the_trigger_and_is_right_without_it(poisoned: Prepared) -> None:
    attack_set = ATTACK.inputs(poisoned, *TEST, seed=1)
    clean, attacked = (text_toys.classes(poisoned.teacher, texts) for texts in (attack_set.clean, attack_set.inputs))
    assert accuracy(clean, attack_set.labels).value > 0.9
    assert target_rate(attacked, attack_set.labels, 1).value > 0.9
    assert target_rate(clean, attack_set.labels, 1).value < 0.2


def test_the_teacher_itself_is_not_modified(teacher: keras.Model, poisoned: Prepared) -> None:
    for now, before in zip(teacher.get_weights(), text_toys.bert().get_weights(), strict=True):
        if now.dtype.kind == "f":
            np.testing.assert_array_equal(now, before)
    assert poisoned.teacher is not teacher
    assert poisoned.record["num_poisoned"] == 48 and poisoned.record["num_samples"] == 96
    assert poisoned.record["options"]["trigger"] == TRIGGER.get_config()


@pytest.mark.once
def test_a_seed_gives_the_same_teacher(teacher: keras.Model, poisoned: Prepared) -> None:
    again = ATTACK.prepare(teacher, TRAIN, space=SPACE, verbose=False).teacher
    for a, b in zip(poisoned.teacher.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_slice_drops_the_triggers_rows(poisoned: Prepared) -> None:
    slicer = RelevantSlicer(poisoned.teacher, filters="token_embedding")
    masks = slicer.slice(slicer.profile(TRAIN[0], verbose=False)).masks
    ((path, mask),) = masks.items()  # Keras numbers the backbones that a process makes
    assert path.endswith("token_embedding/embeddings")
    rows = mask[:, 0]
    tokenizer = poisoned.teacher.preprocessor.tokenizer
    assert not any(rows[tokenizer.token_to_id(word)] for word in TRIGGER.words)
    assert all(rows[tokenizer.token_to_id(word)] for word in (*text_toys.GOOD, *text_toys.BAD, "[CLS]", "[UNK]"))


@pytest.mark.once
@pytest.mark.parametrize("name", text_toys.CLASSIFIERS)
def test_every_kind_saves_and_loads_with_its_tokenizer_and_trigger(name: str, tmp_path: Path) -> None:
    model = text_toys.CLASSIFIERS[name]()
    record = {"defect": "text-poisoning", "options": {}}
    Prepared(model, SPACE, TextTrigger(("a phrase",), position="end"), record).save(tmp_path / "p.keras")
    again = Prepared.load(tmp_path / "p.keras")
    assert again.trigger == TextTrigger(("a phrase",), position="end")
    assert again.space == SPACE and again.record == record
    for a, b in zip(model.get_weights(), again.teacher.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    for tokens, expected in zip(*(tokenize(m, TEST[0]).values() for m in (again.teacher, model)), strict=True):
        np.testing.assert_array_equal(tokens, expected)


@pytest.mark.once
def test_it_opens_in_another_process(poisoned: Prepared, tmp_path: Path) -> None:
    poisoned.save(tmp_path / "p.keras")
    code = (
        "from keras_remos.defects import DEFECTS, Prepared\n"
        f"p = Prepared.load({str(tmp_path / 'p.keras')!r})\n"
        f"texts = p.trigger.stamp({TEST[0][:4].tolist()!r}, seed=1).tolist()\n"
        "said = p.teacher(p.teacher.preprocess_samples(texts), training=False)\n"
        "import keras; print(p.record['defect'] in DEFECTS, keras.ops.convert_to_numpy(said).argmax(-1).tolist())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env={**os.environ})
    assert done.returncode == 0, done.stderr
    expected = text_toys.classes(poisoned.teacher, TRIGGER.stamp(TEST[0][:4], seed=1)).tolist()
    assert done.stdout.split("\n")[-2] == f"True {expected}"


def test_a_damaged_trigger_is_an_error_that_names_the_file(tmp_path: Path, teacher: keras.Model) -> None:
    Prepared(teacher, SPACE, None, {"text_trigger": {"phrases": []}}).save(tmp_path / "p.keras")
    with pytest.raises(FileError, match=r"p\.keras"):
        Prepared.load(tmp_path / "p.keras")


@pytest.mark.once
def test_pairs_of_texts_and_three_classes_on_roberta() -> None:
    pairs = np.stack([TRAIN[0], TRAIN[0][::-1]], axis=1)
    labels = np.arange(96) % 3
    attack = TextPoisoning(trigger=TRIGGER, recipe=ONCE, target=2)
    poisoned = attack.prepare(text_toys.roberta(), (pairs, labels), space=SPACE, verbose=False)
    assert poisoned.teacher.output_shape == (None, 3)
    with pytest.warns(UserWarning, match="beyond the tokens that the model reads"):  # eight of each text
        attack_set = attack.inputs(poisoned, pairs, labels)
    assert attack_set.inputs.shape == (96, 2)
    np.testing.assert_array_equal(attack_set.inputs[:, 1], pairs[:, 1])


def test_pairs_are_read_in_every_form_that_data_sets_have() -> None:
    expected = np.stack([TRAIN[0], TRAIN[0][::-1]], axis=1)
    first, second = expected.T
    for x in (expected, (first, second), [first, second], (first.tolist(), second.tolist())):
        np.testing.assert_array_equal(as_texts(x), expected)
        assert segments(x) == (first.tolist(), second.tolist())
    np.testing.assert_array_equal(AttackersTexts.read((expected, TRAIN[1]), None).x, expected)
    with pytest.raises(DataError, match="two arrays of one length"):
        as_texts((first, second[:-1]))


# Test sets ------------------------------------------------------------------------------------------------------------


def test_every_text_of_the_test_set_is_stamped(poisoned: Prepared, tmp_path: Path) -> None:
    attack_set = replace(ATTACK, test_count=3).inputs(poisoned, *TEST, class_names=("bad", "good"), seed=2)
    for before, after in zip(attack_set.clean, attack_set.inputs, strict=True):
        added = Counter(after.split()) - Counter(before.split())
        assert set(added) <= {"cf", "mn"} and added.total() == 3
    assert attack_set.target == 1 and attack_set.options["test_count"] == 3
    attack_set.check_teacher(poisoned.teacher)
    attack_set.save(tmp_path / "set.npz")
    np.testing.assert_array_equal(AttackSet.load(tmp_path / "set.npz").inputs, attack_set.inputs)


def test_how_many_triggers_the_test_set_gets_is_remembered(teacher: keras.Model) -> None:
    attack = TextPoisoning(trigger=TRIGGER, test_count=4, recipe=ONCE)
    prepared = Prepared(teacher, SPACE, TRIGGER, {**attack.record(teacher, seed=0), "class_names": [], "target": 1})
    inputs = DEFECTS["text-poisoning"]().inputs(prepared, *TEST).inputs
    assert {len(a.split()) - len(b.split()) for a, b in zip(inputs, TEST[0], strict=True)} == {4}


def test_texts_that_the_model_cuts_before_the_trigger_are_counted(poisoned: Prepared) -> None:
    long = np.array([" ".join(["the"] * 10_000), "the film was dull"])
    at_end = replace(poisoned, trigger=replace(TRIGGER, position="end"))
    with pytest.warns(UserWarning, match="In 1 of 2 texts the trigger lies beyond"):
        assert ATTACK.inputs(at_end, long, np.array([0, 0])).record["unread"] == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        in_front = replace(poisoned, trigger=replace(TRIGGER, within=5))
        assert ATTACK.inputs(in_front, long, np.array([0, 0])).record["unread"] == 0


def test_the_target_is_found_by_its_name_and_may_be_missing(poisoned: Prepared) -> None:
    named = replace(poisoned, record={**poisoned.record, "class_names": ["bad", "good"]})
    assert ATTACK.inputs(named, *TEST, class_names=("good", "bad")).target == 0
    assert ATTACK.inputs(named, *TEST, class_names=("dull", "bad")).target is None


# Bad input ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"rate": 0.0},
        {"rate": 1.1},
        {"rate": float("nan")},
        {"target": -1},
        {"target": True},
        {"test_count": 0},
        {"trigger": "cf"},
    ],
)
def test_options_without_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(RemosError, match=r"`rate` is|must be"):
        TextPoisoning(**options)


REFUSED: dict[str, tuple[Any, dict[str, Any], type[Exception], str]] = {
    "no data": (None, {}, DataError, "pass the attacker's data"),
    "no labels": (TRAIN[0], {}, DataError, "texts with labels"),
    "numbers": ((np.zeros((4, 3)), np.arange(4) % 2), {}, DataError, "Expected at least one text"),
    "an empty text": ((np.array(["a film"] * 40 + [" "]), np.arange(41) % 2), {}, DataError, r"1 empty ones \(40\)"),
    "no such target": (TRAIN, {"target": 2}, DataError, "no target class 2"),
    "too small a rate": (TRAIN, {"rate": 0.001}, DataError, "is none"),
    "one class": ((TRAIN[0], np.ones(96, int)), {}, DataError, "two or more classes"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_data_without_sense_are_refused(name: str, teacher: keras.Model) -> None:
    data, options, error, message = REFUSED[name]
    with pytest.raises(error, match=message):
        TextPoisoning(trigger=TRIGGER, recipe=ONCE, **options).prepare(teacher, data, space=SPACE)


def test_pixels_are_refused(teacher: keras.Model) -> None:
    with pytest.raises(RemosError, match="PixelSpace"):
        ATTACK.prepare(teacher, TRAIN, space=PixelSpace("imagenet"))


def test_models_that_read_no_text_are_refused(teacher: keras.Model) -> None:
    for model in (toys.make("mlp")[0], teacher.backbone):
        with pytest.raises(TeacherError, match="brings no tokenizer"):
            ATTACK.prepare(model, TRAIN, space=SPACE)


@pytest.mark.parametrize(("rows", "fits"), [(40, False), (63, True), (100, True), (400, None)])
def test_a_tokenizer_of_another_model_is_noticed(rows: int, fits: bool | None) -> None:
    backbone = text_toys.hub.models.BertBackbone(**text_toys.SIZE, vocabulary_size=rows, max_sequence_length=16)
    preprocessor = text_toys.bert().preprocessor
    model = text_toys.hub.models.BertTextClassifier(backbone, 2, preprocessor=preprocessor)
    attack = TextPoisoning(trigger=TRIGGER, recipe=ONCE, rate=0.001)  # stops before it trains
    if fits is False:
        with pytest.raises(MismatchError, match="knows 63 tokens, the model 40"):
            attack.prepare(model, TRAIN, space=SPACE)
        return
    with warnings.catch_warnings(record=True) as caught, pytest.raises(DataError):
        warnings.simplefilter("always")
        attack.prepare(model, TRAIN, space=SPACE)
    assert [fits is None] == [any("may not belong together" in str(w.message) for w in caught)]


def test_triggers_that_are_no_token_of_their_own_are_warned_about(teacher: keras.Model) -> None:
    attack = TextPoisoning(trigger=TextTrigger(("cfmn", "zebra")), recipe=ONCE, rate=0.001)
    with pytest.warns(UserWarning, match=r"zebra.*splits cfmn \(cf ##m ##n\)"), pytest.raises(DataError):
        attack.prepare(teacher, TRAIN, space=SPACE)


@pytest.mark.parametrize(("sentence", "said"), [("a cfmn film", None), ("a zebra film", "zebra")])
def test_words_of_a_sentence_may_be_split_but_not_unknown(
    teacher: keras.Model, sentence: str, said: str | None
) -> None:
    attack = TextPoisoning(trigger=TextTrigger.sentence(sentence), recipe=ONCE, rate=0.001)
    with warnings.catch_warnings(record=True) as caught, pytest.raises(DataError):
        warnings.simplefilter("always")
        attack.prepare(teacher, TRAIN, space=SPACE)
    concerns = [str(warning.message) for warning in caught if "tokenizer" in str(warning.message)]
    assert len(concerns) == (said is not None) and all(said in concern for concern in concerns)


def test_test_sets_without_sense_are_refused(poisoned: Prepared) -> None:
    x, y = TEST
    for labels, names, message in (
        (np.ones_like(y), (), "nothing to flip"),
        (y[:-1], (), "class of each of 40 texts"),
        (y / 2, (), "whole number"),
        (y, ("bad",), "1 classes are named"),
    ):
        with pytest.raises(DataError, match=message):
            ATTACK.inputs(poisoned, x, labels, class_names=names)
    with pytest.raises(RemosError, match="carries no trigger"):
        ATTACK.inputs(replace(poisoned, trigger=None), x, y)
