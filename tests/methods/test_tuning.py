"""Tuning by a method whose accuracy at each learning rate is known."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import keras
import numpy as np
import pytest
import toys
from keras import layers as kl

from keras_remos.errors import DataError, DivergedError, RemosError
from keras_remos.methods import METHODS, FineTune, Method, Recipe, train, tune_recipe
from keras_remos.methods.plan import stages
from keras_remos.methods.tuning import RATES
from keras_remos.training.task import Task
from keras_remos.training.trained import Trained
from keras_remos.training.trainer import Trainer

N = 500
# How hard each sample is, from 0 to 1, and its class: a student of accuracy .7 gets those right that are below .7.
X = np.stack([(np.arange(N) + 0.5) / N, np.arange(N) % 2], axis=1).astype("float32")[
    np.random.default_rng(0).permutation(N)
]
Y = X[:, 1].astype(int)
TEACHER = toys.fill(keras.Sequential([keras.Input((2,)), kl.Dense(3), kl.Dense(4)]))


class Student(keras.Model):
    """Gets the easier samples right, the others wrong."""

    def __init__(self, accuracy: float) -> None:
        super().__init__()
        self.accuracy = accuracy

    def call(self, x: Any) -> Any:
        label = keras.ops.cast(x[:, 1], "int32")
        said = keras.ops.where(x[:, 0] < self.accuracy, label, 1 - label)
        return keras.ops.one_hot(said, 2)


@dataclass(frozen=True, kw_only=True)
class Known(Method):
    """Is as accurate as a function of the recipe says."""

    accuracy: Callable[[Recipe], float]
    seen: list[Any] = field(default_factory=list)

    name: ClassVar[str] = "known"

    def get_config(self) -> dict[str, Any]:
        return {}

    def fit(self, task: Task, trainer: Trainer) -> keras.Model:
        raise NotImplementedError

    def train(self, teacher: keras.Model, train: Any, validation: Any = None, **options: Any) -> Trained:
        recipe = options["recipe"]
        self.seen.append((recipe.learning_rate, recipe.epochs, train[0]))
        accuracy = self.accuracy(recipe)
        if np.isnan(accuracy):
            raise DivergedError("NaN")
        return Trained(Student(accuracy), {}, self.name, {"num_classes": 2})


def tuned(accuracy: Callable[[Recipe], float], **options: Any) -> Any:
    method = Known(accuracy=accuracy)
    recipe = options.pop("recipe", Recipe(epochs=100))
    return tune_recipe(method, TEACHER, (X, Y), recipe=recipe, verbose=False, **options), method


@pytest.mark.once
def test_the_best_rate_is_found_and_what_was_tried_is_told() -> None:
    by_rate = dict(zip(RATES, (0.5, 0.6, 0.8, 0.6, 0.5), strict=True))
    tuning, method = tuned(lambda recipe: by_rate[recipe.learning_rate])
    assert tuning.recipe == Recipe(epochs=100, learning_rate=0.02)
    assert [(trial.changes["learning_rate"], trial.epochs) for trial in tuning.trials] == [
        *((rate, 20) for rate in RATES),
        *((rate, 33) for rate in (0.02, 0.05, 0.01)),
        *((rate, 100) for rate in (0.02, 0.05)),
    ]
    assert tuning.validation_samples == 100
    assert [trial.accuracy for trial in tuning.trials if trial.whole] == pytest.approx([0.8, 0.6], abs=0.1)
    assert tuning.cost <= 4
    assert tuning.describe()["recipe"]["learning_rate"] == 0.02
    assert len(tuning.describe()["trials"]) == 10
    # What accuracy is measured on was never trained on.
    assert all(len(samples) == 400 for _, _, samples in method.seen)


@pytest.mark.once
def test_within_one_standard_error_the_highest_rate_wins() -> None:
    # Of 100 samples, near .8: one standard error is .04.
    near = dict(zip(RATES, (0.2, 0.2, 0.8, 0.78, 0.3), strict=True))
    assert tuned(lambda recipe: near[recipe.learning_rate])[0].recipe.learning_rate == 0.05
    far = {**near, 0.05: 0.7}
    assert tuned(lambda recipe: far[recipe.learning_rate])[0].recipe.learning_rate == 0.02


@pytest.mark.once
def test_what_the_validation_data_cannot_tell_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    near = dict(zip(RATES, (0.2, 0.2, 0.8, 0.78, 0.3), strict=True))
    far = {**near, 0.05: 0.6}
    for rates, said in ((near, 1), (far, 0)):
        tune_recipe(Known(accuracy=lambda recipe, by=rates: by[recipe.learning_rate]), TEACHER, (X, Y), recipe=Recipe())
        told = capsys.readouterr().err.splitlines()
        assert len(told) == said
        assert all("100 validation samples" in line and "2 of the last 2" in line for line in told)


@pytest.mark.once
def test_the_longest_comes_before_the_highest_rate() -> None:
    grid = {"epochs": (50, 100), "learning_rate": (0.02,)}
    assert tuned(lambda recipe: 0.8, grid=grid)[0].recipe.epochs == 100
    assert tuned(lambda recipe: 0.9 if recipe.epochs == 50 else 0.5, grid=grid)[0].recipe.epochs == 50


@pytest.mark.once
def test_what_diverges_is_out_and_if_all_do_it_says_so() -> None:
    tuning, _ = tuned(lambda recipe: np.nan if recipe.learning_rate > 0.01 else 0.6)
    assert tuning.recipe.learning_rate == 0.01
    assert sum(trial.accuracy is None for trial in tuning.trials) >= 3
    with pytest.raises(DivergedError, match="lower learning rates"):
        tuned(lambda recipe: np.nan)


@pytest.mark.once
@pytest.mark.parametrize("candidates", range(1, 12))
@pytest.mark.parametrize("budget", [1, 2, 3.5, 4, 12])
def test_it_costs_what_it_may(candidates: int, budget: float) -> None:
    plan = stages(candidates, budget)
    left, cost = candidates, 0.0
    for share, kept in plan:
        assert 0 < share <= 1 and kept <= left
        cost += share * left
        left = kept
    assert cost <= budget + 1e-9
    assert left <= 2
    if budget >= 4:
        assert plan[-1][0] == 1


@pytest.mark.once
def test_with_validation_data_all_else_is_trained_on() -> None:
    method = Known(accuracy=lambda recipe: 0.7)
    validation = X[:50], Y[:50]
    tuning = tune_recipe(method, TEACHER, (X, Y), validation, recipe=Recipe(epochs=10), verbose=False)
    assert tuning.validation_samples == 50
    assert all(len(samples) == N for _, _, samples in method.seen)


def test_a_real_method_is_tuned() -> None:
    """A rate that teaches nothing against one that does."""
    rng = np.random.default_rng(1)
    y = np.arange(90) % 3
    x = (rng.normal(size=(90, 6)) * 0.3 + np.eye(3)[y] @ rng.normal(size=(3, 6)) * 2).astype("float32")
    teacher = toys.fill(keras.Sequential([keras.Input((6,)), kl.Dense(8, "relu"), kl.Dense(5)]))
    recipe = Recipe(epochs=12, batch_size=16, augment="none")
    tuning = tune_recipe(
        FineTune(), teacher, (x, y), recipe=recipe, grid={"learning_rate": (1e-7, 0.1)}, budget=2, verbose=False
    )
    assert tuning.recipe == Recipe(epochs=12, batch_size=16, augment="none", learning_rate=0.1)
    trained = train("finetune", teacher, (x, y), recipe=tuning.recipe, verbose=False)
    assert trained.last["accuracy"] > 0.9


@pytest.mark.once
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"budget": 0.5}, "budget"),
        ({"budget": float("nan")}, "budget"),
        ({"grid": {}}, "grid"),
        ({"grid": {"learning_rate": ()}}, "grid"),
        ({"grid": {"learning_rate": (0.1, -1)}}, "learning_rate"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_trained(options: dict[str, Any], message: str) -> None:
    with pytest.raises(RemosError, match=message):
        tune_recipe(METHODS["finetune"](), TEACHER, (X, Y), verbose=False, **options)


@pytest.mark.once
def test_a_stream_needs_validation_data_of_its_own() -> None:
    with pytest.raises(DataError, match="Part the data yourself"):
        tune_recipe(METHODS["finetune"](), TEACHER, iter([(X, Y)]), num_classes=2, verbose=False)


@pytest.mark.once
def test_a_method_tunes_itself_and_says_how() -> None:
    """What is chosen trains the student, on all training data."""
    rng = np.random.default_rng(1)
    y = np.arange(60) % 3
    x = (rng.normal(size=(60, 6)) * 0.3 + np.eye(3)[y] @ rng.normal(size=(3, 6)) * 2).astype("float32")
    teacher = toys.fill(keras.Sequential([keras.Input((6,)), kl.Dense(8, "relu"), kl.Dense(5)]))
    recipe = Recipe(epochs=8, batch_size=12, augment="none", learning_rate="auto")
    trained = train("remos", teacher, (x, y), recipe=recipe, keep_ratio=0.95, verbose=False)
    told = trained.options["tuning"]["recipe"]
    assert trained.options["recipe"] == told["recipe"]
    assert told["recipe"]["learning_rate"] in RATES and told["validation_samples"] == 12
    assert trained.options["steps"] == 8 * 5  # of all 60 samples
    same = replace(recipe, learning_rate=told["recipe"]["learning_rate"])
    plain = train("remos", teacher, (x, y), recipe=same, keep_ratio=0.95, verbose=False)
    assert "tuning" not in plain.options
    for ours, theirs in zip(trained.student.get_weights(), plain.student.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
