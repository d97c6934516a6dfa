"""What is known of a model beyond its weights: the name it was loaded by, the classes it is made of, its slice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import keras


@dataclass(frozen=True)
class Origin:
    """Where a model comes from.

    Args:
        name: What it was loaded by: a file's or a folder's name, or that of a published model. `None` if nobody said.
        custom_objects: Classes and functions that it is made of and Keras does not know, by name.
        slice: How the slice that it starts from was chosen; empty for a model that starts from none.
    """

    name: str | None = None
    custom_objects: Mapping[str, Any] = field(default_factory=dict)
    slice: Mapping[str, Any] = field(default_factory=dict)


# Where Keras looks for its own functions.
_FUNCTIONS = (keras.activations, keras.initializers, keras.ops, keras.losses, keras.metrics, keras.regularizers)

# By the model itself: what one model is made of is no other's business, and goes when it goes.
_ORIGINS: WeakKeyDictionary[keras.Model, Origin] = WeakKeyDictionary()


def where_from(model: keras.Model) -> Origin:
    """What is known of where a model comes from."""
    return _ORIGINS.get(model, Origin())


def remember(model: keras.Model, origin: Origin) -> keras.Model:
    """Keeps where a model comes from for as long as the model lives, and returns the model."""
    _ORIGINS[model] = origin
    return model


def named(custom_objects: Mapping[str, Any] | None) -> dict[str, Any]:
    """Custom objects by every name that Keras may look for: the one that was given, and the one it writes itself."""
    given = dict(custom_objects or {})
    return {**{getattr(found, "__name__", name): found for name, found in given.items()}, **given}


def missing_objects(config: Any, known: Mapping[str, Any]) -> list[str]:
    """The classes and functions in a serialized model that Keras does not find, by name.

    Args:
        config: The model, serialized.
        known: Custom objects, beside what is registered or in the scope of this call.
    """
    return [name for name, found in _foreign(config, known) if found is None]


def own_objects(config: Any) -> list[str]:
    """The classes and functions in a serialized model that are the user's: registered, or in the scope of this call."""
    return [name for name, found in _foreign(config, {}) if found is not None]


def _foreign(config: Any, known: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Name and object of what in a serialized model is not Keras' own; `None` for what is not found."""
    names: dict[str, None] = {}

    def search(node: Any) -> None:
        if isinstance(node, dict):
            name = node.get("registered_name") or (node.get("class_name") if node.get("module") else None)
            own = not f"{node.get('module')}.".startswith(("keras.", "keras_hub.", "builtins."))
            if node.get("class_name") == "function" and isinstance(node.get("config"), str):
                name, own = node["config"], not any(hasattr(room, node["config"]) for room in _FUNCTIONS)
            if isinstance(name, str) and own:
                names[name] = None
            for value in node.values():
                search(value)
        elif isinstance(node, (list, tuple)):
            for value in node:
                search(value)

    search(config)
    return [(name, keras.saving.get_registered_object(name, custom_objects=dict(known))) for name in names]
