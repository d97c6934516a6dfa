"""How many images a second come from a folder of JPEGs: ours beside tf.data and PyTorch's DataLoader.

    python tests/benchmarks/bench_loading.py [--images 1000] [--rounds 3] [--folder FOLDER] [--json]

All read the same files at 224 x 224 into float batches of 32, in turns in one process, two workers each (tf.data: as
many threads as it likes); medians are compared. The files are made here unless a folder with a sub-folder a class is
given: 500 x 500, with the spectrum of photographs and about their size. Run it on an idle machine.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from PIL import Image

import keras_remos as kr

SIDE, BATCH, WORKERS = 224, 32, 2
RNG = np.random.default_rng(0)


def photograph(side: int = 500) -> Image.Image:
    """Noise with the spectrum of photographs, its channels much alike."""
    rows, columns = np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None]
    strength = 1 / np.maximum(np.hypot(rows, columns), 1 / side) ** 1.2

    def noise() -> Any:
        drawn = np.fft.irfft2(strength * np.exp(2j * np.pi * RNG.random(strength.shape)), s=(side, side))
        return drawn / drawn.std()

    grey = noise()
    return Image.fromarray(
        np.stack([128 + 50 * grey + 15 * noise() for _ in range(3)], axis=-1).clip(0, 255).astype(np.uint8)
    )


def make(folder: Path, count: int) -> None:
    for number in range(count):
        file = folder / "ab"[number % 2] / f"{number}.jpg"
        file.parent.mkdir(exist_ok=True)
        photograph().save(file, quality=90)


class Files(torch.utils.data.Dataset):
    """As PyTorch's users write it."""

    def __init__(self, folder: Path) -> None:
        self.files = sorted(folder.glob("*/*.jpg"))

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Any:
        with Image.open(self.files[index]) as opened:
            pixels = opened.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR)
        return torch.from_numpy(np.array(pixels)).float()


def of_tf_data(folder: Path) -> Any:
    import keras
    import tensorflow as tf

    found = keras.utils.image_dataset_from_directory(folder, image_size=(SIDE, SIDE), batch_size=BATCH, verbose=False)
    return found.map(lambda x, y: x).prefetch(tf.data.AUTOTUNE)


def of_torch(folder: Path) -> Any:
    return torch.utils.data.DataLoader(Files(folder), batch_size=BATCH, num_workers=WORKERS)


def ours(folder: Path, **options: Any) -> Any:
    return (x for x, _ in kr.open_dataset(folder, image_size=(SIDE, SIDE), batch_size=BATCH, **options))


def per_second(batches: Any) -> float:
    start = time.perf_counter()
    count = sum(len(x) for x in batches)
    return count / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        if arguments.folder is None:
            make(folder, arguments.images)
        once: dict[str, Any] = {"cache": "none", "workers": WORKERS}
        readers: dict[str, Callable[[], Any]] = {
            "ours": lambda: ours(folder, **once),
            "ours, one worker": lambda: ours(folder, **(once | {"workers": 1})),
            "ours, OpenCV": lambda: ours(folder, decoding="opencv", **once),
            "ours, full decoding": lambda: ours(folder, decoding="full", **once),
            "tf.data": lambda: of_tf_data(folder),
            "DataLoader": lambda: of_torch(folder),
        }
        found: dict[str, list[float]] = {name: [] for name in readers}
        for _ in range(arguments.rounds):
            for name, reader in readers.items():
                found[name].append(per_second(reader()))
        size = median(file.stat().st_size for file in folder.glob("*/*.jpg"))
    medians = {name: median(values) for name, values in found.items()}
    if arguments.json:
        print(json.dumps({"bytes": size, "images_per_second": found}, indent=2))
        return
    print(f"Files of {size / 1000:.0f} KB, medians of {arguments.rounds} rounds:")
    for name, value in medians.items():
        print(f"{name:<20} {value:7.0f} images a second, ours is {medians['ours'] / value:5.2f} times that", flush=True)


if __name__ == "__main__":
    main()
