"""FGSM and PGD on classifiers that end with logits or with probabilities."""

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
    return attack.inputs(attack.prepare(model, space=SPACE), IMAGES, LABELS, verbose=False).inputs


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
    assert np.all(likelihood(model, made.inputs, targets) > likelihood(model, IMAGES, targets))
    hits = np.mean(np.argmax(logits(model, made.inputs), axis=1) == 2)
    assert hits > np.mean(np.argmax(logits(model, IMAGES), axis=1) == 2)


def test_fgsm_moves_every_pixel_by_epsilon() -> None:
    inside = np.full_like(IMAGES, 100)
    attack, model = TransferFGSM(epsilon=3), classifier()
    made = attack.inputs(attack.prepare(model, space=SPACE), inside, LABELS, verbose=False).inputs
    moved = np.abs(made - inside)
    # A pixel that a dead ReLU cuts off has no gradient.
    np.testing.assert_allclose(moved[moved > 0], 3, atol=1e-4)
    assert np.mean(moved > 0) > 0.9
    assert TransferFGSM(epsilon=3).get_config() == {"epsilon": 3, "target": None, "epochs": 30}


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
    outputs = [numpy(prepared.teacher(SPACE.scale(x)))[np.arange(32), labels] for x in (images, made.inputs)]
    assert outputs[1].mean() < outputs[0].mean()


@pytest.mark.parametrize("options", [{"target": -1}, {"epochs": 0}, {"epsilon": 300}])
def test_options_out_of_range(options: dict[str, int]) -> None:
    for kind in (TransferPGD, TransferFGSM):
        with pytest.raises(RemosError, match=next(iter(options))):
            kind(**options)
