"""The whole way: from an app's request to a call of the API."""

from tests.oauth.rigs import Rig


async def test_a_user_lets_an_app_in_and_it_calls_the_api(rig: Rig) -> None:
    tokens = await rig.tokens()
    assert tokens["token_type"] == "Bearer"
    assert tokens["expires_in"] == 3600
    assert tokens["scope"] == "account:read skills:execute"
    answer = await rig.who(tokens["access_token"])
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert (told["kind"], told["id"], told["client_id"]) == ("oauth", rig.user.id, rig.client.id)
    assert (told["account_id"], told["tier"], told["environment"]) == (rig.user.account_id, "standard", "live")
    assert told["scopes"] == ["account:read", "skills:execute"]
    again = (await rig.refreshed(tokens["refresh_token"])).json()
    assert again["refresh_token"] != tokens["refresh_token"]
    assert (await rig.who(again["access_token"])).status_code == 200
    own = (await rig.token(grant_type="client_credentials", scope="account:read")).json()
    assert "refresh_token" not in own
    assert (await rig.who(own["access_token"])).json()["id"] == rig.client.id
