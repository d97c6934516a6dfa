"""Folders from strangers that KerasHub opens: no more layers than weights, and no silence about what is missing."""

import json
from pathlib import Path
from typing import Any

import pytest
import text_toys

from keras_remos import load_teacher
from keras_remos.errors import TeacherError
from robustness import hugging_face

pytestmark = pytest.mark.once


@pytest.fixture
def preset(tmp_path: Path) -> Path:
    text_toys.bert().save_to_preset(str(tmp_path / "preset"))
    return tmp_path / "preset"


def change(path: Path, **values: Any) -> None:
    config = json.loads(path.read_text())
    config["config"] |= values
    path.write_text(json.dumps(config))


@pytest.mark.parametrize("values", [{"num_layers": 1_000_000}, {"hidden_dim": 2_000_000}, {"vocabulary_size": 10**9}])
def test_layers_that_there_are_no_weights_for(values: dict[str, int], preset: Path) -> None:
    change(preset / "config.json", **values)
    task = json.loads((preset / "task.json").read_text())
    task["config"]["backbone"]["config"] |= values
    (preset / "task.json").write_text(json.dumps(task))
    with pytest.raises(TeacherError, match="is refused: its layers want"):
        load_teacher(preset)


@pytest.mark.parametrize("name", ["num_inner_repetitions", "num_groups", "inner_group_num", "num_feature_levels"])
def test_counts_of_layers_have_many_names(name: str, preset: Path) -> None:
    change(preset / "config.json", **{name: 10**9})
    with pytest.raises(TeacherError, match=f"is refused: its layers want {name}"):
        load_teacher(preset)


def test_a_tokenizer_that_names_a_file(preset: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("a secret")
    change(preset / "tokenizer.json", vocabulary=str(tmp_path / "secret.txt"))
    with pytest.raises(TeacherError, match="names a file to be opened .vocabulary"):
        load_teacher(preset)


def test_a_language_model_without_its_vocabulary_is_told_of(preset: Path) -> None:
    (preset / "assets" / "tokenizer" / "vocabulary.txt").unlink()
    (preset / "task.json").unlink()
    with pytest.warns(UserWarning, match="without its vocabulary.*no texts"):
        assert load_teacher(preset).count_params()


@pytest.mark.parametrize(
    "values", [{"num_hidden_layers": 1_000_000}, {"intermediate_size": 10**9}, {"vocab_size": 10**10}]
)
def test_a_folder_of_hugging_face_with_layers_that_there_are_no_weights_for(
    values: dict[str, int], tmp_path: Path
) -> None:
    pytest.importorskip("sentencepiece", reason="old releases of KerasHub convert nothing without it")
    hugging_face.write(tmp_path, **values)
    with pytest.raises(TeacherError, match="is refused: its layers want"):
        load_teacher(tmp_path)


def test_a_whole_folder_of_hugging_face_opens(tmp_path: Path) -> None:
    pytest.importorskip("sentencepiece", reason="old releases of KerasHub convert nothing without it")
    assert load_teacher(hugging_face.write(tmp_path)).count_params()
