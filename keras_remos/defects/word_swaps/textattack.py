"""Lets the recipes of TextAttack, where that is installed, attack a teacher or a student."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from keras_remos.models.text_models import TextClassifier


def textattack_model(model: keras.Model, *, batch_size: int = 64) -> Any:
    """Wraps a KerasHub text classifier for TextAttack.

    Args:
        model: A text classifier with its preprocessor. It is not modified.
        batch_size: How many texts it gets at once.

    Returns:
        A `textattack.models.wrappers.ModelWrapper`: called with texts, or tuples of two, it returns probabilities.

    Raises:
        ImportError: If TextAttack is not installed.
        TeacherError: If the model is no text classifier.

    Example:
    ```python
    attack = textattack.attack_recipes.TextFoolerJin2019.build(textattack_model(student))
    textattack.Attacker(attack, textattack.datasets.Dataset([("A fine film.", 1)])).attack_dataset()
    ```
    """
    try:
        from textattack.models.wrappers import ModelWrapper
    except ImportError as error:
        raise ImportError(
            f"TextAttack is not installed ({error}): pip install textattack. The two word-swap attacks of keras_remos "
            "(DEFECTS['word-importance'] and ['greedy-swap']) need nothing of it."
        ) from error
    classify = TextClassifier(model, batch_size)

    class KerasHubModelWrapper(ModelWrapper):
        """Texts to probabilities."""

        def __init__(self) -> None:
            self.model = model

        def __call__(self, text_input_list: list[Any], batch_size: int | None = None) -> np.ndarray:
            # A sample of two columns comes as a tuple of two.
            return classify([text if isinstance(text, str) else (text[0], text[1]) for text in text_input_list])

    return KerasHubModelWrapper()
