"""From a teacher to a student: a copy that starts from the slice, with a new head if one is wanted."""

from __future__ import annotations

import random
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import keras
import numpy as np
from keras import ops

from keras_remos.errors import StudentError
from keras_remos.models import layers as kinds
from keras_remos.models.adapters import MERGE, copy_strength, has_adapter, without_spent
from keras_remos.models.ends import unsaid_options, without_compilation
from keras_remos.models.kernels import Kernel, SliceableLayer, Tensor
from keras_remos.models.origin import Origin, missing_objects, remember, where_from
from keras_remos.models.sliceable import find_sliceable, kernels_by_path
from keras_remos.models.tokenizers import unknown_token
from keras_remos.slicing import new_head
from keras_remos.slicing.new_head import check_num_classes
from keras_remos.untrusted import check_seed

Reset = Literal["zeros", "initializer"]


def build(
    teacher: keras.Model,
    masks: Mapping[str, np.ndarray],
    *,
    heads: tuple[str, ...] = (),
    num_classes: int | None = None,
    reset: Reset = "zeros",
    freeze: bool = False,
    in_place: bool = False,
    all_train: bool = False,
    seed: int = 0,
) -> keras.Model:
    """Makes a student that starts from a slice of the teacher.

    Args:
        teacher: A built Keras model. It is not modified, unless `in_place` says so.
        masks: For each kernel a boolean array of its shape: `True` where the weight is kept.
        heads: Paths of the layers that make the teacher's outputs.
        num_classes: Gives the student a fresh softmax head for so many classes: in place of the teacher's, or on top
            of global average pooling where the teacher has none. `None` keeps the teacher as it ends.
        reset: What excluded weights become: `"zeros"` (ReMoS section 4.4), or `"initializer"`: fresh values from the
            layer's own initializer. An embedding's excluded rows become the row of the unknown token where the
            tokenizer has one, else the mean of the rows that are kept.
        freeze: Keeps excluded weights as they were reset through `fit`, by a constraint on the variable. It holds
            in this process and leaves no trace in a saved student. An optimizer with `use_ema=True` overwrites weights
            after their constraints, and is not held back.
        in_place: Reset the weights of the teacher itself, for models that cannot be copied.
        all_train: Lets every layer train, whatever the teacher's do.
        seed: For the fresh head and `reset="initializer"`.

    Returns:
        An uncompiled, plain Keras model. Unless all train, its layers do if the teacher's do, and those that lost
        weights or are the fresh head in any case.

    Raises:
        StudentError: If the teacher cannot be copied, its head cannot be replaced, or an option has no such value.

    Warns:
        UserWarning: If layers are to train that are frozen in the teacher (`trainable=False`).
    """
    if reset not in ("zeros", "initializer"):
        raise StudentError(f"`reset` must be 'zeros' or 'initializer', received {reset!r}.")
    check_num_classes(num_classes)
    check_seed(seed)
    if in_place and num_classes is not None:
        raise StudentError(
            "`in_place` keeps the teacher's head: replace the head yourself, or leave `num_classes` out."
        )
    student = teacher if in_place else _copy(teacher, heads, num_classes, seed)
    kernels = kernels_by_path(student)
    unknown = unknown_token(teacher)
    trains = {id(variable) for variable in student.trainable_variables}
    frozen = [] if num_classes is None else [layer for layer in _at(student, heads) if not layer.trainable]
    for number, (path, mask) in enumerate(masks.items()):
        if path not in kernels:
            continue  # it stood behind the head that was replaced
        found, kernel = kernels[path]
        weights = ops.convert_to_numpy(kernel.variable.value)
        fresh = _fresh_values(found, kernel, weights, mask, reset, seed + number, unknown)
        kernel.variable.assign(np.where(mask, weights, fresh))
        if freeze and not mask.all():
            kernel.variable.constraint = KeepReset(mask, fresh, first=kernel.variable.constraint)
        if not mask.all() and id(kernel.variable) not in trains and found.layer not in frozen:
            frozen.append(found.layer)
    if all_train:
        kinds.set_trainable(student, True)
    elif frozen:
        _unfreeze(student, frozen)
        warnings.warn(
            f"{len(frozen)} layer{'s' if len(frozen) > 1 else ''} of {teacher.name!r} with trainable=False lost "
            "weights or belong to the fresh head: in the student they train, as what was reset would else stay so.",
            stacklevel=3,
        )
    return student


def _at(model: keras.Model, paths: Sequence[str]) -> list[keras.Layer]:
    """The layers of some paths, and those below them, that hold weights."""
    return [
        layer
        for path, layer in kinds.weight_holders(model)
        if any(f"{path}/".startswith(f"{outer}/") for outer in paths)
    ]


