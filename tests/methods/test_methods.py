"""All eight methods on one tiny teacher: the same promises hold for each."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from tiny import Weights, X, Y, make, teacher

from keras_remos import DataError, RemosError, StudentError
from keras_remos.data import TrainingData
from keras_remos.methods import FRESH, LANGUAGE, METHODS, Recipe, Trained, recipe_of, train
from keras_remos.methods.delta import Delta
from keras_remos.models.layers import walk


@pytest.fixture(scope="module")
def model() -> keras.Model:
    return teacher()


@pytest.fixture(scope="module")
def runs(model: keras.Model) -> Iterator[dict[str, tuple[Trained, dict[Any, Any]]]]:
    """Each method once, with what it read while it trained."""
    patch = pytest.MonkeyPatch()
    read: dict[Any, Any] = {}
    plain = TrainingData.__getitem__

    def watched(self: TrainingData, index: int) -> Any:
        batch = plain(self, index)
        if self.augment != "none":
            read[self.epoch, index] = [part.tobytes() for part in batch]
        return batch

    patch.setattr(TrainingData, "__getitem__", watched)
    made = {}
    for name in METHODS:
        read.clear()
        made[name] = make(name, model), dict(read)
    yield made
    patch.undo()


@pytest.mark.parametrize("name", METHODS)
def test_the_student_is_a_plain_model_with_the_teachers_layers_and_a_new_head(
    name: str, model: keras.Model, runs: dict[str, Any]
) -> None:
    trained = runs[name][0]
    student = trained.student
    assert 0 <= student.evaluate(X, Y, verbose=0, return_dict=True)["accuracy"] <= 1
    assert [(path, type(layer)) for path, layer in walk(student)] == [(p, type(own)) for p, own in walk(model)]
    assert all(layer.trainable for _, layer in walk(student))
    assert not any("call" in vars(layer) for _, layer in walk(student))
    probabilities = keras.ops.convert_to_numpy(student(X))
    assert probabilities.shape == (24, 3)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    assert trained.method == name
    assert {len(values) for values in trained.history.values()} == {2}
    assert np.isfinite(trained.history["loss"]).all()
    assert json.loads(json.dumps(trained.options))["seed"] == 5


def test_all_are_trained_as_the_control_is(runs: dict[str, Any]) -> None:
    control, order = runs["finetune"]
    for name, (trained, read) in runs.items():
        assert read == order, name
        for key in ("steps", "recipe", "seed", "num_classes", "backend"):
            assert trained.options[key] == control.options[key], (name, key)
    assert control.options["steps"] == len(order)


def test_no_method_touches_the_teacher(model: keras.Model, runs: dict[str, Any]) -> None:
    untouched = teacher()
    for old, now in zip(untouched.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, now)
    assert [layer.trainable for _, layer in walk(model)] == [layer.trainable for _, layer in walk(untouched)]
    assert not model.get_layer("bn2").trainable
    assert not model.compiled


def test_every_method_reads_the_same_batches_in_the_same_order(runs: dict[str, Any]) -> None:
    expected = TrainingData((X, Y), num_classes=3, batch_size=8, seed=5)
    for name, (_, read) in runs.items():
        seen = {place: parts for place, parts in read.items() if place[0] < 2}
        assert {(epoch, index) for epoch in (0, 1) for index in (0, 1, 2)} <= set(seen), name
        for (epoch, index), parts in seen.items():
            expected.epoch = epoch
            assert parts == [part.tobytes() for part in expected[index]], f"{name}, epoch {epoch}, batch {index}"


@pytest.mark.once
def test_students_load_where_keras_remos_is_not_installed(runs: dict[str, Any], tmp_path: Path) -> None:
    for name, (trained, _) in runs.items():
        trained.student.save(tmp_path / f"{name}.keras")
    np.savez(tmp_path / "expected.npz", x=X, y=keras.ops.convert_to_numpy(runs["renofeation"][0].student(X)))
    code = f"""
import pathlib, sys
sys.modules["keras_remos"] = None
import keras, numpy as np
folder = pathlib.Path({str(tmp_path)!r})
students = {{file.stem: keras.saving.load_model(file) for file in folder.glob("*.keras")}}
with np.load(folder / "expected.npz") as expected:
    out = keras.ops.convert_to_numpy(students["renofeation"](expected["x"]))
    np.testing.assert_allclose(out, expected["y"], atol=1e-5)
print(*students)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert set(done.stdout.split()) == set(METHODS), done.stderr


def test_each_has_a_recipe_and_those_that_start_afresh_a_faster_one(model: keras.Model) -> None:
    assert set(METHODS) > FRESH
    assert recipe_of("finetune", model) == recipe_of("remos", model) == Recipe()
    assert recipe_of("retrain", model).learning_rate > Recipe().learning_rate


