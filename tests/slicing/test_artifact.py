"""Preset "artifact" against the released code's rule, written out again, on a ResNet-18: the same mask, bit for bit."""

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers as kl

from keras_remos import RelevantSlicer

KEEP_RATIO = 0.9
SEED = 37  # of the images: chosen so that no mean is within 1e-5 of the threshold
CONVOLUTIONS = [
    "conv1",
    *(f"layer{stage}_{block}_conv{i}" for stage in (1, 2, 3, 4) for block in (0, 1) for i in (1, 2)),
    *(f"layer{stage}_0_downsample" for stage in (2, 3, 4)),
]


def build_resnet18() -> keras.Model:
    """As torchvision builds it, with weights that keep activations near one."""
    rng = np.random.default_rng(0)

    def conv(x: Any, filters: int, size: int, strides: int, name: str) -> Any:
        h = kl.Conv2D(filters, size, strides, padding="same", use_bias=False, name=name)(x)
        return kl.BatchNormalization(epsilon=1e-5, name=f"{name}_bn")(h)

    x = keras.Input((32, 32, 3))
    h = kl.MaxPooling2D(3, 2, padding="same")(kl.ReLU()(conv(x, 64, 7, 2, "conv1")))
    for stage, filters in enumerate((64, 128, 256, 512), start=1):
        for block in (0, 1):
            strides = 2 if stage > 1 and block == 0 else 1
            name = f"layer{stage}_{block}"
            y = kl.ReLU()(conv(h, filters, 3, strides, f"{name}_conv1"))
            y = conv(y, filters, 3, 1, f"{name}_conv2")
            shortcut = conv(h, filters, 1, strides, f"{name}_downsample") if strides == 2 else h
            h = kl.ReLU()(kl.Add()([y, shortcut]))
    model = keras.Model(x, kl.Dense(10, name="fc")(kl.GlobalAveragePooling2D()(h)), name="resnet18")
    for variable in model.variables:
        if variable.name == "kernel":
            scale = (2 / np.prod(variable.shape[:-1])) ** 0.5
            variable.assign(rng.normal(0, scale, variable.shape).astype("float32"))
        elif variable.name in ("gamma", "moving_variance"):
            variable.assign(rng.uniform(0.5, 1.5, variable.shape).astype("float32"))
        else:
            variable.assign(rng.normal(0, 0.1, variable.shape).astype("float32"))
    return model


def order_of_calls(model: keras.Model, x: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """In which order the convolutions run, watched on their class."""
    called: list[str] = []
    call = kl.Conv2D.call

    def watched(self: Any, *args: Any, **kwargs: Any) -> Any:
        called.append(self.name)
        return call(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(kl.Conv2D, "call", watched)
        model(x[:1], training=False)
    return called


def coverage(tensor: np.ndarray) -> np.ndarray:
    """In how many images each channel's mean, scaled by the tensor's range, exceeds one half."""
    counts = np.zeros(tensor.shape[-1], np.int64)
    for image in tensor.astype(np.float64):
        means = ((image - image.min()) / (image.max() - image.min())).mean(axis=(0, 1))
        assert np.abs(means - 0.5).min() > 1e-5, "too close to call in float32: choose another seed"
        counts += means > 0.5
    return counts


@pytest.mark.once
@pytest.mark.slow
def test_the_artifact_preset_is_the_released_code_bit_for_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build_resnet18()
    x = np.random.default_rng(SEED).normal(size=(2, 32, 32, 3)).astype("float32")
    names = order_of_calls(model, x, monkeypatch)
    assert sorted(names) == sorted(CONVOLUTIONS)
    layers = [model.get_layer(name) for name in names]
    seen = keras.Model(model.inputs, [t for layer in layers for t in (layer.input, layer.output)]).predict(x, verbose=0)
    inputs, outputs = [coverage(t) for t in seen[::2]], [coverage(t) for t in seen[1::2]]

    slicer = RelevantSlicer(model, preset="artifact", keep_ratio=KEEP_RATIO)
    profile = slicer.profile(x, batch_size=2)
    assert list(profile.layers) == [f"{name}/kernel" for name in names]
    for name, read, written in zip(names, inputs, outputs, strict=True):
        np.testing.assert_array_equal(profile.layers[f"{name}/kernel"].inputs, read, err_msg=name)
        np.testing.assert_array_equal(profile.layers[f"{name}/kernel"].outputs, written, err_msg=name)

    kernels = [np.asarray(keras.ops.convert_to_numpy(layer.kernel)) for layer in layers]
    # The released code's order: convolution by convolution, input by input, output by output, tap by tap.
    magnitude = np.concatenate([np.abs(kernel.transpose(2, 3, 0, 1)).ravel() for kernel in kernels])
    n = magnitude.size
    assert n == 11_166_912
    rank_of_magnitude = np.empty(n, np.int64)
    rank_of_magnitude[np.argsort(magnitude, kind="stable")] = np.arange(n)

    pairs = []  # coverage, how many taps, where its weights begin
    start = 0
    for kernel, read, written in zip(kernels, inputs, outputs, strict=True):
        taps = kernel.shape[0] * kernel.shape[1]
        for i in read.tolist():
            for o in written.tolist():
                pairs.append((i + o, taps, start))
                start += taps
    rank_of_coverage = np.empty(n, np.int64)
    counter = 0
    for _, taps, start in sorted(pairs, key=lambda pair: pair[0]):
        rank_of_coverage[start : start + taps] = counter
        counter += taps

    scores = rank_of_coverage - rank_of_magnitude
    threshold = np.sort(scores)[int(n * 0.1)]
    kept = scores > threshold

    made = slicer.slice(profile)
    assert made.total == n
    assert made.kept == int(kept.sum())
    assert abs(made.kept - (n - int(n * 0.1) - 1)) < 1000  # but for ties at the threshold
    start = 0
    for name, kernel in zip(names, kernels, strict=True):
        h, w, i, o = kernel.shape
        expected = kept[start : start + kernel.size].reshape(i, o, h, w).transpose(2, 3, 0, 1)
        start += kernel.size
        np.testing.assert_array_equal(made.masks[f"{name}/kernel"], expected, err_msg=name)
