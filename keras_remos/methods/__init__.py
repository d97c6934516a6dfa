"""Seven ways to make a student from a teacher, with one signature: same data, order, augmentation, head and loop."""

from collections.abc import Callable
from typing import Any

import keras

from keras_remos.errors import RemosError
from keras_remos.methods import delta, delta_r, finetune, mag_prune, remos, renofeation, retrain
from keras_remos.methods.base import Trained
from keras_remos.methods.recipe import FROM_SCRATCH, Recipe

__all__ = ["FROM_SCRATCH", "METHODS", "RECIPES", "Method", "Recipe", "Trained", "train"]


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

RECIPES: dict[str, Recipe] = {
    name: FROM_SCRATCH if name in ("retrain", "delta-r", "renofeation") else Recipe() for name in METHODS
}
"""What each method trains by unless told otherwise: `replace(RECIPES[name], epochs=5)` changes one thing about it."""


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
