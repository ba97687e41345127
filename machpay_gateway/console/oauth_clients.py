"""The pages on apps: the table, one app, what can be done with it, and the grants that it was given."""

from dataclasses import replace
from http import HTTPStatus

from starlette.responses import Response

from machpay_gateway.console.form_choices import GRACES, grace_in, scope_choices
from machpay_gateway.console.forms import FieldErrors
from machpay_gateway.console.oauth_client_form import KIND_WORDS, OAuthClientForm, redirect_notes
from machpay_gateway.console.page_request import PageError, PageRequest, missing
from machpay_gateway.core.errors import AnsweredMeanwhile, InputError
from machpay_gateway.core.keys.key import ENVIRONMENTS
from machpay_gateway.core.oauth.client import OAuthClient
from machpay_gateway.core.oauth.grant import Grant
from machpay_gateway.web.browser import fresh_value

_PAGE, _GRANTS_PAGE = 50, 20


async def table(visit: PageRequest) -> Response:
    """Show the account's apps, newest first."""
    environment, after = visit.asked("environment"), visit.asked("after")
    apps, account_id = visit.gateway.oauth_clients, visit.user.account_id
    found = await apps.list(
        account_id,
        environment=environment if environment in ENVIRONMENTS else None,
        after=after or None,
        limit=_PAGE + 1,
    )
    if after and await apps.get_even_deleted(account_id, after) is None:
        found = []
    return visit.page(
        "apps.html",
        apps=found[:_PAGE],
        has_more=len(found) > _PAGE,
        environment=environment,
        after=after,
        environments=ENVIRONMENTS,
        is_served=_is_served(visit),
    )


async def draft(visit: PageRequest) -> Response:
    """Show the form for a new app."""
    return _drafted(visit, OAuthClientForm())


async def create(visit: PageRequest) -> Response:
    """Create an app, and show its secret this once if it has one."""
    written, apps = OAuthClientForm.of(visit.form), visit.gateway.oauth_clients
    written.check(apps.grantable)
    if written.mistakes:
        return _drafted(visit, written, HTTPStatus.UNPROCESSABLE_ENTITY)
    try:
        client, secret = await apps.create(
            visit.user.account_id,
            name=written.name,
            scopes=written.scopes,
            redirect_uris=written.uris,
            grant_types=written.grant_types,
            environment=written.environment,
            is_public=written.is_public,
            requires_pkce=written.requires_pkce,
            binds_tokens=written.binds_tokens,
            actor=visit.actor,
            idempotency_name=visit.once,
        )
    except AnsweredMeanwhile:
        return visit.redirect("/apps", told="made-before")
    if secret is None:
        return visit.redirect(f"/apps/{client.id}", told="app-created")
    return visit.page("app_secret.html", app=client, secret=secret)


async def show(visit: PageRequest) -> Response:
    """Show one app; of one that is deleted what it was."""
    client = await visit.gateway.oauth_clients.get_even_deleted(visit.user.account_id, visit.id)
    if client is None:
        raise missing("app")
    return await _shown(visit, client, OAuthClientForm.about(client))


async def update(visit: PageRequest) -> Response:
    """Change the app's settings. What was changed meanwhile by somebody else is not undone unseen."""
    client, apps = await visit.app(visit.id), visit.gateway.oauth_clients
    before = OAuthClientForm.about(client)
    written = replace(
        OAuthClientForm.of(visit.form),
        kind=before.kind,
        environment=before.environment,
        is_self_registered=before.is_self_registered,
    )
    written.check(apps.grantable)
    version = visit.form.text("version")

    def unchanged(current: OAuthClient) -> None:
        if str(current.version) != version:
            raise InputError("The app was changed meanwhile: see how it is now, and change it again.")

    if written.mistakes:
        return await _shown(visit, client, written, HTTPStatus.UNPROCESSABLE_ENTITY, version=version)
    try:
        changed = await apps.update(
            visit.user.account_id,
            client.id,
            name=written.name,
            scopes=written.scopes,
            redirect_uris=written.uris,
            grant_types=written.grant_types,
            requires_pkce=written.requires_pkce,
            binds_tokens=written.binds_tokens,
            actor=visit.actor,
            precondition=unchanged,
        )
    except InputError as exc:
        # Shown as it is now: what was written on top of something else must not be sent again as if that were seen.
        client = await visit.app(visit.id)
        now = replace(OAuthClientForm.about(client), mistakes=FieldErrors.whole(exc))
        return await _shown(visit, client, now, HTTPStatus.UNPROCESSABLE_ENTITY)
    if changed is None:
        raise missing("app")
    return visit.redirect(f"/apps/{client.id}", told="saved")


