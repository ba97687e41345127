"""The default of optional arguments of updates, where None is a value that can be set."""

from enum import Enum


class NotGiven(Enum):
    """The type of `NOT_GIVEN`. It is an enumeration, so that type checkers can distinguish it from every value."""

    NOT_GIVEN = "not given"

    def __repr__(self) -> str:
        return "NOT_GIVEN"

    def __bool__(self) -> bool:
        return False


NOT_GIVEN = NotGiven.NOT_GIVEN
