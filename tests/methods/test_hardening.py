"""Hardening: what twins are made from, and that nothing but a share of the batches changes."""

from dataclasses import replace
from typing import Any

import keras
import numpy as np
import pytest
import toys
from faults import disk_full_at
from keras import layers as kl

from keras_remos.data import PixelSpace, TrainingData
from keras_remos.defects import DisplacementAttack, PatchBackdoor, PenultimateAttack, TransferPGD
from keras_remos.errors import DataError, FileError, RemosError
from keras_remos.methods import METHODS, Hardening, Recipe, train
from keras_remos.models.features import penultimate
from keras_remos.training.task import Task
from keras_remos.untrusted import Rows

SPACE = PixelSpace("-1-1")
RNG = np.random.default_rng(3)
PIXELS = RNG.integers(0, 256, (12, 8, 8, 3)).astype("float32")
X, Y = SPACE.scale(PIXELS), np.arange(12) % 3
RECIPE = Recipe(epochs=2, batch_size=5, learning_rate=0.01)

pytestmark = [
    pytest.mark.filterwarnings("ignore:Training .* ended in a constant classifier"),
    pytest.mark.filterwarnings("ignore:Criterion"),
]


def teacher() -> keras.Model:
    layers = [keras.Input((8, 8, 3)), kl.Conv2D(4, 3, activation="relu"), kl.GlobalAveragePooling2D(), kl.Dense(5)]
    return toys.fill(keras.Sequential(layers, name="small"))


def task(data: Any = (X, Y), model: keras.Model | None = None) -> Task:
    return Task(model or teacher(), data, num_classes=3, recipe=RECIPE, seed=4)


def twins_of(hardening: Hardening, **options: Any) -> Any:
    made = task(**options)
    hardening.apply(made, SPACE, verbose=False)
    return made.data._twins


def weights(model: keras.Model) -> list[np.ndarray]:
    return [np.asarray(each) for each in model.get_weights()]


def test_twins_stay_in_the_ball_and_move_the_teachers_features() -> None:
    model = teacher()
    twins = twins_of(Hardening(attacks=[DisplacementAttack(steps=4, step_size=2.5)]), model=model)
    assert twins.levels.dtype == np.uint8 and twins.present.all()
    change = np.abs(twins.levels.astype("float32") - PIXELS)
    assert 0 < change.max() <= 5.7

    def features(pixels: np.ndarray) -> np.ndarray:
        return toys.numpy(penultimate(model)(SPACE.scale(pixels.astype("float32")))[1][0])

    noise = np.clip(PIXELS + 5.7 * RNG.choice([-1, 1], PIXELS.shape), 0, 255)
    moved, by_chance = (((features(x) - features(PIXELS)) ** 2).sum(axis=1) for x in (twins.levels, noise))
    assert moved.mean() > 1.5 * by_chance.mean()


def test_each_sample_is_dealt_one_attack_and_none_is_left_out() -> None:
    attacks = [PenultimateAttack(steps=1, epsilon=2, step_size=2), PenultimateAttack(steps=1, epsilon=9, step_size=9)]
    change = np.abs(twins_of(Hardening(attacks=attacks)).levels - PIXELS).max(axis=(1, 2, 3))
    assert (change <= 2).sum() == 6 and ((change > 2) & (change <= 9)).sum() == 6


def test_twins_of_the_own_control_go_against_the_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    control = task().copy()
    monkeypatch.setattr("keras_remos.methods.hardening._copy", lambda *of: control)
    attacks = [PenultimateAttack(steps=1, epsilon=1, step_size=1)]
    hardening = Hardening(attacks=attacks, of_control=[TransferPGD(epsilon=6, steps=4, step_size=2)])
    plain = replace(RECIPE, augment="none")
    made = Task(teacher(), (X, Y), num_classes=3, recipe=plain, seed=4)
    hardening.apply(made, SPACE, verbose=False)
    levels = made.data._twins.levels
    change = np.abs(levels - PIXELS).max(axis=(1, 2, 3))
    by_control = change > 1
    assert by_control.sum() == 6 and change.max() <= 6

    def sure(pixels: np.ndarray) -> np.ndarray:
        said = toys.numpy(control(SPACE.scale(pixels.astype("float32"))))
        return said[np.arange(12), Y] - np.where(np.eye(3)[Y], -np.inf, said).max(axis=1)

    assert (sure(levels) < sure(PIXELS))[by_control].all()
    # Each image of a batch has the label of the one that it is, or is the twin of.
    twins = 0
    for batch in range(len(made.data)):
        x, y = made.data[batch][:2]
        distance = np.abs(x[:, None] - X[None]).max(axis=(2, 3, 4))
        np.testing.assert_array_equal(np.argmax(y, axis=-1) if y.ndim > 1 else y, Y[distance.argmin(axis=1)])
        twins += (distance.min(axis=1) > 0).sum()
    assert twins == 5


