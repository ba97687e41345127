"""Carrying one request to an upstream and its answer back, with the pressure of either side passed to the other.

A request is sent twice only where that cannot do anything twice: when nothing of it was sent, or when its method is
safe and the kept connection that it was sent over had died (RFC 9110 §9.2.2, RFC 9112 §9.3.1).
"""

from time import monotonic, perf_counter

from machpay_gateway.core.decision.reason import Reason
from machpay_gateway.core.network.proxy_options import ProxyOptions
from machpay_gateway.proxy.answers import interim_head
from machpay_gateway.proxy.bodies import LAST_CHUNK, chunk
from machpay_gateway.proxy.heads import AnswerHead
from machpay_gateway.proxy.pool import CONNECT, LOST, MALFORMED, TIMEOUT, Pool, Server
from machpay_gateway.proxy.ports import NEVER, Carried
from machpay_gateway.proxy.tunnel import Tunnel
from machpay_gateway.proxy.upstream import Asking, UpstreamConnection

_SAFE = frozenset({b"GET", b"HEAD", b"OPTIONS"})  # RFC 9110 §9.2.1, less what is not served


class Carrying(Asking):
    """A request on its way there, and its answer on its way back."""

    _ends_at = NEVER
    _is_answering = False
    _is_begun = False
    _is_sent = False
    _is_over = False
    _answer_is_chunked = False
    _received_bytes = 0
    _taken_bytes: int | None = None  # by either side, when last looked at
    _server: Server
    _tried: tuple[Server, ...] = ()
    _tunnel: Tunnel | None = None
    _upstream: UpstreamConnection | None = None

    def __init__(self, exchange: Carried, pool: Pool, carriage: ProxyOptions, head: bytes) -> None:
        """Carry *exchange*'s request, whose *head* is as the upstream gets it, to a server of *pool*."""
        self._exchange = exchange
        self._client = exchange.client
        self._request = exchange.request
        self._pool = pool
        self._carriage = carriage
        self._head = head

    @property
    def takes_body(self) -> bool:
        """Whether there is somebody to send the request's body to."""
        return self._upstream is not None

    @property
    def is_pressed(self) -> bool:
        """Whether the upstream cannot take any more for now."""
        return self._upstream is None or self._upstream.is_full

    @property
    def waiting_since(self) -> float:
        """When the last of the request's body came, if all that is missing for now is more of it; else NEVER."""
        if self._upstream is None or self._is_sent or self._is_answering or self._upstream.is_full:
            return NEVER
        due = self._exchange.due
        return due - self._carriage.idle_seconds if due < NEVER else 0.0  # it may wait for ever

    def begin(self) -> None:
        """Set out: over a connection that is there, as nearly always, in this very step."""
        carriage, length = self._carriage, self._request.length
        if length is not None and 0 < carriage.max_body_bytes < length:
            self._exchange.refuse(Reason.BODY_TOO_LARGE, "a longer body than the route allows")
            return
        if carriage.total_seconds:
            self._ends_at = monotonic() + carriage.total_seconds
        self._send()

    def stop(self) -> None:
        """Go no further, in either direction."""
        self._is_over = True
        self._drop_upstream()

    def expire(self) -> None:
        """End what took too long: by an answer, where none has begun."""
        if monotonic() < self._ends_at and self._is_being_taken():
            self._wait_on()
            return
        waits_for_client = self._upstream is not None and not self._is_sent and not self._upstream.is_full
        if self._is_answering or waits_for_client:
            self._give_up(Reason.REQUEST_TIMEOUT, "the body did not arrive in time")
        else:
            self._server.failed(TIMEOUT, "it does not answer in time")
            self._give_up(Reason.UPSTREAM_TIMEOUT, "the upstream did not answer in time")

    # The client's side.

    def send(self, payload: bytes, *, is_last: bool, trailers: bytes) -> None:
        """Send *payload* of the request's body on."""
        upstream = self._upstream
        if upstream is None:
            return
        # With the head, so that nothing goes on where the first piece shows that the body is not what it should be.
        sent, is_counted = b"" if self._is_begun else self._head, self._request.length is not None
        if payload:
            self._received_bytes += len(payload)
            if self._carriage.max_body_bytes and self._received_bytes > self._carriage.max_body_bytes:
                self._give_up(Reason.BODY_TOO_LARGE, "a longer body than the route allows")
                return
            sent += payload if is_counted else chunk(payload)
        if is_last:
            if not is_counted:
                sent += LAST_CHUNK + trailers + b"\r\n"
            self._is_sent = True
        if sent:
            self._is_begun = True
            upstream.transport.write(sent)
        self._wait_on()

    def client_broke(self, detail: str) -> None:
        """Hear that the request's body is not framed as its head said: what was sent of it stays without an end."""
        self._give_up(Reason.INVALID_MESSAGE, detail)

    def client_is_full(self) -> None:
        """Read no more of the answer for now."""
        if self._upstream is not None:
            self._upstream.transport.pause_reading()

    def client_is_free(self) -> None:
        """Read on."""
        if self._upstream is not None:
            self._upstream.transport.resume_reading()

    # The upstream's side.

    def is_head(self) -> bool:
        """Tell whether the request was a HEAD."""
        return self._request.method == b"HEAD"

    def interim(self, answer: AnswerHead) -> None:
        """Hand a 1xx answer on, to whom knows what that is (RFC 9110 §15.2)."""
        if self._request.minor:
            self._client.transport.write(interim_head(answer))
        self._extend(self._carriage.first_byte_seconds)

    def switched(self, answer: AnswerHead, rest: bytes) -> None:
        """Let the connection be a tunnel from here on."""
        upstream, asked, offered = self._upstream, self._request.upgrade, answer.upgrade
        if upstream is None or asked is None or offered is None or asked.lower() != offered.lower():
            self.broke("a change of protocols that nobody asked for")
            return
        self._exchange.answered_at = perf_counter()
        self._exchange.status = answer.status
        self._exchange.due = self._ends_at
        self._client.transport.write(self._exchange.switching_head(answer))
        self._exchange.count()
        self._is_answering = True
        self._tunnel = upstream.tunnel = Tunnel(self._client, upstream, self._tunnel_ended)
        self._client.open_tunnel(self._tunnel)
        if rest:
            self._tunnel.upstream_sent(rest)

    def answered(self, answer: AnswerHead, payload: bytes, *, is_open: bool, is_last: bool) -> None:
        """Send the answer's head on, and what of its body came along: in one write, all of it if it is whole."""
        request, exchange = self._request, self._exchange
        exchange.answered_at = perf_counter()
        self._server.answered()
        self._is_answering = True
        exchange.status = answer.status
        if is_open:
            self._answer_is_chunked = request.minor
            exchange.closes |= not request.minor  # HTTP/1.0 knows no chunks: the answer ends with the connection
        if not self._is_sent:
            exchange.closes = True  # the rest of the request will not be read
        exchange.sent_bytes = len(payload)
        self._client.transport.write(exchange.answer_head(answer, is_open=is_open) + payload)
        if is_last:
            self._end()
            return
        if self._client.is_full:  # already by the answer before
            self.client_is_full()
        self._extend(self._carriage.idle_seconds)

    def more(self, payload: bytes, *, is_last: bool, trailers: bytes) -> None:
        """Send more of the answer's body on."""
        self._exchange.sent_bytes += len(payload)
        if self._answer_is_chunked:
            payload = chunk(payload) if payload else b""
            if is_last:
                payload += LAST_CHUNK + trailers + b"\r\n"
        if payload:
            self._client.transport.write(payload)
        if is_last:
            self._end()
        else:
            self._extend(self._carriage.idle_seconds)

    def broke(self, detail: str, *, is_lost: bool = False) -> None:
        """Ask once more where that is safe, answer that the upstream failed, or break off what has begun."""
        upstream, request = self._upstream, self._request
        was_kept = is_lost and not self._is_answering and upstream is not None and upstream.is_reused
        if was_kept and request.method in _SAFE and not request.has_body:
            self._drop_upstream()
            self._send(over_new=True)
            return
        if not was_kept:
            self._server.failed(LOST if is_lost else MALFORMED, detail)
        self._give_up(Reason.UPSTREAM_UNAVAILABLE, detail)

    def upstream_is_full(self) -> None:
        """Read no more of the request for now."""
        self._client.stop_reading()

    def upstream_is_free(self) -> None:
        """Read on."""
        self._client.read_on()

    def _send(self, *, over_new: bool = False) -> None:
        server = self._pool.pick(self._tried)
        if server is None:
            self._is_over = True
            self._exchange.refuse(Reason.UPSTREAM_UNAVAILABLE, "no server of the upstream can be reached")
            return
        self._server = server
        server.in_flight += 1
        upstream = None if over_new else server.take_idle()
        if upstream is None:
            seconds = self._carriage.connect_seconds
            self._extend(seconds + 1.0 if seconds else 0.0)
            self._exchange.run(self._connect(server))
        else:
            self._send_over(upstream)

    async def _connect(self, server: Server) -> None:
        try:
            upstream = await server.connect(self._carriage.connect_seconds)
        except (OSError, TimeoutError) as exc:
            server.in_flight -= 1
            server.failed(CONNECT, f"no connection: {exc!s:.200}")
            if not self._is_over:
                self._tried = (*self._tried, server)
                self._send()
            return
        if self._is_over:
            server.in_flight -= 1
            server.give_back(upstream)  # nobody waits any more, and somebody will
        else:
            self._send_over(upstream)

    def _send_over(self, upstream: UpstreamConnection) -> None:
        self._upstream = upstream
        upstream.asking = self
        if self._client.body is None:
            self._is_begun = self._is_sent = True
            upstream.transport.write(self._head)
            self._extend(self._carriage.first_byte_seconds)
        else:
            self._extend(self._carriage.idle_seconds)
            self._client.send_body()

    def _extend(self, seconds: float) -> None:
        due = monotonic() + seconds if seconds else NEVER
        self._exchange.due = due if due < self._ends_at else self._ends_at  # noqa: FURB136 - `min` takes thrice as long

    def _wait_on(self) -> None:
        waits_for_answer = self._is_sent and not self._is_answering
        self._extend(self._carriage.first_byte_seconds if waits_for_answer else self._carriage.idle_seconds)

    def _is_being_taken(self) -> bool:
        """Tell whether either side still takes what it was sent: while it does, however slowly, nobody is idle."""
        left = self._client.transport.get_write_buffer_size()
        if self._upstream is not None:
            left += self._upstream.transport.get_write_buffer_size()
        before, self._taken_bytes = self._taken_bytes, self._exchange.sent_bytes + self._received_bytes - left
        return left > 0 and self._taken_bytes != before

    def _end(self) -> None:
        self._is_over = True
        upstream, self._upstream = self._upstream, None
        server = self._server
        server.in_flight -= 1
        if upstream is not None:
            if self._is_sent and upstream.is_reusable:
                if self._client.is_full:
                    upstream.transport.resume_reading()  # whoever is next may be faster
                server.give_back(upstream)
            else:
                upstream.abort()
        self._exchange.finish(may_go_on=self._is_sent)

    def _tunnel_ended(self) -> None:
        if not self._is_over:
            self._is_over = True
            self._upstream = None
            self._server.in_flight -= 1
            self._exchange.tunnel_ended()

    def _give_up(self, reason: Reason, detail: str) -> None:
        """Answer that the request goes no further, or break off the answer that has begun."""
        self.stop()
        if self._is_answering:
            self._exchange.abort()
        else:
            self._exchange.refuse(reason, detail)

    def _drop_upstream(self) -> None:
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            self._server.in_flight -= 1
            if self._is_begun:
                upstream.abort()
            else:
                self._server.give_back(upstream)  # which has heard nothing
