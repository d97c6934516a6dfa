"""The classes that models say for images or texts, several models in one pass over the data."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_remos.data.pixels import PixelSpace
from keras_remos.data.samples import AnySamples
from keras_remos.data.texts import holds_text
from keras_remos.errors import DataError, RemosError
from keras_remos.models.gradients import compiled, is_out_of_memory
from keras_remos.models.kernels import Tensor
from keras_remos.models.layers import symbolic_inputs, symbolic_outputs
from keras_remos.models.text_models import TextClassifier
from keras_remos.models.tokenizers import reads_text
from keras_remos.progress import track

NOT_FINITE = -1


def predict_classes(
    model: keras.Model, x: AnySamples, space: PixelSpace, *, batch_size: int = 64, verbose: bool | str = False
) -> np.ndarray:
    """The class that a model says for each image or text.

    Args:
        model: A classifier; whether it returns logits or probabilities makes no difference.
        x: Pixels, shape `(n, ...)`, as an array or `Samples`; or texts, strings of shape `(n,)`, pairs `(n, 2)`.
        space: How the model's inputs come from pixels; for texts `PixelSpace("preprocessor")`.
        batch_size: Samples at a time.
        verbose: Progress on stderr: `True`, `False`, or `"auto"` for terminals and notebooks only.

    Returns:
        Class ids, int64 of shape `(n,)`.

    Raises:
        DataError: If the images or texts do not fit the model.
        RemosError: If the model is no classifier, or returns NaN.

    Example:
    ```python
    clean = predict_classes(student, images, PixelSpace("imagenet"))
    accuracy(clean, labels).value
    ```
    """
    return predict_all({model.name: (model, space)}, x, batch_size=batch_size, verbose=verbose)[model.name]


def predict_all(
    models: Mapping[str, tuple[keras.Model, PixelSpace]],
    x: AnySamples,
    *,
    batch_size: int = 64,
    verbose: bool | str = False,
) -> dict[str, np.ndarray]:
    """The class that each of several models says for each image or text.

    Args:
        models: Classifiers by name, each with how its inputs come from pixels.
        x: See `predict_classes`.
        batch_size: Samples at a time.
        verbose: Progress on stderr: `True`, `False`, or `"auto"` for terminals and notebooks only.

    Returns:
        For each name class ids, int64 of shape `(n,)`.

    Raises:
        DataError: If the images or texts do not fit a model; names it.
        RemosError: If a model is no classifier, or returns NaN.
    """
    return Panel(models).predict(x, batch_size=batch_size, verbose=verbose)


class Panel:
    """Several classifiers that are asked about the same samples. Compiled once, asked as often as there are sets.

    Args:
        models: Classifiers by name, each with how its inputs come from pixels.

    Attributes:
        num_classes: How many classes each of them tells apart: known once they were asked.
    """

    def __init__(self, models: Mapping[str, tuple[keras.Model, PixelSpace]]) -> None:
        self.models = dict(models)
        self.num_classes: dict[str, int] = {}
        self._judge: Callable[..., Tensor] | None = None
        self._readers: dict[str, TextClassifier] = {}

    def predict(
        self, x: AnySamples, *, batch_size: int = 64, verbose: bool | str = False, description: str = "Predicting"
    ) -> dict[str, np.ndarray]:
        """See `predict_all`."""
        if not isinstance(batch_size, int) or batch_size < 1:
            raise RemosError(f"`batch_size` must be a whole number of at least 1, received {batch_size!r}.")
        for name, (model, space) in self.models.items():
            self.num_classes[name] = check_fits(model, x, space, name)
        ask: Callable[..., np.ndarray] = self._classes_of_texts if holds_text(x) else self._classes_of_images
        classes = ask(x, batch_size=batch_size, verbose=verbose, description=description)
        for name, ids in zip(self.models, classes, strict=True):
            if (ids == NOT_FINITE).any():
                raise RemosError(
                    f"Model {name!r} returns NaN or infinity for {int(np.sum(ids == NOT_FINITE))} of {len(x)} samples: "
                    "it has diverged, or its inputs are scaled in another way. Check the scaling and the training."
                )
        return dict(zip(self.models, classes, strict=True))

    def _classes_of_texts(
        self, texts: np.ndarray, *, batch_size: int, verbose: bool | str, description: str
    ) -> np.ndarray:
        """Class ids, int64 of shape `(models, n)`. Models may have tokenizers of their own, so each reads the texts."""
        # Texts of about one length are read together: little is padding.
        order = np.argsort(np.char.str_len(texts).reshape(len(texts), -1).sum(axis=1), kind="stable")
        classes = np.empty((len(self.models), len(texts)), np.int64)
        batches = [
            (row, name, order[start : start + batch_size])
            for row, name in enumerate(self.models)
            for start in range(0, len(texts), batch_size)
        ]
        with track(batches, total=len(batches), description=description, verbose=verbose) as tracked:
            for row, name, chosen in tracked:
                if name not in self._readers:
                    self._readers[name] = TextClassifier(self.models[name][0], batch_size)
                with _enough_memory(len(chosen), 1):
                    scores = self._readers[name](texts[chosen])
                classes[row, chosen] = np.where(np.isfinite(scores).all(axis=-1), scores.argmax(axis=-1), NOT_FINITE)
        return classes

    def _classes_of_images(
        self, x: AnySamples, *, batch_size: int, verbose: bool | str, description: str
    ) -> np.ndarray:
        """Class ids, int64 of shape `(models, n)`. Every batch goes to the device once for all models."""
        if self._judge is None:
            self._judge = compiled(self._say, *(model for model, _ in self.models.values()))
        said: list[np.ndarray] = []
        starts = range(0, len(x), batch_size)
        with track(starts, total=len(starts), description=description, verbose=verbose) as tracked:
            for start in tracked:
                batch = x[start : start + batch_size].astype(np.float32, copy=False)
                # A last, smaller batch is filled up, and whole numbers become floats: one program is compiled for all.
                filled = np.minimum(np.arange(min(batch_size, len(x))), len(batch) - 1)
                said.append(self._ask(batch[filled])[:, : len(batch)])
        return np.concatenate(said, axis=1).astype(np.int64)

    def _ask(self, batch: np.ndarray) -> np.ndarray:
        assert self._judge is not None, "compiled before the first batch"
        with _enough_memory(len(batch), len(self.models)):
            return np.asarray(ops.convert_to_numpy(self._judge(batch)))

    def _say(self, pixels: Tensor) -> Tensor:
        """What each model says about a batch that is on the device already, int32 of shape `(models, batch)`."""
        return ops.stack(
            [_classes(model(space.scale(pixels), training=False)) for model, space in self.models.values()]
        )


def _classes(outputs: Tensor) -> Tensor:
    finite = ops.all(ops.isfinite(outputs), axis=-1)
    return ops.where(finite, ops.cast(ops.argmax(outputs, axis=-1), "int32"), NOT_FINITE)


@contextmanager
def _enough_memory(batch_size: int, models: int) -> Iterator[None]:
    """Says which batch size to try where one is too large.

    Raises:
        RemosError: In place of the backend's own error.
    """
    try:
        yield
    except Exception as error:
        if is_out_of_memory(error):
            raise RemosError(
                f"The memory does not suffice for `batch_size={batch_size}` and {models} models: try "
                f"`batch_size={max(batch_size // 2, 1)}`, or fewer models at a time."
            ) from error
        raise


def check_fits(model: keras.Model, x: AnySamples, space: PixelSpace, name: str) -> int:
    """Makes sure, before any work is done, that a model takes these images or texts and says classes.

    Args:
        model: The model.
        x: See `predict_classes`.
        space: How the model's inputs come from pixels.
        name: What to call the model in a message.

    Returns:
        How many classes it tells apart.

    Raises:
        DataError: If the images have another shape than the model takes, or leave the pixel range.
        RemosError: If the model is no classifier with one output of shape `(batch, classes)`.
    """
    if holds_text(x):
        if not reads_text(model):
            raise DataError(f"Model {name!r} brings no tokenizer, and the data are texts: use a KerasHub classifier.")
        return TextClassifier(model).num_classes
    if reads_text(model):
        raise DataError(f"Model {name!r} reads texts, the data are arrays of shape {_shown(x.shape[1:])}.")
    space.check(x)
    wanted = [shape[1:] for shape in _shapes(symbolic_inputs(model))]
    if wanted and not (len(wanted) == 1 and _same_shape(wanted[0], x.shape[1:])):
        takes = f"images of shape {_shown(wanted[0])}" if len(wanted) == 1 else f"{len(wanted)} inputs"
        raise DataError(
            f"Model {name!r} takes {takes}, the data has {_shown(x.shape[1:])}. Pixels can be scaled anew, not "
            "resized: use images of that size, or a model that takes these."
        )
    # Subclassed models do not tell what they return before they are called; on a placeholder nothing is computed.
    shapes = _shapes(symbolic_outputs(model)) or _shapes(model(keras.KerasTensor((2, *x.shape[1:])), training=False))
    classes = shapes[0][1] if len(shapes) == 1 and len(shapes[0]) == 2 else None
    if classes is None or classes < 2:
        raise RemosError(
            f"Model {name!r} is no classifier: expected one output of shape (batch, classes) with two or more "
            f"classes, received {' and '.join(map(str, shapes))}. Give it a head with one output for each class; "
            "models of other tasks (regression, segmentation, several outputs) are not measured here."
        )
    return classes


def _shapes(tensors: Any) -> list[tuple[int | None, ...]]:
    return [] if tensors is None else [tuple(tensor.shape) for tensor in keras.tree.flatten(tensors)]


def _same_shape(wanted: tuple[int | None, ...], found: tuple[int, ...]) -> bool:
    return len(wanted) == len(found) and all(w in (None, f) for w, f in zip(wanted, found, strict=True))


def _shown(shape: tuple[int | None, ...]) -> str:
    return " x ".join("any" if size is None else str(size) for size in shape)
