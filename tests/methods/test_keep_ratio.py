"""The search for a share, by students whose accuracy at each share is known."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import toys
from keras import layers as kl

from keras_remos.errors import DivergedError, RemosError
from keras_remos.methods import FineTune, Recipe, train, tune_keep_ratio
from keras_remos.methods.keep_ratio import RATIOS
from keras_remos.methods.remos import Remos

N = 2000
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(N, 4)).astype("float32"), np.arange(N) % 2
TEACHER = toys.fill(keras.Sequential([keras.Input((4,)), kl.Dense(8, "relu"), kl.Dense(3)]))


@contextmanager
def students(accuracy: Callable[[float], float]) -> Iterator[list[Any]]:
    """Students are as accurate as a function of the share that was kept says, each on the easiest samples."""
    seen: list[Any] = []

    def known(method: Any, teacher: Any, train: Any, validation: Any, recipe: Recipe, **options: Any) -> np.ndarray:
        kept = method.relevant.options["keep_ratio"] if isinstance(method, Remos) else 1.0
        seen.append((kept, recipe.epochs, len(train[0]), len(validation[0])))
        samples = len(validation[0])
        if np.isnan(accuracy(kept)):
            raise DivergedError("NaN")
        return np.arange(samples) < round(accuracy(kept) * samples)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("keras_remos.methods.keep_ratio.right_after_training", known)
        yield seen


def search(accuracy: Callable[[float], float], **options: Any) -> Any:
    with students(accuracy):
        return tune_keep_ratio(TEACHER, (X, Y), recipe=Recipe(epochs=30), verbose=False, **options)


@pytest.mark.once
def test_where_accuracy_falls_at_a_known_share_that_is_found() -> None:
    found = search(lambda kept: 0.8 if kept >= 0.7 else 0.6)
    assert found.keep_ratio == 0.7
    assert [step.keep_ratio for step in found.steps] == [0.95, 0.9, 0.8, 0.7, 0.6]
    assert found.fine_tuned == 0.8 and found.validation_samples == 400
    assert [step.lost for step in found.steps] == pytest.approx([0, 0, 0, 0, 0.2])
    # 80 of 400 are lost and none gained, and one more of each: the error of a paired difference.
    assert found.steps[4].error == pytest.approx(np.sqrt((82 / 402 - (80 / 402) ** 2) / 402))
    assert found.describe()["keep_ratio"] == 0.7
    assert "<- chosen" in found.summary().splitlines()[4]


@pytest.mark.once
@pytest.mark.filterwarnings("ignore:.*validation samples tell")
def test_what_a_slice_may_cost() -> None:
    falling = {1.0: 0.8, 0.9: 0.795, 0.8: 0.785, 0.7: 0.77}
    shares = {"ratios": (0.7, 0.9, 0.8)}

    def noisy(kept: float) -> float:
        return falling[kept]

    # One standard error of so few different answers is below what is lost: nothing is free, and a slice is made.
    with pytest.warns(UserWarning, match="the largest, 0.9 kept, 0.005 of 0.800"):
        assert search(noisy, tolerance=0.1, **shares).keep_ratio == 0.9
    assert search(lambda kept: 0.8, tolerance=0.0, **shares).keep_ratio == 0.7
    assert search(lambda kept: 0.9 if kept < 1 else 0.8, **shares).keep_ratio == 0.7


@pytest.mark.once
@pytest.mark.filterwarnings("ignore:.*validation samples tell")
def test_a_small_share_that_is_lucky_is_not_taken() -> None:
    # By themselves 0.6 and 0.95 lose nothing. 0.7 and 0.6 lose .02 together, and so does what is smaller than 0.8.
    lucky = {1.0: 0.7, 0.95: 0.77, 0.9: 0.72, 0.8: 0.74, 0.7: 0.665, 0.6: 0.695}
    found = search(lambda kept: lucky[kept])
    assert found.keep_ratio == 0.8
    assert [step.lost for step in found.steps] == pytest.approx([-0.07, -0.02, -0.04, 0.035, 0.005])
    assert [step.pooled for step in found.steps] == pytest.approx([-0.07, -0.03, -0.03, 0.02, 0.02])


@pytest.mark.once
def test_a_few_samples_that_agree_are_no_proof() -> None:
    five = X[:5], Y[:5]
    with students(lambda kept: 1.0), pytest.warns(UserWarning, match="5 validation samples tell .* about 0.202"):
        tune_keep_ratio(TEACHER, (X, Y), five, recipe=Recipe(epochs=6), verbose=False)
    # One of 400 is lost, and none is gained.
    assert search(lambda kept: 0.8 if kept == 1 else 0.7975).keep_ratio == 0.6


@pytest.mark.once
def test_a_share_that_diverges_is_out() -> None:
    def diverging(*shares: float) -> Callable[[float], float]:
        return lambda kept: np.nan if kept in shares else 0.8

    found = search(diverging(0.6, 0.95))
    assert found.keep_ratio == 0.7 and found.diverged == (0.95, 0.6)
    assert [step.keep_ratio for step in found.steps] == [0.9, 0.8, 0.7]
    assert found.describe()["diverged"] == [0.95, 0.6] and "0.6     diverged" in found.summary()
    for shares, which in (((1.0,), "the fine-tuned student"), (RATIOS, "every share")):
        with pytest.raises(DivergedError, match=f"diverged for {which}"):
            search(diverging(*shares))


@pytest.mark.once
def test_what_ended_a_run_is_tried_again_when_it_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def diverge(*of: Any) -> Any:
        tried.append(of)
        raise DivergedError("NaN")

    monkeypatch.setattr(FineTune, "fit", diverge)
    x = RNG.normal(size=(40, 4)).astype("float32")
    how = {"recipe": Recipe(epochs=6), "keep_ratio": "auto", "checkpoint": tmp_path, "verbose": False}
    for _ in range(2):
        with pytest.raises(DivergedError, match="fine-tuned"):
            train("remos", TEACHER, (x, np.arange(40) % 2), **how)
    assert len(tried) == 2


@pytest.mark.once
@pytest.mark.filterwarnings("ignore:.*validation samples tell")
def test_it_costs_what_it_may() -> None:
    with students(lambda kept: 0.8) as seen:
        tune_keep_ratio(TEACHER, (X, Y), recipe=Recipe(epochs=30), budget=4, verbose=False)
    assert [kept for kept, *_ in seen] == [1.0, 0.95, 0.9, 0.8, 0.7, 0.6]
    assert {(epochs, train, validation) for _, epochs, train, validation in seen} == {(20, 1600, 400)}
    assert sum(epochs for _, epochs, *_ in seen) <= 4 * 30
    with students(lambda kept: 0.8) as seen:
        tune_keep_ratio(TEACHER, (X, Y), (X[:50], Y[:50]), ratios=(0.5,), recipe=Recipe(epochs=30), verbose=False)
    assert seen == [(1.0, 30, N, 50), (0.5, 30, N, 50)]


@pytest.mark.once
def test_too_few_samples_to_tell_are_named() -> None:
    def differ(kept: float) -> float:
        return 0.8 if kept >= 0.9 else 0.6

    few = (X[:50], Y[:50])
    with (
        students(differ),
        pytest.warns(UserWarning, match="50 validation samples .* about 1,938 would tell 0.01"),
    ):
        tune_keep_ratio(TEACHER, (X, Y), few, recipe=Recipe(epochs=3), verbose=False)
    with students(differ):  # a warning would be an error
        tune_keep_ratio(TEACHER, (X, Y), few, recipe=Recipe(epochs=3), tolerance=0.1, verbose=False)


@pytest.mark.once
def test_real_students() -> None:
    """Nothing is replaced: the path from a teacher to a share runs."""
    y = np.arange(120) % 3
    x = (RNG.normal(size=(120, 6)) * 0.3 + np.eye(3)[y] @ RNG.normal(size=(3, 6)) * 2).astype("float32")
    teacher = toys.fill(keras.Sequential([keras.Input((6,)), kl.Dense(16, "relu"), kl.Dense(5)]))
    recipe = Recipe(epochs=6, batch_size=16, learning_rate=0.1, augment="none")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*validation samples tell")
        found = tune_keep_ratio(teacher, (x, y), ratios=(0.9, 0.5), recipe=recipe, verbose=False)
    assert found.validation_samples == 24 and found.epochs == 6
    assert found.keep_ratio in (0.5, 0.9) and found.fine_tuned > 0.8


@pytest.mark.once
@pytest.mark.parametrize(
    "options", [{"ratios": ()}, {"ratios": (0.5, 1.5)}, {"ratios": (0,)}, {"budget": 0}, {"tolerance": -0.1}]
)
def test_what_makes_no_sense_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(RemosError):
        tune_keep_ratio(TEACHER, (X, Y), verbose=False, **options)


@pytest.mark.once
@pytest.mark.filterwarnings("ignore:.*validation samples tell")
def test_a_student_with_the_share_that_was_found() -> None:
    y = np.arange(60) % 3
    x = (RNG.normal(size=(60, 6)) * 0.3 + np.eye(3)[y] @ RNG.normal(size=(3, 6)) * 2).astype("float32")
    teacher = toys.fill(keras.Sequential([keras.Input((6,)), kl.Dense(16, "relu"), kl.Dense(5)]))
    recipe = Recipe(epochs=3, batch_size=16, learning_rate=0.05, augment="none")
    with students(lambda kept: 0.8 if kept >= 0.7 else 0.4):
        trained = train("remos", teacher, (x, y), recipe=recipe, keep_ratio="auto", verbose=False)
    assert trained.options["slice"]["keep_ratio"] == 0.7
    assert trained.options["tuning"]["keep_ratio"]["keep_ratio"] == 0.7
    plain = train("remos", teacher, (x, y), recipe=recipe, keep_ratio=0.7, verbose=False)
    for ours, theirs in zip(trained.student.get_weights(), plain.student.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.once
def test_auto_is_the_only_word() -> None:
    with pytest.raises(RemosError, match="keep_ratio"):
        Remos(keep_ratio="most")  # type: ignore[arg-type]
