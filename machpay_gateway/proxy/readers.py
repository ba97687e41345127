"""Reading heads, each that is often the same only once: a client that asks again says the same, but for credentials.

What a head says depends on its bytes alone, so what is remembered is what would be read again. Nothing is remembered
that may hold a secret, or that will not come again: no line that `Fields` would not remember, and no query.
"""

from typing import TypeVar

from machpay_gateway.proxy.fields import Fields
from machpay_gateway.proxy.framing import (
    MAX_HEAD_BYTES,
    MAX_LINES,
    NOT_IN_VALUES,
    FramedRequest,
    read_answer,
    read_request,
)
from machpay_gateway.proxy.heads import MALFORMED, AnswerHead, Fault, RequestHead

_LONGEST = 1024  # bytes of what is remembered
_MOST = 1024
_AUTHORIZATIONS = (b"\r\nAuthorization: ", b"\r\nauthorization: ")
_Said = TypeVar("_Said", RequestHead, AnswerHead)
_new = tuple.__new__  # half the cost of a NamedTuple's own constructor


class RequestReader:
    """Reads requests by *fields*. What it has *known* is by heads without their credentials."""

    def __init__(self, fields: Fields) -> None:
        """Know no head yet."""
        self.fields = fields
        self.known: dict[bytes, RequestHead] = {}

    def read(self, head: bytes) -> FramedRequest | Fault:
        """Return what *head* says, up to and with its empty line, or why it is refused."""
        rest, value = _without_authorization(head)
        known = self.known.get(rest)
        if known is None or len(head) > MAX_HEAD_BYTES:
            return self._learnt(head, rest, value)
        if value is None:
            return _new(FramedRequest, (known, ()))
        if value.translate(None, NOT_IN_VALUES) != value:
            return MALFORMED
        return _new(FramedRequest, (known, (value.strip(b" \t"),)))

    def _learnt(self, head: bytes, rest: bytes, value: bytes | None) -> FramedRequest | Fault:
        request = read_request(head, self.fields)
        # What other Authorization fields there are is a part of the rest.
        if isinstance(request, FramedRequest) and len(request.authorization) == (value is not None):
            _remember(self.known, rest, request.head, self.fields)
        return request


class AnswerReader:
    """Reads answers by *fields*. What it has *known* is by heads."""

    def __init__(self, fields: Fields) -> None:
        """Know no head yet."""
        self.fields = fields
        self.known: dict[bytes, AnswerHead] = {}

    def read(self, head: bytes) -> AnswerHead | str:
        """Return what *head* says, up to and with its empty line, or what is wrong with it."""
        known = self.known.get(head)
        if known is not None:
            return known
        answer = read_answer(head, self.fields)
        if isinstance(answer, AnswerHead):
            _remember(self.known, head, answer, self.fields)
        return answer


def _remember(known: dict[bytes, _Said], head: bytes, said: _Said, fields: Fields) -> None:
    """Have *known* hold what *head* has *said*, if it is one that may be remembered."""
    if len(head) > _LONGEST:
        return
    first, *lines = head.split(b"\r\n")[:-2]
    # With one line less than there may be, since a request may come with an Authorization the next time.
    if b"?" in first or len(lines) >= MAX_LINES or not all(line in fields for line in lines):
        return
    if len(known) >= _MOST:
        known.clear()  # of what somebody made up; the others are back at once
    known[head] = said


def _without_authorization(head: bytes) -> tuple[bytes, bytes | None]:
    """Return *head* without its Authorization, as most write that, and the field's value; None when there is none."""
    for name in _AUTHORIZATIONS:
        if (at := head.find(name)) >= 0:
            start = at + len(name)
            end = head.find(b"\r\n", start)
            return head[:at] + head[end:], head[start:end]
    return head, None
