"""Names of our cookies, and how they are taken out of what is exchanged with an upstream.

An upstream that reads a session cookie is the user; one that can set it decides who the user is.
"""

import re

PREFIX, HOST_PREFIX = "machpay-", "__Host-machpay-"
_MARK = b"machpay-"
# Browsers prefix cookies by case-insensitive names (RFC 6265bis §5.7), store `=name=value` and `name` without a name
# but send both as they would `name`, and servers strip more than spaces off a name: U+00A0, U+2000, quotes. So
# whatever is no character of a name and stands before one of ours makes no difference, and neither does an `=`.
_OURS = re.compile(rb"[^!#$%&'*+\-.^_`|~0-9A-Za-z]*(?:__(?:host|secure)-)?machpay-", re.IGNORECASE)


def split_own_cookies(value: bytes) -> tuple[bytes, bytes] | None:
    """Return a Cookie field's *value* without our cookies, and ours apart; None when it holds none of them.

    The other cookies stay byte for byte; either is empty when nothing is left.
    """
    if _MARK not in value.lower():
        return None
    pairs = value.split(b";")
    ours = [pair for pair in pairs if _OURS.match(pair)]
    if not ours:
        return None
    others = b";".join(pair for pair in pairs if not _OURS.match(pair)).strip(b" \t;")
    return others, b"; ".join(pair.strip(b" \t") for pair in ours)


def sets_own_cookie(value: bytes) -> bool:
    """Tell whether a Set-Cookie field's *value* would have a browser send a cookie under a name of ours."""
    return _OURS.match(value) is not None
