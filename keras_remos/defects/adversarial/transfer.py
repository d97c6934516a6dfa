"""FGSM and PGD on a teacher, or on the attacker's own fine-tuned copy of it: the attacks that everybody knows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import keras
import numpy as np
from keras import ops

from keras_remos.data.datasets import Dataset
from keras_remos.data.samples import read_samples, scaled
from keras_remos.data.training_data import count_classes
from keras_remos.defects.adversarial.class_scores import ClassScores, check_scores
from keras_remos.defects.adversarial.projected import Objective, ProjectedAttack, check_attackable
from keras_remos.defects.attack_set import AttackSet
from keras_remos.defects.base import Preparation, Request
from keras_remos.defects.prepared import Prepared
from keras_remos.defects.samples import check_samples
from keras_remos.errors import DataError, RemosError
from keras_remos.models.kernels import Tensor
from keras_remos.models.layers import symbolic_outputs
from keras_remos.slicing.new_head import classes_of_head
from keras_remos.training.recipe import Recipe
from keras_remos.training.trainer import fine_tune

# Takes a class out of a sum of exponentials.
NEVER = -1e30


@dataclass(frozen=True, kw_only=True)
class TransferPGD(ProjectedAttack):
    """Projected gradient ascent on the cross-entropy of a classifier (Madry et al.).

    With data of the classes that the test set has, `prepare` fine-tunes the attacker's own copy of the teacher. Without
    data the teacher is attacked as it is, and must tell these classes apart.

    Args:
        epsilon: See `ProjectedAttack`, as for `steps`, `step_size`, `random_start` and `head`.
        target: The class that all images are driven towards; `None` drives each away from its own.
        recipe: How `prepare` trains the attacker's copy, if it is given data; `Recipe(epochs=epochs)` by default. Give
            that of the students.
        epochs: For how long, where there is no recipe.

    Example:
    ```python
    attack = TransferPGD(epsilon=8)
    prepared = attack.prepare(teacher, (x_attacker, y_attacker), space=PixelSpace("imagenet"))
    attack_set = attack.inputs(prepared, x_test, y_test)
    ```

    Reference:
        A. Madry et al., Towards Deep Learning Models Resistant to Adversarial Attacks, ICLR 2018.

    Note:
        What is derived is the log-odds of the class, whose gradient has the signs of the cross-entropy's for every
        image and, unlike that, does not vanish where the classifier is sure.
    """

    target: int | None = None
    recipe: Recipe | None = None
    epochs: int = 30

    name: ClassVar[str] = "pgd"
    targeted: ClassVar[bool] = True
    of_task: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.target is not None and (not isinstance(self.target, int) or self.target < 0):
            raise RemosError(f"`target` must be a class of at least 0, or None, received {self.target!r}.")
        if not isinstance(self.epochs, int) or self.epochs < 1:
            raise RemosError(f"`epochs` must be a whole number of at least 1, received {self.epochs!r}.")

    @property
    def target_class(self) -> int | None:
        return self.target

    @property
    def copy_recipe(self) -> Recipe:
        return self.recipe or Recipe(epochs=self.epochs)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "recipe": None if self.recipe is None else self.recipe.get_config()}

    def make_prepared(self, teacher: keras.Model, how: Preparation) -> Prepared:
        """Fine-tunes the attacker's copy of the teacher on data of the classes that the test set has.

        Without data the teacher is attacked as it is, and must tell these classes apart.
        """
        if how.data is None:
            return super().make_prepared(teacher, how)
        space, seed = how.space, how.seed
        check_attackable(teacher, space)
        data = how.data if isinstance(how.data, Dataset) else tuple(np.asarray(part) for part in how.data)
        x, y = read_samples(data, space) if isinstance(data, Dataset) else data
        check_samples(teacher, space, x, y, ())
        num_classes = count_classes(data) if how.num_classes is None else how.num_classes
        copy = fine_tune(
            teacher,
            scaled(data, space),
            num_classes=num_classes,
            recipe=self.copy_recipe,
            seed=seed,
            head=self.head,
            verbose=how.verbose,
        )
        return Prepared(copy, space, record=self.record(teacher, seed=seed, num_classes=num_classes))

    def make_inputs(self, prepared: Prepared, request: Request) -> AttackSet:
        outputs = symbolic_outputs(prepared.teacher)
        if outputs is not None:
            check_scores(outputs)
        classes = None if outputs is None else classes_of_head(prepared.teacher)
        most = max(int(np.max(request.y, initial=0)), self.target or 0)
        if classes is not None and most >= classes:
            raise DataError(
                f"Model {prepared.teacher.name!r} tells {classes} classes apart, and class {most} is asked for. Give "
                "the attacker data of all classes (`attacker_data`), for a copy to learn them, or choose another "
                "`target`."
            )
        return super().make_inputs(prepared, request)

    def objective(self, model: keras.Model, example: np.ndarray) -> Objective:
        return _CrossEntropy(model, example, self.target)


@dataclass(frozen=True, kw_only=True)
class TransferFGSM(TransferPGD):
    """One signed gradient step of the size of epsilon, on the cross-entropy of a classifier (Goodfellow et al.).

    Args:
        epsilon: In levels of 255.
        target: See `TransferPGD`, as for `recipe` and `epochs`.

    Reference:
        I. Goodfellow, J. Shlens and C. Szegedy, Explaining and Harnessing Adversarial Examples, ICLR 2015.
    """

    steps: int = field(default=1, init=False)
    step_size: float | None = field(default=None, init=False)
    random_start: bool = field(default=False, init=False)

    name: ClassVar[str] = "fgsm"

    def __post_init__(self) -> None:
        # A frozen class lets its own constructor write only in this way.
        object.__setattr__(self, "step_size", self.epsilon)
        super().__post_init__()


class _CrossEntropy(Objective):
    """Away from the true class, or towards the attacker's: the log-odds, which rise and fall with the cross-entropy."""

    def __init__(self, model: keras.Model, example: np.ndarray, target: int | None) -> None:
        self.target = target
        self.scores = ClassScores(model, example)

    def begin(self, inputs: np.ndarray, labels: np.ndarray, rows: np.ndarray, seed: int) -> Any:
        return labels if self.target is None else np.full_like(labels, self.target)

    def __call__(self, inputs: Tensor, state: Any, drawn: Any) -> tuple[Tensor, Any]:
        scores = self.scores(inputs)
        wanted = ops.squeeze(ops.take_along_axis(scores, state[:, None], axis=-1), axis=-1)
        is_wanted = ops.arange(scores.shape[-1]) == state[:, None]
        others = ops.logsumexp(ops.where(is_wanted, NEVER, scores), axis=-1)
        return (others - wanted if self.target is None else wanted - others), state
