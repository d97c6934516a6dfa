"""Students in other formats: the same classes from raw pixels, and one line for what cannot be written."""

import json
import re
import tempfile
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
import toys
from faults import disk_full_at
from shell import run, told
from test_predicting import NAMES, classifier, pixels

import keras_remos as kr
from keras_remos.students import exporting
from keras_remos.students.exporting import formats_here, serving_model

BACKEND = keras.backend.backend()
Serve = Callable[[np.ndarray], np.ndarray]


def student_in(
    folder: Path, scaling: str = "caffe", *, channels_first: bool = False, balanced_on: np.ndarray | None = None
) -> kr.Student:
    space = kr.PixelSpace(scaling, data_format="channels_first" if channels_first else "channels_last")
    model = classifier(channels_first=channels_first)
    if balanced_on is not None:  # so that each class is named for some
        scores = toys.numpy(model(space.scale(balanced_on), training=False))
        kernel, bias = model.get_layer("head").get_weights()
        spread = scores.std(axis=0)
        model.get_layer("head").set_weights([kernel / spread, (bias - np.median(scores, axis=0)) / spread])
    kr.save_student(model, folder / "student.keras", class_names=NAMES, space=space)
    return kr.load_student(folder / "student.keras")


@pytest.mark.parametrize("scaling", ["none", "-1-1", "caffe"])
@pytest.mark.parametrize("channels_first", [False, True])
def test_scaling_and_softmax_are_inside(scaling: str, channels_first: bool, tmp_path: Path) -> None:
    student = student_in(tmp_path, scaling, channels_first=channels_first)
    x = np.moveaxis(pixels(), -1, 1) if channels_first else pixels()
    model, [takes] = serving_model(student)
    said = toys.numpy(model(x.astype(np.float32), training=False))
    np.testing.assert_allclose(said, student.predict(x).probabilities, atol=1e-6)
    assert takes["pixel_range"] == [0, 255] and takes["shape"] == [None, *x.shape[1:]]


def test_arrays_of_shares_are_exported_for_files(tmp_path: Path) -> None:
    kr.save_student(classifier(), tmp_path / "s.keras", space=kr.PixelSpace("none", 0.0, 1.0))
    student = kr.load_student(tmp_path / "s.keras")
    model, [takes] = serving_model(student)
    x = pixels().astype(np.float32)
    said = toys.numpy(model(x, training=False))
    np.testing.assert_allclose(said, student.predict(x / 255).probabilities, atol=1e-5)
    assert takes["pixel_range"] == [0, 255]


def test_a_model_that_takes_its_input_in_a_list_or_by_name_is_scaled_all_the_same(tmp_path: Path) -> None:
    plain, image = classifier(), keras.Input((8, 8, 3), name="image")
    for number, inputs in enumerate(([image], {"image": image})):
        path = tmp_path / f"{number}.keras"
        kr.save_student(keras.Model(inputs, plain(image)), path, space=kr.PixelSpace("imagenet"))
        model, [takes] = serving_model(kr.load_student(path))
        said = toys.numpy(model(pixels().astype(np.float32), training=False))
        scores = toys.numpy(plain(kr.PixelSpace("imagenet").scale(pixels()), training=False))
        np.testing.assert_array_equal(said.argmax(axis=-1), scores.argmax(axis=-1))
        np.testing.assert_allclose(np.log(said[:, 1] / said[:, 0]), scores[:, 1] - scores[:, 0], rtol=1e-3, atol=1e-3)
        assert takes["pixel_range"] == [0, 255]


@pytest.mark.once
def test_a_folder_is_replaced_only_if_all_of_it_is_ours(tmp_path: Path) -> None:
    (tmp_path / "student.json").write_text('{"name": "Ada"}')
    assert not exporting.is_exported(tmp_path)
    (tmp_path / "student.json").write_text('{"kind": "exported student"}')
    (tmp_path / "model.onnx").touch()
    assert exporting.is_exported(tmp_path)
    (tmp_path / "thesis.txt").touch()
    assert not exporting.is_exported(tmp_path)


def of_saved_model(path: Path) -> Serve:
    loaded = pytest.importorskip("tensorflow").saved_model.load(str(path))
    return lambda x: loaded.serve(x).numpy()


def of_litert(path: Path) -> Serve:
    tensorflow = pytest.importorskip("tensorflow")
    interpreter = tensorflow.lite.Interpreter(model_path=str(path))
    interpreter.allocate_tensors()
    [taken], [made] = interpreter.get_input_details(), interpreter.get_output_details()

    def serve(x: np.ndarray) -> np.ndarray:
        interpreter.set_tensor(taken["index"], x)
        interpreter.invoke()
        return interpreter.get_tensor(made["index"])

    return lambda x: np.concatenate([serve(x[row : row + 1]) for row in range(len(x))])


def of_torch(path: Path) -> Serve:
    torch = pytest.importorskip("torch")
    program = torch.export.load(path).module()
    return lambda x: np.concatenate([program(torch.tensor(x[row : row + 1])).detach().numpy() for row in range(len(x))])


def of_onnx(path: Path) -> Serve:
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(str(path))
    [taken] = session.get_inputs()
    return lambda x: session.run(None, {taken.name: x})[0]


# OpenVINO takes too long to install for every run of the tests.
OPENERS = {
    "tf_saved_model": of_saved_model,
    "litert": of_litert,
    "torch": of_torch,
    "onnx": of_onnx,
}


