"""`Method`: a way to make a student from a teacher, configured; all have one signature."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, ClassVar, Self

import keras

from keras_remos.data.content import check_content_known, content_on_disk
from keras_remos.data.parts import can_be_parted, set_aside
from keras_remos.data.pixels import PixelSpace
from keras_remos.methods.hardening import Hardening, is_of_images
from keras_remos.methods.plan import BUDGET, MOST_EACH, Plan, plan_student
from keras_remos.methods.trials import Trials, check_budget
from keras_remos.methods.tuning import VALIDATION_SHARE, rates_of, tune_recipe
from keras_remos.models.fingerprint import fingerprint
from keras_remos.progress import say
from keras_remos.training.recipe import AUTO, Recipe, default_recipe
from keras_remos.training.task import Task
from keras_remos.training.trained import Trained
from keras_remos.training.trainer import Trainer
from keras_remos.untrusted import PathLike
from keras_remos.writing import check_folder


@dataclass(frozen=True, kw_only=True)
class Method(ABC):
    """A configured method. Its options are keyword-only arguments of the constructor: every method is a dataclass.

    Attributes:
        name: Its key in `METHODS`.
        from_scratch: Whether its students keep no weight of the teacher, and so have further to go.
        hardens: Whether its students are hardened unless told otherwise.

    Example:
    ```python
    trained = METHODS["remos"](keep_ratio=0.8).train(teacher, (x, y), recipe=Recipe(epochs=10))
    trained.student.save("student.keras")
    ```
    """

    name: ClassVar[str]
    from_scratch: ClassVar[bool] = False
    hardens: ClassVar[bool] = False

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
        harden: bool | Hardening | None = None,
        space: PixelSpace | None = None,
        budget: float | None = None,
        attacker_share: float = 0.0,
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
            recipe: How long and how fast. If not given, `recipe_of` the method and teacher with the learning rate left
                open, `"auto"`: it is then chosen by validation accuracy (see `tune_recipe`), on `validation`, or on a
                fifth of the training data where there is none (a stream, or one sample of each class, cannot be parted:
                the rate stays the default). The student is trained on all training data.
            seed: For the head, fresh weights, the order of the data, augmentation and dropout. The head is the same
                for every method.
            head: The path of the teacher's layer that the fresh head takes the place of; found where it is not given.
            harden: Train on malicious twins of the images beside them: `True`, `False`, or a configured `Hardening`. By
                default ReMoS does, where the data are images and it is known how inputs come from pixels.
            space: How inputs come from pixels. What `open_for_model` returns brings it along.
            budget: How many trainings it may cost, the student's own included: 12 by default where something is left
                open, up to four for the learning rate, one for the copy that twins are made from, and then up to four
                for the share that is kept; where nothing is open, what the student and that copy take. What it does not
                pay for is left at its default; 1 settles nothing. Twins take about as long as some epochs: of the
                share's part, or on top where there is none.
            attacker_share: The share of the training data that is not trained on, but kept for an attacker of the same
                task: `audit` finds it again by the student's record, and knows that of a `Dataset` by what it holds,
                for which its files are read once more. From 0 to less than 1.
            callbacks: Keras callbacks. The model that they see wraps the student: `model.student`; what they save by it
                is the student. Methods of several stages show them a beginning and an end of training for each. Those
                that set the learning rate need a recipe with `schedule="constant"` and `warmup=0`; in place of
                `BackupAndRestore` there is `checkpoint`.
            checkpoint: A folder. After each trial of what is open, and after each epoch, all that is needed to go on is
                kept there; the same call goes on from there, to the same weights as if it had not been interrupted (on
                one backend and machine). The data are told by what they hold, for which they are read once more. Of a
                stream that cannot be known: it is refused unless it has a method `fingerprint()`, whose text changes
                with its content. Where nothing was settled on them, validation data may be added, or be others: figures
                that were measured on others are dropped, and those of the last epoch are measured anew. Callbacks begin
                anew.
            verbose: Progress on stderr: `True`, `False`, or `"auto"` for terminals and notebooks only.

        Returns:
            The student and how its training went.

        Raises:
            DataError: If the data are empty, or do not fit the teacher or `num_classes`. Before any work.
            StudentError: If the teacher cannot be copied, its head not be replaced, or not be kept, since it is for
                other classes.
            MismatchError: If the checkpoint is of a run with other arguments, or of other data.
            FileError: If the checkpoint's folder cannot be one, or another run uses it.
            RemosError: If training diverges, an option does not suit the teacher, there is no such seed or budget, or
                the budget does not pay for what a hardening with `of_control` trains.
        """
        if checkpoint is not None:
            check_folder(checkpoint, "Checkpoints")
            check_content_known(train)
        usual = default_recipe(teacher, from_scratch=self.from_scratch)
        space = space or getattr(train, "space", None)
        content = None
        if attacker_share:
            train, of_attacker = set_aside(train, attacker_share, seed=seed)
            content = content_on_disk(of_attacker)
        task = Task(
            teacher,
            train,
            validation,
            num_classes=num_classes,
            recipe=recipe or usual,
            seed=seed,
            keep_head=self.keeps_head,
            head=head,
        )
        can_choose = validation is not None or can_be_parted(train, VALIDATION_SHARE)
        wanted = task.recipe = recipe or (replace(usual, learning_rate=AUTO) if can_choose else usual)
        if recipe is None and not can_choose and budget != 1:
            say(
                f"Nothing can be set aside of these data to choose on: the learning rate is the default, "
                f"{usual.learning_rate:g}. Pass `validation` to have it chosen.",
                verbose=verbose,
            )
        hardening = self.hardening(task, harden, space, verbose=verbose)
        if hardening is not None:
            # The rate comes before a copy that nobody asked for.
            hardening = hardening.within(None if budget is None else budget - MOST_EACH * wanted.is_open)
        controls = 0 if hardening is None else hardening.controls
        if budget is None:
            budget = BUDGET if wanted.is_open or self.is_open else 1 + controls
        check_budget(budget)
        # They learn from a part of the data, or at least from twins of the teacher alone.
        share_of_trials = 1 - VALIDATION_SHARE if validation is None else float(controls > 0)
        plan = plan_student(
            wanted.epochs,
            budget,
            rates=len(rates_of(wanted)) if wanted.is_open else 0,
            shares=self.open_shares(wanted),
            least=self.least_epochs,
            twins=0 if hardening is None else hardening.passes,
            twins_of_trials=0 if hardening is None else share_of_trials * hardening.by_teacher().passes,
            controls=controls,
        )
        if plan.cost > 1 and not (isinstance(harden, Hardening) and harden.is_shared):
            say(plan.summary(), verbose=verbose)
        how = {"num_classes": num_classes, "seed": seed, "head": head, "harden": hardening or False, "space": space}
        with contextlib.ExitStack() as stack:
            if checkpoint is not None:
                trials = Trials.kept_in(checkpoint, self._all_trials(task, budget, hardening))
                how["trials"] = stack.enter_context(trials)
            decided, task.recipe, record = self.decide(
                teacher,
                train,
                validation,
                recipe=wanted,
                plan=plan,
                verbose=verbose,
                **how,
            )
            options = decided.on_record(teacher) | ({} if head is None else {"head": head})
            options |= {"tuning": record} if record else {}
            options |= {"attacker_share": attacker_share} if attacker_share else {}
            if hardening:
                # A copy of the teacher is fine-tuned, whatever is trained from scratch.
                of_copy = task.recipe
                if self.from_scratch:
                    of_copy = replace(of_copy, learning_rate=default_recipe(teacher).learning_rate)
                hardening.apply(task, space, recipe=of_copy, checkpoint=checkpoint, verbose=verbose)
                options["hardening"] = hardening.get_config()
            trainer = Trainer(
                task, self.name, callbacks=callbacks, checkpoint=checkpoint, verbose=verbose, options=options
            )
            student = decided.fit(task, trainer)
            if content is not None:
                # Not compared by a checkpoint: it follows from the data and the share.
                trainer.put_on_record(attacker_data=content)
            return trainer.trained(student)

    def _all_trials(self, task: Task, budget: float, hardening: Hardening | None) -> dict[str, Any]:
        """What decides the outcome of trials, beside what tells them apart."""
        return {
            "method": self.name,
            "options": self.get_config(),
            "recipe": task.recipe.get_config(),
            "budget": budget,
            "num_classes": task.num_classes,
            "seed": task.seed,
            "head": task.head,
            "hardening": None if hardening is None else hardening.get_config(),
            "teacher": fingerprint(task.teacher),
            "backend": keras.backend.backend(),
            **task.content(),
            "validation": task.validation_content(),
        }

    @property
    def least_epochs(self) -> int:
        """How many epochs its stages take at least."""
        return 1

    @property
    def is_open(self) -> bool:
        """Whether an option was explicitly left open, to be settled on validation data."""
        return False

    def open_shares(self, recipe: Recipe) -> int:
        """How many shares of the teacher there are to choose from, where that is open with a recipe; else 0."""
        return 0

    def hardening(
        self,
        task: Task,
        harden: bool | Hardening | None,
        space: PixelSpace | None,
        *,
        verbose: bool | str = "auto",
    ) -> Hardening | None:
        """How a task's students are hardened, if they are; says why images are not where that was left to the method.

        Args:
            task: The task.
            harden: See `train`.
            space: How inputs come from pixels.
            verbose: `False` says nothing.

        Raises:
            DataError: If they are to be and cannot be, as for `RemosError`.
            RemosError: If it is not known how inputs come from pixels.
        """
        hardening = (harden if isinstance(harden, Hardening) else Hardening()).for_one_student()
        reason = hardening.unfit(task, space)
        if harden is None:
            if self.hardens and reason is not None and is_of_images(task):
                say(f"Students are not hardened. {reason}", verbose=verbose)
            return hardening if self.hardens and reason is None else None
        if harden and hardening.share and reason is not None:
            raise reason
        return hardening if harden and hardening.share else None

    def decide(
        self, teacher: keras.Model, train: Any, validation: Any, *, recipe: Recipe, plan: Plan, **options: Any
    ) -> tuple[Method, Recipe, dict[str, Any]]:
        """Settles what was left open, on validation data.

        Args:
            teacher: See `train`, as for what follows.
            train: What the student learns from.
            validation: What decides, or `None`.
            recipe: The recipe to begin with.
            plan: What that may cost.
            **options: More for `train`.

        Returns:
            The method and the recipe with nothing left open; and what was tried, as plain values for JSON.
        """
        if not recipe.is_open:
            return self, recipe, {}
        if not plan.rate:
            usual = default_recipe(teacher, from_scratch=self.from_scratch)
            return self, replace(recipe, learning_rate=usual.learning_rate), {}
        found = tune_recipe(self, teacher, train, validation, recipe=recipe, budget=plan.rate, **options)
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

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """The method that made a student, by the student's record.

        Raises:
            RemosError: If the record does not tell all of it.
        """
        return cls(**{name: record[name] for name in cls.option_names() if name in record})

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
