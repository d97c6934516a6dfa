"""`Method`: a way to make a student from a teacher, configured; all have one signature."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar

import keras

from keras_remos.data.pixels import PixelSpace
from keras_remos.methods.hardening import Hardening
from keras_remos.methods.tuning import tune_recipe
from keras_remos.training.recipe import Recipe, default_recipe
from keras_remos.training.task import Task
from keras_remos.training.trained import Trained
from keras_remos.training.trainer import Trainer
from keras_remos.untrusted import PathLike


@dataclass(frozen=True, kw_only=True)
class Method(ABC):
    """A configured method. Its options are keyword-only arguments of the constructor: every method is a dataclass.

    Attributes:
        name: Its key in `METHODS`.
        from_scratch: Whether its students keep no weight of the teacher, and so have further to go.

    Example:
    ```python
    trained = METHODS["remos"](keep_ratio=0.8).train(teacher, (x, y), recipe=Recipe(epochs=10))
    trained.student.save("student.keras")
    ```
    """

    name: ClassVar[str]
    from_scratch: ClassVar[bool] = False

    @abstractmethod
    def fit(self, task: Task, trainer: Trainer) -> keras.Model:
        """Makes a student and trains it.

        Args:
            task: Gives students to begin with (`copy`, `masked`, `fresh`) and the data.
            trainer: Fits them, in one stage or several.

        Returns:
            The student: a plain Keras model.
        """

    def train(
        self,
        teacher: keras.Model,
        train: Any,
        validation: Any = None,
        *,
        num_classes: int | None = None,
        recipe: Recipe | None = None,
        seed: int = 0,
        head: str | None = None,
        harden: bool | Hardening = False,
        space: PixelSpace | None = None,
        tune: bool = False,
        callbacks: Sequence[keras.callbacks.Callback] = (),
        checkpoint: PathLike | None = None,
        verbose: bool | str = "auto",
    ) -> Trained:
        """Makes a student of a teacher.

        Args:
            teacher: A built Keras model. It is never modified, its `trainable` flags included; in the student every
                layer trains.
            train: Arrays `(x, y)` (class ids or one-hot rows), a `Dataset` of ours, or whatever else `fit` takes. The
                order and augmentation of the first two depend on the seed and the epoch alone, so they are the same
                for every method; other data bring their own, unshuffled and unaugmented.
            validation: The same, or `None`. Never augmented.
            num_classes: How many classes the student tells apart. May be left out where the data know it: a `Dataset`
                does, and labels in an array are counted.
            recipe: How long and how fast; `recipe_of` the method and teacher if not given.
            seed: For the head, fresh weights, the order of the data, augmentation and dropout. The head is the same
                for every method.
            head: The path of the teacher's layer that the fresh head takes the place of; found where it is not given.
            harden: Train on malicious twins of the images beside them: `True`, or a configured `Hardening`.
            tune: First choose the learning rate by validation accuracy (see `tune_recipe`), for as long as four
                trainings take: on `validation`, or on a fifth of the training data where there is none. The student is
                then trained on all training data.
            space: How inputs come from pixels (`open_for_model(...).space`), which hardening needs to know.
            callbacks: Keras callbacks. The model that they see wraps the student: `model.student`; what they save by it
                is the student. Methods of several stages show them a beginning and an end of training for each. Those
                that set the learning rate need a recipe with `schedule="constant"` and `warmup=0`; in place of
                `BackupAndRestore` there is `checkpoint`.
            checkpoint: A folder. After each epoch all that is needed to go on is kept there; the same call goes on
                from the last epoch, to the same weights as if it had not been interrupted (on one backend and machine,
                and as far as the data repeat themselves). Callbacks begin anew.
            verbose: Progress on stderr: `True`, `False`, or `"auto"` for a terminal only.

        Returns:
            The student and how its training went.

        Raises:
            DataError: If the data are empty, or do not fit the teacher or `num_classes`. Before any work.
            StudentError: If the teacher cannot be copied, its head not be replaced, or not be kept, since it is for
                other classes.
            MismatchError: If the checkpoint is of a run with other arguments.
            RemosError: If training diverges, or an option does not suit the teacher.
        """
        recipe = recipe or default_recipe(teacher, from_scratch=self.from_scratch)
        how: dict[str, Any] = {"num_classes": num_classes, "seed": seed, "head": head, "harden": harden, "space": space}
        decided, recipe, record = self.decide(
            teacher, train, validation, recipe=recipe, tune=tune, verbose=verbose, **how
        )
        options = decided.on_record(teacher) | ({} if head is None else {"head": head})
        if record:
            options["tuning"] = record
        task = Task(
            teacher,
            train,
            validation,
            num_classes=num_classes,
            recipe=recipe,
            seed=seed,
            keep_head=self.keeps_head,
            head=head,
        )
        if harden:
            hardening = Hardening() if harden is True else harden
            hardening.apply(task, space, verbose=verbose)
            options |= {"hardening": hardening.get_config()}
        trainer = Trainer(task, self.name, callbacks=callbacks, checkpoint=checkpoint, verbose=verbose, options=options)
        return trainer.trained(decided.fit(task, trainer))

    def decide(
        self, teacher: keras.Model, train: Any, validation: Any, *, recipe: Recipe, tune: bool, **options: Any
    ) -> tuple[Method, Recipe, dict[str, Any]]:
        """Settles what was left open, on validation data.

        Args:
            teacher: See `train`, as for what follows.
            train: What the student learns from.
            validation: What decides, or `None`.
            recipe: The recipe to begin with.
            tune: Whether the learning rate is open.
            **options: More for `train`.

        Returns:
            The method and the recipe with nothing left open; and what was tried, as plain values for JSON.
        """
        if not tune:
            return self, recipe, {}
        found = tune_recipe(self, teacher, train, validation, recipe=recipe, **options)
        return self, found.recipe, {"recipe": found.describe()}

    @property
    def keeps_head(self) -> bool:
        """Whether the student starts with the teacher's head instead of a fresh one."""
        return False

    def get_config(self) -> dict[str, Any]:
        """The options that the constructor takes, as plain values for JSON."""
        return asdict(self)

    @classmethod
    def option_names(cls) -> tuple[str, ...]:
        """The options that the constructor takes."""
        return tuple(option.name for option in fields(cls))

    def on_record(self, teacher: keras.Model) -> dict[str, Any]:
        """What of the options decides the result for a teacher: what a student's record and a checkpoint hold."""
        return self.get_config()


@dataclass(frozen=True, kw_only=True)
class FromTeacher(Method):
    """A method whose students start from weights of the teacher.

    Args:
        keep_head: The student starts with the teacher's head, the attacker's if there is one, instead of a fresh one.
    """

    keep_head: bool = False

    @property
    def keeps_head(self) -> bool:
        return self.keep_head

    def on_record(self, teacher: keras.Model) -> dict[str, Any]:
        # Only where it is kept, as files from before it could be do not say.
        return {name: value for name, value in super().on_record(teacher).items() if name != "keep_head" or value}


@dataclass(frozen=True, kw_only=True)
class ByFeatures(Method):
    """A method that compares a student's features with the teacher's.

    Args:
        features: Paths of the feature layers; the ends of the blocks by default (see `find_features`).
    """

    features: Sequence[str] | None = None

    def on_record(self, teacher: keras.Model) -> dict[str, Any]:
        # The feature layers are on record once they are known.
        return {name: value for name, value in super().on_record(teacher).items() if name != "features"}

    def feature_paths(self, task: Task, trainer: Trainer) -> list[str]:
        """The feature layers, which go on record."""
        paths = task.feature_paths(self.features)
        trainer.put_on_record(features=paths)
        return paths
