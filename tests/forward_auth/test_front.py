"""What each proxy may ask and is answered, without the proxies: test_proxies has the real ones."""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Unpack
from urllib.parse import unquote_to_bytes

import httpx2
import orjson
import pytest
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from machpay_gateway import Tier
from machpay_gateway.core.admission import Answer, Coming, Demand, Granted
from machpay_gateway.core.errors import StoreUnavailable
from machpay_gateway.forward_auth.leases import HeldLeases
from machpay_gateway.server import create_app
from machpay_gateway.settings import Options
from tests.applications import ok
from tests.gateways import ROUTES, Guarded

PROXY, STRANGER, CALLER = "10.0.0.1", "192.0.2.9", "203.0.113.10"
FORGED = [
    ("X-MachPay-Key-Id", "key_forged"),
    ("x_machpay_key_id", "key_forged"),
    ("X-MachPay_Account", "acct_forged"),
    ("X-MachPay-Anything", "1"),
]


def put(peer: str, method: str, uri: str) -> tuple[str, str, list[tuple[str, str]]]:
    """Return how *peer* asks about a request: method, path and headers."""
    if peer == "envoy":
        return method, f"/authorize/envoy{uri}", []
    words = "Original-Method", "Original-URI"
    if peer != "nginx":
        words = "Forwarded-Method", "Forwarded-Uri"
    return "GET", f"/authorize/{peer}", [(f"X-{words[0]}", method), (f"X-{words[1]}", uri)]


class Asked(Guarded):
    """A gateway that is asked."""

    async def ask(
        self,
        peer: str,
        request: str,
        secret: str | None = None,
        headers: Any = (),  # noqa: ANN401 - pairs or a mapping, as in httpx2
        *,
        address: str = PROXY,
    ) -> httpx2.Response:
        """Ask as *peer* from *address* about a *request*, written as in `GET /a`."""
        method, path, told = put(peer, *request.split(" ", 1))
        given = [*told, *(headers.items() if isinstance(headers, Mapping) else headers)]
        if secret is not None:
            given.append(("Authorization", f"Bearer {secret}"))
        if not any(name.lower() == "x-forwarded-for" for name, _ in given):
            given.append(("X-Forwarded-For", CALLER))
        return await answer_to(self.app, method, path.encode(), given, address)


