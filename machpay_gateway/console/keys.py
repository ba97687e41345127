"""The pages on keys: the table, one key, and what can be done with it."""

from dataclasses import replace
from http import HTTPStatus

from starlette.responses import Response

from machpay_gateway.console.choices import GRACES, Note, grace_in, scope_choices
from machpay_gateway.console.drafts import KeyDraft, network_notes
from machpay_gateway.console.forms import Mistakes
from machpay_gateway.console.visit import TurnedAwayError, Visit, missing
from machpay_gateway.core.address import format_address_or_none, parse_network
from machpay_gateway.core.errors import AnsweredMeanwhile, InputError
from machpay_gateway.core.key import ENVIRONMENTS, KeyRecord, KeyStatus
from machpay_gateway.core.replay import KeptAnswer, noted
from machpay_gateway.keyring import Issue
from machpay_gateway.web.browser import fresh_value
from machpay_gateway.web.incoming import facts_of

_PAGE = 50
_LONGEST_SEARCH = 100


async def table(visit: Visit) -> Response:
    """Show the account's keys, newest first: those that were searched for."""
    environment, status = visit.asked("environment"), visit.asked("status")
    search, after = visit.asked("search")[:_LONGEST_SEARCH], visit.asked("after")
    found = await visit.gateway.keyring.list(
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


async def draft(visit: Visit) -> Response:
    """Show the form for a new key."""
    return _drafted(visit, KeyDraft())


async def create(visit: Visit) -> Response:
    """Create a key, and show its secret this once."""
    written = KeyDraft.of(visit.form)
    written.check(visit.gateway.policy.scopes, visit.now)
    if written.mistakes:
        return _drafted(visit, written, HTTPStatus.UNPROCESSABLE_ENTITY)
    try:
        issued = await visit.gateway.keyring.create(
            visit.user.account_id,
            name=written.name,
            scopes=written.scopes,
            environment=written.environment,
            allowed_ips=written.networks,
            expires_at=written.expires_at(),
            actor=visit.actor,
            keep=_once(visit),
        )
    except AnsweredMeanwhile:
        return visit.onward("/keys", told="made-before")
    except InputError as exc:  # a moment that was to come just now has passed
        return _drafted(visit, replace(written, mistakes=Mistakes.whole(exc)), HTTPStatus.UNPROCESSABLE_ENTITY)
    return _issued(visit, *issued)


async def show(visit: Visit) -> Response:
    """Show one key."""
    record = await visit.key(visit.id)
    return _shown(visit, record, KeyDraft.about(record))


async def update(visit: Visit) -> Response:
    """Change the key's settings. What was changed meanwhile by somebody else is not undone unseen."""
    record, written = await visit.key(visit.id), KeyDraft.of(visit.form)
    before = KeyDraft.about(record)
    written.check({*visit.gateway.policy.scopes, *record.scopes.names}, visit.now, kept_expiry=before.expires)
    version = visit.form.text("version")

    def unchanged(current: KeyRecord) -> None:
        if str(current.version) != version:
            raise InputError("The key was changed meanwhile: see how it is now, and change it again.")

    if written.mistakes:
        return _shown(visit, record, written, HTTPStatus.UNPROCESSABLE_ENTITY, version=version)
    try:
        await visit.gateway.keyring.update(
            visit.user.account_id,
            record.id,
            name=written.name,
            scopes=written.scopes,
            allowed_ips=written.networks,
            # To the second, as browsers have it: one that was not touched stays as it is.
            expires_at=record.expires_at if written.expires == before.expires else written.expires_at(),
            actor=visit.actor,
            permit=unchanged,
        )
    except InputError as exc:
        # Shown as it is now: what was written on top of something else must not be sent again as if that were seen.
        record = await visit.key(visit.id)
        now = replace(KeyDraft.about(record), mistakes=Mistakes.whole(exc))
        return _shown(visit, record, now, HTTPStatus.UNPROCESSABLE_ENTITY)
    return visit.onward(f"/keys/{record.id}", told="saved")


async def rotate(visit: Visit) -> Response:
    """Give the key a new secret, and show it this once."""
    record, grace = await visit.key(visit.id), grace_in(visit.form)
    try:
        issued = await visit.gateway.keyring.rotate(
            visit.user.account_id, record.id, grace_seconds=grace, actor=visit.actor, keep=_once(visit)
        )
    except AnsweredMeanwhile:
        return visit.onward(f"/keys/{record.id}", told="made-before")
    except InputError as exc:
        raise TurnedAwayError(HTTPStatus.CONFLICT, str(exc)) from exc
    if issued is None:
        raise missing("key")
    return _issued(visit, *issued)


async def end_grace(visit: Visit) -> Response:
    """End the secret from before the last rotation now."""
    record = await visit.key(visit.id)
    await visit.gateway.keyring.end_grace(visit.user.account_id, record.id, actor=visit.actor)
    return visit.onward(f"/keys/{record.id}", told="grace-ended")


async def ask_to_revoke(visit: Visit) -> Response:
    """Ask whether the key is to end for good."""
    return visit.page("key_revoke.html", key=await visit.key(visit.id), typed="", mistake="")


async def revoke(visit: Visit) -> Response:
    """End the key for good, if its name was typed."""
    record, typed = await visit.key(visit.id), visit.form.text("typed")
    if typed.strip() != record.name:
        mistake = "That is not the key's name."
        status = HTTPStatus.UNPROCESSABLE_ENTITY
        return visit.page("key_revoke.html", status, key=record, typed=typed, mistake=mistake)
    await visit.gateway.keyring.revoke(visit.user.account_id, record.id, actor=visit.actor)
    return visit.onward(f"/keys/{record.id}", told="key-revoked")


async def check_addresses(visit: Visit) -> Response:
    """Say of addresses that are being typed how they are read."""
    return visit.page("addresses.html", notes=_address_notes(visit, KeyDraft(addresses=visit.asked("addresses"))))


def _drafted(visit: Visit, written: KeyDraft, status: int = HTTPStatus.OK) -> Response:
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
    visit: Visit, record: KeyRecord, written: KeyDraft, status: int = HTTPStatus.OK, *, version: str = ""
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


def _issued(visit: Visit, record: KeyRecord, secret: str) -> Response:
    settings = visit.pages.settings
    return visit.page("key_secret.html", key=record, secret=secret, api_url=settings.api_url)


def _once(visit: Visit) -> Issue:
    """Return what keeps the same page from issuing a second secret when it is sent twice."""
    name = visit.once

    def keep(_record: KeyRecord, _secret: str) -> KeptAnswer:
        return noted(name, visit.now)  # that it was answered, and not how: the secret is shown once

    return keep


def _address_notes(visit: Visit, written: KeyDraft) -> list[Note]:
    own = facts_of(visit.request.scope).address

    def covers(network: str) -> bool:
        _, first, last = parse_network(network)
        return own is not None and first <= own <= last

    return network_notes(written.networks, format_address_or_none(own), covers)
