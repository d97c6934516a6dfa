"""Presets as KerasHub keeps them: in a folder, or under a name or a handle from which it downloads them."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_remos.errors import TeacherError
from keras_remos.models.layers import TooLargeError, own_variables, safe_mode, walk, weight_holders
from keras_remos.models.untrusted import (
    CONFIG,
    PICKLES,
    check_configs,
    check_folder,
    check_room,
    check_weights,
    reason_of,
)
from keras_remos.untrusted.weights import Holding, named_in

HUB_MISSING = 'This teacher needs KerasHub, which is not installed: pip install "keras-remos[hub]".'
# What KerasHub makes objects of, where a preset has it.
TASK, MODEL_WEIGHTS, TASK_WEIGHTS = "task.json", "model.weights.h5", "task.weights.h5"
_WEIGHTS = ("*.safetensors", "*.weights.h5", "*.weights.json")
_CONFIGS = (TASK, "preprocessor.json", "tokenizer.json", "image_converter.json")


def keras_hub() -> Any:
    """KerasHub itself.

    Raises:
        ImportError: If it is not installed.
    """
    try:
        import keras_hub
    except ImportError as error:
        raise ImportError(f"{HUB_MISSING} ({error})") from error
    return keras_hub


def preset_names() -> list[str]:
    """The presets that KerasHub knows by name; none where it is not installed."""
    try:
        return sorted(keras_hub().models.Backbone.presets)
    except ImportError:
        return []


def load_folder(source: Path, allow_unsafe: bool) -> keras.Model:
    """Opens a preset folder, or a Hugging Face folder that KerasHub can convert.

    Raises:
        TeacherError: If it is none, is damaged, carries code, names or links files outside of it, or holds no weights
            but pickles.

    Warns:
        UserWarning: If it is a language model without its vocabulary.
    """
    if not (source / CONFIG).is_file():
        raise TeacherError(
            f"{source} is no preset folder: it has no {CONFIG}. Expected a KerasHub preset or a Hugging Face folder "
            f"({CONFIG} and safetensors)."
        )
    check_folder(source)
    configs = check_configs(sorted(source.glob("*.json")), allow_unsafe)
    weights = sorted({file for pattern in _WEIGHTS for file in source.glob(pattern)})
    if not weights:
        pickled = sorted(file.name for file in source.iterdir() if file.suffix in PICKLES)
        found = f"only pickles ({', '.join(pickled)}), which are refused" if pickled else "none"
        raise TeacherError(f"{source} must hold weights as safetensors or *.weights.h5; found {found}.")
    has_head = (source / TASK).is_file()
    held = check_weights([*weights, *source.glob("*.safetensors.index.json")])
    try:
        return _load(str(source.resolve()), has_head, allow_unsafe, configs, held)
    except (ImportError, TeacherError):
        raise
    except Exception as error:
        raise TeacherError(f"{source} cannot be loaded by KerasHub: {reason_of(error)}") from error


def load_handle(handle: str, allow_unsafe: bool) -> keras.Model:
    """Opens what KerasHub downloads: configurations and weights are checked first, as those in a folder are.

    Raises:
        TeacherError: If it carries code, or names files to be opened.
        Exception: Whatever KerasHub and its clients raise where there is no such preset, or no network.
    """
    keras_hub()
    from keras_hub.src.utils.preset_utils import get_file

    def fetched(names: Iterable[str]) -> Iterator[Path]:
        for name in names:
            # What is missing, or cannot be fetched, is not made use of.
            with contextlib.suppress(OSError):
                yield Path(get_file(handle, name))

    files = [Path(get_file(handle, CONFIG))]
    configs = check_configs(files, allow_unsafe)
    # As KerasHub tells its own presets from those that it converts.
    is_keras = isinstance(configs[0], dict) and "registered_name" in configs[0]
    if is_keras:
        files += fetched(_CONFIGS)
        configs += check_configs(files[1:], allow_unsafe)
    has_head = any(file.name == TASK for file in files)
    own = [MODEL_WEIGHTS, *([TASK_WEIGHTS] if has_head else [])] if is_keras else ["model.safetensors"]
    weights = list(fetched(own))
    # Where there are both, KerasHub takes what the index names.
    indexes = list(fetched(["model.weights.json" if is_keras else "model.safetensors.index.json"]))
    check_weights(indexes)
    weights += [file for index in indexes for file in fetched(named_in(index))]
    return _load(handle, has_head, allow_unsafe, configs, check_weights(weights))


def _load(preset: str, has_head: bool, allow_unsafe: bool, configs: Sequence[Any], held: Holding) -> keras.Model:
    # Whatever the process allows elsewhere.
    with safe_mode(not allow_unsafe):
        if not allow_unsafe:
            try:
                check_room(lambda: _built(preset, has_head, load_weights=False, compile=False), configs, held)
            except TooLargeError as error:
                raise TeacherError(f"{preset} is refused: {error}.") from error
        model, is_task = _built(preset, has_head)
    if is_task:
        if not has_head:
            _seed_head(model)
        _limit_sequence_length(model)
    return model


def _built(preset: str, has_head: bool, **how: bool) -> tuple[keras.Model, bool]:
    """The classifier or else the backbone that a preset holds, and whether it is a classifier."""
    hub, errors = keras_hub(), []
    for task in (hub.models.TextClassifier, hub.models.ImageClassifier):
        try:
            # Without a head of its own the preset's classifier gets one, which the student replaces anyway.
            return task.from_preset(preset, **how, **({} if has_head else {"num_classes": 2})), True
        except TooLargeError:
            raise
        except Exception as error:
            errors.append(error)
    try:
        model = hub.models.Backbone.from_preset(preset, load_weights=not how)
    except TooLargeError:
        raise
    except Exception as error:
        raise ValueError(f"{reason_of(errors[0])} {reason_of(error)}") from error
    if isinstance(errors[0], FileNotFoundError) and not how:
        warnings.warn(
            f"{preset} is a language model without its vocabulary ({reason_of(errors[0])}) It is opened without a "
            "tokenizer: it takes tokens by their numbers, and no texts.",
            stacklevel=2,
        )
    return model, False


def _seed_head(model: keras.Model) -> None:
    backbone = {id(layer) for _, layer in [("", model.backbone), *walk(model.backbone)]}
    for number, (_, layer) in enumerate(weight_holders(model)):
        if id(layer) not in backbone:
            rng = np.random.default_rng(number)
            for variable in own_variables(layer):
                # The same on every backend: files say by their digests whose weights they were made from.
                if len(variable.shape) > 1:
                    variable.assign(rng.normal(scale=0.02, size=variable.shape))


def _limit_sequence_length(model: keras.Model) -> None:
    longest = getattr(model.backbone, "max_sequence_length", None)
    wanted = getattr(model.preprocessor, "sequence_length", None)
    if longest is not None and wanted is not None:
        model.preprocessor.sequence_length = int(np.minimum(longest, wanted))
