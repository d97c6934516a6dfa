"""FGSM and PGD on classifiers that end with logits or with probabilities."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import toys
from keras import layers as kl
from toys import numpy

from keras_remos.data.pixels import PixelSpace
from keras_remos.defects import TransferFGSM, TransferPGD
from keras_remos.errors import DataError, RemosError
from keras_remos.models.fingerprint import fingerprint

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (12, 6, 6, 3)).astype("uint8")
LABELS = RNG.integers(0, 4, 12)
SPACE = PixelSpace("-1-1")


def classifier(activation: str | None = None, scale: float = 1.0) -> keras.Model:
    x = keras.Input((6, 6, 3))
    h = kl.Flatten()(kl.Conv2D(4, 3, activation="relu")(x))
    model = toys.fill(keras.Model(x, kl.Dense(4, activation=activation, name="head")(h), name="classifier"))
    model.get_layer("head").set_weights([scale * weight for weight in model.get_layer("head").get_weights()])
    return model


def logits(model: keras.Model, pixels: np.ndarray) -> np.ndarray:
    kernel, bias = model.get_layer("head").get_weights()
    return numpy(keras.Model(model.input, model.layers[-2].output)(SPACE.scale(pixels))) @ kernel + bias


def likelihood(model: keras.Model, pixels: np.ndarray, labels: np.ndarray) -> np.ndarray:
    outputs = logits(model, pixels).astype("float64")
    outputs -= outputs.max(axis=1, keepdims=True)
    return (outputs - np.log(np.exp(outputs).sum(axis=1, keepdims=True)))[np.arange(len(labels)), labels]


def run(attack: TransferPGD, model: keras.Model) -> np.ndarray:
    return attack.inputs(attack.prepare(model, space=SPACE), IMAGES, LABELS, verbose=False).inputs[:]


@pytest.mark.parametrize("attack", [TransferFGSM(epsilon=2), TransferPGD(epsilon=2, steps=5)], ids=["fgsm", "pgd"])
def test_the_true_class_becomes_less_likely(attack: TransferPGD) -> None:
    model = classifier()
    made = run(attack, model)
    assert np.all(likelihood(model, made, LABELS) < likelihood(model, IMAGES, LABELS))
    assert np.abs(made.astype("float64") - IMAGES).max() <= 2


def test_the_target_becomes_more_likely() -> None:
    model, attack = classifier(), TransferPGD(epsilon=8, steps=10, target=2)
    made = attack.inputs(attack.prepare(model, space=SPACE), IMAGES, LABELS, verbose=False)
    assert made.target == 2
    targets = np.full(12, 2)
    assert np.all(likelihood(model, made.inputs[:], targets) > likelihood(model, IMAGES, targets))
    hits = np.mean(np.argmax(logits(model, made.inputs[:]), axis=1) == 2)
    assert hits > np.mean(np.argmax(logits(model, IMAGES), axis=1) == 2)


def test_fgsm_moves_every_pixel_by_epsilon() -> None:
    inside = np.full_like(IMAGES, 100)
    attack, model = TransferFGSM(epsilon=3), classifier()
    made = attack.inputs(attack.prepare(model, space=SPACE), inside, LABELS, verbose=False).inputs[:]
    moved = np.abs(made - inside)
    # A pixel that a dead ReLU cuts off has no gradient.
    np.testing.assert_allclose(moved[moved > 0], 3, atol=1e-4)
    assert np.mean(moved > 0) > 0.9
    assert TransferFGSM(epsilon=3).get_config() == {
        "epsilon": 3,
        "head": None,
        "target": None,
        "recipe": None,
        "epochs": 30,
    }


def test_probabilities_and_logits_are_attacked_alike() -> None:
    attack = TransferPGD(steps=3)
    with_logits, with_softmax = run(attack, classifier()), run(attack, classifier("softmax"))
    assert np.mean(np.abs(with_logits - with_softmax) > 1e-3) < 0.01
    assert np.all(likelihood(classifier(), with_softmax, LABELS) < likelihood(classifier(), IMAGES, LABELS))


def test_a_classifier_that_is_sure_of_itself_still_has_a_gradient() -> None:
    """Beyond Keras' own margin of 1e-7 the loss would be flat."""
    model = classifier("softmax", scale=3.0)
    targets = np.argmin(logits(model, IMAGES), axis=1)
    before = likelihood(model, IMAGES, targets)
    sure = (before < np.log(1e-7)) & (before > np.log(1e-25))
    assert sure.any()
    for target in np.unique(targets[sure]):
        made = run(TransferPGD(steps=3, random_start=False, target=int(target)), model)
        rows = sure & (targets == target)
        assert np.all(likelihood(model, made, targets)[rows] > before[rows])


# Behind the features, how a classifier may come to its classes.
ENDS: dict[str, Callable[[Any], Any]] = {
    "logits": lambda h: kl.Dense(4, name="head")(h),
    "dense": lambda h: kl.Dense(4, activation="softmax", name="head")(h),
    "activation": lambda h: kl.Activation("softmax", dtype="float32")(kl.Dense(4, name="head")(h)),
    "layer as activation": lambda h: kl.Dense(4, activation=kl.Softmax(), name="head")(h),
    "operator": lambda h: keras.ops.softmax(kl.Dense(4, name="head")(h)),
    "float32 behind": lambda h: kl.Activation("linear", dtype="float32")(ENDS["dense"](h)),
}


