"""`client.oauth_clients`: applications that may act for users.

Generated from `_async` by generate.py: edit it there.
"""

from collections.abc import Sequence
from typing import Unpack

from machpay._call import Call, CallOptions, ChangeOptions, json_of, path_of, query_of, strings_of
from machpay._not_given import NOT_GIVEN, NotGiven
from machpay._oauth_client import (
    DeletedOAuthClient,
    IssuedOAuthClient,
    OAuthClient,
    deleted_oauth_client_from,
    issued_oauth_client_from,
    listed_oauth_client_from,
    oauth_client_from,
)
from machpay._parsing import parse_object
from machpay._sync.page import Page, fetch_page
from machpay._sync.transport import Transport
from machpay._types import Environment, GrantType

DAY_SECONDS = 86_400
_PATH = "/v1/oauth/clients/{client_id}"


class OAuthClients:
    """Create, change and delete OAuth clients. Needs a credential with the scope for it."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(
        self,
        *,
        name: str,
        scopes: Sequence[str],
        redirect_uris: Sequence[str] | None = None,
        grant_types: Sequence[GrantType] | None = None,
        environment: Environment | None = None,
        public: bool | None = None,
        require_pkce: bool | None = None,
        dpop_bound: bool | None = None,
        **options: Unpack[CallOptions],
    ) -> IssuedOAuthClient:
        """Create an OAuth client. Its `.client_secret` is shown only once; a *public* one has none.

        It is retried only if the server has refused it or cannot have received it: it could be created twice.
        """
        optional = {
            "redirect_uris": strings_of("redirect_uris", redirect_uris),
            "grant_types": strings_of("grant_types", grant_types),
            "environment": environment,
            "public": public,
            "require_pkce": require_pkce,
            "dpop_bound": dpop_bound,
        }
        given = {member: value for member, value in optional.items() if value is not None}
        body = json_of({"name": name, "scopes": strings_of("scopes", scopes), **given})
        call = Call("POST", "/v1/oauth/clients", body=body, is_deduplicated=False).using(options)
        return parse_object(self._transport.send(call), issued_oauth_client_from)

    def list(
        self,
        *,
        environment: Environment | None = None,
        limit: int | None = None,
        after: str | None = None,
        **options: Unpack[CallOptions],
    ) -> Page[OAuthClient]:
        """List OAuth clients, newest first."""
        query = query_of(limit=limit, after=after, environment=environment)
        call = Call("GET", "/v1/oauth/clients", query).using(options)
        return fetch_page(self._transport, call, listed_oauth_client_from)

    def retrieve(self, client_id: str, **options: Unpack[CallOptions]) -> OAuthClient:
        """Return an OAuth client with its `.etag`."""
        call = Call("GET", path_of(_PATH, client_id=client_id)).using(options)
        return parse_object(self._transport.send(call), oauth_client_from)

    def update(
        self,
        client_id: str,
        *,
        name: str | NotGiven = NOT_GIVEN,
        scopes: Sequence[str] | NotGiven = NOT_GIVEN,
        redirect_uris: Sequence[str] | NotGiven = NOT_GIVEN,
        grant_types: Sequence[GrantType] | NotGiven = NOT_GIVEN,
        require_pkce: bool | NotGiven = NOT_GIVEN,
        dpop_bound: bool | NotGiven = NOT_GIVEN,
        if_match: str | None = None,
        **options: Unpack[ChangeOptions],
    ) -> OAuthClient:
        """Change the given settings. With *if_match*, raises PreconditionFailedError if it has changed since."""
        body = json_of(
            {
                "name": name,
                "scopes": strings_of("scopes", scopes),
                "redirect_uris": strings_of("redirect_uris", redirect_uris),
                "grant_types": strings_of("grant_types", grant_types),
                "require_pkce": require_pkce,
                "dpop_bound": dpop_bound,
            }
        )
        path = path_of(_PATH, client_id=client_id)
        call = Call("PATCH", path, body=body, if_match=if_match).using(options)
        return parse_object(self._transport.send(call), oauth_client_from)

    def rotate_secret(
        self, client_id: str, *, grace_seconds: int = DAY_SECONDS, **options: Unpack[CallOptions]
    ) -> IssuedOAuthClient:
        """Issue a new `.client_secret`, shown only once. The current one works for another *grace_seconds*.

        It is retried like `create`.
        """
        path = path_of(f"{_PATH}/rotate-secret", client_id=client_id)
        call = Call("POST", path, body=json_of({"grace_seconds": grace_seconds}), is_deduplicated=False).using(options)
        return parse_object(self._transport.send(call), issued_oauth_client_from)

    def delete(self, client_id: str, **options: Unpack[CallOptions]) -> DeletedOAuthClient:
        """Delete the OAuth client permanently. Its tokens are refused from the next request on."""
        call = Call("DELETE", path_of(_PATH, client_id=client_id)).using(options)
        return parse_object(self._transport.send(call), deleted_oauth_client_from)
