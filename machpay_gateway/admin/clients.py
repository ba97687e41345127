"""The operations on apps, each looked up within the caller's account and the environment it may see."""

from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus

from starlette.responses import Response

from machpay_gateway.admin.documents import client_response, document_response, page_response
from machpay_gateway.admin.request import AdminRequest
from machpay_gateway.admin.request_body import invalid
from machpay_gateway.admin.requests import ClientChange, ClientSelection, NewClient, SecretRotation
from machpay_gateway.admin.responses import deleted_client_document
from machpay_gateway.core.errors import InputError, StateError
from machpay_gateway.core.oauth.client import AUTHORIZATION_CODE, REFRESH_TOKEN, OAuthClient
from machpay_gateway.core.oauth.documents import client_document, issued_client_document
from machpay_gateway.core.unchanged import UNCHANGED


async def create(call: AdminRequest) -> Response:
    """Create an app with at most the caller's scopes."""
    apps, sent = call.oauth_clients, call.sent(NewClient)
    with _placed():
        client, secret = await apps.create(
            call.caller.account_id,
            name=sent.name,
            scopes=sent.scopes,
            redirect_uris=sent.redirect_uris or (),
            grant_types=(AUTHORIZATION_CODE, REFRESH_TOKEN) if sent.grant_types is None else sent.grant_types,
            environment=sent.environment or call.caller.principal.environment,
            is_public=sent.public,
            requires_pkce=sent.require_pkce,
            binds_tokens=sent.dpop_bound,
            actor=call.caller.actor,
        )
    document = issued_client_document(client, secret)
    return client_response(document, client.version, HTTPStatus.CREATED, call.request.scope.get("root_path", ""))


async def list_(call: AdminRequest) -> Response:
    """List apps, newest first."""
    apps, chosen, caller = call.oauth_clients, call.query(ClientSelection), call.caller
    await call.check_after(chosen.after, apps.known, "app")
    if caller.environment is not None and chosen.environment not in (None, caller.environment):
        return page_response([], chosen.limit)
    found = await apps.list(
        caller.account_id,
        environment=caller.environment or chosen.environment,
        after=chosen.after,
        limit=chosen.limit + 1,
    )
    return page_response([client_document(client) for client in found], chosen.limit)


async def retrieve(call: AdminRequest) -> Response:
    """Return an app."""
    return _told(await _client(call), call)


async def update(call: AdminRequest) -> Response:
    """Change the settings that are given. Tokens lose at once what the app loses."""
    kept = (await _client(call)).scopes.names
    sent = call.sent(ClientChange, kept=kept)
    given = sent.model_fields_set
    with _placed():
        changed = await call.oauth_clients.update(
            call.caller.account_id,
            call.id,
            name=sent.name if "name" in given else UNCHANGED,
            scopes=sent.scopes if "scopes" in given else UNCHANGED,
            redirect_uris=sent.redirect_uris if "redirect_uris" in given else UNCHANGED,
            grant_types=sent.grant_types if "grant_types" in given else UNCHANGED,
            requires_pkce=sent.require_pkce if "require_pkce" in given else UNCHANGED,
            binds_tokens=sent.dpop_bound if "dpop_bound" in given else UNCHANGED,
            actor=call.caller.actor,
            permit=call.permit("app", call.scopes_precondition(sent.scopes, kept, "app")),
        )
    return _told(changed, call)


async def rotate_secret(call: AdminRequest) -> Response:
    """Give the app a new secret; the current one goes on until its grace ends."""
    apps, sent = call.oauth_clients, call.sent(SecretRotation)
    issued = await apps.rotate_secret(
        call.caller.account_id,
        call.id,
        grace_seconds=sent.grace_seconds,
        actor=call.caller.actor,
        permit=call.permit("app"),
    )
    client, secret = issued or (None, None)
    client = call.seen(client, "app")
    return client_response(issued_client_document(client, secret), client.version)


async def delete(call: AdminRequest) -> Response:
    """End the app for good: its tokens are refused from their next request."""
    deleted = await call.oauth_clients.delete(
        call.caller.account_id, call.id, actor=call.caller.actor, permit=call.permit("app")
    )
    client = call.seen(deleted, "app")
    return document_response(deleted_client_document(client))


async def _client(call: AdminRequest) -> OAuthClient:
    return call.seen(await call.oauth_clients.get(call.caller.account_id, call.id), "app")


def _told(client: OAuthClient | None, call: AdminRequest) -> Response:
    client = call.seen(client, "app")
    return client_response(client_document(client), client.version)


@contextmanager
def _placed() -> Iterator[None]:
    """Tell settings that do not go together as a mistake of the body as a whole."""
    try:
        yield
    except StateError:
        raise
    except InputError as exc:
        raise invalid("body", str(exc)) from exc
