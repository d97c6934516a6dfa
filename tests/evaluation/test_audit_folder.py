"""An audit's folder: what is finished is kept, what was interrupted goes on, what is another's is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from shutil import copytree
from typing import Any

import keras
import numpy as np
import pytest
from faults import disk_full_at

import keras_remos as kr
from keras_remos.evaluation import AuditReport
from keras_remos.evaluation.audit_folder import file_name

SPACE = kr.PixelSpace("0-1")
RNG = np.random.default_rng(0)
Y = (np.arange(30) % 3).astype(np.int32)
X = RNG.integers(0, 60, (30, 6, 6, 3)).astype(np.uint8)
X[np.arange(30), :, :, Y] += 150
CLASS_NAMES = ("red", "green, <b>", "blue")
QUICK = {"epochs": 1, "batch_size": 15, "learning_rate": 0.02}


def model(seed: int = 0) -> keras.Model:
    rng = np.random.default_rng(seed)
    layers = [keras.Input((6, 6, 3)), keras.layers.Conv2D(4, 3, activation="relu", name="conv")]
    layers += [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(3, activation="softmax", name="head")]
    made = keras.Sequential(layers)
    made.set_weights([rng.normal(0, 0.5, np.shape(each)).astype(np.float32) for each in made.get_weights()])
    return made


def run(folder: Path | None, *, seed: int = 0, x: np.ndarray = X, students: Any = None) -> AuditReport:
    attacks = [kr.PenultimateAttack(steps=2), kr.DisplacementAttack(steps=2)]
    return kr.audit(
        model(),
        {"mine": model(5)} if students is None else students,
        (x, Y),
        train=(X[::-1].copy(), Y[::-1].copy()),
        attacker=kr.Attacker(defects=attacks),
        controls=kr.Controls(floor=True),
        recipe=QUICK,
        space=SPACE,
        class_names=CLASS_NAMES,
        folder=folder,
        seed=seed,
        verbose=False,
    )


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, AuditReport]:
    folder = tmp_path_factory.mktemp("audits") / "audit"
    return folder, run(folder)


def counted(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How many trainings and attacks are run from now on."""
    runs = {"trainings": 0, "attacks": 0}

    def counting(kind: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            runs[kind] += 1
            return real(*args, **kwargs)

        return call

    monkeypatch.setattr(keras.Model, "fit", counting("trainings", keras.Model.fit))
    for kind in (kr.PenultimateAttack, kr.DisplacementAttack):
        monkeypatch.setattr(kind, "make_inputs", counting("attacks", kind.make_inputs))
    return runs


def test_the_same_call_makes_nothing_anew(audited: tuple[Path, AuditReport], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, first = audited
    runs = counted(monkeypatch)
    again = run(folder)
    assert runs == {"trainings": 0, "attacks": 0}
    assert again.inheritance.describe() == first.inheritance.describe()
    # To the order in which options stand on its page.
    assert json.dumps(again.describe()) == json.dumps(first.describe())


@pytest.mark.once
def test_another_student_costs_its_own_questions_alone(
    audited: tuple[Path, AuditReport], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, first = audited
    runs = counted(monkeypatch)
    more = run(folder, students={"mine": model(5), "other": model(6)})
    assert runs == {"trainings": 0, "attacks": 0}
    assert list(more.inheritance.accuracies) == ["fine-tuned", "retrained", "mine", "other"]
    rows = {(row.student, row.defect): row.rate for row in more.inheritance.inherited}
    assert all(rows[row.student, row.defect] == row.rate for row in first.inheritance.inherited)


@pytest.mark.once
def test_what_was_interrupted_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second attack fails: the control, the floor and the first attack are there when it runs again."""
    whole = run(None).inheritance.describe()

    def fails(*args: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(kr.DisplacementAttack, "make_inputs", fails)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "audit")
    runs = counted(monkeypatch)
    assert run(tmp_path / "audit").inheritance.describe() == whole
    assert runs == {"trainings": 0, "attacks": 1}


@pytest.mark.once
def test_other_options_of_an_attack_make_it_anew(
    audited: tuple[Path, AuditReport], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = audited
    runs = counted(monkeypatch)
    once_more(folder, attacker=kr.Attacker(defects=[kr.PenultimateAttack(steps=3)]))
    assert runs["attacks"] == 1
    assert kr.AttackSet.load(folder / "attacks" / "penultimate.npz").options["steps"] == 3


def once_more(folder: Path | None, **changed: Any) -> AuditReport:
    """An audit of one attack on a student that is the control, too."""
    given: dict[str, Any] = {"space": SPACE, "attacker": kr.Attacker(defects=[kr.PenultimateAttack(steps=1)])}
    given |= {"controls": kr.Controls(control="mine"), "class_names": CLASS_NAMES}
    given |= {"students": {"mine": model(5)}, "test": (X, Y), "folder": folder, "verbose": False}
    return kr.audit(model(), **{**given, **changed})


@pytest.mark.once
def test_another_scaling_or_another_attack_is_not_taken_for_what_is_kept(tmp_path: Path) -> None:
    wrong = once_more(tmp_path / "audit", space=kr.PixelSpace("-1-1"))
    again = once_more(tmp_path / "audit")
    assert again.attacks["penultimate"].space == SPACE != wrong.attacks["penultimate"].space
    stronger = kr.Attacker(defects=[kr.PenultimateAttack(steps=1, epsilon=30)])
    found = once_more(None, attacker=stronger)
    again.save(tmp_path / "audit")
    found.save(tmp_path / "audit")
    kept = kr.AttackSet.load(tmp_path / "audit" / "attacks" / "penultimate.npz")
    np.testing.assert_array_equal(kept.inputs, found.attacks["penultimate"].inputs)


@pytest.mark.once
def test_a_training_of_before_goes_where_something_else_is_asked_for(tmp_path: Path) -> None:
    own = {"train": (X[::-1].copy(), Y[::-1].copy()), "controls": kr.Controls(tune=False)}
    once_more(tmp_path / "audit", recipe=QUICK, **own)
    again = once_more(tmp_path / "audit", recipe={**QUICK, "epochs": 2}, **own)
    assert again.trained["fine-tuned"].epochs == 2


@pytest.mark.once
def test_what_a_killed_writer_left_is_no_file_of_others(tmp_path: Path) -> None:
    (tmp_path / "audit" / ".keras-remos-0123456789abcdef").mkdir(parents=True)
    once_more(tmp_path / "audit")


@pytest.mark.once
@pytest.mark.parametrize("record", [{"kept": "x"}, {"kept": [{"path": "p"}]}, {"recipe": 3, "history": {"loss": "x"}}])
def test_a_record_of_any_form_costs_no_report(tmp_path: Path, record: dict[str, Any]) -> None:
    """It says no seed, and no recipe by which one like it could be made."""
    pytest.importorskip("jinja2", reason="needs the extra report")
    student = kr.Trained(model(5), {}, "remos", {"method": "remos", **record})
    attacker = kr.Attacker(defects=[kr.PenultimateAttack(steps=1), "adaptive"], data=(X, Y))
    how = {"attacker": attacker, "controls": kr.Controls(control=False)}
    report = once_more(None, students={"mine": student}, **how)
    assert "Its record does not tell" in report.left_out["adaptive (mine)"]
    assert report.save(tmp_path / "audit")["page"].is_file()
    assert report.describe()["students"]["mine"]["kept"] is None


@pytest.mark.once
@pytest.mark.parametrize("changed", [{"seed": 1}, {"x": X[::-1].copy()}])
def test_the_folder_of_another_audit_is_refused(audited: tuple[Path, AuditReport], changed: dict[str, Any]) -> None:
    named = {"seed": "seed", "x": "test set"}[next(iter(changed))]
    with pytest.raises(kr.MismatchError, match=rf"folder of another audit \(its {named} differ\)"):
        run(audited[0], **changed)


def test_a_folder_of_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_bytes(b"mine")
    with pytest.raises(kr.FileError, match="holds other files"):
        run(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["holiday.jpg"]
    (tmp_path / "audit.json").write_text('{"kind": "party"}')
    with pytest.raises(kr.FileError, match="of another program"):
        run(tmp_path)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(kr.FileError, match="cannot be one"):
        run(tmp_path / "file")


@pytest.mark.once
def test_it_is_saved_with_all_that_it_rests_on(audited: tuple[Path, AuditReport]) -> None:
    folder, _ = audited
    report = run(folder)
    files = report.save(folder, command_line="keras-remos audit ...", seconds=1.5, inputs={"teacher": {"path": "t"}})
    assert files["page"].read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    whole = json.loads(files["json"].read_text(encoding="utf-8"))
    assert whole["command_line"] == "keras-remos audit ..." and whole["inputs"] == {"teacher": {"path": "t"}}
    result = whole["result"]
    assert result["verdicts"] == [verdict.describe() for verdict in report.verdicts]
    for name in ("penultimate", "displacement"):
        assert len(kr.AttackSet.load(folder / "attacks" / f"{name}.npz")) == 30
        first, *_ = result["attacks"][name]["examples"]
        assert first["clean"].startswith("data:image/png;base64,") and set(first["said"]) == set(result["students"])
    for name, trained in report.trained.items():
        kept = keras.models.load_model(folder / "students" / f"{file_name(name)}.keras")
        for ours, theirs in zip(kept.get_weights(), trained.student.get_weights(), strict=True):
            np.testing.assert_array_equal(ours, theirs)
    assert {path.suffix for path in (folder / "figures").iterdir()} == {".png", ".svg"}
    moved = folder.rename(folder.with_name("moved"))
    assert run(moved).inheritance.describe() == report.inheritance.describe()
    moved.rename(folder)


@pytest.mark.once
def test_a_full_disk_leaves_what_was_saved_whole(audited: tuple[Path, AuditReport], tmp_path: Path) -> None:
    folder = copytree(audited[0], tmp_path / "audit")
    (folder / "report.json").write_text("old")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with disk_full_at(1000), pytest.raises(kr.FileError, match=r"penultimate\.npz cannot be written .*Make room"):
        audited[1].save(folder)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_pictures_show_what_the_attack_changed(audited: tuple[Path, AuditReport]) -> None:
    described = audited[1].describe(pictures=True)
    shown = described["attacks"]["penultimate"]["examples"]
    attack = audited[1].attacks["penultimate"]
    assert len(shown) == 4 and all(each["label"] == attack.labels[each["index"]] for each in shown)
    assert all(1 < each["magnified"] <= 127 for each in shown)
    # Those that fool the control come first.
    control = next(row for row in audited[1].inheritance.inherited if row.student == "fine-tuned")
    fooled = min(control.flipped.count, 4)
    said = [each["said"]["fine-tuned"] for each in shown]
    assert all(clean != attacked for clean, attacked in said[:fooled])
    assert "examples" not in audited[1].describe()["attacks"]["penultimate"]


@pytest.mark.once
def test_names_of_files_tell_titles_apart() -> None:
    titles = [
        "nc deepxplore",
        "nc-deepxplore",
        "nc_deepxplore",
        "adaptive a/b",
        "adaptive a-b",
        "../up",
        "",
        "é",
        "x" * 300,
    ]
    names = [file_name(title) for title in titles]
    assert len(set(names)) == len(titles) and names[0] == "nc_deepxplore"
    assert all(name and len(name) < 100 and not set(name) & set("/\\ ") and name[0] != "." for name in names)
