"""The pages on API keys: the list, one key, and its creation, rotation and revocation."""

from dataclasses import replace
from http import HTTPStatus

from starlette.responses import Response

from machpay_gateway.console.form_choices import GRACE_PERIODS, LineCheck, parse_grace_period, scope_choices
from machpay_gateway.console.forms import FieldErrors
from machpay_gateway.console.key_form import KeyForm, check_networks
from machpay_gateway.console.page_request import PageError, PageRequest, not_found
from machpay_gateway.core.errors import DuplicateRequest, InputError
from machpay_gateway.core.keys.idempotency import StoredResponse, completion_marker
from machpay_gateway.core.keys.key import ENVIRONMENTS, KeyRecord, KeyStatus
from machpay_gateway.core.network.address import format_address_or_none, parse_network
from machpay_gateway.services.keys import SecretResponseFactory
from machpay_gateway.web.browser import random_value
from machpay_gateway.web.request_facts import facts_of

_PAGE_SIZE = 50
_MAX_SEARCH = 100


async def index(request: PageRequest) -> Response:
    """List the account's keys that match the filters, newest first."""
    environment, status = request.query("environment"), request.query("status")
    search, after = request.query("search")[:_MAX_SEARCH], request.query("after")
    keys = await request.gateway.keys.list(
        request.user.account_id,
        environment=environment if environment in ENVIRONMENTS else None,
        status=KeyStatus(status) if status in set(KeyStatus) else None,
        search=search or None,
        after=after or None,
        limit=_PAGE_SIZE + 1,
    )
    return request.render(
        "keys.html",
        keys=keys[:_PAGE_SIZE],
        tiers=request.gateway.policy.tiers,
        has_more=len(keys) > _PAGE_SIZE,
        search=search,
        environment=environment,
        chosen_status=status,
        after=after,
        environments=ENVIRONMENTS,
        statuses=[str(each) for each in KeyStatus],
    )


async def new(request: PageRequest) -> Response:
    """Show the form for a new key."""
    return _new_page(request, KeyForm())


async def create(request: PageRequest) -> Response:
    """Create a key, and show its secret once."""
    form = KeyForm.from_form(request.form)
    form.validate(request.gateway.scopes, request.now)
    if form.errors:
        return _new_page(request, form, HTTPStatus.UNPROCESSABLE_ENTITY)
    try:
        record, secret = await request.gateway.keys.create(
            request.user.account_id,
            name=form.name,
            owner=form.owner_or_none,
            scopes=form.scopes,
            environment=form.environment,
            allowed_ips=form.networks,
            expires_at=form.expires_at(),
            actor=request.actor,
            response_factory=_completion_marker(request),
        )
    except DuplicateRequest:
        return request.redirect("/keys", message="made-before")
    except InputError as exc:  # the expiry passed after validation
        return _new_page(request, replace(form, errors=FieldErrors.for_form(exc)), HTTPStatus.UNPROCESSABLE_ENTITY)
    return _secret_page(request, record, secret)


async def show(request: PageRequest) -> Response:
    """Show one key."""
    record = await request.load_key(request.id)
    return _key_page(request, record, KeyForm.from_record(record))


async def update(request: PageRequest) -> Response:
    """Change the key's settings, unless they changed since the form was rendered (optimistic locking)."""
    record, form = await request.load_key(request.id), KeyForm.from_form(request.form)
    current = KeyForm.from_record(record)
    defined_scopes = request.gateway.scopes.plus(record.scopes.names)
    form.validate(defined_scopes, request.now, current_expiry=current.expires)
    version = request.form.text("version")
    if form.errors:
        return _key_page(request, record, form, HTTPStatus.UNPROCESSABLE_ENTITY, version=version)

    def check_version(stored: KeyRecord) -> None:
        if str(stored.version) != version:
            raise InputError("This key was changed by someone else. Review its current settings and try again.")

    try:
        await request.gateway.keys.update(
            request.user.account_id,
            record.id,
            name=form.name,
            owner=form.owner_or_none,
            scopes=form.scopes,
            allowed_ips=form.networks,
            # Browsers drop fractions of a second: an expiry that was not edited stays exactly as it is.
            expires_at=record.expires_at if form.expires == current.expires else form.expires_at(),
            actor=request.actor,
            precondition=check_version,
        )
    except InputError as exc:
        # Show the stored settings: resubmitting the form must not overwrite a change that the user has not seen.
        record = await request.load_key(request.id)
        form = replace(KeyForm.from_record(record), errors=FieldErrors.for_form(exc))
        return _key_page(request, record, form, HTTPStatus.UNPROCESSABLE_ENTITY)
    return request.redirect(f"/keys/{record.id}", message="saved")


