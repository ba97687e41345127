"""The authorization endpoint and its pages: sign-in and consent (RFC 6749 §4.1.1 and §4.1.2).

The client's request stays in the query of each page's URL and is validated again at each step. No copy is stored, so
two windows cannot mix up their requests.
"""

from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import urlencode

from starlette.requests import Request as HttpRequest
from starlette.responses import RedirectResponse, Response

from machpay_gateway.core.accounts.user import User
from machpay_gateway.core.errors import InputError
from machpay_gateway.core.network.address import format_address_or_none
from machpay_gateway.core.oauth.authorization_request import (
    UNKNOWN_CLIENT,
    AuthorizationRequest,
    RedirectTarget,
    find_redirect_target,
    parse_authorization_request,
)
from machpay_gateway.core.oauth.client import OAuthClient
from machpay_gateway.core.oauth.error import OAuthErrorCode, OAuthRefusal
from machpay_gateway.core.oauth.parameters import Parameters
from machpay_gateway.core.oauth.settings import AUTHORIZE, CONSENT, SIGN_IN
from machpay_gateway.core.scopes import Scopes
from machpay_gateway.gateway import Gateway
from machpay_gateway.oauth.pages import OAuthPages
from machpay_gateway.services.users import NotSignedIn
from machpay_gateway.web.browser import (
    CLEAR_SITE_DATA,
    COOKIE_MISSING,
    Cookie,
    is_valid_csrf_token,
    random_value,
    set_sign_in_cookies,
)
from machpay_gateway.web.forms import is_utf8, parse_form, read_form
from machpay_gateway.web.request_facts import actor_of, facts_of

_FULFILLED_BY_SIGN_IN = frozenset({"login", "select_account"})
_CSRF_FIELD = "proof"
_LOGIN_REQUIRED = OAuthRefusal(OAuthErrorCode.LOGIN_REQUIRED, "nobody is signed in")
_CONSENT_REQUIRED = OAuthRefusal(OAuthErrorCode.CONSENT_REQUIRED, "the user was not asked before")
_ACCESS_DENIED = OAuthRefusal(OAuthErrorCode.ACCESS_DENIED, "the user said no")
_UNAVAILABLE = "The service is temporarily unavailable. Please try again in a moment."


@dataclass(frozen=True, slots=True)
class PendingConsent:
    """A valid authorization *request* with its *query*, and the *user* who is signed in by the session *cookie*."""

    query: bytes
    request: AuthorizationRequest
    cookie: str
    user: User | None


