"""The pages on keys: the table, one key, and what can be done with it."""

from dataclasses import replace
from http import HTTPStatus

from starlette.responses import Response

from machpay_gateway.console.form_choices import GRACES, Note, grace_in, scope_choices
from machpay_gateway.console.forms import FieldErrors
from machpay_gateway.console.key_form import KeyForm, network_notes
from machpay_gateway.console.page_request import PageError, PageRequest, missing
from machpay_gateway.core.errors import AnsweredMeanwhile, InputError
from machpay_gateway.core.keys.idempotency import StoredResponse, completion_marker
from machpay_gateway.core.keys.key import ENVIRONMENTS, KeyRecord, KeyStatus
from machpay_gateway.core.network.address import format_address_or_none, parse_network
from machpay_gateway.services.keys import SecretResponseFactory
from machpay_gateway.web.browser import fresh_value
from machpay_gateway.web.incoming import facts_of

_PAGE = 50
_LONGEST_SEARCH = 100


async def table(visit: PageRequest) -> Response:
    """Show the account's keys, newest first: those that were searched for."""
    environment, status = visit.asked("environment"), visit.asked("status")
    search, after = visit.asked("search")[:_LONGEST_SEARCH], visit.asked("after")
    found = await visit.gateway.keys.list(
        visit.user.account_id,
        environment=environment if environment in ENVIRONMENTS else None,
        status=KeyStatus(status) if status in set(KeyStatus) else None,
        search=search or None,
        after=after or None,
        limit=_PAGE + 1,
    )
    return visit.page(
        "keys.html",
        keys=found[:_PAGE],
        has_more=len(found) > _PAGE,
        search=search,
        environment=environment,
        chosen=status,
        after=after,
        environments=ENVIRONMENTS,
        statuses=[str(each) for each in KeyStatus],
    )


async def draft(visit: PageRequest) -> Response:
    """Show the form for a new key."""
    return _drafted(visit, KeyForm())


async def create(visit: PageRequest) -> Response:
    """Create a key, and show its secret this once."""
    written = KeyForm.of(visit.form)
    written.check(visit.gateway.policy.scopes, visit.now)
    if written.mistakes:
        return _drafted(visit, written, HTTPStatus.UNPROCESSABLE_ENTITY)
    try:
        issued = await visit.gateway.keys.create(
            visit.user.account_id,
            name=written.name,
            scopes=written.scopes,
            environment=written.environment,
            allowed_ips=written.networks,
            expires_at=written.expires_at(),
            actor=visit.actor,
            response_factory=_once(visit),
        )
    except AnsweredMeanwhile:
        return visit.redirect("/keys", told="made-before")
    except InputError as exc:  # a moment that was to come just now has passed
        return _drafted(visit, replace(written, mistakes=FieldErrors.whole(exc)), HTTPStatus.UNPROCESSABLE_ENTITY)
    return _issued(visit, *issued)


async def show(visit: PageRequest) -> Response:
    """Show one key."""
    record = await visit.key(visit.id)
    return _shown(visit, record, KeyForm.about(record))


async def update(visit: PageRequest) -> Response:
    """Change the key's settings. What was changed meanwhile by somebody else is not undone unseen."""
    record, written = await visit.key(visit.id), KeyForm.of(visit.form)
    before = KeyForm.about(record)
    written.check({*visit.gateway.policy.scopes, *record.scopes.names}, visit.now, kept_expiry=before.expires)
    version = visit.form.text("version")

    def unchanged(current: KeyRecord) -> None:
        if str(current.version) != version:
            raise InputError("The key was changed meanwhile: see how it is now, and change it again.")

    if written.mistakes:
        return _shown(visit, record, written, HTTPStatus.UNPROCESSABLE_ENTITY, version=version)
    try:
        await visit.gateway.keys.update(
            visit.user.account_id,
            record.id,
            name=written.name,
            scopes=written.scopes,
            allowed_ips=written.networks,
            # To the second, as browsers have it: one that was not touched stays as it is.
            expires_at=record.expires_at if written.expires == before.expires else written.expires_at(),
            actor=visit.actor,
            precondition=unchanged,
        )
    except InputError as exc:
        # Shown as it is now: what was written on top of something else must not be sent again as if that were seen.
        record = await visit.key(visit.id)
        now = replace(KeyForm.about(record), mistakes=FieldErrors.whole(exc))
        return _shown(visit, record, now, HTTPStatus.UNPROCESSABLE_ENTITY)
    return visit.redirect(f"/keys/{record.id}", told="saved")


