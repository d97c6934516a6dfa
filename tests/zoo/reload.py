"""Opens saved students as people do who have Keras and no keras_remos, and says whether they predict the same.

Run as `python reload.py FOLDER`; prints JSON: for each student `""`, or what is wrong.
"""

import contextlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

with contextlib.suppress(ImportError):
    import torch  # noqa: F401, TID251 (before TensorFlow, or the process dies)

import keras

with contextlib.suppress(ImportError):
    import keras_hub  # noqa: F401 (its classes are registered)

ATOL, RTOL = 1e-5, 1e-4


def save(folder: Path, x: Any, outputs: Any) -> None:
    """Writes what goes into a student, and what comes out of it."""
    given = dict(x) if isinstance(x, dict) else {f"{i}": array for i, array in enumerate(keras.tree.flatten(x))}
    kind = "dict" if isinstance(x, dict) else "list" if isinstance(x, (list, tuple)) else "array"
    np.savez(folder / "x.npz", **given)
    made = [keras.ops.convert_to_numpy(keras.ops.cast(tensor, "float32")) for tensor in keras.tree.flatten(outputs)]
    np.savez(folder / "y.npz", *made)
    (folder / "kind").write_text(kind)


def _inputs(folder: Path) -> Any:
    with np.load(folder / "x.npz") as arrays:
        given = {name: arrays[name] for name in arrays.files}
    kind = (folder / "kind").read_text()
    return given if kind == "dict" else list(given.values()) if kind == "list" else given["0"]


def complaint(folder: Path) -> str:
    """What is wrong with a student; nothing if it predicts what it did when it was saved."""
    try:
        student = keras.models.load_model(folder / "student.keras", compile=False)
        outputs = keras.tree.flatten(student(_inputs(folder), training=False))
        with np.load(folder / "y.npz") as arrays:
            for tensor, name in zip(outputs, arrays.files, strict=True):
                found = keras.ops.convert_to_numpy(keras.ops.cast(tensor, "float32"))
                np.testing.assert_allclose(found, arrays[name], atol=ATOL, rtol=RTOL)
    except Exception as error:  # whatever Keras stumbles over
        return f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"
    return ""


if __name__ == "__main__":
    import own_models  # noqa: F401 (its classes are registered)

    found = {folder.name: complaint(folder) for folder in sorted(Path(sys.argv[1]).iterdir())}
    assert "keras_remos" not in sys.modules
    print(json.dumps(found))
