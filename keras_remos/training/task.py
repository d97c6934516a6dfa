"""`Task`: what a student is to be trained for and on, checked before any work, and the students to begin with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_remos.data import TrainingData, batches, training_data
from keras_remos.data.arrays import map_arrays, to_numpy
from keras_remos.data.content import check_content_known, content_of
from keras_remos.data.labels import is_one_hot
from keras_remos.data.training_data import count_classes
from keras_remos.errors import DataError, StudentError
from keras_remos.models import layers as kinds
from keras_remos.models.ends import applies_sigmoid
from keras_remos.models.features import find_features
from keras_remos.models.heads import find_heads
from keras_remos.models.inputs import check_inputs, image_shape, preprocessed, strings_as_tensors, takes_strings
from keras_remos.models.loading import check_model
from keras_remos.slicing import new_head
from keras_remos.slicing import student as students
from keras_remos.training.recipe import Recipe, default_recipe
from keras_remos.untrusted import check_seed


class Task:
    """What a student is to be trained for, and on what. How it is fitted is a `Trainer`'s business.

    Args:
        teacher: A built Keras model. It is never modified.
        train: Arrays `(x, y)`, a `Dataset`, or whatever else `fit` takes.
        validation: The same, or `None`.
        num_classes: How many classes the student tells apart; may be left out where the data know it.
        recipe: How long and how fast; `default_recipe` if not given.
        seed: For the head, fresh weights, the order of the data, augmentation and dropout.
        keep_head: Whether students start with the teacher's head.
        head: The path of the teacher's head; found where it is not given.

    Raises:
        DataError: If the data are empty, do not fit the teacher or `num_classes`, or cannot be read often enough.
        StudentError: If there can be no head for so many classes, or the teacher's cannot be kept.
        RemosError: If there is no such seed.
    """

    def __init__(
        self,
        teacher: keras.Model,
        train: Any,
        validation: Any = None,
        *,
        num_classes: int | None = None,
        recipe: Recipe | None = None,
        seed: int = 0,
        keep_head: bool = False,
        head: str | None = None,
    ) -> None:
        check_model(teacher)
        check_seed(seed)
        if num_classes is None:
            num_classes = (new_head.classes_of_head(teacher) if keep_head else None) or count_classes(train)
        if isinstance(num_classes, np.integer):
            num_classes = int(num_classes)  # as `y.max() + 1` gives it
        new_head.check_num_classes(num_classes)
        if keep_head and not new_head.has_head_for(teacher, num_classes):
            reason = f"it is not for {num_classes} classes"
            if applies_sigmoid(teacher):
                reason = "it ends in a sigmoid, which says yes or no of each label by itself"
            raise StudentError(
                f"The head of {teacher.name!r} cannot be kept: {reason}. Leave `keep_head` out to get a fresh one."
            )
        self.teacher = teacher
        self.num_classes = num_classes
        self.recipe = recipe or default_recipe(teacher)
        self.seed = seed
        self.keep_head = keep_head
        self.head = head
        how: dict[str, Any] = {
            "num_classes": num_classes,
            "batch_size": self.recipe.batch_size,
            "data_format": image_shape(teacher)[1],
        }
        if getattr(teacher, "preprocessor", None) is not None:
            how["transform"] = lambda x: preprocessed(teacher, x)
        elif takes_strings(teacher):
            how["transform"] = strings_as_tensors
        self.data = training_data(train, seed=seed, augment=self.recipe.augment, **how)
        self.validation = training_data(validation, seed=None, augment="none", **how)
        self._given = train, validation
        self.example: Any = None
        self.steps = self._count_steps()
        if isinstance(self.data, TrainingData):
            example = keras.utils.unpack_x_y_sample_weight(self.data.plain()[0])[0]
            self.example = map_arrays(to_numpy, example)
            check_inputs(teacher, self.example)
        self.heads = find_heads(teacher, self.example, head=head)

    def plain_data(self) -> Any:
        """The training data to be measured: without augmentation where that is ours."""
        if isinstance(self.data, TrainingData):
            return self.data.plain()
        self.require_rereadable("are read more than once")
        return self.data

    def content(self, *, verbose: bool | str = "auto") -> dict[str, str | None]:
        """Digests of the training data, which are read once, and of what augmentation makes of them.

        Raises:
            DataError: If it cannot be known what they hold.
        """
        check_content_known(self._given[0])
        augmented = self.data.fingerprint_of_augmentation() if isinstance(self.data, TrainingData) else None
        return {"data": content_of(self.data, self._given[0], verbose=verbose), "augmentation": augmented}

    def validation_content(self, *, verbose: bool | str = "auto") -> str | None:
        """A digest of the validation data, which are read once; `None` if there are none, or they do not tell."""
        return content_of(self.validation, self._given[1], verbose=verbose)

    def some_samples(self, count: int) -> tuple[Any, np.ndarray]:
        """Up to so many training samples and their class ids: drawn by the seed where the order is ours."""
        data = self.data.unaugmented() if isinstance(self.data, TrainingData) else self.plain_data()
        xs, ys = [], []
        for x, y, _ in batches(data):
            xs.append(x)
            ys.append(self.class_ids(y))
            if sum(map(len, ys)) >= count:
                break
        joined = keras.tree.map_structure(lambda *leaves: np.concatenate(leaves)[:count], *xs)
        return joined, np.concatenate(ys)[:count]

    def class_ids(self, y: np.ndarray) -> np.ndarray:
        """Labels of a batch as class ids: they may be one-hot rows where the data are not ours."""
        return y.argmax(axis=-1) if is_one_hot(y, self.num_classes) else y.reshape(-1)

    @property
    def one_hot(self) -> bool:
        """Whether labels come as one-hot rows. Of data that are read once nobody can tell: taken for class ids."""
        if isinstance(self.data, TrainingData):
            return self.data.one_hot
        source = batches(self.data)
        return not source.once and is_one_hot(next(iter(source))[1], self.num_classes)

    def require_rereadable(self, reason: str) -> None:
        """Makes sure that the data can be read again.

        Raises:
            DataError: If they cannot, as with a generator.
        """
        if batches(self.data).once:
            raise DataError(
                f"Expected data that can be read again: they {reason}. Received: a {type(self.data).__name__}, which "
                "is read once. Pass arrays, a data set or a PyDataset."
            )

    def copy(self) -> keras.Model:
        """A student that starts from the whole teacher. All of it trains."""
        return self.masked({})

    def masked(self, masks: Mapping[str, np.ndarray], *, freeze: bool = False) -> keras.Model:
        """A student that starts from a part of the teacher, with a fresh head unless that is kept. All of it trains.

        Args:
            masks: For each kernel a boolean array of its shape: `True` where the weight is kept; the others are zero.
            freeze: Whether they stay so.
        """
        return students.build(
            self.teacher,
            masks,
            heads=self.heads,
            num_classes=None if self.keep_head else self.num_classes,
            freeze=freeze,
            all_train=True,
            seed=self.seed,
        )

    def fresh(self) -> keras.Model:
        """A student of the teacher's architecture that shares no weight with it."""
        made = students.from_scratch(self.teacher, heads=self.heads, num_classes=self.num_classes, seed=self.seed)
        kinds.set_trainable(made, True)
        return made

    def frozen_teacher(self) -> keras.Model:
        """A copy of the teacher that nothing changes."""
        twin = students.build(self.teacher, {})
        kinds.set_trainable(twin, False)
        return twin

    def heads_of(self, student: keras.Model) -> tuple[str, ...]:
        """Paths of the layers that make a student's outputs."""
        return self.heads if self.keep_head else find_heads(student, self.example)

    def feature_paths(self, given: Sequence[str] | None) -> list[str]:
        """The feature layers: those that were asked for, or else the ends of the teacher's blocks."""
        return find_features(self.teacher, self.example, head=self.head) if given is None else list(given)

    def _count_steps(self) -> int:
        source = batches(self.data)
        if source.once and self.recipe.epochs > 1:
            self.require_rereadable(f"are read in each of {self.recipe.epochs} epochs")
        if source.num_batches is not None:
            return source.num_batches
        if self.recipe.schedule == "cosine" or self.recipe.warmup:
            raise DataError(
                "Expected data whose number of batches is known, as the learning rate follows it. Received: "
                f"{type(self.data).__name__} without a length. Pass arrays, or a Recipe with `schedule='constant'` and "
                "`warmup=0`."
            )
        return 1
