"""Keras' own callbacks, with `train` as with `fit`. What they save is the student."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tiny
import toys

from keras_remos import RelevantSlicer, RemosError

LONG = tiny.Recipe(epochs=3, batch_size=8, learning_rate=0.05)


def trained(*callbacks: keras.callbacks.Callback, method: str = "finetune", **options: Any) -> Any:
    options = {"recipe": LONG, "validation": (tiny.X, tiny.Y), "callbacks": list(callbacks), **options}
    return tiny.make(method, **options)


@pytest.mark.parametrize(
    "method", [*(pytest.param(name, marks=pytest.mark.once) for name in ("finetune", "delta")), "remos"]
)
def test_a_checkpoint_is_the_student(method: str, tmp_path: Path) -> None:
    made = trained(keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.keras"), method=method)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["1.keras", "2.keras", "3.keras"]
    loaded = keras.saving.load_model(tmp_path / "3.keras")
    assert tiny.same(loaded, made.student)
    np.testing.assert_allclose(toys.numpy(loaded(tiny.X)), toys.numpy(made.student(tiny.X)), atol=1e-6)
    expected = made.student.evaluate(tiny.X, tiny.Y, verbose=0)
    np.testing.assert_allclose(loaded.evaluate(tiny.X, tiny.Y, verbose=0), expected, rtol=1e-5)


@pytest.mark.once
def test_weights_alone_are_the_students(tmp_path: Path) -> None:
    path = tmp_path / "best.weights.h5"
    made = trained(keras.callbacks.ModelCheckpoint(path, save_weights_only=True))
    expected = made.student.get_weights()
    made.student.set_weights([0 * weight for weight in expected])
    made.student.load_weights(path)
    for found, wanted in zip(made.student.get_weights(), expected, strict=True):
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.once
def test_training_may_be_stopped_and_written_down(tmp_path: Path) -> None:
    stop = keras.callbacks.EarlyStopping("val_loss", patience=0, min_delta=100, restore_best_weights=True)
    log = keras.callbacks.CSVLogger(str(tmp_path / "log.csv"))
    made = trained(log, stop)
    assert len(made.history["loss"]) < 3
    assert (tmp_path / "log.csv").read_text().startswith("epoch,accuracy,loss,val_accuracy,val_loss")


@pytest.mark.once
def test_a_finished_run_comes_back_with_the_weights_that_a_callback_chose(tmp_path: Path) -> None:
    def stopped() -> Any:
        # No epoch is an improvement on the first.
        stop = keras.callbacks.EarlyStopping("val_loss", patience=1, min_delta=100, restore_best_weights=True)
        return trained(stop, checkpoint=tmp_path), stop

    made, stop = stopped()
    assert all(np.array_equal(a, b) for a, b in zip(stop.best_weights, made.student.get_weights(), strict=False))
    assert tiny.same(stopped()[0].student, made.student)


def test_the_learning_rate_may_be_set_where_it_is_constant() -> None:
    constant = replace(LONG, schedule="constant", warmup=0.0)
    made = trained(keras.callbacks.ReduceLROnPlateau("val_loss", patience=1, min_delta=100), recipe=constant)
    assert made.history["learning_rate"] == pytest.approx([0.05, 0.05, 0.005])


def test_a_sliced_student_is_fitted_with_all_of_them(tmp_path: Path) -> None:
    student = RelevantSlicer(tiny.teacher(), keep_ratio=0.5).apply(tiny.X, num_classes=3, verbose=False)
    student.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    known = keras.callbacks
    callbacks = [
        known.ModelCheckpoint(tmp_path / "student.keras"),
        known.CSVLogger(str(tmp_path / "log.csv")),
        known.ReduceLROnPlateau("val_loss", patience=1, min_delta=100),
        known.EarlyStopping("val_loss", patience=3, min_delta=100),
        known.BackupAndRestore(tmp_path / "backup"),
    ]
    data = {"x": tiny.X, "y": tiny.Y, "validation_data": (tiny.X, tiny.Y)}
    history = student.fit(**data, epochs=9, verbose=0, callbacks=callbacks).history
    assert len(history["loss"]) == 4 and history["learning_rate"][-1] < history["learning_rate"][0]
    assert len((tmp_path / "log.csv").read_text().splitlines()) == 5
    assert tiny.same(keras.saving.load_model(tmp_path / "student.keras"), student)


@pytest.mark.once
@pytest.mark.parametrize("sliced", [False, True])
def test_tensorboard_gets_its_events(sliced: bool, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="Keras' callback needs the package tensorboard")
    pytest.importorskip("tensorflow", reason="Keras' callback writes by TensorFlow")
    board = keras.callbacks.TensorBoard(tmp_path, histogram_freq=1)
    if sliced:
        student = RelevantSlicer(tiny.teacher(), keep_ratio=0.5).apply(tiny.X, num_classes=3, verbose=False)
        student.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
        student.fit(tiny.X, tiny.Y, verbose=0, callbacks=[board], validation_data=(tiny.X, tiny.Y))
    else:
        trained(board)
    for part in ("train", "validation"):
        [events] = (tmp_path / part).glob("events.out.tfevents.*")
        assert b"epoch_accuracy" in events.read_bytes()


@pytest.mark.parametrize(
    ("callback", "way_out"),
    [
        (keras.callbacks.ReduceLROnPlateau("val_loss"), "`schedule='constant'` and `warmup=0`"),
        (keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate), "`schedule='constant'` and `warmup=0`"),
        (keras.callbacks.BackupAndRestore("backup"), "a folder as `checkpoint`"),
    ],
)
def test_what_cannot_do_its_work_is_refused_by_name_before_any(callback: Any, way_out: str) -> None:
    with pytest.raises(RemosError, match=f"{type(callback).__name__} .*{way_out}"):
        trained(callback)


@pytest.mark.once
@pytest.mark.parametrize("stream", [False, True])
def test_a_student_of_one_hot_rows_can_be_evaluated_on_such_and_so_can_its_file(stream: bool, tmp_path: Path) -> None:
    y = np.eye(3, dtype="float32")[tiny.Y]
    whole = [(tiny.X, y)]
    data = Stream(whole) if stream else whole[0]
    made = tiny.make("finetune", data=data, validation=(tiny.X, y), recipe=LONG)
    made.student.save(tmp_path / "student.keras")
    for student in (made.student, keras.saving.load_model(tmp_path / "student.keras")):
        figures = student.evaluate(tiny.X, y, verbose=0, return_dict=True)
        assert figures["loss"] == pytest.approx(made.last["val_loss"], rel=1e-4)
        assert figures["accuracy"] == pytest.approx(made.last["val_accuracy"])
    assert "loss" in made.student.fit(tiny.X, y, verbose=0).history


@pytest.mark.once
def test_a_student_in_half_precision_can_be_evaluated_from_its_file(tmp_path: Path) -> None:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        made = tiny.make("finetune")
        made.student.save(tmp_path / "student.keras")
        loaded = keras.saving.load_model(tmp_path / "student.keras")
    finally:
        keras.config.set_dtype_policy(before)
    assert np.isfinite(loaded.evaluate(tiny.X, tiny.Y, verbose=0)).all()


class Stream(keras.utils.PyDataset):
    """Batches of the user's own."""

    def __init__(self, batches: list[Any]) -> None:
        super().__init__()
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> Any:
        return self.batches[index]
