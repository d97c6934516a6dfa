"""Opens a data set on disk in the form that a model takes: image size, channels, input scaling, text or not."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from keras_remos.data.datasets import MAX_QUEUE_SIZE, Dataset, Split
from keras_remos.data.from_disk import open_dataset
from keras_remos.data.images import Decoding
from keras_remos.data.kept import Cache
from keras_remos.data.pixels import PREPROCESSOR, PixelSpace
from keras_remos.data.samples import AnySamples, read_samples
from keras_remos.data.scaling import SCALINGS, choose_scaling
from keras_remos.errors import DataError
from keras_remos.models.inputs import image_shape, takes_strings
from keras_remos.models.layers import visible
from keras_remos.models.trace import trace_pass

SAMPLES_FOR_SCALING = 64


@dataclass(frozen=True)
class MatchedDataset:
    """A data set, ready for a model.

    Args:
        dataset: Gives batches in the form that the model takes.
        scaling: How inputs were scaled: one of `SCALINGS`, or `"preprocessor"` where the model brings its own.
        reason: Why this scaling, as a sentence.
        pixels: The same data set before it was scaled: what attacks are made of.
        space: How the model's inputs come from these pixels.
        image_size: `(height, width)` of the images; `None` for other data.
    """

    dataset: Dataset
    scaling: str
    reason: str
    pixels: Dataset
    space: PixelSpace
    image_size: tuple[int, int] | None = None

    def samples(self, limit: int | None = None) -> tuple[AnySamples, np.ndarray]:
        """What attacks are made of and students are measured on: samples, and their classes.

        Args:
            limit: How many at most.

        Returns:
            `(x, y)`: pixels that are read when they are asked for, or all texts; and class ids, int32.

        Raises:
            DataError: If nothing can be read, there are no labels, or a sample has several inputs.
        """
        return read_samples(self.pixels, self.space, limit=limit)


def open_for_model(
    model: keras.Model,
    path: str | os.PathLike[str],
    *,
    split: Split | None = None,
    scaling: str | None = None,
    image_size: tuple[int, int] | None = None,
    pixel_range: tuple[float, float] | None = None,
    batch_size: int = 32,
    text_column: str | None = None,
    pair_column: str | None = None,
    label_column: str | None = None,
    path_column: str | None = None,
    class_names: Sequence[str] | None = None,
    strict: bool = False,
    workers: int | None = None,
    max_queue_size: int = MAX_QUEUE_SIZE,
    cache: Cache = "auto",
    decoding: Decoding = "reduced",
) -> MatchedDataset:
    """Opens a data set on disk for a model.

    Args:
        model: The model that is to read it.
        path: See `open_dataset`.
        split: See `open_dataset`.
        scaling: How images are scaled; `None` finds out: from the model's preprocessor, its batch normalization
            statistics, its layers or its name.
        image_size: `(height, width)`; taken from the model where that fixes it.
        pixel_range: The smallest and the largest value that a pixel may have; `None` takes 0 to 1 for data that do
            not leave it, 0 to 255 for others.
        batch_size: Samples a batch.
        text_column: See `open_dataset`, as for the others.
        pair_column: A second text.
        label_column: The labels.
        path_column: Image files, in a table.
        class_names: See `open_dataset`.
        strict: Refuse damaged images instead of leaving them out.
        workers: How many threads read images at a time.
        max_queue_size: How many batches of images are read ahead.
        cache: Where decoded images are kept.
        decoding: Whether large JPEGs are decoded at a part of their size.

    Raises:
        DataError: If the data set cannot be read or does not fit the model.
    """
    if scaling is not None and scaling not in SCALINGS:
        raise DataError(f"Unknown scaling {scaling!r}: expected one of {', '.join(SCALINGS)}.")
    shape, data_format = image_shape(model)
    size = image_size or (None if shape is None else _fixed_size(shape))
    if image_size is not None and shape is not None and _fixed_size(shape) is None:
        _check_size(model, (*image_size, shape[2]), data_format)
    # Arrays may be stored either way then: they are checked below.
    either_way = shape is not None and data_format == "channels_first" and Path(path).suffix.lower() == ".npz"
    dataset = open_dataset(
        path,
        split=split,
        image_size=None if either_way else size,
        channels=None if shape is None or either_way else shape[2],
        pixel_range=pixel_range,
        batch_size=batch_size,
        text_column=text_column,
        pair_column=pair_column,
        label_column=label_column,
        path_column=path_column,
        class_names=class_names,
        strict=strict,
        workers=workers,
        max_queue_size=max_queue_size,
        cache=cache,
        decoding=decoding,
    )
    if dataset.kind == "text" and takes_strings(model):
        if len(model.inputs) == 1 and len(model.inputs[0].shape) == 2:
            dataset = dataset.map(lambda x: x[:, np.newaxis])
        return MatchedDataset(dataset, "none", "The model reads strings itself.", dataset, _space("none", None, None))
    if dataset.kind == "text":
        if getattr(model, "preprocessor", None) is None:
            raise DataError(
                f"{path} holds text, but model {model.name!r} brings no tokenizer. Use a KerasHub text classifier, or "
                "tokenize the text and give the arrays as .npz."
            )
        if pair_column is not None:
            # To a KerasHub preprocessor a list is a batch of texts, and a tuple the two texts of a pair.
            dataset = dataset.map(tuple)
        space = PixelSpace(PREPROCESSOR)
        return MatchedDataset(dataset, space.scaling, "The model brings its own tokenizer.", dataset, space)
    if shape is None:
        return MatchedDataset(dataset, "none", "The model takes no images.", dataset, _space("none", None, None))
    if either_way:
        dataset = _channels_in_front(dataset, shape[2], size or shape[:2], path)
    elif data_format == "channels_first":
        dataset = dataset.map(lambda x: np.moveaxis(x, -1, 1))
    samples = _some_samples(dataset)
    reason = "As asked for."
    if scaling is None and getattr(model, "preprocessor", None) is not None:
        scaling, reason = PREPROCESSOR, "The model brings its own preprocessor."
    elif scaling is None:
        scaling, reason = choose_scaling(model, samples, data_format=data_format)
    space = _space(scaling, pixel_range, samples, data_format)
    scaled = dataset if scaling == PREPROCESSOR else dataset.scaled(space)
    sides = samples.shape[1:3] if data_format == "channels_last" else samples.shape[2:4]
    return MatchedDataset(scaled, scaling, reason, dataset, space, image_size=(int(sides[0]), int(sides[1])))


def _channels_in_front(
    dataset: Dataset, channels: int | None, size: tuple[int | None, int | None], path: str | os.PathLike[str]
) -> Dataset:
    """Arrays as a model takes them that has its channels in front: stored so, or with channels last, or grey."""
    given = keras.utils.unpack_x_y_sample_weight(dataset[0])[0].shape[1:]

    def fits(*expected: int | None) -> bool:
        return len(given) == len(expected) and all(e in (None, g) for e, g in zip(expected, given, strict=True))

    if fits(channels, *size):
        return dataset.map(lambda x: np.asarray(x, np.float32))
    if fits(*size, channels):
        return dataset.map(lambda x: np.moveaxis(np.asarray(x, np.float32), -1, 1))
    if channels == 1 and fits(*size):
        return dataset.map(lambda x: np.asarray(x, np.float32)[:, np.newaxis])
    raise DataError(
        f"Expected samples of shape {(channels, *size)} in {path}, as the model takes them, or {(*size, channels)}. "
        f"Received: {given}. Resize the images, or give them as a folder: those are resized here."
    )


def _space(
    scaling: str,
    pixel_range: tuple[float, float] | None,
    samples: np.ndarray | None,
    data_format: str = "channels_last",
) -> PixelSpace:
    if pixel_range is None:
        within_one = samples is not None and float(samples.min()) >= 0 and float(samples.max()) <= 1
        pixel_range = (0.0, 1.0) if within_one else (0.0, 255.0)
    return PixelSpace(scaling, *pixel_range, data_format=data_format)


def _check_size(model: keras.Model, shape: tuple[int, int, int | None], data_format: str) -> None:
    """Makes sure that a model of free size takes images of one: they may be too small to be shrunk so often."""
    height, width, channels = shape
    sides = (channels, height, width) if data_format == "channels_first" else shape
    too_small = DataError(
        f"Model {model.name!r} takes no images of {height} x {width} pixels. Choose another `image_size`."
    )
    layers = [layer for _, layer in visible(model) if not isinstance(layer, keras.Model)]
    try:
        seen = trace_pass(model, layers, keras.KerasTensor((1, *sides), model.inputs[0].dtype))
    except Exception as error:
        raise too_small from error
    # Keras 3.13 lets a map shrink to nothing.
    if any(0 in call.outputs.shape for call in seen.calls):
        raise too_small


def _fixed_size(shape: tuple[int | None, int | None, int | None]) -> tuple[int, int] | None:
    height, width, _ = shape
    return None if height is None or width is None else (height, width)


def _some_samples(dataset: Dataset) -> np.ndarray:
    taken: list[np.ndarray] = []
    for batch in dataset:
        taken.append(keras.utils.unpack_x_y_sample_weight(batch)[0])
        if sum(map(len, taken)) >= SAMPLES_FOR_SCALING:
            break
    return np.concatenate(taken)[:SAMPLES_FOR_SCALING]
