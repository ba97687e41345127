"""The operations on keys. Each looks up its key within the caller's account and environment."""

from http import HTTPStatus

from starlette.responses import Response

from machpay_gateway.admin.documents import document_response, key_response, page_response
from machpay_gateway.admin.idempotency import IssuedKey, idempotent_response
from machpay_gateway.admin.problems import ProblemError
from machpay_gateway.admin.request import AdminRequest
from machpay_gateway.admin.request_body import invalid_field
from machpay_gateway.admin.requests import (
    KeyChange,
    KeyListQuery,
    KeyUsageQuery,
    NewKey,
    NoFields,
    RevokeQuery,
    Rotation,
)
from machpay_gateway.core.errors import InputError
from machpay_gateway.core.keys.document import key_document
from machpay_gateway.core.keys.key import DAY_SECONDS, KeyRecord, KeyStatus
from machpay_gateway.core.usage.document import usage_document
from machpay_gateway.services.keys import SecretResponseFactory
from machpay_gateway.telemetry.reports import usage_report


async def create(call: AdminRequest) -> Response:
    """Create a key with at most the caller's scopes."""

    async def issue(response_factory: SecretResponseFactory | None) -> IssuedKey:
        settings = call.body(NewKey)
        return await call.gateway.keys.create(
            call.caller.account_id,
            **settings.given() | {"environment": settings.environment or call.caller.principal.environment},
            actor=call.caller.actor,
            response_factory=response_factory,
        )

    return await idempotent_response(call, HTTPStatus.CREATED, issue)


async def list_(call: AdminRequest) -> Response:
    """List keys, newest first."""
    query, caller, keys = call.query(KeyListQuery), call.caller, call.gateway.keys
    account_id = caller.account_id
    await call.check_cursor(query.after, keys.get, "key")
    if caller.environment is not None and query.environment not in (None, caller.environment):
        return page_response([], query.limit)
    records = await keys.list(
        account_id,
        environment=caller.environment or query.environment,
        status=None if query.status is None else KeyStatus(query.status),
        after=query.after,
        limit=query.limit + 1,
    )
    return page_response([key_document(record, call.now, call.gateway.policy.tiers) for record in records], query.limit)


async def retrieve(call: AdminRequest) -> Response:
    """Return a key, whatever its status."""
    return _to_response(await call.key(), call)


async def update(call: AdminRequest) -> Response:
    """Change the given settings."""
    current_scopes = (await call.key()).scopes.names
    settings = call.body(KeyChange, current_scopes)
    changed = await call.gateway.keys.update(
        call.caller.account_id,
        call.id,
        **settings.given(),
        actor=call.caller.actor,
        precondition=call.precondition("key", call.scopes_precondition(settings.scopes, current_scopes, "key")),
    )
    return _to_response(changed, call)


async def rotate(call: AdminRequest) -> Response:
    """Give the key a new secret. The current one works until its grace period ends."""

    async def issue(response_factory: SecretResponseFactory | None) -> IssuedKey:
        issued = await call.gateway.keys.rotate(
            call.caller.account_id,
            call.id,
            grace_seconds=call.body(Rotation).grace_seconds,
            actor=call.caller.actor,
            response_factory=response_factory,
            precondition=call.precondition("key"),
        )
        if issued is None:
            raise ProblemError("not_found", "There is no key with this id.")
        return issued

    return await idempotent_response(call, HTTPStatus.OK, issue)


async def end_grace(call: AdminRequest) -> Response:
    """End the grace period of the previous secret now."""
    call.body(NoFields)
    changed = await call.gateway.keys.end_grace(
        call.caller.account_id,
        call.id,
        actor=call.caller.actor,
        precondition=call.precondition("key"),
    )
    return _to_response(changed, call)


async def usage(call: AdminRequest) -> Response:
    """Return the usage of a key: requests by outcome and status, and their latency."""
    query, record = call.query(KeyUsageQuery), await call.key()
    end = call.now if query.to is None else query.to
    start = end - DAY_SECONDS if query.from_ is None else query.from_
    try:
        report = await usage_report(call.gateway.store, record.id, start=start, end=end, bucket=query.bucket)
    except InputError as exc:
        raise invalid_field("query", str(exc)) from exc
    return document_response(usage_document(report))


async def revoke(call: AdminRequest) -> Response:
    """Revoke the key permanently."""
    call.body(NoFields)
    if call.id == call.caller.actor.key_id and not call.query(RevokeQuery).self_:
        raise ProblemError("conflict", "This is the calling key itself: add ?self=true to revoke it.")
    revoked = await call.gateway.keys.revoke(
        call.caller.account_id,
        call.id,
        actor=call.caller.actor,
        precondition=call.precondition("key"),
    )
    return _to_response(revoked, call)


def _to_response(record: KeyRecord | None, call: AdminRequest) -> Response:
    record = call.require_record(record, "key")
    return key_response(key_document(record, call.now, call.gateway.policy.tiers), record.version)
