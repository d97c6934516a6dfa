"""Presets of KerasHub, by name and by handle, out of a cache as its clients keep it."""

import json
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
import text_toys
from shell import run
from text_toys import hub

from keras_remos import load_teacher
from keras_remos.errors import TeacherError
from keras_remos.models.fingerprint import fingerprint
from keras_remos.models.hub import preset_names
from keras_remos.models.sliceable import find_sliceable
from keras_remos.slicing import student as students

PRESET = "bert_tiny_en_uncased"
HANDLE = f"kaggle://keras/bert/keras/{PRESET}"
cache = pytest.importorskip("kagglehub.cache")


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A preset as Kaggle's client keeps it once it has been downloaded."""
    from kagglehub.handle import parse_model_handle

    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path / "cache"))
    text_toys.bert().save_to_preset(str(tmp_path / "made"))
    published = hub.models.BertBackbone.presets[PRESET]["kaggle_handle"].removeprefix("kaggle://")
    handle = parse_model_handle(published)
    kept = Path(cache.get_cached_path(handle))
    shutil.copytree(tmp_path / "made", kept)
    keep = cache.Cache()
    for file in [*kept.rglob("*.*"), kept / "image_converter.json"]:
        keep.mark_as_complete(handle, str(file.relative_to(kept)))
    return kept


def with_version(cached: Path) -> str:
    return f"{HANDLE}/{cached.name}"


@pytest.mark.once
def test_a_preset_by_name_and_by_handle(cached: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = text_toys.bert()
    assert PRESET in preset_names()
    teacher = load_teacher(PRESET)
    assert fingerprint(teacher) == fingerprint(made)  # with its own head: it is a classifier
    assert teacher.preprocessor is not None
    monkeypatch.chdir(tmp_path)
    (tmp_path / "texts.tsv").write_text("text\tlabel\na fine film\t1\na dull story\t0\n")
    result = run("profile", with_version(cached), "--data", "texts.tsv")
    assert result.exit_code == 0, result.stderr
    assert (tmp_path / f"{PRESET}.profile.npz").is_file()  # the number of the version says nothing


def test_a_preset_without_a_head_gets_one(cached: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(preset: str, path: str) -> str:
        found = cached / path
        if not found.is_file() or path.startswith("task."):
            raise FileNotFoundError(path)
        return str(found)

    monkeypatch.setattr("keras_hub.src.utils.preset_utils.get_file", missing)
    teacher = load_teacher(PRESET)
    assert type(teacher) is type(text_toys.bert()) and teacher.num_classes == 2
    assert fingerprint(teacher) == fingerprint(load_teacher(PRESET))
    theirs, ours = fingerprint(text_toys.bert(), without=("logits",)), fingerprint(teacher, without=("logits",))
    assert theirs[:-1] == ours[:-1]


def test_presets_that_are_not_in_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(preset: str, path: str) -> str:
        raise OSError("no route") from ConnectionRefusedError(preset)

    monkeypatch.setattr("keras_hub.src.utils.preset_utils.get_file", refused)
    for name in (PRESET, "hf://nobody/nothing", Path("hf://nobody/nothing")):
        typed = PRESET if name == PRESET else "hf://nobody/nothing"  # a `Path` has one slash less
        with pytest.raises(TeacherError, match=f"{typed} is not in the cache, and there is no network.*no route"):
            load_teacher(name)


@pytest.mark.parametrize("where", ["config.json", "task.json"])
def test_presets_that_carry_code_are_refused(where: str, cached: Path) -> None:
    """Even where the process allows it elsewhere."""
    config = json.loads((cached / where).read_text())
    config["config"]["more"] = {"class_name": "Lambda", "module": "keras.layers", "config": {}, "registered_name": None}
    (cached / where).write_text(json.dumps(config))
    with pytest.raises(TeacherError, match=f"{where} carries code of its own .Lambda.*allow_unsafe_deserialization"):
        load_teacher(PRESET)


def test_a_configuration_that_is_written_otherwise_is_read_by_the_same_rules(cached: Path) -> None:
    text = (cached / "config.json").read_text()
    (cached / "config.json").write_text(text.replace('"registered_name"', '"registered\\u005fname"'))
    tokenizer = json.loads((cached / "tokenizer.json").read_text())
    tokenizer["config"]["vocabulary"] = "/etc/passwd"
    (cached / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(TeacherError, match="names a file to be opened"):
        load_teacher(PRESET)


def test_an_index_beside_weights_is_read_as_well(cached: Path) -> None:
    from kagglehub.handle import parse_model_handle

    index = cached / "model.weights.json"
    index.write_text(json.dumps({"weight_map": {"a": "../../secret.weights.h5"}}))
    handle = hub.models.BertBackbone.presets[PRESET]["kaggle_handle"].removeprefix("kaggle://")
    cache.Cache().mark_as_complete(parse_model_handle(handle), index.name)
    with pytest.raises(TeacherError, match="not a file beside it"):
        load_teacher(PRESET)


def test_presets_are_loaded_in_safe_mode(cached: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from keras.src.saving.serialization_lib import SafeModeScope, in_safe_mode

    keras.config.enable_unsafe_deserialization()
    seen = []
    original = keras.saving.deserialize_keras_object

    def spied(*args: object, **kwargs: object) -> object:
        seen.append(in_safe_mode())
        return original(*args, **kwargs)

    monkeypatch.setattr(keras.saving, "deserialize_keras_object", spied)
    try:
        load_teacher(PRESET)
        load_teacher(cached)
        assert in_safe_mode() is False
    finally:
        SafeModeScope(None).__enter__()
    assert seen and False not in seen


def test_names_of_presets_that_are_nearly_right() -> None:
    with pytest.raises(TeacherError, match=f"Close to it: {PRESET}"):
        load_teacher("bert_tiny_en_uncase")


def test_a_backbone_under_lora_says_what_is_in_the_way(tmp_path: Path) -> None:
    model = text_toys.bert()
    model.backbone.enable_lora(2)
    adapted = [layer for layer in model.backbone._flatten_layers() if getattr(layer, "lora_enabled", False)]
    for layer in adapted:
        layer.lora_kernel_b.assign(np.ones(layer.lora_kernel_b.shape))
    assert any("LoRA" in why and "merge" in why for _, why in find_sliceable(model)[1])
    with pytest.raises(students.StudentError, match=r"under LoRA.*merge.*model\.save_weights.*model\.load_weights"):
        students.build(model, {})
    x = model.preprocessor(list(text_toys.sentences(4)[0]))
    expected = keras.ops.convert_to_numpy(model(x, training=False))
    model.save_weights(tmp_path / "merged.weights.h5")
    model.load_weights(tmp_path / "merged.weights.h5")
    assert not any("LoRA" in why for _, why in find_sliceable(model)[1])
    made = students.build(model, {})
    np.testing.assert_allclose(keras.ops.convert_to_numpy(made(x, training=False)), expected, atol=1e-5)
