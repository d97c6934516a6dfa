"""One profile file gives one slice file, byte for byte, on every backend; so do inputs of exact arithmetic."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

BACKENDS = [name for name in ("tensorflow", "torch", "jax") if importlib.util.find_spec(name)]

pytestmark = [
    pytest.mark.skipif(len(BACKENDS) < 2, reason=f"parity takes two backends, installed: {BACKENDS}"),
    pytest.mark.slow,
]

# Weights and inputs are small whole numbers: every sum is exact in float32, in whatever order a backend adds.
MAKE = """
import sys
import keras, numpy as np
from keras import layers as kl

folder = sys.argv[1]
rng = np.random.default_rng(0)

def whole(model):
    for variable in model.variables:
        if "float" in str(variable.dtype):
            variable.assign(rng.integers(-2, 3, variable.shape).astype("float32"))
    return model

x = keras.Input((8, 8, 3))
h = s = kl.Conv2D(4, 3, padding="same", activation="relu", name="conv1")(x)
h = kl.ReLU()(kl.Add()([kl.Conv2D(4, 3, padding="same", name="conv2")(h), s]))
h = kl.GlobalMaxPooling2D()(kl.DepthwiseConv2D(3, name="depthwise")(h))
whole(keras.Model(x, kl.Dense(3, name="head")(h), name="image")).save(f"{folder}/image.keras")
x = keras.Input((8,), dtype="int32")
h = kl.Embedding(11, 4, mask_zero=True, name="table")(x)
h = kl.EinsumDense("abc,cde->abde", (None, 2, 3), name="heads")(h)
h = kl.Dense(5, activation="relu", name="dense")(h)
h = kl.Flatten()(kl.Conv1D(4, 3, name="conv")(kl.Reshape((8, 10))(h)))
whole(keras.Model(x, kl.Dense(2, name="head")(h), name="text")).save(f"{folder}/text.keras")
tokens = rng.integers(1, 11, (6, 8), dtype="int32")
tokens[np.arange(8) >= np.array([8, 4, 2, 8, 4, 1])[:, None]] = 0
np.savez(f"{folder}/data.npz", image=rng.integers(-3, 4, (6, 8, 8, 3)).astype("float32"), text=tokens)
"""

PROFILE = """
import sys
import keras, numpy as np
from keras_remos import CoverageProfile, RelevantSlicer, load_teacher

folder, backend, first = sys.argv[1:]
assert keras.backend.backend() == backend
data = np.load(f"{folder}/data.npz")
for name in ("image", "text"):
    model = load_teacher(f"{folder}/{name}.keras")
    for preset in ("recommended", "paper", "artifact"):
        slicer = RelevantSlicer(model, preset=preset, keep_ratio=0.7)
        slicer.profile(data[name], batch_size=4).save(f"{folder}/{name}.{preset}.{backend}.profile.npz")
        made = slicer.slice(CoverageProfile.load(f"{folder}/{name}.{preset}.{first}.profile.npz"))
        made.save(f"{folder}/{name}.{preset}.{backend}.slice.npz")
"""


def run(code: str, backend: str, *arguments: str) -> None:
    # XLA may optimize here, whatever the other tests tell it.
    environment = {**os.environ, "KERAS_BACKEND": backend, "JAX_DISABLE_MOST_OPTIMIZATIONS": "0"}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_one_profile_gives_one_slice_and_exact_arithmetic_one_profile(tmp_path: Path) -> None:
    """Every backend profiles; the first one's profiles are sliced by all."""
    first = BACKENDS[0]
    run(MAKE, first, str(tmp_path))
    for backend in BACKENDS:
        run(PROFILE, backend, str(tmp_path), backend, first)
    for what in ("profile", "slice"):
        made = {backend: sorted(tmp_path.glob(f"*.{backend}.{what}.npz")) for backend in BACKENDS}
        assert [len(files) for files in made.values()] == [6] * len(BACKENDS)
        for files in zip(*made.values(), strict=True):
            assert len({path.read_bytes() for path in files}) == 1, files
