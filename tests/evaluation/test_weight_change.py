"""Fig. 9 of the paper: a student's weights over its teacher's."""

import keras
import numpy as np

from keras_remos.evaluation.weight_change import EDGES, weight_change


def model(kernel: np.ndarray, name: str = "fc") -> keras.Model:
    layers = [keras.Input((4,)), keras.layers.Dense(3, name=name), keras.layers.Dense(2, name="head")]
    made = keras.Sequential(layers)
    made.get_layer(name).set_weights([kernel, np.zeros(3, np.float32)])
    made.get_layer("head").set_weights([np.ones((3, 2), np.float32), np.zeros(2, np.float32)])
    return made


def test_every_weight_is_counted_once_where_its_ratio_lies() -> None:
    before = np.arange(1, 13, dtype=np.float32).reshape(4, 3)
    factors = np.array([1, 1, 1, 0, 0.5, 2, 3, 4, -1, 1.01, 1, 1], np.float32).reshape(4, 3)
    found = weight_change(model(before), model(before * factors))
    assert found is not None
    assert (found.below, found.above, found.counts.sum()) == (1, 2, 12 + 6 - 3)
    at_one = int(np.searchsorted(EDGES, 1.0, side="right")) - 1
    assert found.counts[at_one] == 6 + 6  # five stayed, one moved by a hundredth; and the head
    assert found.counts[int(np.searchsorted(EDGES, 0.0, side="right")) - 1] == 1


def test_a_zero_of_the_teacher_has_no_ratio() -> None:
    found = weight_change(model(np.zeros((4, 3), np.float32)), model(np.ones((4, 3), np.float32)))
    assert found is not None and found.counts.sum() == 6


def test_models_with_nothing_in_common_are_not_compared() -> None:
    other = keras.Sequential([keras.Input((4,)), keras.layers.Dense(5, name="else")])
    assert weight_change(model(np.ones((4, 3), np.float32)), other) is None
