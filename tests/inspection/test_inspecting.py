"""`inspect` says what a file is, whatever it is, and opens none that carries code."""

import hashlib
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import toys
from robustness import corpus
from shell import run, told

import keras_remos as kr
from keras_remos.inspection import inspecting
from keras_remos.methods.trials import Trials
from keras_remos.models.fingerprint import fingerprint, short


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("inspected")
    corpus.make(made)
    trials = Trials(made, {"seed": 0})
    trials.right({"learning_rate": 0.1}, lambda: np.array([True, False, True, True]))
    with pytest.raises(kr.DivergedError):
        trials.right({"learning_rate": 9}, diverged)
    (made / "result.json").write_text(json.dumps({"command": "keras-remos audit", "seed": 0, "students": []}))
    (made / "table.csv").write_text("text,label\na,1\nb,0\n")
    np.savez(made / "data.npz", x=np.zeros((2, 4)), y=np.arange(2))
    return made


def diverged() -> np.ndarray:
    raise kr.DivergedError("no")


KINDS = {
    "teacher.keras": ("model", "weights"),
    "student.keras": ("student", "teacher_weights"),
    "poisoned.keras": ("poisoned teacher", "source_weights"),
    "worded.keras": ("poisoned teacher", "source_weights"),
    "profile.npz": ("profile", "teacher_weights_without_head"),
    "slice.npz": ("slice", "teacher_weights_without_head"),
    "attack.npz": ("attack", "teacher_weights"),
    "partial.npz": ("partial attack", "finished"),
    "checkpoint.npz": ("checkpoint", "history"),
    "trials.npz": ("trials", "trials"),
    "result.json": ("result", "holds"),
    "table.csv": ("table", "columns"),
    "data.npz": ("arrays", "arrays"),
}


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_file(name: str, folder: Path) -> None:
    path, (kind, fact) = folder / name, KINDS[name]
    found = kr.inspect_file(path)
    assert found.kind == kind and found.facts[fact]
    assert found.facts["bytes"] == path.stat().st_size
    assert found.facts["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert found.facts["sha256"] in found.summary() and fact.replace("_", " ") in found.summary()
    assert json.loads(json.dumps(found.describe()))["path"] == str(path)


def test_what_belongs_together_has_one_digest(folder: Path) -> None:
    facts = {name: kr.inspect_file(folder / name).facts for name in KINDS if name.endswith((".keras", ".npz"))}
    teacher = facts["teacher.keras"]
    assert teacher["weights"] == short(fingerprint(corpus.teacher()))
    assert {facts[name]["teacher_weights"] for name in ("student.keras", "attack.npz")} == {teacher["weights"]}
    without = {facts[name]["teacher_weights_without_head"] for name in ("profile.npz", "slice.npz")}
    assert without == {teacher["weights_without_head"]} != {teacher["weights"]}


def test_a_model_is_told_in_full(folder: Path) -> None:
    facts = kr.inspect_file(folder / "poisoned.keras").facts
    assert (facts["num_classes"], facts["parameters"], facts["keras_version"]) == (3, 127, keras.__version__)
    assert facts["inputs"][0]["shape"] == [None, 8, 8, 3] and facts["outputs"][0]["shape"] == [None, 3]
    assert facts["code"] == {"holds": "no", "where": []} and facts["opened"]
    assert facts["skipped"] == [{"path": "head", "reason": "head: replaced or kept as it is, never sliced"}]
    shown = kr.inspect_file(folder / "poisoned.keras").summary()
    assert "patch-backdoor" in shown and "1 (b)" in shown and "108 of 127 weights" in shown


def test_a_run_that_is_under_way(folder: Path) -> None:
    kept = kr.inspect_file(folder / "checkpoint.npz")
    assert (kept.facts["epochs"], kept.facts["finished"], kept.facts["arguments"]) == (1, False, {"seed": 0})
    shown = kr.inspect_file(folder / "trials.npz").summary()
    assert "0.75 of 4: learning_rate 0.1" in shown and "diverged: learning_rate 9" in shown


def test_folders(folder: Path, tmp_path: Path) -> None:
    whole = kr.inspect_file(folder)
    assert whole.kind == "folder" and whole.facts["holds"]["model"] == 4
    for name in ("checkpoint.npz", "trials.npz"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    kept = kr.inspect_file(tmp_path)
    assert kept.kind == "checkpoint folder" and kept.facts["holds"] == {"checkpoint": 1, "trials": 1}
    assert "learning_rate 0.1" in kept.summary()


def test_nothing_can_be_sliced(tmp_path: Path) -> None:
    x = keras.Input((4,))
    toys.fill(keras.Model(x, keras.layers.Dense(2, name="only")(x))).save(tmp_path / "flat.keras")
    keras.Model(x, keras.layers.Rescaling(2.0)(x)).save(tmp_path / "none.keras")
    flat, none = (told(run("inspect", tmp_path / name, "--json")) for name in ("flat.keras", "none.keras"))
    assert (flat["num_sliceable"], flat["skipped"][0]["path"], flat["parameters"]) == (0, "only", 10)
    assert (none["num_sliceable"], none["parameters"]) == (0, 0)


def test_a_model_of_which_no_size_is_known_is_described_all_the_same(tmp_path: Path) -> None:
    x = keras.Input((None, 2))
    h = keras.layers.Dense(2, name="head")(keras.layers.Dense(5)(keras.layers.Reshape((22,))(x)))
    toys.fill(keras.Model(x, h)).save(tmp_path / "odd.keras")
    shown = run("inspect", tmp_path / "odd.keras")
    assert shown.exit_code == 0, shown.output
    assert "not sliceable" in shown.stdout and "any x any x 2" in shown.stdout


# --- what carries code ------------------------------------------------------------------------------------------------


def carrier(path: Path) -> Path:
    x = keras.Input((4,))
    keras.Model(x, keras.layers.Lambda(lambda t: t * 2, name="evil")(x)).save(path)
    return path


def test_code_is_found_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(*_: Any, **__: Any) -> None:
        raise AssertionError("it was opened")

    path = carrier(tmp_path / "a.keras")
    monkeypatch.setattr(keras.models, "load_model", opened)
    monkeypatch.setattr(keras.saving, "deserialize_keras_object", opened)
    shown = run("inspect", path, "--json")
    assert shown.exit_code == 0, shown.output
    said = told(shown)
    assert said["code"]["holds"] == "yes" and "config.json: Lambda (layer 'evil')" in said["code"]["where"]
    assert not said["opened"] and "--allow-unsafe-deserialization" in said["reason"]
    assert said["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    text = run("inspect", path).stdout
    assert "yes, config.json: Lambda (layer 'evil')" in text


def test_code_that_is_allowed_is_still_told(tmp_path: Path) -> None:
    said = told(run("inspect", carrier(tmp_path / "a.keras"), "--json", "--allow-unsafe-deserialization"))
    assert said["opened"] and said["code"]["holds"] == "yes"


def test_pickles_and_hdf5_are_told_without_being_opened(tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(b"\x80\x04N.")
    with zipfile.ZipFile(tmp_path / "b.pt", "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x04N.")
    (tmp_path / "c.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(64))
    for name, kind, holds in (("a.pt", "pickle", "yes"), ("b.pt", "model", "yes"), ("c.h5", "HDF5 file", "unknown")):
        shown = run("inspect", tmp_path / name, "--json")
        assert shown.exit_code == 0, shown.output
        said = told(shown)
        assert (said["kind"], said["code"]["holds"], said["opened"]) == (kind, holds, False)


@pytest.mark.text
def test_presets(tmp_path: Path) -> None:
    import text_toys

    text_toys.bert().save_to_preset(str(tmp_path / "bert"))
    found = kr.inspect_file(tmp_path / "bert")
    assert {"config.json", "model.weights.h5"} <= {each["name"] for each in found.facts["files"]}
    assert found.kind == "model" and found.facts["opened"] and found.facts["keras_hub_version"]
    config = json.loads((tmp_path / "bert" / "config.json").read_text())
    config["config"]["more"] = {"class_name": "Lambda", "module": "keras.layers", "config": {}, "registered_name": None}
    (tmp_path / "bert" / "config.json").write_text(json.dumps(config))
    hostile = kr.inspect_file(tmp_path / "bert")
    assert not hostile.facts["opened"] and hostile.facts["code"]["where"] == ["config.json: Lambda"]


# --- what there is nothing to tell of ---------------------------------------------------------------------------------


def test_nothing_to_tell(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text("[1]")
    (tmp_path / "package.json").write_text('{"name": "x"}')
    (tmp_path / "a.txt").write_text("x")
    (tmp_path / "cut.keras").write_bytes((folder / "teacher.keras").read_bytes()[:300])
    (tmp_path / "empty").mkdir()
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("a.txt", b"x")
    names = ["other.json", "package.json", "a.txt", "cut.keras", "empty", "other.zip", "none.keras"]
    for name in names:
        refused = run("inspect", tmp_path / name)
        assert refused.exit_code == 1 and not refused.stdout, name
        assert len([line for line in refused.stderr.splitlines() if line.startswith("Error: ")]) == 1


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes of this kind")
def test_pipes_and_links_are_not_followed(folder: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.keras")
    assert run("inspect", tmp_path / "a.keras").exit_code == 1
    (tmp_path / "preset").mkdir()
    (tmp_path / "preset" / "config.json").write_text("{}")
    (tmp_path / "preset" / "b.json").symlink_to(folder / "result.json")
    refused = run("inspect", tmp_path / "preset")
    assert refused.exit_code == 1 and "outside of the folder" in refused.stderr
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "result.json").symlink_to(folder / "result.json")
    assert run("inspect", tmp_path / "links").exit_code == 1


HOSTILE = {
    "command": {"a": [1]},
    "history": {"loss": []},
    "class_names": ["\x1b[2J", "b"],
    "inputs": "\x1b[2J",
    "code": 5,
    "bytes": None,
    "target": 10**9,
    "trials": [[]],
    "files": {"x": 1},
    "kind": "\x1b[2J",
    "\x1b[2J": "\x1b[2J",
}


def test_what_a_file_says_of_itself_may_be_of_any_form(tmp_path: Path) -> None:
    (tmp_path / "student.json").write_text(json.dumps(HOSTILE))
    (tmp_path / "r.json").write_text(json.dumps({**HOSTILE, "result": HOSTILE}))
    for path in (tmp_path, tmp_path / "r.json"):
        shown = run("inspect", path)
        assert shown.exit_code == 0, shown.output
        assert "\x1b" not in shown.stdout and r"\x1b[2J" in shown.stdout


def test_json_is_read_within_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspecting, "check_regular", lambda path: path)
    with (tmp_path / "large.json").open("wb") as file:
        file.truncate(2**33)
    refused = run("inspect", tmp_path / "large.json")
    assert refused.exit_code == 1 and "JSON of 67,108,865 bytes" in refused.stderr
