"""The operations on keys. Each is looked up within the caller's account, and within the environment it may see."""

from http import HTTPStatus

from starlette.responses import Response

from machpay_gateway.admin.documents import document_response, key_response, page_response
from machpay_gateway.admin.idempotency import Issued, issued_once
from machpay_gateway.admin.problems import ProblemError
from machpay_gateway.admin.request import AdminRequest
from machpay_gateway.admin.request_body import invalid
from machpay_gateway.admin.requests import KeyChange, KeySelection, NewKey, NoFields, Revocation, Rotation, UsageQuery
from machpay_gateway.core.errors import InputError
from machpay_gateway.core.keys.document import key_document
from machpay_gateway.core.keys.key import DAY_SECONDS, KeyRecord, KeyStatus
from machpay_gateway.core.unchanged import UNCHANGED
from machpay_gateway.core.usage.document import usage_document
from machpay_gateway.services.keys import SecretResponseFactory
from machpay_gateway.telemetry.reports import usage_report


async def create(call: AdminRequest) -> Response:
    """Create a key with at most the caller's scopes."""

    async def issue(keep: SecretResponseFactory | None) -> Issued:
        sent = call.sent(NewKey)
        return await call.gateway.keys.create(
            call.caller.account_id,
            name=sent.name,
            scopes=sent.scopes,
            environment=sent.environment or call.caller.principal.environment,
            allowed_ips=sent.allowed_ips or (),
            expires_at=sent.expires_at,
            metadata=sent.metadata,
            actor=call.caller.actor,
            keep=keep,
        )

    return await issued_once(call, HTTPStatus.CREATED, issue)


async def list_(call: AdminRequest) -> Response:
    """List keys, newest first."""
    chosen, caller, keyring = call.query(KeySelection), call.caller, call.gateway.keys
    account_id = caller.account_id
    await call.check_after(chosen.after, keyring.get, "key")
    if caller.environment is not None and chosen.environment not in (None, caller.environment):
        return page_response([], chosen.limit)
    found = await keyring.list(
        account_id,
        environment=caller.environment or chosen.environment,
        status=None if chosen.status is None else KeyStatus(chosen.status),
        after=chosen.after,
        limit=chosen.limit + 1,
    )
    return page_response([key_document(record, call.now) for record in found], chosen.limit)


async def retrieve(call: AdminRequest) -> Response:
    """Return a key, whatever its status."""
    return _told(await call.key(), call)


async def update(call: AdminRequest) -> Response:
    """Change the settings that are given."""
    kept = (await call.key()).scopes.names
    sent = call.sent(KeyChange, kept=kept)
    given = sent.model_fields_set
    changed = await call.gateway.keys.update(
        call.caller.account_id,
        call.id,
        name=sent.name if "name" in given else UNCHANGED,
        scopes=sent.scopes if "scopes" in given else UNCHANGED,
        allowed_ips=sent.allowed_ips or () if "allowed_ips" in given else UNCHANGED,
        expires_at=sent.expires_at if "expires_at" in given else UNCHANGED,
        metadata=sent.metadata or {} if "metadata" in given else UNCHANGED,
        actor=call.caller.actor,
        permit=call.permit("key", call.scopes_precondition(sent.scopes, kept, "key")),
    )
    return _told(changed, call)


async def rotate(call: AdminRequest) -> Response:
    """Give the key a new secret; the current one goes on until its grace ends."""

    async def issue(keep: SecretResponseFactory | None) -> Issued:
        issued = await call.gateway.keys.rotate(
            call.caller.account_id,
            call.id,
            grace_seconds=call.sent(Rotation).grace_seconds,
            actor=call.caller.actor,
            keep=keep,
            permit=call.permit("key"),
        )
        if issued is None:
            raise ProblemError("not_found", "There is no key with this id.")
        return issued

    return await issued_once(call, HTTPStatus.OK, issue)


async def end_grace(call: AdminRequest) -> Response:
    """End the secret from before the last rotation now."""
    call.sent(NoFields)
    changed = await call.gateway.keys.end_grace(
        call.caller.account_id,
        call.id,
        actor=call.caller.actor,
        permit=call.permit("key"),
    )
    return _told(changed, call)


async def usage(call: AdminRequest) -> Response:
    """Tell what a key was used for: requests by outcome and status, and how long they took."""
    asked, record = call.query(UsageQuery), await call.key()
    end = call.now if asked.to is None else asked.to
    start = end - DAY_SECONDS if asked.from_ is None else asked.from_
    try:
        report = await usage_report(call.gateway.store, record.id, start=start, end=end, bucket=asked.bucket)
    except InputError as exc:
        raise invalid("query", str(exc)) from exc
    return document_response(usage_document(report))


async def revoke(call: AdminRequest) -> Response:
    """End the key for good."""
    call.sent(NoFields)
    if call.id == call.caller.actor.key_id and not call.query(Revocation).self_:
        raise ProblemError("conflict", "This key is the one that asks: add ?self=true if it is meant.")
    revoked = await call.gateway.keys.revoke(
        call.caller.account_id,
        call.id,
        actor=call.caller.actor,
        permit=call.permit("key"),
    )
    return _told(revoked, call)


def _told(record: KeyRecord | None, call: AdminRequest) -> Response:
    record = call.seen(record, "key")
    return key_response(key_document(record, call.now), record.version)
