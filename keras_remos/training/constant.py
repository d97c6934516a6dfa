"""Whether training ended in a constant classifier: one that says the same of everything, and so has learned nothing."""

from __future__ import annotations

from dataclasses import dataclass

import keras
import numpy as np
from keras import ops

from keras_remos.data import batches
from keras_remos.models.gradients import compiled
from keras_remos.training.task import Task

# So many training samples tell. Of a handful, that none is named by its own class may be an accident.
SAMPLES = 256
FEWEST_OTHERS = 30
# Of the samples of other classes. A classifier that has learned to tell some apart names others about as often as
# there are.
NEARLY_NONE = 0.05


@dataclass(frozen=True)
class Constant:
    """What a constant classifier says.

    Args:
        label: The class that it names.
        named: For how many samples.
        right: How many samples are of that class.
        samples: Of how many.
    """

    label: int
    named: int
    right: int
    samples: int


def find_constant(student: keras.Model, task: Task) -> Constant | None:
    """Looks at what a student makes of some training samples.

    Args:
        student: A student that was trained. It is not modified.
        task: Gives the samples: at most `SAMPLES`, in whole batches, without augmentation.

    Returns:
        What it says, if it is nearly always the same and the samples are of other classes too. `None` also where that
        cannot be told: the data can be read once only, or the student returns no row of scores for each sample.
    """
    if batches(task.data).once:
        return None
    x, labels = task.some_samples(SAMPLES)
    if len(labels) < FEWEST_OTHERS:
        return None
    size = min(task.recipe.batch_size, len(labels))
    classify = compiled(lambda x: student(x, training=False), student)
    found = []
    for start in range(0, len(labels) - size + 1, size):
        part = slice(start, start + size)
        outputs = classify(keras.tree.map_structure(lambda leaf, part=part: leaf[part], x))
        if getattr(outputs, "shape", None) is None or len(outputs.shape) != 2 or outputs.shape[1] < 2:
            return None
        found.append(np.argmax(ops.convert_to_numpy(ops.cast(outputs, "float32")), axis=1))
    named = np.concatenate(found)
    labels = labels[: len(named)]
    label = int(np.argmax(np.bincount(named)))
    others = int(np.sum(labels != label))
    if others < FEWEST_OTHERS or np.sum(named != label) > NEARLY_NONE * others:
        return None
    return Constant(label, int(np.sum(named == label)), len(labels) - others, len(labels))
