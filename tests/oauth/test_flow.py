"""The whole way: from an app's request to a call of the API."""

from pathlib import Path

import pytest

from tests.oauth.harness import Rig, serving_oauth
from tests.postgres.fixtures import empty_postgres_url, postgres_server, postgres_url

__all__ = ["empty_postgres_url", "postgres_server", "postgres_url"]


@pytest.fixture
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgresql":
        return str(request.getfixturevalue("empty_postgres_url"))
    return "sqlite://" if request.param == "sqlite-in-memory" else f"sqlite:///{tmp_path}/oauth.db"


@pytest.mark.parametrize("database", ["sqlite", "sqlite-in-memory", "postgresql"], indirect=True)
async def test_everything_is_kept_alike_in_every_database(database: str) -> None:
    async with serving_oauth(database=database, secret_key="s" * 32) as rig:
        tokens = await rig.tokens()
        again = (await rig.refreshed(tokens["refresh_token"])).json()
        assert (await rig.who(again["access_token"])).status_code == 200
        assert (await rig.introspected(again["access_token"])).json()["active"] is True
        (grant,) = await rig.gateway.revocation.list(rig.user.account_id)
        assert (grant.client_id, grant.user_id, grant.tier) == (rig.client.id, rig.user.id, "standard")
        assert await rig.gateway.users.list(rig.user.account_id) == [rig.user]
        clients = [(await rig.new_client(name=f"app {number}"))[0] for number in range(3)]
        listed = await rig.gateway.oauth_clients.list(None, limit=2)
        more = await rig.gateway.oauth_clients.list(None, after=listed[-1].id)
        assert {*listed, *more} == {*clients, rig.client}
        await rig.gateway.accounts.set_tier("acme", "enterprise")
        assert (await rig.who(again["access_token"])).json()["tier"] == "enterprise"
        changed = await rig.gateway.oauth_clients.update(rig.user.account_id, rig.client.id, name="Another name")
        assert changed is not None
        assert changed == await rig.gateway.oauth_clients.get(None, rig.client.id)
        assert await rig.gateway.oauth_clients.get("acct_another", rig.client.id) is None
        await rig.revoked(again["refresh_token"])
        assert (await rig.who(again["access_token"])).status_code == 401
        assert await rig.gateway.revocation.revoke_grant(None, grant)
        (ended,) = await rig.gateway.revocation.list(None, client_id=rig.client.id)
        assert not ended.is_alive


async def test_a_user_lets_an_app_in_and_it_calls_the_api(rig: Rig) -> None:
    tokens = await rig.tokens()
    assert tokens["token_type"] == "Bearer"
    assert tokens["expires_in"] == 3600
    assert tokens["scope"] == "account:read skills:execute"
    answer = await rig.who(tokens["access_token"])
    assert answer.status_code == 200, answer.text
    principal = answer.json()
    assert (principal["kind"], principal["id"], principal["client_id"]) == ("oauth", rig.user.id, rig.client.id)
    assert (principal["account_id"], principal["tier"], principal["environment"]) == (
        rig.user.account_id,
        "standard",
        "live",
    )
    assert principal["scopes"] == ["account:read", "skills:execute"]
    again = (await rig.refreshed(tokens["refresh_token"])).json()
    assert again["refresh_token"] != tokens["refresh_token"]
    assert (await rig.who(again["access_token"])).status_code == 200
    own = (await rig.token(grant_type="client_credentials", scope="account:read")).json()
    assert "refresh_token" not in own
    assert (await rig.who(own["access_token"])).json()["id"] == rig.client.id
