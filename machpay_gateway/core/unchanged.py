"""The one value that says a setting was not given, where None means something."""

from enum import Enum
from typing import Literal


class Unchanged(Enum):
    """Has one member, so that a type can tell it from every setting."""

    UNCHANGED = "unchanged"


UNCHANGED: Literal[Unchanged.UNCHANGED] = Unchanged.UNCHANGED
