"""The client's side of one request in terms of messages: what a `Forwarder` and a `Tunnel` need of any HTTP version."""

from typing import Protocol

from machpay_gateway.proxy.bodies import Body
from machpay_gateway.proxy.heads import ResponseHead
from machpay_gateway.proxy.responses import OwnResponse
from machpay_gateway.proxy.upstream_request import Hops

NEVER = float("inf")  # the deadline of what waits without a limit


class ClientStream(Protocol):
    """A client that has sent one request: a whole connection of HTTP/1.1, or a stream of HTTP/2.

    *body* is what is still to come of the request, *is_full* says that the client reads too slowly, and *will_close*
    that its connection closes after the response.
    """

    address: int | None
    began_at: float  # by `time.perf_counter`
    body: Body | None
    certificate: bytes  # the lines of identity headers about the client's certificate, b"" without one
    hops: Hops
    host: str
    is_full: bool
    is_http2: bool
    is_trusted: bool  # the peer is a trusted proxy
    scheme: bytes
    will_close: bool

    @property
    def unwritten(self) -> int:
        """How many bytes of the response the client has not taken yet."""

    # The request.

    @property
    def has_unread(self) -> bool:
        """Whether some of the body has arrived that was not taken."""

    def pause_reading(self) -> None:
        """Apply backpressure to the client."""

    def resume_reading(self) -> None:
        """End the backpressure."""

    def take_body(self, body: Body) -> bytes:
        """Return what has arrived of the request's *body*. Raises BodyFramingError."""

    def discard_body(self) -> bool:
        """Drop what has arrived of the request's body; return whether another request may follow it."""

    # The response.

    def send_interim(self, response: ResponseHead) -> None:
        """Send an interim (1xx) response."""

    def begin_response(  # noqa: PLR0917 - all that its bytes depend on
        self,
        response: ResponseHead,
        start: bytes,
        added: bytes,
        payload: bytes,
        minor: bool,  # noqa: FBT001 - keywords cost time, here and below
        closes: bool,  # noqa: FBT001
        is_open: bool,  # noqa: FBT001
        is_whole: bool,  # noqa: FBT001
    ) -> None:
        """Send the head of *response* with the lines *added*, and the first *payload*, in one write.

        *start* is the head's own lines, or those that replace them. The client speaks HTTP/1.1 or, without *minor*,
        1.0. *closes* says that its connection closes after the response, *is_open* that the length of the body is
        unknown, and *is_whole* that *payload* is all of it.
        """

    def send_payload(self, payload: bytes, is_last: bool, trailers: bytes) -> None:  # noqa: FBT001
        """Send more of the response's body; after the last of it the *trailers*, lines that end in CR LF."""

    def respond(self, response: OwnResponse, *, minor: bool, closes: bool) -> int:
        """Send a whole *response* of the gateway's own, and return how many bytes that is. The flags are as above."""

    def switch_protocols(self, response: ResponseHead, start: bytes, added: bytes) -> bytes:
        """Send a 101 *response* with *start* and *added* as above; return what the client has sent already."""

    def abort(self, *, by_reset: bool) -> None:
        """End the response so that the client sees that it is incomplete: *by_reset* where a close would be its end."""

    def linger(self) -> None:
        """End the response, and close its connection once the client has taken it."""

    # After a switch of protocols.

    def send_bytes(self, data: bytes) -> None:
        """Send bytes of the other protocol."""

    def send_end(self) -> bool:
        """End the direction to the client; return whether the other one stays open."""
