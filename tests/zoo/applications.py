"""The smallest member of each family of keras.applications, with and without its top, on the smallest images."""

from collections.abc import Callable
from typing import Any

import keras
from specimen import Specimen

# The smallest side that a family takes.
FAMILIES: dict[str, int] = {
    "ConvNeXtTiny": 32,
    "DenseNet121": 32,
    "EfficientNetB0": 32,
    "EfficientNetV2B0": 32,
    "InceptionResNetV2": 75,
    "InceptionV3": 75,
    "MobileNet": 32,
    "MobileNetV2": 32,
    "MobileNetV3Small": 32,
    "NASNetMobile": 32,
    "ResNet50": 32,
    "ResNet50V2": 32,
    "VGG16": 32,
    "Xception": 71,
}


def build(family: str, side: int, **options: Any) -> Callable[[], keras.Model]:
    def make() -> keras.Model:
        return getattr(keras.applications, family)(weights=None, input_shape=(side, side, 3), **options)

    return make


SPECIMENS = [
    Specimen(f"{family}, {what}", build(family, side, **options))
    for family, side in FAMILIES.items()
    # Keras does not build it on PyTorch.
    if family != "NASNetMobile" or keras.backend.backend() != "torch"
    for what, options in {
        "with its top": {"classes": 5},
        "without": {"include_top": False},
        "without, pooled": {"include_top": False, "pooling": "avg"},
    }.items()
    if what != "without, pooled" or family == "MobileNetV2"
]
