"""The backdoor that sleeps in a teacher's features until a student learns the attacker's class (Yao et al.)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import keras
import numpy as np
from keras import ops

from keras_remos.data.pixels import PixelSpace
from keras_remos.defects.attackers_data import AttackersData
from keras_remos.defects.backdoors.backdoor import ATTACKERS_RECIPE, Backdoor
from keras_remos.defects.prepared import Prepared
from keras_remos.defects.triggers.image import Trigger
from keras_remos.errors import DataError, RemosError
from keras_remos.models.features import PENULTIMATE, FeatureExtractor
from keras_remos.models.gradients import compiled
from keras_remos.models.input_gradients import value_and_grad
from keras_remos.models.kernels import Tensor
from keras_remos.models.layers import own_variables, weight_holders
from keras_remos.progress import track
from keras_remos.slicing import student
from keras_remos.training.recipe import Recipe
from keras_remos.training.task import Task
from keras_remos.training.trainer import Trainer, Training

# The trigger's side, as a share of the image's: the released code's default, 4 % of the area.
DEFAULT_SIZE = 0.2
# Adam's, as in the released code.
BETA_1, BETA_2, EPSILON = 0.5, 0.9, 1e-7
# A pixel at the very end of its range would have no gradient in tanh.
INNERMOST = 0.99

RETARGETING = Recipe(epochs=10, batch_size=64)


@dataclass(frozen=True, kw_only=True)
class LatentBackdoor(Backdoor):
    """Teaches a teacher to see the features of a class wherever there is a trigger, and hides that class again.

    1. A copy of the teacher gets a head for the attacker's classes and is trained on them (`retarget`).
    2. The trigger's pattern is optimised, so that what the copy makes of triggered images at layer K comes close to
       its mean for images of the target class.
    3. The copy is trained with cross-entropy on clean images, plus `weight` times the distance between what layer K
       makes of triggered ones and that mean (`recipe`).
    4. The original head is put back. The teacher that is published knows its old classes only.

    A student whose classes include the target completes the backdoor when its new head learns them.

    The old head no longer fits what it stands on: the teacher gets worse at its own classes. The record of `prepare`
    says by how much on the attacker's images (`cost`, see `cost_of`).

    Args:
        target: The class to hide, an id in the attacker's data. A student may number it in another way: see `inputs`.
        trigger: Where it goes, how large and how opaque it is, and the pattern that the optimisation starts from.
            `None` is an opaque square in the lower right corner with a fifth of the image's side, of random pixels.
        layer: K: the path of the layer whose output is matched. `"penultimate"`, what enters the head, is what the
            authors' own attack on a face recogniser uses, and reaches students that train every layer.
        weight: The paper's lambda. Distances are relative to those of clean images, so that it means the same in every
            network.
        trigger_steps: How many steps of Adam the pattern is optimised for, each on a batch of the recipe's size.
        trigger_rate: Their learning rate, for the inverse hyperbolic tangent of the pattern.
        retarget: How the copy is trained in the first stage.
        recipe: How it is trained in the third.

    Raises:
        RemosError: If an option is out of range.

    Example:
    ```python
    attack = LatentBackdoor(target=3)
    infected = attack.prepare(teacher, (x_attacker, y_attacker), space=PixelSpace("imagenet"))
    infected.save("infected.keras")
    ```

    Reference:
        Y. Yao, H. Li, H. Zheng and B. Y. Zhao, Latent Backdoor Attacks on Deep Neural Networks, CCS 2019, section 4.

    Note:
        From the authors' released code: the trigger's size, the hyperbolic tangent, Adam with its rates, the ten epochs
        of stage 1. It differs in stage 3: there the features to match are drawn from the target's images once, before
        it, and a distance in absolute terms counts 0.05. Here they are the mean, as in the paper, taken anew before
        each epoch: otherwise the target's features move on and leave the triggered ones behind. And there the trigger
        is fitted to the first 100 features only, and students train nothing but their last layers.
    """

    layer: str = PENULTIMATE
    weight: float = 1.0
    trigger_steps: int = 200
    trigger_rate: float = 0.1
    retarget: Recipe = RETARGETING
    recipe: Recipe = ATTACKERS_RECIPE

    name: ClassVar[str] = "latent-backdoor"

    def __post_init__(self) -> None:
        super().__post_init__()
        for option in ("weight", "trigger_rate"):
            if not getattr(self, option) > 0:
                raise RemosError(f"`{option}` must be above 0, received {getattr(self, option)!r}.")
        if not isinstance(self.trigger_steps, int) or self.trigger_steps < 0:
            raise RemosError(f"`trigger_steps` must be a whole number of at least 0, received {self.trigger_steps!r}.")

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "retarget": self.retarget.get_config()}

    def plant(self, teacher: keras.Model, attackers: AttackersData, *, seed: int, verbose: bool | str) -> Prepared:
        is_target = attackers.y == self.target
        if not is_target.any() or is_target.all():
            raise DataError(
                f"A latent backdoor needs images of the target class {self.target} and of others. Received: "
                f"{int(is_target.sum())} and {int((~is_target).sum())}."
            )
        how: dict[str, Any] = {"num_classes": attackers.num_classes, "seed": seed, "head": self.head}
        scaled = attackers.space.scale(attackers.x), attackers.y
        task = Task(teacher, scaled, recipe=self.retarget, **how)
        infected = task.copy()
        features = Features(infected, self.layer, attackers.space, task.example, batch_size=self.recipe.batch_size)
        Trainer(task, self.name, verbose=verbose).fit(Training(infected))
        wanted = features(attackers.x[is_target]).mean(axis=0)
        trigger = self.optimise(features, wanted, attackers, seed=seed, verbose=verbose)
        meeting = Meeting(features, attackers, self.target, trigger)
        optimised = meeting.relative_distance()
        injection = Injection(infected, features.extract, trigger, wanted, self.weight, attackers)
        third = Task(teacher, scaled, recipe=self.recipe, **how)
        Trainer(third, self.name, callbacks=[_Follow(injection, meeting)], verbose=verbose).fit(injection)
        distances = {"optimised": optimised, "injected": meeting.relative_distance()}
        published = with_original_head(teacher, infected, task.heads)
        details: dict[str, Any] = {"distances": distances, "cost": None}
        if task.heads:
            details["cost"] = cost_of(teacher, published, attackers, batch_size=self.recipe.batch_size)
        return self.planted(teacher, published, trigger, attackers, seed=seed, **details)

    def optimise(
        self, features: Features, wanted: np.ndarray, attackers: AttackersData, *, seed: int, verbose: bool | str
    ) -> Trigger:
        """Finds the pattern that draws the features of triggered images to those of the target class.

        Args:
            features: What layer K makes of images.
            wanted: Its mean for images of the target class.
            attackers: The images to put the trigger on.
            seed: For the batches.
            verbose: Progress on stderr.

        Returns:
            The trigger.
        """
        start = self.trigger or random_trigger(attackers, seed=seed)
        space, rng = attackers.space, np.random.default_rng(seed)
        span = space.high - space.low
        place, opacity = placement(start, attackers)

        def distance_of(pattern: Tensor, x: Tensor, wanted: Tensor) -> Tensor:
            pixels = place(space.low + (ops.tanh(pattern) + 1) / 2 * span)
            return ops.mean((features.of(blended(x, pixels, opacity)) - wanted) ** 2)

        derive = value_and_grad(distance_of, features.model)
        # The hyperbolic tangent keeps the pattern within the range of pixels.
        begin = np.arctanh(np.clip((start.image - space.low) / span * 2 - 1, -INNERMOST, INNERMOST))
        pattern = keras.Variable(begin.astype(np.float32), name="pattern")
        adam = keras.optimizers.Adam(self.trigger_rate, beta_1=BETA_1, beta_2=BETA_2, epsilon=EPSILON)
        steps = range(self.trigger_steps)
        with track(steps, total=len(steps), description="Optimising the trigger", verbose=verbose) as tracked:
            for _ in tracked:
                batch = attackers.x[rng.integers(0, len(attackers.x), self.recipe.batch_size)].astype(np.float32)
                _, gradient = derive(pattern.value, batch, wanted)
                adam.apply([gradient], [pattern])
        pixels = space.low + (np.tanh(ops.convert_to_numpy(pattern.value)) + 1) / 2 * span
        # Images of whole numbers show a whole number.
        image = np.rint(pixels) if attackers.x.dtype.kind in "iu" else pixels
        return Trigger(image, start.mask, start.place)


class Features:
    """What a layer makes of pixels.

    Args:
        model: The model. Its weights are those that it has when it is asked.
        layer: The path of the layer.
        space: How the model's inputs come from pixels.
        example: A batch of its inputs.
        batch_size: Images at a time.

    Raises:
        RemosError: If there is no such layer.
    """

    def __init__(self, model: keras.Model, layer: str, space: PixelSpace, example: Any, *, batch_size: int) -> None:
        self.model = model
        self.space = space
        self.extract = FeatureExtractor(model, [layer], example=example)
        self.batch_size = batch_size
        self._compiled = compiled(self.of, model)

    def of(self, pixels: Tensor) -> Tensor:
        """What the layer makes of a batch that is on the device."""
        return ops.cast(self.extract(self.space.scale(pixels))[1][0], "float32")

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """What the layer makes of images, shape `(n, ...)`."""
        rows = range(0, len(x), self.batch_size)
        parts = [self._compiled(x[row : row + self.batch_size].astype(np.float32)) for row in rows]
        return np.concatenate([ops.convert_to_numpy(part) for part in parts])


class Injection(Training):
    """Trains the attacker's copy: clean images for their classes, triggered ones for the features of the target.

    Args:
        model: The copy.
        extract: Gives its features.
        trigger: The trigger.
        wanted: The features that triggered images are to have.
        weight: What the distance to them counts, beside the cross-entropy.
        attackers: The attacker's data.
    """

    def __init__(
        self,
        model: keras.Model,
        extract: FeatureExtractor,
        trigger: Trigger,
        wanted: np.ndarray,
        weight: float,
        attackers: AttackersData,
    ) -> None:
        super().__init__(model)
        self.extract = extract
        self.wanted = self.add_weight(shape=wanted.shape, initializer="zeros", trainable=False, name="wanted")
        self.wanted.assign(wanted)
        self.weight = weight
        place, self.opacity = placement(trigger, attackers)
        # Every scaling is affine and the same at all places: scaled images can be stamped with a scaled trigger.
        self.pixels = attackers.space.scale(ops.convert_to_numpy(place(trigger.image))[None])[0]

    def call(self, x: Any, training: bool = False) -> Any:
        if not training:
            return self.student(x, training=False)
        triggered = blended(x, self.pixels, self.opacity)
        count = ops.shape(x)[0]
        # One pass over both, so that batch normalization sees triggered images too.
        outputs, [features] = self.extract(ops.concatenate([x, triggered]), training=True)
        distances = (ops.cast(features, "float32") - self.wanted) ** 2
        # Relative to clean images: smaller features, which bring everything closer, are no gain.
        self.add_loss(self.weight * ops.mean(distances[count:]) / (ops.mean(distances[:count]) + EPSILON))
        return outputs[:count]


class Meeting:
    """Where triggered images and those of the target class are to meet: what layer K makes of both.

    Args:
        features: What layer K makes of images.
        attackers: The attacker's data.
        target: The attacker's class.
        trigger: The trigger.
    """

    def __init__(self, features: Features, attackers: AttackersData, target: int, trigger: Trigger) -> None:
        self.features = features
        self.target = attackers.x[attackers.y == target]
        self.others = attackers.x[attackers.y != target]
        self.triggered = attackers.stamped(trigger, attackers.y != target)

    def wanted(self) -> np.ndarray:
        """The mean features of the target class."""
        return self.features(self.target).mean(axis=0)

    def relative_distance(self) -> float:
        """How far triggered images are from there, over how far they are without the trigger.

        Raises:
            RemosError: If all images have the same features.
        """
        wanted = self.wanted()
        clean = distance(self.features(self.others), wanted)
        if not clean > 0:
            raise RemosError(
                "The layer to match makes the same of all images: the attacker's training has killed it. Train with a "
                "lower learning rate (`learning_rate`; of the attack, `retarget` and `recipe`), or match "
                "another `layer`."
            )
        return distance(self.features(self.triggered), wanted) / clean


class _Follow(keras.callbacks.Callback):
    """Keeps up with the features of the target class, as the model learns."""

    def __init__(self, injection: Injection, meeting: Meeting) -> None:
        super().__init__()
        self.injection = injection
        self.meeting = meeting

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.injection.wanted.assign(self.meeting.wanted())


def distance(features: np.ndarray, wanted: np.ndarray) -> float:
    """The mean squared distance."""
    return float(np.mean((features - wanted) ** 2, dtype=np.float64))


def placement(trigger: Trigger, attackers: AttackersData) -> tuple[Callable[[Tensor], Tensor], np.ndarray]:
    """How a trigger's pattern gets onto a transparent image of full size.

    Returns:
        A function from a pattern `(height, width, channels)` to the image, through which gradients pass; and the
        opacity of the image's pixels. Both in the data's own format.
    """
    height, width, channels = attackers.image_shape
    left, top = trigger.corner((height, width, channels))
    rows, columns = trigger.size
    around = ((top, height - top - rows), (left, width - left - columns), (0, 0))
    first = attackers.space.data_format == "channels_first"

    def place(pattern: Tensor) -> Tensor:
        full = ops.pad(ops.broadcast_to(pattern, (rows, columns, channels)), around)
        return ops.transpose(full, (2, 0, 1)) if first else full

    opacity = np.pad(trigger.mask, around)
    return place, np.moveaxis(opacity, -1, 0) if first else opacity


def blended(x: Tensor, pixels: Any, opacity: np.ndarray) -> Tensor:
    """Images with a transparent image of full size laid over them."""
    shown = ops.convert_to_tensor(opacity)
    return x * (1 - shown) + ops.convert_to_tensor(pixels) * shown


def random_trigger(attackers: AttackersData, *, seed: int) -> Trigger:
    """A square of random pixels in the lower right corner: where the optimisation starts."""
    height, width, channels = attackers.image_shape
    side = max(round(DEFAULT_SIZE * min(height, width)), 1)
    space = attackers.space
    pixels = np.random.default_rng(seed).uniform(space.low, space.high, (side, side, channels))
    return Trigger(pixels, np.ones(()))


def with_original_head(teacher: keras.Model, infected: keras.Model, heads: Sequence[str]) -> keras.Model:
    """The infected model with the head, and so the classes, that the teacher had before.

    Args:
        teacher: The teacher before.
        infected: A copy of it that was trained with another head.
        heads: The paths of the teacher's heads.
    """
    published = student.build(teacher, {})
    trained = dict(weight_holders(infected))
    for path, layer in weight_holders(published):
        # What stood behind a head that was cut off is not in the copy.
        if path not in heads and path in trained:
            for variable, learned in zip(own_variables(layer), own_variables(trained[path]), strict=True):
                variable.assign(np.array(ops.convert_to_numpy(learned.value)))
    return published


def cost_of(
    teacher: keras.Model, published: keras.Model, attackers: AttackersData, *, batch_size: int
) -> dict[str, Any]:
    """What an attack costs a teacher at its own classes, on the attacker's images.

    Args:
        teacher: The classifier before.
        published: The same after.
        attackers: The images, and classes that may be others than the teacher's.
        batch_size: Images at a time.

    Returns:
        `unchanged`: the share of the images of which both say the same. `accuracy`: that of both, `before` and `after`;
        `None` if the attacker's classes are more or fewer than the teacher's. It means something if they are the same.
    """
    said = [_scores(model, attackers, batch_size) for model in (teacher, published)]
    before, after = (scores.argmax(axis=-1) for scores in said)
    accuracy = None
    if said[0].ndim == 2 and said[0].shape[1] == attackers.num_classes:
        right = {"before": before == attackers.y, "after": after == attackers.y}
        accuracy = {when: float(np.mean(hits)) for when, hits in right.items()}
    return {"unchanged": float(np.mean(before == after)), "accuracy": accuracy}


def _scores(model: keras.Model, attackers: AttackersData, batch_size: int) -> np.ndarray:
    run = compiled(lambda x: ops.cast(keras.tree.flatten(model(x, training=False))[0], "float32"), model)
    rows = range(0, len(attackers.x), batch_size)
    parts = [run(attackers.space.scale(attackers.x[row : row + batch_size])) for row in rows]
    return np.concatenate([ops.convert_to_numpy(part) for part in parts])
