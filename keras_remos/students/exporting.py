"""`export_student`: a student for programs that know neither Keras nor keras-remos, with its input scaling inside."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import math
import shutil
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_remos.data.pixels import PREPROCESSOR, PixelSpace
from keras_remos.errors import FileError, StudentError
from keras_remos.models.inputs import image_shape, takes_strings
from keras_remos.models.layers import symbolic_inputs
from keras_remos.models.tokenizers import reads_text
from keras_remos.models.untrusted import reason_of
from keras_remos.saving import versions
from keras_remos.students.scoring import as_probabilities
from keras_remos.students.student import Student
from keras_remos.untrusted import PathLike, in_lines
from keras_remos.writing import full_disk, replacing_folder

# Beside the model: what its inputs and outputs mean.
ABOUT = "student.json"
# What Keras calls its formats, and the name that each must have; a SavedModel is a folder.
FORMATS = {
    "tf_saved_model": "",
    "onnx": "model.onnx",
    "openvino": "model.xml",
    "litert": "model.tflite",
    "torch": "model.pt2",
}
# All that converters put into the folder.
_WRITTEN = {ABOUT, *FORMATS.values(), "model.bin", "model.onnx.data"}
_WRITTEN |= {"saved_model.pb", "fingerprint.pb", "keras_metadata.pb", "variables", "assets"}
# Where Keras fixes how many samples are taken at a time.
_ONE_AT_A_TIME = (("torch", "torch"), ("torch", "openvino"), ("torch", "litert"))
# For each backend the packages that Keras needs for a format, by the names that Python and pip have for them. A format
# that is not here is one that Keras does not write on that backend.
_NEEDED: dict[str, dict[str, dict[str, str]]] = {
    "tensorflow": {
        "tf_saved_model": {},
        "litert": {},
        "onnx": {"tf2onnx": "tf2onnx"},
        "openvino": {"openvino": "openvino"},
    },
    "torch": {
        "torch": {},
        "onnx": {"onnx": "onnx", "onnxscript": "onnxscript"},
        "openvino": {"openvino": "openvino"},
        "litert": {"litert_torch": "litert-torch"},
        "tf_saved_model": {"tensorflow": "tensorflow", "torch_xla": "torch-xla"},
    },
    "jax": {
        "tf_saved_model": {"tensorflow": "tensorflow"},
        "onnx": {"jax2onnx": "jax2onnx"},
        "openvino": {"openvino": "openvino", "tensorflow": "tensorflow"},
    },
}


@dataclass(frozen=True)
class Exported:
    """What `export_student` wrote.

    Args:
        folder: Holds the model and `student.json`.
        file: The model in it: the file itself, or for a SavedModel the folder.
        format: One of `FORMATS`.
        about: What `student.json` says: classes, inputs, outputs, how the student was made.
    """

    folder: Path
    file: Path
    format: str
    about: Mapping[str, Any]

    def describe(self) -> dict[str, Any]:
        """The same as plain values, for JSON."""
        return {"folder": str(self.folder), "file": str(self.file), "format": self.format, "about": dict(self.about)}

    def summary(self) -> str:
        """Where it is, what it takes and what it returns, a line each."""
        takes = "; ".join(f"{each['name']}, {each['dtype']} of shape {each['shape']}" for each in self.about["inputs"])
        returns = f"Returns: probabilities of the classes that {ABOUT} names."
        return in_lines([f"Exported: {self.file} ({self.format})", f"Takes: {takes}", returns])


def formats_here() -> list[str]:
    """The formats that can be written on this backend with the packages that are installed."""
    return [name for name in FORMATS if name in _needed() and not _absent(name)]


def export_student(
    student: Student,
    folder: PathLike,
    *,
    format: str = "tf_saved_model",  # noqa: A002 (as Keras calls it)
    overwrite: bool = False,
) -> Exported:
    """Writes a student in a format that runs without Keras, its input scaling inside.

    The exported model takes pixels as they are in image files, 0 to 255, and returns probabilities. It takes any number
    of images at a time, but for `"openvino"`, `"litert"` and `"torch"` on PyTorch, which take one. A language model
    takes what its tokenizer makes of texts: that stays outside. Beside it stands `student.json`: the classes in the
    order of the outputs, what the inputs are, and how the student was made.

    Args:
        student: What `load_student` returns.
        folder: The folder to be written.
        format: One of `FORMATS`. Which of them can be written depends on the backend; some need a package more.
        overwrite: Whether an exported student that is there may be replaced.

    Raises:
        StudentError: If Keras has no such format on this backend, or cannot write this student in it.
        ImportError: If a package is missing.
        DataError: If nobody said how the student's inputs are scaled.
        FileError: If the folder exists and may not be replaced, another run writes it, or the disk is full.

    Example:
    ```python
    exported = export_student(load_student("student.keras"), "exported", format="onnx")
    exported.file  # exported/model.onnx
    ```
    """
    _check_format(format)
    model, inputs = serving_model(student)
    if (keras.backend.backend(), format) in _ONE_AT_A_TIME:
        for each in inputs:
            each["shape"][0] = 1
    about = {
        "kind": "exported student",
        "format": format,
        "class_names": list(student.class_names),
        "inputs": inputs,
        "output": "probabilities",
        "record": {name: value for name, value in student.record.items() if name != "history"},
        "versions": {**versions(), "backend": keras.backend.backend()},
    }
    with replacing_folder(folder, is_ours=is_exported, overwrite=overwrite) as made:
        _check_room(model, made, folder)
        _write(model, made / FORMATS[format], format)
        (made / ABOUT).write_text(json.dumps(about, indent=1, sort_keys=True), encoding="utf-8")
    return Exported(Path(folder), Path(folder) / FORMATS[format], format, about)


def is_exported(folder: Path) -> bool:
    """Whether a folder is what `export_student` wrote, and holds nothing else."""
    try:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    ours = isinstance(about, dict) and about.get("kind") == "exported student"
    return ours and all(entry.name in _WRITTEN for entry in folder.iterdir())


def serving_model(student: Student) -> tuple[keras.Model, list[dict[str, Any]]]:
    """A student from what a user has to probabilities, as one Keras model; and what it takes, as plain values.

    Raises:
        StudentError: If it is scaled by a preprocessor of its own, or Keras does not know what it takes.
        DataError: If nobody said how its inputs are scaled.
    """
    model = student.model
    taken = symbolic_inputs(model)
    if taken is None:
        raise StudentError(
            f"{student.name} is a subclassed model without symbolic inputs, of which Keras cannot tell what it takes. "
            "Build it by the functional API."
        )
    as_it_is = reads_text(model) or takes_strings(model)
    space = None if as_it_is else student.required_space().of_files
    if space is not None and space.scaling == PREPROCESSOR:
        raise StudentError(
            f"The images of {student.name} are scaled by its own preprocessor, which cannot be exported. Make the "
            "student anew with a `scaling` that is known."
        )
    one = keras.tree.flatten(taken)
    if space is None or (space.scaling == "none" and len(one) > 1):
        given = _same_inputs(taken)
        entering = given
    elif len(one) > 1:
        raise StudentError(
            f"{student.name} takes {len(one)} inputs, and its record says how one is scaled. Scale them within the "
            "model."
        )
    else:
        given = keras.Input(_shape(student, one[0]), dtype="float32", name="pixels")
        # In the form in which the model takes it: alone, in a list, by name.
        entering = keras.tree.pack_sequence_as(taken, [_Scaled(space)(given)])
    scores = keras.layers.Identity(dtype="float32", name="scores")(model(entering, training=False))
    made = keras.Model(given, as_probabilities(model)(scores), name=model.name)
    made(given, training=False)  # some converters take only what has been called
    return made, [_said(tensor, space) for tensor in keras.tree.flatten(given)]


def _same_inputs(taken: Any) -> Any:
    """New inputs like those that a model takes, of the same names."""
    if isinstance(taken, Mapping):
        return {name: keras.Input(batch_shape=one.shape, dtype=one.dtype, name=name) for name, one in taken.items()}
    return keras.tree.map_structure(
        lambda one: keras.Input(batch_shape=one.shape, dtype=one.dtype, name=one.name), taken
    )


class _Scaled(keras.Layer):
    """A model's inputs from pixels. A layer, as its constants are then made within the graph that is exported."""

    def __init__(self, space: PixelSpace) -> None:
        super().__init__(dtype="float32", name="scaling")
        self.space = space

    def call(self, pixels: Any) -> Any:
        return self.space.scale(pixels)


