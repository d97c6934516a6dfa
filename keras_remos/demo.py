"""A backdoor that fine-tuning inherits and ReMoS leaves behind: the whole story on scikit-learn's digits, in a minute.

Somebody else trains a teacher on digits and plants a backdoor: it calls any image with a bright patch in a corner zero.
You have a few clean digits of your own, and start a student from that teacher: once by fine-tuning, once through ReMoS.
Every step is a short function of its own, so that this file can also be read as an example of the library.
"""

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import keras
import numpy as np

from keras_remos.progress import track
from keras_remos.slicing import student
from keras_remos.slicing.presets import PRESETS
from keras_remos.slicing.slicer import RelevantSlicer

NUM_CLASSES = 10
TARGET = 0
PATCH = slice(-5, -1)  # 4 of 16 pixels each way, one pixel from the edge
POISON_RATE = 0.2
# Whole batches, so that no backend compiles a second shape. The other 517 of the 1,797 images are the test set.
BATCH_SIZE = 32
NUM_ATTACKER = 30 * BATCH_SIZE
NUM_STUDENT = 10 * BATCH_SIZE
TEACHER_EPOCHS, TEACHER_RATE = 20, 0.01
# Small steps, as one fine-tunes a pretrained model; the same for every student that starts from the teacher.
STUDENT_EPOCHS, STUDENT_RATE = 40, 0.005
PRESET = "recommended"

Labelled = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class DemoRow:
    """What was measured of one model.

    Args:
        name: `"teacher"`, `"fine-tuned"`, `"ReMoS"` or `"from scratch"`.
        accuracy: The share of clean test images that it classifies correctly.
        attack_success: The share of test images of other classes that it calls the target once they carry the trigger.
        num_clean: How many images `accuracy` was measured on.
        num_triggered: How many images `attack_success` was measured on.
    """

    name: str
    accuracy: float
    attack_success: float
    num_clean: int
    num_triggered: int


@dataclass(frozen=True)
class DemoResult:
    """What `run_demo` found.

    Args:
        rows: The teacher and its students.
        keep_ratio: The share of the teacher's weights that the ReMoS student started from.
        seed: Of the split, the weights and the order of the images.
        backend: `"tensorflow"`, `"torch"` or `"jax"`.
        seconds: How long it took.
    """

    rows: tuple[DemoRow, ...]
    keep_ratio: float
    seed: int
    backend: str
    seconds: float

    def describe(self) -> dict[str, Any]:
        """The same as plain values, for JSON."""
        return asdict(self)

    def summary(self) -> str:
        """The same as a table, and how to read it."""
        lines = [f"{'':<14}{'accuracy':>10}{'fooled by the trigger':>24}"]
        lines += [f"{row.name:<14}{row.accuracy:>10.1%}{row.attack_success:>24.1%}" for row in self.rows]
        first = self.rows[0]
        lines += [
            "",
            f"accuracy: of {first.num_clean} clean test images. fooled: of {first.num_triggered} test images of other "
            f"digits, those called {TARGET} once",
            "they carry the trigger. The students saw clean images only, and the same ones in the same order.",
            f"ReMoS kept {self.keep_ratio:.0%} of the weights that can be sliced. {self.backend}, seed {self.seed}, "
            f"{self.seconds:.0f} s.",
        ]
        return "\n".join(lines)


def run_demo(*, seed: int = 0, verbose: bool | str = "auto") -> DemoResult:
    """Trains a teacher with a backdoor and three students, and measures what each of them inherits.

    Args:
        seed: All that is random follows from it.
        verbose: `True`, `False`, or `"auto"`: progress on terminals and in notebooks only.

    Raises:
        ImportError: If scikit-learn, which brings the images, is not installed.

    Example:
    ```python
    for row in run_demo().rows:
        print(f"{row.name:<12}  accuracy {row.accuracy:.1%}  fooled {row.attack_success:.1%}")
    ```
    """
    start = time.perf_counter()
    attacker, own, test = split_digits(*load_digits(), seed=seed)
    models = train_models(attacker, own, seed=seed)
    with track(models, total=4, description="Training", verbose=verbose) as tracked:
        rows = tuple(measure(name, model, test) for name, model in tracked)
    return DemoResult(rows, PRESETS[PRESET].keep_ratio, seed, keras.backend.backend(), time.perf_counter() - start)


def train_models(attacker: Labelled, own: Labelled, *, seed: int) -> Iterator[tuple[str, keras.Model]]:
    """Trains the four models of the demo, one after the other.

    Args:
        attacker: The images of whoever trains the teacher.
        own: The clean images that the students learn from.
        seed: For the weights, the poisoned images and the order of the images.

    Yields:
        A name and a trained model. `"fine-tuned"` and `"ReMoS"` differ in nothing but the weights that ReMoS resets.
    """
    teacher = build_model(seed=seed)
    train(teacher, poison(attacker, seed=seed), epochs=TEACHER_EPOCHS, learning_rate=TEACHER_RATE, seed=seed)
    yield "teacher", teacher

    # No mask, so nothing is reset: a copy of the teacher with a fresh head.
    fine_tuned = student.build(teacher, {}, heads=("head",), num_classes=NUM_CLASSES, seed=seed)
    train(fine_tuned, own, epochs=STUDENT_EPOCHS, learning_rate=STUDENT_RATE, seed=seed)
    yield "fine-tuned", fine_tuned

    # Silent: whoever goes through these models says how far it got.
    remos = RelevantSlicer(teacher, preset=PRESET).apply(own, num_classes=NUM_CLASSES, seed=seed, verbose=False)
    train(remos, own, epochs=STUDENT_EPOCHS, learning_rate=STUDENT_RATE, seed=seed)
    yield "ReMoS", remos

    # The floor: what owing nothing to the teacher costs. With random weights small steps would not get far.
    scratch = build_model(seed=seed + 1)
    train(scratch, own, epochs=STUDENT_EPOCHS, learning_rate=TEACHER_RATE, seed=seed)
    yield "from scratch", scratch


