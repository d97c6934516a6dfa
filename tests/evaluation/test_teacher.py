"""How attacks do on the teacher itself: 0.000 of a student can be told from a trigger that does not work."""

from dataclasses import replace

import keras
import numpy as np
import pytest

import keras_remos as kr
from keras_remos.defects import Prepared
from keras_remos.evaluation import try_trigger
from keras_remos.evaluation.teacher import ask_teacher

SPACE = kr.PixelSpace()
Y = (np.arange(12) % 3).astype(np.int32)
X = np.zeros((12, 2, 2, 3), np.float32)
X[np.arange(12), :, :, Y] = 200


def says_colour(classes: int = 3) -> keras.Model:
    """A model that calls an image by the channel that is brightest; with more classes, none is ever the last."""
    inputs = keras.Input((2, 2, 3))
    x = keras.layers.GlobalAveragePooling2D()(inputs)
    kernel = np.eye(3, classes, dtype=np.float32) / 100
    head = keras.layers.Dense(classes, "softmax", name="head")
    model = keras.Model(inputs, head(x))
    head.set_weights([kernel, np.zeros(classes, np.float32)])
    return model


def attack(inputs: np.ndarray, target: int | None) -> kr.AttackSet:
    return kr.AttackSet(X, inputs, Y, (), target, "mine", {}, SPACE, (("head", "0"),), 0, {})


def test_a_backdoor_counts_by_its_target_and_other_attacks_by_what_changes() -> None:
    shifted = np.roll(X, 1, axis=-1)  # 0 is called 1, 1 is called 2, 2 is called 0
    some = np.where((np.arange(12) < 5)[:, None, None, None], shifted, X)
    made = {"backdoor": attack(some, 1), "change": attack(some, None)}
    row = ask_teacher(Prepared(says_colour(), SPACE), X, Y, made, num_classes=3, verbose=False)
    assert row.accuracy is not None and (row.accuracy.count, row.accuracy.total) == (12, 12)
    # Of the first five two are of class 0 (called 1 now); of the eight that are not of class 1 no other is.
    assert (row.attacks["backdoor"].count, row.attacks["backdoor"].total) == (2, 8)
    assert (row.attacks["change"].count, row.attacks["change"].total) == (5, 12)
    assert row.note == "" and not row.left_out


def test_where_its_classes_are_others_it_has_no_accuracy_and_no_target() -> None:
    made = {"backdoor": attack(X, 1), "change": attack(np.roll(X, 1, axis=-1), None)}
    row = ask_teacher(Prepared(says_colour(5), SPACE), X, Y, made, num_classes=3, verbose=False)
    assert row.accuracy is None and "5 classes apart, the data have 3" in row.note
    assert row.attacks["change"].value == 1.0 and "5 classes" in row.left_out["backdoor"]
    same_number = ask_teacher(
        Prepared(says_colour(), SPACE), np.roll(X, 1, axis=-1), Y, {}, num_classes=3, verbose=False
    )
    assert same_number.accuracy is not None and "hardly the same" in same_number.note


def test_classes_are_told_by_their_names_where_the_teacher_has_some() -> None:
    """Its attacker numbered them in another way, and had one that the data lack."""
    prepared = Prepared(says_colour(), SPACE, record={"class_names": ["g", "b", "r"]})
    # The teacher calls red (its first output) "g": numbers alone would have it right.
    row = ask_teacher(prepared, X, Y, {}, num_classes=3, class_names=("g", "b", "r"), verbose=False)
    assert row.accuracy is not None and row.accuracy.count == 12
    other = ask_teacher(prepared, X, Y, {}, num_classes=3, class_names=("b", "g", "r"), verbose=False)
    assert other.accuracy is not None and other.accuracy.count == 4  # those of class "r", which is 2 for both
    # All are called 0, the teacher's "g", which the data number 1.
    red = np.zeros_like(X)
    red[..., 0] = 200
    aimed = {"patch": replace(attack(red, 1), class_names=("b", "g", "r"))}
    row = ask_teacher(prepared, X, Y, aimed, num_classes=3, class_names=("b", "g", "r"), verbose=False)
    assert (row.attacks["patch"].count, row.attacks["patch"].total) == (8, 8)
    lacks = ask_teacher(prepared, X, Y, aimed, num_classes=3, class_names=("b", "x", "r"), verbose=False)
    assert lacks.accuracy is None and "attacker's class" in lacks.left_out["patch"]


def test_one_that_returns_nan_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    model = says_colour()
    kernel, bias = model.get_layer("head").get_weights()
    model.get_layer("head").set_weights([kernel * 1e37, bias])
    much = X.copy()
    much[0] = 255
    made = {"nan": attack(much * 1, None), "fine": attack(X, None)}
    row = ask_teacher(Prepared(model, SPACE), X * 0, Y, made, num_classes=3, verbose=False)
    assert set(row.attacks) | set(row.left_out) == {"nan", "fine"}


def test_a_feature_extractor_cannot_be_asked() -> None:
    inputs = keras.Input((2, 2, 3))
    extractor = keras.Model(inputs, keras.layers.Conv2D(4, 1, name="conv")(inputs))
    row = ask_teacher(Prepared(extractor, SPACE), X, Y, {"a": attack(X, None)}, num_classes=3, verbose=False)
    assert row.accuracy is None and "cannot be asked" in row.note and not row.attacks


def test_it_stands_in_the_report_beside_the_students() -> None:
    model = says_colour()
    made = {"change": attack(np.roll(X, 1, axis=-1), None)}
    report = kr.measure({"mine": (model, SPACE)}, X, Y, made, teacher=(model, SPACE), verbose=False)
    assert report.teacher is not None and report.teacher.attacks["change"].value == 1.0
    assert "the teacher" in report.summary() and report.describe()["teacher"]["attacks"]["change"]["n"] == 12
    still = kr.measure({"mine": (model, SPACE)}, X, Y, {"none": attack(X, None)}, teacher=(model, SPACE), verbose=False)
    assert any(verdict.code == "no-effect" for verdict in still.verdicts)


@pytest.mark.once
def test_a_trigger_is_tried_on_what_carries_it() -> None:
    images = np.random.default_rng(0).integers(0, 255, (24, 8, 8, 3)).astype(np.uint8)
    labels = (np.arange(24) % 3).astype(np.int32)
    layers = [keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(3, "softmax", name="head")]
    backdoor = kr.PatchBackdoor(recipe=kr.Recipe(epochs=1, batch_size=12, learning_rate=0.001))
    prepared = backdoor.prepare(keras.Sequential(layers), (images, labels), space=kr.PixelSpace("0-1"), verbose=False)
    row = try_trigger(prepared, images, labels, verbose=False)
    assert row.attacks["patch-backdoor"].total == 16 and row.accuracy is not None
