"""The program as a user meets it: what it prints, writes and refuses, and with which exit code."""

import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
from shell import run, told

from keras_remos import CoverageProfile, RelevantSlice, saving

# So few neurons are often all covered, or none.
pytestmark = pytest.mark.filterwarnings("ignore:Criterion:UserWarning")

CLASSES = ("cat", "dog", "emu")


def save_teacher(path: Path, seed: int = 0, **options: int) -> Path:
    size, channels = options.get("size", 8), options.get("channels", 3)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((size, size, channels)),
            layers.Conv2D(4, 3, name="conv"),
            layers.BatchNormalization(name="bn"),
            layers.ReLU(),
            layers.GlobalAveragePooling2D(),
            layers.Dense(5, name="logits"),
        ],
        name="teacher",
    )
    rng = np.random.default_rng(seed)
    model.set_weights([np.abs(rng.normal(size=w.shape)) + 0.1 for w in model.get_weights()])
    model.save(path)
    return path


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    return save_teacher(tmp_path / "teacher.keras")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    image = pytest.importorskip("PIL.Image", reason="needs Pillow")
    rng = np.random.default_rng(1)
    for name in CLASSES:
        folder = tmp_path / "images" / name
        folder.mkdir(parents=True)
        for number in range(5):
            image.fromarray(rng.integers(0, 256, (9, 7, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    return tmp_path / "images"


def arrays(path: Path, classes: int = 3, **other: np.ndarray) -> Path:
    rng = np.random.default_rng(2)
    content = {"x": rng.integers(0, 256, (12, 8, 8, 3), dtype=np.uint8), "y": np.arange(12) % classes, **other}
    np.savez(path, **content)
    return path


def left_over(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


def test_slice_with_no_option_does_the_sensible_thing(teacher: Path, images: Path) -> None:
    result = run("slice", teacher, "--data", images)
    assert result.exit_code == 0, result.output
    student = keras.models.load_model(teacher.with_name("teacher.student.keras"))
    assert student.output_shape == (None, len(CLASSES))
    assert not student.compiled
    assert "conv/kernel" in result.stdout
    assert "logits: head" in result.stdout
    assert "Input scaling:" in result.stderr
    assert "15 images of 3 classes" in result.stderr
    assert not left_over(teacher.parent)


def test_slice_as_json_goes_to_stdout_alone(teacher: Path, images: Path, tmp_path: Path) -> None:
    output, slice_file = tmp_path / "s.keras", tmp_path / "s.npz"
    options = ["-o", output, "--slice-file", slice_file, "--keep-ratio", 0.5, "--preprocess", "0-1", "--json"]
    result = run("slice", teacher, "--data", images, *options)
    assert result.exit_code == 0, result.output
    answer = told(result)
    loaded = RelevantSlice.load(slice_file)
    assert (answer["kept"], answer["total"]) == (loaded.kept, loaded.total) == (54, 108)
    assert answer["options"]["keep_ratio"] == 0.5
    assert answer["scaling"] == "0-1"
    kernel = keras.models.load_model(output).get_layer("conv").kernel
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(kernel) != 0, loaded.masks["conv/kernel"])


def test_keep_head_keeps_it(teacher: Path, images: Path, tmp_path: Path) -> None:
    assert run("slice", teacher, "--data", images, "--keep-head", "-o", tmp_path / "s.keras").exit_code == 0
    old, new = (keras.models.load_model(path) for path in (teacher, tmp_path / "s.keras"))
    np.testing.assert_array_equal(old.get_layer("logits").get_weights()[0], new.get_layer("logits").get_weights()[0])


def test_a_profile_is_made_merged_inspected_and_sliced(teacher: Path, tmp_path: Path) -> None:
    data = arrays(tmp_path / "data.npz")
    for name in ("a.npz", "b.npz"):
        result = run("profile", teacher, "--data", data, "-o", tmp_path / name, "--preprocess", "0-1")
        assert result.exit_code == 0, result.output
    result = run("profile", "merge", tmp_path / "a.npz", tmp_path / "b.npz", "-o", tmp_path / "c.npz")
    assert result.exit_code == 0, result.output
    one, two = CoverageProfile.load(tmp_path / "a.npz"), CoverageProfile.load(tmp_path / "c.npz")
    assert two.num_samples == 2 * one.num_samples == 24
    np.testing.assert_array_equal(two.layers["conv/kernel"].outputs, 2 * one.layers["conv/kernel"].outputs)
    shown = told(run("inspect", tmp_path / "c.npz", "--json"))
    assert (shown["kind"], shown["num_samples"]) == ("profile", 24)
    result = run("slice", teacher, "--profile-file", tmp_path / "c.npz", "--slice-file", tmp_path / "s.npz")
    assert result.exit_code == 0, result.output
    assert "the teacher's head" in result.stdout
    assert told(run("inspect", tmp_path / "s.npz", "--json"))["kind"] == "slice"


def test_inspect_shows_a_model(teacher: Path) -> None:
    shown = told(run("inspect", teacher, "--json"))
    assert [kernel["path"] for kernel in shown["kernels"]] == ["conv/kernel"]
    assert {entry["path"] for entry in shown["skipped"]} == {"bn", "logits"}
    assert "108 of" in run("inspect", teacher).stdout


def test_a_corrupt_image_is_named_and_left_out(teacher: Path, images: Path, tmp_path: Path) -> None:
    (images / "cat" / "bad.png").write_bytes(b"no image")
    reading = ("--workers", 3, "--cache", "memory", "--decoding", "full")
    result = run("slice", teacher, "--data", images, "-o", tmp_path / "s.keras", *reading)
    assert result.exit_code == 0, result.output
    assert "bad.png" in result.stderr
    assert "15 samples" in result.stdout
    strict = run("slice", teacher, "--data", images, "-o", tmp_path / "t.keras", "--strict")
    assert strict.exit_code == 1
    assert "bad.png" in strict.stderr
    assert not (tmp_path / "t.keras").exists()


def lambda_teacher(folder: Path) -> Path:
    model = keras.Sequential([keras.Input((4,)), keras.layers.Lambda(lambda x: x + 1), keras.layers.Dense(2)])
    model.save(folder / "bad.keras")
    return folder / "bad.keras"


def truncated_teacher(folder: Path) -> Path:
    whole = save_teacher(folder / "whole.keras").read_bytes()
    (folder / "bad.keras").write_bytes(whole[: len(whole) // 2])
    return folder / "bad.keras"


def flipped_teacher(folder: Path) -> Path:
    whole = bytearray(save_teacher(folder / "whole.keras").read_bytes())
    with zipfile.ZipFile(folder / "whole.keras") as archive:
        entry = archive.getinfo("model.weights.h5")
    whole[entry.header_offset + 200] ^= 0xFF
    (folder / "bad.keras").write_bytes(whole)
    return folder / "bad.keras"


def file(name: str, content: bytes) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return write


def unbuilt_teacher(folder: Path) -> Path:
    with pytest.warns(UserWarning, match="not yet been built"):
        keras.Sequential([keras.layers.Dense(3)]).save(folder / "bad.keras")
    return folder / "bad.keras"


def nothing_to_slice(folder: Path) -> Path:
    inputs = keras.Input((8, 8, 3))
    outputs = keras.layers.GlobalAveragePooling2D()(keras.layers.BatchNormalization()(inputs))
    keras.Model(inputs, outputs).save(folder / "bad.keras")
    return folder / "bad.keras"


def nan_teacher(folder: Path) -> Path:
    model = keras.models.load_model(save_teacher(folder / "whole.keras"))
    weights = model.get_weights()
    weights[0][0, 0, 0, 0] = np.nan
    model.set_weights(weights)
    model.save(folder / "bad.keras")
    return folder / "bad.keras"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: folder / "none.keras", "no teacher at"),
        (truncated_teacher, "truncated or damaged"),
        (flipped_teacher, "damaged"),
        (file("bad.keras", b"noise" * 100), "no .keras file"),
        (file("bad.keras", b""), "no .keras file"),
        (file("bad.pkl", b"\x80\x04K\x01."), "pickle"),
        (file("bad.h5", b"\x89HDF\r\n\x1a\n" + bytes(100)), "HDF5"),
        (lambda_teacher, "Lambda"),
        (lambda folder: folder, "config.json"),
        (nothing_to_slice, "can be sliced"),
        (unbuilt_teacher, "built"),
        (nan_teacher, "NaN"),
    ],
)
def test_a_bad_teacher_is_refused_in_one_line(tmp_path: Path, make: Callable, message: str) -> None:
    data = arrays(tmp_path / "data.npz")
    output = tmp_path / "out.keras"
    result = run("slice", make(tmp_path), "--data", data, "-o", output)
    assert result.exit_code == 1, result.output
    assert message in result.stderr
    assert len([line for line in result.stderr.splitlines() if line.startswith("Error")]) == 1
    assert not output.exists()
    assert not left_over(tmp_path)


def one_class(folder: Path) -> Path:
    (folder / "set" / "only").mkdir(parents=True)
    pytest.importorskip("PIL.Image", reason="needs Pillow").new("RGB", (8, 8)).save(folder / "set" / "only" / "a.png")
    return folder / "set"


def empty(folder: Path) -> Path:
    (folder / "set").mkdir()
    return folder / "set"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: folder / "none", "there is no such file or folder"),
        (empty, "Received: none"),
        (one_class, "two or more classes"),
        (lambda folder: arrays(folder / "d.npz", x=np.zeros((0, 8, 8, 3))), "expected samples"),
        (lambda folder: arrays(folder / "d.npz", x=np.zeros((12, 8, 8, 1), np.uint8)), "(8, 8, 1)"),
        (lambda folder: arrays(folder / "d.npz", x=np.zeros((12, 9, 9, 3), np.uint8)), "(9, 9, 3)"),
        (lambda folder: arrays(folder / "d.npz", x=np.full((12, 8, 8, 3), np.nan)), "NaN"),
        (file("d.csv", b"text,label\nhello,1\nworld,0\n"), "tokenizer"),
        (file("d.csv", b"prose,label\nhello,1\nworld,0\n"), "column"),
        (file("d.npz", b"PK\x03\x04"), "damaged"),
    ],
)
def test_bad_data_is_refused_in_one_line(teacher: Path, tmp_path: Path, make: Callable, message: str) -> None:
    output = tmp_path / "out.keras"
    result = run("slice", teacher, "--data", make(tmp_path), "-o", output)
    assert result.exit_code == 1, result.output
    assert message.lower() in result.stderr.lower()
    assert not output.exists()
    assert not left_over(tmp_path)


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--data", "x", "--keep-ratio", "0"],
        ["--data", "x", "--keep-ratio", "1.01"],
        ["--data", "x", "--preset", "best"],
        ["--data", "x", "--image-size", "big"],
        ["--data", "x", "-o", "student.h5"],
        ["--data", "x", "--keep-head", "--num-classes", "3"],
        ["--data", "x", "--profile-file", "y"],
        ["--data", "x", "--backend", "theano"],
    ],
)
def test_wrong_usage_exits_with_2(teacher: Path, options: list[str]) -> None:
    result = run("slice", teacher, *options)
    assert result.exit_code == 2, result.output
    assert "Error" in result.stderr


