"""LoRA: what is merged is as plain as it looks, and what is not is left whole with the way out."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import toys
from keras import layers as kl

from keras_remos import RelevantSlicer, describe_model
from keras_remos.models.fingerprint import fingerprint
from keras_remos.slicing import student as students

ALPHAS = (None, 8)


def adapted(alpha: int | None = None) -> keras.Model:
    x = keras.Input((6, 5), dtype="float32")
    h = kl.Conv1D(4, 3, activation="relu", name="conv")(x)
    h = kl.EinsumDense("abc,cd->abd", (4, 4), name="einsum")(h)
    h = kl.Dense(4, activation="relu", name="fc")(kl.Dense(4, name="plain")(kl.Flatten()(h)))
    model = toys.fill(keras.Model(x, kl.Dense(3, activation="softmax", name="head")(h)))
    rng = np.random.default_rng(0)
    for name in ("conv", "einsum", "fc"):
        layer = model.get_layer(name)
        layer.enable_lora(2, lora_alpha=alpha)
        layer.lora_kernel_b.assign(rng.normal(size=tuple(layer.lora_kernel_b.shape)))
    return model


def data() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    return rng.normal(size=(6, 6, 5)).astype("float32"), np.arange(6) % 3


def call(model: keras.Model) -> np.ndarray:
    return keras.ops.convert_to_numpy(model(data()[0], training=False))


def merged(model: keras.Model, folder: Path, how: str) -> keras.Model:
    if how == "saved":
        model.save(folder / "merged.keras")
        return keras.models.load_model(folder / "merged.keras")
    model.save_weights(folder / "merged.weights.h5")
    model.load_weights(folder / "merged.weights.h5")
    return model


@pytest.mark.parametrize("how", ["saved", "in memory"])
def test_merged_adapters_leave_plain_layers(how: str, tmp_path: Path) -> None:
    model = adapted()
    expected = call(model)
    model = merged(model, tmp_path, how)
    assert not any("LoRA" in why for _, why in describe_model(model).skipped)
    slicer = RelevantSlicer(model, keep_ratio=0.7)
    chosen = slicer.slice(slicer.profile(data(), verbose=False))
    assert {"conv/kernel", "einsum/kernel", "fc/kernel"} <= set(chosen.masks)
    student = chosen.apply(model, num_classes=4)
    for name in ("conv", "einsum", "fc"):
        layer, mask = student.get_layer(name), chosen.masks[f"{name}/kernel"]
        assert not layer.lora_enabled and not any("lora" in weight.path for weight in layer.weights)
        assert layer.trainable_variables[0].path.endswith("kernel")
        theirs, ours = (keras.ops.convert_to_numpy(found.kernel) for found in (model.get_layer(name), layer))
        np.testing.assert_array_equal(ours, np.where(mask, theirs, 0))
    np.testing.assert_allclose(call(students.build(model, {})), expected, atol=1e-5)
    assert model.get_layer("fc").lora_rank == 2  # the teacher is as it was


def test_an_adapter_that_was_switched_off_is_not_switched_on_again() -> None:
    model = adapted()
    for name in ("conv", "einsum", "fc"):
        layer = model.get_layer(name)
        layer._kernel.assign(layer.kernel)
        layer.lora_enabled = False
    student = students.build(model, {})
    np.testing.assert_allclose(call(student), call(model), atol=1e-5)
    assert not student.get_layer("fc").lora_enabled


@pytest.mark.parametrize("alpha", ALPHAS)
def test_what_is_not_merged_is_left_whole_with_the_way_out(alpha: int | None) -> None:
    model = adapted(alpha)
    reasons = dict(describe_model(model).skipped)
    for name in ("conv", "einsum", "fc"):
        assert "LoRA" in reasons[name] and "merge" in reasons[name] and "model.load_weights(" in reasons[name]
    np.testing.assert_allclose(call(students.build(model, {})), call(model), atol=1e-5)


def test_the_fingerprint_is_of_what_is_in_use(tmp_path: Path) -> None:
    model = merged(adapted(), tmp_path, "in memory")
    assert fingerprint(model) == fingerprint(students.build(model, {}))


def test_a_merged_head_is_replaced(tmp_path: Path) -> None:
    model = adapted()
    model.get_layer("head").enable_lora(2)
    model = merged(model, tmp_path, "saved")
    student = students.build(model, {}, heads=("head",), num_classes=5)
    assert student.output_shape == (None, 5) and not student.get_layer("head").lora_enabled


def without_lora_in_its_config() -> Any:
    @keras.saving.register_keras_serializable("adapters")
    class Block(kl.Layer):
        def __init__(self, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.inner = kl.Dense(4, name="inner")

        def build(self, shape: Any) -> None:
            self.inner.build(shape)

        def call(self, x: Any) -> Any:
            return self.inner(x)

        def compute_output_shape(self, shape: Any) -> Any:
            return (*shape[:-1], 4)

    x = keras.Input((3,))
    return toys.fill(keras.Model(x, kl.Dense(2, name="head")(Block(name="block")(x))))


def test_a_model_that_does_not_describe_its_adapter_says_so(tmp_path: Path) -> None:
    """As the backbones of KerasHub do."""
    model = without_lora_in_its_config()
    model.get_layer("block").inner.enable_lora(2)
    with pytest.raises(students.StudentError, match="'block/inner' is under LoRA.*merge.*load_weights"):
        students.build(model, {})
    merged(model, tmp_path, "in memory")
    students.build(model, {})
