"""What is in a file, of whatever kind: without trusting it, and as far as possible without opening it."""

from keras_remos.inspection.described import FileDescription
from keras_remos.inspection.inspecting import inspect_file

__all__ = ["FileDescription", "inspect_file"]
