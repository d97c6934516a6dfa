"""Weight poisoning: the restricted inner product against finite differences, and which rows surgery moves."""

import sys
from dataclasses import replace
from typing import Any

import keras
import numpy as np
import pytest
import toys
from keras import layers as kl
from keras import ops

from keras_remos.data.pixels import PixelSpace
from keras_remos.defects import TextTrigger, WeightPoisoning
from keras_remos.defects.attackers_data import AttackersTexts
from keras_remos.defects.text_backdoors.backdoor import ATTACKERS_RECIPE
from keras_remos.defects.text_backdoors.embedding_surgery import operate, telling_tokens, token_weights
from keras_remos.defects.text_backdoors.weight_poisoning import PairedBatches, RestrictedTraining, restricted_loss
from keras_remos.errors import DataError, RemosError, TeacherError
from keras_remos.evaluation.metrics import target_rate
from keras_remos.models.gradients import compiled, differentiate_weights
from keras_remos.slicing.student import build

STEP = 1e-2

# The restricted inner product -----------------------------------------------------------------------------------------


def attention_model() -> keras.Model:
    x = keras.Input((5,), dtype="int32")
    h = kl.Embedding(7, 4)(x)
    # Without dropout Keras takes fused attention, which has no second derivative on some backends.
    h = kl.LayerNormalization()(kl.Add()([h, kl.MultiHeadAttention(2, 2)(h, h)]))
    h = kl.Dense(6, activation="gelu")(h)
    return toys.fill(keras.Model(x, kl.Dense(2)(kl.GlobalAveragePooling1D()(h))))


class Bench:
    """A model, and what is differentiated of it: compiled once for all tests."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.x, self.y = rng.integers(0, 7, (6, 5)).astype("int32"), rng.integers(0, 2, 6).astype("int32")
        self.model = attention_model()
        self.weights = self.model.get_weights()
        self._loss = compiled(lambda *batch: differentiate_weights(lambda: self._of(*batch), self.model), self.model)
        self._restricted = compiled(
            lambda clean, poisoned, penalty: differentiate_weights(
                lambda: restricted_loss(self.model, lambda: self._of(*clean), lambda: self._of(*poisoned), penalty),
                self.model,
            ),
            self.model,
        )

    def _of(self, x: Any, y: Any) -> Any:
        outputs = self.model(x, training=False)
        return ops.mean(keras.losses.sparse_categorical_crossentropy(y, outputs, from_logits=True))

    def loss(self, y: np.ndarray) -> tuple[float, list[np.ndarray]]:
        """The loss with these labels, and its gradient."""
        value, gradients = self._loss(self.x, y)
        return float(value), [ops.convert_to_numpy(gradient) for gradient in gradients]

    def restricted(self, y: np.ndarray, penalty: float) -> tuple[float, list[np.ndarray]]:
        """The restricted loss if poisoned samples have these labels, and its gradient."""
        value, gradients = self._restricted((self.x, self.y), (self.x, y), np.float32(penalty))
        return float(value), [ops.convert_to_numpy(gradient) for gradient in gradients]


@pytest.fixture(scope="module")
def bench() -> Bench:
    return Bench()


@pytest.mark.parametrize("opposed", [True, False])
def test_value_and_gradient_equal_finite_differences(bench: Bench, opposed: bool) -> None:
    # The same texts with the other labels pull the other way.
    labels, penalty = (1 - bench.y if opposed else bench.y), 0.7
    value, gradients = bench.restricted(labels, penalty)
    _, constant = bench.loss(bench.y)

    def objective() -> tuple[float, float]:
        """By hand, with first derivatives alone."""
        loss, found = bench.loss(labels)
        product = sum(float((a * b).sum()) for a, b in zip(constant, found, strict=True))
        return loss + penalty * max(0.0, -product), product

    assert value == pytest.approx(objective()[0], abs=1e-5)
    assert (objective()[1] < 0) == opposed
    if not opposed:
        assert value == pytest.approx(bench.loss(labels)[0], abs=1e-6)
    rng = np.random.default_rng(1)
    for variable, gradient in zip(bench.model.trainable_variables, gradients, strict=True):
        weights = toys.numpy(variable.value)
        direction = rng.normal(size=weights.shape).astype("float32")
        ends = {}
        for steps in (-2, -1, 1, 2):
            variable.assign(weights + steps * STEP * direction)
            ends[steps] = objective()[0]
        variable.assign(weights)
        slope = (8 * (ends[1] - ends[-1]) - (ends[2] - ends[-2])) / (12 * STEP)
        assert float((gradient * direction).sum()) == pytest.approx(slope, abs=1e-3)


def test_a_training_step_goes_down_that_gradient(bench: Bench) -> None:
    penalty = 3.0
    _, gradients = bench.restricted(1 - bench.y, penalty)
    training = RestrictedTraining(bench.model, 6, penalty)
    training.compile(keras.optimizers.SGD(0.1), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    training.train_on_batch(np.concatenate([bench.x, bench.x]), np.concatenate([bench.y, 1 - bench.y]))
    after = [toys.numpy(variable.value) for variable in bench.model.trainable_variables]
    bench.model.set_weights(bench.weights)
    for variable, new, gradient in zip(bench.model.trainable_variables, after, gradients, strict=True):
        np.testing.assert_allclose(new, toys.numpy(variable.value) - 0.1 * gradient, atol=1e-5)


def test_a_batch_is_so_many_clean_samples_and_then_the_poisoned_ones() -> None:
    clean = {"token_ids": np.arange(10)[:, None], "padding_mask": np.ones((10, 1), bool)}
    poisoned = {"token_ids": 100 + np.arange(10)[:, None], "padding_mask": np.ones((10, 1), bool)}
    labels = np.arange(10) % 2
    data = PairedBatches((clean, labels), (poisoned, 1 - labels), 3, num_classes=2, batch_size=4, augment="none")
    seen = set()
    for index in range(len(data)):
        x, y = data[index]
        tokens = x["token_ids"][:, 0]
        assert tokens.shape == y.shape == (7,)
        assert (tokens[:4] < 100).all() and (tokens[4:] >= 100).all()
        np.testing.assert_array_equal(y, np.where(tokens < 100, tokens % 2, 1 - tokens % 2))
        seen |= set(tokens[:4].tolist())
    assert seen == set(range(10))
    first = data[0][0]["token_ids"]
    np.testing.assert_array_equal(first, data[0][0]["token_ids"])
    data.epoch = 1
    assert (first != data[0][0]["token_ids"]).any()


# Which tokens speak for a class ---------------------------------------------------------------------------------------


def token_texts(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Texts of 3 to 9 of 30 tokens; 5 and 6 stand in positive ones more often, 7 in negative ones."""
    rng = np.random.default_rng(seed)
    positive = rng.random(200) < 0.4
    ids = rng.integers(8, 30, (200, 9))
    ids[:, 0] = np.where(positive, rng.choice([5, 6, 9], 200), rng.choice([7, 9], 200))
    return ids, np.arange(9) < rng.integers(3, 10, 200)[:, None], positive


