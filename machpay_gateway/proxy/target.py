"""The target of a request: the decision and the upstream use the same path."""

import re
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import quote, unquote_to_bytes

from machpay_gateway.web.path import LONG, canonical_path

_ABSOLUTE = re.compile(rb"(?i:https?)://([^/?]+)(.*)")
_SAFE = "/:@!$&'()*+,;=-._~"  # RFC 3986 §3.3 pchar, less the escape itself


class RequestTarget(NamedTuple):
    """A parsed request target. *forwarded* is the path and query that the upstream gets."""

    path: str | None  # None when it is ambiguous
    forwarded: bytes


def parse_target(target: bytes, host: bytes | None) -> RequestTarget | None:
    """Return the parsed *target*, None unless it has the origin form or names *host* (RFC 9112 §3.2)."""
    if target[:1] != b"/" and target != b"*":
        match = _ABSOLUTE.fullmatch(target)
        if match is None or host is None or match[1].lower() != host.lower():
            return None
        target = match[2] if match[2][:1] == b"/" else b"/" + match[2]
    raw, mark, query = target.partition(b"?")
    path, forwarded = _parse_path(raw) if len(raw) < LONG else _parse_path.__wrapped__(raw)
    return RequestTarget(path, forwarded + mark + query)


@lru_cache(maxsize=1024)  # long paths are not cached, so that they cannot fill the memory
def _parse_path(raw: bytes) -> tuple[str | None, bytes]:
    """Return the path to decide by, None when it is ambiguous, and the same path as it is forwarded.

    Unnecessary escapes are removed: an upstream that does not decode them would otherwise route by another path.
    """
    if b"%" not in raw:
        return canonical_path.__wrapped__(raw.decode("ascii"), raw, None), raw
    path = canonical_path.__wrapped__(unquote_to_bytes(raw).decode("utf-8", "replace"), raw, None)
    return path, b"" if path is None else quote(path, safe=_SAFE).encode()
