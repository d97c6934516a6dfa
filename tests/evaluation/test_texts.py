"""Language models are measured and audited as image models are, on strings."""

import json
from dataclasses import replace
from typing import Any

import keras
import numpy as np
import pytest

pytest.importorskip("keras_hub")
import text_toys

from keras_remos.data.pixels import PixelSpace
from keras_remos.defects import AttackSet, GreedySwap, Prepared, TextPoisoning, TextTrigger, WordImportance
from keras_remos.defects.text_backdoors.backdoor import ATTACKERS_RECIPE
from keras_remos.defects.word_swaps.synonyms import SynonymPairs
from keras_remos.defects.word_swaps.word_swap import WordSwap
from keras_remos.errors import DataError, MismatchError, RemosError
from keras_remos.evaluation import AuditReport, audit, measure, predict_classes
from keras_remos.evaluation.attackers import Attacker
from keras_remos.evaluation.audit import Controls
from keras_remos.evaluation.metrics import as_f1
from keras_remos.methods import LANGUAGE, train
from keras_remos.models.layers import weight_holders

# So little training often ends so.
pytestmark = pytest.mark.filterwarnings("ignore:Training .* ended in a constant classifier:UserWarning")

SPACE = PixelSpace("preprocessor")
TRAIN, TEST = text_toys.sentences(96), text_toys.sentences(41, seed=1)
FAST = replace(ATTACKERS_RECIPE, epochs=14, learning_rate=1e-2)
ATTACK = TextPoisoning(trigger=TextTrigger(("cf", "mn")), recipe=FAST)
SYNONYMS = SynonymPairs([("good", "poor"), ("great", "dull"), ("fine", "bad"), ("film", "story")])


@pytest.fixture(scope="module")
def clean_teacher() -> keras.Model:
    return text_toys.bert()


@pytest.fixture(scope="module")
def poisoned(clean_teacher: keras.Model) -> Prepared:
    return ATTACK.prepare(clean_teacher, TRAIN, space=SPACE, verbose=False)


@pytest.fixture(scope="module")
def report(poisoned: Prepared, clean_teacher: keras.Model) -> AuditReport:
    return audit(
        poisoned,
        {"same": poisoned.teacher},
        TEST,
        attacker=Attacker(synonyms=SYNONYMS),
        controls=Controls(floor=True, clean_teacher=clean_teacher),
        train=TRAIN,
        recipe=replace(LANGUAGE, epochs=8, batch_size=16, learning_rate=1e-2),
        verbose=False,
    )


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_the_class_is_the_greatest_output_in_the_order_of_the_texts(batch_size: int, poisoned: Prepared) -> None:
    texts = np.concatenate([TEST[0], [" ".join(TEST[0][:3])]])
    said = predict_classes(poisoned.teacher, texts, SPACE, batch_size=batch_size)
    assert said.dtype == np.int64
    np.testing.assert_array_equal(said, text_toys.classes(poisoned.teacher, texts))


def test_models_with_tokenizers_of_their_own_are_measured_side_by_side(poisoned: Prepared) -> None:
    students = {"bert": (poisoned.teacher, SPACE), "roberta": (text_toys.roberta(), SPACE)}
    attack = ATTACK.inputs(poisoned, *TEST)
    found = measure(students, *TEST, {"trigger": attack}, control="bert", verbose=False)
    for row in found.inherited:
        model = students[row.student][0]
        fooled = text_toys.classes(model, attack.inputs)[TEST[1] == 0] == 1
        assert row.targeted is not None and (row.targeted.count, row.targeted.total) == (fooled.sum(), len(fooled))
        assert row.f1 == as_f1(row.targeted)


@pytest.mark.once
def test_an_audit_tries_the_trigger_and_both_word_swaps(report: AuditReport) -> None:
    assert list(report.attacks) == ["word-importance", "greedy-swap", "text-poisoning"]
    assert list(report.inheritance.accuracies) == ["fine-tuned", "retrained", "from the clean teacher", "same"]
    rates = {row.student: row.rate.value for row in report.inheritance.inherited if row.defect == "text-poisoning"}
    assert rates["same"] > 0.9 and rates["from the clean teacher"] < 0.3
    swapped = report.attacks["word-importance"]
    assert swapped.record["outcomes"]["success"] > 0 and swapped.holds_text
    described = json.loads(json.dumps(report.describe(), allow_nan=False))
    assert {row["f1"] is None for row in described["defects"] if row["defect"] == "greedy-swap"} == {True}


def test_the_table_fits_and_explains_both_meanings_and_the_papers_figure(report: AuditReport) -> None:
    text = report.summary()
    assert max(map(len, text.splitlines())) <= 110
    assert "DIR of greedy-swap, word-importance: of the inputs that the student gets right" in text
    assert "DIR of text-poisoning: of the inputs of other classes" in text
    assert "F1: this DIR as 2 DIR / (1 + DIR)" in text


