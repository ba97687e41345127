"""Where users are sent, and where they never are (RFC 9700 §2.1 and §4.11, RFC 8252 §7.3)."""

import pytest

from machpay_gateway.core.errors import InputError
from machpay_gateway.core.oauth.redirect_uri import is_registered
from tests.oauth.harness import REDIRECT, Rig, answer_in, request_of

HOST = "https://app.example.org"
NEAR_MISSES = [
    f"{REDIRECT}/more",
    f"{REDIRECT}/..",
    f"{REDIRECT}/../callback",
    f"{REDIRECT}%2e",
    f"{HOST}/%63allback",
    f"{HOST}/Callback",
    f"{HOST.upper()}/callback",
    "https://APP.example.org/callback",
    f"{REDIRECT}/",
    f"{REDIRECT}?",
    f"{REDIRECT}?a=b",
    f"{REDIRECT}#fragment",
    f"{REDIRECT}#",
    "https://a@app.example.org/callback",
    "https://app.example.org@evil.example/callback",
    "https://app.example.org.evil.example/callback",
    "https://evil.example/https://app.example.org/callback",
    "https://app.example.org:444/callback",
    "https://app.example.org:443/callback",
    "http://app.example.org/callback",
    "//app.example.org/callback",
    "/callback",
    "https://app.example.org\\callback",
    "https://app.example.org/\\callback",
    f"{REDIRECT}\t",
    f"{REDIRECT}\n",
    f" {REDIRECT}",
    f"{REDIRECT} ",
    f"{REDIRECT}\0",
    "https://äpp.example.org/callback",
    "https://xn--pp-uia.example.org/callback",
    "https://app。example.org/callback",
    "javascript:alert(1)",
    "data:text/html,x",
]


@pytest.mark.parametrize("uri", NEAR_MISSES, ids=repr)
async def test_what_is_almost_the_registered_uri_is_an_error_page_and_no_redirect(rig: Rig, uri: str) -> None:
    answer = await rig.authorize(request_of(rig.client) | {"redirect_uri": uri})
    assert answer.status_code == 400
    assert "location" not in answer.headers
    assert "not redirected" in answer.text
    assert answer.headers["content-type"].startswith("text/html")


@pytest.mark.parametrize("second", [REDIRECT, "https://evil.example/"])
async def test_two_redirect_uris_are_no_reading_of_either(rig: Rig, second: str) -> None:
    answer = await rig.authorize([*request_of(rig.client).items(), ("redirect_uri", second)])
    assert (answer.status_code, "location" in answer.headers) == (400, False)


@pytest.mark.parametrize("client_id", ["", "app_unknown", "app_\0", "'; DROP TABLE users; --", "\udcff"], ids=ascii)
async def test_an_unknown_client_is_an_error_page_and_no_redirect(rig: Rig, client_id: str) -> None:
    parameters = request_of(rig.client) | {"client_id": client_id.encode(errors="surrogateescape")}
    answer = await rig.authorize(list(parameters.items()))  # type: ignore[arg-type]  # bytes, as urlencode takes them
    assert (answer.status_code, "location" in answer.headers) == (400, False)


async def test_two_client_ids_are_an_error_page(rig: Rig) -> None:
    answer = await rig.authorize([*request_of(rig.client).items(), ("client_id", rig.client.id)])
    assert (answer.status_code, "location" in answer.headers) == (400, False)


async def test_a_deleted_client_is_an_unknown_one(rig: Rig) -> None:
    await rig.gateway.oauth_clients.delete(None, rig.client.id)
    answer = await rig.authorize(request_of(rig.client))
    assert (answer.status_code, "location" in answer.headers) == (400, False)


async def test_a_client_that_may_not_ask_users_gets_an_error_page(rig: Rig) -> None:
    robot, _ = await rig.new_client(grant_types=["client_credentials"], redirect_uris=[])
    parameters = request_of(rig.client) | {"client_id": robot.id}
    assert (await rig.authorize(parameters)).status_code == 400


