"""Teachers from strangers: none runs code, reads another file, or takes more memory or time than it may."""

import copy
import io
import json
import os
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest

from keras_remos import load_teacher
from keras_remos.errors import TeacherError
from keras_remos.models import untrusted
from robustness.corpus import rewritten, teacher

SECRET = b"0123456789abcdef" * 8
CODE = ("Lambda", "TorchModuleWrapper", "JaxLayer", "FlaxLayer", "TFSMLayer")


@pytest.fixture
def good(tmp_path: Path) -> Path:
    teacher().save(tmp_path / "good.keras")
    return tmp_path / "good.keras"


def with_layer(**layer: Any) -> Callable[[Any], Any]:
    """Puts an object among the layers of a configuration, beside one that it is made after."""

    def change(config: Any) -> Any:
        made = copy.deepcopy(config["config"]["layers"][1]) | layer
        config["config"]["layers"].append(made)
        return config

    return change


def refused(path: Path, message: str) -> None:
    with pytest.raises(TeacherError, match=message) as caught, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras gives some of its own before it stops
        load_teacher(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", CODE)
@pytest.mark.parametrize("module", ["keras.layers", "keras", "keras.src.export.tfsm_layer", None])
def test_what_carries_code_is_refused_by_every_name(name: str, module: str | None, good: Path, tmp_path: Path) -> None:
    for change in (
        {"class_name": name, "module": module, "registered_name": name},
        {"class_name": f"layers.{name}", "module": module, "registered_name": None},
        {"class_name": "Dense", "module": module, "registered_name": f"keras>{name}"},
    ):
        bad = rewritten(good, tmp_path / "bad.keras", config__json=with_layer(**change))
        refused(bad, f"carries code of its own.*{name}.*allow_unsafe_deserialization")


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("keras.utils", "get_file"),
        ("keras", "utils.get_file"),
        ("keras.saving", "load_model"),
        ("builtins", "load_model"),
        ("keras.src.utils.file_utils", "get_file"),
        ("keras.applications.imagenet_utils", "decode_predictions"),
        ("keras.src.applications.imagenet_utils", "decode_predictions"),
    ],
)
def test_functions_that_open_files_are_no_activations(module: str, name: str, good: Path, tmp_path: Path) -> None:
    def change(config: Any) -> Any:
        function = {"module": module, "class_name": "function", "config": name, "registered_name": name}
        config["config"]["layers"][1]["config"]["activation"] = function
        if "." in name:
            function["class_name"] = name
        return config

    refused(rewritten(good, tmp_path / "bad.keras", config__json=change), "carries code of its own")


