"""What is read from a proxy's question, and what is none."""

import httpx2
import pytest
from starlette.types import Receive, Scope, Send

from tests.forward_auth.asking import CALLER, PROXY, answer_to, asked, every_peer, put

FORGED = [
    ("X-MachPay-Key-Id", "key_forged"),
    ("x_machpay_key_id", "key_forged"),
    ("X-MachPay_Account", "acct_forged"),
    ("X-MachPay-Anything", "1"),
]


@pytest.mark.parametrize("client", [None, ("", 0), ("not an address", 1)])
async def test_a_peer_without_an_address_is_a_stranger(client: tuple[str, int] | None) -> None:
    async def from_there(scope: Scope, receive: Receive, send: Send) -> None:
        await gateway.app(dict(scope, client=client), receive, send)

    async with asked() as gateway:
        answer = await answer_to(from_there, "GET", b"/authorize/envoy/healthz", [], PROXY)
    assert answer.status_code == 404


@every_peer
@pytest.mark.parametrize(
    "uri",
    [
        "//v1/skills",
        "/v1//skills",
        "/v1/%2fskills",
        "/v1/%5Cskills",
        "/v1/./skills",
        "/v1/x/../skills",
        "/v1/%2e%2e/skills",
        "/v1/..;/skills",
        "/v1/skills%00",
        "/v1/skills%",
        "/v1/%ff",
        "/v1/skills#x",
        "http://api.test/v1/skills",
        "v1/skills",
        "*",
        "",
        "?x",
        "\\v1\\skills",
    ],
)
async def test_a_path_that_can_be_read_in_two_ways_is_refused(peer: str, uri: str) -> None:
    async with asked(unlisted_routes="authenticated") as gateway:
        _, secret = await gateway.key()
        answer = await gateway.ask(peer, f"GET {uri}", secret)
    assert answer.json()["code"] == "malformed_request"
    assert answer.json()["status"] == 400


@every_peer
async def test_an_escape_is_read_as_what_it_stands_for(peer: str) -> None:
    async with asked() as gateway:
        _, secret = await gateway.key(scopes=["account:read"])
        answer = await gateway.ask(peer, "GET /v1/%61ccount", secret)
        long = await gateway.ask(peer, f"GET /v1/skills/{'%61' * 300}", secret)
    assert answer.status_code == 200
    assert long.json()["code"] == "insufficient_scope"


@every_peer
@pytest.mark.parametrize("name, value", FORGED)
async def test_a_request_with_an_identity_of_its_own_is_refused(peer: str, name: str, value: str) -> None:
    async with asked() as gateway:
        answer = await gateway.ask(peer, "GET /healthz", headers={name: value})
    assert (answer.json()["status"], answer.json()["code"]) == (400, "malformed_request")


@pytest.mark.parametrize("peer", ["nginx", "traefik", "caddy"])
@pytest.mark.parametrize("index", [0, 1])
async def test_what_carries_the_request_comes_exactly_once(peer: str, index: int) -> None:
    _, path, told = put(peer, "GET", "/healthz")
    async with asked() as gateway, gateway.client(address=PROXY) as client:
        once = await client.get(path, headers=told)
        twice = await client.get(path, headers=[*told, told[index]])
        never = await client.get(path, headers=[told[1 - index]])
        longer = await client.get(f"{path}/healthz", headers=told)
    assert once.status_code == 200
    assert [answer.json()["code"] for answer in (twice, never, longer)] == ["malformed_request"] * 3


@pytest.mark.parametrize("peer", ["nginx", "traefik", "caddy"])
@pytest.mark.parametrize("method", ["", "G T", "GET,POST", "\xfc", "x" * 33])
async def test_a_method_that_is_none_is_refused(peer: str, method: str) -> None:
    _, path, told = put(peer, method, "/healthz")
    async with asked() as gateway:
        answer = await answer_to(gateway.app, "GET", path.encode(), told, PROXY)
    assert answer.json()["code"] == "malformed_request"


