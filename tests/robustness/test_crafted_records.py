"""Files of ours, well-formed, that say what cannot be: told in one line, by the program and by the library."""

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from shell import run

import keras_remos as kr
from keras_remos.errors import FileError, MismatchError, RemosError
from keras_remos.untrusted import read_record
from robustness import corpus
from robustness.corpus import rewritten

pytestmark = pytest.mark.once
HEADERS: list[tuple[str, dict[str, Any]]] = [
    ("profile", {"teacher": []}),
    ("profile", {"paths": []}),
    ("profile", {"paths": ["conv/kernel", "conv/kernel"]}),
    ("profile", {"num_samples": 0}),
    ("profile", {"num_samples": 10**30}),
    ("profile", {"options": {"criterion": "x"}}),
    ("profile", {"skipped": [["a"]]}),
    ("profile", {"heads": None}),
    ("slice", {"masks": [["conv/kernel", [-3, 3]]]}),
    ("slice", {"masks": [["conv/kernel", [10**12, 10**12]]]}),
    ("slice", {"masks": 5}),
    ("slice", {"summaries": []}),
    ("slice", {"tables": ["conv/kernel"]}),
    ("slice", {"teacher": [["conv"]]}),
    ("slice", {"versions": []}),
    ("attack", {"space": None}),
    ("attack", {"space": {"scaling": []}}),
    ("attack", {"space": {"low": 5, "high": float("nan")}}),
    ("attack", {"target": 7}),
    ("attack", {"target": "1"}),
    ("attack", {"class_names": 5}),
    ("attack", {"class_names": ["a"]}),
    ("attack", {"record": {"unchanged": "many"}}),
    ("attack", {"seed": -1}),
    ("attack", {"options": []}),
]
RECORDS: list[dict[str, Any]] = [
    {"space": None},
    {"class_names": 5},
    {"class_names": [None]},
    {"teacher": "x"},
    {"recipe": []},
    {"seed": "0"},
    {"source": [1]},
    {"history": {"loss": [None]}},
    {"defect": []},
    {"space": {"low": "0"}},
    {"attacker_share": "x"},
    {"attacker_share": [1]},
    {"attacker_data": 5},
    {"hardening": None},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("crafted")
    corpus.make(made)
    return made


def with_header(source: Path, made: Path, changes: dict[str, Any]) -> Path:
    with np.load(source) as archive:
        arrays = {name: archive[name] for name in archive.files}
    header = {**json.loads(arrays["header"].tobytes()), **changes}
    arrays["header"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
    np.savez(made, **arrays)
    return made


def one_line(*arguments: object) -> str:
    result = run(*arguments)
    assert result.exit_code == 1, result.output
    errors = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1
    return errors[0]


@pytest.mark.parametrize(("kind", "changes"), HEADERS, ids=[f"{kind} {next(iter(c))}" for kind, c in HEADERS])
def test_headers_that_cannot_be(kind: str, changes: dict[str, Any], folder: Path, tmp_path: Path) -> None:
    bad = with_header(folder / f"{kind}.npz", tmp_path / "bad.npz", changes)
    assert "bad.npz is damaged or no keras-remos file" in one_line("inspect", bad)


@pytest.mark.parametrize("kind", ["profile", "slice", "attack", "checkpoint"])
def test_kinds_and_formats(kind: str, folder: Path, tmp_path: Path) -> None:
    for changes, message in (
        ({"kind": "x\x1b[2J", "format": 1}, r"holds a x\x1b[2J"),
        ({"kind": None}, "damaged"),
        ({"format": "1"}, "damaged"),
        ({"format": 10**30}, "damaged"),
        ({"format": 3}, "has format 3"),
    ):
        said = one_line("inspect", with_header(folder / f"{kind}.npz", tmp_path / "bad.npz", changes))
        assert message in said


@pytest.mark.parametrize("record", RECORDS, ids=[next(iter(record)) for record in RECORDS])
def test_records_that_cannot_be(record: dict[str, Any], folder: Path, tmp_path: Path) -> None:
    content = json.dumps(record).encode()
    bad = rewritten(folder / "student.keras", tmp_path / "bad.keras", **{"keras_remos/record__json": content})
    with pytest.raises(FileError, match="bad.keras is damaged.*record"):
        read_record(bad)
    np.savez(tmp_path / "data.npz", x=np.zeros((4, 8, 8, 3), np.float32), y=np.arange(4) % 2)
    assert "bad.keras is damaged" in one_line("evaluate", bad, "--data", tmp_path / "data.npz")


def test_a_profile_of_other_kernels_and_neurons(folder: Path) -> None:
    slicer = kr.RelevantSlicer(corpus.teacher())
    profile = kr.CoverageProfile.load(folder / "profile.npz")
    [coverage] = profile.layers.values()
    for layers, message in (
        ({"other/kernel": coverage}, "does not have: 'other/kernel'"),
        ({"conv/kernel": type(coverage)(coverage.inputs[:-1], coverage.outputs, 1, 1)}, "other neurons"),
    ):
        forged = type(profile)(**{**vars(profile), "layers": layers})
        with pytest.raises(MismatchError, match=message):
            slicer.slice(forged)


def test_a_slice_of_another_shape(folder: Path) -> None:
    kept = kr.RelevantSlice.load(folder / "slice.npz")
    forged = type(kept)(**{**vars(kept), "masks": {"conv/kernel": np.ones((2, 2), bool)}})
    with pytest.raises(MismatchError, match="mask of shape"):
        forged.apply(corpus.teacher())


@pytest.mark.parametrize(
    "arrays",
    [
        {},
        {"image": np.zeros((2, 2, 3)), "mask": np.zeros((5, 5, 5)), "place": np.array("center")},
        {"image": np.zeros((2, 2, 3)), "mask": np.ones((2, 2, 1)), "place": np.array([1.5, -3])},
        {"image": np.full((2, 2, 3), np.nan), "mask": np.ones((2, 2, 1)), "place": np.array("center")},
        {"image": np.array(["x"]), "mask": np.ones((2, 2, 1)), "place": np.array("center")},
        {"image": np.zeros((2, 2, 3)), "mask": np.ones((2, 2, 1)), "place": np.array(b"center")},
    ],
)
def test_a_damaged_trigger(arrays: dict[str, np.ndarray], folder: Path, tmp_path: Path) -> None:
    out = io.BytesIO()
    np.savez(out, **arrays)
    bad = rewritten(folder / "poisoned.keras", tmp_path / "bad.keras", **{"keras_remos/trigger__npz": out.getvalue()})
    with pytest.raises(FileError, match="bad.keras is damaged"):
        kr.Prepared.load(bad)


def test_a_backdoor_whose_record_lacks_what_an_attack_needs(folder: Path, tmp_path: Path) -> None:
    record = {"defect": "patch-backdoor", "space": {"scaling": "none", "low": 0.0, "high": 1.0}}
    content = json.dumps(record).encode()
    bad = rewritten(folder / "poisoned.keras", tmp_path / "bad.keras", **{"keras_remos/record__json": content})
    prepared = kr.Prepared.load(bad)
    with pytest.raises(RemosError, match="lacks class_names, options, seed, source, target"):
        kr.PatchBackdoor().inputs(prepared, np.zeros((2, 8, 8, 3), np.float32), np.array([0, 1]))


def test_a_checkpoint_whose_arrays_have_other_sizes(folder: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x=np.zeros((6, 8, 8, 3), np.float32), y=np.arange(6) % 3)
    kept = tmp_path / "kept"
    train = ["transfer", folder / "teacher.keras", "--method", "finetune", "--data", tmp_path / "data.npz"]
    train += ["--epochs", 1, "--budget", 1, "--checkpoint", kept, "-o", tmp_path / "student.keras", "--force"]
    assert run(*train).exit_code == 0
    [path] = kept.glob("*.npz")
    with np.load(path) as archive:
        good = {name: archive[name] for name in archive.files}
    for changed in ({"value/0": good["value/0"][:-4]}, {"value/1": np.zeros((), np.uint8)}, {"value/0": np.array("x")}):
        np.savez(path, **{**good, **changed})
        assert f"{path.name} is damaged" in one_line(*train)


def test_members_that_are_no_zip(folder: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.keras", "w") as archive:
        archive.writestr("keras_remos/record.json", b"\xff\xfe{")
    with pytest.raises(FileError, match="a.keras is damaged"):
        read_record(tmp_path / "a.keras")
