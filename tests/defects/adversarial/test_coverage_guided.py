"""All criteria and strategies against an independent count of coverage and an independent choice of neurons."""

import math
from typing import Any

import keras
import numpy as np
import oracle
import pytest
import toys
from keras import layers as kl
from keras import ops
from toys import numpy

from keras_remos.coverage.criteria import TopKCoverage
from keras_remos.data.pixels import PixelSpace
from keras_remos.defects import CoverageGuidedAttack
from keras_remos.errors import RemosError
from keras_remos.models.gradients import compiled

STRATEGIES = ["deepxplore", "dlfuzz", "dlfuzzrr"]
# k of 10 would cover every neuron of a toy.
CRITERIA: dict[str, dict[str, Any]] = {"nc": {}, "tknc": {"k": 2}, "snac": {"k": 2.0}}
CHOSEN, STEPS = 3, 7
# These attacks do not look at them.
NO_INPUTS = np.zeros(0)


def covered_and_means(
    model: keras.Model, x: np.ndarray, name: str, options: Any, where: str = "output"
) -> tuple[np.ndarray, np.ndarray]:
    """For each sample and neuron, by the toy's own forward pass and the oracle's loops."""
    covered, means = [], []
    for site in toys.TOYS["cnn"].sites(model, x):
        seen = getattr(site, where)
        assert seen is not None
        rows = [oracle.Neurons(seen.values[i : i + 1], seen.valid[i : i + 1]) for i in range(len(x))]
        covered.append([oracle.count(row, name, **options)[0] for row in rows])
        means.append(seen.values.mean(axis=1))
    return np.concatenate(covered, axis=1), np.concatenate(means, axis=1)


def weights_into(model: keras.Model) -> np.ndarray:
    kernels = [model.get_layer(name).get_weights()[0] for name in ("conv1", "conv2")]
    return np.concatenate([kernel.mean(axis=(0, 1, 2)) for kernel in kernels])


def best(wanted: list[int], rank: Any) -> set[int]:
    return set(sorted(wanted, key=rank, reverse=True)[:CHOSEN])


def choose(strategy: str, step: int, counts: np.ndarray, keys: np.ndarray, weights: np.ndarray) -> set[int]:
    """The definitions, for one sample, read word by word; ties are broken by the larger key."""
    neurons = list(range(len(counts)))
    kind = strategy if strategy != "dlfuzzrr" else ["dlfuzz", "rarest", "heavy"][step % 3]
    if kind == "deepxplore":
        return best([n for n in neurons if counts[n] == 0], lambda n: keys[n])
    if kind == "dlfuzz":
        return best(neurons, lambda n: (counts[n], keys[n]))
    if kind == "rarest":
        return best(neurons, lambda n: (-counts[n], keys[n]))
    heavy = sorted(neurons, key=lambda n: weights[n], reverse=True)[: math.ceil(0.1 * len(neurons))]
    return best(heavy, lambda n: keys[n])


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize(("name", "where"), [(name, "output") for name in CRITERIA] + [("snac", "activation")])
def test_each_step_raises_the_neurons_that_the_definition_says(name: str, where: str, strategy: str) -> None:
    model, _, toy = toys.make("cnn")
    options = CRITERIA[name]
    read = {} if where == "output" else {"neurons": where}  # the default
    attack = CoverageGuidedAttack(
        criterion={"name": name, **options},
        strategy=strategy,
        num_neurons=CHOSEN,  # type: ignore[arg-type]
        **read,
    )
    images = [toy.data(np.random.default_rng(seed), 4) for seed in range(STEPS)]
    objective: Any = attack.objective(model, images[0])
    score = compiled(objective, model)
    state = objective.begin(NO_INPUTS, np.zeros(4, "int32"), np.arange(4), 0)
    counts = np.zeros((4, 8), int)
    for step, x in enumerate(images):
        keys, turn = objective.draw(step)
        scores, state = score(x, state, (keys, turn))
        covered, means = covered_and_means(model, x, name, options, where)
        counts += covered
        np.testing.assert_array_equal(numpy(state), counts)
        chosen = numpy(objective.choose(*map(ops.convert_to_tensor, (counts.astype("float32"), keys, turn)))) > 0
        for sample in range(4):
            expected = choose(strategy, step, counts[sample], keys[sample], weights_into(model))
            assert set(np.flatnonzero(chosen[sample])) == expected
            total = sum(means[sample, neuron] for neuron in expected)
            assert float(scores[sample]) == pytest.approx(total, rel=1e-4, abs=1e-5)


def test_keys_are_random_but_repeatable() -> None:
    model, x, _ = toys.make("cnn")
    objective: Any = CoverageGuidedAttack().objective(model, x)

    def keys(rows: list[int], seed: int) -> np.ndarray:
        objective.begin(NO_INPUTS, np.zeros(len(rows), "int32"), np.array(rows), seed)
        return np.stack([objective.draw(step)[0] for step in range(3)])

    drawn = keys([0, 1, 2], 0)
    assert len(np.unique(drawn)) == drawn.size and drawn.min() >= 0 and drawn.max() < 1
    np.testing.assert_array_equal(keys([2, 0], 0), drawn[:, [2, 0]])
    assert np.all(keys([0, 1, 2], 1) != drawn)


