"""The ASGI lifespan, composed: ours begins to serve before the application's and closes after it."""

import logging
from typing import Protocol

from starlette.types import ASGIApp, Message, Receive, Scope, Send

logger = logging.getLogger("machpay_gateway")


class Resource(Protocol):
    """What is opened and closed around the application. Closing twice is closing once."""

    async def serve(self) -> None:
        """Make ready to serve."""

    async def close(self) -> None:
        """Let go of everything."""


async def run_lifespan(app: ASGIApp, scope: Scope, receive: Receive, send: Send, resource: Resource) -> None:
    """Serve the lifespan *scope*: open *resource*, run the *app*'s own lifespan, close *resource*.

    An application that does not speak lifespan is spoken for, so that *resource* is closed with it too.
    """
    unread = [await receive()]
    answered = False

    async def receive_anew() -> Message:
        return unread.pop() if unread else await receive()

    async def send_closed(message: Message) -> None:
        nonlocal answered
        answered = True
        if message["type"] != "lifespan.startup.complete":
            await resource.close()  # before the server hears of it: it may be gone right after
        await send(message)

    try:
        await resource.serve()
    except Exception as exc:
        await send({"type": "lifespan.startup.failed", "message": str(exc)})
        raise
    try:
        try:
            await app(scope, receive_anew, send_closed)
        except Exception:
            if answered:
                raise
            logger.debug("The application has no lifespan of its own.", exc_info=True)
        if not answered:
            await _speak_for_it(receive, send_closed)
    finally:
        await resource.close()


async def _speak_for_it(receive: Receive, send: Send) -> None:
    await send({"type": "lifespan.startup.complete"})
    await receive()  # lifespan.shutdown
    await send({"type": "lifespan.shutdown.complete"})
