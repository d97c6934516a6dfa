"""Layers whose axis 0 is not the batch: parts of samples, what is the same for every sample, and what mixes them."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import toys
from keras import layers as kl
from keras import ops

from keras_remos import RelevantSlicer, profile
from keras_remos.data.pixels import PixelSpace
from keras_remos.defects import CoverageGuidedAttack

RNG = np.random.default_rng(2)
PIXELS = PixelSpace("-1-1")
TOKENS = RNG.integers(1, 9, (11, 5))
IMAGES = RNG.normal(size=(11, 8, 8, 3)).astype("float32")
FRAMES = RNG.normal(size=(11, 3, 6, 6, 2)).astype("float32")


@keras.saving.register_keras_serializable("tests")
class Positions(kl.Layer):
    """As in the examples of keras.io: positions are looked up once, for all samples."""

    def __init__(self, most: int = 7, ranks: int = 1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.ranks = ranks
        self.words = kl.Embedding(9, 4, name="words")
        self.places = kl.Embedding(most, 4, name="places")
        self.project = kl.Dense(4, name="project")

    def build(self, shape: Any) -> None:
        self.words.build(shape)
        self.places.build(shape)
        self.project.build((None, 4))
        self.built = True

    def call(self, tokens: Any) -> Any:
        places = ops.arange(tokens.shape[1])
        return self.words(tokens) + self.project(self.places(places[None] if self.ranks == 2 else places))


def with_positions(ranks: int) -> keras.Model:
    x = keras.Input((5,), dtype="int32")
    h = kl.Dense(6, activation="relu", name="dense")(Positions(ranks=ranks, name="embed")(x))
    return toys.fill(keras.Model(x, kl.Dense(2, name="head")(kl.GlobalAveragePooling1D()(h))))


@pytest.mark.parametrize("batch_size", [11, 5, 1])
@pytest.mark.parametrize("ranks", [1, 2])
def test_what_is_the_same_for_all_counts_for_each(ranks: int, batch_size: int) -> None:
    """With five positions and batches of five, an axis of 5 is the batch in one tensor and is not in another."""
    model = with_positions(ranks)
    found = profile(model, TOKENS, batch_size=batch_size, verbose=False)
    # Positions 0 to 4 are looked up for each sample, 5 and 6 never.
    np.testing.assert_array_equal(found.layers["embed/places/embeddings"].inputs, [11] * 5 + [0] * 2)
    often = [int(np.sum((row == TOKENS).any(axis=1))) for row in range(9)]
    np.testing.assert_array_equal(found.layers["embed/words/embeddings"].inputs, often)
    table = toys.numpy(model.get_layer("embed").places.embeddings.value)[:5]
    counted = found.layers["embed/project/kernel"]
    assert counted.input_positions == 11 * 5
    covered = np.abs(table) > np.abs(table).mean()  # the criterion for language models
    np.testing.assert_array_equal(counted.inputs, 11 * covered.sum(axis=0))


@keras.saving.register_keras_serializable("tests")
class Windows(kl.Layer):
    """As in Swin: windows of an image go through a layer side by side, on axis 0; or, not `apart`, as positions."""

    def __init__(self, apart: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.apart = apart
        self.inner = kl.Dense(4, activation="relu", name="inner")

    def build(self, shape: Any) -> None:
        self.inner.build((None, 4, 4, shape[-1]))
        self.built = True

    def call(self, x: Any) -> Any:
        if not self.apart:
            return self.inner(ops.reshape(x, (-1, 64, x.shape[-1])))
        h = ops.transpose(ops.reshape(x, (-1, 2, 4, 2, 4, x.shape[-1])), (0, 1, 3, 2, 4, 5))
        h = self.inner(ops.reshape(h, (-1, 4, 4, x.shape[-1])))
        return ops.reshape(h, (-1, 64, 4))


def windowed(apart: bool) -> keras.Model:
    x = keras.Input((8, 8, 3))
    h = Windows(apart, name="windows")(kl.Conv2D(3, 3, padding="same", activation="relu", name="conv")(x))
    return toys.fill(keras.Model(x, kl.Dense(2, name="head")(kl.GlobalAveragePooling1D()(h))))


@pytest.mark.parametrize("criterion", ["nc", "tknc", "snac"])
@pytest.mark.parametrize("batch_size", [11, 4, 1])
@pytest.mark.filterwarnings("ignore:Criterion")
def test_parts_of_a_sample_are_its_positions(batch_size: int, criterion: str) -> None:
    how = {"criterion": criterion, "batch_size": batch_size, "verbose": False}
    one, other = (profile(windowed(apart), IMAGES, **how) for apart in (True, False))
    assert list(one.layers) == list(other.layers) == ["conv/kernel", "windows/inner/kernel"]
    for path, counted in one.layers.items():
        np.testing.assert_array_equal(counted.inputs, other.layers[path].inputs)
        np.testing.assert_array_equal(counted.outputs, other.layers[path].outputs)
        assert counted.output_positions == other.layers[path].output_positions


def test_attacks_by_coverage_see_parts_as_positions() -> None:
    images = np.clip(IMAGES * 40 + 128, 0, 255).astype("uint8")
    made = []
    for apart in (True, False):
        attack = CoverageGuidedAttack(steps=2, criterion="tknc", num_neurons=3)
        prepared = attack.prepare(windowed(apart), space=PIXELS)
        made.append(attack.inputs(prepared, images, np.zeros(11, int), verbose=False).inputs)
    assert np.mean(made[0] == made[1]) > 0.99  # sums in another order


@keras.saving.register_keras_serializable("tests")
class TimeFirst(kl.Layer):
    """Hands its layer time steps on axis 0 and samples on axis 1."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.inner = kl.Dense(4, activation="relu", name="inner")

    def build(self, shape: Any) -> None:
        self.inner.build((shape[1], None, shape[2]))
        self.built = True

    def call(self, x: Any) -> Any:
        return ops.transpose(self.inner(ops.transpose(x, (1, 0, 2))), (1, 0, 2))


