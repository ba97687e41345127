"""`client.oauth`: the way to access that a user grants to an application.

Generated from `_async` by generate.py: edit it there.
"""

from collections.abc import Sequence

from machpay._oauth import AuthorizationRequest, Parameters, authorization_request, code_in, scope_of
from machpay._reading import read_object
from machpay._response import Response
from machpay._sync.wire import Wire
from machpay._token_request import Application, TokenRequest, exchange_request, refresh_request, revocation_request
from machpay._tokens import Tokens, tokens_from
from machpay.errors import oauth_error_for


class OAuth:
    """Send users to the authorization server, and turn what they come back with into tokens."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def authorization_url(
        self,
        *,
        client_id: str,
        redirect_uri: str,
        scopes: Sequence[str],
        state: str | None = None,
        resource: str | None = None,
    ) -> AuthorizationRequest:
        """Return the `.url` to send a user to; keep `.state` and `.code_verifier` in the user's session."""
        return authorization_request(
            self._wire.options.auth_url,
            self._wire.effects.entropy,
            client_id=client_id,
            redirect_uri=redirect_uri,
            scopes=scopes,
            state=state,
            resource=resource,
        )

    def check_callback(self, url_or_params: str | Parameters, *, state: str, issuer: str | None = None) -> str:
        """Return the code that a callback brings. Raise OAuthError for an error, and for a callback of others.

        *state* is what the user's session holds; with *issuer* the callback has to come from there (RFC 9207).
        """
        return code_in(url_or_params, state=state, issuer=issuer)

    def exchange_code(
        self,
        *,
        code: str,
        redirect_uri: str,
        client_id: str,
        client_secret: str | None = None,
        code_verifier: str | None = None,
    ) -> Tokens:
        """Return the tokens for *code*. It is asked once: a code is used up by the first request that arrives."""
        application = Application(client_id, client_secret)
        request = exchange_request(application, code=code, redirect_uri=redirect_uri, code_verifier=code_verifier)
        return fetch_tokens(self._wire, request)

    def refresh_token(
        self,
        *,
        refresh_token: str,
        client_id: str,
        client_secret: str | None = None,
        scopes: Sequence[str] | None = None,
    ) -> Tokens:
        """Return the tokens that follow *refresh_token*, with fewer *scopes* where given."""
        application = Application(client_id, client_secret)
        request = refresh_request(application, refresh_token=refresh_token, scope=scope_of(scopes))
        return fetch_tokens(self._wire, request)

    def revoke(self, *, token: str, client_id: str, client_secret: str | None = None) -> None:
        """End *token*, an access token or a refresh token. One that is unknown counts as ended."""
        _granted(self._wire, revocation_request(Application(client_id, client_secret), token=token))


def fetch_tokens(wire: Wire, request: TokenRequest) -> Tokens:
    """Return the tokens that *request* is answered with."""
    response = _granted(wire, request)
    tokens = read_object(response, tokens_from, at="auth_url")
    return tokens if request.refresh_token is None else tokens.following(request.refresh_token)


def _granted(wire: Wire, request: TokenRequest) -> Response:
    response = wire.send(request.call, request.presented)
    if not response.is_success:
        raise oauth_error_for(response)
    return response
