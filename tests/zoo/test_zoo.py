"""Every model that people have, from profile to a student that is trained, saved and opened without keras_remos."""

from __future__ import annotations

import gc
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import applications
import keras
import numpy as np
import own_models
import pytest
from reload import save
from specimen import SAMPLES, Specimen

from keras_remos import RelevantSlice, RelevantSlicer
from keras_remos.errors import RemosError, StudentError
from keras_remos.models.inputs import strings_as_tensors
from keras_remos.models.layers import own_variables, weight_holders
from keras_remos.models.sliceable import find_sliceable

HERE = Path(__file__).parent
GROUPS: dict[str, list[Specimen]] = {"keras.applications": applications.SPECIMENS, "own": own_models.SPECIMENS}
try:
    import hub_images
    import hub_others
    import hub_texts
except ImportError:  # KerasHub is not there
    pass
else:
    GROUPS |= {
        "KerasHub, text": hub_texts.SPECIMENS,
        "KerasHub, images": hub_images.SPECIMENS,
        "KerasHub, others": hub_others.SPECIMENS,
    }
SPECIMENS = [
    pytest.param(group, found, id=f"{group}: {found.name}") for group, each in GROUPS.items() for found in each
]
# Until its file has been opened again, which is done for all of them at the end.
MADE = "made, and its file not opened again yet"
# What is no kernel though it has several axes.
BIASES = ("bias", "b", "beta", "gamma")

