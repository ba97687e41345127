"""A sentinel for an argument that was not passed, where None is a value."""

from enum import Enum
from typing import Literal


class Unchanged(Enum):
    """The type of the sentinel: an enum with one member, which type checkers understand."""

    UNCHANGED = "unchanged"


UNCHANGED: Literal[Unchanged.UNCHANGED] = Unchanged.UNCHANGED
