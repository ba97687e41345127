"""The pages on OAuth clients, which users know as apps: the list, one app, its secret, and the grants of users."""

from collections.abc import Collection
from dataclasses import replace
from http import HTTPStatus

from starlette.responses import Response

from machpay_gateway.console.form_choices import GRACE_PERIODS, ScopeChoice, parse_grace_period, scope_choices
from machpay_gateway.console.forms import FieldErrors
from machpay_gateway.console.oauth_client_form import CLIENT_TYPES, OAuthClientForm, check_uris
from machpay_gateway.console.page_request import PageError, PageRequest, not_found
from machpay_gateway.core.errors import DuplicateRequest, InputError
from machpay_gateway.core.keys.key import ENVIRONMENTS
from machpay_gateway.core.oauth.client import OAuthClient
from machpay_gateway.core.oauth.grant import Grant
from machpay_gateway.web.browser import random_value

_PAGE_SIZE, _GRANTS_PAGE_SIZE = 50, 20


async def index(request: PageRequest) -> Response:
    """List the account's OAuth clients that match the filter, newest first."""
    environment, after = request.query("environment"), request.query("after")
    service, account_id = request.gateway.oauth_clients, request.user.account_id
    clients = await service.list(
        account_id,
        environment=environment if environment in ENVIRONMENTS else None,
        after=after or None,
        limit=_PAGE_SIZE + 1,
    )
    if after and await service.get_even_deleted(account_id, after) is None:
        clients = []
    return request.render(
        "apps.html",
        apps=clients[:_PAGE_SIZE],
        has_more=len(clients) > _PAGE_SIZE,
        environment=environment,
        after=after,
        environments=ENVIRONMENTS,
        has_authorization_server=_has_authorization_server(request),
    )


async def new(request: PageRequest) -> Response:
    """Show the form for a new OAuth client."""
    return _new_page(request, OAuthClientForm())


async def create(request: PageRequest) -> Response:
    """Create an OAuth client, and show its secret once if it has one."""
    form, service = OAuthClientForm.from_form(request.form), request.gateway.oauth_clients
    form.validate(service.grantable)
    if form.errors:
        return _new_page(request, form, HTTPStatus.UNPROCESSABLE_ENTITY)
    try:
        client, secret = await service.create(
            request.user.account_id,
            name=form.name,
            scopes=form.scopes,
            redirect_uris=form.uris,
            grant_types=form.grant_types,
            environment=form.environment,
            is_public=form.is_public,
            requires_pkce=form.requires_pkce,
            binds_tokens=form.binds_tokens,
            actor=request.actor,
            idempotency_name=request.idempotency_key,
        )
    except DuplicateRequest:
        return request.redirect("/apps", message="made-before")
    if secret is None:
        return request.redirect(f"/apps/{client.id}", message="app-created")
    return request.render("app_secret.html", app=client, secret=secret)


async def show(request: PageRequest) -> Response:
    """Show one OAuth client, also a deleted one."""
    client = await request.gateway.oauth_clients.get_even_deleted(request.user.account_id, request.id)
    if client is None:
        raise not_found("App")
    return await _client_page(request, client, OAuthClientForm.from_client(client))


async def update(request: PageRequest) -> Response:
    """Change the client's settings, unless they changed since the form was rendered (optimistic locking)."""
    client, service = await request.load_client(request.id), request.gateway.oauth_clients
    current = OAuthClientForm.from_client(client)
    form = replace(
        OAuthClientForm.from_form(request.form),
        kind=current.kind,
        environment=current.environment,
        is_self_registered=current.is_self_registered,
    )
    form.validate(service.grantable)
    version = request.form.text("version")
    if form.errors:
        return await _client_page(request, client, form, HTTPStatus.UNPROCESSABLE_ENTITY, version=version)

    def check_version(stored: OAuthClient) -> None:
        if str(stored.version) != version:
            raise InputError("This app was changed by someone else. Review its current settings and try again.")

    try:
        changed = await service.update(
            request.user.account_id,
            client.id,
            name=form.name,
            scopes=form.scopes,
            redirect_uris=form.uris,
            grant_types=form.grant_types,
            requires_pkce=form.requires_pkce,
            binds_tokens=form.binds_tokens,
            actor=request.actor,
            precondition=check_version,
        )
    except InputError as exc:
        # Show the stored settings: resubmitting the form must not overwrite a change that the user has not seen.
        client = await request.load_client(request.id)
        form = replace(OAuthClientForm.from_client(client), errors=FieldErrors.for_form(exc))
        return await _client_page(request, client, form, HTTPStatus.UNPROCESSABLE_ENTITY)
    if changed is None:
        raise not_found("App")
    return request.redirect(f"/apps/{client.id}", message="saved")


