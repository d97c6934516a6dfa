"""A disk that fills at any write: one line with the file's name, the old file whole, and nothing left over."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import made_up
import numpy as np
import pytest
import toys
from faults import disk_full_at
from tiny import RECIPE, Stop, make, teacher

from keras_remos import FileError, Prepared, Trigger, export_student, load_student, save_student, write_report
from keras_remos.data.pixels import PixelSpace
from keras_remos.saving import write_archive
from keras_remos.students import exporting
from keras_remos.students.predictions import Predictions

pytestmark = pytest.mark.once

# Of a file's size, where the disk is full.
SHARES = (0.0, 0.1, 0.5, 0.9, 0.999)


def archive(compress: bool) -> Callable[[Path], Any]:
    noise = {"noise": np.random.default_rng(0).normal(size=5000), "zeros": np.zeros(5000)}
    return lambda path: write_archive(path, "profile", {"a": 1}, noise, overwrite=True, compress=compress)


def student(path: Path) -> None:
    save_student(toys.build_cnn(), path, overwrite=True)


def poisoned(path: Path) -> None:
    trigger = Trigger.checkerboard(size=2)
    Prepared(toys.build_cnn(), PixelSpace(), trigger, {"defect": "patch-backdoor"}).save(path, overwrite=True)


def page(path: Path) -> None:
    write_report(made_up.demo(), path, overwrite=True)


def table(path: Path) -> None:
    Predictions(tuple("abc"), np.full((3, 2), 0.5, np.float32), ("yes", "no")).save_csv(path, overwrite=True)


@pytest.mark.parametrize(
    ("name", "write", "short_of_memory"),
    [
        pytest.param("file.npz", archive(True), False, id="compressed"),
        pytest.param("file.npz", archive(False), False, id="plain"),
        pytest.param("file.keras", student, False, id="student"),
        pytest.param("file.keras", poisoned, False, id="poisoned"),
        pytest.param("file.html", page, False, id="page"),
        pytest.param("file.csv", table, False, id="table"),
        # Keras then writes the weights to the disk before it zips them.
        pytest.param("file.keras", student, True, id="short-of-memory"),
    ],
)
def test_the_old_file_stays_whole(
    name: str,
    write: Callable[[Path], Any],
    short_of_memory: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if short_of_memory:
        monkeypatch.setattr("keras.src.saving.saving_lib.is_memory_sufficient", lambda model: False)
    file = tmp_path / name
    write(file)
    old = file.read_bytes()
    for share in SHARES:
        with disk_full_at(int(share * len(old))), pytest.raises(FileError, match=f"{name} cannot be written") as said:
            write(file)
        assert "Make room" in str(said.value) and "\n" not in str(said.value)
        assert file.read_bytes() == old
        assert [path.name for path in tmp_path.iterdir()] == [name]
    write(file)


def test_the_old_export_stays_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "_NEEDED", {keras.backend.backend(): {"onnx": {}}})
    monkeypatch.setattr(keras.Model, "export", lambda _, path, **__: Path(path).write_bytes(bytes(10_000)))
    save_student(toys.build_cnn(), tmp_path / "s.keras", space=PixelSpace("0-1"))
    given, folder = load_student(tmp_path / "s.keras"), tmp_path / "out"
    export_student(given, folder, format="onnx")
    old = {path.name: path.read_bytes() for path in folder.iterdir()}
    for share in SHARES:
        with disk_full_at(int(share * 10_000)), pytest.raises(FileError, match="out cannot be written .*Make room"):
            export_student(given, folder, format="onnx", overwrite=True)
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == old
        assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "s.keras"]


def test_an_export_that_cannot_fit_is_not_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "_NEEDED", {keras.backend.backend(): {"onnx": {}}})
    monkeypatch.setattr(keras.Model, "export", lambda *_, **__: pytest.fail("it was begun"))
    save_student(toys.build_cnn(), tmp_path / "s.keras", space=PixelSpace("0-1"))
    given = load_student(tmp_path / "s.keras")
    needed = 4 * given.model.count_params()
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=needed - 1))
    with pytest.raises(FileError, match="out cannot be written .*Make room"):
        export_student(given, tmp_path / "out", format="onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["s.keras"]


def test_a_checkpoint_stays_whole_and_is_gone_on_from(tmp_path: Path) -> None:
    model = teacher()
    options: dict[str, Any] = {"recipe": RECIPE, "checkpoint": tmp_path}
    with pytest.raises(KeyboardInterrupt):
        make("finetune", model, callbacks=[Stop(1)], **options)
    [file] = tmp_path.iterdir()
    old = file.read_bytes()
    with disk_full_at(len(old) // 2), pytest.raises(FileError, match=r"training\.npz cannot be written"):
        make("finetune", model, **options)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [old]
    assert make("finetune", model, callbacks=[Stop(0)], **options).epochs == RECIPE.epochs
