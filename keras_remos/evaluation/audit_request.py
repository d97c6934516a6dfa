"""What an audit is asked for, checked before anything is trained or attacked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from keras_remos.data.content import content_on_disk
from keras_remos.data.datasets import Dataset
from keras_remos.data.labels import check_largest_id
from keras_remos.data.other_tasks import refuse_other_tasks
from keras_remos.data.parts import set_aside
from keras_remos.data.pixels import PREPROCESSOR, PixelSpace
from keras_remos.data.samples import AnySamples, Samples, read_samples
from keras_remos.data.texts import as_texts, holds_text
from keras_remos.defects import Prepared
from keras_remos.errors import DataError, MismatchError, RemosError
from keras_remos.evaluation.attackers import Attacker
from keras_remos.evaluation.controls import Controls
from keras_remos.evaluation.measuring import Students
from keras_remos.models.loading import check_model
from keras_remos.models.tokenizers import reads_text
from keras_remos.training.trained import Trained

# Classes in a message.
MOST_NAMED = 5


def as_prepared(teacher: keras.Model | Prepared, space: PixelSpace | None) -> Prepared:
    """The teacher with how its inputs come from pixels.

    Raises:
        MismatchError: If its file says otherwise than the caller.
        RemosError: If nobody says.
    """
    if isinstance(teacher, Prepared):
        if space is not None and space != teacher.space:
            raise MismatchError(
                f"The teacher's file says that its inputs are scaled by {teacher.space}, received {space}. Leave space "
                "out."
            )
        return teacher
    check_model(teacher)
    if space is None and reads_text(teacher):
        space = PixelSpace(PREPROCESSOR)
    if space is None:
        raise RemosError(
            "How do the teacher's inputs come from pixels? Pass a PixelSpace as `space`: 'imagenet', '0-1', ... "
            "(keras_remos.open_for_model finds out), or a teacher from Prepared.load."
        )
    return Prepared(teacher, space)


def samples(test: Any, class_names: Iterable[str], space: PixelSpace) -> tuple[AnySamples, np.ndarray, tuple[str, ...]]:
    """The test set: samples, of a data set such as are read when they are asked for, classes, and the classes' names.

    Raises:
        DataError: If it is none.
    """
    if isinstance(test, Dataset):
        return *read_samples(test, space), tuple(class_names) or tuple(test.class_names)
    if not (isinstance(test, tuple) and len(test) == 2):
        raise DataError(
            f"Expected the test set as (x, y) in pixels or texts, or as a Dataset. Received: {type(test).__name__}."
        )
    refuse_other_tasks(test[1])
    x, y = test[0] if isinstance(test[0], Samples) else np.asarray(test[0]), np.asarray(test[1])
    if holds_text(x):
        x = as_texts(x, allow_empty=True)
    if y.shape != x.shape[:1] or y.dtype.kind not in "biu" or not len(y):
        raise DataError(
            f"Expected a class id for each test sample. Received: samples of shape {x.shape}, labels of shape {y.shape}"
            f" and type {y.dtype}."
        )
    check_largest_id(y)
    return x, y.astype(np.int32), tuple(class_names)


def check_request(judged: Students, train: Any, controls: Controls, compared_with: Mapping[str, Any]) -> None:
    """Makes sure that there is what is to be judged, and what it is to be compared with.

    Raises:
        RemosError: If not.
        DataError: If the training data are of another task.
    """
    if train is None and compared_with:
        raise RemosError(
            f"Trained in this run: {', '.join(compared_with)}. For that give `train`, or name the student to "
            "compare with, or do without (`controls`)."
        )
    for named in (controls.control, controls.floor):
        if isinstance(named, str) and named not in judged:
            raise RemosError(f"There is no student {named!r} to compare with: expected one of {', '.join(judged)}.")
    taken = sorted(set(compared_with) & set(judged))
    if taken:
        raise RemosError(f"The name {' and '.join(taken)} is taken: rename that student.")
    if not judged and not compared_with:
        raise RemosError("There is no student to audit: name one or more (`students`).")
    if isinstance(train, Dataset):
        train.required_labels()
    elif isinstance(train, tuple) and len(train) > 1:
        refuse_other_tasks(train[1])


def classes_of(train: Any) -> int:
    """How many classes training data have, as far as they tell: 0 where they do not."""
    if isinstance(train, Dataset):
        return train.num_classes or 0
    labels = np.asarray(train[1]) if isinstance(train, tuple) and len(train) > 1 else np.empty(0)
    return int(labels.max()) + 1 if labels.ndim == 1 and labels.size and labels.dtype.kind in "biu" else 0


def check_attackers_classes(data: Any, class_names: tuple[str, ...], num_classes: int) -> None:
    """Makes sure, before any work is done, that the attacker's own data are of the students' classes.

    Args:
        data: The attacker's, or `None`.
        class_names: Of the test set; may be empty.
        num_classes: How many classes the students tell apart.

    Raises:
        DataError: If they are of others, or numbered otherwise.
    """
    if data is None:
        return
    way_out = "Give data of the same classes, numbered alike (`open_dataset(..., class_names=...)`)."
    named = tuple(data.class_names) if isinstance(data, Dataset) else ()
    if named and class_names and not _numbered_alike(named, class_names):
        raise DataError(
            f"The attacker's data are of the classes {_listed(named)}, the test set is of {_listed(class_names)}. "
            f"{way_out}"
        )
    found = classes_of(data)
    if found > num_classes:
        raise DataError(
            f"The attacker's data have a class {found - 1}, and the students tell {num_classes} classes apart. "
            f"{way_out}"
        )


def _numbered_alike(names: tuple[str, ...], others: tuple[str, ...]) -> bool:
    """Whether classes have the same numbers, as far as names tell: the last ones may be missing."""
    if names == others[: len(names)]:
        return True
    # Classes that are called by their numbers fit any names that are none.
    return any(
        one == tuple(map(str, range(len(one)))) and not any(name.isdigit() for name in other)
        for one, other in ((names, others), (others, names))
    )


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names[:MOST_NAMED]) + (f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else "")


def parted(train: Any, attacker: Attacker, ways: Mapping[str, Trained]) -> tuple[Any, Attacker]:
    """The training data without the share that students left to the attacker, who gets it.

    Args:
        train: The students' training data, if they are given.
        attacker: Who gets the share, without data of their own.
        ways: How students were made, by name. One that says nothing of a share left none.

    Raises:
        MismatchError: If students left different shares, or samples that are not where they were in these data.
    """
    shares = {name: _share_of(way.options) for name, way in ways.items()}
    if attacker.data is not None or train is None or not any(share for share, _ in shares.values()):
        return train, attacker
    if len(set(shares.values())) > 1:
        told = "; ".join(
            f"{name}: {f'{share:g}, seed {seed}' if share else 'none'}" for name, (share, seed) in shares.items()
        )
        raise MismatchError(
            f"The students were trained with different shares set aside for the attacker ({told}): give the "
            "attacker's data (`attacker_data`), or measure them one by one."
        )
    share, seed = next(iter(shares.values()))
    rest, aside = set_aside(train, share, seed=seed)
    content = content_on_disk(aside)
    for name, way in ways.items():
        if content is not None and way.options.get("attacker_data", content) != content:
            raise MismatchError(
                f"What {name} left to the attacker is not what these training data set aside: they hold other samples, "
                "or in another order. Give the data as it had them, or the attacker's data (`attacker_data`)."
            )
    return rest, replace(attacker, data=aside)


def _share_of(options: Mapping[str, Any]) -> tuple[float, int]:
    """The share that a student left to the attacker, and the seed that chose it."""
    share = options.get("attacker_share", 0)
    return share, options.get("seed", 0) if share else 0
