"""Who students are compared with, and how these are trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import keras

from keras_remos.defects.attack_set import AttackSet
from keras_remos.errors import RemosError
from keras_remos.evaluation.measuring import Attacks
from keras_remos.evaluation.verdict import plants
from keras_remos.methods import find_method, recipe_of
from keras_remos.training.recipe import AUTO, Recipe
from keras_remos.training.trained import Trained

CONTROL = "fine-tuned"
FLOOR = "retrained"
CLEAN = "from the clean teacher"


@dataclass(frozen=True, kw_only=True)
class Controls:
    """What students are compared with. All but a student that is named are trained in the run, which needs `train`.

    Args:
        control: What rACC and rDIR are relative to: `True` fine-tunes a student, the name of one of the students takes
            that one, `False` does without.
        floor: Also train a student from scratch, which inherits nothing: how far above it each student is, beside how
            far the control is, is the excess. The name of one of the students takes that one.
        clean_teacher: The teacher before an attacker touched it, where it is at hand: a student that is fine-tuned from
            it shows how often a trigger fools a student that never met it.
        head: The path of the teacher's head, where it is not found: theirs take its place, and attacks read what enters
            it.
        tune: Choose the learning rate of each that is trained on validation data, unless the recipe names one: five
            trainings in place of one. A ratio to a control that was trained at a poor rate says nothing. The rate of an
            attacker's copy of the teacher is chosen likewise where no record tells how students were trained.
    """

    control: bool | str = True
    floor: bool | str = False
    clean_teacher: keras.Model | None = None
    head: str | None = None
    tune: bool = True

    def trained_from(self, teacher: keras.Model) -> dict[str, tuple[keras.Model, str]]:
        """Who is trained in the run: by the name in the table, the teacher and the method."""
        trained = {CONTROL: (teacher, "finetune")} if self.control is True else {}
        trained |= {FLOOR: (teacher, "retrain")} if self.floor is True else {}
        return trained | ({CLEAN: (self.clean_teacher, "finetune")} if self.clean_teacher is not None else {})

    @property
    def compared(self) -> str | None:
        """The name in the table of what ratios are to."""
        return CONTROL if self.control is True else (self.control or None)


def floors_of(attacks: Attacks, trained: Mapping[str, Any], controls: Controls) -> dict[str, str]:
    """For each attack the student that cannot have inherited it, if one was trained.

    A backdoor is not in a student of the clean teacher. Adversarial inputs work on that one, too: there it takes a
    student from scratch.
    """
    usual = controls.floor if isinstance(controls.floor, str) else FLOOR
    found = {
        name: CLEAN if CLEAN in trained and isinstance(attack, AttackSet) and plants(attack.defect) else usual
        for name, attack in attacks.items()
    }
    return {name: floor for name, floor in found.items() if floor in trained or floor == controls.floor}


def recipe_for(method: str, teacher: keras.Model, options: Mapping[str, Any], *, tune: bool) -> Recipe:
    """How a control or a floor is trained."""
    recipe = replace(recipe_of(method, teacher), **options)
    return replace(recipe, learning_rate=AUTO) if tune and "learning_rate" not in options else recipe


def recipe_of_copies(
    ways: Mapping[str, Trained], compared: str | None, teacher: keras.Model, options: Mapping[str, Any], *, tune: bool
) -> Recipe:
    """How an attacker's copies of a teacher are trained: a copy that was trained worse than students flatters them.

    Args:
        ways: How students were made, by name.
        compared: The name of the control, whose recipe is taken if its record tells it; else that of another student.
        teacher: The teacher.
        options: What the caller gave, for where no record tells one.
        tune: Whether the learning rate is left open there, unless it is given.
    """
    for way in (*(way for name, way in ways.items() if name == compared), *ways.values()):
        recipe = _recorded(way)
        if recipe is not None:
            return recipe
    return recipe_for("finetune", teacher, options, tune=tune)


def _recorded(student: Trained) -> Recipe | None:
    """The recipe by which a student of a teacher was trained, as far as its record tells."""
    try:
        return None if find_method(student.method).from_scratch else Recipe.from_config(student.options["recipe"])
    except (KeyError, TypeError, RemosError):
        return None
