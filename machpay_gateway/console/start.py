"""The quick start page: snippets to copy into a program, filled in for a key and an app."""

from starlette.responses import Response

from machpay_gateway.console.page_request import PageRequest
from machpay_gateway.console.snippets import dotenv, first_calls, oauth_steps, rotation
from machpay_gateway.core.keys.key import KeyRecord, KeyStatus
from machpay_gateway.core.oauth.client import AUTHORIZATION_CODE, OAuthClient

_MAX_LISTED = 50  # the newest; the page of any key links here
_EXECUTE = "POST /v1/skills/execute"


async def show(request: PageRequest) -> Response:
    """Show the snippets for the chosen key and app."""
    key, client = await _load_key(request), await _find_client(request)
    settings, gateway = request.pages.settings, request.gateway
    placeholder = f"{gateway.brand.prefix}_live_…"
    secret = placeholder if key is None else key.masked
    has_skills = any(route.match == _EXECUTE for route in gateway.policy.routes)
    oauth = gateway.settings.oauth
    return request.render(
        "start.html",
        key=key,
        placeholder=placeholder,
        keys=await _key_choices(request, key),
        env=dotenv(settings.api_url, secret),
        calls=first_calls(settings.api_url, secret, has_skills=has_skills),
        rotation=rotation(key),
        app=client,
        steps=[] if client is None or oauth is None else oauth_steps(client, settings.api_url, oauth.issuer),
    )


async def _load_key(request: PageRequest) -> KeyRecord | None:
    """Return the key in the query, None if the query has none. Raises PageError."""
    return await request.load_key(key_id) if (key_id := request.query("key")) else None


async def _key_choices(request: PageRequest, key: KeyRecord | None) -> list[KeyRecord]:
    """Return the newest active keys, and the chosen *key* first if it is none of them."""
    active = await request.gateway.keys.list(request.user.account_id, status=KeyStatus.ACTIVE, limit=_MAX_LISTED)
    return [*active] if key is None or any(each.id == key.id for each in active) else [key, *active]


async def _find_client(request: PageRequest) -> OAuthClient | None:
    """Return the OAuth client in the query, else the newest; only if it acts for users."""
    service, account_id = request.gateway.oauth_clients, request.user.account_id
    client_id = request.query("app")
    clients = [await request.load_client(client_id)] if client_id else await service.list(account_id, limit=_MAX_LISTED)
    return next((each for each in clients if AUTHORIZATION_CODE in each.grant_types), None)
