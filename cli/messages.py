"""Messages of the library, in the words of the shell."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import click

# The library puts its arguments in backquotes: `overwrite=True`, `batch_size`.
_ARGUMENT = re.compile(r"`(\w+)(?:=([^`]*))?`")
_CALLED_OTHERWISE = {"overwrite": "force", "train": "train_data"}
# What makes less fit into memory at a time, as far as a command has it.
_SAVES_MEMORY = ("batch_size", "image_size", "sequence_length")


def in_shell_words(message: str) -> str:
    """A message in one line, in which arguments are the options of the command that runs.

    What this command has no option for stays as it is.
    """
    options = _options()

    def shown(found: re.Match[str]) -> str:
        name, value = found.groups()
        option = options.get(_CALLED_OTHERWISE.get(name, name))
        if option is None:
            return found[0]
        if not isinstance(option, click.Option):
            return option.human_readable_name
        flag = _longest(option)
        return flag if value is None or option.is_flag else f"{flag} {value.strip(chr(39) + chr(34))}"

    return _ARGUMENT.sub(shown, " ".join(message.split()))


# Of Click's errors those that are several lines, and repeat nothing that was typed: lists of choices, and help.
_IN_LINES = (click.MissingParameter, getattr(click.exceptions, "NoArgsIsHelpError", click.MissingParameter))


@contextmanager
def escaping() -> Iterator[None]:
    """Has errors say in one line what a terminal may show, whoever raises them: Click repeats what was typed."""
    try:
        yield
    except _IN_LINES:
        raise
    except click.UsageError as error:
        raise click.UsageError(shown(error.format_message()), error.ctx) from None
    except click.ClickException as error:
        raise click.ClickException(shown(error.format_message())) from None


def shown(message: str, *, lines: bool = False) -> str:
    """A message as a terminal may show it: names in it come from files, and may hold what moves the cursor.

    Args:
        message: What is to be said.
        lines: Whether it has several lines.
    """
    if message.isprintable():  # as nearly all are: the library takes time to come
        return message
    from keras_remos.untrusted import printable

    return printable(message, lines=lines)


def out_of_memory(message: str) -> str:
    """What to say, and to try, where memory ran out."""
    options = _options()
    smaller = [f"a smaller {_longest(options[name])}" for name in _SAVES_MEMORY if name in options]
    said = " ".join(message.split())[:200]
    return f"Out of memory{f' ({said})' if said else ''}. Try {', '.join([*smaller, 'or less at a time'])}."


def _options() -> dict[str, click.Parameter]:
    """The options of the command that runs, by the names of the arguments that they stand for."""
    context = click.get_current_context(silent=True)
    found: dict[str, click.Parameter] = {}
    for option in context.command.params if context is not None else ():
        for name in (option.name, _longest(option).lstrip("-").replace("-", "_")):
            if name:
                found[name] = option
    return found


def _longest(option: click.Parameter) -> str:
    return max(option.opts, key=len)
