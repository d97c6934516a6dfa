"""Pictures in results: PNGs as data URIs, checked before a page shows them, and as many as a page has room for."""

from __future__ import annotations

import base64
import struct
from collections.abc import Sequence

_PREFIX = "data:image/png;base64,"
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Signature, length and name of the first chunk, width and height: in bytes.
_HEADER = 24
# A browser allocates what the header of a picture says.
_MOST_PIXELS = 2**24
# What is narrower is shown larger than it is.
_SHOWN_WIDTH = 140


def check_picture(uri: str, name: str) -> None:
    """Makes sure that a text is a PNG as a data URI, and nothing else.

    Args:
        uri: The text.
        name: What to call it in a message.

    Raises:
        ValueError: If it is anything else, or a picture of more than 16 million pixels.
    """
    if not uri.startswith(_PREFIX):
        raise ValueError(f"{name}: expected a picture as {_PREFIX}..., received {uri[:30]!a}...")
    try:
        content = base64.b64decode(uri.removeprefix(_PREFIX), validate=True)
    except ValueError as error:
        raise ValueError(f"{name}: its base64 is damaged ({error})") from error
    if content[:8] != _SIGNATURE or content[12:16] != b"IHDR" or len(content) < _HEADER:
        raise ValueError(f"{name}: what it holds is no PNG")
    width, height = struct.unpack(">II", content[16:_HEADER])
    if not 0 < width * height <= _MOST_PIXELS:
        raise ValueError(f"{name}: a picture of {width} x {height} pixels, more than {_MOST_PIXELS:,}")


def is_small(uri: str) -> bool:
    """Whether a picture that has been checked is shown larger than it is."""
    header = base64.b64decode(uri[len(_PREFIX) : len(_PREFIX) + _HEADER // 3 * 4])
    width: int = struct.unpack(">I", header[16:20])[0]
    return width < _SHOWN_WIDTH


def is_picture(text: object) -> bool:
    """Whether a text means to be a picture, where nothing else says what the inputs are."""
    return isinstance(text, str) and text.startswith(_PREFIX)


def that_fit(sizes: Sequence[Sequence[int]], room: int) -> list[int]:
    """How many examples of each attack a page has room for: the first of each, then the second, and so on.

    Args:
        sizes: For each attack, of each of its examples how many characters its pictures have.
        room: How many they may have together.

    Returns:
        For each attack, how many of its examples are shown.
    """
    fitting = [0] * len(sizes)
    for turn in range(max(map(len, sizes), default=0)):
        for attack, own in enumerate(sizes):
            if fitting[attack] == turn < len(own) and own[turn] <= room:
                room -= own[turn]
                fitting[attack] += 1
    return fitting