def _unfreeze(student: keras.Model, layers: Sequence[keras.Layer]) -> None:
    """Lets layers train, with what is in them and around them. All others keep their flags."""
    everything = [student, *(layer for _, layer in kinds.walk(student))]
    inside = {id(below) for layer in layers for below in [layer, *(found for _, found in kinds.walk(layer))]}
    around = {id(layer) for layer in everything if any(id(below) in inside for _, below in kinds.walk(layer))}
    others = [variable for layer in everything if id(layer) not in inside for variable in kinds.own_variables(layer)]
    flags = [(layer, layer.trainable or id(layer) in inside | around) for layer in everything]
    variables = [(variable, variable.trainable) for variable in others]
    # A layer's flag sets those of all that is below it: outer layers first.
    for layer, flag in sorted(flags, key=lambda pair: kinds.is_leaf(pair[0])):
        layer.trainable = flag
    for variable, flag in variables:
        variable.trainable = flag


def from_scratch(
    teacher: keras.Model, *, heads: tuple[str, ...] = (), num_classes: int | None = None, seed: int = 0
) -> keras.Model:
    """Makes a student of the teacher's architecture with fresh weights.

    The statistics by which a `Normalization` layer scales the inputs are kept: they are no learned weights, and
    without them the data would come in another scale.

    Args:
        teacher: A built Keras model. It is not modified.
        heads: Paths of the layers that make the teacher's outputs.
        num_classes: Gives the student a softmax head for so many classes: with one seed the same that `build` gives.
        seed: For every weight.

    Returns:
        An uncompiled, plain Keras model. One seed gives the same weights on one backend.

    Raises:
        StudentError: If the teacher cannot be copied, or its head cannot be replaced.
    """
    check_num_classes(num_classes)
    check_seed(seed)
    learned = [
        path for path, layer in kinds.weight_holders(teacher) if not isinstance(layer, keras.layers.Normalization)
    ]
    with _seeded(seed):
        student, replaced = _twin(teacher, heads, num_classes)
    _transfer(teacher, student, without=tuple(learned))
    kernels = [kernel for found in find_sliceable(student)[0] for kernel in found.weights]
    for number, kernel in enumerate(kernels):
        # Also where the architecture names a seed: another seed of ours has to give another student.
        mixed = int(np.random.default_rng([seed, number]).integers(2**31))
        kernel.variable.assign(kernel.fresh_values(mixed))
    return _of_same_classes(teacher, _with_new_head(student, heads, replaced, num_classes, seed))


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Makes initializers that have no seed draw the same ones each time: Keras takes them from `random`."""
    state = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(state)


class KeepReset(keras.constraints.Constraint):
    """Puts excluded weights back to their reset values after every training step.

    Args:
        mask: `True` where the weight may train.
        reset: The values of the others; anything that broadcasts to the weight.
        first: A constraint that the weight has already.
    """

    def __init__(self, mask: np.ndarray, reset: np.ndarray, first: Callable[[Tensor], Tensor] | None = None) -> None:
        self.mask = np.ascontiguousarray(mask)
        self.reset = reset
        # The same weight frozen anew is held by the new mask alone.
        self.first: Callable[[Tensor], Tensor] | None = first.first if isinstance(first, KeepReset) else first

    def __call__(self, w: Tensor) -> Tensor:
        weights = ops.convert_to_tensor(w if self.first is None else self.first(w))
        return ops.where(self.mask, weights, ops.cast(self.reset, weights.dtype))


def _fresh_values(
    found: SliceableLayer,
    kernel: Kernel,
    weights: np.ndarray,
    mask: np.ndarray,
    reset: Reset,
    seed: int,
    unknown: tuple[int, int] | None,
) -> np.ndarray:
    """What excluded weights become; broadcasts to the kernel."""
    if found.table is not None:
        rows = mask[:, 0]
        if unknown is not None and unknown[0] == len(rows):
            return weights[unknown[1]]
        return weights[rows].mean(axis=0) if rows.any() else np.zeros(1, weights.dtype)
    if reset == "zeros":
        return np.zeros((1,) * weights.ndim, weights.dtype)
    return kernel.fresh_values(seed)


def _copy(teacher: keras.Model, heads: tuple[str, ...], num_classes: int | None, seed: int) -> keras.Model:
    # Weights that come with a head for other classes are drawn when it is built.
    with _seeded(seed):
        student, replaced = _twin(teacher, heads, num_classes)
    _transfer(teacher, student, without=heads if replaced else ())
    return _of_same_classes(teacher, _with_new_head(student, heads, replaced, num_classes, seed))


def _twin(teacher: keras.Model, heads: tuple[str, ...], num_classes: int | None) -> tuple[keras.Model, bool]:
    """A model of the teacher's architecture, and whether its heads are made for other classes."""
    try:
        with without_spent([layer for _, layer in kinds.weight_holders(teacher)]):
            config = keras.saving.serialize_keras_object(teacher)
    except Exception as error:  # whatever a user's class raises
        raise _uncopiable(teacher, type(error).__name__) from error
    replaced = num_classes is not None and new_head.build_for(config, teacher, heads, num_classes)
    return _from_config(teacher, config), replaced


