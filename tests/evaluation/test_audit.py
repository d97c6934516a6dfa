"""An audit attacks once, measures everybody alike, and says what its figures rest on."""

import json
import math
from typing import Any

import keras
import numpy as np
import pytest
from planted import CLASSES, SPACE, by_hand, images, teacher

from keras_remos.data.pixels import PixelSpace
from keras_remos.defects import AttackSet, PatchBackdoor, PenultimateAttack, Prepared
from keras_remos.errors import DataError, MismatchError, RemosError
from keras_remos.evaluation import flip_rate, measure, predict_classes, target_rate
from keras_remos.evaluation.attackers import Attacker
from keras_remos.evaluation.audit import AuditReport, Controls, audit
from keras_remos.saving import versions
from keras_remos.training.recipe import Recipe

X, Y = images(30, seed=5)
QUICK = PenultimateAttack(steps=2)
SHORT = Recipe(epochs=1, batch_size=16, learning_rate=0.01)


def test_several_neurons_are_several_attacks_with_their_worst_and_mean() -> None:
    poisoned = by_hand()
    attacker = Attacker(defects=[PenultimateAttack(steps=2, neuron=(0, 1))])
    found = audit(
        poisoned.teacher,
        {"same": poisoned.teacher},
        (X, Y),
        attacker=attacker,
        controls=Controls(control=False),
        space=SPACE,
        verbose=False,
    )
    assert list(found.attacks) == ["penultimate", "penultimate 1"]
    rates = [row.rate.value for row in found.inheritance.inherited]
    spread = {"neurons": 2, "worst": max(rates), "mean": sum(rates) / 2}
    assert found.inheritance.over_neurons == {"same": spread}
    assert found.describe()["over_neurons"] == {"same": spread}
    assert "same, over 2 neurons: DIR " in found.summary()


def test_a_recipe_changes_each_ones_own() -> None:
    poisoned = by_hand()
    options = {"attacker": Attacker(defects=[]), "controls": Controls(floor=True, tune=False)}
    options["train"] = images(32, seed=6)
    for recipe in ({"epochs": 1, "batch_size": 16}, Recipe(epochs=1, batch_size=16)):
        found = audit(poisoned, {}, (X, Y), recipe=recipe, verbose=False, **options)
        own = {name: trained.options["recipe"] for name, trained in found.trained.items()}
        assert {name: (kept["epochs"], kept["learning_rate"]) for name, kept in own.items()} == {
            "fine-tuned": (1, 0.005),
            "retrained": (1, 0.1),
        }


@pytest.fixture
def poisoned() -> Prepared:
    return by_hand()


@pytest.fixture(scope="module")
def report() -> AuditReport:
    poisoned = by_hand()
    students = {"same": poisoned.teacher, "clean": teacher()}
    return audit(
        poisoned,
        students,
        (X, Y),
        attacker=Attacker(defects=[QUICK, "patch-backdoor"]),
        controls=Controls(floor=True),
        train=images(32, seed=6),
        recipe=SHORT,
        class_names=CLASSES,
        verbose=False,
    )


def test_every_student_meets_the_same_inputs(report: AuditReport, poisoned: Prepared) -> None:
    assert list(report.attacks) == ["penultimate", "patch-backdoor"]
    names = ["fine-tuned", "retrained", "same", "clean"]
    assert list(report.inheritance.accuracies) == names
    assert [(row.defect, row.student) for row in report.inheritance.inherited] == [
        (defect, name) for defect in report.attacks for name in names
    ]
    for row in report.inheritance.inherited:
        if row.student not in ("same", "clean"):
            continue
        model = poisoned.teacher if row.student == "same" else teacher()
        attack = report.attacks[row.defect]
        clean, attacked = (predict_classes(model, x, SPACE) for x in (X, attack.inputs))
        assert row.flipped == flip_rate(clean, attacked, Y)
        assert row.targeted == (None if attack.target is None else target_rate(attacked, Y, 1))


def test_the_control_is_trained_in_the_run_and_is_what_ratios_are_to(report: AuditReport) -> None:
    assert {name: trained.method for name, trained in report.trained.items()} == {
        "fine-tuned": "finetune",
        "retrained": "retrain",
    }
    assert report.inheritance.control == "fine-tuned"
    itself = report.inheritance.relative_accuracies["fine-tuned"]
    assert (itself.value, itself.low, itself.high) == (1, 1, 1)


