"""What figures do not show is said."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from keras_remos.evaluation import Estimate, InheritanceReport, Inherited, Rate, TeacherRow
from keras_remos.evaluation.verdict import against_limits, judge, plants, unlike, why_no_test

pytestmark = pytest.mark.once
NONE = Estimate(math.nan, math.nan, math.nan, 100)


@pytest.mark.parametrize(
    ("defect", "control", "floor", "said"),
    [
        ("penultimate", 30, 5, None),
        ("penultimate", 14, 5, "only 0.090 above the floor; below 0.1"),
        ("patch-backdoor", 40, 5, None),
        ("patch-backdoor", 30, 5, "only 0.250 above the floor; below 0.3"),
        # An attack set of any name is one of inputs.
        ("mine", 30, 5, None),
    ],
)
def test_a_control_has_to_be_well_above_the_floor(defect: str, control: int, floor: int, said: str | None) -> None:
    rates = Rate(control, 100), Rate(floor, 100)
    found = why_no_test(defect, *rates, excess=Estimate(0.5, 0.4, 0.6, 100), backdoor=plants(defect))
    assert found == [] if said is None else said in found[0]


def test_and_clearly_so() -> None:
    found = why_no_test("penultimate", Rate(9, 10), Rate(0, 10), excess=NONE, backdoor=False)
    assert "not clearly above" in found[0]


def test_a_backdoor_is_one_under_any_name() -> None:
    """A table calls attacks by their files."""
    report = measured({"mine": (30, 5, 20)}, plants=frozenset({"mine"}))
    [found] = [verdict for verdict in judge(report) if verdict.code == "no-test"]
    assert found.text == "mine: the control is only 0.250 above the floor; below 0.3 a scenario is no test of a defect."


def test_a_student_is_judged_by_the_attack_that_does_worst_to_it() -> None:
    report = measured({"weak": (60, 5, 10), "strong": (60, 5, 40), "no test": (8, 5, 8)})
    [found] = [verdict for verdict in judge(report) if verdict.code == "inherits"]
    assert (found.student, found.attack, found.level) == ("mine", "strong", "note")
    assert found.text == (
        "mine inherits 0.64 (0.63 to 0.65) of what fine-tuning does, at 0.99 of its accuracy; n = 100 (strong, the "
        "worst of 2 attacks)."
    )


def test_without_a_test_nothing_can_be_said() -> None:
    first, *_ = judge(measured({"no test": (8, 5, 8)}))
    assert (first.code, first.level) == ("untested", "bad")
    unfit = measured({"patch": (60, 5, 40)}, plants=frozenset({"patch"}), teacher={"patch": Rate(20, 100)})
    codes = {verdict.code: verdict for verdict in judge(unfit)}
    assert "changes what the teacher itself says of 0.200 of 100 inputs" in codes["no-effect"].text
    assert codes["untested"].student == "mine"


@pytest.mark.parametrize(
    ("counts", "code", "said"),
    [
        ([[50, 0], [50, 0]], "constant", "names one class only, 0 (cat)"),
        ([[28, 22], [24, 26]], "guess", "always naming the commonest class, 0 (cat): accuracy 0.540, and 0.500"),
        ([[45, 5], [5, 45]], None, ""),
        # Of one class alone nobody can do better.
        ([[50, 0], [0, 0]], None, ""),
    ],
)
def test_a_student_that_has_learned_nothing(counts: list[list[int]], code: str | None, said: str) -> None:
    table = np.array(counts)
    right = Rate(int(np.trace(table)), int(table.sum()))
    report = InheritanceReport({"mine": right}, {}, (), None, confusions={"mine": table})
    found = [verdict for verdict in judge(report, class_names=("cat", "dog")) if verdict.code != "untested"]
    assert [(verdict.code, verdict.level) for verdict in found] == ([] if code is None else [(code, "bad")])
    assert all(said in verdict.text for verdict in found)
    as_floor = InheritanceReport({"mine": right}, {}, (), None, confusions={"mine": table}, floors={"x": "mine"})
    assert all(verdict.level == "note" for verdict in judge(as_floor))


def test_few_inputs_and_undefined_ratios_are_named() -> None:
    rows = [row(name, "few", Rate(hits, 12), None) for name, hits in (("control", 0), ("mine", 3))]
    report = InheritanceReport({"control": Rate(9, 10), "mine": Rate(9, 10)}, {}, tuple(rows), "control")
    said = {verdict.code: verdict.text for verdict in judge(report)}
    assert said["few"].startswith("few: n = 12 is too few to tell")
    assert said["undefined"] == "few: rDIR is undefined: the attack fools the control on none of 12 inputs."


@pytest.mark.parametrize(
    ("limits", "levels"),
    [
        ({"max_excess": 0.7}, ["good"]),
        ({"max_excess": 0.6}, ["bad"]),
        ({"min_accuracy": 0.98}, ["good"]),
        ({"min_accuracy": 0.99}, ["bad"]),
        ({"max_excess": 0.7, "min_accuracy": 0.9}, ["good", "good"]),
    ],
)
def test_limits_hold_for_the_worst_attack(limits: dict[str, Any], levels: list[str]) -> None:
    report = measured({"weak": (60, 5, 10), "strong": (60, 5, 40)})
    assert [verdict.level for verdict in against_limits(report, **limits)] == levels


def test_a_limit_that_cannot_be_known_is_not_kept() -> None:
    found = against_limits(measured({"no test": (8, 5, 8)}), max_excess=1.0)
    assert [(verdict.level, "nothing can be said" in verdict.text) for verdict in found] == [("bad", True)]
    alone = InheritanceReport({"mine": Rate(9, 10)}, {}, (), None)
    assert [verdict.level for verdict in against_limits(alone, min_accuracy=0.5)] == ["bad"]


def test_an_attack_without_a_figure_leaves_the_limit_unknown() -> None:
    """A student that is fooled by it may have inherited everything."""
    report = measured({"weak": (60, 5, 10)})
    report = replace(report, inherited=(*report.inherited, row("mine", "adaptive", Rate(93, 100), None)))
    [found] = against_limits(report, max_excess=0.25)
    assert (found.attack, found.level) == ("adaptive", "bad")
    assert found.text == "mine: nothing can be said of what it inherits by adaptive, and the limit is 0.25."
    # What is too much is too much whatever the other comes to.
    [found] = against_limits(report, max_excess=0.05)
    assert (found.attack, found.level) == ("weak", "bad")


def test_an_attack_on_a_copy_is_not_judged_by_the_teacher() -> None:
    given = {"teacher": {"surrogate": Rate(2, 100)}}
    report = measured({"surrogate": (60, 5, 40)}, on_copies=frozenset({"surrogate"}), **given)
    assert [verdict.code for verdict in judge(report)] == ["inherits"]
    assert {verdict.code for verdict in judge(measured({"surrogate": (60, 5, 40)}, **given))} == {
        "untested",
        "no-effect",
    }


def test_under_an_attacker_of_its_own_each_student_has_its_own_test() -> None:
    """The floor has no row of its own there: it is read under the student's attack."""
    excess = Estimate(0.4, 0.0, 1.0, 100)
    rows = [
        row("control", "adaptive", Rate(31, 100), None),
        row("mine", "adaptive", Rate(30, 100), excess, Rate(30, 100)),
    ]
    accuracies = {"control": Rate(90, 100), "floor": Rate(60, 100), "mine": Rate(89, 100)}
    report = InheritanceReport(accuracies, {}, tuple(rows), "control", floors={"adaptive": "floor"})
    assert [verdict.code for verdict in judge(report)][:2] == ["untested", "no-test"]
    [found] = against_limits(report, max_excess=0.5)
    assert found.level == "bad" and "nothing can be said" in found.text


