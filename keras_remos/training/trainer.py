"""`Trainer`: fits what starts from a task, around Keras' own `fit`, and goes on where that was interrupted."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import keras
import numpy as np

from keras_remos.data import TrainingData
from keras_remos.data.checked_streams import data_errors
from keras_remos.errors import DivergedError
from keras_remos.models import layers as kinds
from keras_remos.models.fingerprint import fingerprint
from keras_remos.models.finite import is_finite
from keras_remos.models.heads import returns_probabilities
from keras_remos.progress import track_epochs
from keras_remos.saving import versions
from keras_remos.training.callbacks import Steps, check_callbacks
from keras_remos.training.checkpoints import Checkpoint, Progress
from keras_remos.training.constant import find_constant
from keras_remos.training.loss import accuracy, cross_entropy
from keras_remos.training.recipe import Recipe, optimizer
from keras_remos.training.task import Task
from keras_remos.training.trained import Trained
from keras_remos.untrusted import PathLike, complete


class Training(keras.Model):
    """Runs a student while it is trained. What is compiled and fitted is this model, so the student stays plain.

    What callbacks save and load by it, as `keras.callbacks.ModelCheckpoint` does, is the student.

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

    def save(self, filepath: PathLike, **options: Any) -> None:
        self.student.save(filepath, **options)

    def save_weights(self, filepath: PathLike, **options: Any) -> None:
        self.student.save_weights(filepath, **options)

    def load_weights(self, filepath: PathLike, **options: Any) -> None:
        self.student.load_weights(filepath, **options)


