"""A student's new head: a fresh softmax over the classes of its own task, in the place of what the teacher ends in.

Where the teacher can be built for other classes (it has an option `num_classes`, or ends in one dense layer with at
most a softmax behind), the copy is built so. Elsewhere it is cut: what enters the old head enters a new dense layer,
and whatever stood behind the old head is left behind with it.
"""

from __future__ import annotations

import itertools
import json
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from keras_remos.errors import RemosError, StudentError
from keras_remos.models import ends
from keras_remos.models import layers as kinds
from keras_remos.models.heads import returns_probabilities
from keras_remos.models.kernels import Tensor, for_keras, reinitialize
from keras_remos.models.origin import where_from
from keras_remos.models.untrusted import reason_of

POOLING = {3: keras.layers.GlobalAveragePooling1D, 4: keras.layers.GlobalAveragePooling2D}
NAME_IT = "Name the layer that the new head is to take the place of: `head='path/of/layer'`."


def check_num_classes(num_classes: int | None) -> None:
    """Makes sure that a head can have so many classes.

    Raises:
        StudentError: If it cannot.
    """
    if num_classes is not None and (not isinstance(num_classes, int) or num_classes < 2):
        raise StudentError(f"`num_classes` must be a whole number of at least 2, received {num_classes!r}.")


def classes_of_head(teacher: keras.Model) -> int | None:
    """How many classes a model tells apart; `None` if it does not return one number for each class."""
    shapes = [tuple(tensor.shape)[1:] for tensor in _outputs(teacher)]
    return shapes[0][0] if len(shapes) == 1 and len(shapes[0]) == 1 and shapes[0] != (1,) else None


def has_head_for(teacher: keras.Model, num_classes: int) -> bool:
    """Whether a model tells so many classes apart: its head can then be kept.

    A sigmoid tells none apart: it says yes or no of each by itself.
    """
    return classes_of_head(teacher) == num_classes and not ends.applies_sigmoid(teacher)


def build_for(config: dict[str, Any], teacher: keras.Model, heads: tuple[str, ...], num_classes: int) -> bool:
    """Changes a serialized teacher so that it comes back with a head for other classes, where it can be built so.

    Args:
        config: The teacher, serialized. Changed in place.
        teacher: The model itself.
        heads: The paths of its heads.
        num_classes: How many classes.

    Returns:
        Whether it could.
    """
    if ends.has_option(config, "num_classes"):
        config["config"]["num_classes"] = num_classes
        if config["config"].get("activation", "softmax") in (None, "linear", "sigmoid", "softmax"):
            ends.set_option(config, "activation", "softmax")
        return True
    if len(heads) != 1 or not ends.ends_plainly(teacher, heads[0]):
        return False
    return ends.set_units(config, teacher, heads[0], num_classes)


def refresh(student: keras.Model, heads: tuple[str, ...], seed: int) -> keras.Model:
    """Gives the heads of a student that was built for other classes fresh weights, and makes it end in a softmax."""
    for path, layer in kinds.walk(student):
        if any(f"{path}/".startswith(f"{head}/") for head in heads):
            reinitialize(layer, seed)
    outputs = kinds.symbolic_outputs(student)
    if not isinstance(outputs, keras.KerasTensor) or returns_probabilities(student):
        return student
    softmax = keras.layers.Softmax(dtype="float32", name=_unused("probabilities", student))
    return keras.Model(kinds.symbolic_inputs(student), softmax(_returned(student)), name=student.name)


def put_on(student: keras.Model, heads: tuple[str, ...], num_classes: int, seed: int) -> keras.Model:
    """Gives a student a new head: in the place of its heads, or on its features where it has none.

    Raises:
        StudentError: If it returns class scores, and no head that makes them can be replaced.
    """
    if kinds.symbolic_outputs(student) is None:
        raise StudentError(
            f"{type(student).__name__} {student.name!r} is a subclassed model: its head cannot be replaced from "
            "outside. Replace it yourself and leave `num_classes` out, or use the functional API."
        )
    # A backbone's pooled output is made for others to stand on.
    if not heads or isinstance(kinds.symbolic_outputs(student), Mapping):
        features, heads = _features(student), ()
    else:
        entering = [_entering(student, head) for head in heads]
        features = entering[0]
        if any(tensor is not features for tensor in entering):
            raise StudentError(
                f"Model {student.name!r} has several heads, which see different features ({', '.join(heads)}): none "
                f"can take the place of all. {NAME_IT}"
            )
    made = keras.Model(
        kinds.symbolic_inputs(student), _head_on(features, student, heads, num_classes, seed), name=student.name
    )
    reason = None if kinds.is_plain(student) else _why_not_saved(made, where_from(student).custom_objects)
    if reason is not None:
        warnings.warn(
            f"Keras cannot save {type(student).__name__} {student.name!r} with a new head as a file that it opens "
            f"again: {reason[:200]} The student can be trained and used in this process, and its weights be saved "
            "(`save_weights`). For a file, slice a classifier of that model's library, which brings its own head.",
            stacklevel=2,
        )
    return made


