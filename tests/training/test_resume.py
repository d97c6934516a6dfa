"""A run that was killed goes on from its last epoch, to the very weights of an unbroken one."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import toys
from tiny import RECIPE, Stop, Weights, X, Y, make, same, teacher

from keras_remos import FileError, MismatchError

LONGER = replace(RECIPE, epochs=3)


@pytest.fixture(scope="module")
def model() -> keras.Model:
    return teacher()


def test_resumed_equals_unbroken_and_another_run_is_refused(model: keras.Model, tmp_path: Path) -> None:
    unbroken = make("finetune", model, recipe=LONGER)
    with pytest.raises(KeyboardInterrupt):
        make("finetune", model, recipe=LONGER, checkpoint=tmp_path, callbacks=[Stop(1)])
    resumed = make("finetune", model, recipe=LONGER, checkpoint=tmp_path)
    assert same(resumed.student, unbroken.student)
    assert resumed.history == unbroken.history

    # Finished: nothing is trained again.
    again = make("finetune", model, recipe=LONGER, checkpoint=tmp_path, callbacks=[Stop(0), Stop(2)])
    assert same(again.student, unbroken.student)
    assert again.history == unbroken.history

    other = teacher()
    other.get_layer("conv2").kernel.assign(other.get_layer("conv2").kernel * 2)
    changes: dict[str, dict[str, Any]] = {
        "seed": {"seed": 6},
        "recipe": {"recipe": replace(LONGER, learning_rate=0.01)},
        "data": {"data": (X + 1, Y)},
        "method": {"method": "retrain"},
        "teacher": {"model": other},
    }
    for name, change in changes.items():
        with pytest.raises(MismatchError, match=f"its {name} is"):
            make(**{"method": "finetune", "model": model, "recipe": LONGER, "checkpoint": tmp_path, **change})

    [file] = tmp_path.iterdir()
    with np.load(file, allow_pickle=False) as archive:
        assert all(archive[name].dtype.kind in "uif" for name in archive.files)


def test_stages_and_averages_are_taken_up_again(model: keras.Model, tmp_path: Path) -> None:
    weights = Weights()
    options: dict[str, Any] = {"recipe": replace(LONGER, epochs=4), "averaged_share": 0.6}
    unbroken = make("renofeation", model, callbacks=[weights], **options)
    with pytest.raises(KeyboardInterrupt):
        # In the stage that averages, when one epoch of it is counted in.
        make("renofeation", model, checkpoint=tmp_path, callbacks=[Stop(3)], **options)
    resumed = make("renofeation", model, checkpoint=tmp_path, **options)
    assert same(resumed.student, unbroken.student)
    assert resumed.history == unbroken.history

    # And the student has the mean of the weights of the second stage.
    assert len(weights.seen) == 4
    for index, found in enumerate(unbroken.student.trainable_weights):
        expected = np.mean([seen[index] for seen in weights.seen[2:]], axis=0, dtype=np.float64)
        np.testing.assert_allclose(toys.numpy(found.value), expected, rtol=1e-5, atol=1e-6)
        assert (weights.seen[2][index] != weights.seen[3][index]).any()


def test_a_damaged_checkpoint_says_so(tmp_path: Path) -> None:
    (tmp_path / "training.npz").write_bytes(b"PK broken")
    with pytest.raises(FileError, match="damaged"):
        make("finetune", checkpoint=tmp_path)
    with pytest.raises(FileError, match="need a folder"):
        make("finetune", checkpoint=tmp_path / "training.npz")
