"""What all methods share: one task, one training loop around Keras' own `fit`, one kind of result."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, Protocol

import keras
import numpy as np
from keras import ops

from keras_remos import layers as kinds
from keras_remos import student as students
from keras_remos.data import TrainingData, batches, training_data
from keras_remos.data.matching import image_shape
from keras_remos.errors import DataError, RemosError, StudentError
from keras_remos.features import find_features, find_heads, returns_probabilities
from keras_remos.methods.checkpoints import Checkpoint, Progress
from keras_remos.methods.loss import cross_entropy
from keras_remos.methods.recipe import Recipe, optimizer
from keras_remos.profiling import check_inputs, preprocessed
from keras_remos.progress import track
from keras_remos.saving import PathLike, fingerprint, versions


@dataclass(frozen=True)
class Trained:
    """What a method gives back.

    Args:
        student: A plain, uncompiled Keras model: it can be saved, and loaded where keras-remos is not installed.
        history: What `fit` reported, epoch by epoch, over all stages.
        method: The method's name.
        options: Everything that decided the result, as plain values for JSON.
    """

    student: keras.Model
    history: dict[str, list[float]]
    method: str
    options: dict[str, Any]


class Kept(Protocol):
    """What a method keeps from epoch to epoch beside the weights."""

    def update(self) -> None:
        """Called when an epoch has ended."""

    def arrays(self) -> dict[str, np.ndarray]:
        """All of it, for a checkpoint."""

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Takes it back from a checkpoint."""


class Training(keras.Model):
    """Runs a student while it is trained. What is compiled and fitted is this model, so the student stays plain.

    Args:
        student: The student.
    """

    def __init__(self, student: keras.Model) -> None:
        # As the student would be trained by itself: inputs as they are, loss scaling where it computes in float16.
        super().__init__(name="training", dtype=student.dtype_policy, autocast=False)
        self.student = student
        self.built = True

    def call(self, x: Any, training: bool = False) -> Any:
        return self.student(x, training=training)


