"""Pagination: lists, page by page or as a whole."""

import copy
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import InitVar, dataclass, replace
from typing import Any, Generic

from machpay._async.transport import AsyncTransport
from machpay._call import Call
from machpay._parsing import ObjectParser, flag, items, mapping, parse_object
from machpay._response import Response
from machpay._result import Result, T
from machpay.errors import InvalidResponseError, MachPayError

_FetchAfter = Callable[[str], Any]  # which returns the page, or a coroutine that does


@dataclass(frozen=True, repr=False, kw_only=True)
class AsyncPage(Result, Generic[T]):
    """A page of a list. Iterating yields its items and those of all following pages, fetched when needed.

    A pickled page has its items, but not the client that could fetch the next one.
    """

    data: tuple[T, ...]
    has_more: bool
    fetch_after: InitVar[_FetchAfter | None] = None

    def __post_init__(self, fetch_after: _FetchAfter | None) -> None:
        object.__setattr__(self, "_fetch_after", fetch_after)

    async def next_page(self) -> "AsyncPage[T] | None":
        """Return the next page, or None after the last one."""
        if not self.has_more or not self.data:
            return None
        fetch_after: _FetchAfter | None = getattr(self, "_fetch_after", None)
        if fetch_after is None:
            raise MachPayError("The page was pickled, which leaves out its client: list again, after its last id.")
        page: AsyncPage[T] = await fetch_after(self.data[-1].id)
        return page

    async def __aiter__(self) -> AsyncIterator[T]:
        page: AsyncPage[T] | None = self
        while page is not None:
            for item in page.data:
                yield item
            page = await page.next_page()

    def __copy__(self) -> "AsyncPage[T]":
        return replace(self, fetch_after=getattr(self, "_fetch_after", None))

    def __deepcopy__(self, memo: dict[int, Any]) -> "AsyncPage[T]":
        return replace(
            self,
            data=copy.deepcopy(self.data, memo),
            extra=copy.deepcopy(self.extra, memo),
            fetch_after=getattr(self, "_fetch_after", None),
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}(data={self.data!r}, has_more={self.has_more})"


async def fetch_page(
    transport: AsyncTransport,
    call: Call,
    read: Callable[[Mapping[str, object], Response], T],
    seen: frozenset[str] = frozenset(),
) -> AsyncPage[T]:
    """Return the page in the response to *call*, its items parsed by *read*.

    *seen* are the last ids of the pages before it. Raises InvalidResponseError for a page that ends with one of them:
    it would never end.
    """

    async def fetch_after(last: str) -> AsyncPage[T]:
        query = tuple(pair for pair in call.query if pair[0] != "after")
        next_call = replace(call, query=(*query, ("after", last)))
        return await fetch_page(transport, next_call, read, seen | {last})

    def page(members: Mapping[str, object], response: Response) -> AsyncPage[T]:
        parser = ObjectParser(members)
        parser.optional("object", lambda value: value, None)
        data = parser.required("data", lambda value: tuple(read(mapping(item), response) for item in items(value)))
        has_more = parser.optional("has_more", flag, default=False)
        extra = parser.rest()
        return AsyncPage(data=data, has_more=has_more, response=response, extra=extra, fetch_after=fetch_after)

    result = parse_object(await transport.send(call), page)
    if result.data and result.data[-1].id in seen:
        last = result.data[-1].id
        raise InvalidResponseError(f"The page after {last!r} ends with it again: the list has no end.", result.response)
    return result
