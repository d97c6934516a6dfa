"""Memory does not grow with the test set: an attack is made, saved, read and tried on a student, batch by batch."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers as kl

import keras_remos as kr
from keras_remos.data.datasets import Dataset
from keras_remos.data.samples import OfDataset, read_samples
from keras_remos.evaluation import measure
from keras_remos.untrusted import Rows, rows

STATUS = Path("/proc/self/status")
pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(not STATUS.exists(), reason="only Linux says how much memory is resident"),
]
SPACE = kr.PixelSpace("0-1")
SIDE = 32
# What all images of the larger set are, as float32: nothing of their size may be in memory, not even in 8 bits.
MB_OF_ALL = 4_000 * SIDE * SIDE * 3 * 4 / 2**20


class MadeUp:
    """Images that are drawn when they are read, so that they take no memory by themselves."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.skipped: dict[str, str] = {}

    def __len__(self) -> int:
        return self.count

    def read(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        ramp = np.arange(SIDE * SIDE * 3).reshape(SIDE, SIDE, 3)
        return ((ramp + 7 * indices[:, None, None, None]) % 200).astype(np.float32), indices

    def expect(self, indices: np.ndarray) -> None:
        """There is nothing to read ahead."""

    def digest(self, indices: np.ndarray) -> bytes:
        return indices.tobytes()


def resident(what: str) -> float:
    """In MB: `VmRSS` is now, `VmHWM` the most that there was."""
    return next(int(line.split()[1]) / 1024 for line in STATUS.read_text().splitlines() if line.startswith(what))


def peak(count: int, file: Path, model: keras.Model) -> float:
    """How much memory it takes, in MB."""
    dataset = Dataset(
        MadeUp(count), np.arange(count, dtype=np.int32) % 3, kind="image", class_names="abc", batch_size=64
    )
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    x, y = read_samples(dataset, SPACE)
    attack = kr.TransferFGSM(epsilon=4)
    how: dict[str, Any] = {"batch_size": 64, "verbose": False}
    made = attack.inputs(attack.prepare(model, space=SPACE), x, y, resume=file.with_suffix(".part"), **how)
    made.save(file)
    read = kr.AttackSet.load(file)
    assert isinstance(x, OfDataset) and isinstance(read.inputs.rows, Rows) == (count > 100)
    assert len(read) == count and read.bits == 8
    report = measure({"student": (model, SPACE)}, x, y, {"fgsm": read}, teacher=(model, SPACE), **how)
    assert report.inherited[0].rate.total > 0 and read.describe()["largest_change"] == 4
    assert [path.name for path in file.parent.iterdir()] == [file.name]
    return resident("VmHWM") - before


def test_ten_times_as_many_images_take_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("IN_MEMORY", "PIECE"):
        monkeypatch.setattr(rows, name, 2**20)
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [keras.Input((SIDE, SIDE, 3)), kl.Conv2D(4, 8, strides=8, activation="relu"), kl.Flatten(), kl.Dense(3)]
    )
    taken = {}
    for count in (100, 400, 4_000):  # the first brings in all that is imported and compiled
        (tmp_path / str(count)).mkdir()
        taken[count] = peak(count, tmp_path / str(count) / "attack.npz", model)
    assert taken[4_000] - taken[400] < MB_OF_ALL / 5, taken
