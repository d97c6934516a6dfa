"""A trade-off trains a student for each share, measures all alike, and goes on where it was killed."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from planted import SPACE, images, teacher
from shell import run, told

import keras_remos as kr
from keras_remos.data import PixelSpace
from keras_remos.data.parts import set_aside
from keras_remos.defects import PenultimateAttack, Prepared, TransferPGD
from keras_remos.errors import FileError, MismatchError, RemosError
from keras_remos.evaluation import Rate, flip_rate, predict_classes, tradeoff
from keras_remos.evaluation.tradeoff import Point, _Results
from keras_remos.methods import METHODS, recipe_of
from keras_remos.training.trainer import Trainer
from keras_remos.writing import reserved

PIXELS, Y = images(60, seed=6)
DATA = SPACE.scale(PIXELS), Y
TEST = images(30, seed=5)
RECIPE = kr.Recipe(epochs=2, batch_size=16, learning_rate=0.05)

pytestmark = [
    pytest.mark.filterwarnings("ignore:Training .* ended in a constant classifier"),
    pytest.mark.filterwarnings("ignore:Criterion"),
]


def attack(seed: int = 0) -> kr.AttackSet:
    return PenultimateAttack(steps=2).inputs(Prepared(teacher(), SPACE), *TEST, seed=seed, verbose=False)


def found(**options: Any) -> kr.Tradeoff:
    how: dict[str, Any] = {"ratios": (0.6, 1, 0.9), "recipe": RECIPE, "space": SPACE, "verbose": False}
    return tradeoff(teacher(), DATA, **how | options)


@pytest.mark.once
def test_each_point_is_the_student_of_that_share() -> None:
    made = attack()
    result = found(inputs={"pen": made})
    assert [point.keep_ratio for point in result.points] == [1, 0.9, 0.6]
    rest, aside = set_aside(DATA, 0.2, seed=0)
    for point, (method, options) in zip(
        result.points,
        [("finetune", {}), ("remos", {"keep_ratio": 0.9}), ("remos", {"keep_ratio": 0.6})],
        strict=True,
    ):
        alone = kr.train(method, teacher(), rest, recipe=RECIPE, harden=False, verbose=False, **options).student
        said = np.argmax(alone.predict(aside[0], verbose=0), axis=-1)
        assert point.accuracy.count == (said == aside[1]).sum() and point.accuracy.total == len(aside[1])
        clean, attacked = (predict_classes(alone, x, SPACE) for x in (made.clean, made.inputs))
        assert point.inherited["pen"] == flip_rate(clean, attacked, made.labels)
    assert json.loads(json.dumps(result.describe(), allow_nan=False))["points"][2]["keep_ratio"] == 0.6
    lines = result.summary().splitlines()
    assert lines[0].split() == ["kept", "ACC", "pen"] and lines[3].startswith("0.6 ")
    assert not result.tuned and "chosen by" not in result.summary()
    assert max(map(len, lines)) <= 100


@pytest.mark.once
def test_what_was_measured_is_not_trained_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results, shares = tmp_path / "results.jsonl", []
    whole = found()
    plain = METHODS["remos"].fit

    def killed(self: Any, task: Any, trainer: Any) -> Any:
        shares.append(self.relevant.options["keep_ratio"])
        if len(shares) == 2:
            raise KeyboardInterrupt
        return plain(self, task, trainer)

    monkeypatch.setattr(METHODS["remos"], "fit", killed)
    with pytest.raises(KeyboardInterrupt):
        found(results=results)
    assert len(results.read_text().splitlines()) == 2
    again = found(results=results)
    assert shares == [0.9, 0.6, 0.6]
    assert again.describe() == whole.describe()
    # Other data are another run, in the same file, and so is another way of reading pixels or another head.
    other = tradeoff(teacher(), (DATA[0] * 0.9, Y), ratios=(1,), recipe=RECIPE, results=results, verbose=False)
    assert len(results.read_text().splitlines()) == 4 and len(other.points) == 1
    for number, options in enumerate(({"space": PixelSpace("none")}, {"head": "head"}, {"num_classes": 4}), start=5):
        found(ratios=(1,), results=results, **options)
        assert len(results.read_text().splitlines()) == number
    assert found(results=results).describe() == whole.describe()


@pytest.mark.once
def test_the_rate_is_chosen_once_for_all(tmp_path: Path) -> None:
    results = tmp_path / "results.jsonl"
    open_rate = kr.Recipe(epochs=2, batch_size=16, learning_rate="auto")
    first = found(recipe=open_rate, ratios=(1,), results=results)
    assert first.tuned and "chosen by" in first.summary() and first.describe()["tuned"]
    row = json.loads(results.read_text())
    assert row["recipe"] == first.recipe.get_config() and not first.recipe.is_open
    # It is known then.
    row["recipe"]["learning_rate"] = 0.0123
    results.write_text(json.dumps(row) + "\n")
    assert found(recipe=open_rate, ratios=(1, 0.9), results=results).recipe.learning_rate == 0.0123


@pytest.mark.once
def test_its_default_recipe_is_that_of_training(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def asked(method: Any, teacher: Any, train: Any, validation: Any, recipe: kr.Recipe, **options: Any) -> Any:
        tried.append(recipe)
        return np.ones(len(validation[0]), bool)

    monkeypatch.setattr("keras_remos.methods.tuning.right_after_training", asked)
    monkeypatch.setattr(METHODS["finetune"], "fit", lambda self, task, trainer: task.copy())
    result = found(recipe=None, ratios=(1,))
    default = recipe_of("finetune", teacher())
    for each in (*tried, result.recipe):
        assert replace(each, epochs=default.epochs, learning_rate=default.learning_rate) == default
    assert len(tried) == 10 and sum(each.epochs for each in tried) == 4 * 30


@pytest.mark.once
def test_its_cost_is_said_and_one_control_makes_twins_for_all(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    epochs: list[Any] = []
    fit = Trainer.fit
    monkeypatch.setattr(
        Trainer, "fit", lambda self, *a, **o: epochs.append((self.name, self.task.recipe.epochs)) or fit(self, *a, **o)
    )
    hardening = kr.Hardening(attacks=[kr.DisplacementAttack(steps=1)], of_control=[TransferPGD(steps=1, step_size=3)])
    open_rate = kr.Recipe(epochs=1, batch_size=16, learning_rate="auto")
    found(recipe=open_rate, ratios=(1, 0.6), harden=hardening, verbose="auto")
    assert [name for name, _ in epochs].count("copy") == 1
    assert len(epochs) == 4 + 1 + 2
    assert capsys.readouterr().err.startswith(
        "This takes as long as about 9.0 trainings of 1 epoch: 4 for the learning rate, 2 for twins, "
        "1 for what twins are made from, 2 for the students.\n"
    )


@pytest.mark.once
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"ratios": ()}, RemosError, "one or more shares"),
        ({"ratios": (1.5,)}, RemosError, "1.5"),
        ({"space": None, "inputs": {"pen": attack}}, RemosError, "space="),
        ({"inputs": {"pen": attack}, "model": True}, MismatchError, "another model"),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict[str, Any], error: type[Exception], message: str) -> None:
    options["inputs"] = {name: build() for name, build in options.get("inputs", {}).items()}
    model = METHODS["retrain"]().train(teacher(), DATA, recipe=RECIPE, verbose=False).student
    given = model if options.pop("model", False) else teacher()
    how: dict[str, Any] = {"ratios": (1,), "recipe": RECIPE, "space": SPACE, "verbose": False}
    with pytest.raises(error, match=message):
        tradeoff(given, DATA, **how | options)


@pytest.mark.once
def test_results_of_something_else_are_refused(tmp_path: Path) -> None:
    results = tmp_path / "results.jsonl"
    results.write_text("hello\n")
    with pytest.raises(FileError, match=r"results\.jsonl"):
        found(results=results)
    assert results.read_text() == "hello\n"


@pytest.mark.once
def test_the_results_are_kept_from_other_runs_while_students_are_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = tmp_path / "results.jsonl"

    def trains(self: Any, task: Any, trainer: Any) -> Any:
        with pytest.raises(FileError, match="written twice"), reserved(results):
            pass
        raise KeyboardInterrupt

    monkeypatch.setattr(METHODS["finetune"], "fit", trains)
    with pytest.raises(KeyboardInterrupt):
        found(results=results, ratios=(1,))
    assert not list(tmp_path.iterdir())


@pytest.mark.once
@pytest.mark.parametrize(
    "change",
    [
        lambda row: "[" * 100_000,
        lambda row: json.dumps([row]),
        lambda row: json.dumps({**row, "inherited": []}),
        lambda row: json.dumps({**row, "inherited": {"pen": {"count": 1, "n": 2}}}),
        lambda row: json.dumps({**row, "accuracy": {"count": "1", "n": 12}}),
        lambda row: json.dumps({**row, "accuracy": {"count": 13, "n": 12}}),
        lambda row: json.dumps({**row, "recipe": {"epochs": 1, "colour": 2}}),
        lambda row: json.dumps({**row, "keep_ratio": "all"}),
    ],
)
def test_damaged_results_are_refused_by_the_name_of_the_file(tmp_path: Path, change: Any) -> None:
    results = tmp_path / "results.jsonl"
    key = {"inputs": {}, "seed": 0}
    _Results(results, key).add(Point(1.0, Rate(6, 12), {}), RECIPE)
    whole = results.read_text()
    assert _Results(results, key).points[1.0].accuracy == Rate(6, 12)
    results.write_text(f"{whole}{change(json.loads(whole))}\n")
    with pytest.raises(FileError, match=r"results\.jsonl is damaged.*Name another file"):
        _Results(results, key)


@pytest.mark.once
def test_from_the_shell(tmp_path: Path) -> None:
    teacher().save(tmp_path / "teacher.keras")
    np.savez(tmp_path / "data.npz", x=PIXELS, y=Y)
    attack().save(tmp_path / "pen.npz")
    given = ("--data", tmp_path / "data.npz", "--preprocess", "-1-1", "--epochs", 1, "--learning-rate", 0.02)
    asked = ("--inputs", tmp_path / "pen.npz", "--keep-ratio", 1, "--keep-ratio", 0.7, "-o", tmp_path / "t.jsonl")
    done = run("tradeoff", tmp_path / "teacher.keras", *given, *asked, "--json")
    assert done.exit_code == 0, done.output
    found = told(done)
    assert [point["keep_ratio"] for point in found["points"]] == [1, 0.7]
    assert found["points"][0]["accuracy"]["n"] == 12 and found["points"][1]["inherited"]["pen"]["n"] <= 30
    shown = run("tradeoff", tmp_path / "teacher.keras", *given, *asked)
    assert shown.stdout.splitlines()[0].split() == ["kept", "ACC", "pen"]
    assert run("tradeoff", tmp_path / "teacher.keras", *given, "-o", tmp_path / "t.txt").exit_code == 2
