"""What all results have in common: their response, and members that this release does not know."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

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
    extra: Mapping[str, object] = field(default_factory=dict, repr=False)

    @property
    def request_id(self) -> str | None:
        """The server's id of the request."""
        return self.response.request_id

    @property
    def rate_limit(self) -> RateLimit | None:
        """The limits that the request counted against."""
        return self.response.rate_limit
