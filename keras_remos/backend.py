"""Which backend Keras runs on, decided before Keras is imported. Imports neither Keras nor a backend."""

import importlib.util
import json
import os
import sys
from pathlib import Path

BACKENDS = ("tensorflow", "jax", "torch")
# Keras has these, too. They only predict.
_OTHERS = ("numpy", "openvino")
_selected: tuple[str, str] | None = None


def installed_backends() -> list[str]:
    """The backends that are installed, in the order in which they are preferred."""
    return [name for name in BACKENDS if importlib.util.find_spec(name) is not None]


def select_backend(wanted: str | None = None) -> tuple[str, str]:
    """Makes Keras use a backend that is installed.

    Keras takes TensorFlow unless told otherwise, and fails to import where that is missing. This sets
    `KERAS_BACKEND` to what the user wants or already chose (`KERAS_BACKEND`, `keras.json`), else to the first one
    that is installed.

    Args:
        wanted: A backend's name, or `None`. Must come before Keras is imported.

    Returns:
        The backend, and why it was taken.

    Raises:
        ImportError: If no backend is installed, or the wanted one is not or does not exist.
    """
    global _selected
    if "keras" in sys.modules:
        import keras

        return _selected or (keras.backend.backend(), "Keras was imported already")
    if _selected is not None and not wanted and os.environ.get("KERAS_BACKEND") == _selected[0]:
        return _selected
    available = installed_backends()
    if not available:
        raise ImportError(
            'Keras needs a backend and none is installed. Install one: pip install "keras-remos[jax]", '
            '"keras-remos[torch]" or "keras-remos[tensorflow]".'
        )
    configured = _configured()
    if wanted:
        chosen, reason = wanted, "asked for"
    elif os.environ.get("KERAS_BACKEND"):
        chosen, reason = os.environ["KERAS_BACKEND"], "KERAS_BACKEND says so"
    elif configured in available and len(available) > 1:
        chosen, reason = configured, f"keras.json says so; also installed: {_others(configured, available)}"
    elif len(available) > 1:
        chosen, reason = available[0], f"the first of those installed; also there: {_others(available[0], available)}"
    else:
        chosen, reason = available[0], "the only one installed"
    if chosen not in (*BACKENDS, *_OTHERS):
        raise ImportError(
            f"There is no backend {chosen!r} ({reason}): choose one of {available} (`backend`, or KERAS_BACKEND)."
        )
    if chosen in BACKENDS and chosen not in available:
        raise ImportError(
            f'Backend {chosen!r} ({reason}) is not installed. Install it with pip install "keras-remos[{chosen}]", '
            f"or choose one of {available} (`backend`, or KERAS_BACKEND)."
        )
    os.environ["KERAS_BACKEND"] = chosen
    _selected = chosen, reason
    return _selected


def _others(chosen: str, available: list[str]) -> str:
    return ", ".join(name for name in available if name != chosen)


def _configured() -> str:
    try:
        home = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")
        return str(json.loads((home / "keras.json").read_text()).get("backend"))
    except (OSError, ValueError, AttributeError, RuntimeError, RecursionError):  # there is no home, or nothing of use
        return ""
