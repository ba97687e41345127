"""Tokens of other issuers, which belong to no account of the gateway, whatever account they name."""

import json
from collections.abc import AsyncIterator

import pytest

from machpay_gateway import Issuer
from machpay_gateway.admin.operations import OPERATIONS, Operation
from tests.admin.conftest import Api, serving_api, status_and_code
from tests.admin.test_accounts import BODIES
from tests.middleware import test_tokens
from tests.middleware.test_tokens import AUDIENCE, ISSUER, KEY
from tests.prepared import new_sqlite


def token(**claims: object) -> str:
    """Return a token of a caller in the issuer's account `acme`."""
    return test_tokens.token(KEY, **({"org": "acme"} | claims))


@pytest.fixture(params=["live", "test"], scope="module")
async def api(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Api]:
    """A key API that the module shares: these callers have no account, and change nothing."""
    folder = tmp_path_factory.mktemp("tokens")
    jwks = folder / "jwks.json"
    jwks.write_text(json.dumps({"keys": [KEY.as_dict(private=False)]}))
    settings = {"tier": "enterprise", "environment": request.param, "account_claim": "org"}
    issuer = Issuer(ISSUER, audience=AUDIENCE, jwks=str(jwks), **settings)
    async with serving_api(database=new_sqlite(folder / "keys.db"), issuers=[issuer]) as api:
        yield api


@pytest.mark.parametrize("query", ["", "?environment=live", "?environment=test", "?limit=1&after=key_1"])
async def test_no_query_bypasses_the_missing_account_of_the_gateway(api: Api, query: str) -> None:
    response = await api.client(token(scope="keys:manage")).get(f"/v1/keys{query}")
    assert status_and_code(response) == (403, "not_permitted")


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
async def test_a_token_of_another_issuer_reaches_nothing_that_belongs_to_an_account(
    api: Api, operation: Operation
) -> None:
    key_id, _ = await api.guarded.key()
    before = await api.head()
    body = BODIES[operation.name] if operation.name in {"createKey", "createClient"} else {}
    for headers in ({}, {"Idempotency-Key": "a"}):
        client = api.client(token(scope="keys:manage skills:list"))
        sent = body if operation.body else None
        response = await client.request(operation.method, operation.path.format(id=key_id), json=sent, headers=headers)
        if operation.name == "whoami":
            assert response.status_code == 200
        else:
            assert status_and_code(response) == (403, "not_permitted")
    assert await api.head() == before


async def test_whoami_describes_a_token(api: Api) -> None:
    response = (await api.client(token(scope="skills:list x:y")).get("/v1/whoami")).json()
    expected = {
        "kind": "jwt",
        "id": "user-1",
        "account_id": "acme",
        "tier": "enterprise",
        "scopes": ["skills:list", "x:y"],
    }
    assert response | expected == response
    assert response["limits"] == {"rate": "10000/minute", "requests": 10000, "window_seconds": 60, "concurrency": 500}


async def test_a_token_without_the_scope_gets_insufficient_scope(api: Api) -> None:
    assert status_and_code(await api.client(token()).get("/v1/keys")) == (403, "insufficient_scope")
