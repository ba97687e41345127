"""Paths as they come over the wire: the text that a route is matched by, and the bytes that are forwarded.

The bytes are forwarded as they came: a reserved character is not equivalent to its escape (RFC 3986 §2.2). Only the
escapes of unreserved characters, which are equivalent (§6.2.2.2), are undone, so that a server that does not decode
sees the same path as one that does.
"""

import re
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from machpay_gateway.core.decision.policy import Policy
from machpay_gateway.core.decision.route import Route
from machpay_gateway.core.decision.route_options import RouteOptions
from machpay_gateway.core.network.proxy_settings import ALLOW
from machpay_gateway.web.path import LONG, canonical_path, is_routable

# RFC 3986 §2.3: letters, digits and `-._~`.
_UNRESERVED = re.compile(rb"%(2[DEde]|3[0-9]|[46][1-9A-Fa-f]|[57][0-9Aa]|5[Ff]|7[Ee])")
# §3.3: the reserved characters that a literal segment of a route may have.
_RESERVED = re.compile(rb"%(?:2[146789A-Ca-c]|3[ABDabd]|40)")
_NON_ASCII = re.compile(rb"[\x80-\xff]")
_SLASH = re.compile(rb"%2[Ff]")
# Longer than necessary (RFC 3629 §3): `%C0%AF` is a slash to decoders that do not check.
_OVERLONG = re.compile(rb"[\xc0\xc1]|\xe0[\x80-\x9f]|\xf0[\x80-\x8f]")
_NOT_TEXT = re.compile("[\udc80-\udcff]")  # a byte that is not UTF-8, as `surrogateescape` has it
_ENCODED_SLASH = "%2F"


class SentPath(NamedTuple):
    """A path as it came. *path* is what routes are matched by, None if it is refused; *forwarded* goes upstream."""

    path: str | None
    forwarded: bytes


class _Reading(NamedTuple):
    """What a path says, whatever the policy is.

    *path* is decoded. *escaped* has the escapes of reserved characters in it, for a server that does not decode them;
    None if there are none. The flags are what a route must allow.
    """

    path: str | None
    escaped: str | None = None
    has_encoded_slash: bool = False
    has_double_slash: bool = False
    has_other_bytes: bool = False


class PathReader:
    """Reads paths by what the *options* of the routes of *policy* allow."""

    def __init__(
        self, policy: Policy | None = None, options: RouteOptions | None = None, *, check_prefix: str | None = None
    ) -> None:
        """Without a *policy*, read the paths that every route allows.

        Below *check_prefix* are check requests of other proxies: their paths are read again, as those of the clients.
        """
        self._check_prefix = check_prefix
        self._policy = policy
        self._options = options or RouteOptions()
        self._is_lenient = any(
            ALLOW in {each.encoded_slash, each.double_slash, each.non_utf8_escapes} for each in self._options.all
        )

    def read(self, method: str, raw: bytes) -> SentPath:
        """Return the path of *raw*, which is visible ASCII and has no query, in a request with this *method*."""
        if b"%" not in raw and not (self._is_lenient and b"//" in raw):
            return (_plain if len(raw) < LONG else _plain.__wrapped__)(raw)
        forwarded = _UNRESERVED.sub(_unescape, raw)
        reading = (_read if len(raw) < LONG else _read.__wrapped__)(forwarded)
        if reading.path is None:
            return SentPath(None, forwarded)
        return SentPath(self._matched(method, reading, reading.path), forwarded)

    def path_in(self, method: str, target: bytes) -> str | None:
        """Return what *target*, an undecoded path and query, is matched by; None when it is ambiguous or invalid."""
        if b"#" in target:  # servers disagree on where the path ends
            return None
        return self.read(method, escape_non_ascii(target.partition(b"?")[0])).path

    def _matched(self, method: str, reading: _Reading, path: str) -> str | None:
        """Return the text that the policy decides by, None if no route allows it."""
        policy = self._policy
        is_strict = not (reading.has_encoded_slash or reading.has_double_slash or reading.has_other_bytes)
        if policy is None:
            return path if is_strict else None
        escaped = reading.escaped
        # A server that does not decode matches another route. The policy adds those of servers that do.
        if escaped is not None and policy.is_listed(method, escaped):
            rules = policy.rule(method, path), policy.rule(method, escaped)
            if isinstance(rules[0], Route) and isinstance(rules[1], Route) and rules[0] is not rules[1]:
                path = escaped
        if not is_strict and self._is_lenient and self._check_prefix and path.startswith(self._check_prefix):
            return path
        return path if is_strict or self._allows(policy.rule(method, path), reading) else None

    def _allows(self, rule: object, reading: _Reading) -> bool:
        options = self._options.of(rule) if isinstance(rule, Route) else self._options.default
        return (
            (not reading.has_encoded_slash or options.encoded_slash == ALLOW)
            and (not reading.has_double_slash or options.double_slash == ALLOW)
            and (not reading.has_other_bytes or options.non_utf8_escapes == ALLOW)
        )


def escape_non_ascii(target: bytes) -> bytes:
    """Return *target* with an escape for each byte that no URL may have (RFC 3986 §2.1), as of raw UTF-8."""
    return target if target.isascii() else _NON_ASCII.sub(lambda match: b"%%%02X" % match[0][0], target)


def _unescape(match: re.Match[bytes]) -> bytes:
    return bytes.fromhex(match[1].decode())


@lru_cache(maxsize=1024)  # long paths are not cached, so that they cannot fill the memory
def _plain(raw: bytes) -> SentPath:
    return SentPath(canonical_path.__wrapped__(raw.decode("ascii"), raw, None), raw)


@lru_cache(maxsize=1024)
def _read(raw: bytes) -> _Reading:
    """Return what *raw* says, with a `path` of None where every server must refuse it."""
    parts = [_decode(part) for part in _SLASH.split(raw)]
    text = _ENCODED_SLASH.join(parts)
    # As a server that decodes the slashes has it.
    plain = "/".join(parts)
    if not is_routable(raw, plain) or _OVERLONG.search(unquote_to_bytes(raw)):
        return _Reading(None)
    escaped = None
    if _RESERVED.search(raw):
        twice = _RESERVED.sub(lambda match: b"%25" + match[0][1:], raw)
        escaped = _ENCODED_SLASH.join(_decode(part) for part in _SLASH.split(twice))
    return _Reading(
        text,
        escaped,
        has_encoded_slash=len(parts) > 1,
        has_double_slash="//" in plain,
        has_other_bytes=not _is_utf8(raw),
    )


def _decode(part: bytes) -> str:
    """Return *part* decoded; bytes that are not UTF-8 stay escapes, so that no two paths become one."""
    text = unquote_to_bytes(part).decode("utf-8", "surrogateescape")
    return text if text.isascii() else _NOT_TEXT.sub(lambda match: f"%{ord(match[0]) - 0xDC00:02X}", text)


def _is_utf8(raw: bytes) -> bool:
    try:
        unquote_to_bytes(raw).decode()
    except UnicodeDecodeError:
        return False
    return True
