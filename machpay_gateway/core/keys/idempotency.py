"""Stored responses to idempotent requests: a retry creates or rotates a key only once.

The response holds a secret, so it is stored encrypted, and only a request with the same credentials can decrypt it. It
is stored in the transaction of the change: neither is ever stored without the other.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from machpay_gateway.core.keys.key import KeyRecord

IDEMPOTENCY_SECONDS = 86_400


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """A response, encrypted as *sealed* and stored *at* a time.

    *name* is the digest of the caller and the idempotency key.
    *request* is the digest of the request: an idempotency key must not be reused for a different request.
    """

    name: bytes
    request: bytes
    sealed: bytes = field(repr=False)
    at: float


# Builds the response from the key as stored. It runs within the transaction, so it does no I/O.
ResponseFactory = Callable[[KeyRecord], StoredResponse]


def completion_marker(name: bytes, at: float) -> StoredResponse:
    """Return a record without a response, which only marks that *name* was processed *at* a time."""
    return StoredResponse(name, b"", b"", at)
