"""What a header or a record may hold: type hints, which are compared with what JSON gave."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints, is_typeddict

from keras_remos.errors import RemosError

# Of what a value is, a message shows so much.
_SHOWN = 60


@dataclass(frozen=True)
class Between:
    """The least and the largest value that a number may have, or length that a list may have."""

    least: float
    most: float


Count = Annotated[int, Between(0, 2**62)]
"""How many there are of something, or the number of one of them."""
Share = Annotated[float, Between(0, 1)]
Figure = Annotated[float, Between(float("-inf"), float("inf"))]
"""A number that is not NaN."""
MOST_SEED = 2**128
Seed = Annotated[int, Between(0, MOST_SEED)]
Marks = Annotated[list[tuple[str, str]], Between(1, 2**31)]
"""Of a model's layers: path and digest of each."""


def check_seed(seed: Any) -> None:
    """Makes sure that a seed is one that a file may hold: it is recorded in whatever is drawn by it.

    Raises:
        RemosError: If it is not.
    """
    if isinstance(seed, Integral) and 0 <= int(seed) <= MOST_SEED:
        return
    # Python writes no number of thousands of digits.
    is_far = isinstance(seed, Integral) and abs(int(seed)) > MOST_SEED
    received = "one beyond that" if is_far else repr(seed)[:_SHOWN]
    raise RemosError(f"`seed` must be a whole number from 0 to 2**128, received {received}.")


def check(value: Any, expected: Any, name: str) -> None:
    """Compares a value out of JSON with a type.

    Args:
        value: The value.
        expected: A type hint: `str`, `int`, `float` (which takes whole numbers, too), `bool`, `None`, `Any`; of these
            `list[...]`, `tuple[..., ...]` (a list of that length), `dict[str, ...]`, unions, `Literal`, `Annotated`
            with `Between`, and classes of `TypedDict`, which may have more keys than they name.
        name: What to call the value in a message.

    Raises:
        ValueError: If it is something else; says what, and where.
    """
    if not _fits(value, expected, name):
        shown = repr(value)
        shown = shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}..."
        raise ValueError(f"{name}: expected {_said(expected)}, received {shown}")


def _fits(value: Any, expected: Any, name: str) -> bool:
    """Whether a value is of a type; of what it consists of, `check` says that itself."""
    origin, inner = get_origin(expected), get_args(expected)
    if expected is Any:
        return True
    if is_typeddict(expected):
        return isinstance(value, dict) and _check_keys(value, expected, name)
    if origin is Literal:
        return any(value == each and type(value) is type(each) for each in inner)
    if origin in (Union, types.UnionType):
        return any(_matches(value, each, name) for each in inner)
    if origin is Annotated:
        limits = inner[1]
        return _fits(value, inner[0], name) and limits.least <= _size(value) <= limits.most
    if origin is dict:
        for key, item in value.items() if isinstance(value, dict) else ():
            check(item, inner[1], f"{name}.{key}")
        return isinstance(value, dict)
    if origin in (list, tuple):
        return isinstance(value, list) and _check_items(value, origin, inner, name)
    if expected in (None, types.NoneType):
        return value is None
    if expected is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if expected is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, expected)


def _size(value: Any) -> Any:
    return len(value) if isinstance(value, list) else value


def _matches(value: Any, expected: Any, name: str) -> bool:
    try:
        return _fits(value, expected, name)
    except ValueError:
        return False


def _check_keys(value: Mapping[str, Any], expected: Any, name: str) -> bool:
    missing = sorted(expected.__required_keys__ - value.keys())
    if missing:
        raise ValueError(f"{name}: {', '.join(missing)} missing")
    for key, hint in get_type_hints(expected, include_extras=True).items():
        if key in value:
            check(value[key], hint, f"{name}.{key}")
    return True


def _check_items(value: list[Any], origin: type, inner: tuple[Any, ...], name: str) -> bool:
    if origin is tuple and len(value) != len(inner):
        return False
    for place, item in enumerate(value):
        check(item, inner[place] if origin is tuple else inner[0], f"{name}[{place}]")
    return True


def _said(expected: Any) -> str:
    origin, inner = get_origin(expected), get_args(expected)
    if origin is Annotated:
        return f"{_said(inner[0])} from {inner[1].least:g} to {inner[1].most:g}"
    if origin in (Union, types.UnionType):
        return " or ".join(_said(each) for each in inner)
    if origin is Literal:
        return " or ".join(repr(each) for each in inner)
    if origin is tuple:
        return f"a list of {len(inner)}"
    if is_typeddict(expected):
        return "an object"
    named = {str: "text", int: "a whole number", float: "a number", bool: "true or false", types.NoneType: "null"}
    return named.get(expected) or {list: "a list", dict: "an object"}[origin or expected]
