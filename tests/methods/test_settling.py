"""What is left open is settled within the budget, once, and by what a run knows already."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import toys
from keras import layers as kl
from planted import SPACE, images, teacher

from keras_remos.data import PixelSpace
from keras_remos.data.datasets import ArrayReader, Dataset
from keras_remos.defects import DisplacementAttack, TransferPGD
from keras_remos.errors import DataError, DivergedError, FileError, MismatchError, RemosError
from keras_remos.methods import METHODS, Hardening, Recipe, train, tune_keep_ratio, tune_recipe
from keras_remos.methods.hardening import Ascent
from keras_remos.methods.trials import Trials
from keras_remos.training.trainer import Trainer
from keras_remos.writing import reserved

PIXELS, Y = images(60, seed=6)
X = SPACE.scale(PIXELS)
OPEN = Recipe(epochs=2, batch_size=16, learning_rate="auto")
SHORT = Hardening(attacks=[DisplacementAttack(steps=1)])

pytestmark = [
    pytest.mark.filterwarnings("ignore:Training .* ended in a constant classifier"),
    pytest.mark.filterwarnings("ignore:Criterion"),
    pytest.mark.filterwarnings("ignore:.*validation samples tell"),
    pytest.mark.filterwarnings("ignore:Every slice costs accuracy"),
]


def settled(method: str = "remos", data: Any = (X, Y), **options: Any) -> dict[str, Any]:
    return train(method, teacher(), data, **{"recipe": OPEN, "verbose": False, **options}).options


@pytest.mark.once
def test_what_is_open_is_settled_unless_the_budget_forbids() -> None:
    both = settled(harden=False)
    assert set(both["tuning"]) == {"recipe", "keep_ratio"}
    cost = both["tuning"]["recipe"]["cost"] + 6 * both["tuning"]["keep_ratio"]["epochs"] / 2
    assert cost <= 12  # trials of less than an epoch do not exist, and epochs are two
    nothing = settled(budget=1)
    assert "tuning" not in nothing
    assert nothing["recipe"]["learning_rate"] == 0.005 and nothing["slice"]["keep_ratio"] == 0.9
    # One that is paid for: the rate comes first.
    rate = settled(budget=2.5, harden=False)
    assert set(rate["tuning"]) == {"recipe"} and rate["slice"]["keep_ratio"] == 0.9
    # What is given is not open.
    given = settled(recipe=Recipe(epochs=1, batch_size=16, learning_rate=0.02))
    assert "tuning" not in given and given["recipe"]["learning_rate"] == 0.02
    share = settled(keep_ratio=0.7, harden=False)
    assert set(share["tuning"]) == {"recipe"} and share["slice"]["keep_ratio"] == 0.7


def trained_epochs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How long each student is trained, though none is: the last ones are copies of the teacher."""
    epochs: list[int] = []

    def copied(self: Any, task: Any, trainer: Any) -> Any:
        epochs.append(task.recipe.epochs)
        return task.copy()

    def asked(method: Any, teacher: Any, train: Any, validation: Any, recipe: Recipe, **options: Any) -> np.ndarray:
        epochs.append(recipe.epochs)
        return np.ones(12, bool)

    for method in ("remos", "finetune"):
        monkeypatch.setattr(METHODS[method], "fit", copied)
    for module in ("tuning", "keep_ratio"):
        monkeypatch.setattr(f"keras_remos.methods.{module}.right_after_training", asked)
    return epochs


