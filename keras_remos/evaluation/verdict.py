"""What figures do not show, in words."""

from __future__ import annotations

import math

from keras_remos.defects import DEFECTS
from keras_remos.evaluation.intervals import Estimate
from keras_remos.evaluation.metrics import Rate

# Of control minus floor, how much a scenario must show to say anything about what is inherited.
LEAST_OF_BACKDOORS, LEAST_OF_INPUTS = 0.3, 0.1


def plants(defect: str) -> bool:
    """Whether an attack, by its name, is a backdoor that the teacher carries."""
    return defect in DEFECTS and DEFECTS[defect].plants


def why_no_test(
    title: str, control: Rate, floor: Rate, *, excess: Estimate | None, defect: str | None = None
) -> list[str]:
    """Why a scenario is no test of what is inherited: one sentence, or none where it is one.

    Args:
        title: What the attack is called in the table.
        control: What fools the control.
        floor: What fools a student that cannot have inherited it.
        excess: Of any student, as far above the floor; NaN where control and floor are not clearly apart.
        defect: The attack's own name; `title` by default.
    """
    if excess is not None and math.isnan(excess.value):
        return [f"{title}: the control is not clearly above the floor: nothing is there to inherit."]
    least = LEAST_OF_BACKDOORS if plants(defect or title) else LEAST_OF_INPUTS
    between = control.value - floor.value
    if not between < least:
        return []
    return [
        f"{title}: the control is only {between:.3f} above the floor; below {least:g} a scenario is no test of a "
        "defect."
    ]
