"""Keras' own callbacks, with `train` as with `fit`. What they save is the student."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tiny
import toys

LONG = tiny.Recipe(epochs=3, batch_size=8, learning_rate=0.05)


def trained(*callbacks: keras.callbacks.Callback, method: str = "finetune", **options: Any) -> Any:
    options = {"recipe": LONG, "validation": (tiny.X, tiny.Y), "callbacks": list(callbacks), **options}
    return tiny.make(method, **options)


@pytest.mark.parametrize("method", ["finetune", "delta", "remos"])
def test_a_checkpoint_is_the_student(method: str, tmp_path: Path) -> None:
    made = trained(keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.keras"), method=method)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["1.keras", "2.keras", "3.keras"]
    loaded = keras.saving.load_model(tmp_path / "3.keras")
    assert tiny.same(loaded, made.student)
    np.testing.assert_allclose(toys.numpy(loaded(tiny.X)), toys.numpy(made.student(tiny.X)), atol=1e-6)


def test_weights_alone_are_the_students(tmp_path: Path) -> None:
    path = tmp_path / "best.weights.h5"
    made = trained(keras.callbacks.ModelCheckpoint(path, save_weights_only=True))
    twin = keras.models.clone_model(made.student)
    twin.load_weights(path)
    assert tiny.same(twin, made.student)


def test_training_may_be_stopped_slowed_and_written_down(tmp_path: Path) -> None:
    stop = keras.callbacks.EarlyStopping("val_loss", patience=0, min_delta=100, restore_best_weights=True)
    log = keras.callbacks.CSVLogger(str(tmp_path / "log.csv"))
    made = trained(log, stop)
    assert len(made.history["loss"]) < 3
    assert (tmp_path / "log.csv").read_text().startswith("epoch,accuracy,loss,val_accuracy,val_loss")
    # The rate follows a schedule, which is what Keras says.
    with pytest.raises(TypeError, match="learning rate is not settable"):
        trained(keras.callbacks.ReduceLROnPlateau("val_loss", patience=1, min_delta=100))


def test_a_killed_run_goes_on_from_the_callbacks_backup(tmp_path: Path) -> None:
    class Killed(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            if epoch == 2:
                raise KeyboardInterrupt

    backup = keras.callbacks.BackupAndRestore(str(tmp_path / "backup"))
    with pytest.raises(KeyboardInterrupt):
        trained(backup, Killed())
    made = trained(keras.callbacks.BackupAndRestore(str(tmp_path / "backup")))
    assert len(made.history["loss"]) == 1
