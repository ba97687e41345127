"""Targets with every escape, and what may differ between the target that came and the one that is forwarded."""

import random
import re
from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

SEED = 20261130
_POSITIONS = ("/a{}b", "/{}", "/a/{}/b", "/a{}", "/a/b;x={}/c", "/a?q={}&r={}")
_UNRESERVED = re.compile(r"%(2[DE]|3[0-9]|[46][1-9A-F]|[57][0-9A]|5F|7E)", re.IGNORECASE)
_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")
_OVERLONG = re.compile(rb"[\xc0\xc1]|\xe0[\x80-\x9f]|\xf0[\x80-\x8f]")

# Why a target is not forwarded as it came.
SAME = ""
UNRESERVED = "an escape of an unreserved character is equivalent to the character (RFC 3986 §6.2.2.2)"
CONTROL = "servers disagree on control characters, and some end the path there: refused"
BACKSLASH = "some servers take a backslash for a slash: refused"
OVERLONG = "overlong UTF-8 is a slash or a dot to decoders that do not check: refused"
REPLACED = "U+FFFD cannot be told from what servers put for broken bytes: refused"
DOTS = "servers disagree on dot segments, escaped or with parameters, also behind an encoded slash: refused"
REASONS = (SAME, UNRESERVED, CONTROL, BACKSLASH, OVERLONG, REPLACED, DOTS)


class Expected(NamedTuple):
    """The target that is *forwarded*, None if it is refused, and the reason if it differs from the one that came."""

    forwarded: str | None
    reason: str


def targets(count: int) -> Iterator[str]:
    """Yield *count* different targets: every escape in each place, and in the rest, combinations drawn by a seed.

    A smaller number of them is a sample.
    """
    draw = random.Random(SEED)  # noqa: S311 - to be the same again
    every = [
        position.replace("{}", form)
        for byte in range(256)
        for form in (f"%{byte:02X}", f"%{byte:02x}", f"%25{byte:02X}")
        for position in _POSITIONS
    ]
    chosen = dict.fromkeys(every if count >= len(every) else draw.sample(every, count // 2))
    pieces = [f"%{byte:02x}" for byte in range(0x20, 0x7F)] + ["%C3%A9", "%e2%82%AC", "%F0%9F%94%91", "%EF%BF%BD"]
    pieces += ["a", "-", ".", "..", "~", ";x=1", ":", "@", "!", "$", "&", "'", "(", ")", "*", "+", ",", "=", "/", "%2F"]
    while len(chosen) < count:
        path = "/" + "".join(draw.choices(pieces, k=draw.randint(1, 6)))
        chosen[path] = None
    yield from chosen


def expected(target: str) -> Expected:
    """Return what becomes of *target* where routes allow all that they may."""
    path, mark, query = target.partition("?")
    plain = unquote_to_bytes(path)
    text = plain.decode("utf-8", "replace")
    refused = (
        (CONTROL, _CONTROL.search(plain)),
        (BACKSLASH, b"\\" in plain),
        (OVERLONG, _OVERLONG.search(plain)),
        (REPLACED, b"\xef\xbf\xbd" in plain),
        (DOTS, any(segment.partition(";")[0] in {".", ".."} for segment in text.split("/"))),
    )
    for reason, applies in refused:
        if applies:
            return Expected(None, reason)
    forwarded = _UNRESERVED.sub(lambda match: chr(int(match[1], 16)), path)
    return Expected(forwarded + mark + query, SAME if forwarded == path else UNRESERVED)