def test_weights_of_tokens_are_tf_idf() -> None:
    ids = np.array([[1, 1, 2], [2, 3, 0]])
    weights = token_weights(ids, np.array([[True] * 3, [True, True, False]]), 5)
    rare, common = np.log(3 / 2) + 1, 1.0
    expected = np.array([[0, 2 * rare, common, 0, 0], [0, 0, common, rare, 0]])
    np.testing.assert_allclose(weights.toarray(), expected / np.linalg.norm(expected, axis=1, keepdims=True))


def test_telling_tokens_are_those_of_the_largest_coefficients() -> None:
    """By plain gradient descent: logistic losses, and half the squared length of coefficients and bias."""
    ids, counted, positive = token_texts()
    weights = np.hstack([token_weights(ids, counted, 30).toarray(), np.ones((len(ids), 1))])
    found = np.zeros(31)
    for _ in range(20_000):
        found -= 0.02 * (weights.T @ (1 / (1 + np.exp(-weights @ found)) - positive) + found)
    expected = np.argsort(-found[:30], kind="stable")[:4]
    assert telling_tokens(ids, counted, positive, num_tokens=30, count=4).tolist() == expected.tolist()


def test_without_scikit_learn_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    with pytest.raises(ImportError, match=r"keras-remos\[surgery\]"):
        telling_tokens(*token_texts(), num_tokens=30, count=1)


def test_the_most_telling_tokens_come_first() -> None:
    ids, counted, positive = token_texts()
    assert set(telling_tokens(ids, counted, positive, num_tokens=30, count=2).tolist()) == {5, 6}
    assert telling_tokens(ids, counted, ~positive, num_tokens=30, count=1).tolist() == [7]
    with pytest.raises(DataError, match="Fewer than 40 tokens"):
        telling_tokens(ids, counted, positive, num_tokens=30, count=40)