def _shape(student: Student, taken: keras.KerasTensor) -> tuple[int | None, ...]:
    """The shape of one sample; a size that the model leaves open is that of the student's images."""
    shape, data_format = image_shape(student.model)
    if shape is None or student.image_size is None:
        return tuple(taken.shape[1:])
    height, width = student.image_size
    return (shape[2], height, width) if data_format == "channels_first" else (height, width, shape[2])


def _said(tensor: keras.KerasTensor, space: PixelSpace | None) -> dict[str, Any]:
    said = {"name": tensor.name, "shape": list(tensor.shape), "dtype": str(tensor.dtype)}
    if space is not None and len(tensor.shape) == 4:
        said |= {"pixel_range": [space.low, space.high], "data_format": space.data_format}
    return said


def _check_room(model: keras.Model, made: Path, path: PathLike) -> None:
    """PyTorch's writer may end the whole process where the disk fills: what must fail is found out before."""
    needed = sum(math.prod(weight.shape) * np.dtype(weight.dtype).itemsize for weight in model.weights) / 1e6
    free = shutil.disk_usage(made).free / 1e6
    if free < needed:
        raise FileError(
            f"{path} cannot be written ({free:,.1f} MB are left, and the weights alone take {needed:,.1f}). Make room, "
            "or choose another place. Nothing was replaced."
        )


