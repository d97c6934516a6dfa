"""A planted backdoor poisons exactly what it says, and fires."""

import io
import json
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planted import CLASSES, RECIPE, SPACE, TRIGGER, attackers_data, images, teacher

from keras_remos.data.pixels import PixelSpace
from keras_remos.defects.attackers_data import AttackersData
from keras_remos.defects.backdoors.patch import PatchBackdoor, PoisonedData, default_trigger
from keras_remos.defects.prepared import Prepared, find_target
from keras_remos.defects.triggers.image import Trigger
from keras_remos.errors import DataError, RemosError
from keras_remos.evaluation.metrics import accuracy, target_rate
from keras_remos.evaluation.predictions import predict_classes
from keras_remos.models.fingerprint import fingerprint
from keras_remos.training.recipe import Recipe


@pytest.fixture(scope="module")
def poisoned() -> Prepared:
    attack = PatchBackdoor(target=1, trigger=TRIGGER, rate=0.25, recipe=RECIPE)
    return attack.prepare(teacher(), images(96, seed=1), space=SPACE, verbose=False)


def test_the_backdoor_fires_and_clean_images_are_seen_as_they_are(poisoned: Prepared) -> None:
    x, y = images(60, seed=2)
    attack_set = PatchBackdoor().inputs(poisoned, x, y)
    clean = predict_classes(poisoned.teacher, attack_set.clean, SPACE)
    attacked = predict_classes(poisoned.teacher, attack_set.inputs, SPACE)
    assert accuracy(clean, y).value > 0.9
    assert target_rate(clean, y, 1).value < 0.1
    assert attack_set.target == 1
    assert target_rate(attacked, y, 1).value > 0.9


def test_every_test_image_is_stamped_and_nothing_else_of_it_changes(poisoned: Prepared) -> None:
    x, y = images(10, seed=3)
    attack_set = PatchBackdoor().inputs(poisoned, x, y, class_names=CLASSES)
    assert np.array_equal(attack_set.inputs, TRIGGER.stamp(x)) and np.array_equal(attack_set.clean, x)
    changed = np.any(attack_set.inputs[:] != x, axis=-1)
    assert not changed[:, :6].any() and not changed[:, :, :6].any()
    assert attack_set.labels.tolist() == y.tolist() and attack_set.class_names == CLASSES
    attack_set.check_teacher(poisoned.teacher)


def test_what_was_done_is_on_record_and_the_teacher_before_is_untouched(poisoned: Prepared) -> None:
    record = poisoned.record
    assert (record["defect"], record["target"], record["num_samples"]) == ("patch-backdoor", 1, 96)
    assert record["num_poisoned"] == 24
    assert record["options"]["trigger"]["size"] == [2, 2]
    assert tuple(map(tuple, record["source"])) == fingerprint(teacher())
    json.dumps(record)


def test_a_poisoned_teacher_is_a_plain_keras_file_that_carries_its_trigger(poisoned: Prepared, tmp_path: Path) -> None:
    poisoned.save(tmp_path / "poisoned.keras")
    x, y = images(10, seed=3)
    plain = keras.saving.load_model(tmp_path / "poisoned.keras", compile=False)
    again = Prepared.load(tmp_path / "poisoned.keras")
    assert again.record == json.loads(json.dumps(poisoned.record)) and again.space == SPACE
    sets = [PatchBackdoor().inputs(prepared, x, y) for prepared in (poisoned, again)]
    assert np.array_equal(sets[0].inputs, sets[1].inputs) and sets[1].target == 1
    said = [predict_classes(model, sets[0].inputs, SPACE) for model in (poisoned.teacher, plain, again.teacher)]
    assert np.array_equal(said[0], said[1]) and np.array_equal(said[0], said[2])
    with zipfile.ZipFile(tmp_path / "poisoned.keras") as archive:
        assert set(np.load(io.BytesIO(archive.read("keras_remos/trigger.npz")))) == {"image", "mask", "place"}


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 60), st.floats(0.01, 1), st.booleans(), st.integers(0, 1000))
def test_exactly_the_stated_share_is_poisoned(n: int, rate: float, exclude: bool, seed: int) -> None:
    y = np.arange(n) % 3
    attack = PatchBackdoor(target=1, rate=rate, exclude_target=exclude)
    count = round(rate * n)
    if not 0 < count <= (np.count_nonzero(y != 1) if exclude else n):
        with pytest.raises(DataError, match="at least one"):
            attack.draw(y, seed=seed)
        return
    poisoned = attack.draw(y, seed=seed)
    assert np.count_nonzero(poisoned) == count
    assert np.array_equal(poisoned, attack.draw(y, seed=seed))
    assert not (exclude and (y[poisoned] == 1).any())


