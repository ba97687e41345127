"""The input of a decision, the same for every front."""

from typing import NamedTuple


class RequestFacts(NamedTuple):
    """The parts of a request that a decision depends on. A tuple, because one is made for every request."""

    method: str
    path: str | None  # canonical, as the application routes by it; None when it is ambiguous
    authorization: tuple[bytes, ...]
    address: int | None  # the client's, as `core.network.address` has it; None when unreadable
    request_id: bytes
    preflight_for: str | None = None  # the method of the request that a CORS preflight announces
    proof: tuple[bytes, ...] = ()  # values of the DPoP header (RFC 9449)

    def __repr__(self) -> str:
        return f"RequestFacts({self.method} {self.path!r}, request {self.request_id.decode()})"  # no credential
