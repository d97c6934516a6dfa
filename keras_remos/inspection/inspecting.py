"""`inspect_file`: what a file is, and all that it says."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras

from keras_remos.coverage.profile import CoverageProfile
from keras_remos.data.npz import NPZ_KEYS
from keras_remos.data.pillow import IMAGE_SUFFIXES
from keras_remos.data.tables import TABLE_SUFFIXES, read_table
from keras_remos.defects.attack_set import AttackSet
from keras_remos.defects.resuming import describe_partial
from keras_remos.errors import DataError, FileError, RemosError, TeacherError
from keras_remos.inspection.described import FileDescription
from keras_remos.inspection.files import code_of, form_of, identity, parsed
from keras_remos.methods.trials import describe_trials
from keras_remos.models.description import describe_model
from keras_remos.models.fingerprint import fingerprint, short
from keras_remos.models.heads import find_heads
from keras_remos.models.layers import symbolic_inputs, symbolic_outputs
from keras_remos.models.loading import load_teacher
from keras_remos.models.untrusted import CONFIG, check_folder
from keras_remos.slicing.new_head import classes_of_head
from keras_remos.slicing.relevant_slice import RelevantSlice
from keras_remos.students.exporting import ABOUT
from keras_remos.training.checkpoints import describe_checkpoint
from keras_remos.untrusted import (
    HEADER,
    PathLike,
    check_regular,
    complete,
    holds_rows,
    printable,
    read_header,
    read_record,
)
from keras_remos.untrusted.containers import array_names

# Of the record: whose weights they are of.
_MARKS = ("teacher", "source")
# What a report may be.
REPORTS = (".html", ".md", ".svg")
# Of an audit's folder, what has files of ours.
_IN_AUDIT = ("attacks", "students", "checkpoints")
# What results say of how they were made.
_OF_RESULTS = {"schema", "command", "versions", "seed", "inputs", "outputs", "seconds"}
_ARCHIVED = {kind.kind: kind for kind in (CoverageProfile, RelevantSlice, AttackSet)}
# A slice says nothing of the teacher's head, and so of whose weights it is without that.
_WEIGHTS = {
    CoverageProfile.kind: "teacher_weights_without_head",
    RelevantSlice.kind: "teacher_weights_without_head",
    AttackSet.kind: "teacher_weights",
}
_DESCRIBED: dict[str, Callable[[PathLike], dict[str, Any]]] = {
    "checkpoint": describe_checkpoint,
    "trials": describe_trials,
    "partial attack": describe_partial,
}


def inspect_file(path: PathLike, *, allow_unsafe_deserialization: bool = False) -> FileDescription:
    """Says what a file is and all that it knows.

    Of a model: its size and SHA-256; whether it holds code, and where; its inputs, outputs, classes and parameters;
    which of its layers can be sliced, and why the others are left whole; how it was made. One that is refused is
    described without being opened.

    Args:
        path: Any file or folder that keras-remos writes or reads: models (files, preset folders, names of published
            ones), profiles, slices, attack sets and unfinished ones, checkpoints and trials, results in JSON, exported
            students, tables and arrays.
        allow_unsafe_deserialization: Opens models that carry code. See `load_teacher`.

    Raises:
        RemosError: If there is nothing to tell: nothing is there, it is damaged, or of no kind that is known.

    Example:
    ```python
    found = inspect_file("teacher.keras")
    found.facts["sha256"], found.facts["code"]
    print(found.summary())
    ```
    """
    source = Path(path)
    if not source.exists():
        return _model(path, None, allow_unsafe_deserialization)
    if source.is_dir():
        return _folder(source, allow_unsafe_deserialization)
    check_regular(source)
    suffix, form = source.suffix.lower(), form_of(source)
    if form == ".npz file" or suffix == ".npz":
        return _npz(source)
    if suffix == ".json":
        return _result(source)
    if suffix in IMAGE_SUFFIXES or suffix in REPORTS:
        return FileDescription(str(path), "image" if suffix in IMAGE_SUFFIXES else "report", identity(source))
    if suffix in TABLE_SUFFIXES:
        table = read_table(source)
        return FileDescription(
            str(path), "table", {**identity(source), "columns": table.columns, "rows": len(table.rows)}
        )
    return _model(path, form, allow_unsafe_deserialization)


# --- models -----------------------------------------------------------------------------------------------------------


def _model(path: PathLike, form: str | None, allow_unsafe: bool) -> FileDescription:
    source = Path(path)
    facts: dict[str, Any] = {}
    record: dict[str, Any] = {}
    if form is not None:
        facts = {**identity(source), **code_of(source, form)}
        record = read_record(source)
    kind = "poisoned teacher" if "defect" in record else "student" if record else "model"
    facts |= {"record": record, **{f"{name}_weights": short(record[name]) for name in _MARKS if record.get(name)}}
    try:
        model = load_teacher(path, allow_unsafe_deserialization=allow_unsafe)
    except (TeacherError, ImportError) as error:
        if form is None or (form in ("zip", "folder") and facts["code"]["holds"] == "unknown"):
            raise  # nothing is there, or it is damaged: nothing is known that could be relied on
        kind = form if form in ("pickle", "HDF5 file") else kind
        return FileDescription(str(path), kind, {**facts, "opened": False, "reason": str(error)})
    facts |= {"opened": True, **_of_model(model, record)}
    try:
        description = describe_model(model)
    except RemosError as error:
        return FileDescription(str(path), kind, {**facts, "not_sliceable": str(error)})
    return FileDescription(str(path), kind, {**facts, **description.describe()}, description.summary())


def _of_model(model: keras.Model, record: dict[str, Any]) -> dict[str, Any]:
    classes = classes_of_head(model)
    names = record.get("class_names") or []
    heads: tuple[str, ...] = ()
    with contextlib.suppress(RemosError):  # without an example of its inputs it cannot be told
        heads = find_heads(model)
    return {
        "inputs": _tensors(symbolic_inputs(model)),
        "outputs": _tensors(symbolic_outputs(model)),
        "num_classes": classes if classes is not None else len(names) or None,
        "parameters": model.count_params(),
        "trainable": sum(int(keras.ops.size(variable)) for variable in model.trainable_variables),
        "weights": short(fingerprint(model)),
        "weights_without_head": short(fingerprint(model, without=heads)),
    }


def _tensors(structure: Any) -> list[dict[str, Any]]:
    """Name, shape and type of what goes in or comes out; none where Keras does not know it before a call."""
    return [
        {"name": tensor.name, "shape": list(tensor.shape), "dtype": str(tensor.dtype)}
        for tensor in keras.tree.flatten(structure)
        if tensor is not None
    ]


# --- folders ----------------------------------------------------------------------------------------------------------


def _folder(source: Path, allow_unsafe: bool) -> FileDescription:
    if (source / CONFIG).is_file():
        check_folder(source)
        return _model(source, "folder", allow_unsafe)
    if (source / ABOUT).is_file():
        said = {name: value for name, value in parsed(source / ABOUT).items() if name != "kind"}
        facts = {**identity(source), "record": said}
        return FileDescription(str(source), "exported student", facts)
    contents = list(_contents(source))
    if not contents:
        raise FileError(f"{source} holds no file that keras-remos writes, and no {CONFIG} of a preset.")
    kind = "checkpoint folder" if {each.kind for each in contents} <= {"checkpoint", "trials"} else "folder"
    table = "\n\n".join(f"{printable(each.path)}\n{each.summary()}" for each in contents)
    holds = dict(Counter(each.kind for each in contents))
    return FileDescription(
        str(source), kind, {"holds": holds, "contents": [each.describe() for each in contents]}, table
    )


def _contents(source: Path) -> Iterator[FileDescription]:
    """What is right in a folder: files of ours are described, models are named."""
    files = sorted(source.iterdir())
    if (source / "audit.json").is_file():
        files += [file for name in _IN_AUDIT for file in sorted((source / name).rglob("*"))]
    for file in files:
        if file.is_symlink() or not file.is_file() or file.name.startswith("."):
            continue
        if file.suffix == ".keras":
            yield FileDescription(str(file), "model", identity(file))
        elif file.suffix in (".npz", ".json"):
            # Others keep such files, too.
            with contextlib.suppress(RemosError):
                yield _npz(file) if file.suffix == ".npz" else _result(file)


# --- files of ours ----------------------------------------------------------------------------------------------------


def _npz(source: Path) -> FileDescription:
    if not holds_rows(source):
        with complete(source):
            names = array_names(source)
        if HEADER not in names and any(key in names for key, _ in NPZ_KEYS):
            return FileDescription(str(source), "arrays", {**identity(source), "arrays": names})
    header = read_header(source)
    kind = header["kind"]
    facts = {**identity(source), "format": header["format"]}
    if kind in _DESCRIBED:
        return FileDescription(str(source), kind, {**facts, **_DESCRIBED[kind](source)})
    if kind not in _ARCHIVED:
        raise DataError(f"{source} holds a {kind[:40]}: this version has nothing to say of it. Update keras-remos.")
    loaded: Any = _ARCHIVED[kind].load(source)
    facts |= {**loaded.describe(), _WEIGHTS[kind]: short(loaded.teacher)}
    return FileDescription(str(source), kind, facts, "" if kind == AttackSet.kind else loaded.summary())


def _result(source: Path) -> FileDescription:
    said = parsed(source)
    if not set(said) & _OF_RESULTS:
        raise FileError(f"{source} is JSON, and no result of keras-remos: it says nothing of how it was made.")
    result = said.get("result", said)
    shown = {name: value for name, value in said.items() if name in _OF_RESULTS}
    holds = sorted(result) if isinstance(result, dict) else []
    return FileDescription(str(source), "result", {**identity(source), "holds": holds, "record": shown})
