"""A stream that is not open yet. Only asynchronous code needs it, so there is no generated twin.

`await` opens the stream, `async with` opens and closes it.
"""

from collections.abc import Callable, Coroutine, Generator
from types import TracebackType
from typing import Any, ParamSpec

from machpay._async.stream import AsyncStream

_P = ParamSpec("_P")


class AsyncOpening:
    """The result of `client.stream(…)`."""

    def __init__(self, start: Callable[[], Coroutine[Any, Any, AsyncStream]]) -> None:
        self._start = start
        self._stream: AsyncStream | None = None

    def __await__(self) -> Generator[Any, Any, AsyncStream]:
        return self._start().__await__()

    async def __aenter__(self) -> AsyncStream:
        self._stream = await self._start()
        return self._stream

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._stream is not None:
            await self._stream.aclose()


def opening(method: Callable[_P, Coroutine[Any, Any, AsyncStream]]) -> Callable[_P, AsyncOpening]:
    """Return *method* as a function that returns an opening instead of a coroutine."""

    def wrapper(*args: _P.args, **kwargs: _P.kwargs) -> AsyncOpening:
        return AsyncOpening(lambda: method(*args, **kwargs))

    wrapper.__doc__ = method.__doc__
    return wrapper
