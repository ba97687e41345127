"""What a request that is sent again is answered with, so that creating or rotating a key twice is doing it once.

The answer holds a secret, so it is kept sealed: only who sent the request can have it opened. It is kept in the
transaction of the change that it tells of: neither is ever there without the other.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from machpay_gateway.core.keys.key import KeyRecord

IDEMPOTENCY_SECONDS = 86_400


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """A *sealed* answer, given *at* a moment. *name* is the digest of who asked and of the name they gave the request.

    *request* is the digest of what was asked: another request of the same name is not the same request.
    """

    name: bytes
    request: bytes
    sealed: bytes = field(repr=False)
    at: float


# Makes the answer from the key as it is stored; runs within the transaction, so it does no I/O.
ResponseFactory = Callable[[KeyRecord], StoredResponse]


def completion_marker(name: bytes, at: float) -> StoredResponse:
    """Return what keeps something that was told *at* a moment under *name* from being told again: it has no answer."""
    return StoredResponse(name, b"", b"", at)
