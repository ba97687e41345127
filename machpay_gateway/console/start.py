"""The page from which people start: what to copy into their programs, with their own values in it."""

from starlette.responses import Response

from machpay_gateway.console.page_request import PageRequest
from machpay_gateway.console.snippets import calls, environment_lines, oauth_steps, rotation
from machpay_gateway.core.keys.key import KeyRecord, KeyStatus
from machpay_gateway.core.oauth.client import AUTHORIZATION_CODE, OAuthClient

_CHOICES = 50  # the newest; of others the page is reached from the key's own
_PLACEHOLDER = "sk_live_…"
_EXECUTE = "POST /v1/skills/execute"


async def show(visit: PageRequest) -> Response:
    """Show the snippets, for a key and an app if they are named."""
    key, app = await _chosen_key(visit), await _chosen_app(visit)
    settings, gateway = visit.pages.settings, visit.gateway
    secret = _PLACEHOLDER if key is None else key.masked
    has_skills = any(route.match == _EXECUTE for route in gateway.policy.routes)
    oauth = gateway.settings.oauth
    return visit.page(
        "start.html",
        key=key,
        keys=_with(key, await _active_keys(visit)),
        env=environment_lines(settings.api_url, secret),
        calls=calls(settings.api_url, secret, has_skills=has_skills),
        rotation=rotation(key),
        app=app,
        steps=[] if app is None or oauth is None else oauth_steps(app, settings.api_url, oauth.issuer),
    )


async def _chosen_key(visit: PageRequest) -> KeyRecord | None:
    return await visit.key(key_id) if (key_id := visit.asked("key")) else None


async def _active_keys(visit: PageRequest) -> list[KeyRecord]:
    active = await visit.gateway.keys.list(visit.user.account_id, status=KeyStatus.ACTIVE, limit=_CHOICES)
    return list(active)


def _with(key: KeyRecord | None, keys: list[KeyRecord]) -> list[KeyRecord]:
    return keys if key is None or any(each.id == key.id for each in keys) else [key, *keys]


async def _chosen_app(visit: PageRequest) -> OAuthClient | None:
    """Return the app that is named, else the newest; of those that act for users."""
    apps, account_id = visit.gateway.oauth_clients, visit.user.account_id
    app_id = visit.asked("app")
    found = [await visit.app(app_id)] if app_id else await apps.list(account_id, limit=_CHOICES)
    return next((each for each in found if AUTHORIZATION_CODE in each.grant_types), None)
