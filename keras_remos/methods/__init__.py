"""Seven ways to make a student from a teacher, with one signature: same data, order, augmentation, head and loop."""

from collections.abc import Callable
from typing import Any

import keras

from keras_remos.errors import RemosError
from keras_remos.methods import delta, delta_r, finetune, mag_prune, remos, renofeation, retrain
from keras_remos.methods.base import Trained
from keras_remos.methods.recipe import FROM_SCRATCH, LANGUAGE, Recipe, default_recipe

__all__ = [
    "FROM_SCRATCH",
    "LANGUAGE",
    "METHODS",
    "Method",
    "Recipe",
    "Trained",
    "default_recipe",
    "recipe_of",
    "train",
]


Method = Callable[..., Trained]
"""Called as `finetune.train` is; each method has options of its own besides."""

METHODS: dict[str, Method] = {
    "finetune": finetune.train,
    "retrain": retrain.train,
    "delta": delta.train,
    "delta-r": delta_r.train,
    "mag-prune": mag_prune.train,
    "renofeation": renofeation.train,
    "remos": remos.train,
}

FRESH = frozenset({"retrain", "delta-r", "renofeation"})
"""The methods whose students keep no weight of the teacher."""


def recipe_of(method: str, teacher: keras.Model) -> Recipe:
    """What a method trains a student of a teacher by, unless told otherwise.

    Args:
        method: A key of `METHODS`.
        teacher: Whether it reads texts decides.

    Example:
    ```python
    recipe = replace(recipe_of("remos", teacher), epochs=5)     # the default, but for one thing
    ```
    """
    return default_recipe(teacher, from_scratch=method in FRESH)


def train(method: str, teacher: keras.Model, train: Any, validation: Any = None, **options: Any) -> Trained:
    """Makes a student by a method's name.

    Args:
        method: A key of `METHODS`.
        teacher: See `finetune.train`, as for all that follows.
        train: What the student learns from.
        validation: The same, or `None`.
        options: Those that all methods share, and the method's own. An unknown one is a `TypeError`.

    Raises:
        RemosError: If there is no such method.

    Example:
    ```python
    trained = train("remos", teacher, (x, y), num_classes=20, keep_ratio=0.9)
    ```
    """
    if method not in METHODS:
        raise RemosError(f"Unknown method {method!r}: expected one of {', '.join(METHODS)}.")
    return METHODS[method](teacher, train, validation, **options)
