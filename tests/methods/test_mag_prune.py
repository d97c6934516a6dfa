"""Mag-prune: exactly the share that was asked for goes, the smallest first, and stays away while the rest trains."""

from typing import Any

import keras
import numpy as np
import pytest
import toys
from tiny import RECIPE, make, teacher

from keras_remos import RemosError
from keras_remos.methods import Recipe
from keras_remos.methods.mag_prune import smallest

CONVOLUTIONS = ["conv1", "conv2"]


def kernels(model: keras.Model, names: list[str]) -> dict[str, np.ndarray]:
    return {f"{name}/kernel": toys.numpy(model.get_layer(name).kernel.value) for name in names}


@pytest.mark.parametrize("ratio", [0.0, 0.3, 0.8, 0.99])
def test_the_smallest_weights_go(ratio: float) -> None:
    model = teacher()
    weights = kernels(model, CONVOLUTIONS)
    magnitudes = np.sort(np.abs(np.concatenate([w.ravel() for w in weights.values()])))
    count = round(ratio * magnitudes.size)
    masks = smallest(model, ratio, scope="model", layers="convolutions", without=["head"])
    assert set(masks) == set(weights)
    gone = np.concatenate([np.abs(weights[path][~mask]) for path, mask in masks.items()])
    np.testing.assert_array_equal(np.sort(gone), magnitudes[:count])
    per_layer = smallest(model, ratio, scope="layer", layers="convolutions", without=["head"])
    for path, mask in per_layer.items():
        assert np.count_nonzero(~mask) == round(ratio * mask.size)
        assert np.abs(weights[path][~mask]).max(initial=0) <= np.abs(weights[path][mask]).min()


def test_of_equal_weights_the_first_go() -> None:
    model = teacher()
    model.get_layer("conv1").kernel.assign(np.ones((3, 3, 3, 4)))
    mask = smallest(model, 0.25, scope="layer", layers="convolutions", without=[])["conv1/kernel"]
    np.testing.assert_array_equal(np.flatnonzero(~mask), np.arange(27))


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({}, CONVOLUTIONS),
        ({"scope": "layer", "when": "after", "prune_ratio": 0.5}, CONVOLUTIONS),
    ],
)
def test_pruned_weights_are_zero_all_along(options: dict[str, Any], names: list[str]) -> None:
    zeros: list[int] = []

    class Watch(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            weights = kernels(self.model.student, CONVOLUTIONS)
            zeros.append(sum(np.count_nonzero(w == 0) for w in weights.values()))

    trained = make("mag-prune", callbacks=[Watch()], **options)
    found = kernels(trained.student, names)
    ratio = options.get("prune_ratio", 0.8)
    if options.get("scope") == "layer":
        expected = sum(round(ratio * w.size) for w in found.values())
        assert zeros == [0, expected]  # pruned after the first half
    else:
        expected = round(ratio * sum(w.size for w in found.values()))
        assert zeros == [expected, expected]
    assert sum(np.count_nonzero(w == 0) for w in found.values()) == expected
    assert np.count_nonzero(toys.numpy(trained.student.get_layer("head").kernel.value)) == 18


def test_all_layers_means_dense_ones_too_but_never_the_head() -> None:
    model, _, _ = toys.make("mlp")
    masks = smallest(model, 0.5, scope="model", layers="all", without=["head"])
    assert list(masks) == ["first/kernel", "second/kernel"]
    with pytest.raises(RemosError, match="layers='all'"):
        smallest(model, 0.5, scope="model", layers="convolutions", without=["head"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prune_ratio": 1.0}, "`prune_ratio` must be"),
        ({"scope": "channel"}, "`scope` must be"),
        ({"layers": "dense"}, "`layers` must be"),
        ({"when": "later"}, "`when` must be"),
        ({"when": "after", "recipe": Recipe(epochs=1)}, "at least two epochs"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(RemosError, match=message):
        make("mag-prune", **options)
    assert RECIPE.epochs == 2
