"""Our headers on the response to an unhandled exception of a Starlette application.

Starlette responds by its ServerErrorMiddleware, which is outside of every middleware that an application adds. So what
it responds with gets our headers. The exception still reaches the server, and the application's handler is called once.
"""

import inspect
from collections.abc import Callable, Iterator
from typing import Any

from starlette.middleware.errors import ServerErrorMiddleware
from starlette.requests import Request
from starlette.types import Message, Receive, Scope, Send

from machpay_gateway.web.headers import Headers

ERROR_HEADERS = "machpay_error_headers"  # in the scope
_MOST_LAYERS = 100  # of middleware: one that wraps itself must not hang

_Handler = Callable[[Request, Exception], Any]


def add_to_error_response(scope: Scope, headers: Headers) -> None:
    """Have the application's response to an exception that is about to leave *scope* include *headers*.

    Without effect where no Starlette application is around this one, or another middleware responds.
    """
    scope[ERROR_HEADERS] = headers
    for middleware in _error_middlewares(scope.get("app")):
        if "error_response" in vars(middleware):  # by an earlier exception
            continue
        # Attributes of this object. Responses are wrapped, not changed: a handler may return the same one every time.
        responses: dict[str, _Handler | None] = {
            "error_response": _sync(middleware.error_response),
            "debug_response": _sync(middleware.debug_response),
            "handler": middleware.handler and _wrapped(middleware.handler),
        }
        vars(middleware).update(responses)


def _error_middlewares(app: object) -> Iterator[ServerErrorMiddleware]:
    layer: object = getattr(app, "middleware_stack", None)
    for _ in range(_MOST_LAYERS):
        if layer is None:
            return
        if isinstance(layer, ServerErrorMiddleware):
            yield layer
        layer = getattr(layer, "app", None)


def _wrapped(handler: Any) -> _Handler:  # noqa: ANN401 - Starlette's type is of WebSockets too
    """Return *handler* with our headers. It stays a coroutine function, or one that Starlette runs in a thread."""
    is_async = inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(getattr(handler, "__call__", None))  # noqa: B004 - its type
    if not is_async:
        return _sync(handler)

    async def respond(request: Request, error: Exception) -> _ErrorResponse:
        return _ErrorResponse(await handler(request, error), request)

    return respond


def _sync(handler: _Handler) -> _Handler:
    return lambda request, error: _ErrorResponse(handler(request, error), request)


class _ErrorResponse:
    """The *response* to *request* with the headers of its scope, if it has some."""

    def __init__(self, response: Any, request: Request) -> None:  # noqa: ANN401 - whatever the application's handler returns
        self._response = response
        self._added: Headers = request.scope.get(ERROR_HEADERS, [])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response."""

        async def send_response(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = dict(message, headers=[*message.get("headers", ()), *self._added])
            await send(message)

        await self._response(scope, receive, send_response)
