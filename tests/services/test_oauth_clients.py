"""Changes to OAuth clients: what they invalidate, and what they leave in the store."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from machpay_gateway.core.oauth.client import OAuthClient
from machpay_gateway.services.oauth_clients import OAuthClients
from machpay_gateway.stores.sql import SqlStore
from tests.clocks import FixedClock
from tests.keyrings import Announced, counted_entropy, logged, noting
from tests.stores.oauth_records import ACME, BOTH, NOW, client, digest, grant, user

CHANGES: dict[str, Callable[[OAuthClients], Awaitable[Any]]] = {
    "a new name": lambda clients: clients.update(ACME.id, "app_001", name="Renamed"),
    "fewer scopes": lambda clients: clients.update(ACME.id, "app_001", scopes=["account:read"]),
    "its end": lambda clients: clients.delete(ACME.id, "app_001"),
}


@pytest.fixture
async def store() -> SqlStore:
    """Hold a client with three users' grants, and another with one."""
    store = SqlStore("memory://")
    assert await store.add_account(ACME, logged())
    for number in (1, 2, 3):
        assert await store.add_user(user(number), logged())
    for number in (1, 2):
        await store.add_client(client(number), logged())
    for number in (1, 2, 3):
        assert await store.put_grant(grant(number, client(1), user(number)), logged())
    assert await store.put_grant(grant(4, client(2), user(1)), logged())
    return store


@pytest.fixture
def announced() -> Announced:
    return []


@pytest.fixture
def clients(store: SqlStore, announced: Announced) -> OAuthClients:
    return OAuthClients(
        store, scopes=BOTH.names, clock=FixedClock(NOW + 10), entropy=counted_entropy(), invalidate=noting(announced)
    )


@pytest.mark.parametrize("change", CHANGES)
async def test_a_change_of_a_client_invalidates_each_of_its_grants_and_no_other(
    clients: OAuthClients, announced: Announced, change: str
) -> None:
    assert isinstance(await CHANGES[change](clients), OAuthClient)
    assert sorted(announced) == [(f"grant_{number}", 2, ACME.id) for number in (1, 2, 3)]


async def test_a_deleted_client_leaves_no_digest_of_its_secrets(store: SqlStore, clients: OAuthClients) -> None:
    await clients.delete(ACME.id, "app_001")
    deleted, other = await store.client(None, "app_001"), await store.client(None, "app_002")
    assert deleted is not None
    assert deleted.secrets == ()
    assert other is not None
    assert [secret.digest for secret in other.secrets] == [digest(2)]
    async with store._database.read_connection("digests") as connection:  # noqa: SLF001 - no port returns them without their client
        rows = await connection.exec_driver_sql("SELECT digest FROM oauth_client_secrets")
        assert [row[0] for row in rows] == [digest(2)]
