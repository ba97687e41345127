"""Rules of the authorization endpoint (RFC 6749 §4.1.1, RFC 7636 §4.3, RFC 8707 §2)."""

from collections.abc import Collection
from dataclasses import dataclass
from urllib.parse import urlencode, urlsplit

from machpay_gateway.core.oauth.client import AUTHORIZATION_CODE, OAuthClient
from machpay_gateway.core.oauth.error import OAuthErrorCode, OAuthRefusal
from machpay_gateway.core.oauth.parameters import Parameters
from machpay_gateway.core.oauth.pkce import METHOD, is_challenge
from machpay_gateway.core.oauth.redirect_uri import is_registered, origin_source
from machpay_gateway.core.oauth.settings import OAuthSettings
from machpay_gateway.core.scopes import Scopes

MAX_STATE = 4096  # characters
UNKNOWN_CLIENT = "This app is not registered here: its client_id is missing or wrong."
PROMPTS = ("none", "login", "consent", "select_account")  # OpenID Connect Core §3.1.2.1; other clients send them too


@dataclass(frozen=True, slots=True)
class RedirectTarget:
    """Where the response to an authorization request goes: always a registered URI.

    *has_redirect* tells whether the request named the URI. It is determined before anything else of the request is
    trusted.
    """

    redirect_uri: str
    has_redirect: bool
    state: str | None

    def url(self, settings: OAuthSettings, **response: str) -> str:
        """Return the URL to redirect to, with the *response* parameters, the original `state`, and `iss` (RFC 9207).

        Bytes of `state` that are not UTF-8 were decoded to surrogates, and are sent back unchanged.
        """
        values = response | ({} if self.state is None else {"state": self.state}) | {"iss": settings.issuer}
        separator = "&" if urlsplit(self.redirect_uri).query else "" if self.redirect_uri.endswith("?") else "?"
        return f"{self.redirect_uri}{separator}{urlencode(values, errors='surrogateescape')}"


@dataclass(frozen=True, slots=True)
class AuthorizationRequest:
    """A valid authorization request, which a user may consent to."""

    client: OAuthClient
    target: RedirectTarget
    scopes: Scopes
    resources: tuple[str, ...]
    challenge: str | None
    prompts: frozenset[str]

    @property
    def always_needs_consent(self) -> bool:
        """Whether the user has to consent each time, whatever they have allowed before.

        A public app on the user's machine may be impersonated by another app there (RFC 8252 §8.6). Of a public app
        that registered itself, only the redirect URIs are known, and users are not redirected there automatically
        (RFC 9700 §4.11.2). A self-registered app with a secret skips consent only if all its redirect URIs have one
        origin: the user has seen only one of them.
        """
        client = self.client
        if client.is_public:
            return client.is_self_registered or not self.target.redirect_uri.startswith("https://")
        return client.is_self_registered and len({origin_source(uri) for uri in client.redirect_uris}) > 1


def find_redirect_target(parameters: Parameters, client: OAuthClient | None) -> RedirectTarget | str:
    """Return where the response goes, or the message for the user, who is not redirected then (RFC 9700 §4.11)."""
    if client is None or client.deleted_at is not None:
        return UNKNOWN_CLIENT
    if AUTHORIZATION_CODE not in client.grant_types:
        return "This app may not ask users for access."
    # A repeated parameter is ambiguous: neither value can be trusted.
    if len(parameters.values.get("client_id", ())) > 1 or len(parameters.values.get("redirect_uri", ())) > 1:
        return "The app's request contains client_id or redirect_uri twice."
    uri = parameters.get("redirect_uri")
    if uri is None:
        if len(client.redirect_uris) != 1:
            return "The app's request has no redirect_uri."
        return RedirectTarget(client.redirect_uris[0], has_redirect=False, state=parameters.get("state"))
    if not is_registered(uri, client.redirect_uris):
        return "The app's redirect_uri is not registered."
    return RedirectTarget(uri, has_redirect=True, state=parameters.get("state"))


