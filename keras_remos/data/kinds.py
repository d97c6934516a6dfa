"""What a data set on disk may hold, and which parts it may have."""

from typing import Literal

Kind = Literal["image", "array", "text"]
Split = Literal["train", "test"]
