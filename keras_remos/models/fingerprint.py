"""Whose weights these are: what ties a profile, a slice or an attack set to the model that it was made with."""

import hashlib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np

from keras_remos.errors import MismatchError
from keras_remos.models.layers import own_variables, weight_holders

WeightsFingerprint = tuple[tuple[str, str], ...]


def fingerprint(model: keras.Model, *, without: Sequence[str] = ()) -> WeightsFingerprint:
    """Which weights a model has: `(layer path, digest)` for every layer that holds some.

    Args:
        model: A built model.
        without: Paths of layers to leave out: heads, which a slice says nothing about.

    Returns:
        In the order of the model's layers. The digest covers shapes, dtypes and values.
    """

    def mark(found: tuple[str, keras.Layer]) -> tuple[str, str]:
        path, layer = found
        digest = hashlib.sha256()
        for variable in own_variables(layer):
            array = np.ascontiguousarray(keras.ops.convert_to_numpy(variable.value))
            digest.update(f"{array.dtype}{array.shape}".encode())
            digest.update(array.view(np.uint8).data if array.ndim else array.tobytes())
        return path, digest.hexdigest()[:16]

    # Digests are made without Python's lock. Two threads: on a GPU each holds a copy of what it reads.
    with ThreadPoolExecutor(2) as pool:
        return tuple(pool.map(mark, [found for found in weight_holders(model) if found[0] not in without]))


def short(marks: Iterable[Sequence[str]]) -> str:
    """A fingerprint as one short digest, for people to compare: 16 hexadecimal digits."""
    digest = hashlib.sha256()
    for path, mark in marks:
        digest.update(f"{path}\0{mark}\0".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()[:16]


def check_fingerprint(expected: WeightsFingerprint, model: keras.Model, what: str) -> None:
    """Makes sure that a profile or a slice belongs to a model.

    Args:
        expected: The fingerprint that it carries.
        model: The model it is to be used with.
        what: `"profile"`, `"slice"` or `"attack set"`: for the message.

    Raises:
        MismatchError: If it names no layer, or the weights differ; names the first layer whose do.
    """
    if not expected:
        raise MismatchError(f"This {what} does not say of which model it is. Make a new {what}.")
    paths = {path for path, _ in expected}
    actual = [mark for mark in fingerprint(model) if mark[0] in paths]
    for wanted, found in zip(expected, actual, strict=False):
        if wanted[0] != found[0]:
            reason = f"expected layer {wanted[0]!r}, found {found[0]!r}"
        elif wanted[1] != found[1]:
            reason = f"the weights of layer {wanted[0]!r} differ"
        else:
            continue
        raise _mismatch(what, model, reason)
    if len(actual) < len(expected):
        there = {path for path, _ in actual}
        missing = next((path for path, _ in expected if path not in there), None)
        reason = "it names a layer twice" if missing is None else f"layer {missing!r} is missing"
        raise _mismatch(what, model, reason)


def _mismatch(what: str, model: keras.Model, reason: str) -> MismatchError:
    return MismatchError(
        f"This {what} was made for another model than {model.name!r}: {reason}. "
        f"Make a new {what} with this model, or use the model that it was made with."
    )