class Task:
    """What a student is to be trained for, on what and how: checked before any work is done.

    Args:
        method: The method's name.
        teacher: A built Keras model. It is never modified.
        train: Arrays `(x, y)`, a `Dataset`, or whatever else `fit` takes.
        validation: The same, or `None`.
        num_classes: How many classes the student tells apart.
        recipe: How long and how fast.
        seed: For the head, fresh weights, the order of the data, augmentation and dropout.
        callbacks: Keras callbacks. The model that they see is a `Training`; the student is its `student`.
        checkpoint: A folder in which progress is kept.
        verbose: Progress on stderr.
        options: The method's own options, as plain values for JSON.
        keep_head: Whether students start with the teacher's head.

    Raises:
        DataError: If the data are empty, do not fit the teacher or `num_classes`, or cannot be read often enough.
        StudentError: If there can be no head for so many classes, or the teacher's cannot be kept.
    """

    def __init__(
        self,
        method: str,
        teacher: keras.Model,
        train: Any,
        validation: Any = None,
        *,
        num_classes: int,
        recipe: Recipe,
        seed: int,
        callbacks: Sequence[keras.callbacks.Callback],
        checkpoint: PathLike | None,
        verbose: bool | str,
        options: Mapping[str, Any] | None = None,
        keep_head: bool = False,
    ) -> None:
        if isinstance(num_classes, np.integer):
            num_classes = int(num_classes)  # as `y.max() + 1` gives it
        students.check_num_classes(num_classes)
        if keep_head and not students.has_head_for(teacher, num_classes):
            raise StudentError(
                f"The head of {teacher.name!r} cannot be kept: it is not for {num_classes} classes. Leave keep_head "
                "out to get a fresh one."
            )
        self.method = method
        self.teacher = teacher
        self.num_classes = num_classes
        self.recipe = recipe
        self.seed = seed
        self.callbacks = list(callbacks)
        self.checkpoint = checkpoint
        self.verbose = verbose
        self.keep_head = keep_head
        self.own_options = {**(options or {}), **({"keep_head": True} if keep_head else {})}
        self.history: dict[str, list[float]] = {}
        how: dict[str, Any] = {
            "num_classes": num_classes,
            "batch_size": recipe.batch_size,
            "data_format": image_shape(teacher)[1],
        }
        if getattr(teacher, "preprocessor", None) is not None:
            how["transform"] = lambda x: preprocessed(teacher, x)
        self.data = training_data(train, seed=seed, augment=recipe.augment, **how)
        self.validation = training_data(validation, seed=None, augment="none", **how)
        self.example: Any = None
        self.steps = self._count_steps()
        if isinstance(self.data, TrainingData):
            self.example = keras.utils.unpack_x_y_sample_weight(self.data.plain()[0])[0]
            check_inputs(teacher, self.example)
        self.heads = find_heads(teacher, self.example)

    @property
    def options(self) -> dict[str, Any]:
        """Everything that decides the result, as plain values for JSON."""
        return {
            "method": self.method,
            "backend": keras.backend.backend(),
            "num_classes": self.num_classes,
            "seed": self.seed,
            "recipe": self.recipe.get_config(),
            **self.own_options,
        }

    def plain_data(self) -> Any:
        """The training data to be measured: without augmentation where that is ours."""
        if isinstance(self.data, TrainingData):
            return self.data.plain()
        self.require_rereadable("are read more than once")
        return self.data

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
        return y.argmax(axis=-1) if y.ndim == 2 and y.shape[1] == self.num_classes else y.reshape(-1)

    def heads_of(self, student: keras.Model) -> tuple[str, ...]:
        """Paths of the layers that make a student's outputs."""
        return find_heads(student, self.example)

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
        made = students.build(
            self.teacher,
            masks,
            heads=self.heads,
            num_classes=None if self.keep_head else self.num_classes,
            freeze=freeze,
            seed=self.seed,
        )
        kinds.set_trainable(made, True)
        return made

    def fresh(self) -> keras.Model:
        """A student of the teacher's architecture that shares no weight with it."""
        made = students.from_scratch(self.teacher, heads=self.heads, num_classes=self.num_classes, seed=self.seed)
        kinds.set_trainable(made, True)
        return made

    def feature_paths(self, given: Sequence[str] | None) -> list[str]:
        """The feature layers: those that were asked for, or else the ends of the teacher's blocks."""
        paths = find_features(self.teacher, self.example) if given is None else list(given)
        self.own_options["features"] = paths
        return paths

    def frozen_teacher(self) -> keras.Model:
        """A copy of the teacher that nothing changes."""
        twin = students.build(self.teacher, {})
        kinds.set_trainable(twin, False)
        return twin

    def fit(
        self,
        training: Training,
        *,
        first: int = 0,
        last: int | None = None,
        stage: str = "training",
        recipe: Recipe | None = None,
        kept: Kept | None = None,
    ) -> None:
        """Trains from one epoch to another, or goes on where that was interrupted.

        Args:
            training: The student, and what happens to it in a step.
            first: The epoch to begin with. Epochs are counted over all stages, as the order of the data is.
            last: The epoch to stop before; all that the recipe has by default.
            stage: The name of the checkpoint.
            recipe: For the optimizer, if not the task's own.
            kept: What is kept from epoch to epoch beside the weights.

        Raises:
            RemosError: If the loss stops being a number.
            MismatchError: If the checkpoint is of a run with other arguments.
        """
        last = self.recipe.epochs if last is None else last
        self.compile(training, recipe or self.recipe, epochs=last - first)
        training.optimizer.build(training.trainable_variables)
        variables = [*training.student.weights, *training.optimizer.variables]
        file = None if self.checkpoint is None else Checkpoint(self.checkpoint, stage, self._arguments())
        saved = None if file is None else file.load()
        if saved is not None:
            saved.restore(variables)
            self.history = {name: list(values) for name, values in saved.history.items()}
            if kept is not None:
                kept.restore(saved.extras)
            if saved.finished:
                return
            first = saved.epochs

        def ended(epochs: int, finished: bool) -> None:
            if kept is not None:
                kept.update()
            if file is not None:
                extras = kept.arrays() if kept is not None else {}
                file.save(Progress(epochs, finished, self.history, extras=extras), variables)

        description = f"Training ({self.method})"
        with closing(
            track(range(first, last), total=last - first, description=description, verbose=self.verbose)
        ) as bar:
            loop = _Loop(self, last=last, ended=ended, tick=lambda: next(bar, None))
            training.fit(
                self.data,
                validation_data=self.validation,
                initial_epoch=first,
                epochs=last,
                callbacks=[*self.callbacks, loop],
                shuffle=False,
                verbose=0,
            )
        _check_weights(training.student, self.recipe)

    def trained(self, student: keras.Model) -> Trained:
        """The result."""
        return Trained(student, self.history, self.method, {**self.options, "versions": versions()})

    def compile(self, training: Training, recipe: Recipe, *, epochs: int) -> None:
        """Gives a training the optimizer, loss and metrics that a recipe stands for.

        Args:
            training: Compiled in place.
            recipe: The recipe.
            epochs: How many epochs its schedule spans.
        """
        student = training.student
        example = self.example
        holders = dict(kinds.weight_holders(student))
        heads = self.heads_of(student) if recipe.head_multiplier != 1 else ()
        head = [weight for path in heads for weight in kinds.own_variables(holders[path])]
        training.compile(
            optimizer=optimizer(recipe, steps=self.steps * epochs, head=head),
            loss=cross_entropy(recipe.label_smoothing, from_logits=not returns_probabilities(student, example)),
            metrics=["accuracy"],
        )

    def _count_steps(self) -> int:
        source = batches(self.data)
        if source.once and self.recipe.epochs > 1:
            self.require_rereadable(f"are read in each of {self.recipe.epochs} epochs")
        if source.num_batches is not None:
            return source.num_batches
        if self.recipe.schedule == "cosine" or self.recipe.warmup:
            raise DataError(
                "Expected data whose number of batches is known, as the learning rate follows it. Received: "
                f"{type(self.data).__name__} without a length. Pass arrays, or a Recipe with schedule='constant' and "
                "warmup=0."
            )
        return 1

    def _arguments(self) -> dict[str, Any]:
        data = self.data
        return {
            **self.options,
            "data": data.fingerprint() if isinstance(data, TrainingData) else type(data).__name__,
            "teacher": fingerprint(self.teacher),
        }


