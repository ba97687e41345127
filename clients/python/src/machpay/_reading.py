"""JSON into values, once, at the edge. Missing optional members are tolerated, unknown ones kept, wrong ones told."""

import datetime as dt
import json
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import TypeVar

from machpay._response import Response
from machpay.errors import InvalidResponseError

_T = TypeVar("_T")


class Unreadable(ValueError):
    """A member is not what it has to be."""


class Members:
    """The members of a JSON object, of which those not yet read are the *rest*."""

    def __init__(self, members: Mapping[str, object]) -> None:
        self._unread = dict(members)

    def required(self, name: str, read: Callable[[object], _T]) -> _T:
        """Return the member *name*."""
        if self._unread.get(name) is None:
            raise Unreadable(f"{name} is missing")
        return self._read(name, read)

    def optional(self, name: str, read: Callable[[object], _T], default: _T) -> _T:
        """Return the member *name*, or *default* when it is missing or null."""
        if self._unread.get(name) is None:
            self._unread.pop(name, None)
            return default
        return self._read(name, read)

    def rest(self) -> Mapping[str, object]:
        """Return what nobody read."""
        return MappingProxyType(self._unread)

    def _read(self, name: str, read: Callable[[object], _T]) -> _T:
        value = self._unread.pop(name)
        try:
            return read(value)
        except Unreadable as exc:
            raise Unreadable(f"{name}: {exc}") from None


def text(value: object) -> str:
    """Return *value*, a string."""
    if not isinstance(value, str):
        raise Unreadable("not a string")
    return value


def optional_text(value: object) -> str | None:
    """Return *value*, a string; None is what stands for a missing one."""
    return text(value)


def flag(value: object) -> bool:
    """Return *value*, true or false."""
    if not isinstance(value, bool):
        raise Unreadable("neither true nor false")
    return value


def moment(value: object) -> dt.datetime | None:
    """Return *value*, a time in RFC 3339. The API's times are UTC, also when one should not say so."""
    try:
        parsed = dt.datetime.fromisoformat(text(value))
    except ValueError:
        raise Unreadable("not a time") from None
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=dt.UTC)


def texts(value: object) -> tuple[str, ...]:
    """Return *value*, an array of strings."""
    return tuple(text(item) for item in items(value))


def mapping(value: object) -> Mapping[str, object]:
    """Return *value*, an object."""
    if not isinstance(value, dict):
        raise Unreadable("not an object")
    return MappingProxyType(value)


def whole(value: object) -> int:
    """Return *value*, a whole number."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise Unreadable("not a whole number")
    return value


def optional_whole(value: object) -> int | None:
    """Return *value*, a whole number; None is what stands for a missing one."""
    return whole(value)


def number(value: object) -> float | None:
    """Return *value*, a number; None is what stands for a missing one."""
    return value if isinstance(value, float) else float(whole(value))


def counts(value: object) -> Mapping[str, int]:
    """Return *value*, an object of whole numbers."""
    return MappingProxyType({name: whole(count) for name, count in mapping(value).items()})


def items(value: object) -> Iterator[object]:
    """Return the items of *value*, an array."""
    if not isinstance(value, list):
        raise Unreadable("not an array")
    return iter(value)


def read_object(
    response: Response, read: Callable[[Mapping[str, object], Response], _T], *, at: str = "base_url"
) -> _T:
    """Return what *read* makes of the JSON object in *response*, which came from where the option *at* says."""
    try:
        return read(mapping(json.loads(response.body)), response)
    except Unreadable as exc:
        raise InvalidResponseError(f"The answer cannot be read: {exc}. Is this package too old?", response) from None
    except (ValueError, RecursionError):
        kind = response.headers.get("content-type", "nothing that says what it is")
        raise InvalidResponseError(
            f"The answer is no JSON but {kind} (status {response.status}); is {at} right?", response
        ) from None
