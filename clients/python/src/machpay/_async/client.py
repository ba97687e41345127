"""The client: a credential, the address of the API, and its resources."""

import os
from dataclasses import replace
from functools import cached_property
from types import TracebackType
from typing import Self

import httpx2

from machpay._account import Identity, identity_from
from machpay._async.account import AsyncAccounts
from machpay._async.credential_source import AsyncCredentialSource
from machpay._async.keys import AsyncKeys
from machpay._async.oauth import AsyncOAuth
from machpay._async.sender import AsyncSender
from machpay._async.sessions import AsyncSessions
from machpay._async.skills import AsyncSkills
from machpay._async.transport import AsyncTransport
from machpay._call import Call
from machpay._options import DEFAULT_MAX_RETRIES, DEFAULT_TIMEOUT_SECONDS, Options, auth_url_from, base_url_from
from machpay._parsing import parse_object
from machpay._token_callback import AsyncTokenCallback, OnTokens
from machpay._token_state import token_state_from
from machpay.errors import ConfigurationError


class AsyncMachPay:
    """A client of the MachPay API.

    Without *api_key* and *access_token* the key is taken from MACHPAY_API_KEY. The default of *base_url* is
    MACHPAY_BASE_URL; that of *auth_url*, the authorization server, is MACHPAY_AUTH_URL. With *refresh_token* and
    *client_id*, the access token is refreshed automatically, and *on_tokens* is called with each new pair before the
    request continues. *timeout* is in seconds for one attempt; a call with all its retries takes at most
    (max_retries + 1) times as long. The client does not close a given *http_client*.
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
        state = token_state_from(
            api_key,
            access_token,
            os.environ,
            refresh_token=refresh_token,
            client_id=client_id,
            client_secret=client_secret,
        )
        credentials = AsyncCredentialSource(state, AsyncTokenCallback(on_tokens))
        addresses = base_url_from(base_url, os.environ), auth_url_from(auth_url, base_url, os.environ)
        options = Options(addresses[0], timeout, max_retries, addresses[1])
        self._owns_http = http_client is None
        self._transport = AsyncTransport(AsyncSender(_http(http_client, options), options), credentials)

    @cached_property
    def keys(self) -> AsyncKeys:
        """API keys."""
        return AsyncKeys(self._transport)

    @cached_property
    def skills(self) -> AsyncSkills:
        """Skills to execute."""
        return AsyncSkills(self._transport)

    @cached_property
    def account(self) -> AsyncAccounts:
        """The account that the credential belongs to."""
        return AsyncAccounts(self._transport)

    @cached_property
    def oauth(self) -> AsyncOAuth:
        """Access that users grant to an application. Needs no credential."""
        return AsyncOAuth(self._transport.sender)

    @cached_property
    def sessions(self) -> AsyncSessions:
        """Short-lived tokens."""
        return AsyncSessions(self._transport)

    async def whoami(self) -> Identity:
        """Return the identity that the server sees."""
        return parse_object(await self._transport.send(Call("GET", "/v1/whoami")), identity_from)

    def with_options(self, *, timeout: float | None = None, max_retries: int | None = None) -> "AsyncMachPay":
        """Return a client with the given options changed, which shares the connections of this one."""
        options = self._transport.sender.options
        if timeout is not None:
            options = replace(options, timeout=timeout)
        if max_retries is not None:
            options = replace(options, max_retries=max_retries)
        return self._over(replace(self._transport, sender=replace(self._transport.sender, options=options)))

    async def aclose(self) -> None:
        """Close the connections, unless another client owns them."""
        if self._owns_http:
            await self._transport.sender.http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        credential, base_url = self._transport.credentials.credential, self._transport.sender.options.base_url
        return f"{type(self).__name__}({None if credential is None else str(credential)!r}, {base_url=})"

    @classmethod
    def _over(cls, transport: AsyncTransport) -> "AsyncMachPay":
        client = cls.__new__(cls)
        client._owns_http = False  # noqa: SLF001 - an instance of this class, under construction
        client._transport = transport  # noqa: SLF001 - as above
        return client


def _http(http_client: object, options: Options) -> httpx2.AsyncClient:
    if http_client is None:
        # No proxy from the environment for plain HTTP over loopback: it would see the credential unencrypted.
        return httpx2.AsyncClient(trust_env=not options.is_plain)
    if not isinstance(http_client, httpx2.AsyncClient):
        raise ConfigurationError(f"http_client is a {type(http_client).__name__}, and has to be a httpx2.AsyncClient.")
    return http_client
