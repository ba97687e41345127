"""Caches of parsed heads: a client repeats its head but for the credentials.

The result of parsing depends on the bytes alone, so a cache hit equals parsing again. Heads that may hold a secret, or
that will not repeat, are not cached: those with a line that `HeaderFields` does not cache, or with a query.
"""

from typing import TypeVar

from machpay_gateway.core.decision.credential_reader import combine
from machpay_gateway.proxy.framing import (
    NOT_IN_VALUES,
    FramedRequest,
    HeadLimits,
    read_request,
    read_response,
)
from machpay_gateway.proxy.header_fields import HeaderFields
from machpay_gateway.proxy.heads import MALFORMED, Fault, RequestHead, ResponseHead

_MAX_CACHED_BYTES = 1024  # of a head
_MAX_CACHED = 1024
_AUTHORIZATIONS = (b"\r\nAuthorization: ", b"\r\nauthorization: ")
_ParsedHead = TypeVar("_ParsedHead", RequestHead, ResponseHead)
_new = tuple.__new__  # half the cost of a NamedTuple's own constructor


class RequestReader:
    """Parses requests by the rules in *fields*, within *limits*. The *cache* is by head without Authorization."""

    def __init__(self, fields: HeaderFields, limits: HeadLimits, *, replaces_headers: bool = False) -> None:
        """Begin with an empty cache.

        With *replaces_headers*, a credential in a header of its own may be returned as one of Authorization, without
        what is set aside of its head: nobody gets that header.
        """
        self.fields = fields
        self.limits = limits
        self._max_bytes = limits.max_bytes
        self.cache: dict[bytes, RequestHead] = {}
        names = fields.credentials.settings.other_headers if replaces_headers else ()
        self._others = tuple(b"\r\n%b: " % each.encode() for name in names for each in (name, name.lower()))
        # If Authorization holds no credential, it is a header like any other.
        self._authorizations = _AUTHORIZATIONS if fields.credentials.settings.takes_authorization else ()

    def read(self, head: bytes) -> FramedRequest | Fault:
        """Return the parsed *head*, given up to and with its empty line, or why it is refused."""
        rest, credential = _split_authorization(head, self._authorizations)
        cached = self.cache.get(rest)
        if cached is None or len(head) > self._max_bytes:
            return self._parse(head, rest, credential)
        if credential is None:
            return _new(FramedRequest, (cached, ()))
        if credential.translate(None, NOT_IN_VALUES) != credential:
            return MALFORMED
        return _new(FramedRequest, (cached, (credential.strip(b" \t"),)))

    def _parse(self, head: bytes, rest: bytes, credential: bytes | None) -> FramedRequest | Fault:
        if self._others and credential is None:
            return self._read_other(head)
        return self._parse_whole(head, rest, credential)

    def _read_other(self, head: bytes) -> FramedRequest | Fault:
        """Return the parsed *head*, whose credential may be in a header of its own; what is around it is cached."""
        rest, token = _split_authorization(head, self._others)
        cached = None if token is None or len(head) > self._max_bytes else self.cache.get(rest)
        if cached is not None and token is not None and token.translate(None, NOT_IN_VALUES) == token:
            return _new(FramedRequest, (cached, combine((), (token.strip(b" \t"),))))
        request = self._parse_whole(head, head, None)
        if token is not None and isinstance(request, FramedRequest) and request.authorization:
            self._parse_whole(rest, rest, None)  # for the next request
        return request

    def _parse_whole(self, head: bytes, rest: bytes, credential: bytes | None) -> FramedRequest | Fault:
        request = read_request(head, self.fields, self.limits)
        # Any other Authorization field is in the rest, which then is not cached.
        if isinstance(request, FramedRequest) and len(request.authorization) == (credential is not None):
            _store(self.cache, rest, request.head, self.fields, self.limits)
        return request


class ResponseReader:
    """Parses responses by the rules in *fields*, within *limits*. The *cache* is by head."""

    def __init__(self, fields: HeaderFields, limits: HeadLimits) -> None:
        """Begin with an empty cache."""
        self.fields = fields
        self.limits = limits
        self.cache: dict[bytes, ResponseHead] = {}

    def read(self, head: bytes) -> ResponseHead | str:
        """Return the parsed *head*, given up to and with its empty line, or what is wrong with it."""
        cached = self.cache.get(head)
        if cached is not None:
            return cached
        response = read_response(head, self.fields, self.limits)
        if isinstance(response, ResponseHead):
            _store(self.cache, head, response, self.fields, self.limits)
        return response


def _store(
    cache: dict[bytes, _ParsedHead], head: bytes, parsed: _ParsedHead, fields: HeaderFields, limits: HeadLimits
) -> None:
    """Store *parsed* in *cache* by *head*, if that may be cached."""
    if len(head) > _MAX_CACHED_BYTES:
        return
    first, *lines = head.split(b"\r\n")[:-2]
    # One line less than the maximum, since the next request may add an Authorization.
    if b"?" in first or len(lines) >= limits.max_lines or not all(line in fields for line in lines):
        return
    if len(cache) >= _MAX_CACHED:
        cache.clear()  # an attacker's made-up heads filled it; the real ones are back within a few requests
    cache[head] = parsed


def _split_authorization(head: bytes, spellings: tuple[bytes, ...]) -> tuple[bytes, bytes | None]:
    """Return *head* without its Authorization in one of *spellings*, and that field's value, None if there is none."""
    for name in spellings:
        if (at := head.find(name)) >= 0:
            start = at + len(name)
            end = head.find(b"\r\n", start)
            return head[:at] + head[end:], head[start:end]
    return head, None