async def rotate_secret(request: PageRequest) -> Response:
    """Give the client a new secret, and show it once."""
    client, grace_seconds = await request.load_client(request.id), parse_grace_period(request.form)
    try:
        issued = await request.gateway.oauth_clients.rotate_secret(
            request.user.account_id,
            client.id,
            grace_seconds=grace_seconds,
            actor=request.actor,
            idempotency_name=request.idempotency_key,
        )
    except DuplicateRequest:
        return request.redirect(f"/apps/{client.id}", message="made-before")
    except InputError as exc:
        raise PageError(HTTPStatus.CONFLICT, str(exc)) from exc
    if issued is None:
        raise not_found("App")
    client, secret = issued
    return request.render("app_secret.html", app=client, secret=secret)


async def confirm_delete(request: PageRequest) -> Response:
    """Ask for confirmation before the client is deleted."""
    return request.render("app_delete.html", app=await request.load_client(request.id), typed="", error="")


async def delete(request: PageRequest) -> Response:
    """Delete the client if its name was typed."""
    client, typed = await request.load_client(request.id), request.form.text("typed")
    if typed.strip() != client.name:
        error, status = "This is not the app’s name.", HTTPStatus.UNPROCESSABLE_ENTITY
        return request.render("app_delete.html", status, app=client, typed=typed, error=error)
    await request.gateway.oauth_clients.delete(request.user.account_id, client.id, actor=request.actor)
    return request.redirect("/apps", message="app-deleted")


async def revoke_grant(request: PageRequest) -> Response:
    """Revoke what a user allowed the client."""
    client, revocation = await request.load_client(request.id), request.gateway.revocation
    grant = await revocation.get(request.user.account_id, request.http.path_params["grant"])
    if grant is None or grant.client_id != client.id:
        raise not_found("Grant")
    await revocation.revoke_grant(request.user.account_id, grant, actor=request.actor)
    return request.redirect(f"/apps/{client.id}", message="grant-ended")


async def check_redirect_uris(request: PageRequest) -> Response:
    """Return the checks of redirect URIs while they are typed, as a fragment."""
    return request.render("redirects.html", checks=check_uris(request.query("redirect_uris").split()))


def _new_page(request: PageRequest, form: OAuthClientForm, status: int = HTTPStatus.OK) -> Response:
    return request.render(
        "app_new.html",
        status,
        form=form,
        choices=_scope_choices(request, form.scopes),
        checks=check_uris(form.uris),
        environments=ENVIRONMENTS,
        client_types=CLIENT_TYPES,
        has_authorization_server=_has_authorization_server(request),
        once=random_value(),
    )


async def _client_page(
    request: PageRequest, client: OAuthClient, form: OAuthClientForm, status: int = HTTPStatus.OK, *, version: str = ""
) -> Response:
    """Return the page of a client. *version* is the one that *form* changes, by default the client's."""
    after = request.query("after")
    grants = await _list_grants(request, client, after)
    return request.render(
        "app.html",
        status,
        app=client,
        tiers=request.gateway.policy.tiers,
        version=version or client.version,
        form=form,
        choices=_scope_choices(request, form.scopes),
        scope_descriptions=request.gateway.settings.scope_descriptions,
        checks=check_uris(form.uris),
        grace_periods=GRACE_PERIODS,
        grants=grants[:_GRANTS_PAGE_SIZE],
        has_more=len(grants) > _GRANTS_PAGE_SIZE,
        after=after,
        emails=await request.gateway.users.emails(request.user.account_id, (grant.user_id for grant in grants)),
        has_authorization_server=_has_authorization_server(request),
        once=random_value(),
    )


async def _list_grants(request: PageRequest, client: OAuthClient, after: str) -> list[Grant]:
    """Return the grants of one page, and one more if there is a next page. Only users of the account are included."""
    revocation, account_id = request.gateway.revocation, request.user.account_id
    if after and await revocation.get(account_id, after) is None:
        return []
    return list(
        await revocation.list(account_id, client_id=client.id, after=after or None, limit=_GRANTS_PAGE_SIZE + 1)
    )


def _has_authorization_server(request: PageRequest) -> bool:
    """Tell whether this gateway issues tokens to OAuth clients."""
    return request.gateway.settings.oauth is not None


def _scope_choices(request: PageRequest, checked: Collection[str]) -> list[ScopeChoice]:
    descriptions = request.gateway.settings.scope_descriptions
    return scope_choices(sorted(request.gateway.oauth_clients.grantable), checked, descriptions)
