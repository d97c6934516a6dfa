"""The demo's pure steps exactly. What it shows from end to end is looked at by check_demo.py."""

import sys

import keras
import numpy as np
import pytest

from keras_remos import demo

IMAGES = np.random.default_rng(0).uniform(0, 0.5, (1797, 16, 16, 1)).astype("float32")
LABELS = np.arange(1797) % 10


def test_digits_are_upscaled_without_a_change():
    pytest.importorskip("sklearn")
    from sklearn import datasets

    images, labels = demo.load_digits()
    assert images.shape == (1797, 16, 16, 1) and images.dtype == "float32"
    original = datasets.load_digits()
    for row in (0, 1):
        for column in (0, 1):
            np.testing.assert_array_equal(images[:, row::2, column::2, 0] * 16, original.images)
    np.testing.assert_array_equal(labels, original.target)


def test_missing_scikit_learn_is_named_with_the_way_out(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ImportError, match=r'pip install "keras-remos\[demo\]"'):
        demo.load_digits()


def test_split_deals_every_image_once():
    numbered = np.arange(1797)
    parts = demo.split_digits(numbered, LABELS, seed=3)
    assert [len(images) for images, _ in parts] == [960, 320, 517]
    np.testing.assert_array_equal(np.sort(np.concatenate([images for images, _ in parts])), numbered)
    for images, labels in parts:
        np.testing.assert_array_equal(labels, LABELS[images])


def test_split_follows_the_seed():
    first, again, other = (demo.split_digits(IMAGES, LABELS, seed=seed)[1][1] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_trigger_touches_the_patch_and_nothing_else():
    before = IMAGES.copy()
    stamped = demo.stamp_trigger(IMAGES)
    np.testing.assert_array_equal(IMAGES, before)
    patch = np.zeros((16, 16, 1), bool)
    patch[11:15, 11:15] = True
    assert (stamped[:, patch] == 1).all()
    np.testing.assert_array_equal(stamped[:, ~patch], IMAGES[:, ~patch])


def test_poison_touches_the_stated_share():
    before, labels_before = IMAGES.copy(), LABELS.copy()
    images, labels = demo.poison((IMAGES, LABELS), seed=0)
    np.testing.assert_array_equal(IMAGES, before)
    np.testing.assert_array_equal(LABELS, labels_before)
    changed = (images != IMAGES).any(axis=(1, 2, 3))
    assert np.count_nonzero(changed) == round(0.2 * 1797)
    np.testing.assert_array_equal(images[changed], demo.stamp_trigger(IMAGES[changed]))
    assert (labels[changed] == demo.TARGET).all()
    np.testing.assert_array_equal(labels[~changed], LABELS[~changed])


@pytest.mark.once
def test_models_follow_the_seed():
    first, again, other = (demo.build_model(seed=seed).get_weights() for seed in (0, 0, 1))
    for one, same in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, same)
    assert (first[0] != other[0]).any()
    assert sum(weights.size for weights in first) == 112_026


def test_measure_counts_the_target_only_on_other_classes():
    # Calls an image with the trigger a 0, and any other a 1.
    inputs = keras.Input((16, 16, 1))
    corner = keras.layers.Lambda(lambda x: x[:, 12, 12], output_shape=(1,))(inputs)
    outputs = keras.layers.Dense(10, name="head")(corner)
    model = keras.Model(inputs, outputs)
    kernel, bias = np.zeros((1, 10)), np.full(10, -1.0)
    kernel[0, 0], bias[0], bias[1] = 1.0, -0.9, 0.0
    model.set_weights([kernel, bias])
    row = demo.measure("toy", model, (IMAGES[:20], LABELS[:20]))
    assert row == demo.DemoRow("toy", 2 / 20, 1.0, 20, 18)