async def answer_to(
    app: ASGIApp, method: str, target: bytes, headers: list[tuple[str, str]], address: str
) -> httpx2.Response:
    """Return what *app* answers to a request whose *target* stands as it is: a client would tidy it up."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "http.request", "body": b""}

    raw, _, query = target.partition(b"?")
    scope: Scope = {
        "type": "http",
        "method": method,
        "path": unquote_to_bytes(raw).decode("utf-8", "replace"),
        "raw_path": raw,
        "query_string": query,
        "headers": [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers],
        "client": (address, 50_000),
    }
    await app(scope, receive, send)
    start, body = sent
    return httpx2.Response(start["status"], headers=start["headers"], content=body["body"])


@asynccontextmanager
async def asked(**options: Unpack[Options]) -> AsyncIterator[Asked]:
    defaults: Options = {
        "database": "memory://",
        "routes": ROUTES,
        "unlisted_routes": "deny",
        "trusted_proxies": [PROXY],
    }
    app = create_app(ok, **(defaults | options))
    async with app.gateway as gateway:
        yield Asked(app, gateway)


every_peer = pytest.mark.parametrize("peer", ["nginx", "traefik", "caddy", "envoy"])


@every_peer
async def test_who_may_is_told_to_the_proxy_for_its_upstream(peer: str) -> None:
    async with asked() as gateway:
        key_id, secret = await gateway.key()
        answer = await gateway.ask(peer, "POST /v1/skills/execute?x=%2F..//", secret)
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["x-machpay-key-id"] == key_id
    assert answer.headers["x-machpay-scopes"] == "account:read skills:execute skills:list"
    assert answer.headers["x-machpay-tier"] == "standard"
    assert answer.headers["ratelimit"].startswith('"minute";r=999;')
    assert answer.headers["ratelimit-policy"].startswith('"minute";q=1000')
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-request-id"]


@every_peer
async def test_a_public_route_says_nothing_of_anybody(peer: str) -> None:
    async with asked() as gateway:
        answer = await gateway.ask(peer, "GET /healthz")
    assert answer.status_code == 200
    assert not [name for name in answer.headers if name.startswith(("x-machpay", "ratelimit"))]


@every_peer
@pytest.mark.parametrize(
    "request_, scopes, status, code",
    [
        ("GET /v1/skills", None, 401, "missing_credentials"),
        ("GET /v1/skills", ["account:read"], 403, "insufficient_scope"),
        ("GET /nowhere", ["account:read"], 404, "route_not_found"),
        ("GET /v1/keys", ["account:read"], 403, "insufficient_scope"),  # the key API is guarded here, too
    ],
)
async def test_a_refusal_is_told_as_the_proxy_can_pass_it_on(
    peer: str, request_: str, scopes: list[str] | None, status: int, code: str
) -> None:
    async with asked() as gateway:
        secret = None if scopes is None else (await gateway.key(scopes=scopes))[1]
        answer = await gateway.ask(peer, request_, secret)
    assert (answer.json()["status"], answer.json()["code"]) == (status, code)
    assert answer.headers["content-type"] == "application/problem+json"
    assert ("www-authenticate" in answer.headers) is (code != "route_not_found")
    if peer == "nginx":
        assert answer.status_code == (status if status in {401, 403} else 403)
        assert answer.headers["x-machpay-status"] == str(status)
        assert orjson.loads(answer.headers["x-machpay-problem"]) == answer.json()
    else:
        assert answer.status_code == status


@every_peer
async def test_a_limit_is_told_with_its_wait(peer: str) -> None:
    async with asked(tiers={"tiny": Tier("1/minute", 5)}) as gateway:
        _, secret = await gateway.key(tier="tiny")
        assert (await gateway.ask(peer, "GET /v1/skills", secret)).status_code == 200
        answer = await gateway.ask(peer, "GET /v1/skills", secret)
    assert answer.json()["status"] == 429
    assert answer.status_code == (403 if peer == "nginx" else 429)
    assert 1 <= int(answer.headers["retry-after"]) <= 61
    assert answer.headers["ratelimit"].startswith('"minute";r=0;')


@every_peer
async def test_a_decision_that_cannot_be_made_is_a_refusal(peer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(_digest: bytes) -> None:
        raise StoreUnavailable("key lookup")

    async with asked() as gateway:
        _, secret = await gateway.key()
        monkeypatch.setattr(gateway.gateway.store, "find_by_digest", away)
        answer = await gateway.ask(peer, "GET /v1/skills", secret)
    assert (answer.status_code, answer.json()["status"]) == (403 if peer == "nginx" else 503, 503)
    assert answer.headers["retry-after"] == "1"


@every_peer
@pytest.mark.parametrize("trusted", [[PROXY], []])
async def test_a_stranger_is_told_that_there_is_nothing(peer: str, trusted: list[str]) -> None:
    async with asked(trusted_proxies=trusted) as gateway:
        _, secret = await gateway.key()
        answers = [
            await gateway.ask(peer, request, credential, address=STRANGER)
            for request in ("GET /healthz", "GET /v1/skills", "GET /nowhere", "GET //")
            for credential in (secret, None)
        ]
    assert {(answer.status_code, answer.json()["code"]) for answer in answers} == {(404, "route_not_found")}
    assert not [name for answer in answers for name in answer.headers if name.startswith(("x-machpay", "ratelimit"))]


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


async def test_other_paths_are_the_applications_and_guarded() -> None:
    async with asked(unlisted_routes="authenticated") as gateway:
        _, secret = await gateway.key()
        for path in ("/authorize", "/authorize/", "/authorize/apache", "/v1/x"):
            for credential, status in ((secret, 200), (None, 401)):
                async with gateway.client(credential, address=PROXY) as client:
                    assert (await client.get(path)).status_code == status, path


@pytest.mark.parametrize("path", ["/authorize/nginxx", "/authorize/envoy", "/authorize/envoyx", "/authorize/traefik/"])
async def test_what_begins_like_a_place_to_ask_never_reaches_the_application(path: str) -> None:
    async with asked(unlisted_routes="authenticated") as gateway:
        _, secret = await gateway.key()
        async with gateway.client(secret, address=PROXY) as client:
            assert (await client.get(path)).json()["code"] == "malformed_request"


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


async def test_a_handshake_is_no_question() -> None:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async with asked() as gateway:
        headers = [(b"x-forwarded-method", b"GET"), (b"x-forwarded-uri", b"/healthz")]
        scope = {"type": "websocket", "path": "/authorize/caddy", "headers": headers, "client": (PROXY, 1)}
        await gateway.app(scope, receive, send)
    assert [(message["type"], message["code"]) for message in sent] == [("websocket.close", 4404)]


@every_peer
async def test_by_default_a_slot_is_given_back_at_once(peer: str) -> None:
    async with asked(tiers={"narrow": Tier("100/minute", 1)}) as gateway:
        _, secret = await gateway.key(tier="narrow")
        statuses = [(await gateway.ask(peer, "GET /v1/skills", secret)).status_code for _ in range(3)]
    assert statuses == [200] * 3


async def test_a_slot_is_held_where_that_is_set() -> None:
    async with asked(tiers={"narrow": Tier("100/minute", 1)}, forward_auth={"lease_seconds": 600}) as gateway:
        _, secret = await gateway.key(tier="narrow")
        assert (await gateway.ask("caddy", "GET /v1/skills", secret)).status_code == 200
        refused = await gateway.ask("caddy", "GET /v1/skills", secret)
    assert refused.json()["violated_policies"] == ["concurrency"]


async def test_a_held_slot_ends_when_its_time_is_over() -> None:
    class Lease:
        ended = asyncio.Event()

        def release(self) -> None:
            self.ended.set()

    leases = HeldLeases(0.01)
    leases.hold(lease := Lease())
    assert not lease.ended.is_set()
    async with asyncio.timeout(10):
        await lease.ended.wait()
    assert len(leases) == 0


def test_a_stop_gives_held_slots_back_before_the_limiter_closes(monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    app = create_app(
        database="memory://", routes=ROUTES, trusted_proxies=["10.0.0.0/8"], forward_auth={"lease_seconds": 600}
    )
    limiter = app.gateway.limiter
    admitting, closing = limiter.admit, limiter.close

    class Lease:
        def release(self) -> None:
            steps.append("slot")

    def admit(demand: Demand) -> Answer | Coming:
        granted = admitting(demand)
        return granted._replace(lease=Lease()) if isinstance(granted, Granted) else granted

    async def close() -> None:
        steps.append("limiter")
        await closing()

    monkeypatch.setattr(limiter, "admit", admit)
    monkeypatch.setattr(limiter, "close", close)
    with TestClient(app, client=(PROXY, 1)) as client:
        assert client.portal is not None
        _, secret = client.portal.call(Guarded(app, app.gateway).key)
        headers = {"Authorization": f"Bearer {secret}", "X-Forwarded-For": CALLER}
        for _ in range(2):
            assert client.get("/authorize/envoy/v1/skills", headers=headers).status_code == 200
        assert steps == []
    assert steps[:3] == ["slot", "slot", "limiter"]


async def test_each_decision_is_counted_by_its_true_outcome() -> None:
    counted: list[tuple[str, int]] = []
    async with asked() as gateway:
        gateway.gateway.recorder.record = lambda *told: counted.append((str(told[2]), told[3]))  # type: ignore[method-assign]  # a fake
        _, secret = await gateway.key()
        await gateway.ask("nginx", "GET /v1/skills", secret)
        await gateway.ask("nginx", "GET /nowhere", secret)
        await gateway.ask("nginx", "GET /healthz", address=STRANGER)
    assert counted == [("allowed", 200), ("route_not_found", 404), ("route_not_found", 404)]


async def test_the_log_says_what_is_wrong_and_never_what_was_presented(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "machpay_gateway")
    async with asked() as gateway:
        _, secret = await gateway.key()
        async with gateway.client(secret, address=PROXY) as client:
            await client.get("/authorize/nginx", headers={"X-Original-Method": "GET"})
        await gateway.ask("caddy", "GET /v1/skills", secret, {"X_MachPay_Key_Id": "key_1"})
        await gateway.ask("caddy", "GET /v1/skills", secret, address=STRANGER)
    told = [record.getMessage() for record in caplog.records if "refused" in record.getMessage()]
    assert [text.split("(")[1].split(")")[0] for text in told] == [
        "the proxy does not tell the URI once",
        "the request has identity headers of its own",
        "only trusted proxies may ask",
    ]
    assert secret not in caplog.text
