"""What all results have in common: their response, and members that this release does not know."""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, Protocol, TypeVar

from machpay._rate_limit import RateLimit
from machpay._response import Response


class Identified(Protocol):
    """A result with an id, as pages have them."""

    @property
    def id(self) -> str: ...


T = TypeVar("T", bound=Identified)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A result. *extra* holds members that only newer servers send, *response* the status and the headers."""

    response: Response = field(repr=False, compare=False)
    extra: Mapping[str, object] = field(default_factory=dict, repr=False, hash=False)

    @property
    def request_id(self) -> str | None:
        """The server's id of the request."""
        return self.response.request_id

    @property
    def rate_limit(self) -> RateLimit | None:
        """The limits that the request counted against."""
        return self.response.rate_limit

    def to_dict(self) -> dict[str, Any]:
        """Return the result as values of JSON: every field, members of `.extra`, times in RFC 3339.

        It has secrets and tokens unmasked, and nothing of `.response`.
        """
        return _members(self)


def _members(value: Any) -> dict[str, Any]:  # noqa: ANN401 - an instance of a dataclass
    named = {each.name: getattr(value, each.name) for each in fields(value) if each.name not in {"response", "extra"}}
    return {name: _plain(each) for name, each in (dict(getattr(value, "extra", {})) | named).items()}


def _plain(value: Any) -> Any:  # noqa: ANN401 - any field of a result
    if is_dataclass(value):
        return _members(value)
    if isinstance(value, dt.datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(each) for each in value]
    return value