def sure(policy: str, end: str) -> keras.Model:
    """A classifier whose softmax rounds to exactly 0 and 1."""
    keras.config.set_dtype_policy(policy)
    try:
        x = keras.Input((6, 6, 3))
        model = toys.fill(keras.Model(x, ENDS[end](kl.Dense(8, "tanh", name="features")(kl.Flatten()(x)))))
    finally:
        keras.config.set_dtype_policy("float32")
    for name, factor in (("features", 0.1), ("head", 1000.0)):
        layer = model.get_layer(name)
        layer.set_weights([factor * weight for weight in layer.get_weights()])
    return model


def step_by_hand(model: keras.Model, pixels: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The sign of the cross-entropy's gradient, in float64 and without its factor that may be next to nothing."""
    weights = [
        toys.numpy(w.value).astype("float64") for name in ("features", "head") for w in model.get_layer(name).weights
    ]
    kernel, bias, last, last_bias = weights
    features = np.tanh(SPACE.scale(pixels).reshape(len(pixels), -1) @ kernel + bias)
    scores = features @ last + last_bias
    is_label = np.eye(4, dtype=bool)[labels]
    pull = toys.softmax(np.where(is_label, -np.inf, scores)) - is_label
    return np.sign((pull @ last.T * (1 - features**2)) @ kernel.T).reshape(pixels.shape)


@pytest.mark.parametrize(
    ("policy", "end"),
    [
        *(("mixed_float16", end) for end in ENDS),
        *((policy, "dense") for policy in ("float32", "mixed_bfloat16", "float16")),
    ],
)
def test_where_outputs_are_rounded_every_image_is_attacked_all_the_same(policy: str, end: str) -> None:
    model = sure(policy, end)
    inside = IMAGES // 2 + 60  # no pixel is cut off
    outputs = numpy(model(SPACE.scale(inside)))
    labels = outputs.argmax(axis=1)
    assert end == "logits" or np.mean(outputs.max(axis=1) == 1) > 0.9
    attack = TransferFGSM(epsilon=3)
    made = attack.inputs(attack.prepare(model, space=SPACE), inside, labels, verbose=False)
    moved = np.sign(made.inputs[:] - inside)
    assert np.mean(moved == step_by_hand(model, inside, labels)) > (0.99 if policy == "float32" else 0.95)
    assert made.record["unchanged"] == 0


def test_gradients_that_float16_would_round_to_nothing_or_to_infinity() -> None:
    model, quiet, loud = (sure("mixed_float16", "logits") for _ in range(3))
    labels = numpy(model(SPACE.scale(IMAGES))).argmax(axis=1)
    for twin, factor in ((quiet, 1e-9), (loud, 60.0)):
        kernel, bias = twin.get_layer("head").get_weights()
        twin.get_layer("head").set_weights([factor * kernel, factor * bias])
    attack = TransferPGD(epsilon=3, steps=2, step_size=1.0, random_start=False)
    for twin in (quiet, loud):
        made = attack.inputs(attack.prepare(twin, space=SPACE), IMAGES, labels, verbose=False)
        assert (made.inputs[:] != IMAGES).reshape(12, -1).any(axis=1).all()
        assert np.isfinite(made.inputs[:]).all()


def test_images_that_no_gradient_reaches_are_counted() -> None:
    model = classifier()
    kernel, bias = model.layers[1].get_weights()
    model.layers[1].set_weights([kernel, bias - 100])  # no ReLU wakes up
    for attack in (TransferFGSM(epsilon=3), TransferPGD(epsilon=3, steps=2)):
        with pytest.warns(UserWarning, match=f"{attack.name} could not change 12 of 12 inputs"):
            made = attack.inputs(attack.prepare(model, space=SPACE), IMAGES, LABELS, verbose=False)
        assert made.record["unchanged"] == 12
        assert made.describe()["record"] == {"unchanged": 12}


def test_classes_that_the_teacher_does_not_know() -> None:
    model = classifier()
    for attack in (TransferPGD(target=4), TransferFGSM(target=9)):
        with pytest.raises(DataError, match=f"tells 4 classes apart, and class {attack.target}"):
            run(attack, model)
    attack = TransferPGD()
    with pytest.raises(DataError, match="tells 4 classes apart, and class 7"):
        attack.inputs(attack.prepare(model, space=SPACE), IMAGES, LABELS + 4)


def test_what_is_no_classifier() -> None:
    attack = TransferPGD()
    maps = keras.Sequential([keras.Input((6, 6, 3)), kl.Conv2D(8, 3)])
    with pytest.raises(DataError, match="a number for each class"):
        attack.inputs(attack.prepare(maps, space=SPACE), IMAGES, LABELS)


def test_the_attackers_copy_learns_the_attackers_classes() -> None:
    """Images that are bright or dark: their two classes are none of the teacher's four."""
    teacher, labels = classifier(), np.arange(32) % 2
    before = fingerprint(teacher)
    images = (labels[:, None, None, None] * 150 + RNG.integers(0, 100, (32, 6, 6, 3))).astype("uint8")
    attack = TransferPGD(epsilon=8, steps=3, epochs=2)
    prepared = attack.prepare(teacher, (images, labels), space=SPACE, seed=1, verbose=False)
    assert prepared.teacher.output_shape == (None, 2)
    assert fingerprint(teacher) == before
    assert prepared.record["num_classes"] == 2
    made = attack.inputs(prepared, images, labels, verbose=False)
    made.check_teacher(teacher)
    outputs = [numpy(prepared.teacher(SPACE.scale(x)))[np.arange(32), labels] for x in (images, made.inputs[:])]
    assert outputs[1].mean() < outputs[0].mean()


@pytest.mark.parametrize("options", [{"target": -1}, {"epochs": 0}, {"epsilon": 300}])
def test_options_out_of_range(options: dict[str, int]) -> None:
    for kind in (TransferPGD, TransferFGSM):
        with pytest.raises(RemosError, match=next(iter(options))):
            kind(**options)