def test_an_existing_file_is_replaced_only_by_force(teacher: Path, tmp_path: Path) -> None:
    data, output = arrays(tmp_path / "data.npz"), tmp_path / "s.keras"
    output.write_text("precious")
    refused = run("slice", teacher, "--data", data, "-o", output)
    assert refused.exit_code == 1
    assert "--force" in refused.stderr
    assert output.read_text() == "precious"
    assert run("slice", teacher, "--data", data, "-o", output, "--force").exit_code == 0
    assert zipfile.is_zipfile(output)


def test_files_of_another_model_or_damaged_are_refused(teacher: Path, tmp_path: Path) -> None:
    profile = tmp_path / "p.npz"
    assert run("profile", teacher, "--data", arrays(tmp_path / "data.npz"), "-o", profile).exit_code == 0
    other = save_teacher(tmp_path / "other.keras", seed=9)
    result = run("slice", other, "--profile-file", profile, "-o", tmp_path / "o.keras")
    assert result.exit_code == 1
    assert "'conv'" in result.stderr
    profile.write_bytes(profile.read_bytes()[:-30])
    result = run("inspect", profile)
    assert result.exit_code == 1
    assert "damaged" in result.stderr


@pytest.mark.parametrize(
    ("failure", "message"),
    [(OSError(28, "No space left on device"), "No space left"), (KeyboardInterrupt(), "half-written")],
)
def test_a_failed_write_leaves_nothing(
    teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: BaseException, message: str
) -> None:
    def fail(self: keras.Model, path: Path) -> None:
        Path(path).write_bytes(b"half")
        raise failure

    monkeypatch.setattr(keras.Model, "save", fail)
    output = tmp_path / "s.keras"
    result = run("slice", teacher, "--data", arrays(tmp_path / "data.npz"), "-o", output)
    assert result.exit_code == 1
    assert message in result.stderr
    assert not output.exists()
    assert not left_over(tmp_path)


def test_a_write_is_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "file.npz"
    with pytest.raises(RuntimeError), saving.replacing(target) as temporary:
        temporary.write_bytes(b"half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["slice", "--help"], ["profile", "count", "--help"]])
def test_help_does_not_import_keras(arguments: list[str]) -> None:
    code = (
        "import sys\nfrom keras_remos_cli import main\n"
        f"try:\n    main({arguments!r})\nexcept SystemExit as stop:\n    assert not stop.code\n"
        "assert 'keras' not in sys.modules and 'numpy' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_installed_program_runs() -> None:
    program = Path(sys.executable).with_name("keras-remos")
    done = subprocess.run([program, "inspect", "no.keras"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    assert "Error: There is no teacher at no.keras" in done.stderr
