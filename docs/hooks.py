"""What the site shows of the code itself, put into its pages while they are built: nothing of it is copied by hand.

- `<!-- commands -->` becomes every command with its options, from click.
- `<!-- from the docstring of NAME -->` becomes the sources and departures that NAME's docstring tells.

A public name without a docstring stops the build, as does a page that asks for something that is not there.
"""

import re
from collections.abc import Iterator
from functools import cache
from html import escape
from typing import Any

import click
import griffe
from keras_remos_cli.helping import Described, WithExamples
from keras_remos_cli.main import COMMANDS, main
from mkdocs.exceptions import PluginError

SECTIONS = {"reference": "Source", "note": "Departures"}
FROM_DOCSTRING = re.compile(r"^<!-- from the docstring of ([\w.]+) -->$", re.MULTILINE)
COMMANDS_HERE = "<!-- commands -->"


def on_pre_build(config: Any) -> None:
    """Refuses to build while a public name has nothing to say for itself."""
    silent = sorted(_silent())
    if silent:
        raise PluginError(f"These public names have no docstring: {', '.join(silent)}.")


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Puts what comes from the code in its place."""
    markdown = FROM_DOCSTRING.sub(lambda found: _origins(found[1]), markdown)
    return markdown.replace(COMMANDS_HERE, "\n".join(_commands())) if COMMANDS_HERE in markdown else markdown


@cache
def _library() -> griffe.Module:
    found = griffe.load("keras_remos", search_paths=["."], docstring_parser="google")
    assert isinstance(found, griffe.Module)
    return found


def _object(path: str) -> griffe.Object:
    try:
        found = _library()[path.removeprefix("keras_remos.")]
    except KeyError:
        raise PluginError(f"A page asks for {path}, and there is no such name.") from None
    return found.final_target if isinstance(found, griffe.Alias) else found


def _silent() -> Iterator[str]:
    """Public names, and public methods that no base class explains, without a docstring of their own.

    A function that is found through a folder with a module of its name would be documented as that module.
    """
    for name in _library()["public"].exports or ():
        found = _object(f"keras_remos.{name}")
        if found.is_module or not found.has_docstring:
            yield str(name)
        if isinstance(found, griffe.Class):
            told = {member for base in found.mro() for member, its in base.members.items() if _says_something(its)}
            for member, its in found.members.items():
                if its.is_function and not member.startswith("_") and member not in told and not _says_something(its):
                    yield f"{name}.{member}"


def _says_something(member: Any) -> bool:
    return not member.is_alias and member.has_docstring


def _origins(path: str) -> str:
    """The sections of a docstring that say where something comes from, and where it differs."""
    found = _object(path)
    told = {
        section.value.kind: section.value.contents
        for section in (found.docstring.parsed if found.docstring else ())
        if section.kind is griffe.DocstringSectionKind.admonition
    }
    parts = [f"*{title}.* {' '.join(told[kind].split())}" for kind, title in SECTIONS.items() if kind in told]
    if not parts:
        raise PluginError(f"{path} has neither a Reference nor a Note: there is nothing to show.")
    return "\n\n".join(parts)


def _commands() -> Iterator[str]:
    context = click.Context(main, info_name="keras-remos")
    for name in sorted(COMMANDS):
        command = main.get_command(context, name)
        assert command is not None
        yield from _command(command, click.Context(command, info_name=name, parent=context), level=2)


def _command(command: click.Command, context: click.Context, *, level: int) -> Iterator[str]:
    yield f"{'#' * level} {context.command_path}\n"
    yield from (f"{' '.join(paragraph.split())}\n" for paragraph in re.split(r"\n\s*\n", (command.help or "").strip()))
    if isinstance(command, WithExamples):
        yield "\n".join(["```console", *(f"$ {line}  # {purpose}" for purpose, line in command.examples), "```\n"])
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from _command(below, click.Context(below, info_name=name, parent=context), level=level + 1)
        return
    yield f"```text\n{' '.join(command.get_usage(context).removeprefix('Usage: ').split())}\n```\n"
    assert isinstance(command, Described), f"{context.command_path} has no sections"
    for title, options in command.sections(context):
        if options:
            yield f"| {title.lower()} | does |\n|---|---|"
            yield from (_row(option.get_help_record(context) or ("", "")) for option in options)
            yield ""


def _row(record: tuple[str, str]) -> str:
    flags, says = (escape(" ".join(part.split())).replace("|", "&#124;") for part in record)
    return f'| <code class="option">{flags.replace("&#124;", "&#124;<wbr>")}</code> | {says} |'
