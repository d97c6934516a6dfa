"""What a layer has learned and is no weight: the vocabularies of lookups are the student's, too."""

from pathlib import Path

import keras
import numpy as np
import pytest
import toys
from keras import layers as kl

from keras_remos import RelevantSlicer

CODES = np.array([[7], [90], [7], [12], [90], [3]])

if keras.backend.backend() != "tensorflow":
    pytest.skip("Keras' lookup layers need TensorFlow", allow_module_level=True)


def adapted() -> keras.Model:
    lookup = kl.IntegerLookup(output_mode="one_hot", name="lookup")
    lookup.adapt(np.array([7, 90, 12]))
    x = keras.Input((1,), dtype="int64")
    h = kl.Dense(6, activation="relu", name="dense")(lookup(x))
    return toys.fill(keras.Model(x, kl.Dense(3, activation="softmax", name="head")(h)))


def test_a_student_looks_up_as_its_teacher_does(tmp_path: Path) -> None:
    model = adapted()
    whole = RelevantSlicer(model, keep_ratio=1.0).apply(CODES, verbose=False)
    assert whole.get_layer("lookup").get_vocabulary() == model.get_layer("lookup").get_vocabulary()
    np.testing.assert_allclose(toys.numpy(whole(CODES)), toys.numpy(model(CODES)), atol=1e-6)
    student = RelevantSlicer(model, keep_ratio=0.6).apply(CODES, num_classes=2, verbose=False)
    student.save(tmp_path / "student.keras")
    loaded = keras.saving.load_model(tmp_path / "student.keras")
    np.testing.assert_allclose(toys.numpy(loaded(CODES)), toys.numpy(student(CODES)), atol=1e-6)