pytestmark = [
    pytest.mark.slow,
    # Classes of KerasHub build some layers late, and take numbers out of one-element arrays.
    pytest.mark.filterwarnings("ignore::UserWarning:keras"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Criterion:UserWarning"),
]


class Fitted(keras.Model):
    """Fits whatever a model returns towards zero."""

    def __init__(self, student: keras.Model) -> None:
        super().__init__(name="fitted")
        self.student = student
        self.built = True

    def call(self, x: Any, training: bool = False) -> Any:
        made = keras.tree.flatten(self.student(x, training=training))
        size = sum(keras.ops.mean(keras.ops.square(keras.ops.cast(tensor, "float32"))) for tensor in made)
        return keras.ops.ones((SAMPLES, 1)) * size


class Collection:
    """What has been found out about each model, and its student's file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows: dict[str, dict[str, Any]] = {}

    def write(self) -> None:
        if "ZOO_ROWS" in os.environ:
            found = {"backend": keras.backend.backend(), "versions": versions(), "rows": list(self.rows.values())}
            Path(os.environ["ZOO_ROWS"]).write_text(json.dumps(found, indent=1))


def versions() -> dict[str, str]:
    """What a run was made with."""
    names = ["keras", "keras-hub", keras.backend.backend()]
    return {name: metadata.version(name) for name in names if importlib.util.find_spec(name.replace("-", "_"))}


@pytest.fixture(scope="module")
def collected() -> Iterator[Collection]:
    # What has been imported stays: a collection after each model looks at what models have left only.
    gc.collect()
    gc.freeze()
    with tempfile.TemporaryDirectory() as folder:
        yield Collection(Path(folder))


@pytest.fixture
def collection(collected: Collection) -> Iterator[Collection]:
    """After each model what is known is written: a run that is stopped has not been for nothing."""
    yield collected
    collected.write()


def one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


@pytest.mark.parametrize(("group", "specimen"), SPECIMENS)
def test_a_student_is_made_and_trained(collection: Collection, group: str, specimen: Specimen) -> None:
    keras.utils.clear_session()
    keras.utils.set_random_seed(0)
    row: dict[str, Any] = {
        "group": group,
        "name": specimen.name,
        "kernels": 0,
        "skipped": {},
        "head": "",
        "result": "failed",
    }
    collection.rows[specimen.name] = row
    try:
        teacher = specimen.build()
        x = specimen.inputs(teacher)
        teacher(x, training=False)
    except (ImportError, NotImplementedError) as error:
        # It needs a package that is not there, or is a part of another model and cannot be called by itself.
        row["result"] = f"not run: {one_line(error)[:200]}"
        pytest.skip(row["result"])
    row["weights"] = teacher.count_params()
    try:
        row["result"] = _study(collection, specimen, row, teacher, x)
    except RemosError as error:
        row["result"] = f"refused: {one_line(error)}"
        if specimen.refused is None or specimen.refused not in row["result"]:
            raise
        return
    except Exception as error:
        if _cannot_be_trained(specimen, error):
            row["result"] = f"not trained, nor is the teacher: {type(error).__name__}: {one_line(error)[:200]}"
            pytest.skip(row["result"])
        row["result"] = f"failed: {type(error).__name__}: {one_line(error)[:300]}"
        raise
    assert specimen.refused is None


def _cannot_be_trained(specimen: Specimen, error: Exception) -> bool:
    """Whether the teacher itself fails in the same way: on this backend, by Keras or by its own library."""
    teacher = specimen.build()
    x = specimen.inputs(teacher)
    for new_head in (True, False):
        try:
            fit(teacher, x, new_head=new_head)
        except Exception as same:
            if type(same) is type(error) and one_line(same) == one_line(error):
                return True
    return False


def _study(collection: Collection, specimen: Specimen, row: dict[str, Any], teacher: keras.Model, x: Any) -> str:
    slicer = RelevantSlicer(teacher, keep_ratio=0.7)
    chosen = slicer.slice(slicer.profile(x, batch_size=SAMPLES, verbose=False))
    row["kernels"] = len(chosen.masks)
    row["sliceable"] = chosen.total
    row["skipped"] = dict(Counter(reason for _, reason in chosen.skipped))
    row["paths"] = [list(each) for each in chosen.skipped]
    assert unaccounted(teacher, chosen) == []
    unnamed = [each for each in chosen.skipped if "unknown" in each[1]]
    folder = collection.folder / f"{len(collection.rows)}"
    folder.mkdir()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", "Keras cannot save", UserWarning)
            student = chosen.apply(teacher, num_classes=2)
    except StudentError as error:
        row["head"] = f"kept: {one_line(error)}"
    except UserWarning as warning:
        row["head"] = f"new, with a warning: {one_line(warning).partition('. ')[0]}"
    else:
        check_mask(student, chosen)
        # A model with an option for the number of its classes may return more than scores.
        made = student(x, training=False)
        fit(student, x, new_head=hasattr(made, "shape"))
        assert not hasattr(made, "shape") or made.shape[-1] == 2
        try:
            student.save(folder / "student.keras")
            row["head"] = "new"
        except Exception as error:  # layers of its own that have no configuration, or a wrong one
            row["head"] = f"new, and cannot be saved: {one_line(error).partition('. ')[0][:150]}"
    if row["head"] != "new":
        student = chosen.apply(teacher)
        check_mask(student, chosen)
        fit(student, x, new_head=False)
        student.save(folder / "student.keras")
    for layer in student.layers:
        if getattr(layer, "stateful", False):
            layer.reset_state()  # a file of Keras does not keep what was remembered
    save(folder, x, student(x, training=False))
    row["folder"] = folder.name
    row["changed"] = specimen.changed
    assert unnamed == []
    return MADE


def check_mask(student: keras.Model, chosen: RelevantSlice) -> None:
    """What was excluded is zero."""
    for found in find_sliceable(student)[0]:
        for kernel in found.kernels:
            mask = chosen.masks.get(f"{found.path}/{kernel.name}")
            if mask is not None:
                assert not keras.ops.convert_to_numpy(kernel.variable.value)[~mask].any(), found.path


def unaccounted(model: keras.Model, chosen: RelevantSlice) -> list[str]:
    """Kernels of a model that a slice neither masks nor says why not."""
    named = [path for path, _ in chosen.skipped]
    return [
        f"{path}/{variable.name}"
        for path, layer in weight_holders(model)
        for variable in own_variables(layer)
        if len(variable.shape) > 1
        and variable.name not in BIASES
        and "float" in str(variable.dtype)
        and f"{path}/{variable.name}" not in chosen.masks
        and not any(f"{path}/{variable.name}/".startswith(f"{outer}/") for outer in named)
        and not (path == "" and "(the model itself)" in named)
        # Recurrent layers and wrappers stand for what is inside.
        and not any(f"{path}/".startswith(f"{kernel.rpartition('/')[0]}/") for kernel in chosen.masks)
    ]


def fit(student: keras.Model, x: Any, *, new_head: bool) -> None:
    """One step."""
    made = student(x, training=False)  # what a layer keeps of its first call it should not keep of a trace of Keras
    x = strings_as_tensors(x)
    before = [keras.ops.convert_to_numpy(variable.value) for variable in student.trainable_variables]
    options: dict[str, Any] = {"batch_size": SAMPLES, "verbose": 0}
    if new_head:
        # One class for each sample, or for each token or pixel where that is what the teacher tells.
        labels = tuple(made.shape)[:-1]
        assert labels[0] == SAMPLES
        student.compile("sgd", "sparse_categorical_crossentropy", metrics=[], jit_compile=False)
        student.fit(x, np.arange(np.prod(labels)).reshape(labels) % 2, **options)
    else:
        fitted = Fitted(student)
        fitted.compile("sgd", lambda y, size: keras.ops.mean(size), jit_compile=False)
        fitted.fit(x, np.zeros((SAMPLES, 1)), **options)
    after = [keras.ops.convert_to_numpy(variable.value) for variable in student.trainable_variables]
    assert all(np.isfinite(array).all() for array in after)
    assert any(not np.array_equal(one, other) for one, other in zip(before, after, strict=True))


def test_students_predict_the_same_without_keras_remos(collection: Collection) -> None:
    """In one process for all of them."""
    done = subprocess.run(
        [sys.executable, str(HERE / "reload.py"), str(collection.folder)],
        capture_output=True,
        text=True,
        timeout=3000,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent)])},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    complaints = json.loads(done.stdout.splitlines()[-1])
    for row in collection.rows.values():
        wrong, changed = complaints.get(row.get("folder")), row.get("changed")
        if row["result"] == MADE and wrong is not None:
            expected = changed and wrong.startswith("AssertionError: Not equal to tolerance")
            row["result"] = f"cannot be opened: {wrong}" if wrong else "ok"
            if expected:
                row["result"] = f"ok but for its file: {changed}"
    assert complaints, "no student was saved"
    found = {row["name"]: row["result"] for row in collection.rows.values()}
    assert {name: result for name, result in found.items() if result.startswith("cannot be opened")} == {}


@pytest.mark.skipif("KerasHub, text" not in GROUPS, reason="KerasHub is not installed")
def test_every_class_of_keras_hub_is_in_the_zoo() -> None:
    import keras_hub

    models = keras_hub.models
    public = {
        found
        for found in vars(models).values()
        if isinstance(found, type) and issubclass(found, (models.Backbone, models.Task))
    }
    # A base has subclasses among them, or asks for what no class of its own brings.
    bases = {found for found in public if any(other is not found and issubclass(other, found) for other in public)}
    here = {
        getattr(models, specimen.name.partition(" ")[0], None)
        for specimens in GROUPS.values()
        for specimen in specimens
    }
    # Encoders that are in the zoo as parts of other models.
    parts = {found for found in public if found.__name__.endswith(("TextEncoder", "VisionEncoder", "AudioEncoder"))}
    assert sorted(found.__name__ for found in public - bases - here - parts) == []
