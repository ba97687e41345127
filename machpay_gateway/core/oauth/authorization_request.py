"""What an app asks of a user: the authorization request, judged (RFC 6749 §4.1.1, RFC 7636 §4.3, RFC 8707 §2)."""

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
UNKNOWN_CLIENT = "The app is not known here: its client_id is missing or wrong."
PROMPTS = ("none", "login", "consent", "select_account")  # OpenID Connect Core §3.1.2.1, which apps send anyhow


@dataclass(frozen=True, slots=True)
class RedirectTarget:
    """Where the answer goes: known before anything else is believed, and never a place that was not registered."""

    redirect_uri: str
    has_redirect: bool
    state: str | None

    def url(self, authority: OAuthSettings, **answer: str) -> str:
        """Return the address that the browser is sent to, with *answer*, `state` as it came, and `iss` (RFC 9207).

        Bytes of `state` that are no UTF-8 were kept as surrogates, and go back as they came.
        """
        values = answer | ({} if self.state is None else {"state": self.state}) | {"iss": authority.issuer}
        joint = "&" if urlsplit(self.redirect_uri).query else "" if self.redirect_uri.endswith("?") else "?"
        return f"{self.redirect_uri}{joint}{urlencode(values, errors='surrogateescape')}"


@dataclass(frozen=True, slots=True)
class AuthorizationRequest:
    """An authorization request that may be put to a user."""

    client: OAuthClient
    back: RedirectTarget
    scopes: Scopes
    resources: tuple[str, ...]
    challenge: str | None
    prompts: frozenset[str]

    @property
    def must_be_shown(self) -> bool:
        """Whether the user has to be asked each time, whatever was allowed before.

        A public app on the user's machine may be another one there (RFC 8252 §8.6). Of a public app that registered
        itself nothing is known but where it sends users, and no automatic redirect goes there (RFC 9700 §4.11.2). One
        with a secret is sent users without a question only where its redirect URIs are of one origin: what the user
        allowed named one of them alone.
        """
        client = self.client
        if client.is_public:
            return client.is_self_registered or not self.back.redirect_uri.startswith("https://")
        return client.is_self_registered and len({origin_source(uri) for uri in client.redirect_uris}) > 1


def redirect_target(asked: Parameters, client: OAuthClient | None) -> RedirectTarget | str:
    """Return where the answer to *asked* goes, or what to tell the user, who is sent nowhere then (RFC 9700 §4.11)."""
    if client is None or client.deleted_at is not None:
        return UNKNOWN_CLIENT
    if AUTHORIZATION_CODE not in client.grant_types:
        return "The app may not ask users for access."
    # Twice the same parameter is no reading at all, so there is none of the two to be trusted.
    if len(asked.values.get("client_id", ())) > 1 or len(asked.values.get("redirect_uri", ())) > 1:
        return "The app's request names itself or its redirect_uri twice."
    uri = asked.get("redirect_uri")
    if uri is None:
        if len(client.redirect_uris) != 1:
            return "The app's request lacks its redirect_uri."
        return RedirectTarget(client.redirect_uris[0], has_redirect=False, state=asked.get("state"))
    if not is_registered(uri, client.redirect_uris):
        return "The app's redirect_uri is not one that is registered."
    return RedirectTarget(uri, has_redirect=True, state=asked.get("state"))


def read_request(
    asked: Parameters, client: OAuthClient, back: RedirectTarget, authority: OAuthSettings, known: Collection[str]
) -> AuthorizationRequest | OAuthRefusal:
    """Return what *client* asks for, or why not; *known* are the scopes that exist."""
    refusal = _unsupported(asked) or _unproven(asked, client)
    if refusal is not None:
        return refusal
    scopes = requested_scopes(asked.get("scope"), client.scopes, known)
    if isinstance(scopes, OAuthRefusal):
        return scopes
    resources = requested_resources(asked.all("resource"), (authority.audience, *authority.resources))
    if isinstance(resources, OAuthRefusal):
        return resources
    prompts = frozenset((asked.get("prompt") or "").split())
    if not prompts <= set(PROMPTS) or ("none" in prompts and len(prompts) > 1):
        return OAuthRefusal(
            OAuthErrorCode.INVALID_REQUEST, "prompt is none, or some of login, consent and select_account"
        )
    return AuthorizationRequest(client, back, scopes, resources, asked.get("code_challenge"), prompts)


def requested_scopes(scope: str | None, most: Scopes, known: Collection[str]) -> Scopes | OAuthRefusal:
    """Return the scopes in *scope*, all of *most* when it is left out (RFC 6749 §3.3)."""
    if scope is None:
        return most
    names = scope.split(" ")
    if "" in names:
        return OAuthRefusal(OAuthErrorCode.INVALID_SCOPE, "scope is names with one space between two")
    if any(name not in known for name in names):
        return OAuthRefusal(OAuthErrorCode.INVALID_SCOPE, "a scope does not exist")
    if any(name not in most for name in names):
        return OAuthRefusal(OAuthErrorCode.INVALID_SCOPE, "a scope is more than may be asked for")
    return Scopes(frozenset(names))


def requested_resources(asked: tuple[str, ...], most: tuple[str, ...]) -> tuple[str, ...] | OAuthRefusal:
    """Return the resources that were *asked* for, the first of *most* when there are none (RFC 8707 §2)."""
    if any(resource not in most for resource in asked):
        return OAuthRefusal(OAuthErrorCode.INVALID_TARGET, "a resource is not one that tokens may be asked for")
    return tuple(dict.fromkeys(asked)) or most[:1]


def _unsupported(asked: Parameters) -> OAuthRefusal | None:
    if (name := asked.repeated) is not None:
        told = name if name.isascii() and name.isidentifier() else "a parameter"
        return OAuthRefusal(OAuthErrorCode.INVALID_REQUEST, f"{told} is there more than once")
    if len(asked.get("state") or "") > MAX_STATE:
        return OAuthRefusal(OAuthErrorCode.INVALID_REQUEST, f"state is over {MAX_STATE} characters")
    if "request" in asked:
        return OAuthRefusal(OAuthErrorCode.REQUEST_NOT_SUPPORTED, "request objects are not supported")
    if "request_uri" in asked:
        return OAuthRefusal(OAuthErrorCode.REQUEST_URI_NOT_SUPPORTED, "request objects are not supported")
    kind = asked.get("response_type")
    if kind is None:
        return OAuthRefusal(OAuthErrorCode.INVALID_REQUEST, "response_type is missing: it is code")
    if kind != "code":
        return OAuthRefusal(OAuthErrorCode.UNSUPPORTED_RESPONSE_TYPE, "response_type is code, and nothing else")
    if asked.get("response_mode") not in (None, "query"):
        return OAuthRefusal(OAuthErrorCode.INVALID_REQUEST, "response_mode is query, and nothing else")
    return None


def _unproven(asked: Parameters, client: OAuthClient) -> OAuthRefusal | None:
    challenge, method = asked.get("code_challenge"), asked.get("code_challenge_method")
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