def _head_on(
    features: Tensor, student: keras.Model, heads: tuple[str, ...], num_classes: int, seed: int
) -> keras.KerasTensor:
    """A new head's output, on features that are pooled over positions if they have some."""
    if len(features.shape) in POOLING:
        data_format = "channels_first" if kinds.is_channels_first(student) else "channels_last"
        pooling = POOLING[len(features.shape)](data_format=data_format, name=_unused("pooled_features", student))
        features = pooling(features)
    if len(features.shape) != 2:
        raise StudentError(f"Model {student.name!r} has features of shape {features.shape}: put a head on it yourself.")
    halved = keras.backend.standardize_dtype(features.dtype) in ("float16", "bfloat16")
    head = keras.layers.Dense(
        num_classes,
        activation="softmax",
        kernel_initializer=keras.initializers.GlorotUniform(seed=for_keras(seed)),
        dtype="float32" if halved else features.dtype,
        name=_unused(heads[0].rpartition("/")[2].partition("#")[0] if heads else "head", student, heads),
    )
    return head(features)


def _returned(model: keras.Model) -> Any:
    """What a model returns, for another layer to stand on.

    A model of a class of its own is called as a whole, not opened: it describes itself in its configuration, and
    layers of such a model need not be able to be saved one by one, nor tell all that they were made with.
    """
    if kinds.is_plain(model):
        return kinds.symbolic_outputs(model)
    with kinds.unchanged_tensors(model):
        made = model(kinds.symbolic_inputs(model))
    return keras.tree.map_structure(_of_known_size, made, kinds.symbolic_outputs(model))


def _of_known_size(made: keras.KerasTensor, known: keras.KerasTensor) -> keras.KerasTensor:
    """A tensor with the number of features that a model knows of: some lose it when they are called."""
    if made.shape[-1] is not None or known.shape[-1] is None:
        return made
    return keras.layers.Reshape(tuple(-1 if side is None else side for side in known.shape[1:]))(made)


def _why_not_saved(made: keras.Model, custom_objects: Mapping[str, Any]) -> str | None:
    """Why a file of a model that was cut out of another could not be opened again; `None` if nothing speaks against it.

    It is tried, which takes as long as to make the model, where layers of a class of their own stand in it one by one.
    Models of such a class describe themselves, and the student was copied by that.
    """
    if not _has_own_layers(made):
        return None
    try:
        config = json.loads(json.dumps(keras.saving.serialize_keras_object(made)))  # as in a file
        keras.saving.deserialize_keras_object(config, custom_objects=custom_objects, safe_mode=False)
    except Exception as error:  # whatever a class's own layers raise
        return reason_of(error).rstrip(".")
    return None


def _has_own_layers(model: keras.Model) -> bool:
    """Whether layers that are not Keras' own stand in a model, outside of models of a class of their own."""
    return any(
        kinds.is_plain(layer) and _has_own_layers(layer)
        if isinstance(layer, keras.Model)
        else not type(layer).__module__.startswith("keras.")
        for layer in model.layers
    )


def _unused(name: str, student: keras.Model, replaced: Sequence[str] = ()) -> str:
    """A name that no layer of a student has, but for those that are replaced: as it is, or with a number."""
    taken = {layer.name for path, layer in kinds.walk(student, into=lambda layer: False) if path not in replaced}
    return next(
        free for number in itertools.count(1) if (free := name if number == 1 else f"{name}_{number}") not in taken
    )


def _entering(model: keras.Model, path: str) -> Tensor:
    """The tensor of a model's graph that enters one of its layers, at whatever depth."""
    name, _, below = path.partition("/")
    layer = dict(kinds.walk(model, into=lambda layer: False))[name]
    taken = ends.inputs_within(model, layer)
    if len(taken) != 1:
        raise StudentError(f"The head {path!r} of {model.name!r} takes {len(taken)} tensors, not one. {NAME_IT}")
    if not below:
        return taken[0]
    if kinds.symbolic_outputs(layer) is None:
        raise StudentError(f"The head {path!r} is inside layer {name!r}, which cannot be opened. {NAME_IT}")
    opened = keras.Model(kinds.symbolic_inputs(layer), _entering(layer, below), name=layer.name)
    return opened(taken[0])


def _outputs(model: keras.Model) -> list[Any]:
    return [tensor for tensor in keras.tree.flatten(kinds.symbolic_outputs(model)) if tensor is not None]


def _features(model: keras.Model) -> Tensor:
    """What a model without a head returns, or turns into scores of tokens, if that is what a head can stand on."""
    outputs = kinds.symbolic_outputs(model)
    states = ends.before_token_scores(model)
    if states is not None:
        return states
    if isinstance(outputs, Mapping):
        if "pooled_output" not in outputs:
            raise StudentError(f"Model {model.name!r} has the outputs {sorted(outputs)}: put a head on one of them.")
        return _returned(model)["pooled_output"]
    if not hasattr(outputs, "shape"):
        raise StudentError(f"Model {model.name!r} has several outputs: put a head on one of them yourself.")
    try:
        scores = returns_probabilities(model)
    except RemosError:
        scores = False
    if scores:
        raise StudentError(
            f"Model {model.name!r} returns probabilities of classes, and no head was found that makes them: a student "
            f"would stand on the teacher's class scores. {NAME_IT}"
        )
    return _returned(model)
