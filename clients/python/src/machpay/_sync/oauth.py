"""`client.oauth`: access that users grant to an application.

Generated from `_async` by generate.py: edit it there.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from machpay._dpop import DPoPKey
from machpay._oauth import AuthorizationRequest, Parameters, authorization_request, parse_callback, scope_of
from machpay._parsing import parse_object
from machpay._response import Response
from machpay._sync.sender import Sender
from machpay._token_request import (
    Application,
    TokenRequest,
    client_credentials_request,
    exchange_request,
    introspection_request,
    refresh_request,
    revocation_request,
)
from machpay._tokens import Tokens, bound_tokens_from, tokens_from
from machpay.errors import oauth_error_for

if TYPE_CHECKING:
    from machpay._introspection import Introspection


class OAuth:
    """Redirect users to the authorization server, and exchange codes for tokens."""

    def __init__(self, sender: Sender) -> None:
        self._sender = sender

    def authorization_url(
        self,
        *,
        client_id: str,
        redirect_uri: str,
        scopes: Sequence[str],
        state: str | None = None,
        resource: str | None = None,
        prompt: str | None = None,
    ) -> AuthorizationRequest:
        """Return the `.url` to redirect a user to. Keep `.state` and `.code_verifier` in the user's session.

        *prompt* is `login` to ask for the password again, `consent` to ask for consent again, `none` to ask nothing.
        """
        return authorization_request(
            self._sender.options.auth_url,
            self._sender.effects.entropy,
            client_id=client_id,
            redirect_uri=redirect_uri,
            scopes=scopes,
            state=state,
            resource=resource,
            prompt=prompt,
        )

    def check_callback(self, url_or_params: str | Parameters, *, state: str, issuer: str | None = None) -> str:
        """Return the code in a callback. Raises OAuthError for an error, and for a forged callback.

        *state* is the one in the user's session. With *issuer*, the callback must come from that server (RFC 9207).
        """
        return parse_callback(url_or_params, state=state, issuer=issuer)

    def exchange_code(
        self,
        *,
        code: str,
        redirect_uri: str,
        client_id: str,
        client_secret: str | None = None,
        code_verifier: str | None = None,
        dpop_key: DPoPKey | None = None,
    ) -> Tokens:
        """Return the tokens for *code*, bound to *dpop_key*. There are no retries: a code can be used only once."""
        application = Application(client_id, client_secret, dpop_key)
        request = exchange_request(application, code=code, redirect_uri=redirect_uri, code_verifier=code_verifier)
        return fetch_tokens(self._sender, request)

    def refresh_token(
        self,
        *,
        refresh_token: str,
        client_id: str,
        client_secret: str | None = None,
        scopes: Sequence[str] | None = None,
        dpop_key: DPoPKey | None = None,
    ) -> Tokens:
        """Return new tokens for *refresh_token*, limited to *scopes* if given, and bound to *dpop_key*."""
        application = Application(client_id, client_secret, dpop_key)
        request = refresh_request(application, refresh_token=refresh_token, scope=scope_of(scopes))
        return fetch_tokens(self._sender, request)

    def client_credentials(
        self,
        *,
        client_id: str,
        client_secret: str,
        scopes: Sequence[str] | None = None,
        resource: str | None = None,
        dpop_key: DPoPKey | None = None,
    ) -> Tokens:
        """Return a token with which the application acts for itself. It has no refresh token: request another one."""
        application = Application(client_id, client_secret, dpop_key)
        request = client_credentials_request(application, scope=scope_of(scopes), resource=resource)
        return fetch_tokens(self._sender, request)

    def introspect(self, *, token: str, client_id: str, client_secret: str) -> "Introspection":
        """Return what the server knows of *token*, one of the application's own. Another one is not `.active`."""
        from machpay._introspection import introspection_from  # noqa: PLC0415 - imported when it is needed

        request = introspection_request(Application(client_id, client_secret), token=token)
        return parse_object(_send(self._sender, request), introspection_from, server="auth_url")

    def revoke(self, *, token: str, client_id: str, client_secret: str | None = None) -> None:
        """Revoke *token*, an access token or a refresh token. An unknown token is not an error."""
        _send(self._sender, revocation_request(Application(client_id, client_secret), token=token))


def fetch_tokens(sender: Sender, request: TokenRequest) -> Tokens:
    """Return the tokens in the response to *request*."""
    response = _send(sender, request)
    parser = tokens_from if request.authorization.dpop_key is None else bound_tokens_from
    tokens = parse_object(response, parser, server="auth_url")
    return tokens if request.refresh_token is None else tokens.with_refresh_token(request.refresh_token)


def _send(sender: Sender, request: TokenRequest) -> Response:
    response = sender.send(request.call, request.authorization)
    if not response.is_success:
        raise oauth_error_for(response)
    return response
