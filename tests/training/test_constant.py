"""Training that ends in a student that names one class only says so, and puts it on record."""

from dataclasses import replace
from typing import Any

import keras
import numpy as np
import pytest
import tiny
import toys
from keras import layers as kl

from keras_remos.methods import Recipe, train
from keras_remos.training.constant import find_constant
from keras_remos.training.task import Task
from keras_remos.training.trainer import fine_tune

LABELS = np.arange(64) % 3
# What shows nothing teaches nothing.
DARK = np.zeros((64, 8, 8, 3), "float32")
RECIPE = replace(tiny.RECIPE, batch_size=16, augment="none")
CONSTANT = r"ended in a constant classifier: it says class \d of 64 of 64 training samples, and 2[12] are of that class"


@pytest.mark.once
@pytest.mark.parametrize("method", ["finetune", "remos", "renofeation"])
def test_methods_of_one_stage_and_of_several_say_so(method: str) -> None:
    with pytest.warns(UserWarning, match=rf"Training \({method}\) {CONSTANT}.*lower learning rate \(0.005 instead"):
        made = tiny.make(method, data=(DARK, LABELS), recipe=RECIPE)
    assert made.options["constant"] is True
    assert made.describe()["constant"] is True


@pytest.mark.once
def test_students_that_read_tokens_say_so() -> None:
    tokens = np.full((64, 7), 3, "int32")
    with pytest.warns(UserWarning, match=CONSTANT):
        made = train("finetune", toys.build_text(), (tokens, LABELS), recipe=RECIPE, verbose=False)
    assert made.options["constant"] is True


@pytest.mark.once
def test_an_attackers_copy_says_so() -> None:
    with pytest.warns(UserWarning, match=CONSTANT):
        fine_tune(tiny.teacher(), (DARK, LABELS), num_classes=3, recipe=RECIPE, verbose=False)


@pytest.mark.once
def test_a_student_that_has_learned_something_says_nothing() -> None:
    """A warning would be an error here."""
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(64, 8, 8, 3)) * 0.3 + np.eye(3)[LABELS][:, None, None, :]).astype("float32")
    made = tiny.make("finetune", data=(x, LABELS), recipe=replace(RECIPE, epochs=8))
    assert "constant" not in made.options


def echo() -> keras.Model:
    """Names the class whose number is the largest of those that it is given."""
    model = keras.Sequential([keras.Input((3,)), kl.Dense(3, activation="softmax")])
    model.layers[0].set_weights([np.eye(3), np.zeros(3)])
    return model


@pytest.mark.parametrize(
    ("labels", "named", "constant"),
    [
        ([60, 60, 60], [180, 0, 0], True),
        ([60, 60, 60], [178, 1, 1], True),
        ([60, 60, 60], [150, 30, 0], False),
        ([60, 60, 60], [60, 60, 60], False),
        # Most samples are of one class: to name it often is right, to name it always is not.
        ([140, 40, 0], [180, 0, 0], True),
        ([140, 40, 0], [165, 15, 0], False),
        # Too few of other classes to tell.
        ([170, 10, 0], [180, 0, 0], False),
        ([9, 9, 9], [27, 0, 0], False),
    ],
)
@pytest.mark.parametrize("ours", [True, False])
def test_what_counts_as_constant(labels: list[int], named: list[int], constant: bool, ours: bool) -> None:
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(3), labels)
    order = rng.permutation(len(y))
    x, y = np.eye(3, dtype="float32")[np.repeat(np.arange(3), named)], y[order]
    data: Any = (x, y) if ours else _Batches(x, y)
    task = Task(echo(), data, num_classes=3, recipe=Recipe(batch_size=30, schedule="constant", warmup=0.0))
    found = find_constant(echo(), task)
    assert (found is not None) is constant
    if found is not None:
        assert found.label == 0
        assert (found.named, found.right, found.samples) == (named[0], labels[0], 180)


def test_data_that_are_read_once_are_left_alone() -> None:
    x = np.eye(3, dtype="float32")[np.zeros(64, int)]
    once = ((x[rows : rows + 16], LABELS[rows : rows + 16]) for rows in range(0, 64, 16))
    recipe = Recipe(epochs=1, schedule="constant", warmup=0.0)
    assert find_constant(echo(), Task(echo(), once, num_classes=3, recipe=recipe)) is None
    assert next(once)[0].shape == (16, 3)


class _Batches(keras.utils.PyDataset):
    """Data of the user's own."""

    def __init__(self, x: np.ndarray, y: np.ndarray) -> None:
        super().__init__()
        self.x, self.y = x, y

    def __len__(self) -> int:
        return -(-len(self.x) // 30)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        rows = slice(30 * index, 30 * (index + 1))
        return self.x[rows], self.y[rows]