def test_what_was_not_tried_is_said(poisoned: Prepared) -> None:
    students = {"same": poisoned.teacher}
    without = audit(
        poisoned, students, TEST, attacker=Attacker(synonyms=SYNONYMS), controls=Controls(control=False), verbose=False
    )
    assert list(without.attacks) == ["text-poisoning"]
    assert set(without.left_out) == {"word-importance", "greedy-swap"}
    assert "Not tried: word-importance. It attacks a classifier of the task" in without.summary()


@pytest.mark.once
def test_word_swaps_by_the_same_recipe_share_one_copy(
    clean_teacher: keras.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = replace(LANGUAGE, epochs=4, learning_rate=1e-2)
    made_with = []
    prepare = WordSwap.prepare

    def spy(self: WordSwap, *args: Any, **kwargs: Any) -> Prepared:
        made_with.append(self.recipe)
        return prepare(self, *args, **kwargs)

    monkeypatch.setattr(WordSwap, "prepare", spy)
    common = {"synonyms": SYNONYMS, "tagger": None, "recipe": quick}
    other = replace(quick, epochs=2)
    swaps = [WordImportance(**common), GreedySwap(**common), GreedySwap(**{**common, "recipe": other})]
    report = audit(
        clean_teacher,
        {"same": clean_teacher},
        TEST,
        attacker=Attacker(defects=swaps),
        controls=Controls(control=False),
        train=TRAIN,
        verbose=False,
    )
    assert made_with == [quick, other]
    alone = swaps[1].prepare(clean_teacher, TRAIN, space=SPACE, seed=1, verbose=False)
    expected = swaps[1].inputs(alone, *TEST, verbose=False)
    assert report.attacks["greedy-swap"].inputs.tolist() == expected.inputs.tolist()


def test_word_swaps_are_made_with_the_attackers_own_copy(clean_teacher: keras.Model) -> None:
    attack = WordImportance(synonyms=SYNONYMS, tagger=None)
    prepared = attack.prepare(clean_teacher, TRAIN, space=SPACE, seed=3, verbose=False)
    assert prepared.teacher is not clean_teacher
    made = attack.inputs(prepared, *TEST, verbose=False)
    made.check_teacher(clean_teacher)
    with pytest.raises(MismatchError):
        made.check_teacher(prepared.teacher)


@pytest.mark.slow
@pytest.mark.once
@pytest.mark.parametrize("name", text_toys.CLASSIFIERS)
def test_every_architecture_goes_from_the_attack_to_the_measured_student(name: str) -> None:
    teacher = text_toys.CLASSIFIERS[name]()
    once = replace(LANGUAGE, epochs=1, batch_size=24, learning_rate=1e-3)
    poisoned = replace(ATTACK, recipe=once).prepare(teacher, TRAIN, space=SPACE, verbose=False)
    trained = train("remos", poisoned.teacher, TRAIN, num_classes=2, recipe=once, verbose=False)
    before = dict(weight_holders(poisoned.teacher))
    assert all(path in before for path, _ in weight_holders(trained.student))
    attack = ATTACK.inputs(poisoned, *TEST)
    found = measure({"remos": (trained.student, SPACE)}, *TEST, {"trigger": attack}, verbose=False)
    assert found.accuracies["remos"].total == 41
    (row,) = found.inherited
    assert row.targeted is not None and row.targeted.total == int((TEST[1] == 0).sum())


def test_texts_and_images_are_not_mixed(poisoned: Prepared, clean_teacher: keras.Model) -> None:
    images = np.zeros((2, 8, 8, 3), np.uint8)
    of_images = AttackSet(
        clean=images,
        inputs=images,
        labels=np.array([0, 1]),
        class_names=(),
        target=None,
        defect="pgd",
        options={},
        space=SPACE,
        teacher=(),
        seed=0,
        versions={},
    )
    requests: list[tuple[Any, type[Exception], str]] = [
        (lambda: measure({"a": (clean_teacher, SPACE)}, *TEST, {"p": of_images}), MismatchError, "made of images"),
        (lambda: measure({"a": (clean_teacher, SPACE)}, images, np.array([0, 1]), {}), DataError, "reads texts"),
        (
            lambda: audit(
                poisoned,
                {"a": clean_teacher},
                TEST,
                attacker=Attacker(defects=["pgd"]),
                controls=Controls(control=False),
            ),
            RemosError,
            "needs a model of one float input",
        ),
    ]
    for request, error, message in requests:
        with pytest.raises(error, match=message):
            request()
    plain = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    with pytest.raises(DataError, match="brings no tokenizer"):
        measure({"a": (plain, SPACE)}, *TEST, {})