async def rotate_secret(visit: PageRequest) -> Response:
    """Give the app a new secret, and show it this once."""
    client, grace = await visit.app(visit.id), grace_in(visit.form)
    try:
        issued = await visit.gateway.oauth_clients.rotate_secret(
            visit.user.account_id, client.id, grace_seconds=grace, actor=visit.actor, idempotency_name=visit.once
        )
    except AnsweredMeanwhile:
        return visit.redirect(f"/apps/{client.id}", told="made-before")
    except InputError as exc:
        raise PageError(HTTPStatus.CONFLICT, str(exc)) from exc
    if issued is None:
        raise missing("app")
    rotated, secret = issued
    return visit.page("app_secret.html", app=rotated, secret=secret)


async def ask_to_delete(visit: PageRequest) -> Response:
    """Ask whether the app is to end for good."""
    return visit.page("app_delete.html", app=await visit.app(visit.id), typed="", mistake="")


async def delete(visit: PageRequest) -> Response:
    """End the app for good, if its name was typed."""
    client, typed = await visit.app(visit.id), visit.form.text("typed")
    if typed.strip() != client.name:
        mistake = "That is not the app's name."
        status = HTTPStatus.UNPROCESSABLE_ENTITY
        return visit.page("app_delete.html", status, app=client, typed=typed, mistake=mistake)
    await visit.gateway.oauth_clients.delete(visit.user.account_id, client.id, actor=visit.actor)
    return visit.redirect("/apps", told="app-deleted")


async def end_grant(visit: PageRequest) -> Response:
    """End what a user lets the app do."""
    client, endings = await visit.app(visit.id), visit.gateway.revocation
    grant = await endings.get(visit.user.account_id, visit.request.path_params["grant"])
    if grant is None or grant.client_id != client.id:
        raise missing("grant")
    await endings.end(visit.user.account_id, grant, actor=visit.actor)
    return visit.redirect(f"/apps/{client.id}", told="grant-ended")


async def check_redirects(visit: PageRequest) -> Response:
    """Say of redirect URIs that are being typed whether they can be registered."""
    return visit.page("redirects.html", notes=redirect_notes(visit.asked("redirect_uris").split()))


def _drafted(visit: PageRequest, written: OAuthClientForm, status: int = HTTPStatus.OK) -> Response:
    return visit.page(
        "app_new.html",
        status,
        draft=written,
        choices=scope_choices(sorted(visit.gateway.oauth_clients.grantable), written.scopes),
        notes=redirect_notes(written.uris),
        environments=ENVIRONMENTS,
        kinds=KIND_WORDS,
        is_served=_is_served(visit),
        once=fresh_value(),
    )


async def _shown(
    visit: PageRequest, client: OAuthClient, written: OAuthClientForm, status: int = HTTPStatus.OK, *, version: str = ""
) -> Response:
    """Return the page; *version* is the one that what was *written* is a change of, the app's unless it is given."""
    after = visit.asked("after")
    grants = await _grants(visit, client, after)
    return visit.page(
        "app.html",
        status,
        app=client,
        version=version or client.version,
        draft=written,
        choices=scope_choices(sorted(visit.gateway.oauth_clients.grantable), written.scopes),
        notes=redirect_notes(written.uris),
        graces=GRACES,
        grants=grants[:_GRANTS_PAGE],
        has_more=len(grants) > _GRANTS_PAGE,
        after=after,
        emails=await visit.gateway.users.emails(visit.user.account_id, (grant.user_id for grant in grants)),
        is_served=_is_served(visit),
        once=fresh_value(),
    )


async def _grants(visit: PageRequest, client: OAuthClient, after: str) -> list[Grant]:
    """Return the grants of a page, and one more if there is: those of the account's own users alone."""
    endings, account_id = visit.gateway.revocation, visit.user.account_id
    if after and await endings.get(account_id, after) is None:
        return []
    return list(await endings.list(account_id, client_id=client.id, after=after or None, limit=_GRANTS_PAGE + 1))


def _is_served(visit: PageRequest) -> bool:
    """Tell whether apps can ask for anything here at all."""
    return visit.gateway.settings.oauth is not None
