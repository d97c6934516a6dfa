"""What `load_teacher` knows of a model beyond its weights: the name it was loaded by, and the classes it is made of."""

from __future__ import annotations

import re
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
    """

    name: str | None = None
    custom_objects: Mapping[str, Any] = field(default_factory=dict)


# By the model itself: what one model is made of is no other's business, and goes when it goes.
_ORIGINS: WeakKeyDictionary[keras.Model, Origin] = WeakKeyDictionary()


def origin_of(model: keras.Model) -> Origin:
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


def missing_object(error: Exception) -> str | None:
    """The class or function that Keras did not find; `None` if it stumbled over something else."""
    found = re.findall(r"Could not locate (?:class|function) '([^']+)'", str(error))
    return found[-1] if found else None
