"""Apps and grants of the Console's account, and the submitted form of a new app."""

from typing import Any

from httpx2 import AsyncClient, Response

from machpay_gateway.core.oauth.client import OAuthClient
from machpay_gateway.core.oauth.grant import Grant
from machpay_gateway.core.scopes import Scopes
from tests.console.harness import VIEWER, Rig, submitted
from tests.keyrings import logged

REDIRECT = "https://app.example.com/callback"
SCOPES = ["account:read", "skills:execute"]


async def an_app(rig: Rig, name: str = "Notes", **settings: Any) -> tuple[OAuthClient, str]:  # noqa: ANN401 - any of them
    """Return a new app of the account and its secret."""
    values: dict[str, Any] = {"name": name, "scopes": SCOPES, "redirect_uris": [REDIRECT], **settings}
    client, secret = await rig.gateway.oauth_clients.create(rig.account.id, **values)
    return client, secret or ""


async def granted(rig: Rig, client: OAuthClient, number: int = 1, email: str | None = VIEWER) -> Grant:
    """Return a grant of one of the account's users, or of the app itself."""
    grant = Grant(
        id=f"grant_{number:03}",
        client_id=client.id,
        user_id=None if email is None else rig.users[email].id,
        account_id=rig.account.id,
        environment=client.environment,
        tier=client.tier,
        scopes=Scopes(frozenset(SCOPES)),
        created_at=1_700_000_000.0 + number,
    )
    assert await rig.gateway.store.put_grant(grant, logged())
    return grant


async def made(browser: AsyncClient, **fields: str | list[str] | None) -> Response:
    """Submit the form of a new app with good values, except for *fields*."""
    page = await browser.get("/console/apps/new")
    defaults: dict[str, str | list[str] | None] = {"name": "Notes", "scopes": SCOPES, "redirect_uris": REDIRECT}
    return await submitted(browser, page, "/console/apps/new", **(defaults | fields))
