"""Calls to any endpoint of the API.

Generated from `_async` by generate.py: edit it there.
"""

from collections.abc import Mapping
from typing import Unpack

from machpay._call import ChangeOptions, request_call
from machpay._not_given import NOT_GIVEN
from machpay._response import Response
from machpay._sync.stream import Stream
from machpay._sync.transport import Transport


class Requests:
    """The methods of a client for endpoints that have no resource here.

    Each takes *params* for the query, *json* or *content* for the body, and *timeout*, *max_retries*, *headers* and
    *idempotency_key* for this call alone. It returns a successful response, and raises APIStatusError for any other.

    A POST or PATCH is retried only with an *idempotency_key*, or if it had no effect: it could be performed twice.
    """

    _transport: Transport

    def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, object] | None = None,
        json: object = NOT_GIVEN,
        content: bytes | str | None = None,
        **options: Unpack[ChangeOptions],
    ) -> Response:
        """Send a request to *path*, below `base_url`."""
        call = request_call(method, path, params=params, json=json, content=content, accept="application/json")
        return self._transport.send(call.using(options))

    def get(
        self, path: str, *, params: Mapping[str, object] | None = None, **options: Unpack[ChangeOptions]
    ) -> Response:
        """Send a GET request."""
        return self.request("GET", path, params=params, **options)

    def post(
        self,
        path: str,
        *,
        params: Mapping[str, object] | None = None,
        json: object = NOT_GIVEN,
        content: bytes | str | None = None,
        **options: Unpack[ChangeOptions],
    ) -> Response:
        """Send a POST request."""
        return self.request("POST", path, params=params, json=json, content=content, **options)

    def put(
        self,
        path: str,
        *,
        params: Mapping[str, object] | None = None,
        json: object = NOT_GIVEN,
        content: bytes | str | None = None,
        **options: Unpack[ChangeOptions],
    ) -> Response:
        """Send a PUT request."""
        return self.request("PUT", path, params=params, json=json, content=content, **options)

    def patch(
        self,
        path: str,
        *,
        params: Mapping[str, object] | None = None,
        json: object = NOT_GIVEN,
        content: bytes | str | None = None,
        **options: Unpack[ChangeOptions],
    ) -> Response:
        """Send a PATCH request."""
        return self.request("PATCH", path, params=params, json=json, content=content, **options)

    def delete(
        self,
        path: str,
        *,
        params: Mapping[str, object] | None = None,
        json: object = NOT_GIVEN,
        content: bytes | str | None = None,
        **options: Unpack[ChangeOptions],
    ) -> Response:
        """Send a DELETE request."""
        return self.request("DELETE", path, params=params, json=json, content=content, **options)

    def stream(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, object] | None = None,
        json: object = NOT_GIVEN,
        content: bytes | str | None = None,
        **options: Unpack[ChangeOptions],
    ) -> Stream:
        """Send a request, and return its response before its body has arrived: use it in a `with` statement.

        *timeout* is for the start of the response, and for the pauses in it.
        """
        call = request_call(method, path, params=params, json=json, content=content, accept="*/*")
        return self._transport.open(call.using(options))
