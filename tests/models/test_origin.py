"""Classes and functions of a user's own are remembered with the teacher that was loaded with them."""

import gc
import weakref
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import toys
from keras import layers as kl

from keras_remos import RelevantSlicer, load_teacher, train
from keras_remos.data.pixels import PixelSpace
from keras_remos.defects import Prepared
from keras_remos.errors import StudentError, TeacherError
from keras_remos.models.origin import where_from
from keras_remos.slicing import student as students
from keras_remos.training.recipe import Recipe


def twice(x: Any) -> Any:
    return 2 * keras.ops.relu(x)


class Filled(keras.initializers.Initializer):
    def __init__(self, value: float = 0.5) -> None:
        self.value = value

    def __call__(self, shape: Any, dtype: Any = None) -> Any:
        return keras.ops.full(shape, self.value, dtype=dtype)

    def get_config(self) -> dict[str, Any]:
        return {"value": self.value}


def filled(shape: Any, dtype: Any) -> Any:
    return keras.ops.full(shape, 0.25, dtype=dtype)


class Bounded(keras.constraints.Constraint):
    def __call__(self, w: Any) -> Any:
        return keras.ops.clip(w, -5, 5)


class Small(keras.regularizers.Regularizer):
    def __call__(self, w: Any) -> Any:
        return 0.0 * keras.ops.sum(w)

    def get_config(self) -> dict[str, Any]:
        return {}


class Scaled(kl.Layer):
    def call(self, x: Any) -> Any:
        return 3 * x


OBJECTS = {kind.__name__: kind for kind in (twice, Filled, filled, Bounded, Small, Scaled)}
USES: dict[str, dict[str, Any]] = {
    "twice": {"activation": twice},
    "Filled": {"kernel_initializer": Filled(0.1)},
    "filled": {"kernel_initializer": filled},
    "Bounded": {"kernel_constraint": Bounded()},
    "Small": {"kernel_regularizer": Small()},
}


def saved(folder: Path, **uses: Any) -> Path:
    x = keras.Input((4,))
    h = Scaled()(kl.Dense(5, name="fc", **uses)(x))
    model = toys.fill(keras.Model(x, kl.Dense(3, activation="softmax", name="head")(h)))
    model.save(folder / "own.keras")
    return folder / "own.keras"


def data() -> tuple[np.ndarray, np.ndarray]:
    return np.random.default_rng(0).normal(size=(6, 4)).astype("float32"), np.arange(6) % 3


@pytest.mark.parametrize("name", USES)
def test_students_are_made_of_what_the_teacher_was_loaded_with(name: str, tmp_path: Path) -> None:
    objects = {each: OBJECTS[each] for each in (name, "Scaled")}
    teacher = load_teacher(saved(tmp_path, **USES[name]), custom_objects=objects)
    student = RelevantSlicer(teacher).apply(data(), num_classes=4, reset="initializer", verbose=False)
    student.save(tmp_path / "student.keras")
    opened = load_teacher(tmp_path / "student.keras", custom_objects=objects)
    x = data()[0]
    outputs = [keras.ops.convert_to_numpy(model(x, training=False)) for model in (student, opened)]
    np.testing.assert_array_equal(*outputs)
    # A student is copied in its turn: by an attacker, or as the teacher of others.
    students.build(student, {})
    students.from_scratch(teacher)


def test_students_are_trained_and_files_of_attackers_opened(tmp_path: Path) -> None:
    path = saved(tmp_path, activation=twice, kernel_initializer=Filled())
    teacher = load_teacher(path, custom_objects=OBJECTS)
    recipe = Recipe(epochs=1, batch_size=3, augment="none")
    trained = train("remos", teacher, data(), recipe=recipe, verbose=False)
    assert trained.student.get_layer("fc").activation is twice
    prepared = Prepared(trained.student, PixelSpace("none"), record={"defect": "none"})
    prepared.save(tmp_path / "prepared.keras")
    with pytest.raises(TeacherError, match="made of twice, Filled, Scaled, which"):
        Prepared.load(tmp_path / "prepared.keras")
    assert Prepared.load(tmp_path / "prepared.keras", custom_objects=OBJECTS).record["defect"] == "none"


def test_an_object_is_found_by_the_name_that_it_was_given_and_by_its_own(tmp_path: Path) -> None:
    kind = type("Scaled", (kl.Layer,), {"call": lambda self, x: x})
    x = keras.Input((4,))
    other = type("Other", (kl.Layer,), {"call": lambda self, x: x})
    model = keras.Model(x, kl.Dense(2)(kl.Dense(3, activation=twice)(other()(x))))
    model.save(tmp_path / "own.keras")
    renamed = lambda x: keras.ops.relu(x)  # noqa: E731 (a function whose own name is another)
    renamed.__name__ = "thrice"
    teacher = load_teacher(tmp_path / "own.keras", custom_objects={"Other": kind, "twice": renamed})
    assert students.build(teacher, {}).layers[2].activation is renamed


def test_nothing_leaks_into_other_models(tmp_path: Path) -> None:
    path = saved(tmp_path, activation=twice)
    teacher = load_teacher(path, custom_objects=OBJECTS)
    assert not keras.saving.get_custom_objects().keys() & OBJECTS.keys()
    with keras.saving.custom_object_scope(OBJECTS):
        other = keras.models.load_model(path)
    assert not where_from(other).custom_objects and where_from(teacher).custom_objects
    with pytest.raises(TeacherError, match=r"custom_objects=\{'twice': twice, 'Scaled': Scaled\}\).*shell"):
        load_teacher(path)
    seen = weakref.ref(where_from(teacher).custom_objects["Scaled"]), weakref.ref(teacher)
    assert all(each() is not None for each in seen)
    del teacher
    gc.collect()
    assert seen[1]() is None


@pytest.mark.parametrize("name", ["twice", "Filled", "Bounded"])
def test_a_scope_that_has_closed_is_named_with_the_way_out(name: str, tmp_path: Path) -> None:
    path = saved(tmp_path, **USES[name])
    with keras.saving.custom_object_scope(OBJECTS):
        teacher = keras.models.load_model(path)
    slicer = RelevantSlicer(teacher)
    with pytest.raises(StudentError, match=f"made of {name},.*load_teacher.*custom_objects.*custom_object_scope"):
        slicer.apply(data(), verbose=False)
    with keras.saving.custom_object_scope(OBJECTS):
        slicer.apply(data(), verbose=False)