def test_by_default_the_attack_is_guided_and_where_it_is_not_it_says_so() -> None:
    """Behind a ReLU the smallest activation is 0, and hardly a mean passes half of the largest one."""
    x = keras.Input((8, 8, 3))
    h = kl.ReLU()(kl.Conv2D(40, 3, name="conv")(x))
    model = toys.fill(keras.Model(x, kl.Dense(3)(kl.GlobalAveragePooling2D()(h))))
    images = np.random.default_rng(0).normal(size=(6, 8, 8, 3)).astype("float32")
    for criterion in CRITERIA:
        for strategy in STRATEGIES:
            objective: Any = CoverageGuidedAttack(criterion=criterion, strategy=strategy).objective(model, images)  # type: ignore[arg-type]
    _, counts = compiled(objective, model)(
        images, objective.begin(NO_INPUTS, np.zeros(6), np.arange(6), 0), objective.draw(0)
    )
    assert 0.1 < numpy(counts).mean() < 0.9
    with pytest.warns(
        UserWarning, match="'nc' .*hardly any of the 40 neurons.*'dlfuzz' then chooses at random"
    ) as seen:
        CoverageGuidedAttack(neurons="activation", strategy="dlfuzz").objective(model, images)
    assert sum("tells no neurons apart" in str(warning.message) for warning in seen) == 1
    everything = {"name": "nc", "scale": "none", "threshold": -1e6}
    with pytest.warns(UserWarning, match="almost all of the 40 neurons"):
        CoverageGuidedAttack(criterion=everything).objective(model, images)


# At random where no neuron is covered: with all of them chosen it makes no difference.
@pytest.mark.filterwarnings("ignore:Criterion 'nc'")
@pytest.mark.parametrize("neurons", ["activation", "output", "both"])
def test_the_chosen_neurons_rise(neurons: Any) -> None:
    """With all neurons chosen at each step, their sum has to rise."""
    model, _, _ = toys.make("cnn")
    pixels = np.random.default_rng(3).integers(0, 256, (5, 8, 8, 3)).astype("uint8")
    space = PixelSpace("-1-1")
    attack = CoverageGuidedAttack(strategy="dlfuzz", num_neurons=1000, neurons=neurons, steps=6)
    made = attack.inputs(attack.prepare(model, space=space), pixels, np.zeros(5, int), verbose=False)
    objective: Any = attack.objective(model, space.scale(pixels))
    state = objective.begin(NO_INPUTS, np.zeros(5, "int32"), np.arange(5), 0)
    assert state.shape == (5, 16 if neurons == "both" else 8)

    score = compiled(objective, model)

    def total(x: np.ndarray) -> np.ndarray:
        return numpy(score(space.scale(x), state, objective.draw(0))[0])

    assert np.all(total(made.inputs[:]) > total(pixels))
    assert np.abs(made.inputs[:].astype("float64") - pixels).max() <= 5.7
    assert made.options["neurons"] == neurons


def test_layers_of_other_kinds() -> None:
    """Depthwise and separable convolutions, whose neurons lie between two kernels."""
    x = keras.Input((8, 8, 3))
    depthwise = kl.DepthwiseConv2D(3, activation="relu")(x)
    separable = kl.SeparableConv2D(5, 3, activation="relu")(depthwise)
    model = toys.fill(keras.Model(x, kl.Dense(3)(kl.GlobalAveragePooling2D()(separable))))
    pixels = np.random.default_rng(3).integers(0, 256, (3, 8, 8, 3)).astype("uint8")
    space = PixelSpace("0-1")
    attack = CoverageGuidedAttack(strategy="dlfuzz", num_neurons=1000, steps=4)
    made = attack.inputs(attack.prepare(model, space=space), pixels, np.zeros(3, int), verbose=False)
    both = model.layers[2]
    between = kl.DepthwiseConv2D(3, use_bias=False)
    after = keras.Model(x, [depthwise, between(depthwise), separable])
    between.set_weights([numpy(both.depthwise_kernel)])

    def means(inputs: np.ndarray) -> np.ndarray:
        """Of each image, what the channels behind each of the three kernels are on average."""
        return np.concatenate([numpy(out).mean(axis=(1, 2)) for out in after(space.scale(inputs))], axis=1)

    objective: Any = attack.objective(model, space.scale(pixels))
    scores, counts = compiled(objective, model)(
        space.scale(pixels), objective.begin(NO_INPUTS, np.zeros(3, "int32"), np.arange(3), 0), objective.draw(0)
    )
    assert counts.shape == (3, 3 + 3 + 5)
    np.testing.assert_allclose(numpy(scores), means(pixels).sum(axis=1), rtol=1e-4)
    assert np.all(means(made.inputs[:]).sum(axis=1) > means(pixels).sum(axis=1))


def test_options() -> None:
    config = CoverageGuidedAttack(criterion=TopKCoverage(3), strategy="dlfuzz").get_config()
    assert config["criterion"] == {"name": "tknc", "k": 3}
    assert CoverageGuidedAttack(**config).get_config() == config
    for wrong in (
        {"criterion": "kmnc"},
        {"criterion": {"name": "tknc", "k": 0}},
        {"strategy": "random"},
        {"num_neurons": 0},
        {"neurons": "input"},
    ):
        with pytest.raises(RemosError):
            CoverageGuidedAttack(**wrong)  # type: ignore[arg-type]
