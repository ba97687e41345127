"""The client: a credential, the address of the API, and its resources."""

import os
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Self, Unpack

import httpx2

from machpay._async.credential_source import AsyncCredentialSource
from machpay._async.oauth import AsyncOAuth
from machpay._async.requests import AsyncRequests
from machpay._async.sender import AsyncSender
from machpay._async.transport import AsyncTransport
from machpay._call import Call, CallOptions, header_pairs
from machpay._connections import AsyncConnections
from machpay._dpop import DPoPKey
from machpay._hooks import Hooks, OnRequest, OnResponse
from machpay._options import DEFAULT_MAX_RETRIES, DEFAULT_TIMEOUT_SECONDS, Options, auth_url_from, base_url_from
from machpay._parsing import parse_object
from machpay._token_state import token_state_from
from machpay._token_store import AsyncTokenStore, LoadTokens, OnTokens
from machpay.errors import ConfigurationError, InvalidArgumentError

if TYPE_CHECKING:
    from machpay._account import Identity
    from machpay._async.account import AsyncAccounts
    from machpay._async.audit_log import AsyncAuditLog
    from machpay._async.grants import AsyncGrants
    from machpay._async.keys import AsyncKeys
    from machpay._async.oauth_clients import AsyncOAuthClients
    from machpay._async.sessions import AsyncSessions
    from machpay._async.skills import AsyncSkills


class AsyncMachPay(AsyncRequests):
    """A client of the MachPay API.

    Without *api_key* and *access_token* the key is taken from MACHPAY_API_KEY. The default of *base_url* is
    MACHPAY_BASE_URL; that of *auth_url*, the authorization server, is MACHPAY_AUTH_URL. With *refresh_token* and
    *client_id*, the access token is refreshed automatically, and *on_tokens* is called with each new pair before the
    request continues. *load_tokens* returns those that are stored, and is called before each refresh: another process
    may have refreshed them. With *dpop_key*, the tokens are bound to it. *timeout* is in seconds for one attempt; a
    call with all its retries takes at most (max_retries + 1) times as long. *default_headers* are sent with each
    request to the API. *on_request* and *on_response* are called before and after each attempt. The client does not
    close a given *http_client*.
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
        load_tokens: LoadTokens | None = None,
        dpop_key: DPoPKey | None = None,
        base_url: str | None = None,
        auth_url: str | None = None,
        timeout: float = DEFAULT_TIMEOUT_SECONDS,
        max_retries: int = DEFAULT_MAX_RETRIES,
        default_headers: Mapping[str, str] | None = None,
        on_request: OnRequest | None = None,
        on_response: OnResponse | None = None,
        http_client: httpx2.AsyncClient | None = None,
    ) -> None:
        state = token_state_from(
            api_key,
            access_token,
            os.environ,
            refresh_token=refresh_token,
            client_id=client_id,
            client_secret=client_secret,
            dpop_key=dpop_key,
            can_load=load_tokens is not None,
        )
        options = Options(
            base_url_from(base_url, os.environ),
            timeout,
            max_retries,
            auth_url_from(auth_url, base_url, os.environ),
            _default_headers(default_headers),
            Hooks(on_request, on_response),
        )
        credentials = AsyncCredentialSource(state, AsyncTokenStore(on_tokens, load_tokens))
        self._owns_connections = True
        connections = AsyncConnections(http_client, options)
        self._transport = AsyncTransport(AsyncSender(connections, options), credentials, dpop_key)

    @cached_property
    def keys(self) -> "AsyncKeys":
        """API keys."""
        from machpay._async.keys import AsyncKeys  # noqa: PLC0415 - imported when it is needed

        return AsyncKeys(self._transport)

    @cached_property
    def skills(self) -> "AsyncSkills":
        """Skills to execute."""
        from machpay._async.skills import AsyncSkills  # noqa: PLC0415 - imported when it is needed

        return AsyncSkills(self._transport)

    @cached_property
    def account(self) -> "AsyncAccounts":
        """The account that the credential belongs to."""
        from machpay._async.account import AsyncAccounts  # noqa: PLC0415 - imported when it is needed

        return AsyncAccounts(self._transport)

    @cached_property
    def oauth_clients(self) -> "AsyncOAuthClients":
        """Applications that may act for users."""
        from machpay._async.oauth_clients import AsyncOAuthClients  # noqa: PLC0415 - imported when it is needed

        return AsyncOAuthClients(self._transport)

    @cached_property
    def grants(self) -> "AsyncGrants":
        """What users allow OAuth clients to do."""
        from machpay._async.grants import AsyncGrants  # noqa: PLC0415 - imported when it is needed

        return AsyncGrants(self._transport)

    @cached_property
    def audit_log(self) -> "AsyncAuditLog":
        """Who changed what in the account."""
        from machpay._async.audit_log import AsyncAuditLog  # noqa: PLC0415 - imported when it is needed

        return AsyncAuditLog(self._transport)

    @cached_property
    def oauth(self) -> AsyncOAuth:
        """Access that users grant to an application. Needs no credential."""
        return AsyncOAuth(self._transport.sender)

    @cached_property
    def sessions(self) -> "AsyncSessions":
        """Short-lived tokens."""
        from machpay._async.sessions import AsyncSessions  # noqa: PLC0415 - imported when it is needed

        return AsyncSessions(self._transport)

    async def whoami(self, **options: Unpack[CallOptions]) -> "Identity":
        """Return the identity that the server sees."""
        from machpay._account import identity_from  # noqa: PLC0415 - imported when it is needed

        return parse_object(await self._transport.send(Call("GET", "/v1/whoami").using(options)), identity_from)

    def with_options(
        self,
        *,
        timeout: float | None = None,
        max_retries: int | None = None,
        default_headers: Mapping[str, str] | None = None,
    ) -> "AsyncMachPay":
        """Return a client with the given options changed, which shares the connections of this one.

        *default_headers* are sent in addition to those of this client.
        """
        options = self._transport.sender.options.changed(timeout, max_retries)
        if default_headers is not None:
            options = replace(options, headers=(*options.headers, *_default_headers(default_headers)))
        return self._over(replace(self._transport, sender=replace(self._transport.sender, options=options)))

    async def aclose(self) -> None:
        """Close the client, and its connections unless they are of a given `http_client`.

        A client from `with_options` closes nothing.
        """
        if self._owns_connections:
            await self._transport.sender.connections.aclose()

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
        client._owns_connections = False  # noqa: SLF001 - an instance of this class, under construction
        client._transport = transport  # noqa: SLF001 - as above
        return client


def _default_headers(headers: Mapping[str, str] | None) -> tuple[tuple[str, str], ...]:
    try:
        return () if headers is None else header_pairs("default_headers", headers)
    except InvalidArgumentError as exc:
        raise ConfigurationError(str(exc)) from None