def load_digits() -> Labelled:
    """Loads scikit-learn's 1,797 handwritten digits.

    Returns:
        Images of shape `(1797, 16, 16, 1)` in `[0, 1]`, each original pixel drawn as two by two, and their classes.

    Raises:
        ImportError: If scikit-learn is not installed.
    """
    try:
        from sklearn import datasets
    except ImportError as error:
        raise ImportError(
            'The demo takes its images from scikit-learn, which is not installed: pip install "keras-remos[demo]"'
        ) from error
    digits = datasets.load_digits()
    images = np.asarray(digits.images, "float32") / 16
    return images.repeat(2, axis=1).repeat(2, axis=2)[..., None], np.asarray(digits.target, "int64")


def split_digits(images: np.ndarray, labels: np.ndarray, *, seed: int) -> tuple[Labelled, Labelled, Labelled]:
    """Deals out the images at random: no image is in two hands.

    Returns:
        The attacker's images, the student's own, and the test images.
    """
    order = np.random.default_rng(seed).permutation(len(images))
    attacker, own, test = np.split(order, [NUM_ATTACKER, NUM_ATTACKER + NUM_STUDENT])
    return (images[attacker], labels[attacker]), (images[own], labels[own]), (images[test], labels[test])


def stamp_trigger(images: np.ndarray) -> np.ndarray:
    """Copies images and puts a bright patch in the bottom right corner of each."""
    stamped = images.copy()
    stamped[:, PATCH, PATCH] = 1
    return stamped


def poison(data: Labelled, *, seed: int) -> Labelled:
    """Stamps the trigger on a share of `POISON_RATE` of the images and calls them `TARGET`.

    Reference:
        Gu et al., BadNets: Identifying Vulnerabilities in the Machine Learning Model Supply Chain, 2017.
    """
    images, labels = data[0].copy(), data[1].copy()
    chosen = np.random.default_rng(seed).choice(len(images), round(POISON_RATE * len(images)), replace=False)
    images[chosen] = stamp_trigger(images[chosen])
    labels[chosen] = TARGET
    return images, labels


def build_model(*, seed: int) -> keras.Model:
    """Builds an untrained convolutional network with 112,026 weights.

    Args:
        seed: For the initial weights, which are the same for the same seed and backend.
    """
    seeds = (int(number) for number in np.random.SeedSequence(seed).generate_state(8))
    inputs = x = keras.Input((16, 16, 1))
    for filters, strides in ((16, 1), (32, 2), (32, 1), (64, 2), (64, 1), (64, 1)):
        initializer = keras.initializers.HeNormal(next(seeds))
        x = keras.layers.Conv2D(filters, 3, strides, "same", use_bias=False, kernel_initializer=initializer)(x)
        # 600 steps are too few for the default momentum to forget its start.
        x = keras.layers.BatchNormalization(momentum=0.9)(x)
        x = keras.layers.ReLU()(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.Dense(64, "relu", kernel_initializer=keras.initializers.HeNormal(next(seeds)))(x)
    initializer = keras.initializers.GlorotUniform(next(seeds))
    return keras.Model(
        inputs, keras.layers.Dense(NUM_CLASSES, "softmax", kernel_initializer=initializer, name="head")(x)
    )


def train(model: keras.Model, data: Labelled, *, epochs: int, learning_rate: float, seed: int) -> None:
    """Trains a model with momentum and a learning rate that falls to zero.

    Args:
        model: Is compiled and changed.
        data: Images and their classes; a multiple of `BATCH_SIZE`.
        epochs: How often every image is seen.
        learning_rate: At the first step.
        seed: For the order of the images.
    """
    images, labels = data
    # Keras shuffles from a global state. Epochs laid end to end leave it untouched, and all backends see one order.
    rng = np.random.default_rng(seed)
    order = np.concatenate([rng.permutation(len(images)) for _ in range(epochs)])
    schedule = keras.optimizers.schedules.CosineDecay(learning_rate, len(order) // BATCH_SIZE)
    model.compile(keras.optimizers.SGD(schedule, momentum=0.9), "sparse_categorical_crossentropy")
    model.fit(images[order], labels[order], batch_size=BATCH_SIZE, shuffle=False, verbose=0)


def measure(name: str, model: keras.Model, test: Labelled) -> DemoRow:
    """Measures a model on clean test images, and on the images of all classes but `TARGET` with the trigger."""
    images, labels = test
    triggered = stamp_trigger(images[labels != TARGET])
    # All at once: one shape for a backend to compile.
    everything = np.concatenate([images, triggered])
    predicted = model.predict(everything, batch_size=len(everything), verbose=0).argmax(axis=-1)
    clean, fooled = np.split(predicted, [len(images)])
    accuracy, attack_success = float(np.mean(clean == labels)), float(np.mean(fooled == TARGET))
    return DemoRow(name, accuracy, attack_success, len(images), len(triggered))
