"""A latent backdoor draws triggered images to the target's features, and leaves no trace in the teacher's head."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from planted import RECIPE, SPACE, attackers_data, images, teacher

from keras_remos.data.pixels import PixelSpace
from keras_remos.defects.attackers_data import AttackersData
from keras_remos.defects.backdoors.latent import (
    Features,
    LatentBackdoor,
    Meeting,
    cost_of,
    distance,
    placement,
    random_trigger,
)
from keras_remos.defects.prepared import Prepared
from keras_remos.defects.triggers.image import Trigger
from keras_remos.errors import RemosError
from keras_remos.models.features import PENULTIMATE, FeatureExtractor
from keras_remos.models.layers import own_variables, weight_holders
from keras_remos.training.recipe import Recipe

TRIGGER = Trigger(np.full((3, 3, 3), 100), np.ones(()), "top-left")
SHORT = Recipe(epochs=1, batch_size=8)


@pytest.fixture(scope="module")
def infected() -> Prepared:
    attack = LatentBackdoor(
        target=1, trigger=TRIGGER, trigger_steps=30, trigger_rate=0.5, weight=10, retarget=RECIPE, recipe=RECIPE
    )
    return attack.prepare(teacher(), images(96, seed=1), space=SPACE, verbose=False)


def features_of(model: keras.Model, x: np.ndarray) -> np.ndarray:
    return keras.ops.convert_to_numpy(FeatureExtractor(model, [PENULTIMATE])(SPACE.scale(x))[1][0])


def test_the_published_head_is_the_original_one_bit_for_bit(infected: Prepared) -> None:
    before, after = dict(weight_holders(teacher())), dict(weight_holders(infected.teacher))
    same = {
        path: all(
            np.array_equal(keras.ops.convert_to_numpy(old.value), keras.ops.convert_to_numpy(new.value))
            for old, new in zip(own_variables(before[path]), own_variables(after[path]), strict=True)
        )
        for path in before
    }
    assert same == {"conv": False, "features": False, "head": True}
    assert [type(layer) for layer in infected.teacher.layers] == [type(layer) for layer in teacher().layers]


def test_what_it_costs_the_teacher_stands_in_the_record(infected: Prepared) -> None:
    x, y = images(96, seed=1)
    before, after = (
        keras.ops.convert_to_numpy(model(SPACE.scale(x))).argmax(axis=1) for model in (teacher(), infected.teacher)
    )
    assert infected.record["cost"] == {
        "unchanged": pytest.approx(np.mean(before == after)),
        "accuracy": {"before": pytest.approx(np.mean(before == y)), "after": pytest.approx(np.mean(after == y))},
    }
    # Of classes that the teacher does not know there is no accuracy.
    attackers = AttackersData(x, y, SPACE, 4)
    cost = cost_of(teacher(), infected.teacher, attackers, batch_size=40)
    assert cost == {"unchanged": pytest.approx(np.mean(before == after)), "accuracy": None}


def test_triggered_images_come_to_have_the_features_of_the_target(infected: Prepared) -> None:
    assert infected.trigger is not None
    optimised, injected = infected.record["distances"]["optimised"], infected.record["distances"]["injected"]
    assert injected < optimised < 1
    x, y = images(60, seed=2)
    clean = features_of(infected.teacher, x)
    triggered = features_of(infected.teacher, infected.trigger.stamp(x))
    target = clean[y == 1].mean(axis=0)
    others = y != 1
    assert distance(triggered[others], target) < 0.3 * distance(clean[others], target)


def test_a_head_that_learns_the_class_completes_the_backdoor(infected: Prepared) -> None:
    x, y = images(60, seed=2)
    attack_set = LatentBackdoor().inputs(infected, x, y)
    assert attack_set.target == 1
    clean, triggered = features_of(infected.teacher, x), features_of(infected.teacher, attack_set.inputs[:])
    # The simplest head that learns the classes: an image is of the class whose mean features are nearest.
    means = np.stack([clean[y == label].mean(axis=0) for label in range(3)])
    assert np.mean(nearest(clean, means) == y) > 0.9
    assert np.mean(nearest(triggered, means)[y != 1] == 1) > 0.9


def nearest(features: np.ndarray, how: np.ndarray) -> np.ndarray:
    return np.argmin(np.sum((features[:, None] - how) ** 2, axis=-1), axis=-1)


def test_the_trigger_keeps_its_place_its_opacity_and_the_range_of_pixels(infected: Prepared) -> None:
    trigger = infected.trigger
    assert isinstance(trigger, Trigger)
    assert trigger.place == "top-left" and np.array_equal(trigger.mask, TRIGGER.mask)
    assert trigger.image.min() >= 0 and trigger.image.max() <= 255
    assert np.array_equal(trigger.image, np.rint(trigger.image))
    assert not np.array_equal(trigger.image, TRIGGER.image)


def test_an_infected_teacher_is_a_plain_keras_file(infected: Prepared, tmp_path: Path) -> None:
    infected.save(tmp_path / "infected.keras")
    x, y = images(10, seed=3)
    plain = keras.saving.load_model(tmp_path / "infected.keras", compile=False)
    again = Prepared.load(tmp_path / "infected.keras")
    assert again.record["defect"] == "latent-backdoor" and again.record["options"]["layer"] == "penultimate"
    assert np.array_equal(features_of(plain, x), features_of(infected.teacher, x))
    ours, theirs = (LatentBackdoor().inputs(prepared, x, y) for prepared in (infected, again))
    assert np.array_equal(ours.inputs[:], theirs.inputs[:])


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_the_pattern_that_is_optimised_is_the_one_that_is_stamped(data_format: str) -> None:
    x, y = images(4, seed=1)
    x = np.moveaxis(x, -1, 1) if data_format == "channels_first" else x
    attackers = AttackersData(x, y, PixelSpace("caffe", data_format=data_format), 3)
    trigger = Trigger(np.arange(18).reshape(2, 3, 3), np.linspace(0.1, 1, 6).reshape(2, 3, 1), (4, 1))
    place, opacity = placement(trigger, attackers)
    pixels = keras.ops.convert_to_numpy(place(trigger.image))
    stamped = trigger.stamp(x.astype("float32"), data_format=data_format)
    assert x * (1 - opacity) + pixels * opacity == pytest.approx(stamped, abs=1e-4)
    # Scaling and stamping may change places.
    scaled = attackers.space.scale(x) * (1 - opacity) + attackers.space.scale(pixels[None])[0] * opacity
    assert scaled == pytest.approx(attackers.space.scale(stamped), abs=1e-3)


def test_optimising_draws_features_closer_and_repeats_itself() -> None:
    attackers = attackers_data(24, SPACE)
    features = Features(teacher(), PENULTIMATE, SPACE, None, batch_size=8)
    wanted = features(attackers.x[attackers.y == 1]).mean(axis=0)
    attack = LatentBackdoor(trigger_steps=15, trigger_rate=0.5, recipe=SHORT)
    found = [attack.optimise(features, wanted, attackers, seed=4, verbose=False) for _ in range(2)]
    assert np.array_equal(found[0].image, found[1].image)
    others = attackers.y != 1
    start = random_trigger(attackers, seed=4)
    assert start.size == (2, 2)
    before, after = (distance(features(attackers.stamped(t, others)), wanted) for t in (start, found[0]))
    assert after < before


def distance_at(model: keras.Model, layer: str, x: np.ndarray, y: np.ndarray, trigger: Trigger) -> float:
    """How far a layer sees triggered images from the mean of class 0, over how far it sees clean ones."""
    below = keras.Model(model.input, model.get_layer(layer).output)
    clean, triggered = (
        keras.ops.convert_to_numpy(below(SPACE.scale(shown.astype("float32")))) for shown in (x, trigger.stamp(x))
    )
    target, others = clean[y == 0].mean(axis=0), y != 0
    return distance(triggered[others], target) / distance(clean[others], target)


@pytest.mark.once
def test_a_layer_in_the_middle_can_be_matched() -> None:
    x, y = images(48, seed=1)
    attack = LatentBackdoor(layer="conv", trigger_steps=30, trigger_rate=0.5, weight=1, retarget=SHORT, recipe=RECIPE)
    prepared = attack.prepare(teacher(), (x, y), space=SPACE, verbose=False)
    model, trigger = prepared.teacher, prepared.trigger
    assert isinstance(trigger, Trigger)
    injected = distance_at(model, "conv", x, y, trigger)
    assert prepared.record["distances"]["injected"] == pytest.approx(injected, rel=1e-3)
    assert prepared.record["distances"]["optimised"] < 1
    # What enters the head, which is matched by default, is another thing.
    assert injected != pytest.approx(distance_at(model, "features", x, y, trigger), rel=1e-2)


def test_features_that_are_the_same_for_all_images_are_named() -> None:
    attackers = attackers_data(12, SPACE)
    dead = keras.models.clone_model(teacher())
    dead.get_layer("features").kernel.assign(np.zeros((64, 16)))
    features = Features(dead, PENULTIMATE, SPACE, None, batch_size=8)
    with pytest.raises(RemosError, match="the same of all images"):
        Meeting(features, attackers, 1, TRIGGER).relative_distance()


X, Y = images(8, seed=0)


@pytest.mark.parametrize(
    ("options", "data", "message"),
    [
        ({"target": 3}, (X, Y), "no target class 3"),
        ({"target": 0}, (X[Y != 0], Y[Y != 0]), "images of the target class 0 and of others. Received: 0 and"),
        ({"weight": 0}, (X, Y), "`weight` must be above 0"),
        ({"trigger_rate": -1}, (X, Y), "`trigger_rate` must be above 0"),
        ({"trigger_steps": 1.5}, (X, Y), "`trigger_steps` must be a whole number"),
        ({"layer": "convv"}, (X, Y), "no layer 'convv': did you mean"),
        ({"trigger": Trigger.from_color(0, size=9)}, (X, Y), "does not fit on images of 8 x 8"),
        ({}, None, "pass the attacker's data"),
    ],
)
def test_wrong_input_is_named(options: dict[str, Any], data: object, message: str) -> None:
    with pytest.raises(RemosError, match=message):
        LatentBackdoor(**options).prepare(teacher(), data, space=SPACE, verbose=False)
