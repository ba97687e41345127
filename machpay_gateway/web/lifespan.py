"""The ASGI lifespan: the gateway starts before the application and closes after it."""

import logging
from typing import Protocol

from starlette.types import ASGIApp, Message, Receive, Scope, Send

logger = logging.getLogger("machpay_gateway")


class Resource(Protocol):
    """What is opened and closed around the application. Closing it twice has no effect."""

    async def serve(self) -> None:
        """Open everything."""

    async def close(self) -> None:
        """Close everything."""


async def run_lifespan(app: ASGIApp, scope: Scope, receive: Receive, send: Send, resource: Resource) -> None:
    """Serve the lifespan *scope*: open *resource*, run the *app*'s own lifespan, close *resource*.

    For an application without lifespan support, this completes the protocol itself, so that *resource* is closed.
    """
    unread = [await receive()]
    has_responded = False

    async def receive_first() -> Message:
        return unread.pop() if unread else await receive()

    async def send_closed(message: Message) -> None:
        nonlocal has_responded
        has_responded = True
        if message["type"] != "lifespan.startup.complete":
            await resource.close()  # first: the server may exit right after the message
        await send(message)

    try:
        await resource.serve()
    except Exception as exc:
        await send({"type": "lifespan.startup.failed", "message": str(exc)})
        raise
    try:
        try:
            await app(scope, receive_first, send_closed)
        except Exception:
            if has_responded:
                raise
            logger.debug("The application does not support lifespan.", exc_info=True)
        if not has_responded:
            await _complete_lifespan(receive, send_closed)
    finally:
        await resource.close()


async def _complete_lifespan(receive: Receive, send: Send) -> None:
    await send({"type": "lifespan.startup.complete"})
    await receive()  # lifespan.shutdown
    await send({"type": "lifespan.shutdown.complete"})
