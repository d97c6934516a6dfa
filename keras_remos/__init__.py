"""Start a student from only the part of a pretrained teacher that its task needs (ReMoS, ICSE 2022)."""

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

from keras_remos.backend import installed_backends, select_backend
from keras_remos.version import __version__ as __version__

# Keras reads its backend when it is imported. Where there is none, that is said when something needs it.
if installed_backends():
    select_backend()

if TYPE_CHECKING:
    from keras_remos.public import *  # noqa: F403
    from keras_remos.public import __all__ as __all__
else:

    def __getattr__(name: str) -> Any:
        """Imports all public names with the first: Keras takes seconds, and the program checks much without it."""
        if not name.startswith("_") and importlib.util.find_spec(f"{__name__}.{name}") is not None:
            # A room, which may be asked for without Keras.
            return importlib.import_module(f"{__name__}.{name}")
        if not name.startswith("_") or name == "__all__":
            select_backend()
            public = importlib.import_module("keras_remos.public")
            globals().update({each: getattr(public, each) for each in ("__all__", *public.__all__)})
            if name in globals():
                return globals()[name]
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *(__getattr__("__all__") if installed_backends() else ())})
