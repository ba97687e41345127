"""What all results have in common: how they came, and the members that this release does not know."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from machpay._rate_limit import RateLimit
from machpay._response import Response


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """A result. *extra* holds what a newer server sends besides, *response* the status and the headers."""

    response: Response = field(repr=False, compare=False)
    extra: Mapping[str, object] = field(default_factory=dict, repr=False)

    @property
    def request_id(self) -> str | None:
        """What the server calls the request that brought this."""
        return self.response.request_id

    @property
    def rate_limit(self) -> RateLimit | None:
        """The limits that the request counted against."""
        return self.response.rate_limit
