"""A list that is not fetched yet. Only asynchronous code needs it, so there is no generated twin.

`await` returns the first page, `async for` yields the items of all pages.
"""

from collections.abc import AsyncIterator, Callable, Coroutine, Generator
from typing import Any, Generic, ParamSpec

from machpay._async.page import AsyncPage
from machpay._result import T

_P = ParamSpec("_P")


class AsyncListing(Generic[T]):
    """The result of `client.keys.list()`. Each use sends a new request."""

    def __init__(self, fetch: Callable[[], Coroutine[Any, Any, AsyncPage[T]]]) -> None:
        self._fetch = fetch

    def __await__(self) -> Generator[Any, Any, AsyncPage[T]]:
        return self._fetch().__await__()

    async def __aiter__(self) -> AsyncIterator[T]:
        async for item in await self._fetch():
            yield item


def listing(method: Callable[_P, Coroutine[Any, Any, AsyncPage[T]]]) -> Callable[_P, AsyncListing[T]]:
    """Return *method* as a function that returns a listing instead of a coroutine."""

    def wrapper(*args: _P.args, **kwargs: _P.kwargs) -> AsyncListing[T]:
        return AsyncListing(lambda: method(*args, **kwargs))

    wrapper.__doc__ = method.__doc__
    return wrapper
