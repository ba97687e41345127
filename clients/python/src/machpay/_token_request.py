"""What the authorization server is asked at its token endpoint, and how an application says which one it is."""

import math
from base64 import b64encode
from dataclasses import dataclass, field
from urllib.parse import quote_plus, urlencode

from machpay._call import Call
from machpay._credential import Presented, masked
from machpay._oauth import given

TOKEN_PATH, REVOCATION_PATH = "/oauth/token", "/oauth/revoke"
# A refresh token is used up by the first request that arrives with it. For ten seconds another one is answered with
# the same successor; any later one looks like theft, and ends all that was issued for this user.
REFRESH_REPEATABLE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """A form. *refresh_token* is the one in it, if it has one."""

    call: Call
    presented: Presented
    refresh_token: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, repr=False)
class Application:
    """Who asks. One without *secret* is public: whoever has the program could read it there."""

    client_id: str
    secret: str | None = None

    def __post_init__(self) -> None:
        given("client_id", self.client_id)
        if self.secret is not None:
            given("client_secret", self.secret)

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
    """Return the request for the tokens that *code* stands for. A code is used up by whatever arrives with it."""
    form = {
        "grant_type": "authorization_code",
        "code": given("code", code),
        "redirect_uri": given("redirect_uri", redirect_uri),
        "code_verifier": None if code_verifier is None else given("code_verifier", code_verifier),
    }
    return _request(application, TOKEN_PATH, form, secret=("code", "code_verifier"), repeatable_seconds=0.0)


def refresh_request(application: Application, *, refresh_token: str, scope: str | None = None) -> TokenRequest:
    """Return the request for the tokens that follow *refresh_token*."""
    form = {
        "grant_type": "refresh_token",
        "refresh_token": given("refresh_token", refresh_token),
        "scope": scope,
    }
    return _request(
        application, TOKEN_PATH, form, secret=("refresh_token",), repeatable_seconds=REFRESH_REPEATABLE_SECONDS
    )


def revocation_request(application: Application, *, token: str) -> TokenRequest:
    """Return the request to end *token* (RFC 7009). To end it twice is to end it."""
    return _request(application, REVOCATION_PATH, {"token": given("token", token)}, secret=("token",))


def _request(
    application: Application,
    path: str,
    form: dict[str, str | None],
    *,
    secret: tuple[str, ...],
    repeatable_seconds: float = math.inf,
) -> TokenRequest:
    basic = application.basic
    sent = {name: value for name, value in form.items() if value is not None}
    hidden = (*(sent.get(name) for name in secret), application.secret, basic)
    presented = Presented(None if basic is None else f"Basic {basic}", tuple(each for each in hidden if each))
    if basic is None:
        sent["client_id"] = application.client_id
    body = urlencode(sent).encode()
    call = Call("POST", path, body=body, at="auth_url", repeatable_seconds=repeatable_seconds)
    return TokenRequest(call, presented, sent.get("refresh_token"))
