"""The gateway's own cookies, and how they are kept from upstreams.

An upstream that reads a session cookie can act as the user; one that can set it decides who the user is.
"""

import re

PREFIX, HOST_PREFIX = "machpay-", "__Host-machpay-"
_MARK = b"machpay-"
# Browsers match the prefixes case-insensitively (RFC 6265bis §5.7). They store `=name=value` as a cookie without a name
# and send it like `name=value`; and servers strip more than spaces from a name: U+00A0, U+2000, quotes. So any
# characters before the name that are not part of a name are ignored, `=` among them.
_OURS = re.compile(rb"[^!#$%&'*+\-.^_`|~0-9A-Za-z]*(?:__(?:host|secure)-)?machpay-", re.IGNORECASE)


def split_own_cookies(value: bytes) -> tuple[bytes, bytes] | None:
    """Return the other cookies and ours of a Cookie field's *value*; None when it has none of ours.

    The other cookies stay unchanged, byte for byte. They are empty when there are none.
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
    """Tell whether a Set-Cookie field's *value* could make a browser send a cookie with one of our names."""
    return _OURS.match(value) is not None
