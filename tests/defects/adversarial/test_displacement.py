"""Feature displacement, by what it moves."""

from typing import Any

import keras
import numpy as np
import pytest
import toys
from keras import layers as kl

from keras_remos.data.pixels import PixelSpace
from keras_remos.defects import DisplacementAttack
from keras_remos.errors import RemosError
from keras_remos.evaluation.attackers import title_of
from keras_remos.models.features import FeatureExtractor, find_features, penultimate

SPACE = PixelSpace("-1-1")
IMAGES = np.random.default_rng(3).integers(0, 256, (5, 8, 8, 3)).astype("uint8")
LABELS = np.zeros(5, int)


def run(model: keras.Model, **options: Any) -> np.ndarray:
    attack = DisplacementAttack(**{"steps": 6, **options})
    return attack.inputs(attack.prepare(model, space=SPACE), IMAGES, LABELS, verbose=False).inputs[:]


def distances(extract: FeatureExtractor, made: np.ndarray) -> np.ndarray:
    moved, clean = (toys.numpy(extract(SPACE.scale(x))[1][0]).reshape(5, -1) for x in (made, IMAGES.astype("float32")))
    return ((moved - clean) ** 2).mean(axis=1)


def test_features_move_further_than_by_chance() -> None:
    model, _, _ = toys.make("cnn")
    made = run(model)
    assert np.abs(made - IMAGES).max() <= 5.7
    by_chance = IMAGES + 5.7 * np.random.default_rng(0).choice([-1.0, 1.0], IMAGES.shape).astype("float32")
    by_chance = np.clip(by_chance, 0, 255)
    assert (distances(penultimate(model), made) > 2 * distances(penultimate(model), by_chance)).all()


def test_the_layer_that_is_named_moves_most() -> None:
    stages = [[kl.Conv2D(4, 3, padding="same", activation="relu"), kl.MaxPooling2D()] for _ in range(2)]
    layers = [keras.Input((8, 8, 3)), *stages[0], *stages[1], kl.GlobalAveragePooling2D(), kl.Dense(3)]
    model = toys.fill(keras.Sequential(layers))
    found = find_features(model)
    assert len(found) == 2
    first, last = (FeatureExtractor(model, [path]) for path in (found[0], found[-1]))
    of_first, of_last = (run(model, layer=path) for path in (found[0], found[-1]))
    assert distances(first, of_first).mean() > distances(first, of_last).mean()
    assert distances(last, of_last).mean() > distances(last, of_first).mean()
    np.testing.assert_array_equal(run(model, layer="middle"), run(model, layer=found[(len(found) - 1) // 2]))


def test_the_batch_size_changes_nothing() -> None:
    model, _, _ = toys.make("cnn")
    attack = DisplacementAttack(steps=3)
    prepared = attack.prepare(model, space=SPACE)
    one, two = (attack.inputs(prepared, IMAGES, LABELS, batch_size=size, verbose=False).inputs[:] for size in (5, 2))
    np.testing.assert_allclose(one, two, atol=1e-3)


def test_several_layers_are_several_attacks() -> None:
    attack = DisplacementAttack(layer=["penultimate", "middle"])
    assert [single.layer for single in attack.each()] == ["penultimate", "middle"]
    assert [title_of(single) for single in attack.each()] == ["displacement", "displacement middle"]
    model, _, _ = toys.make("cnn")
    with pytest.raises(RemosError, match=r"each\(\)"):
        attack.inputs(attack.prepare(model, space=SPACE), IMAGES, LABELS, verbose=False)


@pytest.mark.parametrize("options", [{"random_start": False}, {"layer": ""}, {"layer": []}, {"layer": [3]}])
def test_what_makes_no_sense_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(RemosError, match="|".join(options)):
        DisplacementAttack(**options)


def test_a_layer_that_is_not_there() -> None:
    model, _, _ = toys.make("cnn")
    with pytest.raises(RemosError, match="nowhere"):
        run(model, layer="nowhere")
