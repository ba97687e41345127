"""The two servers that are asked the same: how each is reached, what it has given, and what it says, in one notation.

`303 invalid_scope` is an answer that a browser takes back to the app, with what is odd about it behind; `400 page` is
one for the user, who stays; `asks` means that a user is asked to sign in or to allow it: the request is a good one.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, quote, unquote_to_bytes, urlencode, urlsplit

from httpx2 import Client, Response

from machpay_gateway.core.oauth.pkce import challenge_of
from tests.oauth.harness import SCOPES, VERIFIER
from tests.oauth.interop.served import OTHER_AUDIENCE, App, Apps, Browser
from tests.oauth.interop.wire_requests import Asked, Values, header, written


@dataclass
class Party:
    """A server: its *issuer*, the *paths* of its endpoints, and the *audience* of its tokens."""

    issuer: str
    audience: str
    oauth_clients: Apps
    paths: Mapping[str, str]
    http: Client = field(default_factory=Client)  # which nobody is signed in by
    browser: Browser = field(init=False)

    def __post_init__(self) -> None:
        self.browser = Browser(self.issuer)

    def close(self) -> None:
        self.http.close()
        self.browser.close()

    def outcome_of(self, request: Asked) -> str:
        """Return what the server says to *asked*."""
        query = written(self._filled(request.query)) + request.tail
        body = written(self._filled(request.values)) if request.body is None else request.body.format_map(self)
        headers = [("Authorization", header(value.format_map(self))) for value in request.authorization]
        if request.method != "GET":
            headers.append(("Content-Type", request.content_type))
        url = f"{self.issuer}{self.paths[request.endpoint]}{'?' if query else ''}{query}"
        answer = self.http.request(request.method, url, content=body or None, headers=headers)
        return self._to_browser(answer, query) if request.endpoint == "authorize" else _to_app(answer)

    def __getitem__(self, name: str) -> Any:  # noqa: ANN401 - a text, or an app
        """Return what *name* means in a row. What is given out is given anew each time."""
        made: Mapping[str, Callable[[], Any]] = {
            "web": lambda: self.oauth_clients.web,
            "other": lambda: self.oauth_clients.other,
            "native": lambda: self.oauth_clients.native,
            "machine": lambda: self.oauth_clients.machine,
            "issuer": lambda: self.issuer,
            "audience": lambda: self.audience,
            "verifier": lambda: VERIFIER,
            "challenge": lambda: challenge_of(VERIFIER),
            "escaped_id": lambda: _escaped(self.oauth_clients.web.id),
            "escaped_secret": lambda: _escaped(self.oauth_clients.web.secret),
            "code": lambda: self.code(self.oauth_clients.web),
            "native_code": lambda: self.code(self.oauth_clients.native),
            "reports_code": lambda: self.code(self.oauth_clients.web, resource=OTHER_AUDIENCE),
            "used_code": lambda: self.used_code()[0],
            "access": lambda: self.tokens(self.oauth_clients.web)["access_token"],
            "refresh": lambda: self.tokens(self.oauth_clients.web)["refresh_token"],
            "narrow_refresh": lambda: self.tokens(self.oauth_clients.web, scope="account:read")["refresh_token"],
            "native_refresh": lambda: self.tokens(self.oauth_clients.native)["refresh_token"],
            "other_access": lambda: self.tokens(self.oauth_clients.other)["access_token"],
            "other_refresh": lambda: self.tokens(self.oauth_clients.other)["refresh_token"],
            "own": lambda: self.given(self.oauth_clients.machine, grant_type="client_credentials")["access_token"],
            "used_refresh": lambda: self.spent(1)[0],
            "older_refresh": lambda: self.spent(2)[0],
            "refresh_after_replay": self.refresh_after_replay,
            "access_after_replay": self.access_after_replay,
            "refresh_after_reuse": self.refresh_after_reuse,
            "revoked_refresh": lambda: self.revoked()["refresh_token"],
            "access_of_revoked": lambda: self.revoked()["access_token"],
        }
        return made[name]()

    def code(self, app: App, **changes: str) -> str:
        """Return a new code of *app*."""
        request = {
            "client_id": app.id,
            "redirect_uri": app.redirect_uri,
            "response_type": "code",
            "scope": " ".join(SCOPES),
            "code_challenge": challenge_of(VERIFIER),
            "code_challenge_method": "S256",
            **changes,
        }
        location = self.browser.allowed(f"{self.paths['authorize']}?{urlencode(request)}")
        return dict(parse_qsl(urlsplit(location).query))["code"]

    def tokens(self, app: App, **changes: str) -> dict[str, Any]:
        """Return what *app* got for a new code."""
        return self.redeemed(app, self.code(app, **changes))

    def redeemed(self, app: App, code: str) -> dict[str, Any]:
        sent = {"redirect_uri": app.redirect_uri, "code_verifier": VERIFIER}
        return self.given(app, grant_type="authorization_code", code=code, **sent)

    def given(self, app: App, **sent: str) -> dict[str, Any]:
        """Return what *app* is told by the token endpoint, whatever that is."""
        answer = self._posted("token", app, **sent)
        document: dict[str, Any] = answer.json()
        return document

    def refreshed(self, app: App, token: str) -> dict[str, Any]:
        return self.given(app, grant_type="refresh_token", refresh_token=token)

    def used_code(self) -> tuple[str, dict[str, Any]]:
        """Return a code that was exchanged, and what for."""
        code = self.code(self.oauth_clients.web)
        return code, self.redeemed(self.oauth_clients.web, code)

    def spent(self, times: int) -> list[str]:
        """Return refresh tokens, each for the one after it, *times* of them used."""
        line = [self["refresh"]]
        for _ in range(times):
            line.append(self.refreshed(self.oauth_clients.web, line[-1])["refresh_token"])
        return line

    def refresh_after_replay(self) -> str:
        code, tokens = self.used_code()
        assert self.redeemed(self.oauth_clients.web, code)["error"] == "invalid_grant"
        return str(tokens["refresh_token"])

    def access_after_replay(self) -> str:
        code, tokens = self.used_code()
        assert self.redeemed(self.oauth_clients.web, code)["error"] == "invalid_grant"
        return str(tokens["access_token"])

    def refresh_after_reuse(self) -> str:
        oldest, *_, newest = self.spent(2)
        assert self.refreshed(self.oauth_clients.web, oldest)["error"] == "invalid_grant"
        return newest

    def revoked(self) -> dict[str, Any]:
        """Return tokens, of which the refresh token was revoked."""
        tokens = self.tokens(self.oauth_clients.web)
        assert self._posted("revoke", self.oauth_clients.web, token=tokens["refresh_token"]).status_code == 200
        return tokens

    def _posted(self, endpoint: str, app: App, **sent: str) -> Response:
        secret = {"client_secret": app.secret} if app.secret else {}
        return self.http.post(self.issuer + self.paths[endpoint], data={"client_id": app.id, **secret, **sent})

    def _filled(self, values: Values) -> Values:
        return {name: value if value is None else self._text(value) for name, value in values.items()}

    def _text(self, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        return value.format_map(self) if isinstance(value, str) else tuple(each.format_map(self) for each in value)

    def _to_browser(self, answer: Response, query: str) -> str:
        location = answer.headers.get("location", "")
        if (answer.is_redirect and location.startswith((f"{self.issuer}/", "/"))) or answer.status_code == 200:
            return "asks"
        if not answer.is_redirect:
            kind = answer.headers.get("content-type", "")
            return f"{answer.status_code} page" if kind.startswith("text/html") else _to_app(answer)
        parts = urlsplit(location)
        answer_query = parts.query or parts.fragment
        named = dict(parse_qsl(answer_query))
        odd = [
            "" if parts.query else " in the fragment",
            "" if named.get("iss") == self.issuer else " without iss",
            "" if _values(answer_query, "state") == _state_due(query) else " with another state",
        ]
        return f"{answer.status_code} {named.get('error', 'code')}{''.join(odd)}"


def _to_app(answer: Response) -> str:
    try:
        document = answer.json()
    except ValueError:
        document = {}
    if "error" in document:
        return f"{answer.status_code} {document['error']}"
    if "active" in document:
        return f"{answer.status_code} {'active' if document['active'] else 'inactive'}"
    return str(answer.status_code)


def _escaped(text: str) -> str:
    return "".join(f"%{byte:02x}" for byte in text.encode())


def _values(query: str, name: str) -> list[bytes]:
    """Return what *query* has under *name*, byte by byte."""
    pairs = (pair.partition("=") for pair in query.split("&"))
    return [unquote_to_bytes(value.replace("+", " ")) for key, _, value in pairs if key == quote(name)]


def _state_due(query: str) -> list[bytes]:
    sent = _values(query, "state")
    return sent if len(sent) == 1 and sent[0] else []