async def rotate(request: PageRequest) -> Response:
    """Give the key a new secret, and show it once."""
    record, grace_seconds = await request.load_key(request.id), parse_grace_period(request.form)
    try:
        issued = await request.gateway.keys.rotate(
            request.user.account_id,
            record.id,
            grace_seconds=grace_seconds,
            actor=request.actor,
            response_factory=_completion_marker(request),
        )
    except DuplicateRequest:
        return request.redirect(f"/keys/{record.id}", message="made-before")
    except InputError as exc:
        raise PageError(HTTPStatus.CONFLICT, str(exc)) from exc
    if issued is None:
        raise not_found("Key")
    return _secret_page(request, *issued)


async def end_grace(request: PageRequest) -> Response:
    """End the grace period of the previous secret."""
    record = await request.load_key(request.id)
    await request.gateway.keys.end_grace(request.user.account_id, record.id, actor=request.actor)
    return request.redirect(f"/keys/{record.id}", message="grace-ended")


async def confirm_revoke(request: PageRequest) -> Response:
    """Ask for confirmation before the key is revoked."""
    return request.render("key_revoke.html", key=await request.load_key(request.id), typed="", error="")


async def revoke(request: PageRequest) -> Response:
    """Revoke the key if its name was typed."""
    record, typed = await request.load_key(request.id), request.form.text("typed")
    if typed.strip() != record.name:
        error, status = "This is not the key’s name.", HTTPStatus.UNPROCESSABLE_ENTITY
        return request.render("key_revoke.html", status, key=record, typed=typed, error=error)
    await request.gateway.keys.revoke(request.user.account_id, record.id, actor=request.actor)
    return request.redirect(f"/keys/{record.id}", message="key-revoked")


async def check_addresses(request: PageRequest) -> Response:
    """Return the checks of addresses while they are typed, as a fragment."""
    return request.render(
        "addresses.html", checks=_check_addresses(request, KeyForm(addresses=request.query("addresses")))
    )


def _new_page(request: PageRequest, form: KeyForm, status: int = HTTPStatus.OK) -> Response:
    return request.render(
        "key_new.html",
        status,
        form=form,
        choices=scope_choices(request.gateway.scopes, form.scopes, request.gateway.settings.scope_descriptions),
        checks=_check_addresses(request, form),
        environments=ENVIRONMENTS,
        once=random_value(),
    )


def _key_page(
    request: PageRequest, record: KeyRecord, form: KeyForm, status: int = HTTPStatus.OK, *, version: str = ""
) -> Response:
    """Return the page of a key. *version* is the one that *form* changes, by default the record's."""
    return request.render(
        "key.html",
        status,
        key=record,
        tiers=request.gateway.policy.tiers,
        version=version or record.version,
        state=record.status(request.now),
        form=form,
        choices=scope_choices(request.gateway.scopes, form.scopes, request.gateway.settings.scope_descriptions),
        checks=_check_addresses(request, form),
        grace_periods=GRACE_PERIODS,
        once=random_value(),
    )


def _secret_page(request: PageRequest, record: KeyRecord, secret: str) -> Response:
    return request.render("key_secret.html", key=record, secret=secret, api_url=request.pages.settings.api_url)


def _completion_marker(request: PageRequest) -> SecretResponseFactory:
    """Return what is stored under the form's idempotency key: that it was submitted, never the secret."""
    idempotency_key = request.idempotency_key

    def marker(_record: KeyRecord, _secret: str) -> StoredResponse:
        return completion_marker(idempotency_key, request.now)

    return marker


def _check_addresses(request: PageRequest, form: KeyForm) -> list[LineCheck]:
    own = facts_of(request.http.scope).address

    def covers_own(network: str) -> bool:
        _, first, last = parse_network(network)
        return own is not None and first <= own <= last

    return check_networks(form.networks, format_address_or_none(own), covers_own)