class _Loop(keras.callbacks.Callback):
    """What happens around each epoch: data and dropout are set to it, the loss is checked, progress is kept."""

    def __init__(self, task: Task, *, last: int, ended: Callable[[int, bool], None], tick: Callable[[], Any]) -> None:
        super().__init__()
        self.task = task
        self.last = last
        self.ended = ended
        self.tick = tick

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.tick()
        if isinstance(self.task.data, TrainingData):
            self.task.data.epoch = epoch
        # Seeds of its own for each epoch: a run that goes on from one draws what an unbroken run draws.
        kinds.reseed(self.model, np.random.default_rng([self.task.seed, epoch]))

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        values = {name: float(value) for name, value in (logs or {}).items()}
        if not math.isfinite(values.get("loss", 0.0)):
            raise _diverged(f"The loss became {values['loss']} in epoch {epoch + 1} of {self.last}", self.task.recipe)
        for name, value in values.items():
            self.task.history.setdefault(name, []).append(value)
        # A callback may have ended it early: this one comes last.
        self.ended(epoch + 1, epoch + 1 == self.last or self.model.stop_training)


def _check_weights(student: keras.Model, recipe: Recipe) -> None:
    """A weight may turn into NaN in the very last step, when no loss shows it any more."""
    for weight in student.weights:
        if not np.isfinite(ops.convert_to_numpy(ops.cast(weight.value, "float32"))).all():
            raise _diverged(f"Weight {weight.path!r} became NaN or infinite in the last epoch", recipe)


def _diverged(what: str, recipe: Recipe) -> RemosError:
    lower = replace(recipe, learning_rate=recipe.learning_rate / 10).learning_rate
    return RemosError(
        f"{what}: training diverged. Try a lower learning rate ({lower:g} instead of {recipe.learning_rate:g}) or a "
        "longer warm-up; check that inputs are scaled as the teacher was trained and hold no NaN, and that half "
        "precision does not overflow."
    )
