"""A run that was killed goes on from its last epoch, to the very weights of an unbroken one, on the same data alone."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import toys
from tiny import RECIPE, Stop, Weights, X, Y, make, same, teacher

from keras_remos import DataError, FileError, MismatchError, PixelSpace, open_dataset
from keras_remos.writing import reserved

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


@pytest.mark.once
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


# --- the same data ----------------------------------------------------------------------------------------------------


def folder_of_images(folder: Path, seed: int) -> Path:
    image = pytest.importorskip("PIL.Image", reason="needs Pillow")
    rng = np.random.default_rng(seed)
    for name in "abc":
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(3):
            image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(folder / name / f"{number}.png")
    return folder


@pytest.mark.once
def test_images_of_other_content_are_other_data_whatever_they_are_called(model: keras.Model, tmp_path: Path) -> None:
    images = open_dataset(folder_of_images(tmp_path / "images", seed=1), image_size=(8, 8))
    options: dict[str, Any] = {"recipe": replace(RECIPE, epochs=1), "checkpoint": tmp_path / "run", "num_classes": 3}
    scaled = images.map(PixelSpace("imagenet").scale)
    student = make("finetune", model, data=scaled, **options).student
    again = open_dataset(tmp_path / "images", image_size=(8, 8)).map(PixelSpace("imagenet").scale)
    assert same(make("finetune", model, data=again, callbacks=[Stop(0)], **options).student, student)
    with pytest.raises(MismatchError, match="its data is"):
        make("finetune", model, data=images.map(PixelSpace("0-1").scale), **options)
    folder_of_images(tmp_path / "images", seed=2)
    with pytest.raises(MismatchError, match="its data is"):
        make("finetune", model, data=scaled, **options)


@pytest.mark.once
def test_weights_of_samples_and_what_an_augmentation_does_belong_to_the_data(
    model: keras.Model, tmp_path: Path
) -> None:
    def darker(by: float) -> Callable[[np.ndarray, np.random.Generator], np.ndarray]:
        def augment(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
            return (x * (1 - by * rng.random())).astype("float32")

        return augment

    def run(weight: float = 1.0, by: float = 0.1, **options: Any) -> None:
        recipe = replace(RECIPE, epochs=1, augment=options.pop("augment", darker(by)))
        data = (X, Y, np.linspace(weight, 1, len(Y), dtype="float32"))
        make("finetune", model, data=data, recipe=recipe, checkpoint=tmp_path, **options)

    run()
    run(callbacks=[Stop(0)])
    with pytest.raises(MismatchError, match="its data is"):
        run(weight=0.5)
    with pytest.raises(MismatchError, match="its augmentation is"):
        run(by=0.2)
    draws = np.random.default_rng(0)
    with pytest.raises(DataError, match="draws numbers of its own"):
        run(augment=lambda x, rng: x + draws.normal(size=x.shape).astype("float32"))


class Stream(keras.utils.PyDataset):
    """Batches of whatever it holds."""

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        rows = slice(8 * index, 8 * index + 8)
        return X[rows], Y[rows]


class Telling(Stream):
    """A stream that says what it holds."""

    told = "first version"

    def fingerprint(self) -> str:
        return self.told


@pytest.mark.once
def test_a_stream_goes_on_only_if_it_says_what_it_holds(model: keras.Model, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot be known of a .*Stream: .*method `fingerprint\(\)`"):
        make("finetune", model, data=Stream(), checkpoint=tmp_path / "none")
    assert not (tmp_path / "none").exists()
    with pytest.raises(KeyboardInterrupt):
        make("finetune", model, data=Telling(), checkpoint=tmp_path, callbacks=[Stop(1)])
    resumed = make("finetune", model, data=Telling(), checkpoint=tmp_path, callbacks=[Stop(0)])
    assert same(resumed.student, make("finetune", model, data=Telling()).student)
    other = Telling()
    other.told = "second version"
    with pytest.raises(MismatchError, match="its data is .*first version.* this run's is .*second version"):
        make("finetune", model, data=other, checkpoint=tmp_path)


@pytest.mark.once
@pytest.mark.parametrize("finished", [True, False])
def test_validation_data_may_come_later_or_be_others(model: keras.Model, tmp_path: Path, finished: bool) -> None:
    first, second = (X[:9], Y[:9]), (X[9:] * 3, (Y[9:] + 1) % 3)
    expected = {}
    for name, data in {"first": first, "second": second}.items():
        expected[name] = make("finetune", model, validation=data)
    if finished:
        make("finetune", model, checkpoint=tmp_path)
    else:
        with pytest.raises(KeyboardInterrupt):
            make("finetune", model, checkpoint=tmp_path, callbacks=[Stop(1)])
    for name, data in {"first": first, "second": second}.items():
        for _ in range(2):  # found as it was left
            found = make("finetune", model, validation=data, checkpoint=tmp_path)
            assert same(found.student, expected[name].student)
            assert found.last == pytest.approx(expected[name].last, rel=1e-6)
            assert found.history["loss"] == expected[name].history["loss"]
            assert len(found.history["val_loss"]) == 1
    assert expected["first"].last["val_loss"] != expected["second"].last["val_loss"]
    assert "val_loss" not in make("finetune", model, checkpoint=tmp_path).history


def test_the_folder_is_looked_at_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for method in ("remos", "renofeation"):
        for folder in (tmp_path / "file", tmp_path / "file" / "in", tmp_path / ("n" * 300)):
            with pytest.raises(FileError, match="Checkpoints need a folder"):
                # No data could be read: there are none.
                make(method, data=(X[:0], Y[:0]), checkpoint=folder)


def test_two_runs_do_not_share_a_checkpoint(model: keras.Model, tmp_path: Path) -> None:
    with reserved(tmp_path / "training.npz"), pytest.raises(FileError, match="written twice"):
        make("finetune", model, checkpoint=tmp_path)