def test_what_is_inherited_is_also_given_above_the_floor(report: AuditReport) -> None:
    found = report.inheritance
    assert found.floors == {"penultimate": "retrained", "patch-backdoor": "retrained"}
    rates = {(row.defect, row.student): row for row in found.inherited}
    for row in found.inherited:
        control, floor = (rates[row.defect, name].rate for name in ("fine-tuned", "retrained"))
        assert row.excess == row.rate.excess(control, floor) or math.isnan(row.excess.value)
    told = report.describe()["defects"]
    assert all("excess" in row for row in told)
    assert ("excess" in report.summary()) and "over test inputs only" in report.summary()


def test_a_backdoor_has_the_clean_teachers_student_for_a_floor() -> None:
    poisoned = by_hand()
    report = audit(
        poisoned,
        {"same": poisoned.teacher},
        (X, Y),
        attacker=Attacker(defects=[QUICK, "patch-backdoor"]),
        controls=Controls(clean_teacher=teacher()),
        train=images(32, seed=6),
        recipe=SHORT,
        class_names=CLASSES,
        verbose=False,
    )
    # No student from scratch: adversarial inputs work on students of the clean teacher, too.
    assert report.inheritance.floors == {"patch-backdoor": "from the clean teacher"}
    assert [row.excess is None for row in report.inheritance.inherited] == [True] * 3 + [False] * 3


def test_the_table_fits_and_says_n(report: AuditReport) -> None:
    lines = report.summary().splitlines()
    assert max(map(len, lines)) <= 100
    for found in report.inheritance.inherited:
        if found.defect != "patch-backdoor":
            continue
        rate, ratio = found.targeted, found.relative
        assert rate is not None and ratio is not None and rate.total == 20  # of 30; ten are of the attacker's class
        shown = [f"{value:.3f}" for value in (rate.value, *rate.interval(), ratio.value, ratio.low, ratio.high)]
        row, *_ = [line.split() for line in lines if line.split()[:2] == [found.defect, found.student]]
        # Where the trigger fools no student, there is no ratio.
        compared = ["-"] if math.isnan(ratio.value) else [*shown[3:5], "to", shown[5]]
        assert row[2:] == [*shown[:2], "to", shown[2], "20", *compared]
    assert "finetune, 1 epochs, learning rate 0.01, in this run." in lines[-2]


def test_the_report_is_json(report: AuditReport) -> None:
    described = json.loads(json.dumps(report.describe(), allow_nan=False))
    assert described["students"]["same"]["accuracy"]["n"] == 30
    assert described["attacks"]["patch-backdoor"]["target"] == 1
    assert described["trained"]["retrained"]["recipe"]["epochs"] == 1
    assert described["versions"] == versions()


def test_a_poisoned_teacher_is_attacked_by_its_own_trigger(poisoned: Prepared) -> None:
    found = audit(
        poisoned,
        {"same": poisoned.teacher},
        (X, Y),
        attacker=Attacker(defects=["patch-backdoor"]),
        controls=Controls(control="same"),
        verbose=False,
    )
    assert found.attacks["patch-backdoor"].options["rate"] == 0.2
    [row] = found.inheritance.inherited
    assert row.rate.value > 0.9 and row.relative is not None and row.relative.value == 1
    # What was made once can be used again, for other students.
    again = audit(
        poisoned,
        {"b": teacher()},
        (X, Y),
        attacker=Attacker(defects=found.attacks.values()),
        controls=Controls(control=False),
        verbose=False,
    )
    assert list(again.attacks) == ["patch-backdoor"] and again.inheritance.relative_accuracies == {}