def test_what_mixes_samples_is_left_whole_with_the_reason() -> None:
    x = keras.Input((5, 6))
    h = kl.Dense(5, activation="relu", name="last")(TimeFirst(name="turned")(x))
    model = toys.fill(keras.Model(x, kl.Dense(2, name="head")(kl.GlobalAveragePooling1D()(h))))
    data = RNG.normal(size=(5, 5, 6)).astype("float32")
    chosen = RelevantSlicer(model, keep_ratio=0.6).slice(profile(model, data, verbose=False))
    assert list(chosen.masks) == ["last/kernel"]
    assert ("turned/inner", "axis 0 of what it sees is not the batch: samples cannot be told apart") in chosen.skipped


def test_frames_in_the_batch_are_counted_as_time_steps() -> None:
    def build(through: Callable[[Any], Any]) -> keras.Model:
        x = keras.Input((3, 6, 6, 2))
        h = kl.GlobalAveragePooling1D()(kl.Dense(5, activation="relu", name="mix")(through(x)))
        return toys.fill(keras.Model(x, kl.Dense(2, name="head")(h)))

    def folded(x: Any) -> Any:
        h = kl.Conv2D(4, 3, activation="relu", name="conv")(ops.reshape(x, (-1, 6, 6, 2)))
        return ops.reshape(kl.GlobalAveragePooling2D()(h), (-1, 3, 4))

    def distributed(x: Any) -> Any:
        h = kl.TimeDistributed(kl.Conv2D(4, 3, activation="relu", name="conv"), name="outer")(x)
        return kl.TimeDistributed(kl.GlobalAveragePooling2D())(h)

    one, other = (profile(build(through), FRAMES, batch_size=4, verbose=False) for through in (folded, distributed))
    for path, counted in {"conv/kernel": "outer/conv/kernel", "mix/kernel": "mix/kernel"}.items():
        np.testing.assert_array_equal(one.layers[path].outputs, other.layers[counted].outputs)
        assert one.layers[path].output_positions == other.layers[counted].output_positions