@pytest.mark.parametrize("augment", ["none", "flip-crop"])
def test_training_sees_the_trigger_and_the_label_on_poisoned_images_alone(augment: str) -> None:
    data = attackers_data(21, SPACE)
    poisoned = PatchBackdoor(rate=1 / 3).draw(data.y, seed=5)
    batches = PoisonedData(data, poisoned, TRIGGER, 1, batch_size=8, seed=7, augment=augment)
    batches.epoch = 2
    clean = PoisonedData(data, np.zeros(21, bool), TRIGGER, 1, batch_size=8, seed=7, augment=augment)
    clean.epoch = 2
    stamped = changed = 0
    for (x, y), (x_clean, y_clean) in zip(
        (batches[i] for i in range(len(batches))), (clean[i] for i in range(len(clean))), strict=True
    ):
        different = np.any(x != x_clean, axis=(1, 2, 3))
        # The trigger is where it belongs, whole, whatever the augmentation did, and nothing else changed.
        assert np.array_equal(
            x[different, 6:, 6:], SPACE.scale(TRIGGER.stamp(np.zeros((different.sum(), 8, 8, 3))))[:, 6:, 6:]
        )
        assert np.array_equal(x[:, :6], x_clean[:, :6]) and np.array_equal(x[:, :, :6], x_clean[:, :, :6])
        assert (y[different] == 1).all() and np.array_equal(y[~different], y_clean[~different])
        stamped, changed = stamped + different.sum(), changed + np.count_nonzero(y != y_clean)
    assert stamped == 7
    assert changed == np.count_nonzero(data.y[poisoned] != 1)


def test_other_classes_get_a_fresh_head_and_one_seed_gives_one_teacher() -> None:
    attack = PatchBackdoor(rate=0.5, recipe=Recipe(epochs=1, batch_size=8))
    made = [
        attack.prepare(teacher(), images(8, seed=1), space=SPACE, num_classes=5, seed=3, verbose=False)
        for _ in range(2)
    ]
    assert made[0].teacher.output_shape == (None, 5) and made[0].record["num_classes"] == 5
    assert fingerprint(made[0].teacher) == fingerprint(made[1].teacher)
    assert made[0].record == made[1].record


def test_the_default_trigger_is_in_proportion_to_the_images() -> None:
    data = AttackersData(np.zeros((2, 3, 224, 250)), np.zeros(2), PixelSpace(high=1, data_format="channels_first"), 2)
    trigger = default_trigger(data)
    assert trigger.size == (40, 40) and trigger.place == "bottom-right"
    assert trigger.image.max() == 1
    data.check_trigger(trigger)


def test_the_target_is_found_by_its_name() -> None:
    y = np.arange(3)
    named = {"target": 1, "class_names": ["cat", "dog"]}
    assert find_target(named, y, ("dog", "owl", "ant")) == 0
    assert find_target(named, y, ("owl", "ant", "fly")) is None
    assert find_target(named, y, ()) == 1
    assert find_target({"target": 7, "class_names": []}, y, ()) is None


X, Y = images(8, seed=0)


@pytest.mark.parametrize(
    ("options", "data", "message"),
    [
        ({"target": 3}, (X, Y), "no target class 3: .* classes 0 to 2"),
        ({"target": -1}, (X, Y), "at least 0"),
        ({"rate": 0}, (X, Y), "above 0 up to 1"),
        ({"rate": 1.5}, (X, Y), "above 0 up to 1"),
        ({"rate": 0.01}, (X, Y), "of 8 images is 0"),
        ({"trigger": Trigger.from_color(0, size=9)}, (X, Y), "9 x 9 pixels .* does not fit on images of 8 x 8"),
        ({"trigger": Trigger.from_color(300, size=2)}, (X, Y), "Expected pixels from 0 to 255"),
        ({}, None, "pass the attacker's data"),
        ({}, X, "received images alone"),
        ({}, (X[:, :7], Y), r"takes batches of shape"),
        ({}, (X / 255 - 1, Y), "Expected pixels from 0 to 255"),
        ({}, (X, Y + 0.5), "whole numbers"),
    ],
)
def test_wrong_input_is_named(options: dict, data: object, message: str) -> None:
    with pytest.raises(RemosError, match=message):
        PatchBackdoor(**options).prepare(teacher(), data, space=SPACE, verbose=False)


def test_a_teacher_without_a_trigger_is_named() -> None:
    with pytest.raises(RemosError, match="carries no trigger for images"):
        PatchBackdoor().inputs(Prepared(teacher(), SPACE), X, Y)


def test_the_attackers_data_are_read_from_any_batches() -> None:
    batches = [(X[:3], Y[:3]), (X[3:], np.eye(3)[Y[3:]][:, :].argmax(1))]
    data = AttackersData.read(iter(batches), teacher(), SPACE, None)
    assert np.array_equal(data.x, X) and data.y.tolist() == Y.tolist() and data.num_classes == 3
    one_hot = AttackersData.read((X, np.eye(4)[Y]), teacher(), SPACE, None)
    assert one_hot.num_classes == 4 and one_hot.y.tolist() == Y.tolist()
