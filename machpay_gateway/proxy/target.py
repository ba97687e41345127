"""The target of a request: which path is decided by, and that it is the one that goes on."""

import re
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import quote, unquote_to_bytes

from machpay_gateway.web.path import LONG, canonical_path

_ABSOLUTE = re.compile(rb"(?i:https?)://([^/?]+)(.*)")
_SAFE = "/:@!$&'()*+,;=-._~"  # RFC 3986 §3.3 pchar, less the escape itself


class Target(NamedTuple):
    """Where a request wants to go. *sent_on* is *path* and query as they are forwarded."""

    path: str | None  # None when it is ambiguous
    sent_on: bytes


def read_target(target: bytes, host: bytes | None) -> Target | None:
    """Return what a *target* means, None unless it is of origin-form or names this very *host* (RFC 9112 §3.2)."""
    if target[:1] != b"/" and target != b"*":
        match = _ABSOLUTE.fullmatch(target)
        if match is None or host is None or match[1].lower() != host.lower():
            return None
        target = match[2] if match[2][:1] == b"/" else b"/" + match[2]
    raw, mark, query = target.partition(b"?")
    path, sent_on = _short_path(raw) if len(raw) < LONG else _short_path.__wrapped__(raw)
    return Target(path, sent_on + mark + query)


@lru_cache(maxsize=1024)  # what is remembered must not fill the memory, so that longer ones are not
def _short_path(raw: bytes) -> tuple[str | None, bytes]:
    """Return the path that is decided by, None when it is ambiguous, and the same path as it is forwarded.

    Escapes that say nothing are undone: an upstream that does not decode would otherwise route by another path.
    """
    if b"%" not in raw:
        return canonical_path.__wrapped__(raw.decode("ascii"), raw, None), raw
    path = canonical_path.__wrapped__(unquote_to_bytes(raw).decode("utf-8", "replace"), raw, None)
    return path, b"" if path is None else quote(path, safe=_SAFE).encode()
