"""OAuth authorization requests and callbacks, as pure functions.

Secrets are in no error message, and masked in every repr.
"""

import re
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from machpay._call import strings_of
from machpay._credential import Authorization, masked
from machpay.errors import InvalidArgumentError, OAuthError

Parameters = Mapping[str, str | Sequence[str]]
_RANDOM_BYTES = 32  # RFC 7636 §4.1 recommends as many for a verifier
_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")  # RFC 6749 §3.3


@dataclass(frozen=True, slots=True, repr=False)
class AuthorizationRequest:
    """The *url* to redirect a user to. Keep *state* for the callback, and *code_verifier* for `exchange_code`."""

    url: str
    state: str
    code_verifier: str

    def __repr__(self) -> str:
        page = self.url.partition("?")[0]
        state, verifier = masked(self.state), masked(self.code_verifier)
        return f"AuthorizationRequest(url='{page}?…', {state=}, code_verifier={verifier!r})"


def authorization_request(
    auth_url: str,
    entropy: Callable[[int], bytes],
    *,
    client_id: str,
    redirect_uri: str,
    scopes: Sequence[str],
    state: str | None,
    resource: str | None,
    prompt: str | None,
) -> AuthorizationRequest:
    """Return an authorization request with PKCE (RFC 7636). *resource* is the API to access (RFC 8707)."""
    from hashlib import sha256  # noqa: PLC0415 - most clients do not use OAuth

    verifier = _base64url(entropy(_RANDOM_BYTES))
    parameters = {
        "response_type": "code",
        "client_id": require_text("client_id", client_id),
        "redirect_uri": require_text("redirect_uri", redirect_uri),
        "scope": scope_of(scopes),
        "state": _base64url(entropy(_RANDOM_BYTES)) if state is None else require_text("state", state),
        "code_challenge": _base64url(sha256(verifier.encode()).digest()),
        "code_challenge_method": "S256",
        "resource": None if resource is None else require_text("resource", resource),
        "prompt": None if prompt is None else require_text("prompt", prompt),
    }
    # A space is encoded as %20, which every parser decodes. Some do not decode a plus.
    query = urlencode({name: value for name, value in parameters.items() if value}, quote_via=quote, safe="")
    return AuthorizationRequest(f"{auth_url}/oauth/authorize?{query}", parameters["state"] or "", verifier)


def parse_callback(callback: str | Parameters, *, state: str, issuer: str | None) -> str:
    """Return the code in *callback*, a URL or its parameters. It is authenticated before its error is reported."""
    import hmac  # noqa: PLC0415 - as in `authorization_request`

    expected = require_text("state", state)
    parameters = _parameters(callback)
    actual = _single(parameters, "state")
    if actual is None or not hmac.compare_digest(_bytes(actual), _bytes(expected)):
        raise OAuthError("state_mismatch", "The callback does not belong to this user's request; start anew.")
    # RFC 9207 §2.4: a string comparison. A response without `iss` may come from another server, too.
    if issuer is not None and _single(parameters, "iss") != issuer:
        raise OAuthError("issuer_mismatch", "The callback does not come from the expected authorization server.")
    code, error = _single(parameters, "code"), _single(parameters, "error")
    if error:
        description = _single(parameters, "error_description")
        authorization = Authorization(secrets=tuple(secret for secret in (expected, code) if secret))
        raise OAuthError(
            error, None if description is None else authorization.redact(_bytes(description)).decode(errors="replace")
        )
    if not code:
        raise OAuthError("invalid_callback", "The callback has neither a code nor an error.")
    return code


def scope_of(scopes: Sequence[str] | None) -> str | None:
    """Return *scopes* as one string, None for none."""
    names = strings_of("scopes", scopes)
    if not isinstance(names, list) or not names:
        return None
    for scope in names:
        if not _SCOPE.fullmatch(scope):
            raise InvalidArgumentError(f"scopes holds {scope!r}, which is not a scope.")
    return " ".join(names)


def require_text(name: str, value: object) -> str:
    """Return *value*, a non-empty string. Errors do not show it, because it may be a secret."""
    if not isinstance(value, str):
        raise InvalidArgumentError(f"{name} is a {type(value).__name__}, and has to be a string.")
    if not value:
        raise InvalidArgumentError(f"{name} is empty.")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidArgumentError(f"{name} is not valid Unicode.") from None
    return value


def _parameters(callback: object) -> Mapping[str, object]:
    if isinstance(callback, Mapping):
        return callback
    if not isinstance(callback, str):
        raise InvalidArgumentError(f"A callback is a URL or a mapping, and not a {type(callback).__name__}.")
    try:
        pairs = parse_qsl(urlsplit(callback).query, keep_blank_values=True)
    except ValueError:
        raise OAuthError("invalid_callback", "The callback is not a URL.") from None
    values: dict[str, list[str]] = {}
    for name, value in pairs:
        values.setdefault(name, []).append(value)
    return values


def _single(parameters: Mapping[str, object], name: str) -> str | None:
    """Return the parameter *name*, or None without it. RFC 6749 §3.1: it must not occur twice."""
    value = parameters.get(name)
    if isinstance(value, list | tuple):
        if len(value) > 1:
            raise OAuthError("invalid_callback", f"The callback has several parameters {name}.")
        value = value[0] if value else None
    return value if isinstance(value, str) else None


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogatepass")


def _base64url(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()
