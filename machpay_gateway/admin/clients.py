"""The operations on apps. Each looks up its app within the caller's account and environment."""

from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus

from starlette.responses import Response

from machpay_gateway.admin.documents import client_response, document_response, page_response
from machpay_gateway.admin.request import AdminRequest
from machpay_gateway.admin.request_body import invalid_field
from machpay_gateway.admin.requests import ClientChange, ClientListQuery, NewClient, SecretRotation
from machpay_gateway.admin.responses import deleted_client_document
from machpay_gateway.core.errors import InputError, StateError
from machpay_gateway.core.oauth.client import AUTHORIZATION_CODE, REFRESH_TOKEN, OAuthClient
from machpay_gateway.core.oauth.documents import client_document, issued_client_document
from machpay_gateway.core.unchanged import UNCHANGED


async def create(call: AdminRequest) -> Response:
    """Create an app with at most the caller's scopes."""
    clients, settings = call.oauth_clients, call.body(NewClient)
    with _body_errors():
        client, secret = await clients.create(
            call.caller.account_id,
            name=settings.name,
            scopes=settings.scopes,
            redirect_uris=settings.redirect_uris or (),
            grant_types=(AUTHORIZATION_CODE, REFRESH_TOKEN) if settings.grant_types is None else settings.grant_types,
            environment=settings.environment or call.caller.principal.environment,
            is_public=settings.public,
            requires_pkce=settings.require_pkce,
            binds_tokens=settings.dpop_bound,
            actor=call.caller.actor,
        )
    document = issued_client_document(client, secret)
    return client_response(document, client.version, HTTPStatus.CREATED, call.request.scope.get("root_path", ""))


async def list_(call: AdminRequest) -> Response:
    """List apps, newest first."""
    clients, query, caller = call.oauth_clients, call.query(ClientListQuery), call.caller
    await call.check_cursor(query.after, clients.get_even_deleted, "app")
    if caller.environment is not None and query.environment not in (None, caller.environment):
        return page_response([], query.limit)
    page = await clients.list(
        caller.account_id,
        environment=caller.environment or query.environment,
        after=query.after,
        limit=query.limit + 1,
    )
    return page_response([client_document(client) for client in page], query.limit)


async def retrieve(call: AdminRequest) -> Response:
    """Return an app."""
    return _to_response(await _client(call), call)


async def update(call: AdminRequest) -> Response:
    """Change the given settings. Tokens lose a scope at the same moment as the app."""
    current_scopes = (await _client(call)).scopes.names
    settings = call.body(ClientChange, current_scopes)
    given = settings.model_fields_set
    with _body_errors():
        changed = await call.oauth_clients.update(
            call.caller.account_id,
            call.id,
            name=settings.name if "name" in given else UNCHANGED,
            scopes=settings.scopes if "scopes" in given else UNCHANGED,
            redirect_uris=settings.redirect_uris if "redirect_uris" in given else UNCHANGED,
            grant_types=settings.grant_types if "grant_types" in given else UNCHANGED,
            requires_pkce=settings.require_pkce if "require_pkce" in given else UNCHANGED,
            binds_tokens=settings.dpop_bound if "dpop_bound" in given else UNCHANGED,
            actor=call.caller.actor,
            precondition=call.precondition("app", call.scopes_precondition(settings.scopes, current_scopes, "app")),
        )
    return _to_response(changed, call)


async def rotate_secret(call: AdminRequest) -> Response:
    """Give the app a new secret. The current one works until its grace period ends."""
    issued = await call.oauth_clients.rotate_secret(
        call.caller.account_id,
        call.id,
        grace_seconds=call.body(SecretRotation).grace_seconds,
        actor=call.caller.actor,
        precondition=call.precondition("app"),
    )
    client, secret = issued or (None, None)
    client = call.require_record(client, "app")
    return client_response(issued_client_document(client, secret), client.version)


async def delete(call: AdminRequest) -> Response:
    """Delete the app permanently. Its tokens are refused from the next request on."""
    deleted = await call.oauth_clients.delete(
        call.caller.account_id, call.id, actor=call.caller.actor, precondition=call.precondition("app")
    )
    client = call.require_record(deleted, "app")
    return document_response(deleted_client_document(client))


async def _client(call: AdminRequest) -> OAuthClient:
    return call.require_record(await call.oauth_clients.get(call.caller.account_id, call.id), "app")


def _to_response(client: OAuthClient | None, call: AdminRequest) -> Response:
    client = call.require_record(client, "app")
    return client_response(client_document(client), client.version)


@contextmanager
def _body_errors() -> Iterator[None]:
    """Report settings that contradict each other as an error of the body as a whole."""
    try:
        yield
    except StateError:
        raise
    except InputError as exc:
        raise invalid_field("body", str(exc)) from exc
