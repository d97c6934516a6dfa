"""Kinds of numbers that options take."""

import math
from typing import Any

import click
from click.types import FloatParamType

# As many digits as NumPy's whole numbers have in any case. Python itself refuses to read some thousands.
_MOST_DIGITS = 18

# Files hold seeds up to the one after it, which attackers take who train a copy of their own.
MOST_SEED = 2**128 - 1


class Number(FloatParamType):
    """A number that is neither NaN nor infinite."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number.", param, ctx)
        return number


class NumberBetween(Number, click.FloatRange):
    """The same within bounds, which are given as for `click.FloatRange`."""


NUMBER = Number()


def whole_number(text: str) -> int | None:
    """What digits say; `None` if there is something else, or they are more than any count has."""
    return int(text) if text.isdecimal() and len(text) <= _MOST_DIGITS else None
