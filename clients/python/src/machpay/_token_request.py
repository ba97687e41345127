"""Requests to the token and revocation endpoints, with the authentication of the application."""

import math
from base64 import b64encode
from dataclasses import dataclass, field
from urllib.parse import quote_plus, urlencode

from machpay._call import Call
from machpay._credential import Authorization, masked
from machpay._dpop import DPoPKey
from machpay._oauth import require_text
from machpay.errors import InvalidArgumentError

TOKEN_PATH, REVOCATION_PATH, INTROSPECTION_PATH = "/oauth/token", "/oauth/revoke", "/oauth/introspect"
# A refresh token can be used once. For ten seconds the server answers a repeated request with the same successor. Later
# it takes the reuse for theft, and revokes the whole token family (RFC 9700 §4.14.2).
REFRESH_REPEATABLE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """A request with a form. *refresh_token* is the token in the form, if any."""

    call: Call
    authorization: Authorization
    refresh_token: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, repr=False)
class Application:
    """The application that sends a request. It is public without a *secret*, which its users could read."""

    client_id: str
    secret: str | None = None
    dpop_key: DPoPKey | None = None

    def __post_init__(self) -> None:
        require_text("client_id", self.client_id)
        if self.secret is not None:
            require_text("client_secret", self.secret)

    @property
    def basic(self) -> str | None:
        """The credentials of HTTP Basic, None for a public application."""
        if self.secret is None:
            return None
        # RFC 6749 §2.3.1: each is form-encoded first, so that a colon in the id stays a part of it.
        return b64encode(f"{quote_plus(self.client_id)}:{quote_plus(self.secret)}".encode()).decode()

    def __repr__(self) -> str:
        return f"Application({self.client_id!r}, {None if self.secret is None else masked(self.secret)!r})"


def exchange_request(
    application: Application, *, code: str, redirect_uri: str, code_verifier: str | None
) -> TokenRequest:
    """Return the request that exchanges *code* for tokens. A code can be used once, even if the request fails."""
    form = {
        "grant_type": "authorization_code",
        "code": require_text("code", code),
        "redirect_uri": require_text("redirect_uri", redirect_uri),
        "code_verifier": None if code_verifier is None else require_text("code_verifier", code_verifier),
    }
    return _request(application, TOKEN_PATH, form, secret=("code", "code_verifier"), repeatable_seconds=0.0)


def refresh_request(application: Application, *, refresh_token: str, scope: str | None = None) -> TokenRequest:
    """Return the request that refreshes tokens with *refresh_token*."""
    form = {
        "grant_type": "refresh_token",
        "refresh_token": require_text("refresh_token", refresh_token),
        "scope": scope,
    }
    return _request(
        application, TOKEN_PATH, form, secret=("refresh_token",), repeatable_seconds=REFRESH_REPEATABLE_SECONDS
    )


def client_credentials_request(application: Application, *, scope: str | None, resource: str | None) -> TokenRequest:
    """Return the request for a token of the application itself (RFC 6749 §4.4). *resource* is of RFC 8707."""
    if application.secret is None:
        raise InvalidArgumentError("client_secret is missing: a public application cannot act for itself.")
    form = {
        "grant_type": "client_credentials",
        "scope": scope,
        "resource": None if resource is None else require_text("resource", resource),
    }
    return _request(application, TOKEN_PATH, form)


def introspection_request(application: Application, *, token: str) -> TokenRequest:
    """Return the request for what is known about *token* (RFC 7662)."""
    if application.secret is None:
        raise InvalidArgumentError("client_secret is missing: a public application cannot introspect tokens.")
    return _request(application, INTROSPECTION_PATH, {"token": require_text("token", token)}, secret=("token",))


def revocation_request(application: Application, *, token: str) -> TokenRequest:
    """Return the request to revoke *token* (RFC 7009), which is idempotent."""
    return _request(application, REVOCATION_PATH, {"token": require_text("token", token)}, secret=("token",))


def _request(
    application: Application,
    path: str,
    form: dict[str, str | None],
    *,
    secret: tuple[str, ...] = (),
    repeatable_seconds: float = math.inf,
) -> TokenRequest:
    basic = application.basic
    fields = {name: value for name, value in form.items() if value is not None}
    secrets = (*(fields.get(name) for name in secret), application.secret, basic)
    dpop_key = application.dpop_key if path == TOKEN_PATH else None
    authorization = Authorization(None if basic is None else f"Basic {basic}", tuple(filter(None, secrets)), dpop_key)
    if basic is None:
        fields["client_id"] = application.client_id
    body = urlencode(fields).encode()
    call = Call(
        "POST",
        path,
        body=body,
        server="auth_url",
        repeatable_seconds=repeatable_seconds,
        content_type="application/x-www-form-urlencoded",
    )
    return TokenRequest(call, authorization, fields.get("refresh_token"))