class Kept(Protocol):
    """What a method keeps from epoch to epoch beside the weights."""

    def update(self) -> None:
        """Called when an epoch has ended."""

    def arrays(self) -> dict[str, np.ndarray]:
        """All of it, for a checkpoint."""

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Takes it back from a checkpoint."""


class Trainer:
    """Fits students of a task, in one stage or several.

    Args:
        task: What they are trained for and on.
        name: Of the method or attack: for the record and the progress bar.
        callbacks: Keras callbacks. The model that they see is a `Training`; the student is its `student`. Those that
            put a run back to where it was are refused, and so are those that set the learning rate, unless it is
            constant.
        checkpoint: A folder in which progress is kept.
        verbose: Progress on stderr: `True`, `False`, or `"auto"` for terminals and notebooks only.
        options: What else decides the result, as plain values for JSON.

    Attributes:
        history: What `fit` has reported so far, epoch by epoch, over all stages.

    Raises:
        RemosError: If a callback cannot do here what it is for.
    """

    def __init__(
        self,
        task: Task,
        name: str,
        *,
        callbacks: Sequence[keras.callbacks.Callback] = (),
        checkpoint: PathLike | None = None,
        verbose: bool | str = "auto",
        options: Mapping[str, Any] | None = None,
    ) -> None:
        check_callbacks(callbacks, task.recipe)
        self.task = task
        self.name = name
        self.callbacks = list(callbacks)
        self.checkpoint = checkpoint
        self.verbose = verbose
        self.own_options = dict(options or {})
        self.history: dict[str, list[float]] = {}

    @property
    def options(self) -> dict[str, Any]:
        """Everything that decides the result, as plain values for JSON."""
        return {
            "method": self.name,
            "backend": keras.backend.backend(),
            "num_classes": self.task.num_classes,
            "seed": self.task.seed,
            "recipe": self.task.recipe.get_config(),
            **self.own_options,
        }

    def put_on_record(self, **options: Any) -> None:
        """Adds to what decides the result, once it is known: plain values for JSON."""
        self.own_options.update(options)

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
            DivergedError: If the loss stops being a number.
            MismatchError: If the checkpoint is of a run with other arguments.
        """
        last = self.task.recipe.epochs if last is None else last
        self.compile(training, recipe or self.task.recipe, epochs=last - first)
        training.optimizer.build(training.trainable_variables)
        if self.checkpoint is None:
            self._run(training, first, last, None, kept)
            return
        file = Checkpoint(self.checkpoint, stage, self._arguments(), self._arguments_of_format_1())
        with file.reserved():
            self._run(training, first, last, file, kept)

    def _run(self, training: Training, first: int, last: int, file: Checkpoint | None, kept: Kept | None) -> None:
        task = self.task
        # A rate that can be set comes last: files from before it could be end with the others.
        rate = training.optimizer.learning_rate
        variables = sorted([*training.student.weights, *training.optimizer.variables], key=lambda each: each is rate)
        done, validation = first, None if file is None else self._validation

        def keep(finished: bool) -> None:
            if file is not None:
                extras = kept.arrays() if kept is not None else {}
                file.save(Progress(done, finished, self.history, (), extras, validation), variables)

        saved = None if file is None else file.load()
        if file is not None and saved is not None:
            with complete(file.path):
                if len(saved.values) < len(variables) - 1:
                    raise ValueError(f"{len(saved.values)} values for {len(variables)} variables")
                saved.restore(variables[: len(saved.values)])
                if kept is not None:
                    kept.restore(saved.extras)
            self.history = {name: list(values) for name, values in saved.history.items()}
            measured = saved.validation is not None and saved.validation == validation
            if not measured:
                # Weights do not depend on it: validation data may come later, or be others.
                self.history = {name: values for name, values in self.history.items() if not name.startswith("val_")}
            done = first = saved.epochs
            if saved.finished:
                if not measured and task.validation is not None:
                    self._measure(training)
                    keep(finished=True)
                return

        def ended(epochs: int, finished: bool) -> None:
            nonlocal done
            done = epochs
            if kept is not None:
                kept.update()
            keep(finished)

        description = f"Training ({self.name})"
        loop = _Loop(self, last=last, ended=ended)
        with (
            track_epochs(description, first=first, last=last, steps=task.steps, verbose=self.verbose) as watched,
            data_errors(),
        ):
            training.fit(
                task.data,
                validation_data=task.validation,
                initial_epoch=first,
                epochs=last,
                callbacks=[*self.callbacks, *([] if watched is None else [Steps(watched)]), loop],
                shuffle=False,
                verbose=0,
            )
        if self.callbacks:
            # At the end of training a callback may put back the weights of an earlier epoch.
            keep(finished=True)
        _check_weights(training.student, task.recipe)

    def _measure(self, training: Training) -> None:
        """Adds the figures on the validation data, as `fit` would at the end of an epoch."""
        with data_errors():
            found = training.evaluate(self.task.validation, verbose=0, return_dict=True)
        for name, value in found.items():
            self.history.setdefault(f"val_{name}", []).append(float(value))

    def trained(self, student: keras.Model) -> Trained:
        """The result, with the student compiled, so that it can be evaluated.

        Warns:
            UserWarning: See `check_constant`.
        """
        self.check_constant(student)
        self.make_evaluable(student, one_hot=self.task.one_hot)
        made = {"steps": self.task.steps * len(self.history.get("loss", ())), "versions": versions()}
        return Trained(student, self.history, self.name, {**self.options, **made})

    def check_constant(self, student: keras.Model) -> None:
        """Says so, to the user and on record, if the last stage ended in a classifier that names one class only.

        Warns:
            UserWarning: If it did.
        """
        found = find_constant(student, self.task)
        if found is None:
            return
        self.put_on_record(constant=True)
        rate = self.task.recipe.rate
        warnings.warn(
            f"Training ({self.name}) ended in a constant classifier: it says class {found.label} of {found.named} of "
            f"{found.samples} training samples, and {found.right} are of that class. No attack changes what it says, "
            f"so its figures mean nothing. Try a lower learning rate ({rate / 10:g} instead of {rate:g}), more epochs, "
            "or more data.",
            stacklevel=4,
        )

    def compile(self, training: Training, recipe: Recipe, *, epochs: int) -> None:
        """Gives a training the optimizer, loss and metrics that a recipe stands for.

        Args:
            training: Compiled in place.
            recipe: The recipe.
            epochs: How many epochs its schedule spans.
        """
        student = training.student
        holders = dict(kinds.weight_holders(student))
        heads = self.task.heads_of(student) if recipe.head_multiplier != 1 else ()
        head = [weight for path in heads for weight in kinds.own_variables(holders[path])]
        from_logits = not returns_probabilities(student, self.task.example)
        # As it is handed back: callbacks may save it. Streams are not read for it before they are trained on.
        data = self.task.data
        self.make_evaluable(student, one_hot=isinstance(data, TrainingData) and data.one_hot)
        training.compile(
            optimizer=optimizer(recipe, steps=self.task.steps * epochs, head=head),
            loss=cross_entropy(recipe.label_smoothing, from_logits=from_logits),
            metrics=[accuracy],
        )

    def make_evaluable(self, student: keras.Model, *, one_hot: bool) -> None:
        """Compiles a student with what is of Keras alone and has no state: its file opens anywhere, and is no larger.

        Args:
            student: Compiled in place.
            one_hot: Whether it will be measured on one-hot rows; else on class ids.
        """
        kind = keras.losses.CategoricalCrossentropy if one_hot else keras.losses.SparseCategoricalCrossentropy
        student.compile(
            # Named: Keras would count how many this process has made.
            optimizer=keras.optimizers.SGD(self.task.recipe.rate, name="sgd"),
            loss=kind(from_logits=not returns_probabilities(student, self.task.example)),
            metrics=["accuracy"],
        )
        student.optimizer.build(student.trainable_variables)

    # Both stay what they are from stage to stage.
    @functools.cached_property
    def _content(self) -> dict[str, str | None]:
        return self.task.content(verbose=self.verbose)

    @functools.cached_property
    def _validation(self) -> str | None:
        return self.task.validation_content(verbose=self.verbose)

    def _arguments(self) -> dict[str, Any]:
        return {**self.options, **self._content, "teacher": fingerprint(self.task.teacher)}

    def _arguments_of_format_1(self) -> dict[str, Any]:
        data = self.task.data
        of_data = data.fingerprint_of_format_1() if isinstance(data, TrainingData) else type(data).__name__
        return {"data": of_data, "augmentation": None}


