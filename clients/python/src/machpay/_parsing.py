"""Parsing of JSON responses. Optional members may be missing, unknown ones are preserved, wrong types are errors."""

import datetime as dt
import json
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

from machpay._response import Response
from machpay.errors import InvalidResponseError

_T = TypeVar("_T")


class ParseError(ValueError):
    """A member is missing or has the wrong type."""


class ObjectParser:
    """Parses the members of a JSON object one by one. Those not yet parsed are the *rest*."""

    def __init__(self, members: Mapping[str, object]) -> None:
        self._remaining = dict(members)

    def required(self, name: str, read: Callable[[object], _T]) -> _T:
        """Return the member *name*."""
        if self._remaining.get(name) is None:
            raise ParseError(f"{name} is missing")
        return self._read(name, read)

    def optional(self, name: str, read: Callable[[object], _T], default: _T) -> _T:
        """Return the member *name*, or *default* when it is missing or null."""
        if self._remaining.get(name) is None:
            self._remaining.pop(name, None)
            return default
        return self._read(name, read)

    def rest(self) -> Mapping[str, object]:
        """Return the members that were not parsed."""
        return dict(self._remaining)

    def _read(self, name: str, read: Callable[[object], _T]) -> _T:
        value = self._remaining.pop(name)
        try:
            return read(value)
        except ParseError as exc:
            raise ParseError(f"{name}: {exc}") from None


def text(value: object) -> str:
    """Return *value*, a string."""
    if not isinstance(value, str):
        raise ParseError("not a string")
    return value


def optional_text(value: object) -> str | None:
    """Return *value*, a string. The default for a missing one is None."""
    return text(value)


def flag(value: object) -> bool:
    """Return *value*, true or false."""
    if not isinstance(value, bool):
        raise ParseError("neither true nor false")
    return value


def moment(value: object) -> dt.datetime | None:
    """Return *value*, a time in RFC 3339. One without an offset is taken as UTC, like all times of the API."""
    try:
        parsed = dt.datetime.fromisoformat(text(value))
    except ValueError:
        raise ParseError("not a time") from None
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=dt.UTC)


def texts(value: object) -> tuple[str, ...]:
    """Return *value*, an array of strings."""
    return tuple(text(item) for item in items(value))


def mapping(value: object) -> Mapping[str, object]:
    """Return *value*, an object."""
    if not isinstance(value, dict):
        raise ParseError("not an object")
    return value


def whole(value: object) -> int:
    """Return *value*, a whole number."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise ParseError("not a whole number")
    return value


def optional_whole(value: object) -> int | None:
    """Return *value*, a whole number. The default for a missing one is None."""
    return whole(value)


def number(value: object) -> float | None:
    """Return *value*, a number. The default for a missing one is None."""
    return value if isinstance(value, float) else float(whole(value))


def counts(value: object) -> Mapping[str, int]:
    """Return *value*, an object of whole numbers."""
    return {name: whole(count) for name, count in mapping(value).items()}


def items(value: object) -> Iterator[object]:
    """Return the items of *value*, an array."""
    if not isinstance(value, list):
        raise ParseError("not an array")
    return iter(value)


def parse_object(
    response: Response, read: Callable[[Mapping[str, object], Response], _T], *, server: str = "base_url"
) -> _T:
    """Return the JSON object in *response*, parsed by *read*. *server* is the option that names its server."""
    try:
        return read(mapping(json.loads(response.body)), response)
    except ParseError as exc:
        raise InvalidResponseError(f"The response is invalid: {exc}. Is this package too old?", response) from None
    except (ValueError, RecursionError):
        kind = response.headers.get("content-type", "of unknown type")
        raise InvalidResponseError(
            f"The response is not JSON but {kind} (status {response.status}); is {server} right?", response
        ) from None