@pytest.mark.parametrize("key", ["vocabulary", "merges", "proto", "filepath", "language_tokens"])
def test_a_configuration_that_names_a_file_is_refused(key: str, good: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_bytes(SECRET)

    def change(config: Any) -> Any:
        config["config"]["layers"][1]["config"][key] = str(secret)
        return config

    refused(rewritten(good, tmp_path / "bad.keras", config__json=change), f"names a file to be opened .{key}")


def hdf5(change: Callable[[h5py.File], None], good: Path) -> bytes:
    with zipfile.ZipFile(good) as archive:
        content = io.BytesIO(archive.read("model.weights.h5"))
    with h5py.File(content, "r+") as opened:
        change(opened)
    return content.getvalue()


def kernel_of(opened: h5py.File) -> tuple[h5py.Group, str, tuple[int, ...]]:
    found: list[h5py.Dataset] = []
    opened.visititems(lambda _, node: found.append(node) if isinstance(node, h5py.Dataset) else None)
    first = next(node for node in found if len(node.shape) == 2)
    return first.parent, first.name.rpartition("/")[2], first.shape


@pytest.mark.parametrize("how", ["external", "virtual", "soft link", "external link", "objects", "bomb"])
def test_weights_that_are_elsewhere_are_not_read(how: str, good: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.bin").write_bytes(SECRET)

    def change(opened: h5py.File) -> None:
        parent, name, shape = kernel_of(opened)
        del parent[name]
        if how == "external":
            parent.create_dataset(name, shape, "f4", external=[(str(tmp_path / "secret.bin"), 0, len(SECRET))])
        elif how == "virtual":
            layout = h5py.VirtualLayout(shape, "f4")
            layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "x", shape)
            parent.create_virtual_dataset(name, layout)
        elif how == "soft link":
            parent[name] = h5py.SoftLink("/elsewhere")
        elif how == "external link":
            parent[name] = h5py.ExternalLink(str(tmp_path / "other.h5"), "/x")
        elif how == "objects":
            parent.create_dataset(name, shape, h5py.vlen_dtype("f4"))
        else:
            parent.create_dataset(name, (2**20, 2**12), "f4", chunks=(2**10, 2**10))

    bad = rewritten(good, tmp_path / "bad.keras", model__weights__h5=hdf5(change, good))
    refused(bad, "says that it holds" if how == "bomb" else "elsewhere|in another file|holds no numbers")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda layer: layer.update(units=10**8), "its layers want"),
        (lambda layer: layer.update(units=10**12), "its layers want|cannot be loaded"),
        (lambda layer: layer.update(activation="nonsense"), "nonsense"),
        (lambda layer: layer.update(activation="Dense"), "cannot be loaded"),
        (lambda layer: layer.update(name="\ud800"), "half of a character"),
    ],
)
def test_a_layer_that_is_not_what_it_says(
    change: Callable[[Any], None], message: str, good: Path, tmp_path: Path
) -> None:
    def changed(config: Any) -> Any:
        inner = config["config"]["layers"][-1]["config"]
        change(inner)
        return config

    refused(rewritten(good, tmp_path / "bad.keras", config__json=changed), message)


def test_a_model_that_is_larger_than_its_weights_takes_no_memory(tmp_path: Path) -> None:
    """16 GB of zeros would be made before Keras looks at the weights."""
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(64), keras.layers.Dense(2)])
    model.save(tmp_path / "good.keras")

    def change(config: Any) -> Any:
        layers = config["config"]["layers"]
        layers[1]["config"]["units"] = layers[1]["config"]["units"] * 1000
        layers[2:2] = [
            {**copy.deepcopy(layers[1]), "config": {**layers[1]["config"], "name": f"more_{i}"}} for i in range(3)
        ]
        for layer in layers[1:]:
            layer.pop("build_config", None)
        return config

    refused(rewritten(tmp_path / "good.keras", tmp_path / "bad.keras", config__json=change), "its layers want")


@pytest.mark.once
def test_what_was_outlined_leaves_no_trace(good: Path) -> None:
    """Names, seeds and random numbers are as if the model had been opened alone."""
    keras.utils.clear_session()
    keras.utils.set_random_seed(1)
    first = load_teacher(good)
    named = keras.layers.Dense(2).name
    drawn = keras.random.normal((3,))
    keras.utils.clear_session()
    keras.utils.set_random_seed(1)
    second = keras.models.load_model(good, compile=False)
    assert keras.layers.Dense(2).name == named
    np.testing.assert_array_equal(
        keras.ops.convert_to_numpy(drawn), keras.ops.convert_to_numpy(keras.random.normal((3,)))
    )
    for one, other in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.filterwarnings("ignore:Skipping variable loading for optimizer")
def test_stateful_and_compiled_models_are_outlined(tmp_path: Path) -> None:
    x = keras.Input((5, 4), batch_size=2)
    model = keras.Model(x, keras.layers.Dense(2)(keras.layers.LSTM(3, stateful=True)(x)))
    model.compile("adam", "mse")
    outer = keras.Sequential([model, keras.layers.Dense(2)])
    outer.save(tmp_path / "a.keras")
    assert len(load_teacher(tmp_path / "a.keras").get_weights()) == len(outer.get_weights())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"a":' * 5000 + b"1" + b"}" * 5000, "truncated or damaged .RecursionError|nested deeper"),
        (b"[" * 300 + b"]" * 300, "nested deeper"),
        ("{}".encode("utf-16"), "truncated or damaged .UnicodeDecodeError"),
        (b"\xff\xfe", "truncated or damaged"),
        (b"[]", "cannot be loaded"),
        (b"null", "cannot be loaded"),
        (b'{"class_name": 5, "config": []}', "cannot be loaded"),
    ],
)
def test_a_configuration_that_is_none(content: bytes, message: str, good: Path, tmp_path: Path) -> None:
    refused(rewritten(good, tmp_path / "bad.keras", config__json=content), message)


