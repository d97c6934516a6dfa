"""What figures do not show is said."""

import math

import pytest

from keras_remos.evaluation import Estimate, Rate
from keras_remos.evaluation.verdict import why_no_test

pytestmark = pytest.mark.once


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
    found = why_no_test(defect, Rate(control, 100), Rate(floor, 100), excess=Estimate(0.5, 0.4, 0.6, 100))
    assert found == [] if said is None else said in found[0]


def test_and_clearly_so() -> None:
    undefined = Estimate(math.nan, math.nan, math.nan, 100)
    assert "not clearly above" in why_no_test("penultimate", Rate(9, 10), Rate(0, 10), excess=undefined)[0]


def test_a_backdoor_is_one_under_any_name() -> None:
    """A table calls attacks by their files."""
    found = why_no_test("mine", Rate(30, 100), Rate(5, 100), excess=None, defect="patch-backdoor")
    assert found == ["mine: the control is only 0.250 above the floor; below 0.3 a scenario is no test of a defect."]