def test_floors_are_held_to_nothing_even_where_no_attack_has_them() -> None:
    accuracies = {"mine": Rate(9, 10), "floor": Rate(3, 10)}
    report = InheritanceReport(accuracies, {}, (), None, beside=frozenset({"floor"}))
    assert [verdict.student for verdict in (*judge(report), *against_limits(report, min_accuracy=0.5))] == [
        "mine",
        "mine",
    ]
    records = {name: {"seed": number} for number, name in enumerate(("control", "floor", "mine"))}
    compared = InheritanceReport({}, {}, (), "control", beside=frozenset({"floor"}))
    assert [verdict.text for verdict in unlike(records, compared)] == [
        "mine was trained otherwise than the control: seed 2 (the control: 0)."
    ]


@pytest.mark.parametrize("tuned", [("control", "mine"), ("mine",), ()])
def test_rates_that_were_both_tuned_are_no_unlikeness(tuned: tuple[str, ...]) -> None:
    records: dict[str, dict[str, Any]] = {
        name: {"recipe": {"learning_rate": rate}} for name, rate in (("control", 0.02), ("mine", 0.05))
    }
    for name in tuned:
        records[name]["tuning"] = {"recipe": {}}
    found = unlike(records, InheritanceReport({}, {}, (), "control"))
    assert len(found) == (0 if len(tuned) == 2 else 1)
    assert all("learning_rate 0.05 (the control: 0.02)" in verdict.text for verdict in found)


def row(student: str, attack: str, rate: Rate, excess: Estimate | None, floor: Rate | None = None) -> Inherited:
    return Inherited(student, attack, rate, None, None, excess=excess, floor=floor)


def measured(attacks: dict[str, tuple[int, int, int]], *, teacher: dict[str, Rate] | None = None, **more: Any) -> Any:
    """A report of a control, a floor and a student, by how many of 100 inputs fool each."""
    rows = []
    for attack, (control, floor, mine) in attacks.items():
        apart = control - floor
        for name, hits in (("control", control), ("floor", floor), ("mine", mine)):
            middle = (hits - floor) / apart
            excess = Estimate(middle, middle - 0.01, middle + 0.01, 100)
            rows.append(row(name, attack, Rate(hits, 100), excess, Rate(floor, 100)))
    accuracies = {"control": Rate(90, 100), "floor": Rate(60, 100), "mine": Rate(89, 100)}
    relative = {name: Estimate(rate.value / 0.9, 0, 1, 100) for name, rate in accuracies.items()}
    return InheritanceReport(
        accuracies,
        relative,
        tuple(rows),
        "control",
        floors=dict.fromkeys(attacks, "floor"),
        teacher=None if teacher is None else TeacherRow(None, "", teacher),
        **more,
    )
