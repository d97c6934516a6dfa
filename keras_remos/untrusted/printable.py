"""Names out of files, as a terminal may show them: nothing in them moves the cursor, or passes for what we say."""

from __future__ import annotations

import re
from collections.abc import Iterable

# Controls (escape sequences, ends of lines), what turns the direction of writing or is invisible, half characters.
_TRICKS = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)


def printable(text: object, *, lines: bool = False) -> str:
    r"""Text with what is no visible character escaped, as Python writes it: `\x1b`, `\u202e`.

    Args:
        text: What is to be shown: a name, or a value whose `str` is.
        lines: Whether ends of lines are meant, and stay. They are not in a name, which could fake a line otherwise.
    """
    return _TRICKS.sub(lambda found: found[0] if lines and found[0] == "\n" else _escaped(found[0]), str(text))


def in_lines(lines: Iterable[str]) -> str:
    """Lines as one text, in which each stays one line, whatever names are in it."""
    return "\n".join(map(printable, lines))


def is_unicode(text: str) -> bool:
    """Whether text is made of whole characters: JSON and damaged files may hold halves of some."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def encodable(text: str, encoding: str | None) -> str:
    """Text in which what an encoding does not have is escaped.

    Args:
        text: What is to be written.
        encoding: Of the stream that it is written to; `None` for one that takes all.
    """
    return text if encoding is None else text.encode(encoding, "backslashreplace").decode(encoding)


def _escaped(character: str) -> str:
    number = ord(character)
    if number < 0x100:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"
