"""Models that take strings: Keras runs them on TensorFlow, where they are sliced and trained as others are."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import toys
from keras import layers as kl
from shell import run

from keras_remos import Recipe, RelevantSlicer, TeacherError, describe_model, train
from keras_remos.models.inputs import runs_on_tokens

on_tensorflow = keras.backend.backend() == "tensorflow"
TEXTS = np.array(["a good film", "a bad film", "good good", "what a bad day", "film"] * 3)
LABELS = np.array([1, 0, 1, 0, 1] * 3)


def reader(shape: tuple[int, ...], *layers: keras.Layer) -> keras.Model:
    vectorize = kl.TextVectorization(max_tokens=12, output_sequence_length=5, name="vectorize")
    vectorize.adapt(TEXTS)
    x = keras.Input(shape, dtype="string", name="texts")
    h = kl.Embedding(12, 6, name="table")(vectorize(x))
    for layer in layers:
        h = layer(h)
    h = kl.GlobalAveragePooling1D()(h)
    h = kl.Dense(6, activation="relu", name="dense")(h)
    return toys.fill(keras.Model(x, kl.Dense(3, activation="softmax", name="head")(h)))


def with_numbers() -> keras.Model:
    lookup = kl.StringLookup(output_mode="one_hot", name="lookup")
    lookup.adapt(TEXTS)
    word, number = keras.Input((1,), dtype="string", name="word"), keras.Input((2,), name="number")
    h = kl.Dense(6, activation="relu", name="dense")(kl.Concatenate()([lookup(word), number]))
    return toys.fill(keras.Model({"word": word, "number": number}, kl.Dense(3, activation="softmax", name="head")(h)))


NUMBERS = np.random.default_rng(0).normal(size=(len(TEXTS), 2)).astype("float32")
READERS: dict[str, Any] = {
    "texts": (lambda: reader(()), TEXTS, ["table/embeddings", "dense/kernel"]),
    "texts in a column": (lambda: reader((1,)), TEXTS[:, None], ["table/embeddings", "dense/kernel"]),
    "words and numbers": (with_numbers, {"word": TEXTS[:, None], "number": NUMBERS}, ["dense/kernel"]),
}


@pytest.mark.skipif(not on_tensorflow, reason="Keras' layers that read strings need TensorFlow")
@pytest.mark.parametrize("name", READERS)
def test_they_are_sliced_and_trained_on_tensorflow(name: str, tmp_path: Path) -> None:
    build, x, kernels = READERS[name]
    model = build()
    assert [path for path, *_ in describe_model(model).kernels] == kernels
    slicer = RelevantSlicer(model, keep_ratio=0.5)
    chosen = slicer.slice(slicer.profile(x, batch_size=4, verbose=False))
    assert list(chosen.masks) == kernels
    whole = RelevantSlicer(model, keep_ratio=1.0).apply(x, verbose=False)
    np.testing.assert_allclose(toys.numpy(whole(x)), toys.numpy(model(x)), atol=1e-6)
    student = chosen.apply(model, num_classes=2)
    student.save(tmp_path / "student.keras")
    opened = keras.saving.load_model(tmp_path / "student.keras")
    np.testing.assert_allclose(toys.numpy(opened(x)), toys.numpy(student(x)), atol=1e-6)
    if name == "texts in a column":
        return  # that is trained in the shell, below
    trained = train("remos", model, (x, LABELS), verbose=False, recipe=Recipe(epochs=2, batch_size=4))
    assert trained.student(x).shape == (len(TEXTS), 2)


@pytest.mark.skipif(not on_tensorflow, reason="Keras' layers that read strings need TensorFlow")
@pytest.mark.parametrize("shape", [(), (1,)])
def test_one_that_reads_tokens_one_beside_the_other_is_of_language(shape: tuple[int, ...]) -> None:
    assert not runs_on_tokens(reader(shape))  # it pools them first
    assert runs_on_tokens(reader(shape, kl.Conv1D(6, 2)))


@pytest.mark.skipif(not on_tensorflow, reason="Keras' layers that read strings need TensorFlow")
def test_a_table_of_texts_is_profiled_and_trained_on_in_the_shell(tmp_path: Path) -> None:
    reader((1,)).save(tmp_path / "teacher.keras")
    rows = [f"{text}\t{'good' if label else 'bad'}" for text, label in zip(TEXTS, LABELS, strict=True)]
    (tmp_path / "train.tsv").write_text("\n".join(["text\tlabel", *rows]), encoding="utf-8")
    for command, options in {
        "slice": ("-o", "student.keras"),
        "transfer": ("-o", "tuned.keras", "--epochs", 1, "--budget", 1),
    }.items():
        flag, out, *more = options
        done = run(command, tmp_path / "teacher.keras", "--data", tmp_path / "train.tsv", flag, tmp_path / out, *more)
        assert done.exit_code == 0, done.stderr


class Length(kl.Layer):
    """Reads strings as far as its shapes say."""

    def call(self, x: Any) -> Any:
        raise NotImplementedError

    def compute_output_spec(self, x: Any) -> Any:
        return keras.KerasTensor((None, 1), "float32")


@pytest.mark.skipif(on_tensorflow, reason="Keras runs them on TensorFlow")
def test_elsewhere_one_line_says_that_keras_does_not_run_them() -> None:
    x = keras.Input((1,), dtype="string")
    model = keras.Model(x, kl.Dense(2, name="head")(kl.Dense(3, activation="relu")(Length()(x))))
    for use in (describe_model, RelevantSlicer, lambda model: train("remos", model, (TEXTS[:, None], LABELS))):
        with pytest.raises(TeacherError, match="takes strings.*on TensorFlow only.*KERAS_BACKEND=tensorflow"):
            use(model)
