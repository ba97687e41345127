"""What a decision needs to know of a request, whatever front it came through."""

from typing import NamedTuple


class RequestFacts(NamedTuple):
    """One request as the decision sees it. A tuple, because one is made for every request."""

    method: str
    path: str | None  # canonical: what is authorised is what the application routes by; None when it is ambiguous
    authorization: tuple[bytes, ...]
    address: int | None  # the client's place on the line of addresses, None when it cannot be read
    request_id: bytes
    preflight_for: str | None = None  # the method that a CORS preflight asks about
    proof: tuple[bytes, ...] = ()  # of the key that the token is bound to (RFC 9449)

    def __repr__(self) -> str:
        return f"RequestFacts({self.method} {self.path!r}, request {self.request_id.decode()})"  # no credential
