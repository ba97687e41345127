"""Cookies, and CSRF tokens that bind a form to the browser and the page it came from (RFC 9700 §4.7)."""

import hmac
from dataclasses import dataclass
from os import urandom

from starlette.requests import Request
from starlette.responses import Response

from machpay_gateway.core.accounts.device import DEVICE_SECONDS
from machpay_gateway.core.keys.key import ENTROPY_BYTES
from machpay_gateway.core.network.cookies import HOST_PREFIX, PREFIX
from machpay_gateway.core.oauth.opaque_token import OpaqueTokenKind, digest_of, mint

# The message for a form without a valid CSRF token.
COOKIE_MISSING = "Your browser lost this page's cookie. Try again."
# Clear-Site-Data at sign-out (ASVS 5.0 14.3.1). Not "cookies": the session's is deleted by name, and the device cookie,
# which keeps attackers from locking the user out, reveals nothing that the user saw.
CLEAR_SITE_DATA = '"cache", "storage"'
_SAME_SITE = {"same-origin", "none"}  # none: typed into the address bar


@dataclass(frozen=True, slots=True)
class Cookie:
    """A cookie that scripts cannot read, and that other sites' requests send only when a user follows a link."""

    name: str
    is_secure: bool

    @classmethod
    def of(cls, name: str, *, is_secure: bool) -> "Cookie":
        """Return the cookie *name*, with the `__Host-` prefix if *is_secure*, so that no other host can set it."""
        return cls((HOST_PREFIX if is_secure else PREFIX) + name, is_secure)

    def read(self, request: Request) -> str:
        """Return the value that the browser sends if it has the format of ours, else the empty string."""
        value = self.raw(request)
        return value if digest_of(OpaqueTokenKind.BROWSER, value) is not None else ""

    def raw(self, request: Request) -> str:
        """Return the value that the browser sends, unchecked: for values that are signed.

        It is the value with exactly this name, the last one if there are several. A parser that strips more from a name
        than browsers do would let other hosts set it in spite of its prefix.
        """
        pairs = (pair.strip(" \t") for field in request.headers.getlist("cookie") for pair in field.split(";"))
        values = [pair.removeprefix(f"{self.name}=") for pair in pairs if pair.startswith(f"{self.name}=")]
        return values[-1] if values else ""

    def put(self, response: Response, value: str, *, seconds: int | None = None) -> None:
        """Set the cookie to *value*, for *seconds* or for the browser session."""
        response.set_cookie(
            self.name, value, max_age=seconds, path="/", secure=self.is_secure, httponly=True, samesite="lax"
        )

    def drop(self, response: Response) -> None:
        """Delete the cookie."""
        response.delete_cookie(self.name, path="/", secure=self.is_secure, httponly=True, samesite="lax")


def set_sign_in_cookies(response: Response, session: str, device: str, *, is_secure: bool) -> None:
    """Set the cookies after a sign-in: of the *session*, and of the *device* that is known from now on."""
    Cookie.of("session", is_secure=is_secure).put(response, session)
    Cookie.of("device", is_secure=is_secure).put(response, device, seconds=DEVICE_SECONDS)


def random_value() -> str:
    """Return an unguessable cookie value."""
    return mint(OpaqueTokenKind.BROWSER, urandom(ENTROPY_BYTES))


def csrf_token(cookie: str, purpose: str, query: bytes) -> str:
    """Return the CSRF token of a form for *purpose* in the browser with this *cookie*.

    It is invalid in another browser, for another purpose, and with another *query*, such as another OAuth request.
    """
    return hmac.digest(cookie.encode(), f"{purpose}\n".encode() + query, "sha256").hex()


def is_valid_csrf_token(request: Request, cookie: str, purpose: str, query: bytes, token: str) -> bool:
    """Return whether *token* is the CSRF token of the form, and the request comes from the same site."""
    if not cookie or request.headers.get("sec-fetch-site", "none") not in _SAME_SITE:
        return False
    return hmac.compare_digest(csrf_token(cookie, purpose, query).encode(), token.encode(errors="replace"))
