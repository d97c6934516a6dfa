"""The command line of keras-remos: parses, calls the library, prints. Nothing here imports Keras at start."""

from keras_remos_cli.main import main

__all__ = ["main"]
