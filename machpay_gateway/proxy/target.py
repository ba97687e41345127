"""The target of a request: what the decision is made by, and what the upstream gets."""

import re
from typing import NamedTuple

from machpay_gateway.web.path_reader import PathReader

_ABSOLUTE = re.compile(rb"(?i:https?)://([^/?]+)(.*)")


class RequestTarget(NamedTuple):
    """A parsed request target. *forwarded* is the path and query that the upstream gets."""

    path: str | None  # None when it is refused
    forwarded: bytes


def parse_target(target: bytes, method: str, host: bytes | None, paths: PathReader) -> RequestTarget | None:
    """Return the parsed *target*, None unless it has the origin form or names *host* (RFC 9112 §3.2)."""
    if target[:1] != b"/" and target != b"*":
        match = _ABSOLUTE.fullmatch(target)
        if match is None or host is None or match[1].lower() != host.lower():
            return None
        target = match[2] if match[2][:1] == b"/" else b"/" + match[2]
    raw, mark, query = target.partition(b"?")
    path, forwarded = paths.read(method, raw)
    return RequestTarget(path, forwarded + mark + query)
