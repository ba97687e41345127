"""What forms on keys and on apps let people choose alike: scopes, an environment, and how long a secret works on."""

from collections.abc import Collection, Iterable, Iterator
from http import HTTPStatus
from itertools import islice
from typing import NamedTuple

from machpay_gateway.console.forms import Form
from machpay_gateway.console.page_request import PageError
from machpay_gateway.core.errors import InputError
from machpay_gateway.core.keys.key import DAY_SECONDS, ENVIRONMENTS
from machpay_gateway.core.oauth.scope_descriptions import describe_scope

# How long the secret that is replaced works on: seconds, and in words.
GRACES = (
    (0, "not at all: it ends now"),
    (3600, "1 hour"),
    (DAY_SECONDS, "1 day"),
    (3 * DAY_SECONDS, "3 days"),
    (7 * DAY_SECONDS, "7 days"),
)


class ScopeChoice(NamedTuple):
    """A scope that may be chosen: its name, what it allows in words, and whether it is ticked."""

    name: str
    words: str
    is_ticked: bool


class Note(NamedTuple):
    """What is said of one line of a field while it is typed: its normal form, or what is wrong with it."""

    told: str
    is_right: bool


def limited(notes: Iterator[Note], count: int, most: int) -> list[Note]:
    """Return the first *most* of *count* *notes*, and that there are more: typing may hold up no request."""
    first = list(islice(notes, most))
    return (
        first if count <= most else [*first, Note(f"{count - most} more than the {most} there can be.", is_right=False)]
    )


def scope_choices(known: Iterable[str], ticked: Collection[str]) -> list[ScopeChoice]:
    """Return every *known* scope, and what else is *ticked* already, as wildcards may be."""
    known = list(known)
    names = [*known, *(name for name in ticked if name not in known)]
    return [ScopeChoice(name, describe_scope(name), name in ticked) for name in names]


def check_environment(name: str) -> None:
    """Raise InputError unless there is an environment of that *name*."""
    if name not in ENVIRONMENTS:
        raise InputError("Choose live or test.")


def grace_in(form: Form) -> int:
    """Return the seconds that were chosen of `GRACES`. Raises TurnedAwayError for any other."""
    chosen = form.text("grace")
    if chosen not in {str(seconds) for seconds, _ in GRACES}:
        raise PageError(HTTPStatus.UNPROCESSABLE_ENTITY, "Choose for how long the current secret works on.")
    return int(chosen)
