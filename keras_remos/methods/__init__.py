"""Eight ways to make a student from a teacher, with one signature: same data, order, augmentation, head and loop."""

from typing import Any

import keras

from keras_remos.errors import RemosError
from keras_remos.methods.delta import Delta, DeltaR
from keras_remos.methods.fine_pruning import FinePruning
from keras_remos.methods.finetune import FineTune
from keras_remos.methods.hardening import Hardening
from keras_remos.methods.keep_ratio import KeepRatio
from keras_remos.methods.mag_prune import MagPrune
from keras_remos.methods.method import Method
from keras_remos.methods.remos import Remos, tune_keep_ratio
from keras_remos.methods.renofeation import Renofeation
from keras_remos.methods.retrain import Retrain
from keras_remos.methods.tuning import Tuning, tune_recipe
from keras_remos.training.recipe import FROM_SCRATCH, LANGUAGE, Recipe, default_recipe
from keras_remos.training.trained import Trained

__all__ = [
    "FRESH",
    "FROM_SCRATCH",
    "LANGUAGE",
    "METHODS",
    "Delta",
    "DeltaR",
    "FinePruning",
    "FineTune",
    "Hardening",
    "KeepRatio",
    "MagPrune",
    "Method",
    "Recipe",
    "Remos",
    "Renofeation",
    "Retrain",
    "Trained",
    "Tuning",
    "default_recipe",
    "find_method",
    "recipe_of",
    "train",
    "tune_keep_ratio",
    "tune_recipe",
]

METHODS: dict[str, type[Method]] = {
    kind.name: kind for kind in (FineTune, Retrain, Delta, DeltaR, MagPrune, FinePruning, Renofeation, Remos)
}
"""Every method by its name."""

FRESH = frozenset(name for name, kind in METHODS.items() if kind.from_scratch)
"""The methods whose students keep no weight of the teacher."""


def find_method(name: str) -> type[Method]:
    """A method by its name.

    Raises:
        RemosError: If there is no such method.
    """
    if name not in METHODS:
        raise RemosError(f"Unknown method {name!r}: expected one of {', '.join(METHODS)}.")
    return METHODS[name]


def recipe_of(method: str, teacher: keras.Model) -> Recipe:
    """What a method trains a student of a teacher by, unless told otherwise.

    Args:
        method: A key of `METHODS`.
        teacher: Whether it reads texts decides.

    Raises:
        RemosError: If there is no such method.

    Example:
    ```python
    recipe = replace(recipe_of("remos", teacher), epochs=5)     # the default, but for one thing
    ```
    """
    return default_recipe(teacher, from_scratch=find_method(method).from_scratch)


def train(method: str, teacher: keras.Model, train: Any, validation: Any = None, **options: Any) -> Trained:
    """Makes a student by a method's name.

    Args:
        method: A key of `METHODS`.
        teacher: See `Method.train`, as for all that follows.
        train: What the student learns from.
        validation: The same, or `None`.
        options: Those of `Method.train` (`num_classes`, `recipe`, `seed`, `head`, `harden`, `space`, `budget`,
            `attacker_share`, `callbacks`, `checkpoint`, `verbose`) and the method's own. An unknown one is a
            `TypeError`.

    Returns:
        The student and how its training went.

    Raises:
        RemosError: If there is no such method; and see `Method.train`.

    Example:
    ```python
    trained = train("remos", teacher, (x, y), keep_ratio=0.9)
    ```
    """
    kind = find_method(method)
    own = {name: options.pop(name) for name in kind.option_names() if name in options}
    return kind(**own).train(teacher, train, validation, **options)
