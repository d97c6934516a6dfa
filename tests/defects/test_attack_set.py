"""Attack sets and prepared teachers on disk, good and bad."""

import dataclasses
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import toys
from faults import disk_full_at
from toys import numpy

from keras_remos import load_teacher
from keras_remos.data.pixels import PixelSpace
from keras_remos.data.samples import Samples
from keras_remos.defects import DEFECTS, AttackSet, PenultimateAttack, Prepared
from keras_remos.defects.triggers.image import Trigger
from keras_remos.errors import DataError, FileError, MismatchError
from keras_remos.models.fingerprint import fingerprint
from keras_remos.saving import write_archive
from keras_remos.untrusted import Rows, rows

RNG = np.random.default_rng(0)
CLEAN = RNG.integers(0, 256, (4, 8, 8, 3)).astype("uint8")


def attack_set(teacher: keras.Model | None = None, **changes: Any) -> AttackSet:
    values: dict[str, Any] = {
        "clean": CLEAN,
        "inputs": np.clip(CLEAN + RNG.uniform(-5, 5, CLEAN.shape), 0, 255),
        "labels": np.array([0, 1, 2, 1]),
        "class_names": ("a", "b", "c"),
        "target": None,
        "defect": "penultimate",
        "options": PenultimateAttack().get_config(),
        "space": PixelSpace("imagenet"),
        "teacher": (("conv1", "0" * 16),) if teacher is None else fingerprint(teacher),
        "seed": 3,
        "versions": {"keras": "3"},
        "command": "keras-remos attack",
    }
    return AttackSet(**{**values, **changes})


def test_a_set_comes_back_from_disk(tmp_path: Path) -> None:
    made = attack_set()
    made.save(tmp_path / "set.npz")
    read = AttackSet.load(tmp_path / "set.npz")
    assert len(read) == 4
    for field in dataclasses.fields(AttackSet):
        before, after = getattr(made, field.name), getattr(read, field.name)
        if isinstance(before, (np.ndarray, Samples)):
            np.testing.assert_array_equal(before[:], after[:])
            assert before.dtype == after.dtype == ("int32" if field.name == "labels" else "float32")
        else:
            assert before == after, field.name
    assert read.describe() == made.describe()
    assert read.describe()["largest_change"] == pytest.approx(5, abs=0.1)


def test_a_set_is_numbered_as_a_student_numbers_its_classes() -> None:
    made = attack_set(target=1).numbered(["c", "x", "b", "a"])
    assert made.labels.tolist() == [3, 2, 0, 2] and made.target == 2 and made.class_names == ("c", "x", "b", "a")
    assert attack_set(target=2, labels=np.array([0, 1, 0, 1])).numbered(["b", "a"]).target is None
    for names in ((), ("a", "b", "c")):
        assert attack_set().numbered(names).labels.tolist() == [0, 1, 2, 1]
    with pytest.raises(DataError, match="Received also: c"):
        attack_set().numbered(["a", "b"])


def test_whole_pixels_take_one_byte_each(tmp_path: Path) -> None:
    attack_set().save(tmp_path / "set.npz")
    with np.load(tmp_path / "set.npz", allow_pickle=False) as archive:
        assert archive["clean"].dtype == np.uint8
        assert archive["inputs"].dtype == np.float32
    attack_set(clean=CLEAN / 255, inputs=CLEAN / 255, space=PixelSpace(high=1.0)).save(tmp_path / "unit.npz")
    np.testing.assert_array_equal(AttackSet.load(tmp_path / "unit.npz").clean[:], (CLEAN / 255).astype("float32"))


def test_a_set_belongs_to_its_teacher() -> None:
    teacher = toys.build_cnn()
    made = attack_set(teacher)
    made.check_teacher(teacher)
    teacher.get_layer("conv2").kernel.assign(0 * numpy(teacher.get_layer("conv2").kernel.value))
    with pytest.raises(MismatchError, match="attack set was made for another model.*conv2"):
        made.check_teacher(teacher)
    with pytest.raises(MismatchError, match="does not say of which model"):
        dataclasses.replace(made, teacher=()).check_teacher(teacher)
    marks = fingerprint(toys.build_cnn())
    with pytest.raises(MismatchError, match="names a layer twice"):
        dataclasses.replace(made, teacher=(*marks, marks[-1])).check_teacher(toys.build_cnn())


@pytest.mark.parametrize(
    "changes",
    [
        {"inputs": CLEAN[:3]},
        {"labels": np.zeros(5)},
        {"inputs": CLEAN.astype("float32") + 1},
        {"space": PixelSpace(high=1.0)},
    ],
)
def test_arrays_that_do_not_fit(changes: dict[str, Any]) -> None:
    with pytest.raises(DataError):
        attack_set(**changes)


