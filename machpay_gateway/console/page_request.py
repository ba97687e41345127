"""One look at the Console: who looks, what they sent, and the gateway that can do it."""

from dataclasses import dataclass
from hashlib import sha256
from http import HTTPStatus
from typing import TypeVar
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response

from machpay_gateway.console.forms import Form
from machpay_gateway.console.pages import ConsolePages, base_path, console_path, redirect
from machpay_gateway.core.accounts.account import Account
from machpay_gateway.core.accounts.management import ManagementAction, Manager, authorize, user_manager
from machpay_gateway.core.accounts.user import User
from machpay_gateway.core.keys.key import KeyRecord
from machpay_gateway.core.oauth.client import OAuthClient
from machpay_gateway.gateway import Gateway
from machpay_gateway.services.users import BrowserSession
from machpay_gateway.web.browser import proof_of
from machpay_gateway.web.incoming import actor_of, facts_of

T = TypeVar("T")

# The way through the Console: path and name of each page that is always there.
NAVIGATION = (
    ("/keys", "Keys"),
    ("/usage", "Usage"),
    ("/apps", "Apps"),
    ("/audit", "Audit log"),
    ("/sessions", "Sessions"),
    ("/start", "Quick start"),
)
# What a page says at its top after something was done: by name, as anybody may make up an address.
MESSAGES = {
    "saved": "Saved.",
    "key-revoked": "The key is revoked.",
    "grace-ended": "The previous secret has ended.",
    "made-before": "This was done already, and the secret is not shown again. Rotate it if you do not have it.",
    "app-created": "The app is there. It is public, and so it has no secret.",
    "app-deleted": "The app is deleted, and all its tokens have ended.",
    "grant-ended": "The grant has ended.",
    "session-ended": "That browser is signed out.",
    "password-changed": "Your password is changed, and all other browsers are signed out.",
    "sessions-ended": "All other browsers are signed out.",
}


class PageError(Exception):
    """Ends a look with a page of *status* that says what was *told*."""

    def __init__(self, status: int, told: str) -> None:
        super().__init__(told)
        self.status = status
        self.told = told


@dataclass(frozen=True, slots=True)
class PageRequest:
    """A *request* in the *session* of a user of an *account* at the moment *now*, with the *form* that was sent.

    *cookie* is what the browser is known by.
    """

    gateway: Gateway
    pages: ConsolePages
    request: Request
    session: BrowserSession
    account: Account
    cookie: str
    form: Form
    now: float

    @property
    def user(self) -> User:
        """Who is signed in."""
        return self.session.user

    @property
    def path(self) -> str:
        """The path below the Console."""
        return console_path(self.request)

    @property
    def actor(self) -> Manager:
        """The user as the audit log names them, with their authority."""
        return user_manager(self.user, actor_of("user", self.user.id, facts_of(self.request.scope)))

    @property
    def id(self) -> str:
        """The id that the path names."""
        return str(self.request.path_params["id"])

    @property
    def once(self) -> bytes:
        """The name of what a form asks for, the same when one page's is sent twice."""
        return sha256(f"{self.user.id}\n{self.form.text('once')}".encode()).digest()

    def asked(self, name: str) -> str:
        """Return the last *name* in the query, nothing for none."""
        return self.request.query_params.get(name, "").strip()

    def page(self, template: str, status: int = HTTPStatus.OK, **values: object) -> Response:
        """Return the page of the *template* with *values*, in the frame that every page of the Console has."""
        frame: dict[str, object] = {
            "user": self.user,
            "account": self.account,
            "ways": NAVIGATION,
            "here": base_path(self.request) + console_path(self.request),
            "now": self.now,
            "proof": lambda path: proof_of(self.cookie, path, b""),
            "told": MESSAGES.get(self.asked("told"), ""),
        }
        return self.pages.page(self.request, template, frame | values, status=status)

    def redirect(self, path: str, **query: str) -> Response:
        """Send the browser on to the page at *path* below the Console, by another request."""
        asked = f"?{urlencode(query)}" if query else ""
        return redirect(self.request, f"{path}{asked}")

    async def key(self, key_id: str) -> KeyRecord:
        """Return the account's key of that id. Raises TurnedAwayError when there is none."""
        record = await self.gateway.keys.get(self.user.account_id, key_id)
        return _there(authorize(self.actor, ManagementAction.READ, record), "key")

    async def app(self, client_id: str) -> OAuthClient:
        """Return the account's app of that id, unless it was deleted. Raises TurnedAwayError when there is none."""
        client = await self.gateway.oauth_clients.get(self.user.account_id, client_id)
        return _there(authorize(self.actor, ManagementAction.READ, client), "app")


def missing(what: str) -> PageError:
    """Return how a look ends at something that is not there, or another account's."""
    return PageError(HTTPStatus.NOT_FOUND, f"There is no {what} here.")


def _there(found: T | None, what: str) -> T:
    if found is None:
        raise missing(what)
    return found