def test_the_teacher_and_the_images_decide_and_nothing_else() -> None:
    by_teacher = Hardening(of_control=())
    one, again = twins_of(by_teacher), twins_of(by_teacher)
    np.testing.assert_array_equal(one.levels, again.levels)
    # Labels are no part of it.
    other = twins_of(by_teacher, data=(X, Y[::-1].copy()))
    np.testing.assert_array_equal(one.levels, other.levels)


def test_without_a_share_it_is_training_as_it_was() -> None:
    model = teacher()
    plain = train("finetune", model, (X, Y), recipe=RECIPE, verbose=False)
    none = train("finetune", model, (X, Y), recipe=RECIPE, harden=Hardening(share=0), verbose=False)
    half = train("finetune", model, (X, Y), recipe=RECIPE, harden=True, space=SPACE, verbose=False)
    for ours, theirs in zip(weights(none.student), weights(plain.student), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert any((a != b).any() for a, b in zip(weights(half.student), weights(plain.student), strict=True))
    assert half.options["steps"] == plain.options["steps"]
    assert "hardening" not in plain.options
    assert half.options["hardening"]["share"] == 0.5
    assert {attack["defect"] for attack in half.options["hardening"]["attacks"]} == {"displacement", "penultimate"}
    assert [attack["defect"] for attack in half.options["hardening"]["of_control"]] == ["pgd"]


@pytest.mark.once
@pytest.mark.parametrize("name", METHODS)
def test_every_method_trains_on_twins(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = []
    plain = TrainingData.__getitem__

    def watched(self: TrainingData, index: int) -> Any:
        batch = plain(self, index)
        if self._twins is not None:
            shown.append(len(batch[0]))
        return batch

    monkeypatch.setattr(TrainingData, "__getitem__", watched)
    recipe = Recipe(epochs=2, batch_size=6, learning_rate=0.01)
    short = Hardening(attacks=[PenultimateAttack(steps=1)])
    train(name, teacher(), (X, Y), recipe=recipe, harden=short, space=SPACE, verbose=False)
    assert set(shown) == {6}


@pytest.mark.once
def test_a_run_that_was_killed_goes_on(tmp_path: Any) -> None:
    model = teacher()
    options = {"recipe": RECIPE, "harden": True, "space": SPACE, "verbose": False}
    whole = train("finetune", model, (X, Y), **options)

    class Kill(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            if epoch == 1:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train("finetune", model, (X, Y), callbacks=[Kill()], checkpoint=tmp_path, **options)
    # The copy that twins are made from is not trained again.
    assert sorted(path.name for path in tmp_path.glob("*.npz")) == ["copy.npz", "training.npz"]
    before = (tmp_path / "copy.npz").read_bytes()
    resumed = train("finetune", model, (X, Y), checkpoint=tmp_path, **options)
    assert (tmp_path / "copy.npz").read_bytes() == before
    for ours, theirs in zip(weights(resumed.student), weights(whole.student), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_what_does_not_fit_in_memory_is_kept_in_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    by_teacher = Hardening(of_control=())
    in_memory = twins_of(by_teacher).levels
    monkeypatch.setattr("keras_remos.untrusted.rows.IN_MEMORY", 0)
    on_disk = twins_of(by_teacher).levels
    assert isinstance(on_disk, Rows)
    np.testing.assert_array_equal(on_disk[:], in_memory)
    with (
        disk_full_at(100),
        pytest.raises(FileError, match="takes .* name another folder by TMPDIR"),
    ):
        twins_of(by_teacher)


def test_what_is_missing_is_named_before_anything_is_trained() -> None:
    with pytest.raises(RemosError, match="space="):
        train("finetune", teacher(), (X, Y), recipe=RECIPE, harden=True)
    flat = toys.fill(keras.Sequential([keras.Input((6,)), kl.Dense(4), kl.Dense(3)]))
    with pytest.raises(DataError, match="for images"):
        train("finetune", flat, (RNG.normal(size=(12, 6)), Y), recipe=RECIPE, harden=True, space=SPACE)
    stream = [(X[:6], Y[:6]), (X[6:], Y[6:])]

    class Batches(keras.utils.PyDataset):
        def __len__(self) -> int:
            return 2

        def __getitem__(self, index: int) -> Any:
            return stream[index]

    with pytest.raises(DataError, match="by their numbers"):
        train("finetune", teacher(), Batches(), num_classes=3, recipe=RECIPE, harden=True, space=SPACE)


@pytest.mark.parametrize("options", [{"share": 1.0}, {"share": -1}, {"attacks": []}, {"attacks": [PatchBackdoor()]}])
def test_options_that_make_no_sense(options: dict[str, Any]) -> None:
    with pytest.raises(RemosError, match=next(iter(options))):
        Hardening(**options)