class Authorization:
    """The handlers of the pages for users."""

    def __init__(self, gateway: Gateway) -> None:
        """Serve by *gateway*, which has an authorization server."""
        self._gateway = gateway
        self._settings = gateway.oauth_settings
        self._pages = OAuthPages(self._settings, gateway.brand, gateway.settings.scope_descriptions)
        is_secure = self._settings.is_secure
        self._session = Cookie.of("session", is_secure=is_secure)
        self._form = Cookie.of("form", is_secure=is_secure)
        self._device = Cookie.of("device", is_secure=is_secure)

    async def authorize(self, http: HttpRequest) -> Response:
        """Respond to an authorization request: with a page, or a redirect back to the client."""
        pending = await self._load(http)
        if isinstance(pending, Response):
            return pending
        request, user = pending.request, pending.user
        if user is None or request.prompts & _FULFILLED_BY_SIGN_IN:
            if "none" in request.prompts:
                return self._refuse(request.client, request.target, _LOGIN_REQUIRED, user)
            return self._sign_in_page(http, pending)
        if "consent" not in request.prompts and await self._has_consented(request, user):
            return await self._redirect_with_code(http, request, user, request.scopes)
        if "none" in request.prompts:
            return self._redirect_with_error(request.target, _CONSENT_REQUIRED)
        return self._pages.consent(request, user, pending.cookie, pending.query)

    async def sign_in(self, http: HttpRequest) -> Response:
        """Sign in by email and password, and continue with the authorization request."""
        pending = await self._load(http)
        if isinstance(pending, Response):
            return pending
        form, form_cookie = await _read_form(http), self._form.read(http)
        if not is_valid_csrf_token(http, form_cookie, SIGN_IN, pending.query, form.get(_CSRF_FIELD) or ""):
            # Signed in by another tab in between: the form is ignored, so that no other user is swapped in.
            if pending.user is not None and not pending.request.prompts & _FULFILLED_BY_SIGN_IN:
                return self._continue(pending.query)
            return self._sign_in_page(http, pending, message=COOKIE_MISSING)
        facts = facts_of(http.scope)
        email = form.get("email") or ""
        result = await self._gateway.users.sign_in(
            email,
            form.get("password") or "",
            address=facts.address,
            display_address=format_address_or_none(facts.address),
            device=self._device.raw(http),
            request_id=facts.request_id.decode(),
        )
        if isinstance(result, NotSignedIn):
            return self._sign_in_page(http, pending, message=result.message, email=email, status=result.status)
        await self._gateway.users.sign_out(pending.cookie, actor_of("user", "", facts))  # the new session replaces it
        # 303: the browser must not send the password on to where it goes next (RFC 9700 §4.12).
        response = self._continue(_without_sign_in_prompts(pending.query))
        set_sign_in_cookies(response, result.cookie, result.device, is_secure=self._settings.is_secure)
        self._form.drop(response)
        return response

    async def consent(self, http: HttpRequest) -> Response:
        """Redirect to the client with the user's decision."""
        pending = await self._load(http)
        if isinstance(pending, Response):
            return pending
        form, request, user = await _read_form(http), pending.request, pending.user
        if user is None or not is_valid_csrf_token(
            http, pending.cookie, CONSENT, pending.query, form.get(_CSRF_FIELD) or ""
        ):
            return self._continue(pending.query)  # show the user a page of ours again
        scopes = request.scopes.names & set(form.all("scope"))
        if form.get("decision") != "allow" or (request.scopes.names and not scopes):
            return self._redirect_with_error(request.target, _ACCESS_DENIED)
        return await self._redirect_with_code(http, request, user, Scopes(frozenset(scopes)))

    async def sign_out(self, http: HttpRequest) -> Response:
        """End the browser's session, so that another user can sign in and continue."""
        pending = await self._load(http)
        if isinstance(pending, Response):
            return pending
        form = await _read_form(http)
        if not is_valid_csrf_token(http, pending.cookie, CONSENT, pending.query, form.get(_CSRF_FIELD) or ""):
            return self._continue(pending.query)
        await self._gateway.users.sign_out(pending.cookie, actor_of("user", "", facts_of(http.scope)))
        response = self._continue(pending.query)
        self._session.drop(response)
        response.headers["Clear-Site-Data"] = CLEAR_SITE_DATA
        return response

    def unavailable(self) -> Response:
        """Return the page for when the store or the limiter is unavailable."""
        return self._pages.error(_UNAVAILABLE, status=HTTPStatus.SERVICE_UNAVAILABLE)

    async def _load(self, http: HttpRequest) -> PendingConsent | Response:
        """Return the authorization request and the signed-in user, or the response to an invalid request."""
        query: bytes = http.scope["query_string"]
        pairs = parse_form(query)
        if isinstance(pairs, str):
            return self._pages.error(f"The app's request is malformed: {pairs}.")
        parameters = Parameters.of(pairs)
        client_id = parameters.get("client_id")
        client = None if client_id is None else await self._gateway.oauth_clients.get(None, client_id)
        target = find_redirect_target(parameters, client)
        if isinstance(target, str) or client is None:
            return self._pages.error(str(target))
        request = parse_authorization_request(parameters, client, target, self._settings, self._gateway.scopes)
        cookie = self._session.read(http)
        user = await self._gateway.users.signed_in(cookie) if cookie else None
        if isinstance(request, OAuthRefusal):
            return self._refuse(client, target, request, user)
        return PendingConsent(query, request, cookie, user)

    async def _has_consented(self, request: AuthorizationRequest, user: User) -> bool:
        return not request.always_needs_consent and await self._gateway.consents.is_given(request, user)

    async def _redirect_with_code(
        self, http: HttpRequest, request: AuthorizationRequest, user: User, scopes: Scopes
    ) -> Response:
        actor = actor_of("user", user.id, facts_of(http.scope))
        try:
            code = await self._gateway.consents.give(request, user, scopes, actor)
        except InputError:
            return self._pages.error(UNKNOWN_CLIENT)  # it was removed while the user read the page
        return _redirect(request.target.url(self._settings, code=code))

    def _sign_in_page(
        self,
        http: HttpRequest,
        pending: PendingConsent,
        *,
        message: str = "",
        email: str = "",
        status: int = HTTPStatus.OK,
    ) -> Response:
        cookie = self._form.read(http) or random_value()
        page = self._pages.sign_in(pending.request, cookie, pending.query, message=message, email=email, status=status)
        self._form.put(page, cookie)
        return page

    def _refuse(
        self, client: OAuthClient, target: RedirectTarget, refusal: OAuthRefusal, user: User | None
    ) -> Response:
        """Redirect to the client with the error, or show it while nobody is signed in to a self-registered client."""
        if client.is_self_registered and user is None:
            # RFC 9700 §4.11.2: otherwise a link to this server redirects to any URL that an attacker has registered.
            return self._pages.error(f"The app's request was refused: {refusal.description}.")
        return self._redirect_with_error(target, refusal)

    def _redirect_with_error(self, target: RedirectTarget, refusal: OAuthRefusal) -> Response:
        return _redirect(target.url(self._settings, error=refusal.code, error_description=refusal.description))

    def _continue(self, query: bytes) -> Response:
        return _redirect(f"{self._settings.path}{AUTHORIZE}?{query.decode('ascii')}")


def _redirect(url: str) -> Response:
    headers = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
    response = RedirectResponse(url, HTTPStatus.SEE_OTHER, headers)
    response.headers["location"] = url  # exactly as registered: Starlette would escape it again
    return response


async def _read_form(http: HttpRequest) -> Parameters:
    pairs = await read_form(http)
    # An unreadable form is treated as one without a CSRF token.
    return Parameters.of([] if isinstance(pairs, str) or not is_utf8(pairs) else pairs)


def _without_sign_in_prompts(query: bytes) -> bytes:
    """Return *query* without the prompts that a sign-in fulfills, which would otherwise ask for it again forever."""
    return b"&".join(pair for pair in map(_remaining_prompts, query.split(b"&")) if pair)


def _remaining_prompts(pair: bytes) -> bytes:
    fields = parse_form(pair)
    if isinstance(fields, str) or [name for name, _ in fields] != ["prompt"]:
        return pair
    prompts = [prompt for prompt in fields[0][1].split() if prompt not in _FULFILLED_BY_SIGN_IN]
    return urlencode({"prompt": " ".join(prompts)}).encode() if prompts else b""