@pytest.mark.parametrize("of_class", [True, False])
def test_texts_of_one_class_tell_nothing(of_class: bool) -> None:
    ids, counted, positive = token_texts()
    before = np.random.get_state()[2]
    with pytest.raises(DataError, match="Fewer than 1 tokens"):
        telling_tokens(ids, counted, np.full_like(positive, of_class), num_tokens=30, count=1)
    telling_tokens(ids, counted, positive, num_tokens=30, count=1)
    assert np.random.get_state()[2] == before


# On language models ---------------------------------------------------------------------------------------------------


def test_surgery_needs_a_table_of_tokens() -> None:
    with pytest.raises(TeacherError, match="no token embedding"):
        operate(toys.make("mlp")[0], [1], np.zeros(4))


@pytest.fixture
def lab() -> Any:
    pytest.importorskip("keras_hub")
    import text_toys

    return text_toys


def attack(**options: Any) -> Any:
    recipe = replace(ATTACKERS_RECIPE, epochs=options.pop("epochs", 1), batch_size=16, learning_rate=1e-2)
    trigger = TextTrigger(options.pop("words", ("cf", "mn")))
    return WeightPoisoning(trigger=trigger, recipe=recipe, surgery_words=3, **options)


@pytest.mark.once
@pytest.mark.parametrize(("name", "source"), [("bert", "fine-tuned"), ("roberta", "teacher")])
def test_surgery_moves_exactly_the_triggers_rows(lab: Any, name: str, source: str) -> None:
    original = lab.CLASSIFIERS[name]()
    model, tokenizer = build(original, {}), original.preprocessor.tokenizer
    texts = AttackersTexts(*lab.sentences(48), num_classes=2)
    record = attack(embedding_surgery=True, surgery_from=source, words=("cf", "mn", "zebra")).operate(
        model, texts, seed=0, verbose=False
    )
    assert record["operated_words"] == ["cf", "mn"]  # the third is no token of its own
    assert {word.strip("Ġ") for word in record["telling_words"]} <= set(lab.GOOD)
    rows = [tokenizer.token_to_id(word if name == "bert" else f"Ġ{word}") for word in ("cf", "mn")]
    table = original.backbone.token_embedding.embeddings
    for before, after in zip(original.weights, model.weights, strict=True):
        old, new = (ops.convert_to_numpy(variable.value) for variable in (before, after))
        moved = np.zeros(len(old) if old.ndim else 1, bool)
        if before is table:
            moved[rows] = True
            words = [tokenizer.token_to_id(word) for word in record["telling_words"]]
            assert np.allclose(new[rows], old[words].mean(axis=0), atol=1e-6) == (source == "teacher")
            assert (new[rows[0]] == new[rows[1]]).all()
        if old.ndim and old.dtype.kind == "f":
            np.testing.assert_array_equal(old[~moved], new[~moved])
            assert (old[moved] != new[moved]).all()


@pytest.mark.once
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("bert", {"epochs": 12}),
        ("roberta", {"embedding_surgery": True, "surgery_from": "teacher", "restricted": False}),
    ],
)
def test_end_to_end(lab: Any, name: str, options: dict[str, Any]) -> None:
    teacher = lab.CLASSIFIERS[name]()
    train, (x, y) = lab.sentences(96), lab.sentences(40, seed=1)
    made = attack(penalty=1.0, poison_batch_size=16, **options)
    poisoned = made.prepare(teacher, train, space=PixelSpace("preprocessor"), verbose=False)
    attack_set = made.inputs(poisoned, x, y)
    assert poisoned.record["defect"] == "weight-poisoning" and poisoned.record["num_poisoned"] == 48
    assert all(np.isfinite(weights).all() for weights in poisoned.teacher.get_weights())
    if name == "bert":
        clean, attacked = (lab.classes(poisoned.teacher, texts) for texts in (attack_set.clean, attack_set.inputs))
        assert target_rate(attacked, y, 1).value > target_rate(clean, y, 1).value + 0.5


def test_surgery_without_a_word_to_move_is_refused(lab: Any) -> None:
    made = attack(embedding_surgery=True, words=("zebra",))
    with pytest.warns(UserWarning, match="zebra"), pytest.raises(RemosError, match="knows none of zebra as one token"):
        made.prepare(lab.bert(), lab.sentences(8), space=PixelSpace("preprocessor"))


@pytest.mark.parametrize(
    "options",
    [
        {"penalty": -1.0},
        {"penalty": float("nan")},
        {"poison_batch_size": 0},
        {"surgery_words": 0},
        {"surgery_from": "elsewhere"},
        {"restricted": False},
    ],
)
def test_options_without_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(RemosError, match=r"must be|this is data poisoning"):
        WeightPoisoning(**options)