def fine_tune(
    teacher: keras.Model,
    train: Any,
    *,
    num_classes: int | None = None,
    recipe: Recipe | None = None,
    seed: int = 0,
    head: str | None = None,
    verbose: bool | str = "auto",
) -> keras.Model:
    """A copy of a model with a fresh head, trained on data: what anybody would do. For the arguments see `Task`.

    Warns:
        UserWarning: If that ended in a constant classifier.
    """
    task = Task(teacher, train, num_classes=num_classes, recipe=recipe, seed=seed, head=head)
    copy = task.copy()
    trainer = Trainer(task, "finetune", verbose=verbose)
    trainer.fit(Training(copy))
    trainer.check_constant(copy)
    return copy


class _Loop(keras.callbacks.Callback):
    """What happens around each epoch: data and dropout are set to it, the loss is checked, progress is kept."""

    def __init__(self, trainer: Trainer, *, last: int, ended: Callable[[int, bool], None]) -> None:
        super().__init__()
        self.trainer = trainer
        self.last = last
        self.ended = ended

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        task = self.trainer.task
        if isinstance(task.data, TrainingData):
            task.data.epoch = epoch
        # Seeds of its own for each epoch: a run that goes on from one draws what an unbroken run draws.
        kinds.reseed(self.model, np.random.default_rng([task.seed, epoch]))

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        values = {name: float(value) for name, value in (logs or {}).items()}
        if not math.isfinite(values.get("loss", 0.0)):
            what = f"The loss became {values['loss']} in epoch {epoch + 1} of {self.last}"
            raise _diverged(what, self.trainer.task.recipe)
        for name, value in values.items():
            self.trainer.history.setdefault(name, []).append(value)
        # A callback may have ended it early: this one comes last.
        self.ended(epoch + 1, epoch + 1 == self.last or self.model.stop_training)


def _check_weights(student: keras.Model, recipe: Recipe) -> None:
    """A weight may turn into NaN in the very last step, when no loss shows it any more."""
    for weight in student.weights:
        if not is_finite(weight):
            raise _diverged(f"Weight {weight.path!r} became NaN or infinite in the last epoch", recipe)


def _diverged(what: str, recipe: Recipe) -> DivergedError:
    return DivergedError(
        f"{what}: training diverged. Try a lower learning rate ({recipe.rate / 10:g} instead of {recipe.rate:g}) or a "
        "longer warm-up; check that inputs are scaled as the teacher was trained and hold no NaN, and that half "
        "precision does not overflow."
    )