def test_all_that_fits_a_teacher_is_tried_by_default(poisoned: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    # What the attacks do is tested where they are; here only that they are made.
    def unchanged(self: Any, prepared: Prepared, x: np.ndarray, y: np.ndarray, **options: Any) -> AttackSet:
        made = PatchBackdoor().inputs(poisoned, x, y)
        return AttackSet(**{**vars(made), "inputs": x, "target": None, "defect": self.name})

    monkeypatch.setattr("keras_remos.defects.adversarial.projected.ProjectedAttack.inputs", unchanged)
    students = {"same": poisoned.teacher}
    for source, extra in ((poisoned, ["patch-backdoor"]), (Prepared(poisoned.teacher, SPACE), [])):
        found = audit(source, students, (X, Y), controls=Controls(control=False), verbose=False)
        assert list(found.attacks) == ["displacement", "penultimate", "nc deepxplore", "snac dlfuzz", *extra]
        assert found.inheritance.inherited[0].flipped.count == 0
        assert list(found.left_out) == ["surrogate", "adaptive"]
        for name in found.left_out:
            assert f"Not tried: {name}. It takes data of the attacker's own" in found.summary()


def test_a_student_in_another_scaling_is_asked_in_its_own(poisoned: Prepared) -> None:
    inner = poisoned.teacher
    x = keras.Input((8, 8, 3))
    rescaled = keras.Model(x, inner(keras.layers.Rescaling(1 / 127.5, offset=-1)(x)))
    found = audit(
        poisoned,
        {"a": inner, "b": (rescaled, PixelSpace("none"))},
        (X, Y),
        attacker=Attacker(defects=["patch-backdoor"]),
        controls=Controls(control="a"),
        verbose=False,
    )
    a, b = found.inheritance.inherited
    assert np.array_equal(a.rate.outcomes, b.rate.outcomes)  # type: ignore[arg-type]


def test_a_class_without_a_test_image_is_named(poisoned: Prepared) -> None:
    here = Y != 2
    found = audit(
        poisoned,
        {"same": poisoned.teacher},
        (X[here], Y[here]),
        attacker=Attacker(defects=["patch-backdoor"]),
        controls=Controls(control=False),
        class_names=CLASSES,
        verbose=False,
    )
    assert "no test sample is of class 2 (blue)" in found.summary()


def test_only_images_of_the_target_make_a_rate_undefined_and_no_crash(poisoned: Prepared) -> None:
    only = Y == 1
    found = measure(
        {"same": (poisoned.teacher, SPACE)},
        X[only],
        Y[only],
        {"patch": PatchBackdoor().inputs(poisoned, X[only], Y[only])},
        control="same",
        verbose=False,
    )
    [row] = found.inherited
    assert row.rate.total == 0 and "DIR of same is undefined" in found.summary()
    json.dumps(found.describe(), allow_nan=False)


def smaller() -> keras.Model:
    return keras.Sequential([keras.Input((6, 6, 3)), keras.layers.Flatten(), keras.layers.Dense(3)])


def two_classes() -> keras.Model:
    return keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(2)])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"control": True}, RemosError, "give `train`"),
        ({"floor": True}, RemosError, "give `train`"),
        ({"control": "nobody"}, RemosError, "no student 'nobody'"),
        ({"defects": ["badnets"]}, RemosError, "Unknown defect 'badnets': expected one of penultimate"),
        ({"space": None}, RemosError, "How do the teacher's inputs come from pixels"),
        ({"students": {}}, RemosError, "no student to audit"),
        (
            {"students": {"small": smaller}},
            DataError,
            "'small' takes images of shape 6 x 6 x 3, the data has 8 x 8 x 3",
        ),
        ({"students": {"two": two_classes}}, DataError, "'two' tells 2 classes apart, and the test set has a class 2"),
        ({"students": {"fine-tuned": teacher}, "control": True, "train": (X, Y)}, RemosError, "is taken"),
        ({"students": {"a": lambda: (teacher(), PixelSpace(high=1))}}, DataError, "Expected pixels from 0 to 1"),
        ({"defects": ["patch-backdoor"]}, RemosError, "carries no trigger"),
        ({"test": X}, DataError, r"as \(x, y\) in pixels"),
        ({"test": (X, Y[:3])}, DataError, "class id for each"),
        ({"test": (X / 4 - 20, Y)}, DataError, "Expected pixels from 0 to 255"),
    ],
)
def test_wrong_input_is_named(options: dict[str, Any], error: type[Exception], message: str) -> None:
    request: dict[str, Any] = {"students": {"a": teacher}, "test": (X, Y), "space": SPACE, "control": False}
    request |= {"defects": [], **options}
    request["students"] = {name: build() for name, build in request["students"].items()}
    request["attacker"] = Attacker(defects=request.pop("defects"))
    request["controls"] = Controls(control=request.pop("control"), floor=request.pop("floor", False))
    with pytest.raises(error, match=message):
        audit(teacher(), **request, verbose=False)


def test_an_attack_on_another_teacher_is_refused(poisoned: Prepared) -> None:
    attack = PatchBackdoor().inputs(poisoned, X, Y)
    with pytest.raises(MismatchError, match="another model"):
        audit(
            teacher(),
            {"a": teacher()},
            (X, Y),
            attacker=Attacker(defects=[attack]),
            controls=Controls(control=False),
            space=SPACE,
            verbose=False,
        )


def test_a_prepared_teacher_knows_its_scaling(poisoned: Prepared) -> None:
    with pytest.raises(MismatchError, match="Leave space out"):
        audit(poisoned, {}, (X, Y), space=PixelSpace("0-1"), verbose=False)
