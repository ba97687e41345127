"""What is read from a proxy's question, and what is none."""

from collections.abc import AsyncIterator

import httpx2
import pytest
from starlette.types import Receive, Scope, Send

from machpay_gateway import Route
from tests.forward_auth.check_client import CALLER, PROXY, Asked, answer_to, every_peer, forward_auth_gateway, put

FORGED = [
    ("X-MachPay-Key-Id", "key_forged"),
    ("x_machpay_key_id", "key_forged"),
    ("X-MachPay_Account", "acct_forged"),
    ("X-MachPay-Anything", "1"),
]


@pytest.fixture(scope="module")
async def gateway() -> AsyncIterator[Asked]:
    async with forward_auth_gateway() as it:
        yield it


@pytest.fixture(scope="module")
async def unlisted() -> AsyncIterator[Asked]:
    """A gateway that serves routes that are not listed to whoever has a key."""
    async with forward_auth_gateway(unlisted_routes="authenticated") as it:
        yield it


@pytest.mark.parametrize("client", [None, ("", 0), ("not an address", 1)])
async def test_a_peer_without_an_address_is_not_trusted(gateway: Asked, client: tuple[str, int] | None) -> None:
    async def from_there(scope: Scope, receive: Receive, send: Send) -> None:
        await gateway.app(dict(scope, client=client), receive, send)

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
async def test_an_ambiguous_path_is_refused(unlisted: Asked, peer: str, uri: str) -> None:
    _, secret = await unlisted.key()
    answer = await unlisted.ask(peer, f"GET {uri}", secret)
    assert answer.json()["code"] == "malformed_request"
    assert answer.json()["status"] == 400


@every_peer
async def test_a_route_may_allow_encoded_slashes(peer: str) -> None:
    routes = [
        Route("GET /projects/{id}", public=True, encoded_slash="allow"),
        Route("GET /projects/{id}/secrets", scopes="account:read"),
        Route("GET /packages/{name}", public=True),
    ]
    async with forward_auth_gateway(routes=routes) as gateway:
        for path, status, code in (
            ("/projects/group%2Fproject", 200, None),
            ("/projects/x%2Fsecrets", 401, "missing_credentials"),
            ("/projects/..%2Fpackages", 400, "malformed_request"),
            ("/packages/%40scope%2Fname", 400, "malformed_request"),
        ):
            answer = await gateway.ask(peer, f"GET {path}")
            if code is None:
                assert answer.status_code == status
            else:
                assert (answer.json()["status"], answer.json()["code"]) == (status, code)


@every_peer
async def test_escapes_are_decoded(gateway: Asked, peer: str) -> None:
    _, secret = await gateway.key(scopes=["account:read"])
    answer = await gateway.ask(peer, "GET /v1/%61ccount", secret)
    long = await gateway.ask(peer, f"GET /v1/skills/{'%61' * 300}", secret)
    assert answer.status_code == 200
    assert long.json()["code"] == "insufficient_scope"


@every_peer
@pytest.mark.parametrize("name, value", FORGED)
async def test_a_request_with_identity_headers_is_refused(gateway: Asked, peer: str, name: str, value: str) -> None:
    answer = await gateway.ask(peer, "GET /healthz", headers={name: value})
    assert (answer.json()["status"], answer.json()["code"]) == (400, "malformed_request")


@every_peer
@pytest.mark.parametrize(
    "name, named",
    [
        ("X-MachPay-Tier", "X-MachPay-Tier"),
        ("x-machpay-key-id", "X-MachPay-Key-Id"),
        ("X_MachPay_Tier", "x_machpay_tier"),
        ("X-MachPay-" + "a" * 200, "X-MachPay-A"),
    ],
)
async def test_the_refusal_names_the_identity_header(gateway: Asked, peer: str, name: str, named: str) -> None:
    answer = await gateway.ask(peer, "GET /healthz", headers={name: "forged"})
    assert named in answer.json()["detail"]
    assert len(answer.json()["detail"]) < 200


@pytest.mark.parametrize(
    "urls, uris, status, code",
    [
        (["https://shop.test/v1/skills"], [], 200, None),
        (["http://shop.test:8080/v1/skills?a=/../b"], [], 200, None),
        (["http://[2001:db8::1]:8080/v1/skills"], [], 200, None),
        (["http:///v1/skills"], [], 200, None),  # a client of HTTP/1.0 without Host
        (["https://shop.test/v1/skills"], ["/v1/skills"], 200, None),
        (["https://shop.test/nowhere"], [], 404, "route_not_found"),
        (["https://shop.test/v1//skills"], [], 400, "malformed_request"),
        (["https://shop.test/v1/skills#x"], [], 400, "malformed_request"),
        # The client has sent one of the two, and chosen it.
        (["https://shop.test/v1/skills"], ["/healthz"], 400, "malformed_request"),
        (["https://shop.test/healthz"], ["/v1/skills"], 400, "malformed_request"),
        (["https://shop.test/healthz"], ["/healthz", "/v1/skills"], 400, "malformed_request"),
        (["https://shop.test/healthz", "https://shop.test/v1/skills"], [], 400, "malformed_request"),
        # Where the path begins must not be the client's choice: `$http_host` is its Host.
        (["http://x?/v1/skills"], [], 400, "malformed_request"),
        (["http://x?/healthz?/v1/skills"], [], 400, "malformed_request"),
        (["http://x#/healthz"], [], 400, "malformed_request"),
        (["http://a@b/healthz"], [], 400, "malformed_request"),
        (["http://x\\/healthz"], [], 400, "malformed_request"),
        (["https://shop.test"], [], 400, "malformed_request"),
        (["ftp://shop.test/healthz"], [], 400, "malformed_request"),
        ([""], [], 400, "malformed_request"),
    ],
)
async def test_nginx_may_send_the_whole_url(
    gateway: Asked, urls: list[str], uris: list[str], status: int, code: str | None
) -> None:
    _, secret = await gateway.key()
    headers = [("X-Original-Method", "GET"), ("X-Forwarded-For", CALLER), ("Authorization", f"Bearer {secret}")]
    headers += [("X-Original-URL", url) for url in urls] + [("X-Original-URI", uri) for uri in uris]
    answer = await answer_to(gateway.app, "GET", b"/authorize/nginx", headers, PROXY)
    body = answer.json() if answer.content else {}
    assert (body.get("status", 200), body.get("code")) == (status, code)


