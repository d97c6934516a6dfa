"""Attackers by what they know: a surrogate of their own data, and one that is made as a student was."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from planted import CLASSES, SPACE, images, teacher

from keras_remos import RelevantSlicer
from keras_remos.data.datasets import ArrayReader, Dataset
from keras_remos.data.parts import set_aside
from keras_remos.defects import DisplacementAttack, PenultimateAttack, Prepared, SurrogateAttack, TransferPGD
from keras_remos.errors import DataError, MismatchError
from keras_remos.evaluation import Rate, flip_rate, measure, predict_classes
from keras_remos.evaluation.attackers import Attacker
from keras_remos.evaluation.audit import Controls, audit
from keras_remos.evaluation.inheritance import InheritanceReport
from keras_remos.evaluation.inherited import Inherited
from keras_remos.methods import FineTune, Hardening, Recipe, Trained, train, tune_recipe

X, Y = images(30, seed=5)
TRAIN = images(48, seed=6)
OWN = images(24, seed=7)
RECIPE = Recipe(epochs=2, batch_size=16, learning_rate=0.01)
SHORT = Hardening(share=0.25, attacks=[DisplacementAttack(steps=2)])

pytestmark = [
    pytest.mark.filterwarnings("ignore:Training .* ended in a constant classifier"),
    pytest.mark.filterwarnings("ignore:Criterion"),
]


def student(method: str = "remos", data: Any = TRAIN, **options: Any) -> Trained:
    scaled = SPACE.scale(data[0]), data[1]
    return train(method, teacher(), scaled, recipe=RECIPE, space=SPACE, verbose=False, **options)


def audited(students: dict[str, Any], attacker: Attacker, **options: Any) -> Any:
    how: dict[str, Any] = {"train": TRAIN, "recipe": RECIPE, "controls": Controls(floor=True), "verbose": False}
    return audit(Prepared(teacher(), SPACE), students, (X, Y), attacker=attacker, **how | options)


@pytest.mark.once
def test_the_adaptive_attacker_makes_one_like_each_student() -> None:
    harden = replace(SHORT, of_control=[TransferPGD(steps=1, step_size=3)])
    sliced = student(keep_ratio=0.6, harden=harden, seed=3)
    found = audited({"ours": sliced}, Attacker(defects=["surrogate", "adaptive"], data=OWN))
    assert list(found.attacks) == ["surrogate", "adaptive ours"] and not found.left_out
    # Made by hand: the student's method, share, hardening and recipe on the attacker's data.
    copy = train(
        "remos",
        teacher(),
        (SPACE.scale(OWN[0]), OWN[1]),
        keep_ratio=0.6,
        harden=harden,
        space=SPACE,
        recipe=RECIPE,
        seed=4,
        verbose=False,
    )
    by_hand = SurrogateAttack(recipe=RECIPE).inputs(Prepared(copy.student, SPACE), X, Y, verbose=False)
    attack = found.attacks["adaptive ours"]
    np.testing.assert_array_equal(attack.inputs, by_hand.inputs)
    assert attack.defect == "adaptive" and attack.record["made_like"] == "ours"

    # Each is read under its own attacker: the student and the floor under the student's, the control under a surrogate.
    rows = {(row.defect, row.student): row for row in found.inheritance.inherited}
    assert {each for defect, each in rows if defect == "adaptive"} == {"fine-tuned", "ours"}
    assert rows["adaptive", "fine-tuned"].rate == rows["surrogate", "fine-tuned"].rate
    clean, attacked = (predict_classes(sliced.student, x, SPACE) for x in (X, attack.inputs))
    ours = flip_rate(clean, attacked, Y)
    assert rows["adaptive", "ours"].rate == ours
    scratch = found.trained["retrained"].student
    floor = flip_rate(*(predict_classes(scratch, x, SPACE) for x in (X, attack.inputs)), Y)
    expected = ours.excess(rows["surrogate", "fine-tuned"].rate, floor)
    np.testing.assert_equal(rows["adaptive", "ours"].excess, expected)


@pytest.mark.once
def test_the_adaptive_attack_brings_the_controls_along() -> None:
    sliced = student(keep_ratio=0.6, harden=False)
    found = audited({"ours": sliced}, Attacker(defects=["adaptive"], data=OWN), controls=Controls())
    assert list(found.attacks) == ["surrogate", "adaptive ours"]
    rows = {row.student: row for row in found.inheritance.inherited if row.defect == "adaptive"}
    assert list(rows) == ["fine-tuned", "ours"] and rows["ours"].relative is not None
    alone = audited({"ours": sliced}, Attacker(defects=["adaptive"], data=OWN), controls=Controls(control=False))
    assert list(alone.attacks) == ["adaptive ours"]


@pytest.mark.once
def test_surrogates_are_trained_as_the_control() -> None:
    found = audited({}, Attacker(defects=["surrogate"], data=OWN))
    assert found.attacks["surrogate"].options["recipe"] == RECIPE.get_config()
    configured = SurrogateAttack(recipe=Recipe(epochs=1, batch_size=8), steps=1)
    found = audited({}, Attacker(defects=[configured], data=OWN))
    assert found.attacks["surrogate"].options["recipe"]["batch_size"] == 8


@pytest.mark.once
def test_copies_are_trained_no_worse_than_students() -> None:
    """Without a control that tells how it was trained."""
    model, ours = teacher(), student("finetune", harden=False)
    attacker, tuned = Attacker(defects=["surrogate", "pgd", "fgsm"], data=OWN), replace(RECIPE, learning_rate=0.02)
    alone = {"controls": Controls(control=False)}
    for students, options, expected in (
        ({"plain": model, "ours": ours}, {"controls": Controls(control="plain")}, RECIPE),
        ({"plain": model}, {"recipe": tuned, **alone}, tuned),
        ({"scratch": student("retrain")}, {"recipe": tuned, **alone}, tuned),
    ):
        found = audited(students, attacker, **options)
        for attack in found.attacks.values():
            assert attack.options["recipe"] == expected.get_config()
    # Nobody says at what rate: it is chosen on the attacker's data, as the students' was.
    given = {"epochs": 1, "batch_size": 8, "augment": "none"}
    found = audited({"plain": model}, Attacker(defects=["fgsm"], data=OWN), recipe=given, **alone)
    chosen = tune_recipe(
        FineTune(), model, (SPACE.scale(OWN[0]), OWN[1]), recipe=Recipe(**given), seed=1, verbose=False
    ).recipe
    assert found.attacks["fgsm"].options["recipe"] == chosen.get_config() != Recipe(**given).get_config()


@pytest.mark.once
def test_tuning_never_sees_the_test_set() -> None:
    """What is trained by default is the same whatever is in it, poison included."""
    given = {"train": TRAIN, "attacker": Attacker(defects=[]), "recipe": {"epochs": 1, "batch_size": 16}}
    made = [
        audit(Prepared(teacher(), SPACE), {}, test, verbose=False, **given).trained["fine-tuned"]
        for test in ((X, Y), (255 - X, (Y + 1) % 3))
    ]
    ours, theirs = made
    assert ours.options["tuning"]["recipe"]["trials"] and ours.options == theirs.options
    for a, b in zip(*(each.student.get_weights() for each in made), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.once
def test_the_share_that_students_left_is_the_attackers() -> None:
    """Nothing that a student, its control or its floor learnt from is the attacker's."""
    ours = student("finetune", attacker_share=0.25, harden=False)
    assert ours.options["attacker_share"] == 0.25
    rest, aside = set_aside(TRAIN, 0.25, seed=0)
    assert not {row.tobytes() for row in rest[0]} & {row.tobytes() for row in aside[0]}
    assert len(rest[0]) + len(aside[0]) == len(TRAIN[0])
    found = audited({"ours": ours}, Attacker(defects=["surrogate"]))
    # The control is the very student: it had the rest, and nothing else.
    for a, b in zip(found.trained["fine-tuned"].student.get_weights(), ours.student.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    given = audited({"ours": ours}, Attacker(defects=["surrogate"], data=aside), train=rest)
    np.testing.assert_array_equal(found.attacks["surrogate"].inputs, given.attacks["surrogate"].inputs)


@pytest.mark.once
def test_shares_that_differ_are_no_one_share() -> None:
    shared, whole = student("finetune", attacker_share=0.25), student("finetune")
    two = {"a": shared, "b": student("finetune", attacker_share=0.5)}
    with pytest.raises(MismatchError, match="different shares"):
        audited(two, Attacker(defects=[]))
    # Who left nothing was trained on what is the attacker's.
    for controls in (Controls(), Controls(control="b")):
        with pytest.raises(MismatchError, match=r"\(a: 0.25, seed 0; b: none\): give the attacker's data"):
            audited({"a": shared, "b": whole}, Attacker(defects=[]), controls=controls)
    audited({"a": shared, "b": whole}, Attacker(defects=[], data=OWN), controls=Controls(control="b"))


@pytest.mark.once
def test_what_was_left_is_known_again_by_what_it_holds() -> None:
    same, turned = on_disk(*TRAIN), on_disk(TRAIN[0][::-1], TRAIN[1][::-1])
    ours = train("finetune", teacher(), same.scaled(SPACE), recipe=RECIPE, attacker_share=0.25, seed=1, verbose=False)
    assert len(ours.options["attacker_data"]) == 64
    how = {"attacker": Attacker(defects=[]), "controls": Controls(control=False)}
    audited({"ours": ours}, train=same, **how)
    with pytest.raises(MismatchError, match="What ours left to the attacker is not what these training data set aside"):
        audited({"ours": ours}, train=turned, **how)
    # Of a student that does not say it, and of arrays, nothing is known.
    audited({"ours": ours}, train=TRAIN, **how)
    del ours.options["attacker_data"]
    audited({"ours": ours}, train=turned, **how)


@pytest.mark.once
def test_what_cannot_be_made_again_is_left_out() -> None:
    function = student("finetune")
    function.options["recipe"]["augment"] = "mine.augmented"
    slicer = RelevantSlicer(teacher(), keep_ratio=0.8, filters="conv")
    given = student(relevant=slicer.slice(slicer.profile(SPACE.scale(TRAIN[0]), verbose=False)), harden=False)
    preset = student("finetune")
    preset = replace(preset, method="remos", options={**preset.options, "slice": {"preset": [1], "keep_ratio": 0.5}})
    students = {"unknown": teacher(), "function": function, "given": given, "preset": preset}
    found = audited(students, Attacker(defects=["surrogate", "adaptive"], data=OWN), controls=Controls(control=False))
    assert set(found.left_out) == {f"adaptive ({name})" for name in students}
    assert "a slice that was given to it" in found.left_out["adaptive (given)"]
    assert "augment" in found.left_out["adaptive (function)"]
    assert "by which method" in found.left_out["adaptive (unknown)"]
    assert list(found.attacks) == ["surrogate"]


def on_disk(x: np.ndarray, y: np.ndarray, class_names: Sequence[str] = CLASSES) -> Dataset:
    return Dataset(ArrayReader(x, dtype="float32"), y, kind="image", class_names=class_names)


@pytest.mark.once
def test_data_of_other_classes_are_not_the_attackers(monkeypatch: pytest.MonkeyPatch) -> None:
    # Nothing is trained before.
    monkeypatch.setattr(sys.modules["keras_remos.evaluation.audit"], "train_by", None)
    other, fewer = (on_disk(*OWN, names) for names in (("apple", "bean", "cherry"), ("green", "blue", "red")))
    for data, message in (
        (other, "are of the classes apple, bean, cherry, the test set is of red, green, blue"),
        (fewer, "are of the classes green, blue, red"),
        ((OWN[0], OWN[1] + 3), "have a class 5, and the students tell 3 classes apart"),
    ):
        with pytest.raises(DataError, match=message):
            audited({"a": teacher()}, Attacker(defects=["surrogate"], data=data), class_names=CLASSES)
    with pytest.raises(DataError, match="are of the classes 1, 2, 0, the test set is of 0, 1, 2"):
        audited({"a": teacher()}, Attacker(defects=["surrogate"], data=on_disk(*OWN, "120")), class_names="012")


@pytest.mark.once
@pytest.mark.parametrize("named", [True, False])
def test_data_without_names_and_without_a_class_are(named: bool) -> None:
    here = OWN[1] < 2
    how = {"class_names": CLASSES, "controls": Controls(control=False)}
    own = OWN[0][here], OWN[1][here]
    data = on_disk(*own, "012") if named else own
    found = audited({"a": teacher()}, Attacker(defects=["surrogate"], data=data), **how)
    assert list(found.attacks) == ["surrogate"]


@pytest.mark.parametrize("defect", ["surrogate", "adaptive"])
def test_without_data_of_their_own_it_says_what_is_missing(defect: str) -> None:
    with pytest.raises(DataError, match=f"{defect}: It takes data of the attacker's own"):
        audited({}, Attacker(defects=[defect]))


@pytest.mark.once
def test_what_students_left_is_asked_for_where_they_did() -> None:
    ours = student("finetune", attacker_share=0.25, harden=False)
    how = {"train": None, "controls": Controls(control="ours")}
    with pytest.raises(DataError, match=r"surrogate: .* left a share of their training data to it, so give these"):
        audited({"ours": ours}, Attacker(defects=["surrogate"]), **how)


@pytest.mark.once
def test_the_worst_attack_stands_first() -> None:
    def row(student: str, defect: str, hits: int) -> Inherited:
        return Inherited(student, defect, Rate(hits, 10), None, None)

    rows = [row("control", "weak", 9), row("ours", "weak", 1), row("control", "strong", 8), row("ours", "strong", 5)]
    report = InheritanceReport({"control": Rate(9, 10), "ours": Rate(9, 10)}, {}, tuple(rows), "control")
    assert [each.defect for each in report.worst_first] == ["strong", "strong", "weak", "weak"]
    lines = report.summary().splitlines()
    assert next(line for line in lines if line.startswith("strong")) in lines[5]


def test_what_is_no_test_of_a_defect_is_said() -> None:
    """The control is the floor: nothing lies between them."""
    model = teacher()
    attack = PenultimateAttack(steps=1).inputs(Prepared(model, SPACE), X, Y, verbose=False)
    students = {"control": (model, SPACE), "floor": (model, SPACE)}
    report = measure(students, X, Y, {"pen": attack}, control="control", floors={"pen": "floor"}, verbose=False)
    assert any("not clearly above the floor" in verdict.text for verdict in report.verdicts)