def test_models_that_read_texts_are_trained_as_bert_is() -> None:
    text_toys = pytest.importorskip("text_toys")
    reader = text_toys.bert()
    assert recipe_of("remos", reader) == LANGUAGE
    assert recipe_of("retrain", reader).learning_rate > LANGUAGE.learning_rate


@pytest.mark.once
def test_the_teachers_head_is_kept_on_request(model: keras.Model) -> None:
    standing_still = Recipe(epochs=1, batch_size=24, learning_rate=1e-9, weight_decay=0.0)
    kernel = model.get_layer("head").get_weights()[0]
    for method, options in (("finetune", {}), ("mag-prune", {"prune_ratio": 0.1}), ("fine-pruning", {}), ("remos", {})):
        own = {"num_classes": 5, "data": (X, np.arange(24) % 5), "recipe": standing_still, "keep_head": True, **options}
        made = make(method, model, **own)
        np.testing.assert_allclose(made.student.get_layer("head").get_weights()[0], kernel, atol=1e-6)
        assert made.options["keep_head"] is True
    with pytest.raises(StudentError, match="keep_head"):
        make("finetune", model, keep_head=True)


def test_methods_go_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(Delta, "train", lambda *args, **options: seen.append((args, options)))
    train("delta", "a teacher", (X, Y), num_classes=3, form="mse")
    [((method, *data), options)] = seen
    assert method == Delta(form="mse") and data == ["a teacher", (X, Y), None]
    assert options["num_classes"] == 3
    with pytest.raises(RemosError, match="Unknown method 'distill'.*finetune"):
        train("distill", teacher(), (X, Y), num_classes=3)
    with pytest.raises(TypeError, match="keep_rato"):
        train("remos", teacher(), (X, Y), num_classes=3, keep_rato=0.9)


class Batches(keras.utils.PyDataset):
    """A data set of the user's own, with one-hot labels."""

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> Any:
        part = slice(index * 8, index * 8 + 8)
        return X[part], np.eye(3, dtype="float32")[Y[part]]


def test_other_data_go_through_fit_as_they_are_and_a_student_learns(model: keras.Model) -> None:
    weights = Weights()
    with pytest.warns(DeprecationWarning, match="head_multiplier"):
        recipe = Recipe(
            epochs=12, label_smoothing=0.1, head_multiplier=2, learning_rate=0.05, schedule="constant", warmup=0.0
        )
    trained = make("finetune", model, data=Batches(), validation=(X, Y), recipe=recipe, callbacks=[weights])
    assert len(weights.seen) == 12
    assert set(trained.history) == {"loss", "accuracy", "val_loss", "val_accuracy"}
    assert trained.history["accuracy"][-1] > 0.8


@pytest.mark.parametrize("name", ["finetune", "renofeation"])
@pytest.mark.parametrize(
    ("data", "message"),
    [
        ((X, Y + 1), "num_classes=3"),
        ((X, Y * 0), "class 0 only"),
        ((X[:0], Y[:0]), "at least one sample"),
        ((X[:, :4], Y), "takes batches of shape"),
        (X, "as a tuple"),
        (((X, Y) for _ in range(3)), "read in each of 2 epochs"),
    ],
)
def test_wrong_data_are_refused_before_any_work(name: str, data: Any, message: str, model: keras.Model) -> None:
    with pytest.raises(DataError, match=message):
        make(name, model, data=data)


def test_a_stream_without_a_length_needs_a_constant_rate(model: keras.Model) -> None:
    with pytest.raises(DataError, match="schedule='constant'"):
        make("finetune", model, data=iter([(X, Y)]), recipe=Recipe(epochs=1))
    with pytest.raises(DataError, match="read more than once"):
        make("remos", model, data=iter([(X, Y)]), recipe=Recipe(epochs=1, schedule="constant", warmup=0.0))


# Keras does where a generator ends after its only epoch.
@pytest.mark.filterwarnings("ignore:Your input ran out of data:UserWarning:keras[.]src")
def test_divergence_is_an_error_that_says_what_to_try(model: keras.Model) -> None:
    broken = X.copy()
    broken[3, 0, 0, 0] = np.nan
    # A generator, read once: it goes through fit too.
    stream = ((broken[part], Y[part]) for part in (slice(12), slice(12, 24)))
    recipe = Recipe(epochs=1, learning_rate=0.05, schedule="constant", warmup=0.0)
    with pytest.raises(RemosError, match=r"loss became nan in epoch 1 of 1.*0\.005 instead of 0\.05"):
        make("finetune", model, data=stream, recipe=recipe)


def test_one_class_is_no_task(model: keras.Model) -> None:
    with pytest.raises(RemosError, match="num_classes"):
        make("finetune", model, num_classes=1)