async def test_without_a_redirect_uri_the_only_one_is_meant(rig: Rig) -> None:
    parameters = request_of(rig.client)
    del parameters["redirect_uri"]
    assert (await rig.authorize(parameters)).status_code == 200
    two, _ = await rig.new_client(redirect_uris=[REDIRECT, f"{HOST}/other"])
    assert (await rig.authorize(parameters | {"client_id": two.id})).status_code == 400


async def test_an_error_is_told_to_the_app_once_its_uri_is_known_to_be_its_own(rig: Rig) -> None:
    answer = await rig.authorize(request_of(rig.client) | {"response_type": "token"})
    assert answer.status_code == 303
    assert answer.headers["location"].startswith(f"{REDIRECT}?error=unsupported_response_type")


async def test_a_uri_with_a_query_keeps_it(rig: Rig) -> None:
    client, _ = await rig.new_client(redirect_uris=[f"{REDIRECT}?tenant=a&x=%20"])
    location = await rig.allowed(rig.http(), client)
    assert location.startswith(f"{REDIRECT}?tenant=a&x=%20&code=")
    assert answer_in(location)["tenant"] == "a"


@pytest.mark.parametrize(
    "registered, uri, is_it",
    [
        ("http://127.0.0.1/cb", "http://127.0.0.1:51004/cb", True),
        ("http://127.0.0.1:8000/cb", "http://127.0.0.1:9/cb", True),
        ("http://[::1]/cb", "http://[::1]:51004/cb", True),
        ("http://127.0.0.1/cb", "http://127.0.0.1:51004/other", False),
        ("http://127.0.0.1/cb", "http://127.0.0.1:51004/cb?x=1", False),
        ("http://127.0.0.1/cb", "http://127.0.0.1:99999/cb", False),
        ("http://127.0.0.1/cb", "http://127.0.0.2:51004/cb", False),
        ("http://127.0.0.1/cb", "http://127.0.0.1.evil.example:51004/cb", False),
        ("http://127.0.0.1/cb", "http://127.0.0.1:51004@evil.example/cb", False),
        ("http://127.0.0.1/cb", "http://[::1]:51004/cb", False),
        ("http://127.0.0.1/cb", "https://127.0.0.1:51004/cb", False),
        ("http://127.0.0.1/cb", "http://localhost:51004/cb", False),
        ("http://localhost:3000/cb", "http://localhost:3001/cb", False),  # a name, whose port is not free
        ("http://localhost:3000/cb", "http://localhost:3000/cb", True),
        ("com.example.app:/cb", "com.example.app:/cb", True),
        ("com.example.app:/cb", "com.example.app:/cb/", False),
    ],
)
def test_an_app_on_the_users_machine_gets_whatever_port_is_free(registered: str, uri: str, *, is_it: bool) -> None:
    assert is_registered(uri, [registered]) is is_it


@pytest.mark.parametrize(
    "uri",
    [
        "", "callback", "//app.example.org/cb", "http://app.example.org/cb", "https:///cb", "https://*.example.org/cb",
        "https://app.example.org/cb#x", "https://a:b@app.example.org/cb", "https://app.example.org/a/../cb",
        "https://app.example.org/%2e%2e/cb", "https://äpp.example.org/cb", "https://app.example.org/\\cb",
        "https://app.example.org/c b", "HTTPS://app.example.org/cb", "https://app.example.org:99999/cb",
        "https://[::1/cb", "javascript:alert(1)", "data:text/html,x", "vbscript:x", "file:///etc/passwd", "app:/cb",
        "blob:https://app.example.org/1", "https://app.example.org/'onload='", "https://app.example.org/" + "a" * 2000,
        "https://app.example.org;sandbox/cb", "https://app.example.org,x/cb", "https://app%2eexample.org/cb",
        "https://app.example.org:/cb", "com.example.app://a;b/cb",
    ],
    ids=repr,
)  # fmt: skip
async def test_what_could_be_read_in_two_ways_cannot_be_registered(rig: Rig, uri: str) -> None:
    with pytest.raises(InputError, match="edirect"):
        await rig.new_client(redirect_uris=[uri])