async def rotate(visit: PageRequest) -> Response:
    """Give the key a new secret, and show it this once."""
    record, grace = await visit.key(visit.id), grace_in(visit.form)
    try:
        issued = await visit.gateway.keys.rotate(
            visit.user.account_id, record.id, grace_seconds=grace, actor=visit.actor, response_factory=_once(visit)
        )
    except AnsweredMeanwhile:
        return visit.redirect(f"/keys/{record.id}", told="made-before")
    except InputError as exc:
        raise PageError(HTTPStatus.CONFLICT, str(exc)) from exc
    if issued is None:
        raise missing("key")
    return _issued(visit, *issued)


async def end_grace(visit: PageRequest) -> Response:
    """End the secret from before the last rotation now."""
    record = await visit.key(visit.id)
    await visit.gateway.keys.end_grace(visit.user.account_id, record.id, actor=visit.actor)
    return visit.redirect(f"/keys/{record.id}", told="grace-ended")


async def ask_to_revoke(visit: PageRequest) -> Response:
    """Ask whether the key is to end for good."""
    return visit.page("key_revoke.html", key=await visit.key(visit.id), typed="", mistake="")


async def revoke(visit: PageRequest) -> Response:
    """End the key for good, if its name was typed."""
    record, typed = await visit.key(visit.id), visit.form.text("typed")
    if typed.strip() != record.name:
        mistake = "That is not the key's name."
        status = HTTPStatus.UNPROCESSABLE_ENTITY
        return visit.page("key_revoke.html", status, key=record, typed=typed, mistake=mistake)
    await visit.gateway.keys.revoke(visit.user.account_id, record.id, actor=visit.actor)
    return visit.redirect(f"/keys/{record.id}", told="key-revoked")


async def check_addresses(visit: PageRequest) -> Response:
    """Say of addresses that are being typed how they are read."""
    return visit.page("addresses.html", notes=_address_notes(visit, KeyForm(addresses=visit.asked("addresses"))))


def _drafted(visit: PageRequest, written: KeyForm, status: int = HTTPStatus.OK) -> Response:
    return visit.page(
        "key_new.html",
        status,
        draft=written,
        choices=scope_choices(visit.gateway.policy.scopes, written.scopes),
        notes=_address_notes(visit, written),
        environments=ENVIRONMENTS,
        once=fresh_value(),
    )


def _shown(
    visit: PageRequest, record: KeyRecord, written: KeyForm, status: int = HTTPStatus.OK, *, version: str = ""
) -> Response:
    """Return the page; *version* is the one that what was *written* is a change of, the record's unless it is given."""
    return visit.page(
        "key.html",
        status,
        key=record,
        version=version or record.version,
        state=record.status(visit.now),
        draft=written,
        choices=scope_choices(visit.gateway.policy.scopes, written.scopes),
        notes=_address_notes(visit, written),
        graces=GRACES,
        once=fresh_value(),
    )


def _issued(visit: PageRequest, record: KeyRecord, secret: str) -> Response:
    settings = visit.pages.settings
    return visit.page("key_secret.html", key=record, secret=secret, api_url=settings.api_url)


def _once(visit: PageRequest) -> SecretResponseFactory:
    """Return what keeps the same page from issuing a second secret when it is sent twice."""
    name = visit.once

    def keep(_record: KeyRecord, _secret: str) -> StoredResponse:
        return completion_marker(name, visit.now)  # that it was answered, and not how: the secret is shown once

    return keep


def _address_notes(visit: PageRequest, written: KeyForm) -> list[Note]:
    own = facts_of(visit.request.scope).address

    def covers(network: str) -> bool:
        _, first, last = parse_network(network)
        return own is not None and first <= own <= last

    return network_notes(written.networks, format_address_or_none(own), covers)
