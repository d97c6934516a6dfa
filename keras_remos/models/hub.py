"""Presets as KerasHub keeps them: in a folder, or under a name or a handle from which it downloads them."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_remos.errors import TeacherError
from keras_remos.models.layers import own_variables, safe_mode, walk, weight_holders
from keras_remos.models.untrusted import PICKLES, check_configs

HUB_MISSING = 'This teacher needs KerasHub, which is not installed: pip install "keras-remos[hub]".'
SCHEMES = ("hf", "kaggle", "modelscope", "gs")
# What KerasHub makes objects of, where a preset has it.
_CONFIGS = ("task.json", "preprocessor.json", "tokenizer.json", "image_converter.json")


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
        TeacherError: If it is none, is damaged, carries code, or holds no weights but pickles.
    """
    if not (source / "config.json").is_file():
        raise TeacherError(
            f"{source} is no preset folder: it has no config.json. Expected a KerasHub preset or a Hugging Face folder "
            "(config.json and safetensors)."
        )
    check_configs(sorted(source.glob("*.json")), allow_unsafe)
    weights = [*source.glob("*.safetensors"), *source.glob("*.weights.h5"), *source.glob("*.weights.json")]
    if not weights:
        pickled = sorted(file.name for file in source.iterdir() if file.suffix in PICKLES)
        found = f"only pickles ({', '.join(pickled)}), which are refused" if pickled else "none"
        raise TeacherError(f"{source} must hold weights as safetensors or *.weights.h5; found {found}.")
    has_head = (source / "task.json").is_file()
    try:
        return _load(str(source.resolve()), has_head, allow_unsafe)
    except ImportError:
        raise
    except Exception as error:
        raise TeacherError(f"{source} cannot be loaded by KerasHub: {error}") from error


def load_handle(handle: str, allow_unsafe: bool) -> keras.Model:
    """Opens what KerasHub downloads: its configurations first, which are checked as those in a folder are.

    Raises:
        TeacherError: If it carries code.
        Exception: Whatever KerasHub and its clients raise where there is no such preset, or no network.
    """
    keras_hub()
    from keras_hub.src.utils.preset_utils import get_file

    configs = [Path(get_file(handle, "config.json"))]
    if '"registered_name"' in configs[0].read_text(encoding="utf-8"):
        for name in _CONFIGS:
            # What is missing, or cannot be fetched, is not made use of.
            with contextlib.suppress(OSError):
                configs.append(Path(get_file(handle, name)))
    check_configs(configs, allow_unsafe)
    return _load(handle, any(file.name == "task.json" for file in configs), allow_unsafe)


def _load(preset: str, has_head: bool, allow_unsafe: bool) -> keras.Model:
    hub = keras_hub()
    errors = []
    # Whatever the process allows elsewhere.
    with safe_mode(not allow_unsafe):
        for task in (hub.models.TextClassifier, hub.models.ImageClassifier):
            try:
                # Without a head of its own the preset's classifier gets one, which the student replaces anyway.
                model = task.from_preset(preset) if has_head else task.from_preset(preset, num_classes=2)
            except Exception as error:
                errors.append(error)
                continue
            if not has_head:
                _seed_head(model)
            _limit_sequence_length(model)
            return model
        try:
            return hub.models.Backbone.from_preset(preset)
        except Exception as error:
            raise ValueError(f"{errors[0]}; {error}") from error


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
