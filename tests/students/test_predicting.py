"""Students in use: what their files say, and which classes they name for files, tables and arrays."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import toys
from shell import run, told

import keras_remos as kr
from keras_remos.saving import save_model
from keras_remos.students import Predictions
from keras_remos.students.scoring import Scorer
from keras_remos.untrusted import read_record

# With what a table, a terminal and a CSV file may stumble over.
NAMES = ("dachshund, long-haired", 'größe "7"', "名\n前")
SIDE = 8


def classifier(*, channels_first: bool = False, softmax: bool = False, side: int | None = SIDE) -> keras.Model:
    where = "channels_first" if channels_first else "channels_last"
    inputs = keras.Input((3, side, side) if channels_first else (side, side, 3))
    h = keras.layers.Conv2D(4, 3, data_format=where, name="conv", activation="relu")(inputs)
    h = keras.layers.GlobalAveragePooling2D(data_format=where)(h)
    head = keras.layers.Dense(3, activation="softmax" if softmax else None, name="head")
    return toys.fill(keras.Model(inputs, head(h), name="small"))


def pixels(count: int = 5, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, SIDE, SIDE, 3), dtype=np.uint8)


def expected(model: keras.Model, x: np.ndarray, scaling: str = "imagenet") -> np.ndarray:
    scores = toys.numpy(model(kr.PixelSpace(scaling).scale(x), training=False))
    exponent = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return exponent / exponent.sum(axis=-1, keepdims=True)


def save_image(path: Path, picture: np.ndarray) -> Path:
    image = pytest.importorskip("PIL.Image", reason="needs Pillow")
    path.parent.mkdir(parents=True, exist_ok=True)
    image.fromarray(picture).save(path)
    return path


@pytest.fixture
def saved(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "student.keras"
    kr.save_student(classifier(), path, class_names=NAMES, space=kr.PixelSpace("imagenet"), teacher=classifier())
    return path


# --- what a file says -------------------------------------------------------------------------------------------------


def test_a_student_knows_what_its_file_says(saved: Path) -> None:
    student = kr.load_student(saved)
    assert (student.class_names, student.image_size, student.missing) == (NAMES, (SIDE, SIDE), ())
    assert student.space == kr.PixelSpace("imagenet")
    assert student.record["teacher_name"] == "small" and student.record["versions"]["keras"] == keras.__version__


def test_arrays_of_what_is_scaled_already_are_left_as_they_are(tmp_path: Path) -> None:
    """Some of standardized samples lie between 0 and 1 by chance."""
    kr.save_student(classifier(), tmp_path / "s.keras", space=kr.PixelSpace("none"))
    student = kr.load_student(tmp_path / "s.keras")
    x = np.random.default_rng(0).uniform(size=(3, SIDE, SIDE, 3)).astype(np.float32)
    np.savez(tmp_path / "x.npz", x=x)
    said = student.predict(tmp_path / "x.npz").probabilities
    np.testing.assert_allclose(said, student.predict(x).probabilities, atol=1e-6)


@pytest.mark.once
def test_what_does_not_fit_is_said(saved: Path) -> None:
    student = kr.load_student(saved)
    with pytest.raises(kr.DataError, match="`batch_size` to be a whole number"):
        student.predict(pixels(), batch_size=0)
    with pytest.raises(kr.DataError, match="a list of arrays"):
        student.predict(list(pixels()))
    with pytest.raises(kr.DataError, match="takes images of 8 x 8"):
        kr.load_student(saved, image_size=(4, 4))


def test_what_open_for_model_found_goes_into_the_file(tmp_path: Path) -> None:
    for name in ("cat", "dog", "emu"):
        save_image(tmp_path / "data" / name / "0.png", pixels(1)[0])
    teacher = classifier(side=None)
    found = kr.open_for_model(teacher, tmp_path / "data", image_size=(9, 7), scaling="-1-1")
    student = kr.RelevantSlicer(teacher, keep_ratio=0.5).apply(found.dataset, num_classes=3, verbose=False)
    kr.save_student(student, tmp_path / "s.keras", data=found, teacher=teacher)
    record = read_record(tmp_path / "s.keras")
    assert (record["class_names"], record["image_size"]) == (["cat", "dog", "emu"], [9, 7])
    assert (record["space"]["scaling"], record["slice"]["keep_ratio"]) == ("-1-1", 0.5)
    assert kr.load_student(tmp_path / "s.keras").predict(tmp_path / "data").inputs[2].endswith("0.png")


@pytest.mark.once
def test_a_trained_student_carries_method_and_recipe(tmp_path: Path) -> None:
    x, y = pixels(6).astype(np.float32), np.arange(6) % 3
    recipe = kr.Recipe(epochs=1, batch_size=6, learning_rate=0.01)
    trained = kr.train("finetune", classifier(), (x, y), recipe=recipe, verbose=False)
    record = kr.save_student(trained, tmp_path / "s.keras", space=kr.PixelSpace(), class_names=NAMES)
    assert (record["method"], record["recipe"]["epochs"], record["image_size"]) == ("finetune", 1, [SIDE, SIDE])
    assert read_record(tmp_path / "s.keras") == json.loads(json.dumps(record))


def test_a_plain_file_says_what_is_missing_and_takes_it(tmp_path: Path) -> None:
    model, photo = classifier(), save_image(tmp_path / "a.png", pixels(1)[0])
    model.save(tmp_path / "plain.keras")
    student = kr.load_student(tmp_path / "plain.keras")
    assert student.missing == (
        "how its inputs are scaled (`scaling`)",
        "what its classes are called (`class_names`)",
    )
    with pytest.raises(kr.DataError, match=r"plain.keras does not say how its inputs are scaled \(`scaling`\)"):
        student.predict(photo)
    told = kr.load_student(tmp_path / "plain.keras", scaling="imagenet", class_names=NAMES)
    assert told.missing == () and told.predict(photo).classes[0] in NAMES
    classifier(side=None).save(tmp_path / "free.keras")
    free = kr.load_student(tmp_path / "free.keras", scaling="none")
    assert "how large its images are (`image_size`)" in free.missing
    with pytest.raises(kr.DataError, match="`image_size`"):
        free.predict(photo)
    assert kr.load_student(tmp_path / "free.keras", scaling="none", image_size=(9, 7)).predict(photo).classes


def test_as_many_names_as_classes(tmp_path: Path) -> None:
    model = classifier()
    model.save(tmp_path / "plain.keras")
    with pytest.raises(kr.DataError, match="a name for each of the 3 classes"):
        kr.load_student(tmp_path / "plain.keras", class_names=["a"])
    save_model(model, tmp_path / "s.keras", {"class_names": ["a"]})
    with pytest.raises(kr.FileError, match="names for 1 classes, and its model tells 3 apart"):
        kr.load_student(tmp_path / "s.keras")
    save_model(model, tmp_path / "s.keras", {"class_names": ["a"], "defect": "patch-backdoor"}, overwrite=True)
    assert kr.load_student(tmp_path / "s.keras").class_names == ()


# --- what it says -----------------------------------------------------------------------------------------------------


def test_files_folders_tables_and_arrays_give_the_same(saved: Path, tmp_path: Path) -> None:
    x = pixels()
    files = [save_image(tmp_path / "in" / f"{'deeper/' * number}{number}.png", x[number]) for number in range(3)]
    wanted = expected(classifier(), x)
    (tmp_path / "t.csv").write_text("path,label\n" + "".join(f"{file.as_posix()},?\n" for file in files))
    np.savez(tmp_path / "levels.npz", x=x)
    np.savez(tmp_path / "shares.npz", x=x / np.float32(255))
    student = kr.load_student(saved)
    for inputs, count in (
        (files[0], 1),
        (files, 3),
        (tmp_path / "in", 3),
        (tmp_path / "t.csv", 3),
        (tmp_path / "levels.npz", 5),
        (tmp_path / "shares.npz", 5),
        (x, 5),
        (x.astype(np.float32), 5),
    ):
        found = student.predict(inputs, batch_size=2, top=9)
        np.testing.assert_allclose(found.probabilities, wanted[:count], atol=1e-5)
        assert len(found) == count and found.classes == [NAMES[number] for number in wanted[:count].argmax(axis=-1)]
    both = student.predict([tmp_path / "levels.npz", files[2]])
    assert both.inputs == (*(f"{tmp_path / 'levels.npz'}[{number}]" for number in range(5)), str(files[2]))
    np.testing.assert_allclose(both.probabilities, wanted[[0, 1, 2, 3, 4, 2]], atol=1e-5)


@pytest.mark.parametrize("recorded", [(0.0, 1.0, "none"), (-1.0, 1.0, "none"), (0.0, 1.0, "imagenet")])
def test_files_are_scaled_as_the_arrays_were(recorded: tuple[float, float, str], tmp_path: Path) -> None:
    low, high, scaling = recorded
    model, x = classifier(), pixels(2)
    space = kr.PixelSpace(scaling, low, high)
    kr.save_student(model, tmp_path / "s.keras", space=space)
    student = kr.load_student(tmp_path / "s.keras")
    stored = (x / 255 * (high - low) + low).astype(np.float32)
    by_hand = Scorer(model, "it")(stored, space, 2)
    np.testing.assert_allclose(student.predict(stored).probabilities, by_hand, atol=1e-6)
    files = [save_image(tmp_path / f"{number}.png", x[number]) for number in range(2)]
    np.testing.assert_allclose(student.predict(files).probabilities, by_hand, atol=1e-5)


def test_channels_in_front_and_probabilities(tmp_path: Path) -> None:
    x, model = pixels(3), classifier(channels_first=True, softmax=True)
    space = kr.PixelSpace("caffe", data_format="channels_first")
    kr.save_student(model, tmp_path / "s.keras", space=space)
    in_front = np.moveaxis(x, -1, 1)
    wanted = toys.numpy(model(space.scale(in_front), training=False))
    np.savez(tmp_path / "front.npz", x=in_front)
    np.savez(tmp_path / "last.npz", x=x)
    student = kr.load_student(tmp_path / "s.keras")
    files = [save_image(tmp_path / f"{number}.png", x[number]) for number in range(3)]
    for inputs in (files, tmp_path / "front.npz", tmp_path / "last.npz", in_front):
        np.testing.assert_allclose(student.predict(inputs).probabilities, wanted, atol=1e-5)


def test_a_damaged_image_is_left_out_and_named(saved: Path, tmp_path: Path) -> None:
    good, bad = save_image(tmp_path / "in" / "a.png", pixels(1)[0]), tmp_path / "in" / "b.png"
    bad.write_bytes(b"no image")
    student = kr.load_student(saved)
    found = student.predict(tmp_path / "in")
    assert found.inputs == (str(good),) and [path for path, _ in found.skipped] == [str(bad)]
    with pytest.raises(kr.DataError, match="strict"):
        student.predict(tmp_path / "in", strict=True)
    with pytest.raises(kr.DataError, match=r"none can be read .*b.png"):
        student.predict(bad)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ("none.png", "no file"),
        ([], "at least one path"),
        ("empty", "Expected images in"),
        ("a.txt", "an image, a folder of images, a table or an .npz"),
        (np.zeros((2, 5, 5, 3)), "takes images of shape 8 x 8 x 3"),
        (np.zeros((0, 8, 8, 3)), "at least one sample"),
        (np.array(["a fine film"]), "brings no tokenizer"),
    ],
)
def test_what_is_no_sample(inputs: Any, message: str, saved: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.txt").write_text("x")
    given = tmp_path / inputs if isinstance(inputs, str) else inputs
    with pytest.raises(kr.DataError, match=message):
        kr.load_student(saved).predict(given)


def test_predictions_as_a_table(tmp_path: Path) -> None:
    found = Predictions(("a,b", "ü"), np.array([[0.2, 0.5, 0.3], [1, 0, 0]], np.float32), NAMES, top=2)
    assert found.likeliest()[0] == [(NAMES[1], 0.5), (NAMES[2], pytest.approx(0.3))]
    assert len(found.summary().splitlines()) == 2
    found.save_csv(tmp_path / "o.csv")
    with (tmp_path / "o.csv").open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["input", "class_1", "probability_1", "class_2", "probability_2"]
    assert rows == [["a,b", NAMES[1], "0.5", NAMES[2], "0.3"], ["ü", NAMES[0], "1", NAMES[1], "0"]]


@pytest.mark.text
def test_texts(tmp_path: Path) -> None:
    import text_toys

    model, (texts, _) = text_toys.bert(), text_toys.sentences(6)
    space = kr.PixelSpace("preprocessor")
    kr.save_student(model, tmp_path / "s.keras", class_names=["bad", "good"], space=space)
    student = kr.load_student(tmp_path / "s.keras")
    wanted = [("bad", "good")[number] for number in text_toys.classes(model, texts)]
    table = tmp_path / "t.tsv"
    table.write_text("\n".join(["sentence\tlabel", *(f"{text}\tof one class" for text in texts)]), encoding="utf-8")
    assert student.missing == () and student.predict(texts).classes == wanted
    assert student.predict(table, batch_size=4).classes == wanted
    shown = run("predict", tmp_path / "s.keras", "--text", texts[0], "--text", texts[1], "--json")
    assert [each["top"][0]["class"] for each in told(shown)["predictions"]] == wanted[:2]
    assert told(shown)["predictions"][0]["input"] == texts[0]


# --- in the shell -----------------------------------------------------------------------------------------------------


def test_predict_in_the_shell(saved: Path, tmp_path: Path) -> None:
    x = pixels(2)
    files = [save_image(tmp_path / "in" / f"{number}.png", x[number]) for number in range(2)]
    wanted = expected(classifier(), x)
    result = run("predict", saved, *files, "--top", 1, "--csv", tmp_path / "o.csv", "--json")
    assert result.exit_code == 0, result.output
    said = told(result)["predictions"]
    assert [each["top"][0]["class"] for each in said] == [NAMES[number] for number in wanted.argmax(axis=-1)]
    with (tmp_path / "o.csv").open(encoding="utf-8", newline="") as file:
        assert [row["class_1"] for row in csv.DictReader(file)] == [each["top"][0]["class"] for each in said]
    assert run("predict", saved, files[0], "--csv", tmp_path / "o.csv").exit_code == 1
    shown = run("predict", saved, files[0]).stdout
    assert shown.count("%") == 3 and r"名\x0a前" in shown


def test_predict_in_the_shell_with_a_plain_file(tmp_path: Path) -> None:
    classifier().save(tmp_path / "plain.keras")
    photo = save_image(tmp_path / "a.png", pixels(1)[0])
    refused = run("predict", tmp_path / "plain.keras", photo)
    assert refused.exit_code == 1
    assert "plain.keras does not say how its inputs are scaled (--preprocess): say it" in refused.stderr
    assert "--class-names" in refused.stderr
    (tmp_path / "names.txt").write_text("cat\ndog\nemu\n")
    how = ["--preprocess", "imagenet", "--class-names", tmp_path / "names.txt"]
    told = run("predict", tmp_path / "plain.keras", photo, *how)
    assert told.exit_code == 0 and "emu" in told.stdout and not told.stderr.strip()
    for wrong in ([], [photo, "--text", "a"]):
        assert run("predict", tmp_path / "plain.keras", *wrong).exit_code == 2