def test_files_that_are_no_attack_set(tmp_path: Path) -> None:
    path = tmp_path / "set.npz"
    attack_set().save(path)
    with pytest.raises(FileError, match="exists already"):
        attack_set().save(path)
    whole = path.read_bytes()
    for length in (0, 10, len(whole) // 2, len(whole) - 30):
        path.write_bytes(whole[:length])
        with pytest.raises(FileError):
            AttackSet.load(path)
    write_archive(tmp_path / "slice.npz", "slice", {}, {})
    with pytest.raises(FileError, match="holds a slice, expected an attack"):
        AttackSet.load(tmp_path / "slice.npz")
    write_archive(tmp_path / "empty.npz", "attack", {}, {})
    with pytest.raises(FileError, match="damaged"):
        AttackSet.load(tmp_path / "empty.npz")
    with pytest.raises(FileError, match="no file"):
        AttackSet.load(tmp_path / "missing.npz")


@pytest.mark.parametrize("trigger", [None, Trigger.from_color((255, 0, 0), size=2, alpha=0.5)])
def test_a_prepared_teacher_is_a_plain_model_with_a_record(tmp_path: Path, trigger: Trigger | None) -> None:
    teacher, path = toys.build_mlp(), tmp_path / "teacher.keras"
    prepared = PenultimateAttack().prepare(teacher, space=PixelSpace(), seed=4)
    prepared.trigger = trigger
    prepared.save(path)
    for model in (keras.saving.load_model(path), load_teacher(path)):
        assert fingerprint(model) == fingerprint(teacher)
    read = Prepared.load(path)
    assert read.space == prepared.space
    assert read.record["defect"] == "penultimate"
    assert read.record["seed"] == 4
    assert [tuple(mark) for mark in read.record["source"]] == list(fingerprint(teacher))
    if trigger is None:
        assert read.trigger is None
    else:
        assert read.trigger is not None
        np.testing.assert_array_equal(read.trigger.image, trigger.image)
        assert read.trigger.describe() == trigger.describe()


def test_a_model_without_a_record_is_not_prepared(tmp_path: Path) -> None:
    toys.build_mlp().save(tmp_path / "plain.keras")
    with pytest.raises(FileError, match="without a record"):
        Prepared.load(tmp_path / "plain.keras")
    with pytest.raises(FileError, match=r"\.keras"):
        Prepared(toys.build_mlp(), PixelSpace()).save(tmp_path / "model.h5")


@pytest.mark.parametrize("name", DEFECTS)
def test_every_defect_is_named_and_configured(name: str) -> None:
    kind = DEFECTS[name]
    assert kind.name == name
    assert isinstance(kind.targeted, bool)


# Read in parts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rounded", [True, False])
def test_a_large_set_is_read_where_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rounded: bool) -> None:
    made = attack_set(**({"inputs": CLEAN ^ 1} if rounded else {}))
    made.save(tmp_path / "set.npz")
    small = AttackSet.load(tmp_path / "set.npz")
    monkeypatch.setattr(rows, "IN_MEMORY", 0)
    large = AttackSet.load(tmp_path / "set.npz")
    assert isinstance(large.inputs.rows, Rows) and not isinstance(small.inputs.rows, Rows)
    assert large.bits == small.bits == made.bits == (8 if rounded else 32)
    assert large.describe() == small.describe() == made.describe()
    for one in (small, large):
        np.testing.assert_array_equal(one.inputs[:], made.inputs[:])
        one.save(tmp_path / "again.npz", overwrite=True)
        assert (tmp_path / "again.npz").read_bytes() == (tmp_path / "set.npz").read_bytes()
        # Over the very file that it is read from.
        one.save(tmp_path / "set.npz", overwrite=True)
        np.testing.assert_array_equal(one.inputs[:], made.inputs[:])


def test_pixels_that_happen_to_be_levels_are_the_same_once_they_are_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "IN_MEMORY", 0)
    space = PixelSpace(high=1.0)
    pixels = space.from_levels(CLEAN ^ 1)
    partial = Rows((tmp_path / "partial").open("w+b", buffering=0), pixels.shape, "float32")
    partial[:] = pixels
    made = attack_set(space=space, clean=space.from_levels(CLEAN), inputs=partial, partial=tmp_path / "partial")
    made.save(tmp_path / "set.npz")
    assert not (tmp_path / "partial").exists()
    np.testing.assert_array_equal(made.inputs[:], pixels)
    assert made.describe() == AttackSet.load(tmp_path / "set.npz").describe()


def test_a_set_knows_the_file_that_it_is_kept_in(tmp_path: Path) -> None:
    made, file = attack_set(), tmp_path / "set.npz"
    assert not made.is_kept_at(file)
    made.save(file)
    assert made.is_kept_at(file) and AttackSet.load(file).is_kept_at(file)
    assert not dataclasses.replace(made, seed=4).is_kept_at(file)
    attack_set(seed=4).save(file, overwrite=True)
    assert not made.is_kept_at(file)


@pytest.mark.once
def test_a_disk_that_is_full_leaves_the_old_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "PIECE", 100)
    file = tmp_path / "set.npz"
    attack_set(seed=1).save(file)
    old = file.read_bytes()
    for share in (0.0, 0.1, 0.5, 0.9):
        with (
            disk_full_at(int(share * len(old))),
            pytest.raises(FileError, match="set.npz cannot be written .* Make room"),
        ):
            attack_set().save(file, overwrite=True)
        assert file.read_bytes() == old and [path.name for path in tmp_path.iterdir()] == ["set.npz"]


def test_a_file_of_format_1_holds_values_of_the_pixels_range(tmp_path: Path) -> None:
    header, arrays = attack_set(space=PixelSpace(high=510.0)).to_archive()
    arrays |= {"clean": CLEAN, "inputs": CLEAN.astype("float32")}
    write_archive(tmp_path / "old.npz", "attack", {**header, "format": 1}, arrays)
    read = AttackSet.load(tmp_path / "old.npz")
    np.testing.assert_array_equal(read.clean[:], CLEAN)
    assert read.bits == 32  # odd numbers are between two of the levels of that range
    read.save(tmp_path / "new.npz")
    np.testing.assert_array_equal(AttackSet.load(tmp_path / "new.npz").clean[:], CLEAN)
