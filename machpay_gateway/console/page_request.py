"""The authenticated request that each page handler gets: user, form and gateway, with ways to respond."""

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
from machpay_gateway.web.browser import csrf_token
from machpay_gateway.web.request_facts import actor_of, facts_of

T = TypeVar("T")

# The main navigation: path and label.
NAVIGATION = (
    ("/keys", "Keys"),
    ("/usage", "Usage"),
    ("/apps", "Apps"),
    ("/audit", "Audit log"),
    ("/sessions", "Sessions"),
    ("/start", "Quick start"),
)
# Messages after a redirect. The URL names one of them and never holds text: anybody can make up a URL.
MESSAGES = {
    "saved": "Changes saved.",
    "key-revoked": "Key revoked.",
    "grace-ended": "The previous secret no longer works.",
    "made-before": "This form was already submitted. The secret was shown once: rotate it if you did not save it.",
    "app-created": "App created. Public apps have no client secret.",
    "app-deleted": "App deleted. All of its tokens are revoked.",
    "grant-ended": "Grant revoked.",
    "session-ended": "That session is signed out.",
    "password-changed": "Password changed. All other sessions are signed out.",
    "sessions-ended": "All other sessions are signed out.",
}
_MESSAGE_PARAMETER = "told"


class PageError(Exception):
    """Ends a request with an error page of *status* that shows *message*."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


@dataclass(frozen=True, slots=True)
class PageRequest:
    """The request *http* of a signed-in user of *account*, with the submitted *form*.

    *cookie* is the value of the session cookie, which CSRF tokens are bound to. *now* is in seconds since the epoch.
    """

    gateway: Gateway
    pages: ConsolePages
    http: Request
    session: BrowserSession
    account: Account
    cookie: str
    form: Form
    now: float

    @property
    def user(self) -> User:
        """The signed-in user."""
        return self.session.user

    @property
    def path(self) -> str:
        """The path below the Console."""
        return console_path(self.http)

    @property
    def actor(self) -> Manager:
        """The user as an actor of the audit log, with their authority."""
        return user_manager(self.user, actor_of("user", self.user.id, facts_of(self.http.scope)))

    @property
    def id(self) -> str:
        """The id in the path."""
        return str(self.http.path_params["id"])

    @property
    def idempotency_key(self) -> bytes:
        """The idempotency key of the rendered form: the same each time this user submits it."""
        return sha256(f"{self.user.id}\n{self.form.text('once')}".encode()).digest()

    def query(self, name: str) -> str:
        """Return the query parameter *name*, the last one of several; empty when it is missing."""
        return self.http.query_params.get(name, "").strip()

    def render(self, template: str, status: int = HTTPStatus.OK, **values: object) -> Response:
        """Return the page of *template* with *values* and the values that the Console's frame needs."""
        frame: dict[str, object] = {
            "user": self.user,
            "account": self.account,
            "navigation": NAVIGATION,
            "current_path": base_path(self.http) + console_path(self.http),
            "now": self.now,
            "csrf_token": lambda path: csrf_token(self.cookie, path, b""),
            "message": MESSAGES.get(self.query(_MESSAGE_PARAMETER), ""),
        }
        return self.pages.render(self.http, template, frame | values, status=status)

    def redirect(self, path: str, *, message: str) -> Response:
        """Return a redirect to *path* below the Console, which then shows the message of that name."""
        return redirect(self.http, f"{path}?{urlencode({_MESSAGE_PARAMETER: message})}")

    async def load_key(self, key_id: str) -> KeyRecord:
        """Return the key of the user's account. Raises PageError when there is none."""
        record = await self.gateway.keys.get(self.user.account_id, key_id)
        return _require(authorize(self.actor, ManagementAction.READ, record), "Key")

    async def load_client(self, client_id: str) -> OAuthClient:
        """Return the OAuth client of the user's account, unless it is deleted. Raises PageError when there is none."""
        client = await self.gateway.oauth_clients.get(self.user.account_id, client_id)
        return _require(authorize(self.actor, ManagementAction.READ, client), "App")


def not_found(label: str) -> PageError:
    """Return the 404 page of an object that does not exist, or is another account's."""
    return PageError(HTTPStatus.NOT_FOUND, f"{label} not found.")


def _require(record: T | None, label: str) -> T:
    if record is None:
        raise not_found(label)
    return record
