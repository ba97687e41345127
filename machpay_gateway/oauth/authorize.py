"""Asking a user: who are you, and may this app (RFC 6749 §4.1.1 and §4.1.2).

What the app asked stays in the address through sign-in and consent, and is judged anew at each step: nothing of it is
kept that another window could mix up.
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
    read_request,
    redirect_target,
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

_DONE_BY_SIGNING_IN = frozenset({"login", "select_account"})
_LOGIN_REQUIRED = OAuthRefusal(OAuthErrorCode.LOGIN_REQUIRED, "nobody is signed in")


@dataclass(frozen=True, slots=True)
class PendingConsent:
    """An authorization request as it came: its *query*, what it means, and who is signed in by the *cookie*."""

    query: bytes
    request: AuthorizationRequest
    cookie: str
    user: User | None


class Authorization:
    """The pages that users see, and where they lead."""

    def __init__(self, gateway: Gateway) -> None:
        """Serve by *gateway*, which has an authorization server."""
        self._gateway = gateway
        self._settings = gateway.oauth_settings
        self._pages = OAuthPages(self._settings)
        is_secure = self._settings.is_secure
        self._session = Cookie.of("session", is_secure=is_secure)
        self._form = Cookie.of("form", is_secure=is_secure)
        self._device = Cookie.of("device", is_secure=is_secure)

    async def authorize(self, http: HttpRequest) -> Response:
        """Answer an app's request: by a page, or by sending the user back to it."""
        asked = await self._asked(http)
        if isinstance(asked, Response):
            return asked
        request, user = asked.request, asked.user
        if user is None or request.prompts & _DONE_BY_SIGNING_IN:
            if "none" in request.prompts:
                return self._refused(request.client, request.back, _LOGIN_REQUIRED, user)
            return self._ask_to_sign_in(http, asked)
        if "consent" not in request.prompts and await self._is_settled(request, user):
            return await self._allow(http, request, user, request.scopes)
        if "none" in request.prompts:
            return self._back(
                request.back, OAuthRefusal(OAuthErrorCode.CONSENT_REQUIRED, "the user was not asked before")
            )
        return self._pages.consent(request, user, asked.cookie, asked.query)

    async def sign_in(self, http: HttpRequest) -> Response:
        """Take e-mail and password, and go on to what was asked."""
        asked = await self._asked(http)
        if isinstance(asked, Response):
            return asked
        sent, form_cookie = await _form_of(http), self._form.read(http)
        if not is_valid_csrf_token(http, form_cookie, SIGN_IN, asked.query, sent.get("proof") or ""):
            # Signed in by another tab meanwhile: nothing that was sent is looked at, so that nobody is swapped in.
            if asked.user is not None and not asked.request.prompts & _DONE_BY_SIGNING_IN:
                return self._onward(asked.query)
            return self._ask_to_sign_in(http, asked, told=COOKIE_MISSING)
        facts = facts_of(http.scope)
        email = sent.get("email") or ""
        found = await self._gateway.users.sign_in(
            email,
            sent.get("password") or "",
            address=facts.address,
            shown_address=format_address_or_none(facts.address),
            device=self._device.raw(http),
            request_id=facts.request_id.decode(),
        )
        if isinstance(found, NotSignedIn):
            return self._not_signed_in(http, asked, email, found)
        await self._gateway.users.sign_out(asked.cookie, actor_of("user", "", facts))  # in whose place the new one is
        # 303: the browser must not send the password on to where it goes next (RFC 9700 §4.12).
        response = self._onward(_without_sign_in(asked.query))
        set_sign_in_cookies(response, found.cookie, found.device, is_secure=self._settings.is_secure)
        self._form.drop(response)
        return response

    async def consent(self, http: HttpRequest) -> Response:
        """Take the user's answer back to the app."""
        asked = await self._asked(http)
        if isinstance(asked, Response):
            return asked
        sent, request, user = await _form_of(http), asked.request, asked.user
        if user is None or not is_valid_csrf_token(http, asked.cookie, CONSENT, asked.query, sent.get("proof") or ""):
            return self._onward(asked.query)  # to be asked again, by a page of ours
        chosen = request.scopes.names & set(sent.all("scope"))
        if sent.get("decision") != "allow" or (request.scopes.names and not chosen):
            return self._back(request.back, OAuthRefusal(OAuthErrorCode.ACCESS_DENIED, "the user said no"))
        return await self._allow(http, request, user, Scopes(frozenset(chosen)))

    async def sign_out(self, http: HttpRequest) -> Response:
        """End the browser's sign-in, so that somebody else can go on."""
        asked = await self._asked(http)
        if isinstance(asked, Response):
            return asked
        sent = await _form_of(http)
        if not is_valid_csrf_token(http, asked.cookie, CONSENT, asked.query, sent.get("proof") or ""):
            return self._onward(asked.query)
        await self._gateway.users.sign_out(asked.cookie, actor_of("user", "", facts_of(http.scope)))
        response = self._onward(asked.query)
        self._session.drop(response)
        response.headers["Clear-Site-Data"] = CLEAR_SITE_DATA
        return response

    def unavailable(self) -> Response:
        """Return the page that says to come again."""
        told = "This does not work right now. Try again in a moment."
        return self._pages.error(told, status=HTTPStatus.SERVICE_UNAVAILABLE)

    async def _asked(self, http: HttpRequest) -> PendingConsent | Response:
        """Return what the app asks, or the answer when that cannot be put to a user."""
        query: bytes = http.scope["query_string"]
        pairs = parse_form(query)
        if isinstance(pairs, str):
            return self._pages.error(f"The app's request cannot be read: {pairs}.")
        parameters = Parameters.of(pairs)
        client_id = parameters.get("client_id")
        client = None if client_id is None else await self._gateway.oauth_clients.get(None, client_id)
        back = redirect_target(parameters, client)
        if isinstance(back, str) or client is None:
            return self._pages.error(str(back))
        request = read_request(parameters, client, back, self._settings, self._gateway.policy.scopes)
        cookie = self._session.read(http)
        user = await self._gateway.users.signed_in(cookie) if cookie else None
        if isinstance(request, OAuthRefusal):
            return self._refused(client, back, request, user)
        return PendingConsent(query, request, cookie, user)

    async def _is_settled(self, request: AuthorizationRequest, user: User) -> bool:
        return not request.must_be_shown and await self._gateway.consents.is_given(request, user)

    async def _allow(self, http: HttpRequest, request: AuthorizationRequest, user: User, scopes: Scopes) -> Response:
        actor = actor_of("user", user.id, facts_of(http.scope))
        try:
            code = await self._gateway.consents.give(request, user, scopes, actor)
        except InputError:
            return self._pages.error(UNKNOWN_CLIENT)  # it was removed while the user read the page
        return _redirect(request.back.url(self._settings, code=code))

    def _ask_to_sign_in(
        self, http: HttpRequest, asked: PendingConsent, *, told: str = "", email: str = "", status: int = HTTPStatus.OK
    ) -> Response:
        cookie = self._form.read(http) or random_value()
        response = self._pages.sign_in(asked.request, cookie, asked.query, told=told, email=email, status=status)
        self._form.put(response, cookie)
        return response

    def _not_signed_in(self, http: HttpRequest, asked: PendingConsent, email: str, found: NotSignedIn) -> Response:
        return self._ask_to_sign_in(http, asked, told=found.told, email=email, status=found.status)

    def _refused(self, client: OAuthClient, back: RedirectTarget, refused: OAuthRefusal, user: User | None) -> Response:
        """Send the error back to the app; show it here while nobody is signed in and the app registered itself."""
        if client.is_self_registered and user is None:
            # RFC 9700 §4.11.2: else a link to this server leads wherever a stranger has registered, with no user asked.
            return self._pages.error(f"The app's request was refused: {refused.description}.")
        return self._back(back, refused)

    def _back(self, back: RedirectTarget, refused: OAuthRefusal) -> Response:
        return _redirect(back.url(self._settings, error=refused.code, error_description=refused.description))

    def _onward(self, query: bytes) -> Response:
        return _redirect(f"{self._settings.path}{AUTHORIZE}?{query.decode('ascii')}")


def _redirect(url: str) -> Response:
    headers = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
    response = RedirectResponse(url, HTTPStatus.SEE_OTHER, headers)
    response.headers["location"] = url  # as it was registered and as it came: nothing is escaped once more
    return response


async def _form_of(http: HttpRequest) -> Parameters:
    pairs = await read_form(http)
    # What cannot be read proves nothing, and is answered as a form without its proof.
    return Parameters.of([] if isinstance(pairs, str) or not is_utf8(pairs) else pairs)


def _without_sign_in(query: bytes) -> bytes:
    """Return *query* without the prompts that signing in has done: else it would be asked for again, for ever."""
    return b"&".join(pair for pair in map(_undone, query.split(b"&")) if pair)


def _undone(pair: bytes) -> bytes:
    fields = parse_form(pair)
    if isinstance(fields, str) or [name for name, _ in fields] != ["prompt"]:
        return pair
    left = [prompt for prompt in fields[0][1].split() if prompt not in _DONE_BY_SIGNING_IN]
    return urlencode({"prompt": " ".join(left)}).encode() if left else b""
