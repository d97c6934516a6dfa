"""Reading results: those of every command, and what is refused."""

import copy
import json
from pathlib import Path
from typing import Any

import made_up
import numpy as np
import pytest

from keras_remos.errors import FileError, MismatchError
from keras_remos.report import markdown, open_results
from keras_remos.report.results import as_results

pytestmark = pytest.mark.once


def written(path: Path, found: Any) -> Path:
    path.write_text(found if isinstance(found, str) else json.dumps(found), encoding="utf-8")
    return path


def archive(path: Path, header: dict[str, Any], **arrays: Any) -> Path:
    encoded = np.frombuffer(json.dumps({"format": 1, **header}).encode(), np.uint8)
    np.savez(path, header=encoded, **arrays)
    return path


@pytest.mark.parametrize("kind", made_up.KINDS)
def test_every_kind_is_read_from_its_file_as_from_memory(kind: str, tmp_path: Path) -> None:
    found = made_up.KINDS[kind]()
    (read,) = open_results([written(tmp_path / "r.json", found)])
    (given,) = as_results(found)
    assert (read.kind, read.body, read.around) == (given.kind, given.body, given.around)
    assert read.name == str(tmp_path / "r.json")
    assert markdown(read) == markdown(given)


def test_a_folder_of_an_audit_is_its_result(tmp_path: Path) -> None:
    written(tmp_path / "report.json", made_up.whole(1))
    (read,) = open_results([tmp_path])
    assert read.kind == "audit" and read.inputs["teacher"]["path"] == "models/teacher.keras"


def test_slices_and_profiles_are_read_from_their_own_files(tmp_path: Path) -> None:
    body = made_up.sliced(3)
    summaries = [{**layer, "mean_kept": 0.1, "mean_excluded": float("nan")} for layer in body["layers"]]
    common = {"skipped": [["bn", "normalization"]], "options": {"keep_ratio": 0.9}, "versions": {"keras": "3"}}
    cut = archive(tmp_path / "s.npz", {"kind": "slice", "summaries": summaries, **common})
    counts = {"0.inputs": np.array([2, 4]), "0.outputs": np.array([], np.int64), "0.positions": np.array([4, 0])}
    seen = archive(tmp_path / "p.npz", {"kind": "profile", "paths": ["a/kernel"], "num_samples": 4, **common}, **counts)
    slice_, profile = open_results([cut, seen])
    assert (slice_.body["kept"], slice_.body["total"]) == (body["kept"], body["total"])
    assert slice_.around["versions"] == {"keras": "3"}
    assert profile.body["layers"] == [{"path": "a/kernel", "input_coverage": 0.75, "output_coverage": None}]
    assert "normalization" in markdown([slice_, profile])
    other = archive(tmp_path / "a.npz", {"kind": "attack"})
    with pytest.raises(FileError, match=r"holds 'attack', of which there is nothing to show"):
        open_results([other])


def test_the_lines_of_a_trade_off_are_one_result_for_each_run(tmp_path: Path) -> None:
    body = made_up.tradeoff()
    lines = [json.dumps({"run": {"seed": 0}, "recipe": body["recipe"], **point}) for point in body["points"]]
    (read,) = open_results([written(tmp_path / "t.jsonl", "\n".join(lines))])
    assert [{key: point[key] for key in body["points"][0]} for point in read.body["points"]] == body["points"]
    more = [line.replace('{"seed": 0}', '{"seed": 1}') for line in lines]
    assert len(open_results([written(tmp_path / "t.jsonl", "\n".join([*lines, *more]))])) == 2
    with pytest.raises(FileError, match=r"t\.jsonl is no result"):
        open_results([written(tmp_path / "t.jsonl", '{"run": 3}')])


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        ("", "no result of keras-remos"),
        ("{}", "none of the things that a result does"),
        ("[1, 2]", "expected an object"),
        ('{"students": [], "defects": 3, "control": 0}', "floors, warnings missing"),
        ({"points": [3]}, r"result\.points\[0\]: expected an object"),
        ("[" * 100_000, "no result of keras-remos"),
        ({"schema": "somebody/else/1", "command": "audit", "result": {}}, "its schema is 'somebody/else/1'"),
        ({"schema": "keras-remos/result/2", "command": "audit", "result": {}}, "update keras-remos"),
        ({"schema": "keras-remos/result/1", "command": "predict", "result": {}}, "a result of 'predict', of which"),
        ({"schema": "keras-remos/result/1", "command": "audit"}, "expected an object"),
        ({"schema": "keras-remos/result/1", "command": "audit", "result": {}}, "missing"),
    ],
)
def test_what_is_no_result_is_refused_by_name(found: Any, reason: str, tmp_path: Path) -> None:
    with pytest.raises(FileError, match=reason) as refused:
        open_results([written(tmp_path / "r.json", found)])
    assert "r.json" in str(refused.value)


def test_a_folder_of_another_programs_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").touch()
    with pytest.raises(FileError, match=r"without a report\.json"):
        open_results([tmp_path])
    written(tmp_path / "report.json", {"totals": {"errors": 0}})
    with pytest.raises(FileError, match="none of the things that a result does"):
        open_results([tmp_path])
    with pytest.raises(FileError, match="There is no file"):
        open_results([tmp_path / "none.json"])


def test_what_types_do_not_say_is_checked_too(tmp_path: Path) -> None:
    def spoiled(*path: Any, value: Any) -> dict[str, Any]:
        found = copy.deepcopy(made_up.whole(1))
        at = found["result"]
        for key in path[:-1]:
            at = at[key]
        at[path[-1]] = value
        return found

    for found, reason in (
        (spoiled("defects", 0, "student", value="nobody"), "there is no student 'nobody'"),
        (spoiled("defects", 0, "confusion", value=[[1, 2]]), "not square"),
        (spoiled("students", "student 1", "change", "edges", 3, value=-9.0), "out of order"),
        (spoiled("students", "student 1", "balanced_accuracy", value=float("nan")), "balanced_accuracy: expected"),
        (spoiled("students", "student 1", "accuracy", "value", value=7), r"accuracy\.value: expected"),
        (spoiled("students", "student 1", "record", "history", value={"loss": [float("inf")]}), "history"),
        (spoiled("students", "student 1", "confusion", value=[[0] * 200] * 200), "confusion: expected"),
    ):
        with pytest.raises(FileError, match=reason):
            open_results([written(tmp_path / "r.json", found)])


def test_nan_at_hand_is_undefined_as_emit_writes_it() -> None:
    found = made_up.transferred()
    found["history"]["loss"][3] = found["last"]["loss"] = float("nan")
    (read,) = as_results(found)
    assert read.body["history"]["loss"][3] is None and read.body["last"]["loss"] is None


def test_results_of_different_test_sets_are_refused_by_name(tmp_path: Path) -> None:
    first, second = made_up.whole(1), made_up.whole(2)
    second["inputs"]["data"]["fingerprint"] = "2e" * 16
    paths = [written(tmp_path / "a.json", first), written(tmp_path / "b.json", second)]
    with pytest.raises(MismatchError, match=r"a\.json and \S+b\.json were measured on different test sets .*content"):
        open_results(paths)
    old = made_up.old()
    for student in old["students"].values():
        student["accuracy"] = made_up.rate(90, 100)
    with pytest.raises(MismatchError, match="number of inputs"):
        markdown([first, old])
    assert open_results([paths[0], written(tmp_path / "c.json", made_up.tradeoff())])


def test_no_result_is_none() -> None:
    with pytest.raises(FileError, match="There is no result"):
        markdown([])