@pytest.mark.once
@pytest.mark.parametrize("epochs", [1, 2, 3, 30])
def test_no_more_is_trained_than_the_budget_pays_for(epochs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = trained_epochs(monkeypatch)
    said: list[str] = []
    monkeypatch.setattr("keras_remos.methods.method.say", lambda message, **_: said.append(message))
    for method, budget in (("finetune", 1), ("finetune", 4), ("remos", 4), ("remos", 7), ("remos", 12)):
        trained.clear()
        said.clear()
        recipe = Recipe(epochs=epochs, batch_size=16, learning_rate="auto")
        settled(method, recipe=recipe, harden=False, budget=budget)
        assert sum(trained) <= budget * epochs
        if len(trained) > 1:
            assert f" about {sum(trained) / epochs:.1f} trainings" in said[0]
        if budget == 12 and method == "remos":
            by_epochs = {1: [1] * 9, 2: [1] * 4 + [2] * 2 + [1] * 6 + [2], 3: [1] * 5 + [3] * 2 + [2] * 6 + [3]}
            assert trained == by_epochs.get(epochs, [6] * 5 + [10] * 3 + [30] * 2 + [20] * 6 + [30])


@pytest.mark.once
def test_hardened_students_are_tuned_as_others_are(monkeypatch: pytest.MonkeyPatch) -> None:
    trained = trained_epochs(monkeypatch)
    recipe = Recipe(epochs=30, batch_size=16, learning_rate="auto")
    for budget in (3, 5):
        settled("finetune", recipe=recipe, harden=False, budget=budget)
        plain, _ = trained.copy(), trained.clear()
        for harden in (SHORT, True):
            settled(recipe=recipe, harden=harden, space=SPACE, budget=budget)
            assert trained == plain
            trained.clear()


@pytest.mark.once
def test_a_control_to_make_twins_from_is_paid_for(monkeypatch: pytest.MonkeyPatch) -> None:
    trained, controls = trained_epochs(monkeypatch), []
    fit = Trainer.fit
    monkeypatch.setattr(Trainer, "fit", lambda self, *a, **o: controls.append(self.task.recipe) or fit(self, *a, **o))
    hardening = replace(SHORT, of_control=[TransferPGD(steps=1, step_size=3)])
    how = {"harden": hardening, "space": SPACE}
    with pytest.raises(RemosError, match="`budget` must be at least 2"):
        settled(budget=1, **how)
    for budget in (4, None):
        settled(recipe=OPEN if budget else replace(OPEN, learning_rate=0.01), budget=budget, **how)
        assert [recipe.epochs for recipe in controls] == [2]
        assert sum(trained) + sum(recipe.epochs for recipe in controls) <= 2 * (budget or 2)
        trained.clear()
        controls.clear()
    # One that was not asked for is left out where it is not paid for.
    quick = {"recipe": replace(OPEN, learning_rate=0.01), "harden": True, "space": SPACE}
    assert "of_control" not in settled(budget=1, **quick)["hardening"] and not controls
    assert "of_control" in settled(**quick)["hardening"] and len(controls) == 1


@pytest.mark.once
@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_tuned_however_short(method: str) -> None:
    """Trials of two epochs are a fifth as long: no method gets fewer than its stages take."""
    options = {"when": "after"} if method == "mag-prune" else {}
    found = settled(method, harden=False, budget=5, **options)
    assert found["recipe"] == found["tuning"]["recipe"]["recipe"]


@pytest.mark.once
def test_streams_cannot_be_parted_and_keep_the_default_rate() -> None:
    class Batches(keras.utils.PyDataset):
        def __len__(self) -> int:
            return 2

        def __getitem__(self, index: int) -> Any:
            return X[30 * index : 30 * index + 30], Y[30 * index : 30 * index + 30]

    quick = {"num_classes": 3, "verbose": False}
    assert "tuning" not in train("finetune", teacher(), Batches(), **quick).options


@pytest.mark.once
def test_where_nothing_can_be_set_aside_the_default_rate_stays_and_that_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trained_epochs(monkeypatch)
    one_each = X[np.unique(Y, return_index=True)[1]], np.arange(3)
    found = train("finetune", teacher(), one_each, verbose="auto").options
    assert "tuning" not in found and found["recipe"]["learning_rate"] == 0.005
    assert "Pass `validation`" in capsys.readouterr().err
    with pytest.raises(DataError, match="pass both"):
        settled("finetune", data=one_each)


@pytest.mark.once
def test_images_are_hardened_where_it_is_known_how_they_are_scaled() -> None:
    quick = Recipe(epochs=1, batch_size=16, learning_rate=0.01)
    hardened = {
        name: "hardening" in settled(name, recipe=quick, space=SPACE) for name in ("remos", "finetune", "retrain")
    }
    assert hardened == {"remos": True, "finetune": False, "retrain": False}
    assert "hardening" not in settled(recipe=quick)
    assert "hardening" not in settled(recipe=quick, space=SPACE, harden=False)
    # A data set that was scaled by us knows how.
    pixels = Dataset(ArrayReader(PIXELS), Y, kind="array", class_names=("a", "b", "c"))
    assert "hardening" in settled(recipe=quick, data=pixels.scaled(SPACE))
    assert "hardening" not in settled(recipe=quick, data=pixels.map(SPACE.scale))
    assert "hardening" not in settled(recipe=quick, data=pixels.scaled(SPACE).map(lambda x: x * 2))
    # Whole numbers have no gradient, and a preprocessor of a model's own lets none through.
    body = [kl.Rescaling(1 / 255), kl.Conv2D(4, 3, activation="relu"), kl.Flatten(), kl.Dense(3)]
    whole = keras.Sequential([keras.Input((8, 8, 3), dtype="uint8"), *body])
    made = train("remos", whole, (PIXELS, Y), recipe=quick, space=PixelSpace("none"), verbose=False)
    assert "hardening" not in made.options
    assert "hardening" not in settled(recipe=quick, space=PixelSpace("preprocessor"))


@pytest.mark.once
def test_it_is_said_why_images_are_not_hardened(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr("keras_remos.methods.method.say", lambda message, **_: said.append(message))
    trained_epochs(monkeypatch)
    settled(budget=1)
    assert len(said) == 1 and "not hardened" in said[0] and "`space=PixelSpace(...)`" in said[0]
    said.clear()
    for method, options in (("finetune", {}), ("remos", {"harden": False})):
        settled(method, budget=1, **options)
    vectors = toys.fill(keras.Sequential([keras.Input((6,)), kl.Dense(4, "relu"), kl.Dense(3)]))
    train("remos", vectors, (np.ones((60, 6), "float32"), Y), recipe=OPEN, budget=1, verbose=False)
    assert not said


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many twins are made at a time."""
    made: list[int] = []
    plain = Ascent.batch

    def counted(self: Ascent, x: np.ndarray, y: np.ndarray, rows: np.ndarray) -> np.ndarray:
        made.append(len(rows))
        return plain(self, x, y, rows)

    monkeypatch.setattr(Ascent, "batch", counted)
    return made


@pytest.mark.once
def test_twins_are_made_once_for_all_trainings_of_a_student(made: list[int]) -> None:
    settled(keep_ratio=0.9, harden=SHORT, space=SPACE, budget=4)
    # Of the four fifths that trials learn from, and of all.
    assert sum(made) == 48 + 60
    assert SHORT._made is None


@pytest.mark.once
def test_what_it_takes_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    settled(keep_ratio=0.9, harden=SHORT, space=SPACE, budget=4, verbose="auto")
    assert capsys.readouterr().err.count("as long as about") == 1


@pytest.mark.once
def test_trials_alone_make_twins_once_and_settle_nothing_of_their_own(
    made: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    of_control = replace(SHORT, of_control=[TransferPGD(steps=1, step_size=3)])
    how: dict[str, Any] = {"recipe": replace(OPEN, learning_rate=0.01), "space": SPACE, "verbose": False}
    tune_keep_ratio(teacher(), (X, Y), harden=of_control, ratios=(0.9, 0.6), **how)
    assert sum(made) == 48
    made.clear()
    tuned: list[Any] = []
    fit = METHODS["remos"].fit
    monkeypatch.setattr(METHODS["remos"], "fit", lambda self, *of: tuned.append(self.keep_ratio) or fit(self, *of))
    # It hardens unless told otherwise.
    tune_recipe(METHODS["remos"](keep_ratio="auto"), teacher(), (X, Y), grid={"learning_rate": (0.1, 0.01)}, **how)
    assert sum(made) == 48 and tuned == [None, None]


def test_twins_of_the_own_control_know_the_classes() -> None:
    of_control = Hardening(attacks=[DisplacementAttack(steps=1)], of_control=[TransferPGD(steps=2, step_size=3)])
    recipe = Recipe(epochs=2, batch_size=16, learning_rate=0.01)
    ours = settled(recipe=recipe, harden=of_control, space=SPACE)
    by_recipe = replace(of_control, of_control=[TransferPGD(steps=1, recipe=recipe)])
    assert Hardening.from_config(by_recipe.get_config()).get_config() == by_recipe.get_config()
    assert [each["defect"] for each in ours["hardening"]["of_control"]] == ["pgd"]
    assert Hardening.from_config(ours["hardening"]) == Hardening(
        attacks=(DisplacementAttack(steps=1),), of_control=(TransferPGD(steps=2, step_size=3),)
    )


@pytest.mark.once
def test_a_run_that_was_killed_repeats_no_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = train("remos", teacher(), (X, Y), recipe=OPEN, harden=False, verbose=False)
    fitted: list[Any] = []
    plain = METHODS["remos"].fit

    def killed(self: Any, task: Any, trainer: Any) -> Any:
        fitted.append(task.recipe)
        if len(fitted) == 4:
            raise KeyboardInterrupt
        return plain(self, task, trainer)

    monkeypatch.setattr(METHODS["remos"], "fit", killed)
    how = {"recipe": OPEN, "harden": False, "checkpoint": tmp_path, "verbose": False}
    with pytest.raises(KeyboardInterrupt):
        train("remos", teacher(), (X, Y), **how)
    first = fitted[:3]
    resumed = train("remos", teacher(), (X, Y), **how)
    assert not set(first) & set(fitted[4:6]), "what was tried is tried again"
    assert resumed.options["tuning"] == whole.options["tuning"]
    for ours, theirs in zip(resumed.student.get_weights(), whole.student.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    with pytest.raises(MismatchError, match="trials of another run: its data differs"):
        train("remos", teacher(), (X + 1, Y), **how)


@pytest.mark.once
def test_two_runs_do_not_share_their_trials(tmp_path: Path) -> None:
    with reserved(tmp_path / "trials.npz"), pytest.raises(FileError, match=r"trials\.npz is to be written twice"):
        train("remos", teacher(), (X, Y), recipe=OPEN, harden=False, checkpoint=tmp_path, verbose=False)
    assert not list(tmp_path.iterdir())


@pytest.mark.once
def test_a_trial_that_diverged_is_not_tried_again(tmp_path: Path) -> None:
    def diverge() -> np.ndarray:
        raise DivergedError("NaN")

    with pytest.raises(DivergedError):
        Trials(tmp_path, {"seed": 1}).right({"rate": 1}, diverge)
    again = Trials(tmp_path, {"seed": 1})
    with pytest.raises(DivergedError, match="rate"):
        again.right({"rate": 1}, lambda: np.ones(3, bool))
    assert again.right({"rate": 2}, lambda: np.ones(3, bool)).all()
