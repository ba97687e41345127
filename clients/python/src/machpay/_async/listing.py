"""A list that is asked for and not yet fetched. Only asynchronous code needs it, so it has no generated twin.

`await` gives the first page, `async for` the items of all of them.
"""

from collections.abc import AsyncIterator, Callable, Coroutine, Generator
from typing import Any, Generic, ParamSpec

from machpay._async.page import AsyncPage, T

_P = ParamSpec("_P")


class AsyncListing(Generic[T]):
    """What `client.keys.list()` returns. Each use of it asks anew."""

    def __init__(self, fetch: Callable[[], Coroutine[Any, Any, AsyncPage[T]]]) -> None:
        self._fetch = fetch

    def __await__(self) -> Generator[Any, Any, AsyncPage[T]]:
        return self._fetch().__await__()

    async def __aiter__(self) -> AsyncIterator[T]:
        async for item in await self._fetch():
            yield item


def listing(method: Callable[_P, Coroutine[Any, Any, AsyncPage[T]]]) -> Callable[_P, AsyncListing[T]]:
    """Return *method* with its coroutine made into a listing."""

    def asked(*args: _P.args, **kwargs: _P.kwargs) -> AsyncListing[T]:
        return AsyncListing(lambda: method(*args, **kwargs))

    asked.__doc__ = method.__doc__
    return asked