@pytest.mark.parametrize("peer", ["nginx", "traefik", "caddy"])
@pytest.mark.parametrize("index", [0, 1])
async def test_method_and_uri_headers_occur_exactly_once(gateway: Asked, peer: str, index: int) -> None:
    _, path, wire_headers = put(peer, "GET", "/healthz")
    async with gateway.client(address=PROXY) as client:
        once = await client.get(path, headers=wire_headers)
        twice = await client.get(path, headers=[*wire_headers, wire_headers[index]])
        never = await client.get(path, headers=[wire_headers[1 - index]])
        longer = await client.get(f"{path}/healthz", headers=wire_headers)
    assert once.status_code == 200
    assert [answer.json()["code"] for answer in (twice, never, longer)] == ["malformed_request"] * 3


@pytest.mark.parametrize("peer", ["nginx", "traefik", "caddy"])
@pytest.mark.parametrize("method", ["", "G T", "GET,POST", "\xfc", "x" * 33])
async def test_an_invalid_method_is_refused(gateway: Asked, peer: str, method: str) -> None:
    _, path, wire_headers = put(peer, method, "/healthz")
    answer = await answer_to(gateway.app, "GET", path.encode(), wire_headers, PROXY)
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
async def test_an_allowlist_applies_to_the_clients_address(
    gateway: Asked, peer: str, headers: list[tuple[str, str]], status: int
) -> None:
    _, secret = await gateway.key(allowed_ips=[CALLER])
    answer = await gateway.ask(peer, "GET /v1/skills", secret, headers)
    assert answer.status_code == status


@every_peer
async def test_without_a_forwarded_address_the_client_is_unknown(gateway: Asked, peer: str) -> None:
    _, secret = await gateway.key(allowed_ips=[PROXY])
    method, path, wire_headers = put(peer, "GET", "/v1/skills")
    async with gateway.client(secret, address=PROXY) as client:
        answer = await client.request(method, path, headers=wire_headers)
    assert answer.json()["code"] == "address_not_allowed"


@every_peer
async def test_the_request_id_is_the_proxys_or_generated(gateway: Asked, peer: str) -> None:
    given = await gateway.ask(peer, "GET /healthz", headers={"X-Request-Id": "abc-1"})
    odd = await gateway.ask(peer, "GET /healthz", headers={"X-Request-Id": "a b"})
    assert given.headers["x-request-id"] == "abc-1"
    assert odd.headers["x-request-id"] != "a b"


@every_peer
async def test_two_credentials_are_refused(gateway: Asked, peer: str) -> None:
    _, secret = await gateway.key()
    answer = await gateway.ask(peer, "GET /v1/skills", headers=[("Authorization", f"Bearer {secret}")] * 2)
    assert answer.json()["code"] == "malformed_request"


@every_peer
async def test_a_preflight_for_a_listed_route_passes(gateway: Asked, peer: str) -> None:
    preflight = {"Origin": "https://app.test", "Access-Control-Request-Method": "POST"}
    listed = await gateway.ask(peer, "OPTIONS /v1/skills/execute", headers=preflight)
    unknown = await gateway.ask(peer, "OPTIONS /nowhere", headers=preflight)
    no_preflight = await gateway.ask(peer, "OPTIONS /v1/skills/execute", headers={"Origin": "https://app.test"})
    assert [answer.json()["status"] if answer.content else 200 for answer in (listed, unknown, no_preflight)] == [
        200,
        404,
        404,
    ]


async def test_a_mount_point_is_removed_from_the_path(gateway: Asked) -> None:
    _, secret = await gateway.key()
    transport = httpx2.ASGITransport(app=gateway.app, client=(PROXY, 1), root_path="/gate")
    async with httpx2.AsyncClient(transport=transport, base_url="http://gateway.test") as client:
        headers = {"Authorization": f"Bearer {secret}", "X-Forwarded-For": CALLER}
        assert (await client.get("/gate/authorize/envoy/v1/skills", headers=headers)).status_code == 200
        assert (await client.get("/gate/authorize/envoy//v1/skills", headers=headers)).status_code == 400


async def test_without_a_raw_path_the_target_is_unknown(gateway: Asked) -> None:
    async def without_raw(scope: Scope, receive: Receive, send: Send) -> None:
        await gateway.app({key: value for key, value in scope.items() if key != "raw_path"}, receive, send)

    transport = httpx2.ASGITransport(app=without_raw, client=(PROXY, 1))
    async with httpx2.AsyncClient(transport=transport, base_url="http://gateway.test") as client:
        assert (await client.get("/authorize/envoy/healthz")).status_code == 400
