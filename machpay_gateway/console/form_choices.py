"""Choices and live checks that the forms of keys and apps share: scopes, environment, and grace period."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from http import HTTPStatus
from itertools import islice
from typing import NamedTuple

from machpay_gateway.console.forms import Form
from machpay_gateway.console.page_request import PageError
from machpay_gateway.core.errors import InputError
from machpay_gateway.core.keys.key import DAY_SECONDS, ENVIRONMENTS
from machpay_gateway.core.oauth.scope_descriptions import describe_scope

# For how long a replaced secret still works: seconds, and the label of the choice.
GRACE_PERIODS = (
    (0, "none: it stops working now"),
    (3600, "1 hour"),
    (DAY_SECONDS, "1 day"),
    (3 * DAY_SECONDS, "3 days"),
    (7 * DAY_SECONDS, "7 days"),
)


class ScopeChoice(NamedTuple):
    """A checkbox of a scope."""

    name: str
    description: str
    is_checked: bool


class LineCheck(NamedTuple):
    """The check of one line while it is typed: *text* is its normal form, or what is wrong with it."""

    text: str
    is_valid: bool


def limit_checks(checks: Iterator[LineCheck], count: int, limit: int) -> list[LineCheck]:
    """Return the first *limit* of *count* *checks*, and an error if there are more. Bounds the work per keystroke."""
    first = list(islice(checks, limit))
    if count <= limit:
        return first
    return [*first, LineCheck(f"{count - limit} too many: the limit is {limit}.", is_valid=False)]


def scope_choices(
    defined: Iterable[str], checked: Collection[str], descriptions: Mapping[str, str]
) -> list[ScopeChoice]:
    """Return every *defined* scope, and those *checked* already that are none of them, such as wildcards.

    *descriptions* are those in the settings.
    """
    defined = list(defined)
    names = [*defined, *(name for name in checked if name not in defined)]
    return [ScopeChoice(name, describe_scope(name, descriptions), name in checked) for name in names]


def validate_environment(name: str) -> None:
    """Raise InputError unless *name* is an environment."""
    if name not in ENVIRONMENTS:
        raise InputError("Choose live or test.")


def parse_grace_period(form: Form) -> int:
    """Return the chosen one of `GRACE_PERIODS` in seconds. Raises PageError for any other value."""
    value = form.text("grace")
    if value not in {str(seconds) for seconds, _ in GRACE_PERIODS}:
        raise PageError(HTTPStatus.UNPROCESSABLE_ENTITY, "Choose a grace period.")
    return int(value)
