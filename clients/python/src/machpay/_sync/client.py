"""The client: a credential, the address of the API, and its resources.

Generated from `_async` by generate.py: edit it there.
"""

import os
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Self, Unpack

import httpx2

from machpay._call import Call, CallOptions, header_pairs
from machpay._connections import Connections
from machpay._dpop import DPoPKey
from machpay._hooks import Hooks, OnRequest, OnResponse
from machpay._options import DEFAULT_MAX_RETRIES, DEFAULT_TIMEOUT_SECONDS, Options, auth_url_from, base_url_from
from machpay._parsing import parse_object
from machpay._sync.credential_source import CredentialSource
from machpay._sync.oauth import OAuth
from machpay._sync.requests import Requests
from machpay._sync.sender import Sender
from machpay._sync.transport import Transport
from machpay._token_state import token_state_from
from machpay._token_store import LoadTokens, OnTokens, TokenStore
from machpay.errors import ConfigurationError, InvalidArgumentError

if TYPE_CHECKING:
    from machpay._account import Identity
    from machpay._sync.account import Accounts
    from machpay._sync.audit_log import AuditLog
    from machpay._sync.grants import Grants
    from machpay._sync.keys import Keys
    from machpay._sync.oauth_clients import OAuthClients
    from machpay._sync.sessions import Sessions
    from machpay._sync.skills import Skills


class MachPay(Requests):
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
        http_client: httpx2.Client | None = None,
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
        credentials = CredentialSource(state, TokenStore(on_tokens, load_tokens))
        self._owns_connections = True
        connections = Connections(http_client, options)
        self._transport = Transport(Sender(connections, options), credentials, dpop_key)

    @cached_property
    def keys(self) -> "Keys":
        """API keys."""
        from machpay._sync.keys import Keys  # noqa: PLC0415 - imported when it is needed

        return Keys(self._transport)

    @cached_property
    def skills(self) -> "Skills":
        """Skills to execute."""
        from machpay._sync.skills import Skills  # noqa: PLC0415 - imported when it is needed

        return Skills(self._transport)

    @cached_property
    def account(self) -> "Accounts":
        """The account that the credential belongs to."""
        from machpay._sync.account import Accounts  # noqa: PLC0415 - imported when it is needed

        return Accounts(self._transport)

    @cached_property
    def oauth_clients(self) -> "OAuthClients":
        """Applications that may act for users."""
        from machpay._sync.oauth_clients import OAuthClients  # noqa: PLC0415 - imported when it is needed

        return OAuthClients(self._transport)

    @cached_property
    def grants(self) -> "Grants":
        """What users allow OAuth clients to do."""
        from machpay._sync.grants import Grants  # noqa: PLC0415 - imported when it is needed

        return Grants(self._transport)

    @cached_property
    def audit_log(self) -> "AuditLog":
        """Who changed what in the account."""
        from machpay._sync.audit_log import AuditLog  # noqa: PLC0415 - imported when it is needed

        return AuditLog(self._transport)

    @cached_property
    def oauth(self) -> OAuth:
        """Access that users grant to an application. Needs no credential."""
        return OAuth(self._transport.sender)

    @cached_property
    def sessions(self) -> "Sessions":
        """Short-lived tokens."""
        from machpay._sync.sessions import Sessions  # noqa: PLC0415 - imported when it is needed

        return Sessions(self._transport)

    def whoami(self, **options: Unpack[CallOptions]) -> "Identity":
        """Return the identity that the server sees."""
        from machpay._account import identity_from  # noqa: PLC0415 - imported when it is needed

        return parse_object(self._transport.send(Call("GET", "/v1/whoami").using(options)), identity_from)

    def with_options(
        self,
        *,
        timeout: float | None = None,
        max_retries: int | None = None,
        default_headers: Mapping[str, str] | None = None,
    ) -> "MachPay":
        """Return a client with the given options changed, which shares the connections of this one.

        *default_headers* are sent in addition to those of this client.
        """
        options = self._transport.sender.options.changed(timeout, max_retries)
        if default_headers is not None:
            options = replace(options, headers=(*options.headers, *_default_headers(default_headers)))
        return self._over(replace(self._transport, sender=replace(self._transport.sender, options=options)))

    def close(self) -> None:
        """Close the client, and its connections unless they are of a given `http_client`.

        A client from `with_options` closes nothing.
        """
        if self._owns_connections:
            self._transport.sender.connections.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        credential, base_url = self._transport.credentials.credential, self._transport.sender.options.base_url
        return f"{type(self).__name__}({None if credential is None else str(credential)!r}, {base_url=})"

    @classmethod
    def _over(cls, transport: Transport) -> "MachPay":
        client = cls.__new__(cls)
        client._owns_connections = False  # noqa: SLF001 - an instance of this class, under construction
        client._transport = transport  # noqa: SLF001 - as above
        return client


def _default_headers(headers: Mapping[str, str] | None) -> tuple[tuple[str, str], ...]:
    try:
        return () if headers is None else header_pairs("default_headers", headers)
    except InvalidArgumentError as exc:
        raise ConfigurationError(str(exc)) from None