@every_peer
@pytest.mark.parametrize(
    "headers, status",
    [
        ([("X-Forwarded-For", CALLER)], 200),
        ([("X-Forwarded-For", f"{CALLER}, 198.51.100.1")], 403),  # what the client wrote, and who it was
        ([("X-Forwarded-For", f"198.51.100.1, {CALLER}")], 200),
        ([("X-Forwarded-For", CALLER), ("X-Forwarded-For", "198.51.100.1")], 403),
        ([("X-Forwarded-For", "")], 403),
        ([("X-Forwarded-For", "unknown")], 403),
        ([("X-Real-IP", CALLER), ("X-Forwarded-For", "198.51.100.1")], 403),  # one header is believed
    ],
)
async def test_an_allowlist_is_asked_for_the_clients_address(
    peer: str, headers: list[tuple[str, str]], status: int
) -> None:
    async with asked() as gateway:
        _, secret = await gateway.key(allowed_ips=[CALLER])
        answer = await gateway.ask(peer, "GET /v1/skills", secret, headers)
    assert answer.status_code == status


@every_peer
async def test_a_proxy_that_does_not_say_who_is_calling_does_not_call_itself(peer: str) -> None:
    async with asked() as gateway:
        _, secret = await gateway.key(allowed_ips=[PROXY])
        method, path, told = put(peer, "GET", "/v1/skills")
        async with gateway.client(secret, address=PROXY) as client:
            answer = await client.request(method, path, headers=told)
    assert answer.json()["code"] == "address_not_allowed"


@every_peer
async def test_the_id_of_a_request_is_the_proxys_or_ours(peer: str) -> None:
    async with asked() as gateway:
        given = await gateway.ask(peer, "GET /healthz", headers={"X-Request-Id": "abc-1"})
        odd = await gateway.ask(peer, "GET /healthz", headers={"X-Request-Id": "a b"})
    assert given.headers["x-request-id"] == "abc-1"
    assert odd.headers["x-request-id"] != "a b"


@every_peer
async def test_two_credentials_are_refused(peer: str) -> None:
    async with asked() as gateway:
        _, secret = await gateway.key()
        answer = await gateway.ask(peer, "GET /v1/skills", headers=[("Authorization", f"Bearer {secret}")] * 2)
    assert answer.json()["code"] == "malformed_request"


@every_peer
async def test_a_preflight_passes_where_the_request_it_asks_about_may_come(peer: str) -> None:
    preflight = {"Origin": "https://app.test", "Access-Control-Request-Method": "POST"}
    async with asked() as gateway:
        known = await gateway.ask(peer, "OPTIONS /v1/skills/execute", headers=preflight)
        unknown = await gateway.ask(peer, "OPTIONS /nowhere", headers=preflight)
        no_preflight = await gateway.ask(peer, "OPTIONS /v1/skills/execute", headers={"Origin": "https://app.test"})
    assert [answer.json()["status"] if answer.content else 200 for answer in (known, unknown, no_preflight)] == [
        200,
        404,
        404,
    ]


async def test_under_a_mount_the_path_is_read_without_it() -> None:
    async with asked() as gateway:
        _, secret = await gateway.key()
        transport = httpx2.ASGITransport(app=gateway.app, client=(PROXY, 1), root_path="/gate")
        async with httpx2.AsyncClient(transport=transport, base_url="http://gateway.test") as client:
            headers = {"Authorization": f"Bearer {secret}", "X-Forwarded-For": CALLER}
            assert (await client.get("/gate/authorize/envoy/v1/skills", headers=headers)).status_code == 200
            assert (await client.get("/gate/authorize/envoy//v1/skills", headers=headers)).status_code == 400


async def test_a_server_that_does_not_say_what_was_sent_is_not_guessed_for() -> None:
    async def without_raw(scope: Scope, receive: Receive, send: Send) -> None:
        await gateway.app({key: value for key, value in scope.items() if key != "raw_path"}, receive, send)

    async with asked() as gateway:
        transport = httpx2.ASGITransport(app=without_raw, client=(PROXY, 1))
        async with httpx2.AsyncClient(transport=transport, base_url="http://gateway.test") as client:
            assert (await client.get("/authorize/envoy/healthz")).status_code == 400
