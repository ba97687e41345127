"""Pagination: lists, page by page or as a whole.

Generated from `_async` by generate.py: edit it there.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Generic

from machpay._call import Call
from machpay._parsing import ObjectParser, flag, items, mapping, parse_object
from machpay._response import Response
from machpay._result import Result, T
from machpay._sync.transport import Transport
from machpay.errors import InvalidResponseError


@dataclass(frozen=True, slots=True, repr=False, kw_only=True)
class Page(Result, Generic[T]):
    """A page of a list. Iterating yields its items and those of all following pages, fetched when needed."""

    data: tuple[T, ...]
    has_more: bool
    _call: Call
    _read: Callable[[Mapping[str, object], Response], T] = field(compare=False)
    _transport: Transport = field(compare=False)

    def next_page(self) -> "Page[T] | None":
        """Return the next page, or None after the last one."""
        if not self.has_more or not self.data:
            return None
        last = self.data[-1].id
        query = tuple(pair for pair in self._call.query if pair[0] != "after")
        page = fetch_page(self._transport, replace(self._call, query=(*query, ("after", last))), self._read)
        if page.data and page.data[-1].id == last:
            raise InvalidResponseError(f"The page after {last!r} ends with it again.", page.response)
        return page

    def __iter__(self) -> Iterator[T]:
        page: Page[T] | None = self
        while page is not None:
            for item in page.data:
                yield item
            page = page.next_page()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(data={self.data!r}, has_more={self.has_more})"


def fetch_page(transport: Transport, call: Call, read: Callable[[Mapping[str, object], Response], T]) -> Page[T]:
    """Return the page in the response to *call*, its items parsed by *read*."""

    def page(members: Mapping[str, object], response: Response) -> Page[T]:
        parser = ObjectParser(members)
        data = parser.required("data", lambda value: tuple(read(mapping(item), response) for item in items(value)))
        has_more = parser.optional("has_more", flag, default=False)
        return Page(
            data=data,
            has_more=has_more,
            response=response,
            extra=parser.rest(),
            _call=call,
            _read=read,
            _transport=transport,
        )

    return parse_object(transport.send(call), page)