def _needed() -> dict[str, dict[str, str]]:
    return _NEEDED.get(keras.backend.backend(), {})


def _absent(wanted: str) -> list[str]:
    return [package for name, package in _needed()[wanted].items() if importlib.util.find_spec(name) is None]


def _check_format(wanted: str) -> None:
    backend = keras.backend.backend()
    if wanted not in FORMATS:
        raise StudentError(f"Expected a format out of {', '.join(FORMATS)}. Received: {wanted!r}.")
    if wanted not in _needed():
        others = [name for name, formats in _NEEDED.items() if wanted in formats]
        raise StudentError(
            f"Keras writes {wanted} on {' and '.join(others)} only, not on {backend}. A student opens on every "
            f"backend: set KERAS_BACKEND={others[0]}.{_here()}"
        )
    absent = _absent(wanted)
    if absent:
        raise ImportError(
            f"To write {wanted} on {backend}, Keras needs {' and '.join(absent)}: pip install {' '.join(absent)}."
            f"{_here()}"
        )


def _here() -> str:
    """What can be written as things are."""
    found = formats_here()
    return f" As things are, it can be `format={' or '.join(found)}`." if found else ""


def _write(model: keras.Model, path: Path, wanted: str) -> None:
    said = io.StringIO()
    try:
        # Converters talk, and warn of themselves.
        with warnings.catch_warnings(), contextlib.redirect_stdout(said):
            warnings.simplefilter("ignore")
            model.export(str(path), format=wanted, verbose=False)
    except MemoryError:
        raise
    except ImportError as error:
        raise ImportError(f"To write {wanted}, Keras needs more: {' '.join(str(error).split())}") from error
    except OSError:
        raise
    except Exception as error:  # every converter has its own
        full = full_disk(error)
        if full is not None and str(path) not in str(error):
            raise FileError(
                f"{tempfile.gettempdir()}, where {wanted} is made, is full ({full}). Make room, or set TMPDIR to "
                "another place. Nothing was replaced."
            ) from error
        if full is not None:
            raise OSError(full) from error
        raise StudentError(
            f"Keras {keras.__version__} cannot write this student as {wanted} on {keras.backend.backend()} "
            f"({type(error).__name__}: {reason_of(error)}) Try another format, or another backend.{_here()}"
        ) from error
