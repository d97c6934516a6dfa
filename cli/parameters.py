"""Kinds of paths: what has to be there is looked for before Keras is imported."""

from __future__ import annotations

from pathlib import Path

import click


class Existing(click.Path):
    """A file or folder that has to be there."""

    def check(self, path: str | Path, said: str) -> None:
        """Makes sure that it is.

        Args:
            path: What was given.
            said: For what: an option, or an argument.

        Raises:
            ClickException: If there is nothing.
        """
        try:
            is_there = Path(path).exists()
        except OSError:  # closed, or too long a name: whoever opens it says so
            return
        if not is_there:
            raise click.ClickException(f"{said} {path}: there is no such file or folder.")


class ModelName(Existing):
    """A model: a file or folder that has to be there, or the name that it is published under."""

    def check(self, path: str | Path, said: str) -> None:
        from keras_remos.models.names import check_there

        check_there(path)


class SynonymsName(Existing):
    """A file that has to be there, or `wordnet`."""

    def check(self, path: str | Path, said: str) -> None:
        if str(path) != "wordnet":
            super().check(path, said)


EXISTING = Existing(path_type=Path)
# What names a published model is no path, and is not to be taken for one: `hf://` has two slashes.
TEACHER = ModelName(path_type=str)
STUDENT = ModelName(path_type=Path)
SYNONYMS = SynonymsName(path_type=str)


def check_paths() -> None:
    """Makes sure that what the running command is to read is there.

    Comes after all else that is checked without Keras, and before it is imported, which takes seconds.

    Raises:
        ClickException: If it is not.
        RemosError: If it is no model, and cannot be the name of one.
    """
    context = click.get_current_context()
    for param in context.command.params:
        given = context.params.get(param.name or "")
        if isinstance(param.type, Existing) and given is not None:
            said = max(param.opts, key=len) if isinstance(param, click.Option) else param.human_readable_name
            for path in given if isinstance(given, tuple) else (given,):
                param.type.check(path, said)