# LiteRT's interpreter warns that it moves to another package; PyTorch of what it deprecates in itself.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", OPENERS)
def test_the_exported_model_names_the_same_classes(name: str, tmp_path: Path) -> None:
    if name not in formats_here():
        pytest.skip(f"{name} is not written on {BACKEND} with what is installed")
    x = pixels(100).astype(np.float32)
    student = student_in(tmp_path, balanced_on=x)
    exported = kr.export_student(student, tmp_path / "out", format=name)
    wanted = student.predict(x).probabilities
    said = OPENERS[name](exported.file)(x)
    assert np.bincount(wanted.argmax(axis=-1)).min() > 5
    np.testing.assert_array_equal(said.argmax(axis=-1), wanted.argmax(axis=-1))
    np.testing.assert_allclose(said, wanted, atol=1e-5)
    about = json.loads((tmp_path / "out" / "student.json").read_text(encoding="utf-8"))
    assert (about["class_names"], about["record"]["space"]["scaling"]) == (list(NAMES), "caffe")


def test_what_cannot_be_written_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    student = student_in(tmp_path)
    with pytest.raises(kr.StudentError, match="out of tf_saved_model, onnx, openvino, litert, torch.*'pickle'"):
        kr.export_student(student, tmp_path / "out", format="pickle")
    monkeypatch.setattr(
        exporting, "_NEEDED", {BACKEND: {"onnx": {"no_such_package": "no-such"}}, "other": {"litert": {}}}
    )
    with pytest.raises(kr.StudentError, match=f"litert on other only, not on {BACKEND}.*set KERAS_BACKEND=other"):
        kr.export_student(student, tmp_path / "out", format="litert")
    with pytest.raises(ImportError, match="needs no-such: pip install no-such"):
        kr.export_student(student, tmp_path / "out", format="onnx")
    monkeypatch.setattr(exporting, "_NEEDED", {BACKEND: {"onnx": {}}})
    monkeypatch.setattr(keras.Model, "export", lambda *_, **__: (_ for _ in ()).throw(ValueError("no such operator")))
    with pytest.raises(kr.StudentError, match=f"cannot write this student as onnx on {BACKEND} .*no such operator"):
        kr.export_student(student, tmp_path / "out", format="onnx")
    assert not (tmp_path / "out").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["student.keras"]


@pytest.mark.parametrize("wanted", ["tf_saved_model", "litert"])
def test_a_full_disk_is_named_in_one_line(wanted: str, tmp_path: Path) -> None:
    if BACKEND != "tensorflow" or wanted not in formats_here():
        pytest.skip("TensorFlow's errors are none of the system")
    student = student_in(tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "student.json").write_text('{"kind": "exported student"}')
    # LiteRT is made of a SavedModel, which is written elsewhere.
    where = tmp_path / "out" if wanted == "tf_saved_model" else Path(tempfile.gettempdir())
    with disk_full_at(3000), pytest.raises(kr.FileError, match=f"^{re.escape(str(where))}") as said:
        kr.export_student(student, tmp_path / "out", format=wanted, overwrite=True)
    assert "File too large" in str(said.value) and "Make room" in str(said.value) and "\n" not in str(said.value)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["student.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "student.keras"]


def test_what_does_not_say_how_it_is_scaled_is_not_exported(tmp_path: Path) -> None:
    classifier().save(tmp_path / "plain.keras")
    with pytest.raises(kr.DataError, match="plain.keras does not say how its inputs are scaled"):
        serving_model(kr.load_student(tmp_path / "plain.keras"))


def test_export_in_the_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    student_in(tmp_path)
    monkeypatch.setattr(exporting, "_NEEDED", {BACKEND: {"onnx": {}}})
    monkeypatch.setattr(keras.Model, "export", lambda _, path, **__: Path(path).write_bytes(b"x"))
    source, folder = tmp_path / "student.keras", tmp_path / "student.onnx"
    result = run("export", source, "--format", "onnx")
    assert result.exit_code == 0, result.output
    assert str(folder / "model.onnx") in result.stdout and "[None, 8, 8, 3]" in result.stdout
    refused = run("export", source, "--format", "onnx")
    assert refused.exit_code == 1 and "--force" in refused.stderr
    assert run("export", source, "--format", "onnx", "--force").exit_code == 0
    shown = told(run("inspect", folder, "--json"))
    assert shown["kind"] == "exported student" and shown["record"]["class_names"] == list(NAMES)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "photo.jpg").write_bytes(b"mine")
    refused = run("export", source, "--format", "onnx", "-o", tmp_path / "mine", "--force")
    assert refused.exit_code == 1 and (tmp_path / "mine" / "photo.jpg").read_bytes() == b"mine"


@pytest.mark.text
@pytest.mark.filterwarnings("ignore")
def test_a_language_model_is_exported_behind_its_tokenizer(tmp_path: Path) -> None:
    import text_toys

    space = kr.PixelSpace("preprocessor")
    kr.save_student(text_toys.bert(), tmp_path / "s.keras", class_names=["bad", "good"], space=space)
    student = kr.load_student(tmp_path / "s.keras")
    model, takes = serving_model(student)
    assert {each["name"] for each in takes} == {"padding_mask", "segment_ids", "token_ids"}
    texts, _ = text_toys.sentences(4)
    tokens = student.model.preprocess_samples(texts.tolist())
    np.testing.assert_allclose(
        toys.numpy(model(tokens, training=False)), student.predict(texts).probabilities, atol=1e-5
    )
