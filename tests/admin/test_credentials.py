"""Authentication and the required scope of operations."""

from collections.abc import Sequence

import pytest

from machpay_gateway.admin.operations import OPERATIONS, Operation
from tests.admin.conftest import Api, Caller, in_memory, status_and_code

over_every_operation = pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)


@in_memory
@over_every_operation
async def test_a_request_without_credentials_is_challenged(api: Api, operation: Operation) -> None:
    response = await api.client(None).request(operation.method, operation.path.format(id="key_1"))
    assert status_and_code(response) == (401, "missing_credentials")
    assert response.headers["www-authenticate"].startswith("Bearer")


@in_memory
@over_every_operation
@pytest.mark.parametrize("scopes", [[], ["skills:*", "account:read"]], ids=str)
async def test_every_operation_on_records_needs_keys_manage(
    api: Api, operation: Operation, scopes: Sequence[str]
) -> None:
    caller = await api.caller(scopes=scopes)
    before = await api.head()
    response = await caller.ask(operation.method, operation.path.format(id=caller.id), {} if operation.body else None)
    if operation.scopes == "":
        assert response.status_code == operation.status
    else:
        assert status_and_code(response) == (403, "insufficient_scope")
        assert response.json()["required_scopes"] == ["keys:manage"]
    assert await api.head() == before


@pytest.mark.parametrize("end", ["revoked", "expired"])
async def test_a_caller_whose_key_has_ended_is_refused_everywhere(api: Api, end: str) -> None:
    caller = await api.caller()
    colleague = await api.caller()
    path = f"/v1/keys/{caller.id}"
    assert (await caller.ask("GET", path)).status_code == 200
    if end == "revoked":
        assert (await colleague.ask("POST", f"{path}/revoke")).status_code == 200
    else:
        await api.expire(caller.id)
    for operation in OPERATIONS:
        response = await caller.ask(
            operation.method, operation.path.format(id=caller.id), {} if operation.body else None
        )
        assert status_and_code(response) == (401, "invalid_credentials")


async def test_whoami_counts_down_what_is_left(admin: Caller) -> None:
    first, second = [(await admin.ask("GET", "/v1/whoami")).json() for _ in range(2)]
    assert first["remaining"]["requests"] - second["remaining"]["requests"] == 1
    assert first["limits"]["requests"] == 1000
    assert second["remaining"]["concurrency"] == 49
    assert 1 <= second["remaining"]["reset_seconds"] <= 61


async def test_whoami_lists_each_limit_with_what_is_left_of_it(admin: Caller) -> None:
    document = (await admin.ask("GET", "/v1/whoami")).json()
    minute, concurrency = document["policies"]
    assert 1 <= minute.pop("reset_seconds") <= 61
    assert minute == {
        "policy": "minute",
        "limit": 1000,
        "window_seconds": 60,
        "remaining": document["remaining"]["requests"],
        "enforced": True,
    }
    assert concurrency == {
        "policy": "concurrency",
        "limit": 50,
        "window_seconds": None,
        "remaining": 49,
        "reset_seconds": None,
        "enforced": True,
    }