def test_a_configuration_of_too_many_objects(good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(untrusted, "MOST_OBJECTS", 10)
    refused(good, "more than 10 objects")


def test_arrays_and_other_zips_are_called_what_they_are(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x=np.zeros(3), y=np.zeros(3))
    refused(tmp_path / "data.npz", "no model, but arrays of NumPy")
    with zipfile.ZipFile(tmp_path / "a.keras", "w") as archive:
        archive.writestr("data.pkl", b"\x80\x04K\x01.")
    refused(tmp_path / "a.keras", "holds a pickle")
    with zipfile.ZipFile(tmp_path / "a.keras", "w") as archive:
        archive.writestr("config.json", "{}")
        archive.writestr("../outside", "x")
    refused(tmp_path / "a.keras", "outside of it")


def test_weights_that_do_not_fit_are_said_with_the_reason(good: Path, tmp_path: Path) -> None:
    def change(opened: h5py.File) -> None:
        parent, name, shape = kernel_of(opened)
        del parent[name]
        parent[name] = np.zeros((shape[0] + 1, shape[1]), "f4")

    bad = rewritten(good, tmp_path / "bad.keras", model__weights__h5=hdf5(change, good))
    refused(bad, "head|shape")


def test_the_name_of_an_unknown_layer_is_said(good: Path, tmp_path: Path) -> None:
    named = {"class_name": "MyOwn", "module": "mine.layers", "registered_name": None}
    refused(rewritten(good, tmp_path / "bad.keras", config__json=with_layer(**named)), "it is made of MyOwn")


@pytest.mark.once
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes")
def test_pipes_and_devices_are_no_teachers(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.keras")
    refused(tmp_path / "pipe.keras", "is a pipe")
    refused(Path("/dev/zero"), "device")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    os.mkfifo(folder / "model.weights.h5")
    refused(folder, "is a pipe")


@pytest.mark.once
def test_links_out_of_a_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_bytes(SECRET)
    folder = tmp_path / "folder"
    (folder / "assets" / "tokenizer").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "assets" / "tokenizer" / "vocabulary.txt").symlink_to(tmp_path / "secret.txt")
    refused(folder, "is a link to .*outside of the folder")
    # The cache of Hugging Face is made of links.
    snapshot = tmp_path / "models--a--b" / "snapshots" / "1"
    (tmp_path / "models--a--b" / "blobs").mkdir(parents=True)
    snapshot.mkdir(parents=True)
    (tmp_path / "models--a--b" / "blobs" / "x").write_text("{}")
    (snapshot / "config.json").symlink_to("../../blobs/x")
    refused(snapshot, "must hold weights")
    (tmp_path / "models--a--b" / "blobs" / "y").symlink_to(tmp_path / "secret.txt")
    (snapshot / "vocab.txt").symlink_to("../../blobs/y")
    refused(snapshot, "outside of the folder")


@pytest.mark.once
@pytest.mark.parametrize("name", ["../secret.safetensors", "/etc/passwd", "a\\b", ".."])
def test_an_index_names_no_file_outside_of_the_folder(name: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    index = {"weight_map": {"a": name}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(tmp_path, "not a file beside it")


@pytest.mark.once
@pytest.mark.parametrize(
    "header",
    [
        {"a": {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 4]}},
        {"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 400]}},
        {"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}},
        {"a": 5},
        [],
    ],
)
def test_safetensors_that_say_more_than_they_hold(header: Any, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    text = json.dumps(header).encode()
    (tmp_path / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + b"\0" * 4)
    refused(tmp_path, "truncated or damaged")
