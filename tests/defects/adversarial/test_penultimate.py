"""Several neurons: an attack for each, with a set of its own."""

from typing import Any

import numpy as np
import pytest
import toys

from keras_remos.data.pixels import PixelSpace
from keras_remos.defects import PenultimateAttack
from keras_remos.errors import RemosError
from keras_remos.models.features import penultimate

SPACE = PixelSpace("-1-1")


def test_each_neuron_is_driven_up_in_a_set_of_its_own() -> None:
    model, _, _ = toys.make("cnn")
    x = np.random.default_rng(3).integers(0, 256, (5, 8, 8, 3)).astype("uint8")
    attack = PenultimateAttack(neuron=(2, 0), steps=4, random_start=False, height=20.0)
    prepared = attack.prepare(model, space=SPACE)
    sets = {single.neuron: single.inputs(prepared, x, np.zeros(5, int), verbose=False) for single in attack.each()}
    assert list(sets) == [2, 0]
    extract = penultimate(model)

    def features(pixels: np.ndarray) -> np.ndarray:
        return toys.numpy(extract(SPACE.scale(pixels))[1][0]).reshape(5, -1)

    for neuron, made in sets.items():
        assert made.options == {**attack.get_config(), "neuron": neuron}
        assert (features(made.inputs[:])[:, neuron] >= features(x)[:, neuron]).all()
        again = PenultimateAttack(neuron=neuron, steps=4, random_start=False, height=20.0)
        np.testing.assert_array_equal(
            again.inputs(prepared, x, np.zeros(5, int), verbose=False).inputs[:], made.inputs[:]
        )
    # A set of several would count each image several times, and be out of more of them than there are.
    with pytest.raises(RemosError, match=r"each\(\)"):
        attack.inputs(prepared, x, np.zeros(5, int), verbose=False)


def test_one_neuron_is_the_attack_itself() -> None:
    attack = PenultimateAttack(neuron=3)
    assert attack.each() == (attack,)


@pytest.mark.parametrize("neuron", [(), (0, -1), (0, 1.5), (3, 3), "0", 1.0, None])
def test_wrong_neurons_are_refused(neuron: Any) -> None:
    with pytest.raises(RemosError, match="neuron"):
        PenultimateAttack(neuron=neuron)
