"""Affinity: what makes requests go to the same server of an upstream, with `balance = "hash"`."""

from math import log

from machpay_gateway.core.decision.principal import Anonymous, Principal
from machpay_gateway.proxy.heads import RequestHead

KEY, OWNER, ADDRESS = "key", "owner", "address"  # any other name is that of a cookie
_COOKIE = b"\r\ncookie:"
_BITS = 52  # with half a bit more, a float holds them exactly


def affinity_of(by: str, principal: Principal | Anonymous | None, address: int | None, head: RequestHead) -> bytes:
    """Return what requests that belong together have in common, by the setting `hash_by`.

    It is the caller's *address* where the request has nothing else: without a caller, an owner, or that cookie.
    """
    value: str | bytes | None = None
    if by == KEY:
        value = principal.id if isinstance(principal, Principal) else None
    elif by == OWNER:
        value = (principal.owner or principal.account_id) if isinstance(principal, Principal) else None
    elif by != ADDRESS:
        value = _cookie(head.start, by.encode())
    if value:
        return value.encode() if isinstance(value, str) else value
    return str(address).encode()


def rendezvous_score(digest: bytes, weight: float) -> float:
    """Return the score of a server with *weight*; *digest*, 8 bytes, is that of the server and what it is chosen by.

    The server with the highest score is chosen: each gets its share by weight, and without it only its own requests
    move (weighted rendezvous hashing: Schindelhauer and Schomaker, 2005).
    """
    share = ((int.from_bytes(digest, "big") >> 64 - _BITS) + 0.5) / 2**_BITS  # above 0 and below 1
    return -weight / log(share)


def _cookie(start: bytes, name: bytes) -> bytes | None:
    """Return the value of the cookie *name* in the header lines of *start*."""
    lowered = start.lower()
    at = lowered.find(_COOKIE)
    while at >= 0:
        begin = at + len(_COOKIE)
        end = start.find(b"\r\n", begin)
        for pair in start[begin : end if end >= 0 else len(start)].split(b";"):
            cookie, mark, value = pair.strip(b" \t").partition(b"=")
            if mark and cookie == name:
                return value
        at = lowered.find(_COOKIE, begin)
    return None