def parse_authorization_request(
    parameters: Parameters,
    client: OAuthClient,
    target: RedirectTarget,
    settings: OAuthSettings,
    known_scopes: Collection[str],
) -> AuthorizationRequest | OAuthRefusal:
    """Return the request of *client*, or why it is invalid; *known_scopes* are all scopes that exist."""
    refusal = _check_parameters(parameters) or _check_challenge(parameters, client)
    if refusal is not None:
        return refusal
    scopes = requested_scopes(parameters.get("scope"), client.scopes, known_scopes)
    if isinstance(scopes, OAuthRefusal):
        return scopes
    resources = requested_resources(parameters.all("resource"), (settings.audience, *settings.resources))
    if isinstance(resources, OAuthRefusal):
        return resources
    prompts = frozenset((parameters.get("prompt") or "").split())
    if not prompts <= set(PROMPTS) or ("none" in prompts and len(prompts) > 1):
        return OAuthRefusal(
            OAuthErrorCode.INVALID_REQUEST, "prompt is none, or some of login, consent and select_account"
        )
    return AuthorizationRequest(client, target, scopes, resources, parameters.get("code_challenge"), prompts)


def requested_scopes(scope: str | None, allowed: Scopes, known_scopes: Collection[str]) -> Scopes | OAuthRefusal:
    """Return the scopes in *scope*, all *allowed* ones when it is left out (RFC 6749 §3.3)."""
    if scope is None:
        return allowed
    names = scope.split(" ")
    if "" in names:
        return OAuthRefusal(OAuthErrorCode.INVALID_SCOPE, "scope is names with one space between two")
    if any(name not in known_scopes for name in names):
        return OAuthRefusal(OAuthErrorCode.INVALID_SCOPE, "a scope does not exist")
    if any(name not in allowed for name in names):
        return OAuthRefusal(OAuthErrorCode.INVALID_SCOPE, "a scope is more than may be asked for")
    return Scopes(frozenset(names))


def requested_resources(resources: tuple[str, ...], allowed: tuple[str, ...]) -> tuple[str, ...] | OAuthRefusal:
    """Return *resources* without repetitions, the first *allowed* one when there are none (RFC 8707 §2)."""
    if any(resource not in allowed for resource in resources):
        return OAuthRefusal(OAuthErrorCode.INVALID_TARGET, "a resource is not one that tokens may be asked for")
    return tuple(dict.fromkeys(resources)) or allowed[:1]


def _check_parameters(parameters: Parameters) -> OAuthRefusal | None:
    if (name := parameters.repeated) is not None:
        displayed = name if name.isascii() and name.isidentifier() else "a parameter"
        return OAuthRefusal(OAuthErrorCode.INVALID_REQUEST, f"{displayed} is there more than once")
    if len(parameters.get("state") or "") > MAX_STATE:
        return OAuthRefusal(OAuthErrorCode.INVALID_REQUEST, f"state is over {MAX_STATE} characters")
    if "request" in parameters:
        return OAuthRefusal(OAuthErrorCode.REQUEST_NOT_SUPPORTED, "request objects are not supported")
    if "request_uri" in parameters:
        return OAuthRefusal(OAuthErrorCode.REQUEST_URI_NOT_SUPPORTED, "request objects are not supported")
    response_type = parameters.get("response_type")
    if response_type is None:
        return OAuthRefusal(OAuthErrorCode.INVALID_REQUEST, "response_type is missing: it is code")
    if response_type != "code":
        return OAuthRefusal(OAuthErrorCode.UNSUPPORTED_RESPONSE_TYPE, "response_type is code, and nothing else")
    if parameters.get("response_mode") not in (None, "query"):
        return OAuthRefusal(OAuthErrorCode.INVALID_REQUEST, "response_mode is query, and nothing else")
    return None


def _check_challenge(parameters: Parameters, client: OAuthClient) -> OAuthRefusal | None:
    challenge, method = parameters.get("code_challenge"), parameters.get("code_challenge_method")
    if challenge is None:
        if method is not None:
            return OAuthRefusal(OAuthErrorCode.INVALID_REQUEST, "code_challenge is missing")
        if client.requires_pkce or client.is_public:
            return OAuthRefusal(
                OAuthErrorCode.INVALID_REQUEST, "code_challenge is missing: this client needs PKCE with S256"
            )
        return None
    if method != METHOD:  # left out, it means `plain` (RFC 7636 §4.3)
        return OAuthRefusal(OAuthErrorCode.INVALID_REQUEST, f"code_challenge_method is {METHOD}, and nothing else")
    if not is_challenge(challenge):
        return OAuthRefusal(OAuthErrorCode.INVALID_REQUEST, "code_challenge is not the base64url of a SHA-256 digest")
    return None
