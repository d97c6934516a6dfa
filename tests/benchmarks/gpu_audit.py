"""How long a whole audit takes, from a cold start: a ResNet-18 at 32 px on 4,000 test images.

    KERAS_BACKEND=jax python tests/benchmarks/gpu_audit.py [--images 4000] [--json]

A fine-tuned control of 30 epochs, the penultimate attack, two coverage-guided ones, and two students tried on all of
them, compilation included. To be reached on a GPU: under 60 seconds. What a model has learned changes nothing in the
time, so weights and images are random. Run it on an idle GPU. `nox -s benchmarks` leaves it out: it is too much for a
processor.
"""

import argparse
import json
import time

import keras
import numpy as np
from keras import layers

import keras_remos as kr
from keras_remos.evaluation import audit

CLASSES = 10


def resnet18() -> keras.Model:
    """With a stem for small images (He et al.): 11 million weights."""
    inputs = keras.Input((32, 32, 3))
    x = convolution(inputs, 64, 3)
    x = layers.ReLU()(x)
    for stage, filters in enumerate((64, 128, 256, 512)):
        for block in range(2):
            stride = 2 if stage and not block else 1
            shortcut = convolution(x, filters, 1, stride) if stride == 2 else x
            x = layers.ReLU()(convolution(x, filters, 3, stride))
            x = layers.ReLU()(layers.Add()([convolution(x, filters, 3), shortcut]))
    outputs = layers.Dense(CLASSES)(layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, outputs, name="resnet18")


def convolution(x: keras.KerasTensor, filters: int, size: int, stride: int = 1) -> keras.KerasTensor:
    x = layers.Conv2D(filters, size, stride, padding="same", use_bias=False)(x)
    return layers.BatchNormalization()(x)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=4000, help="to train the control on, and as many to test")
    parser.add_argument("--batch-size", type=int, default=64, help="of the attacks")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (2 * given.images, 32, 32, 3), dtype=np.uint8)
    y = rng.integers(0, CLASSES, len(x)).astype(np.int32)
    y[:CLASSES] = y[-CLASSES:] = np.arange(CLASSES)
    teacher, student = resnet18(), resnet18()
    start = time.perf_counter()
    report = audit(
        teacher,
        {"student": student},
        (x[given.images :], y[given.images :]),
        train=(x[: given.images], y[: given.images]),
        space=kr.PixelSpace("imagenet"),
        batch_size=given.batch_size,
        verbose=False,
    )
    seconds = time.perf_counter() - start
    row = {
        "backend": keras.backend.backend(),
        "images": given.images,
        "batch_size": given.batch_size,
        "attacks": list(report.attacks),
        "seconds": round(seconds, 1),
    }
    print(json.dumps(row) if given.json else "\n".join(f"{name}: {value}" for name, value in row.items()))


if __name__ == "__main__":
    main()
