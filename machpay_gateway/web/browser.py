"""What a browser is known by: its cookies, and proof that a form came from a page of ours (RFC 9700 §4.7)."""

import hmac
from dataclasses import dataclass
from os import urandom

from starlette.requests import Request
from starlette.responses import Response

from machpay_gateway.core.accounts.device import DEVICE_SECONDS
from machpay_gateway.core.keys.key import ENTROPY_BYTES
from machpay_gateway.core.network.cookies import HOST_PREFIX, PREFIX
from machpay_gateway.core.oauth.opaque_token import OpaqueTokenKind, digest_of, mint

# What a page says when its form proves nothing.
COOKIE_MISSING = "Your browser lost this page's cookie. Try again."
# What a browser forgets at sign-out (ASVS 5.0 14.3.1). Not "cookies": the session's is taken away by name, and the one
# that keeps strangers from locking this browser's user out says nothing of what they saw.
CLEAR_SITE_DATA = '"cache", "storage"'
_SAME_SITE = {"same-origin", "none"}  # none: typed into the address bar


@dataclass(frozen=True, slots=True)
class Cookie:
    """A cookie that scripts cannot read and no other site's request brings along, but for following a link."""

    name: str
    is_secure: bool

    @classmethod
    def of(cls, name: str, *, is_secure: bool) -> "Cookie":
        """Return the cookie *name*: one that no other host can set, where there is TLS to prove who did."""
        return cls((HOST_PREFIX if is_secure else PREFIX) + name, is_secure)

    def read(self, request: Request) -> str:
        """Return what the browser holds, if we can have given it: else the empty text."""
        value = self.raw(request)
        return value if digest_of(OpaqueTokenKind.BROWSER, value) is not None else ""

    def raw(self, request: Request) -> str:
        """Return what the browser holds, whoever made it up: for values that prove themselves.

        That is the value under exactly this name, the last one where there are several. A parser that strips more than
        browsers do off a name would let others set it, in spite of its prefix.
        """
        pairs = (pair.strip(" \t") for field in request.headers.getlist("cookie") for pair in field.split(";"))
        values = [pair.removeprefix(f"{self.name}=") for pair in pairs if pair.startswith(f"{self.name}=")]
        return values[-1] if values else ""

    def put(self, response: Response, value: str, *, seconds: int | None = None) -> None:
        """Give the browser *value*, for so many *seconds*, or until it is closed."""
        response.set_cookie(
            self.name, value, max_age=seconds, path="/", secure=self.is_secure, httponly=True, samesite="lax"
        )

    def drop(self, response: Response) -> None:
        """Take it away again."""
        response.delete_cookie(self.name, path="/", secure=self.is_secure, httponly=True, samesite="lax")


def set_sign_in_cookies(response: Response, session: str, device: str, *, is_secure: bool) -> None:
    """Give a browser in which somebody has signed in the cookies of its *session* and of the known *device*."""
    Cookie.of("session", is_secure=is_secure).put(response, session)
    Cookie.of("device", is_secure=is_secure).put(response, device, seconds=DEVICE_SECONDS)


def random_value() -> str:
    """Return a value that nobody can guess."""
    return mint(OpaqueTokenKind.BROWSER, urandom(ENTROPY_BYTES))


def csrf_token(cookie: str, purpose: str, query: bytes) -> str:
    """Return what a form for *purpose*, about what *query* asks, carries in a browser with this *cookie*.

    It is of no use in another browser, for another purpose, or for another request of an app.
    """
    return hmac.digest(cookie.encode(), f"{purpose}\n".encode() + query, "sha256").hex()


def is_valid_csrf_token(request: Request, cookie: str, purpose: str, query: bytes, proof: str) -> bool:
    """Tell whether a form came from the page that we gave the browser with this *cookie*."""
    if not cookie or request.headers.get("sec-fetch-site", "none") not in _SAME_SITE:
        return False
    return hmac.compare_digest(csrf_token(cookie, purpose, query).encode(), proof.encode(errors="replace"))