def _with_new_head(
    student: keras.Model, heads: tuple[str, ...], replaced: bool, num_classes: int | None, seed: int
) -> keras.Model:
    if num_classes is None:
        return student
    if replaced:
        return new_head.refresh(student, heads, seed)
    return new_head.put_on(student, heads, num_classes, seed)


def _from_config(teacher: keras.Model, config: dict[str, Any]) -> keras.Model:
    # The classes are those of the model in memory, not names that a file chose; safe mode guards files.
    classes = {type(layer).__name__: type(layer) for _, layer in [("", teacher), *kinds.walk(teacher)]}
    own = {name: kind for name, kind in classes.items() if not kind.__module__.startswith(("keras.", "keras_hub."))}
    own |= where_from(teacher).custom_objects
    missing = missing_objects(config, own)  # before Keras takes the configuration apart
    try:
        student = keras.saving.deserialize_keras_object(
            without_compilation(config), custom_objects=own, safe_mode=False
        )
    except Exception as error:
        if missing:
            raise StudentError(
                f"{type(teacher).__name__} {teacher.name!r} cannot be copied: it is made of {', '.join(missing)}, "
                "which Keras no longer finds. Open its file with load_teacher(path, custom_objects={...}), which "
                "remembers; keep the custom_object_scope that it was loaded in open around this call; or register what "
                "is missing (keras.saving.register_keras_serializable)."
            ) from error
        raise _uncopiable(teacher, f"{type(error).__name__}: {error}".splitlines()[0]) from error
    if not kinds.is_built(student):
        raise _uncopiable(teacher, "its copy is not built without data")
    if getattr(teacher, "preprocessor", None) is not None:
        # A tokenizer's configuration lacks its vocabulary; it learns nothing, so both models may use one.
        student.preprocessor = teacher.preprocessor
    return student


def _of_same_classes(teacher: keras.Model, student: keras.Model) -> keras.Model:
    """A student that can be copied as its teacher can."""
    return remember(student, Origin(custom_objects=where_from(teacher).custom_objects))


def _take_names(teacher: keras.Model, student: keras.Model) -> None:
    """Names the layers of a copy as the teacher's: some classes name theirs after the model, if that has a name."""
    theirs, ours = list(kinds.walk(teacher)), list(kinds.walk(student))
    same = [type(layer) for _, layer in theirs] == [type(layer) for _, layer in ours]
    if same and [path for path, _ in theirs] != [path for path, _ in ours]:
        for (_, source), (_, copy) in zip(theirs, ours, strict=True):
            copy.name = source.name


def _transfer(teacher: keras.Model, student: keras.Model, without: tuple[str, ...]) -> None:
    _take_names(teacher, student)
    theirs, ours = kinds.weight_holders(teacher), kinds.weight_holders(student)
    if [path for path, _ in theirs] != [path for path, _ in ours]:
        raise _uncopiable(teacher, "its copy has other layers")
    for (path, source), (_, target) in zip(theirs, ours, strict=True):
        if path in without:
            continue
        old_variables, new_variables = kinds.own_variables(source), kinds.own_variables(target)
        pairs = list(zip(old_variables, new_variables, strict=False))
        if has_adapter(source) and not has_adapter(target) and len(old_variables) != len(new_variables):
            raise StudentError(
                f"{type(teacher).__name__} {teacher.name!r} cannot be copied: layer {path!r} is under LoRA, which the "
                f"model's configuration does not say. To copy it, {MERGE}."
            )
        if len(old_variables) != len(new_variables) or any(tuple(old.shape) != tuple(new.shape) for old, new in pairs):
            unsaid = ", ".join(unsaid_options(teacher))
            why = f", as get_config() leaves out {unsaid}: files of it cannot be opened either" if unsaid else ""
            raise _uncopiable(teacher, f"layer {path!r} has other shapes in the copy{why}")
        for old, new in pairs:
            # A copy: JAX gives buffers away to compiled functions, and must not give away the teacher's.
            new.assign(np.array(ops.convert_to_numpy(old.value)))
        copy_strength(source, target)
        if isinstance(target, keras.layers.Normalization):
            target.finalize_state()  # what it applies is derived from its weights
    copies = dict(kinds.walk(student))
    for path, source in kinds.walk(teacher):
        if path in copies and kinds.holds_assets(source):
            with tempfile.TemporaryDirectory() as folder:
                source.save_assets(folder)
                copies[path].load_assets(folder)


def _uncopiable(teacher: keras.Model, reason: str) -> StudentError:
    return StudentError(
        f"{type(teacher).__name__} {teacher.name!r} cannot be copied ({reason}). Give the class a "
        "get_config() that says all that it was made with, or pass `in_place=True` to turn the teacher itself into the "
        "student."
    )
