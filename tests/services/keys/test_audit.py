"""What the audit log tells of each use case: who, and what is different, never a secret."""

import orjson
import pytest

from machpay_gateway.core.errors import InputError
from machpay_gateway.core.keys.audit import APPLICATION, Actor, AuditRow
from machpay_gateway.core.keys.key import KeyRecord, secret_digest
from machpay_gateway.services.keys import Keys
from machpay_gateway.stores.sql import SqlStore
from tests.clocks import FixedClock
from tests.keyrings import ACME, NOW

ADMIN = Actor("api_key", "key_admin", "203.0.113.10", "request-1")


async def last_row(store: SqlStore) -> AuditRow:
    (row,) = await store.audit_page(None, limit=1)
    return row


async def test_a_creation_tells_all_settings_and_of_the_secret_what_may_be_shown(store: SqlStore, keys: Keys) -> None:
    key, secret = await keys.create(
        ACME.id,
        name="deploy",
        scopes=["skills:list"],
        environment="live",
        allowed_ips=["203.0.113.10"],
        expires_at=NOW + 60,
        metadata={"team": "ops"},
        owner="customer 17",
        actor=ADMIN,
    )
    row = await last_row(store)
    assert (row.at, row.action, row.account_id, row.object_id) == (NOW, "key.create", ACME.id, key.id)
    assert Actor(row.actor_kind, row.actor_id, row.address, row.request_id) == ADMIN  # type: ignore[arg-type]  # a kind
    assert orjson.loads(row.before) == {}
    assert orjson.loads(row.after) == {
        "name": "deploy",
        "environment": "live",
        "scopes": ["skills:list"],
        "allowed_ips": ["203.0.113.10"],
        "metadata": {"team": "ops"},
        "owner": "customer 17",
        "own_tier": None,
        "secrets": [{"masked": f"sk_live_…{secret[-4:]}", "expires_at": None}],
        "expires_at": "2023-11-14T22:14:20Z",
        "revoked_at": None,
        "last_rotated_at": None,
    }


async def test_an_update_tells_what_is_different(store: SqlStore, keys: Keys, key: KeyRecord) -> None:
    await keys.update(ACME.id, key.id, name="renamed", scopes=["skills:list"], actor=ADMIN)
    row = await last_row(store)
    assert (row.action, row.actor_id) == ("key.update", "key_admin")
    assert (orjson.loads(row.before), orjson.loads(row.after)) == ({"name": "deploy"}, {"name": "renamed"})


async def test_an_update_that_changes_nothing_is_not_told(store: SqlStore, keys: Keys, key: KeyRecord) -> None:
    head = await store.audit_head()
    await keys.update(ACME.id, key.id, name=key.name)
    assert await store.audit_head() == head


async def test_rotation_the_end_of_a_grace_and_revocation_are_told(
    store: SqlStore, keys: Keys, key: KeyRecord, clock: FixedClock
) -> None:
    entries = []
    clock.advance(1)
    for change in (keys.rotate, keys.end_grace, keys.revoke):
        await change(ACME.id, key.id)
        row = await last_row(store)
        entries.append((row.action, row.actor_kind, sorted(orjson.loads(row.after))))
    assert entries == [
        ("key.rotate", APPLICATION.kind, ["last_rotated_at", "secrets"]),
        ("key.end_grace", APPLICATION.kind, ["secrets"]),
        ("key.revoke", APPLICATION.kind, ["revoked_at"]),
    ]


async def test_no_row_holds_a_secret_or_a_digest(store: SqlStore, keys: Keys, created: tuple[KeyRecord, str]) -> None:
    key, secret = created
    rotated = await keys.rotate(ACME.id, key.id)
    assert rotated is not None
    await keys.revoke(ACME.id, key.id)
    log = repr(await store.audit_rows(0))
    for issued in (secret, rotated[1]):
        assert issued[-4:] in log
        for trace in (
            issued,
            issued[12:44],
            secret_digest(issued.encode()).hex(),
            repr(secret_digest(issued.encode())),
        ):
            assert trace not in log


async def test_a_refused_creation_leaves_no_row(store: SqlStore, keys: Keys) -> None:
    head = await store.audit_head()
    with pytest.raises(InputError, match="no:such"):
        await keys.create(ACME.id, name="deploy", scopes=["no:such"], environment="live")
    assert await store.audit_head() == head
