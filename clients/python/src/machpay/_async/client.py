"""The client: a credential, a place to send it to, and the resources there."""

import os
from dataclasses import replace
from functools import cached_property
from types import TracebackType
from typing import Self

import httpx2

from machpay._account import Identity, identity_from
from machpay._async.account import AsyncAccounts
from machpay._async.bearer import AsyncBearer
from machpay._async.keys import AsyncKeys
from machpay._async.oauth import AsyncOAuth
from machpay._async.sessions import AsyncSessions
from machpay._async.skills import AsyncSkills
from machpay._async.transport import AsyncTransport
from machpay._async.wire import AsyncWire
from machpay._call import Call
from machpay._held import held_from
from machpay._listener import AsyncListener, OnTokens
from machpay._options import DEFAULT_MAX_RETRIES, DEFAULT_TIMEOUT_SECONDS, Options, auth_url_from, base_url_from
from machpay._reading import read_object
from machpay.errors import ConfigurationError


class AsyncMachPay:
    """A client of the MachPay API.

    Without *api_key* and *access_token* the key comes from MACHPAY_API_KEY; *base_url* from MACHPAY_BASE_URL, and
    *auth_url*, where tokens come from, from MACHPAY_AUTH_URL. With *refresh_token* and *client_id* the access token
    is refreshed by itself; *on_tokens* is called with each new pair, before the request that needs it goes on.
    *timeout* is in seconds for one attempt; a call with all its retries takes (max_retries + 1) times that at most.
    A *http_client* of your own stays yours to close.
    """

    def __init__(  # noqa: PLR0913 - all but the first by keyword
        self,
        api_key: str | None = None,
        *,
        access_token: str | None = None,
        refresh_token: str | None = None,
        client_id: str | None = None,
        client_secret: str | None = None,
        on_tokens: OnTokens | None = None,
        base_url: str | None = None,
        auth_url: str | None = None,
        timeout: float = DEFAULT_TIMEOUT_SECONDS,
        max_retries: int = DEFAULT_MAX_RETRIES,
        http_client: httpx2.AsyncClient | None = None,
    ) -> None:
        held = held_from(
            api_key,
            access_token,
            os.environ,
            refresh_token=refresh_token,
            client_id=client_id,
            client_secret=client_secret,
        )
        bearer = AsyncBearer(held, AsyncListener(on_tokens))
        addresses = base_url_from(base_url, os.environ), auth_url_from(auth_url, base_url, os.environ)
        options = Options(addresses[0], timeout, max_retries, addresses[1])
        self._owns_http = http_client is None
        self._transport = AsyncTransport(AsyncWire(_http(http_client, options), options), bearer)

    @cached_property
    def keys(self) -> AsyncKeys:
        """API keys."""
        return AsyncKeys(self._transport)

    @cached_property
    def skills(self) -> AsyncSkills:
        """What can be executed."""
        return AsyncSkills(self._transport)

    @cached_property
    def account(self) -> AsyncAccounts:
        """The account that the credential belongs to."""
        return AsyncAccounts(self._transport)

    @cached_property
    def oauth(self) -> AsyncOAuth:
        """Access to what belongs to others. Needs no credential."""
        return AsyncOAuth(self._transport.wire)

    @cached_property
    def sessions(self) -> AsyncSessions:
        """Tokens for a short time."""
        return AsyncSessions(self._transport)

    async def whoami(self) -> Identity:
        """Return whom the server takes this client for."""
        return read_object(await self._transport.send(Call("GET", "/v1/whoami")), identity_from)

    def with_options(self, *, timeout: float | None = None, max_retries: int | None = None) -> "AsyncMachPay":
        """Return a client that differs in what is given, and shares the connections of this one."""
        options = self._transport.wire.options
        if timeout is not None:
            options = replace(options, timeout=timeout)
        if max_retries is not None:
            options = replace(options, max_retries=max_retries)
        return self._over(replace(self._transport, wire=replace(self._transport.wire, options=options)))

    async def aclose(self) -> None:
        """Close the connections, unless they belong to another client."""
        if self._owns_http:
            await self._transport.wire.http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        credential, base_url = self._transport.bearer.credential, self._transport.wire.options.base_url
        return f"{type(self).__name__}({None if credential is None else str(credential)!r}, {base_url=})"

    @classmethod
    def _over(cls, transport: AsyncTransport) -> "AsyncMachPay":
        client = cls.__new__(cls)
        client._owns_http = False  # noqa: SLF001 - its own, being made
        client._transport = transport  # noqa: SLF001 - as above
        return client


def _http(given: object, options: Options) -> httpx2.AsyncClient:
    if given is None:
        # Over loopback a proxy from the environment would be the one thing that sees the credential in clear.
        return httpx2.AsyncClient(trust_env=not options.is_plain)
    if not isinstance(given, httpx2.AsyncClient):
        raise ConfigurationError(f"http_client is a {type(given).__name__}, and has to be a httpx2.AsyncClient.")
    return given
