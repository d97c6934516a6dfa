"""What reaches a terminal: no control sequence out of a file, and nothing that its encoding lacks."""

import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from click.testing import CliRunner
from keras_remos_cli import main
from shell import APART, run
from test_cli import save_teacher

from keras_remos import CoverageProfile, RelevantSlicer
from keras_remos.progress import track

EVIL = "\x1b[2J\x1b]52;c;aGk=\x07\nverified clean\u202e"
SHOWN = r"\x1b[2J\x1b]52;c;aGk=\x07\x0averified clean\u202e"
pytestmark = [pytest.mark.once, pytest.mark.filterwarnings("ignore:Criterion:UserWarning")]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A teacher, data, and files made of them, with tricks in every name."""
    monkeypatch.chdir(tmp_path)
    x = keras.Input((8, 8, 3))
    h = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3, activation="relu", name=f"conv{EVIL}")(x))
    model = keras.Model(x, keras.layers.Dense(2, name=f"head{EVIL}")(h), name=f"m{EVIL}")
    model.save("teacher.keras")
    rng = np.random.default_rng(0)
    names = np.array([f"cat{EVIL}", f"dog{EVIL}"])
    pixels = rng.integers(0, 256, (8, 8, 8, 3), dtype=np.uint8)
    np.savez("data.npz", x=pixels, y=np.arange(8) % 2, class_names=names)
    return tmp_path


def clean(text: str) -> bool:
    return not any(trick in text for trick in ("\x1b", "\x07", "\u202e")) and "\nverified" not in text


def test_every_name_is_escaped_in_every_command(folder: Path) -> None:
    for arguments in (
        ["inspect", "teacher.keras"],
        ["profile", "teacher.keras", "--data", "data.npz", "-o", "p.npz"],
        ["slice", "teacher.keras", "--data", "data.npz", "-o", "s.keras", "--slice-file", "s.npz"],
        ["inspect", "p.npz"],
        ["inspect", "s.npz"],
        ["attack", "teacher.keras", "--defect", "penultimate", "--steps", "1", "--data", "data.npz", "-o", "a.npz"],
        ["inspect", "a.npz"],
        ["evaluate", "s.keras", "--data", "data.npz", "--inputs", "a.npz", "--allow-other-teacher"],
        ["poison", "teacher.keras", "--data", "data.npz", "--epochs", "1", "-o", "b.keras"],
        ["transfer", "teacher.keras", "--data", "data.npz", "--head", EVIL, "-o", "t.keras"],
    ):
        result = run(*arguments)
        assert result.exit_code == (arguments[0] == "transfer"), result.output
        assert clean(result.stdout) and clean(result.stderr), arguments
        if arguments[0] != "evaluate" and "a.npz" not in arguments:
            assert SHOWN in result.stdout + result.stderr, arguments


def test_names_of_files_and_of_images_are_escaped(folder: Path) -> None:
    image = pytest.importorskip("PIL.Image", reason="needs Pillow")
    evil = EVIL.replace("\n", "")
    for name in ("cat", "dog"):
        (folder / "images" / name).mkdir(parents=True)
        image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(folder / "images" / name / "0.png")
    (folder / "images" / "cat" / f"{evil}.png").write_bytes(b"no image")
    result = run("profile", "teacher.keras", "--data", "images", "-o", "p.npz")
    assert result.exit_code == 0, result.output
    assert clean(result.stderr) and r"\x1b[2J" in result.stderr
    refused = run("inspect", f"{evil}.keras")
    assert refused.exit_code == 1 and clean(refused.stderr)


def test_summaries_keep_each_name_on_its_line(folder: Path) -> None:
    model = keras.models.load_model("teacher.keras")
    slicer = RelevantSlicer(model)
    profile = slicer.profile(np.zeros((4, 8, 8, 3), np.float32), verbose=False)
    for shown in (profile.summary(), slicer.slice(profile).summary()):
        assert clean(shown) and SHOWN in shown
    assert isinstance(profile, CoverageProfile)


def test_a_progress_bar_takes_no_name_for_markup(capsys: pytest.CaptureFixture[str]) -> None:
    with track([1, 2], total=2, description=f"[/red]{EVIL}", verbose=True) as tracked:
        assert list(tracked) == [1, 2]
    assert "\x07" not in capsys.readouterr().err


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "ascii", "utf-8"])
def test_what_the_output_cannot_hold_is_escaped(encoding: str, tmp_path: Path) -> None:
    x = keras.Input((4,))
    h = keras.layers.Dense(3, name="名")(x)
    keras.Model(x, keras.layers.Dense(2, name="größe")(h)).save(tmp_path / "a.keras")
    result = CliRunner(charset=encoding, **APART).invoke(main, ["inspect", str(tmp_path / "a.keras")])
    assert result.exit_code == 0, result.output
    assert ("名" if encoding == "utf-8" else r"\u540d") in result.stdout_bytes.decode(encoding)


@pytest.mark.parametrize(
    "arguments",
    [
        ["inspect", "a", f"b{EVIL}.keras"],
        ["inspect", f"--{EVIL}"],
        ["attack", "a", "--data", "b", "--defect", EVIL],
        ["attack", "a", "--data", "b", "--defect", "pgd", "--steps", EVIL],
        ["transfer", "a", "--data", "b", "--image-size", EVIL],
        [EVIL],
        [f"--{EVIL}"],
        ["profile", "count", "a", "--data", "b", f"c{EVIL}"],
    ],
)
def test_what_was_typed_wrong_is_escaped(arguments: list[str]) -> None:
    """A shell fills in names of files, which are strangers'."""
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert clean(result.stderr) and r"\x1b[2J" in result.stderr


