"""The HTTP client that sends requests: one of ours, or the user's. Neither sends anything after `close()`."""

import asyncio

import httpx2

from machpay._event_loops import PerLoop
from machpay._options import Options
from machpay.errors import ClientClosedError, ConfigurationError, MachPayError


class AsyncConnections:
    """The connections of a client. Each event loop has its own, so that a client outlives `asyncio.run`."""

    def __init__(self, given: object, options: Options) -> None:
        if given is not None and not isinstance(given, httpx2.AsyncClient):
            raise _wrong_kind(given, "AsyncClient")
        self._given = given
        # No proxy from the environment for plain HTTP over loopback: it would see the credential unencrypted.
        self._own = PerLoop(lambda: httpx2.AsyncClient(trust_env=not options.is_plain))
        self._first_loop: asyncio.AbstractEventLoop | None = None  # that used the given client
        self._is_closed = False

    def open(self) -> httpx2.AsyncClient:
        """Return the HTTP client of the running event loop. Raises ClientClosedError after `aclose()`."""
        if self._is_closed or (self._given is not None and self._given.is_closed):
            raise ClientClosedError
        if self._given is None:
            return self._own.get()
        self._first_loop = self._first_loop or asyncio.get_running_loop()
        return self._given

    def explain(self, error: RuntimeError) -> MachPayError | None:
        """Return the reason for *error*, raised by the HTTP client, or None if it is not known."""
        if self._is_closed or (self._given is not None and self._given.is_closed):
            return ClientClosedError()
        if self._first_loop is None or self._first_loop is asyncio.get_running_loop():
            return None
        return ConfigurationError(
            f"http_client has connections of another event loop ({error}); create one in each asyncio.run, "
            "or pass none: then the client has its own for each event loop."
        )

    async def aclose(self) -> None:
        """Close the connections, unless the user's client owns them."""
        self._is_closed = True
        if own := self._own.pop():
            await own.aclose()


class Connections:
    """The connections of a client, for all threads."""

    def __init__(self, given: object, options: Options) -> None:
        if given is not None and not isinstance(given, httpx2.Client):
            raise _wrong_kind(given, "Client")
        self._owns = given is None
        self._http = httpx2.Client(trust_env=not options.is_plain) if given is None else given
        self._is_closed = False

    def open(self) -> httpx2.Client:
        """Return the HTTP client. Raises ClientClosedError after `close()`."""
        if self._is_closed or self._http.is_closed:
            raise ClientClosedError
        return self._http

    def explain(self, _error: RuntimeError) -> MachPayError | None:
        """Return the reason for an error of the HTTP client, or None if it is not known."""
        return ClientClosedError() if self._is_closed or self._http.is_closed else None

    def close(self) -> None:
        """Close the connections, unless the user's client owns them."""
        self._is_closed = True
        if self._owns:
            self._http.close()


def _wrong_kind(given: object, kind: str) -> ConfigurationError:
    return ConfigurationError(f"http_client is a {type(given).__name__}, and has to be a httpx2.{kind}.")
