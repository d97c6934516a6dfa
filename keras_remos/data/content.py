"""What data hold, as digests: whether a run that goes on has the data that it began with."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from keras_remos.data.arrays import kind_of
from keras_remos.data.datasets import Dataset
from keras_remos.data.streams import is_array_data
from keras_remos.data.training_data import TrainingData
from keras_remos.errors import DataError

# Samples at a time.
_PIECE = 1024


def content_of(data: Any, given: Any, *, verbose: bool | str = "auto") -> str | None:
    """A digest of what data hold.

    Args:
        data: Data as `training_data` makes them.
        given: What it made them of.
        verbose: Progress on stderr: `True`, `False`, or `"auto"` for terminals and notebooks only.

    Returns:
        For arrays and data sets of ours `TrainingData.fingerprint`; for a stream what its own method `fingerprint`
        says; `None` for one that has none: it may hold something else each time that it is read.
    """
    if isinstance(data, TrainingData):
        return data.fingerprint(verbose=verbose)
    return str(given.fingerprint()) if _tells(given) else None


def content_on_disk(data: Any) -> str | None:
    """A digest of what is stored of a `Dataset`, however it is scaled: of files byte by byte, which are not decoded.

    Args:
        data: A `Dataset`. Of arrays it is not known from what they were made: `None`.
    """
    if not isinstance(data, Dataset):
        return None
    total = hashlib.sha256()
    for start in range(0, data.num_samples, _PIECE):
        total.update(data.digest(np.arange(start, min(start + _PIECE, data.num_samples))))
    return total.hexdigest()


def check_content_known(data: Any) -> None:
    """Makes sure, before any work is done, that data tell what they hold. They are not read.

    Raises:
        DataError: If they do not.
    """
    if not (isinstance(data, Dataset) or is_array_data(data) or _tells(data)):
        raise DataError(
            "A run goes on from its `checkpoint` only if its data are the same, and what they hold cannot be known of "
            f"a {kind_of(data)}: it may give other batches each time. Pass arrays or a Dataset, leave `checkpoint` "
            "out, or give the data a method `fingerprint()`, whose text changes whenever their content does."
        )


def _tells(data: Any) -> bool:
    return callable(getattr(data, "fingerprint", None))
