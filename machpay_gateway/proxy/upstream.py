"""The connection to an upstream's server: its bytes, cut into answers."""

import asyncio
from abc import ABC, abstractmethod
from typing import Protocol, cast

from machpay_gateway.proxy.bodies import BadBodyError, Body, Chunked, Counted, UntilClose
from machpay_gateway.proxy.closing import unread_of
from machpay_gateway.proxy.framing import HEAD_END, MAX_HEAD_BYTES
from machpay_gateway.proxy.heads import AnswerHead
from machpay_gateway.proxy.readers import AnswerReader

_FIRST = b"HTTP/1."
_SWITCHING_PROTOCOLS = 101
_FINAL = 200
_NO_CONTENT = 204
_WITHOUT_BODY = frozenset({_NO_CONTENT, 304})


class Asking(ABC):
    """Whoever has sent a request over this connection and hears what comes back."""

    @abstractmethod
    def is_head(self) -> bool:
        """Tell whether the request was a HEAD."""

    @abstractmethod
    def interim(self, answer: AnswerHead) -> None:
        """Hear a 1xx answer."""

    @abstractmethod
    def switched(self, answer: AnswerHead, rest: bytes) -> None:
        """Hear a 101, and the first bytes of the other protocol."""

    @abstractmethod
    def answered(self, answer: AnswerHead, payload: bytes, *, is_open: bool, is_last: bool) -> None:
        """Hear the head of the answer, and what of its body came along: *is_last* when that is all.

        Where only the end will tell how long the body is, it *is_open*.
        """

    @abstractmethod
    def more(self, payload: bytes, *, is_last: bool, trailers: bytes) -> None:
        """Hear more of the body, and at its end the *trailers*."""

    @abstractmethod
    def broke(self, detail: str, *, is_lost: bool = False) -> None:
        """Hear that nothing more of use will come; *is_lost* tells that the connection ended."""

    @abstractmethod
    def upstream_is_full(self) -> None:
        """Hear that nothing more can be sent for now."""

    @abstractmethod
    def upstream_is_free(self) -> None:
        """Hear that more can be sent."""


class UpstreamTunnel(Protocol):
    """What the connection has become by an upgrade."""

    def upstream_sent(self, data: bytes) -> None:
        """Hand bytes on to the client."""

    def upstream_said_all(self) -> bool:
        """End the upstream's direction; tell whether the other one goes on."""

    def upstream_gone(self) -> None:
        """Close the client's connection."""

    def upstream_is_full(self) -> None:
        """Read no more from the client for now."""

    def upstream_is_free(self) -> None:
        """Read on."""


class UpstreamConnection(asyncio.Protocol):
    """One connection. *asking* is whose request is under way, *tunnel* what has become of it by an upgrade."""

    __slots__ = (
        "_answers",
        "_pending",
        "asking",
        "body",
        "idle_since",
        "is_closing",
        "is_full",
        "is_reusable",
        "is_reused",
        "transport",
        "tunnel",
    )

    def __init__(self, answers: AnswerReader) -> None:
        """Read the heads of answers by *answers*."""
        self._answers = answers
        self._pending = b""
        self.asking: Asking | None = None
        self.body: Body | None = None
        self.idle_since = 0.0
        self.tunnel: UpstreamTunnel | None = None
        self.is_closing = self.is_full = self.is_reused = False
        self.is_reusable = True
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the *transport*."""
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Hand on what came."""
        asking = self.asking
        if self.tunnel is not None:
            self.tunnel.upstream_sent(data)
        elif asking is None:
            self.abort()  # an answer that nobody asked for: whoever is next would get it
        elif self.body is None:
            self._read(self._pending + data if self._pending else data, asking)
        else:
            self._go_on(self.body, data, asking)

    def eof_received(self) -> bool:
        """Close, unless this is a tunnel, whose other direction may go on."""
        self.is_closing = True  # from here on, and not only once it is told that it has closed
        return self.tunnel is not None and self.tunnel.upstream_said_all()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell who waits; a body that ends with its connection ends here, if nothing went wrong."""
        self.is_closing = True
        if self.tunnel is not None:
            self.tunnel.upstream_gone()
            return
        # Whoever refuses a body may close while it comes: then a write fails before the refusal has been read.
        if exc is not None and self.asking is not None and (unread := unread_of(self.transport)):
            self.data_received(unread)
        asking = self.asking
        if asking is None:
            return
        if exc is None and isinstance(self.body, UntilClose):
            asking.more(b"", is_last=True, trailers=b"")
        else:
            asking.broke(f"the connection was lost ({exc or 'closed'})", is_lost=True)

    def pause_writing(self) -> None:
        """Pass the pressure on."""
        self.is_full = True
        if (pressed := self.tunnel or self.asking) is not None:
            pressed.upstream_is_full()

    def resume_writing(self) -> None:
        """Pass the relief on."""
        self.is_full = False
        if (pressed := self.tunnel or self.asking) is not None:
            pressed.upstream_is_free()

    def abort(self) -> None:
        """Close at once, and tell nobody."""
        self.asking = self.tunnel = None
        self.is_closing = True
        self.transport.abort()

    def _read(self, data: bytes, asking: Asking) -> None:
        """Read heads until one is the last."""
        while True:
            end = data.find(HEAD_END) + len(HEAD_END)
            if end < len(HEAD_END):
                self._pending = data
                if len(data) > MAX_HEAD_BYTES:
                    asking.broke("a head that is too large")
                elif not data.startswith(_FIRST[: len(data)]):
                    asking.broke("what is no answer of HTTP/1")  # whoever speaks first, as SSH, waits for one
                elif data.count(b"\n") != data.count(b"\r\n"):
                    asking.broke("a line that does not end in CR LF")
                return
            self._pending = b""
            answer = self._answers.read(data[:end])
            if isinstance(answer, str):
                asking.broke(answer)
                return
            data = data[end:]
            if answer.status >= _FINAL:
                self._begin(answer, data, asking)
                return
            if answer.status == _SWITCHING_PROTOCOLS:
                asking.switched(answer, data)
                return
            asking.interim(answer)
            if not data or self.asking is not asking:
                return

    def _begin(self, answer: AnswerHead, data: bytes, asking: Asking) -> None:
        """Hand on the answer's head, with what *data* has of its body (RFC 9112 §6.3)."""
        if answer.closes:
            self.is_reusable = False
        length = answer.length
        if answer.status in _WITHOUT_BODY or asking.is_head():
            if length and answer.status == _NO_CONTENT:
                self.is_reusable = False  # RFC 9110 §8.6 forbids the length: the body may come all the same
            length = 0
        if length is None:
            self.body = body = Chunked(self._answers.fields) if answer.chunked else UntilClose()
            self.is_reusable &= answer.chunked
            asking.answered(answer, b"", is_open=True, is_last=False)
            if data and self.asking is asking:
                self._go_on(body, data, asking)
        elif len(data) < length:
            self.body = Counted(length - len(data))
            asking.answered(answer, data, is_open=False, is_last=False)
        else:  # as nearly always: a short answer comes whole
            if len(data) > length:
                self.is_reusable = False  # whoever came next would get what stands after the answer
                data = data[:length]
            asking.answered(answer, data, is_open=False, is_last=True)

    def _go_on(self, body: Body, data: bytes, asking: Asking) -> None:
        try:
            payload, rest = body.take(data)
        except BadBodyError as exc:
            asking.broke(str(exc))
            return
        if rest:
            self.is_reusable = False
        asking.more(payload, is_last=body.is_done, trailers=body.trailers)
