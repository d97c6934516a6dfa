"""Models and labels of other tasks than telling one of several classes: sliced like all, and else refused by name."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import shell
import tiny
import toys
from keras import layers as kl

import keras_remos as kr
from keras_remos.data.labels import batch_ids, check_labels
from keras_remos.data.other_tasks import OtherTaskError
from keras_remos.errors import DataError, RemosError, StudentError

pytestmark = pytest.mark.filterwarnings("ignore:Criterion:UserWarning")

RNG = np.random.default_rng(3)
N = 12
X = RNG.normal(size=(N, 8, 8, 3)).astype("float32")
PIXELS = RNG.integers(0, 256, X.shape, dtype=np.uint8)
SPACE = kr.PixelSpace("0-1")
IDS = np.arange(N) % 3
MULTI_HOT = np.tile([[1, 0, 1, 0], [0, 0, 0, 0], [0, 1, 0, 0]], (N // 3, 1))

# Labels that no class ids are, and how they are named.
LABELS: dict[str, tuple[Any, str]] = {
    "multi-hot": (MULTI_HOT.astype("float32"), "multi-label"),
    "multi-hot booleans": (MULTI_HOT.astype(bool), "multi-label"),
    "quantities": (np.linspace(0.01, 0.9, N), "regression"),
    "a column of quantities": (np.linspace(-2.5, 2, N)[:, None], "regression"),
    "rows of quantities": (RNG.normal(size=(N, 3)), "regression"),
    "shares": (np.full((N, 4), 0.25), "soft labels"),
    "tags": (RNG.integers(0, 5, (N, 6)) + np.eye(N, 6, dtype=int), "tags"),
    "maps": (RNG.integers(0, 3, (N, 8, 8)), "segmentation"),
    "maps with a channel": (RNG.integers(0, 2, (N, 8, 8, 1)), "segmentation"),
    "one-hot maps": (np.eye(3)[RNG.integers(0, 3, (N, 8, 8))], "segmentation"),
    "a dict": ({"age": np.linspace(0, 9, N), "kind": IDS}, "age, kind.*several outputs"),
}
KINDS = ("multi-hot", "quantities", "maps", "a dict")


def end(h: Any, units: int, activation: str | None, name: str = "head") -> Any:
    pooled = kl.GlobalAveragePooling2D(name=f"{name}_pool")(h)
    return kl.Dense(units, activation=activation, name=name)(
        kl.Dense(5, activation="relu", name=f"{name}_hidden")(pooled)
    )


def model(make: Callable[[Any], Any]) -> keras.Model:
    x = keras.Input((8, 8, 3))
    h = kl.Conv2D(4, 3, padding="same", activation="relu", name="conv")(x)
    return toys.fill(keras.Model(x, make(h), name="other"))


def multi_label() -> keras.Model:
    return model(lambda h: end(h, 4, "sigmoid"))


def segmentation() -> keras.Model:
    def decoded(h: Any) -> Any:
        deep = kl.Conv2D(4, 3, strides=2, padding="same", activation="relu", name="deep")(h)
        up = kl.Conv2DTranspose(4, 2, strides=2, activation="relu", name="up")(deep)
        return kl.Conv2D(3, 1, activation="softmax", name="classes")(kl.Concatenate()([up, h]))

    return model(decoded)


MODELS: dict[str, tuple[Callable[[], keras.Model], tuple[str, ...], Any, str]] = {
    "multi-label": (multi_label, ("head",), MULTI_HOT, "binary_crossentropy"),
    # One-hot: of maps of ids, Keras with PyTorch has no gradient behind a convolution.
    "segmentation": (segmentation, ("classes",), LABELS["one-hot maps"][0], "categorical_crossentropy"),
    "regression": (lambda: model(lambda h: end(h, 1, None)), ("head",), LABELS["quantities"][0], "mse"),
    "several outputs": (
        lambda: model(lambda h: {"age": end(h, 1, None, "age"), "kind": end(h, 3, "softmax", "kind")}),
        ("age", "kind"),
        LABELS["a dict"][0],
        {"age": "mse", "kind": "sparse_categorical_crossentropy"},
    ),
}


@pytest.mark.once
@pytest.mark.parametrize("task", MODELS)
def test_a_model_of_any_task_is_sliced_and_its_student_is_fitted(task: str) -> None:
    build, heads, y, loss = MODELS[task]
    teacher = build()
    slicer = kr.RelevantSlicer(teacher, keep_ratio=0.6)
    chosen = slicer.slice(slicer.profile((X, y), verbose=False))
    assert chosen.heads == heads
    assert "conv/kernel" in chosen.masks and not {f"{head}/kernel" for head in heads} & chosen.masks.keys()
    student = chosen.apply(teacher)
    assert keras.tree.map_structure(lambda t: t.shape, student.output) == keras.tree.map_structure(
        lambda t: t.shape, teacher.output
    )
    assert 0.5 < np.mean([mask.mean() for mask in chosen.masks.values()]) < 0.9
    student.compile("sgd", loss)
    assert np.isfinite(student.fit(X, y, batch_size=N, verbose=0).history["loss"]).all()


@pytest.mark.once
@pytest.mark.parametrize("form", ["arrays", "weights", "stream"])
@pytest.mark.parametrize("labels", LABELS)
def test_a_profile_does_not_look_at_labels(labels: str, form: str) -> None:
    teacher, y = tiny.teacher(), LABELS[labels][0]
    weights = keras.tree.map_structure(lambda part: np.ones(N), y)

    def stream() -> Iterator[Any]:
        for rows in (slice(0, 5), slice(5, N)):
            yield X[rows], keras.tree.map_structure(lambda part: part[rows], y)  # noqa: B023 (used at once)

    data = {"arrays": (X, y), "weights": (X, y, weights), "stream": stream()}[form]
    found, wanted = (kr.profile(teacher, given, verbose=False) for given in (data, X))
    assert found.data == wanted.data
    for path, coverage in wanted.layers.items():
        np.testing.assert_array_equal(found.layers[path].inputs, coverage.inputs)


@pytest.mark.once
@pytest.mark.parametrize("labels", LABELS)
def test_training_names_the_task_and_the_way_out(labels: str) -> None:
    y, task = LABELS[labels]
    message = rf"Received: .*{task}.*RelevantSlicer\(teacher\)\.apply\(data\)"
    with pytest.raises(OtherTaskError, match=message):
        kr.train("finetune", tiny.teacher(), (X, y), verbose=False)
    with pytest.raises(OtherTaskError, match=message):
        kr.train("finetune", tiny.teacher(), (X, y), num_classes=4, verbose=False)
    with pytest.raises(OtherTaskError, match=message):
        kr.train("finetune", tiny.teacher(), (X, IDS), (X, y), num_classes=4, verbose=False)


@pytest.mark.parametrize("labels", KINDS)
def test_a_stream_of_another_task_is_refused_before_a_step_of_training(labels: str) -> None:
    y, task = LABELS[labels]
    batches = [(X, y)] * 2
    steps: list[int] = []
    counted = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: steps.append(batch))
    recipe = kr.Recipe(epochs=1, schedule="constant", warmup=0)
    with pytest.raises(DataError, match=f"Batch 1: .*{task}"):
        kr.train(
            "finetune",
            tiny.teacher(),
            (batch for batch in batches),
            num_classes=4,
            recipe=recipe,
            callbacks=[counted],
            verbose=False,
        )
    assert not steps


@pytest.mark.once
@pytest.mark.parametrize("labels", KINDS)
def test_attacks_poisoning_and_measuring_name_the_task(labels: str) -> None:
    y, task = LABELS[labels]
    teacher = tiny.teacher()
    clean = kr.TransferFGSM().prepare(teacher, space=SPACE, verbose=False)
    controls = kr.Controls(control=False)
    for ask in (
        lambda: kr.TransferFGSM().inputs(clean, PIXELS, y, verbose=False),
        lambda: kr.PenultimateAttack().inputs(clean, PIXELS, y, verbose=False),
        lambda: kr.TransferPGD().prepare(teacher, (PIXELS, y), space=SPACE, verbose=False),
        lambda: kr.PatchBackdoor().prepare(teacher, (PIXELS, y), space=SPACE, verbose=False),
        lambda: kr.PatchBackdoor().prepare(teacher, (batch for batch in [(PIXELS, y)]), space=SPACE, verbose=False),
        lambda: kr.measure({"mine": (teacher, SPACE)}, PIXELS, y, {}, verbose=False),
        lambda: kr.audit(teacher, {"mine": teacher}, (PIXELS, y), space=SPACE, controls=controls, verbose=False),
        lambda: kr.audit(teacher, {"mine": teacher}, (PIXELS, IDS), train=(PIXELS, y), space=SPACE, verbose=False),
    ):
        with pytest.raises(OtherTaskError, match=task):
            ask()


@pytest.mark.once
@pytest.mark.parametrize("task", ["segmentation", "regression", "several outputs"])
def test_models_of_other_tasks_are_neither_measured_nor_attacked_by_their_classes(task: str) -> None:
    teacher = MODELS[task][0]()
    with pytest.raises(RemosError, match="'mine' is no classifier.*other tasks"):
        kr.measure({"mine": (teacher, SPACE)}, PIXELS, IDS, {}, verbose=False)
    prepared = kr.TransferFGSM().prepare(teacher, space=SPACE, verbose=False)
    with pytest.raises(DataError, match=r"a number for each class.*Received: (shape \(None|2 outputs)"):
        kr.TransferFGSM().inputs(prepared, PIXELS, IDS, verbose=False)


@pytest.mark.once
@pytest.mark.parametrize("ending", ["layer", "activation", "operator"])
def test_a_head_of_yes_and_no_is_not_kept_for_classes_of_which_one_is_right(ending: str) -> None:
    behind = {"layer": lambda h: h, "activation": kl.Activation("sigmoid"), "operator": keras.ops.sigmoid}[ending]
    teacher = model(lambda h: behind(end(h, 3, "sigmoid" if ending == "layer" else None)))
    with pytest.raises(StudentError, match="cannot be kept: it ends in a sigmoid"):
        kr.train("finetune", teacher, (X, IDS), keep_head=True, verbose=False)


@pytest.mark.once
def test_one_hot_rows_are_classes_whatever_a_batch_holds_of_them() -> None:
    rows = np.eye(4)[IDS]
    assert check_labels(rows, 4).tolist() == IDS.tolist()
    assert batch_ids(rows[:1], 4).tolist() == [0]
    with pytest.raises(OtherTaskError, match="rows of 4 that are not one-hot.*multi-label"):
        check_labels(np.vstack([rows, MULTI_HOT[:1]]), 4)


FILES: dict[str, tuple[Any, str]] = {
    "multi-hot": (MULTI_HOT, "'y' of .*multi-label"),
    "quantities": (np.linspace(0.01, 0.9, N), "sample 0 of 'y' of .*regression"),
    "maps": (LABELS["maps"][0], "segmentation"),
}


@pytest.mark.once
@pytest.mark.parametrize("labels", FILES)
def test_in_the_shell_a_file_is_sliced_and_else_refused(tmp_path: Path, labels: str) -> None:
    y, task = FILES[labels]
    data, teacher = tmp_path / "set.npz", tmp_path / "teacher.keras"
    np.savez(data, x=X, y=y)
    tiny.teacher().save(teacher)
    given = (teacher, "--data", data, "--preprocess", "none")
    assert shell.run("profile", *given).exit_code == 0
    done = shell.run("slice", *given, "--keep-head")
    assert done.exit_code == 0 and "labels are of another task" in done.stderr
    for command in (
        ("slice", *given, "-o", tmp_path / "other.keras"),
        ("transfer", *given, "--method", "finetune"),
        ("attack", *given, "--defect", "fgsm"),
        ("poison", *given),
        ("audit", *given, "--no-control"),
        ("evaluate", teacher, "--data", data, "--preprocess", "none"),
    ):
        refused = shell.run(*command)
        assert refused.exit_code == 1 and "Traceback" not in refused.stderr, command
        assert "RelevantSlicer(teacher).apply(data)" in refused.stderr, command
        assert any(part in refused.stderr for part in ("multi-label", "regression", "segmentation")), command
    assert not (tmp_path / "other.keras").exists()
    assert kr.open_dataset(data).labels is None
    with pytest.raises(OtherTaskError, match=task):
        kr.open_dataset(data).map(np.sign).read_all()
