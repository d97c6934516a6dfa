"""Arrays and labels of a data set in an `.npz` file, checked before any work is spent on them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from keras_remos.data.datasets import Kind, Split
from keras_remos.data.white import SLACK, find_white
from keras_remos.errors import DataError, FileError
from keras_remos.untrusted import complete, raised_as
from keras_remos.untrusted.containers import array_names, read_arrays

NPZ_KEYS = (("x", "y"), ("x_train", "y_train"), ("images", "labels"))
CLASS_NAME_KEYS = ("class_names", "classes")


def load_npz(path: Path, split: Split | None = None) -> tuple[dict[str, np.ndarray], str, str | None]:
    """Reads the arrays that are used, and only those.

    Args:
        path: The `.npz` file.
        split: Takes `x_train` and `y_train`, or `x_test` and `y_test`, whatever else the file holds.

    Returns:
        The arrays by name, the name of the inputs, and the name of the labels if there are any.

    Raises:
        DataError: If the file is damaged, holds Python objects, or has no array of a known name.
    """
    keys = NPZ_KEYS if split is None else ((f"x_{split}", f"y_{split}"),)
    with raised_as(DataError), complete(path, "no .npz file of plain arrays, or damaged", "Save numbers or strings."):
        names = array_names(path)
        found = next((pair for pair in keys if pair[0] in names), None)
        if found is None:
            pairs = ", ".join(f"{x} and {y}" for x, y in keys)
            raise FileError(f"Expected one of {pairs} in {path}. Received: {', '.join(names) or 'no array'}.")
        arrays = read_arrays(path, (*found, *CLASS_NAME_KEYS))
    return arrays, found[0], found[1] if found[1] in arrays else None


def check_inputs(
    x: np.ndarray, what: str, image_size: tuple[int, int] | None, channels: int | None
) -> tuple[np.ndarray, Kind]:
    """Checks the inputs against what the model takes, and tells what they are.

    Args:
        x: The inputs, shape `(n, ...)`.
        what: What to call them in a message.
        image_size: `(height, width)` that the model takes, if it takes images.
        channels: How many channels it takes.

    Returns:
        The inputs (grey images with a channel axis, bytes as strings) and "image", "array" or "text".

    Raises:
        DataError: If the shape does not fit, or a value is NaN or infinite.
    """
    if x.dtype.kind in "US":
        return _as_text(x, what), "text"
    if x.dtype.kind not in "biuf":
        raise DataError(f"Expected numbers or strings in {what}. Received: dtype {x.dtype}.")
    _check_finite(x, what)
    if image_size is None:
        is_image = x.ndim == 4 and x.shape[-1] in (1, 3, 4)
        return x, "image" if is_image else "array"
    if x.ndim == 3 and channels == 1:
        x = x[..., np.newaxis]
    expected = (*image_size, x.shape[-1] if channels is None else channels)
    if x.shape[1:] != expected:
        raise DataError(
            f"Expected samples of shape {expected} in {what}, as the model takes them. Received: {x.shape[1:]}. "
            "Resize the images, or give them as a folder: those are resized here."
        )
    return x, "image"


def to_levels(x: np.ndarray, what: str) -> Callable[[np.ndarray], np.ndarray] | None:
    """What brings pictures of more than 8 bits to 0 to 255; `None` for all others, which stay as they are.

    Others are values up to 255, floating-point values below 0, which are scaled already, and anything of other than 1,
    3 or 4 channels: no pictures, but bands that were measured.

    Args:
        x: The images, shape `(n, height, width, channels)` or `(n, channels, height, width)`.
        what: What to call them in a message.

    Raises:
        DataError: If it cannot be told which value is white; see `find_white`.
    """
    if x.ndim != 4 or not {1, 3, 4} & {x.shape[1], x.shape[-1]} or x.dtype.itemsize < 2:
        return None
    slack = SLACK if x.dtype.kind == "f" else 0.0
    least, most = float(x.min()), float(x.max())
    if most <= 255 * (1 + slack) or (x.dtype.kind == "f" and least < 0):
        return None
    white = find_white(least, most, what, slack=slack)
    return lambda images: np.clip(images.astype(np.float32), 0, white) * np.float32(255) / np.float32(white)


def _as_text(x: np.ndarray, what: str) -> np.ndarray:
    try:
        return np.char.decode(x, "utf-8") if x.dtype.kind == "S" else x
    except UnicodeDecodeError as error:
        raise DataError(f"Expected UTF-8 in {what}. Received other bytes ({error.reason}).") from error


def _check_finite(x: np.ndarray, what: str) -> None:
    if x.dtype.kind != "f":
        return
    for start in range(0, len(x), 1024):  # in pieces: no second array of that size
        bad = ~np.isfinite(x[start : start + 1024])
        if bad.any():
            first = start + int(np.argwhere(bad)[0][0])
            raise DataError(f"Expected finite numbers in {what}. Received: NaN or infinity in sample {first}.")
