"""A head that is named, where none is found, reaches whatever reads what enters it or puts another in its place."""

from typing import Any

import keras
import numpy as np
import pytest
import toys
from keras import layers as kl
from keras import ops
from tiny import RECIPE

import keras_remos as kr
from keras_remos.defects import CoverageGuidedAttack, LatentBackdoor, PatchBackdoor, PenultimateAttack, TransferPGD
from keras_remos.errors import StudentError
from keras_remos.methods.attention import channel_attention
from keras_remos.models.features import find_features, penultimate
from keras_remos.training.task import Task

SPACE = kr.PixelSpace("0-1")
IMAGES = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 3)).astype("uint8")
LABELS = np.arange(12) % 3

pytestmark = pytest.mark.filterwarnings("ignore:Training .* ended in a constant classifier", "ignore:Criterion")


def gated() -> keras.Model:
    """Probabilities that no one layer makes: the scores are multiplied by a gate that reads them."""
    x = keras.Input((8, 8, 3))
    h = kl.Conv2D(4, 3, 2, padding="same", activation="relu", name="wide")(x)
    h = kl.Conv2D(6, 3, 2, padding="same", activation="relu", name="narrow")(h)
    scores = kl.Dense(4, name="scores")(kl.GlobalAveragePooling2D(name="pool")(h))
    gate = kl.Dense(4, activation="sigmoid", name="gate")(scores)
    return toys.fill(keras.Model(x, ops.softmax(scores * gate)))


def test_what_enters_it_is_read() -> None:
    model = gated()
    x = SPACE.scale(IMAGES)
    pooled = keras.Model(model.input, model.get_layer("pool").output)
    outputs, [features] = penultimate(model, head="scores")(x)
    np.testing.assert_allclose(toys.numpy(features), toys.numpy(pooled(x)), atol=1e-6)
    # Where it is not named, there is no head, and the output stands for what enters it.
    np.testing.assert_array_equal(*(toys.numpy(tensor) for tensor in (penultimate(model)(x)[1][0], outputs)))
    assert find_features(model, head="scores") == ["wide", "narrow"]


def test_the_attack_on_features_drives_what_enters_it() -> None:
    model = gated()
    with pytest.raises(kr.RemosError, match="4 neurons, received `neuron=5`"):
        attacked(model, PenultimateAttack(neuron=5, steps=3))
    made = attacked(model, PenultimateAttack(neuron=5, steps=3, height=20.0, random_start=False, head="scores"))
    extract = penultimate(model, head="scores")
    before, after = (toys.numpy(extract(SPACE.scale(x))[1][0])[:, 5] for x in (IMAGES, made.inputs))
    assert (after >= before).all() and (after > before).any()


def test_attacks_by_coverage_leave_it_alone() -> None:
    model = gated()
    found = {
        head: len(CoverageGuidedAttack(head=head).objective(model, SPACE.scale(IMAGES)).neurons)  # type: ignore[attr-defined]
        for head in (None, "scores")
    }
    assert found == {None: 4 + 6 + 4 + 4, "scores": 4 + 6 + 4}


def attacked(model: keras.Model, attack: Any) -> Any:
    return attack.inputs(attack.prepare(model, space=SPACE), IMAGES, LABELS, verbose=False)


@pytest.mark.once
@pytest.mark.parametrize("kind", [PatchBackdoor, LatentBackdoor, TransferPGD])
def test_attackers_train_with_a_head_in_its_place(kind: Any) -> None:
    options: dict[str, Any] = {"epochs": 1} if kind is TransferPGD else {"recipe": RECIPE}
    options |= {"retarget": RECIPE, "trigger_steps": 2} if kind is LatentBackdoor else {}
    with pytest.raises(StudentError, match="head="):
        kind(**options).prepare(gated(), (IMAGES, LABELS), space=SPACE, verbose=False)
    prepared = kind(**options, head="scores").prepare(gated(), (IMAGES, LABELS), space=SPACE, verbose=False)
    assert prepared.teacher.output_shape == (None, 4 if kind is LatentBackdoor else 3)  # the latent one hides again


@pytest.mark.once
@pytest.mark.parametrize("method", kr.METHODS)
def test_every_method_puts_its_own_in_its_place(method: str) -> None:
    data = SPACE.scale(IMAGES), LABELS
    options: dict[str, Any] = {"form": "attention"} if method == "delta" else {}
    trained = kr.train(method, gated(), data, recipe=RECIPE, head="scores", verbose=False, **options)
    assert trained.student.output_shape == (None, 3)


def test_attention_is_that_of_what_enters_it(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    from keras_remos.methods import attention

    fit = attention._fit_head
    monkeypatch.setattr(
        attention, "_fit_head", lambda features, *rest: (seen.append(features), fit(features, *rest))[1]
    )
    task = Task(gated(), (SPACE.scale(IMAGES), LABELS), recipe=RECIPE, head="scores")
    found = channel_attention(task, task.frozen_teacher(), ["wide"], samples=8, verbose=False)
    assert found["wide"].shape == (4,) and seen[0].shape == (12, 6)


@pytest.mark.once
def test_an_audit_names_it_once() -> None:
    report = kr.audit(
        gated(),
        {},
        (IMAGES, LABELS),
        train=(IMAGES, LABELS),
        controls=kr.Controls(floor=True, head="scores"),
        recipe={"epochs": 1},
        space=SPACE,
        verbose=False,
    )
    assert {attack.options["head"] for attack in report.attacks.values()} == {"scores"}
