"""Teachers by the names that they are published under: what Keras does with them, and what is said where it cannot."""

import urllib.error
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import toys
from keras import layers as kl
from shell import run, told

import keras_remos
from keras_remos import RelevantSlicer, load_teacher, open_for_model, save_student
from keras_remos.errors import TeacherError
from keras_remos.models.published import applications
from keras_remos.untrusted import read_record

NAME = "keras.applications/MobileNet"


def mobile_net(weights: str | None = None) -> keras.Model:
    """As `keras.applications` builds one, but for its size: its name tells how its inputs are scaled."""
    assert weights == "imagenet"
    print("Downloading data from https://example.org")
    x = keras.Input((8, 8, 3))
    h = kl.GlobalAveragePooling2D()(kl.Conv2D(6, 3, activation="relu", name="conv1")(x))
    return toys.fill(keras.Model(x, kl.Dense(10, activation="softmax", name="predictions")(h), name="mobilenet_1.00_8"))


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(keras.applications, "MobileNet", mobile_net)
    monkeypatch.chdir(tmp_path)


def photos(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    np.savez(folder / "photos.npz", x=rng.integers(0, 256, (12, 8, 8, 3), np.uint8), y=np.arange(12) % 3)
    return folder / "photos.npz"


@pytest.mark.usefixtures("small")
def test_a_published_model_is_a_teacher_like_any_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    teacher = load_teacher(NAME)
    assert teacher.output_shape == (None, 10)
    captured = capsys.readouterr()
    assert "Downloading" in captured.err and not captured.out
    # Whatever the statistics of these images: its scaling is known.
    found = open_for_model(teacher, photos(tmp_path))
    assert found.scaling == "-1-1" and NAME in found.reason
    student = RelevantSlicer(teacher).apply(found.dataset, num_classes=3, verbose=False)
    save_student(student, tmp_path / "student.keras", teacher=teacher)
    assert read_record(tmp_path / "student.keras")["teacher_name"] == NAME
    assert load_teacher(Path(NAME)).name == "mobilenet_1.00_8"


@pytest.mark.usefixtures("small")
def test_what_lies_at_a_path_comes_first(tmp_path: Path) -> None:
    (tmp_path / "keras.applications").mkdir()
    (tmp_path / NAME).write_text("mine")
    with pytest.raises(TeacherError, match=r"is no \.keras file"):
        load_teacher(NAME)
    (tmp_path / NAME).unlink()
    (tmp_path / NAME).mkdir()
    with pytest.raises(TeacherError, match=r"no preset folder: it has no config\.json"):
        load_teacher(NAME)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("keras.applications/resnet50", "keras.applications/ResNet50"),
        ("keras.application/VGG18", "keras.applications/VGG1"),
        ("MobileNetV2", "keras.applications/MobileNetV2"),
    ],
)
def test_names_that_are_nearly_right(name: str, meant: str) -> None:
    with pytest.raises(
        TeacherError, match=f"There is no teacher at {name}: expected a .keras file.*Close to it: {meant}"
    ):
        load_teacher(name)


def test_names_that_nobody_knows() -> None:
    for name in ("missing.keras", "ftp://example.org/model", "folder/none"):
        with pytest.raises(TeacherError) as error:
            load_teacher(name)
        assert "Close" not in str(error.value) and "KerasHub is" not in str(error.value)


def test_every_model_of_keras_is_known() -> None:
    assert {f"keras.applications/{name}" for name in ("ResNet50", "VGG16", "EfficientNetV2B0", "ConvNeXtTiny")} <= set(
        applications()
    )
    assert all(callable(build) for build in applications().values())


@pytest.mark.parametrize("offline", [True, False])
def test_downloads_that_fail_are_one_line(offline: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def build(weights: str) -> Any:
        try:
            raise ConnectionRefusedError("refused") if offline else urllib.error.HTTPError("u", 404, "gone", {}, None)
        except OSError:
            raise Exception("URL fetch failure on https://example.org\nin detail") from None  # as Keras does

    monkeypatch.setattr(keras.applications, "MobileNet", build)
    result = run("inspect", NAME)
    assert result.exit_code == 1 and not result.stdout
    [line] = result.stderr.strip().splitlines()[-1:]
    assert "URL fetch failure on https://example.org. " in line and "model.save('teacher.keras')" in line
    assert ("there is no network" in line) is offline


@pytest.mark.usefixtures("small")
def test_commands_take_names(tmp_path: Path) -> None:
    result = run("inspect", NAME, "--json")
    assert result.exit_code == 0, result.stderr
    assert told(result)["kind"] == "model"
    data = photos(tmp_path)
    for command, made in {"slice": "MobileNet.student.keras", "profile": "MobileNet.profile.npz"}.items():
        result = run(command, NAME, "--data", data)
        assert result.exit_code == 0, result.stderr
        assert (tmp_path / made).is_file()
    record = read_record(tmp_path / "MobileNet.student.keras")
    assert record["teacher_name"] == NAME and record["space"]["scaling"] == "-1-1"


@pytest.mark.once
def test_keras_finds_its_weights_in_its_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keras.src.utils.file_utils.config.keras_home", lambda: str(tmp_path))
    made = keras.applications.MobileNet(weights=None)
    (tmp_path / "models").mkdir()
    made.save(tmp_path / "models" / "weights.h5")
    (tmp_path / "models" / "weights.h5").rename(tmp_path / "models" / "mobilenet_1_0_224_tf.h5")
    teacher = load_teacher(NAME)
    assert teacher.output_shape == (None, 1000)
    for theirs, ours in zip(made.get_weights(), teacher.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert keras_remos.data.scaling.guess_scaling(teacher)[0] == "-1-1"