def test_what_click_says_in_lines_stays_so() -> None:
    assert "\n\tpenultimate,\n" in run("attack", "a", "--data", "b").stderr
    assert "\nUsage:" in f"\n{run('profile').output}"


def test_a_stream_that_is_closed_ends_no_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_teacher(tmp_path / "a.keras")
    for closed in (["stdout"], ["stdin", "stdout", "stderr"]):
        for name in closed:
            monkeypatch.setattr(sys, name, None)
        assert main.main(["inspect", str(tmp_path / "a.keras")], standalone_mode=False) is None
        for name in closed:
            getattr(sys, name).close()  # what it has been led to


# What commands do to streams, without Keras, which takes seconds to come.
STREAMS = """
from pathlib import Path
from keras_remos_cli.running import emit, note, streams
with streams():
    for _ in range(2_000):
        note("x" * 100)
    emit({}, "text", as_json=False)
    Path("done").touch()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no shell of this kind")
@pytest.mark.parametrize("where", ["<&- >&- 2>&-", ">&-", "2>&-", "2>&1 | true", "2> /dev/full"])
def test_streams_that_lead_nowhere_end_no_work(tmp_path: Path, where: str) -> None:
    if "/dev/full" in where and not Path("/dev/full").exists():
        pytest.skip("there is no such device")
    shell = ["bash", "-o", "pipefail", "-c", f'"$0" -c "$1" {where}', sys.executable, STREAMS]
    done = subprocess.run(shell, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "done").exists() and "Traceback" not in done.stderr
    assert done.stdout in ("", "text\n")


@pytest.mark.skipif(sys.platform == "win32", reason="no pipes of this kind")
def test_whoever_reads_may_stop(tmp_path: Path) -> None:
    save_teacher(tmp_path / "a.keras")
    reader, writer = os.pipe()
    os.close(reader)
    program = "import sys; from keras_remos_cli import main; sys.argv[0] = 'keras-remos'; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, "inspect", str(tmp_path / "a.keras")],
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writer)
    assert (done.returncode, "Broken" in done.stderr, "Traceback" in done.stderr) == (0, False, False), done.stderr
