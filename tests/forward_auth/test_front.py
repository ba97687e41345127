"""What each proxy is answered, without the proxies: test_proxies has the real ones."""

import asyncio
import logging

import orjson
import pytest
from starlette.testclient import TestClient
from starlette.types import Message

from machpay_gateway import Tier
from machpay_gateway.core.errors import StoreUnavailable
from machpay_gateway.core.limits.admission import AdmissionRequest, Admitted, Answer, PendingAnswer
from machpay_gateway.forward_auth.leases import HeldLeases
from machpay_gateway.server import create_app
from tests.forward_auth.check_client import CALLER, PROXY, STRANGER, every_peer, forward_auth_gateway
from tests.gateways import ROUTES, Guarded


@every_peer
async def test_an_allowed_check_returns_identity_headers(peer: str) -> None:
    async with forward_auth_gateway() as gateway:
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
async def test_a_public_route_returns_no_identity_headers(peer: str) -> None:
    async with forward_auth_gateway() as gateway:
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
async def test_a_refusal_is_adapted_to_the_proxy(
    peer: str, request_: str, scopes: list[str] | None, status: int, code: str
) -> None:
    async with forward_auth_gateway() as gateway:
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
async def test_a_rate_limited_check_has_retry_after(peer: str) -> None:
    async with forward_auth_gateway(tiers={"tiny": Tier("1/minute", 5)}) as gateway:
        _, secret = await gateway.key(tier="tiny")
        assert (await gateway.ask(peer, "GET /v1/skills", secret)).status_code == 200
        answer = await gateway.ask(peer, "GET /v1/skills", secret)
    assert answer.json()["status"] == 429
    assert answer.status_code == (403 if peer == "nginx" else 429)
    assert 1 <= int(answer.headers["retry-after"]) <= 61
    assert answer.headers["ratelimit"].startswith('"minute";r=0;')
    assert sum(gateway.gateway.steps.decide[:-1]) == 2


async def test_checks_are_counted_by_the_policies_that_they_violate() -> None:
    tiers = {"tiny": Tier("1/minute", 5), "trial": Tier("1/minute", 5, enforce=False)}
    async with forward_auth_gateway(tiers=tiers) as gateway:
        for tier in tiers:
            _, secret = await gateway.key(tier=tier)
            for _ in range(3):
                await gateway.ask("envoy", "GET /v1/skills", secret)
    name, route = "machpay_policy_violations_total", "GET /v1/skills"
    counts = gateway.gateway.recorder.requests.counts
    assert {labels: count for (metric, labels), count in counts.items() if metric == name} == {
        ("minute", "rate_limited", route, "tiny"): [2],
        ("minute", "shadow_limited", route, "trial"): [2],
    }


@every_peer
async def test_a_decision_that_cannot_be_made_is_a_refusal(peer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(_digest: bytes) -> None:
        raise StoreUnavailable("key lookup")

    async with forward_auth_gateway() as gateway:
        _, secret = await gateway.key()
        monkeypatch.setattr(gateway.gateway.store, "find_by_digests", away)
        answer = await gateway.ask(peer, "GET /v1/skills", secret)
    assert (answer.status_code, answer.json()["status"]) == (403 if peer == "nginx" else 503, 503)
    assert answer.headers["retry-after"] == "1"


@every_peer
@pytest.mark.parametrize("trusted", [[PROXY], []])
async def test_an_untrusted_peer_gets_a_404(peer: str, trusted: list[str]) -> None:
    async with forward_auth_gateway(trusted_proxies=trusted) as gateway:
        _, secret = await gateway.key()
        answers = [
            await gateway.ask(peer, request, credential, address=STRANGER)
            for request in ("GET /healthz", "GET /v1/skills", "GET /nowhere", "GET //")
            for credential in (secret, None)
        ]
    assert {(answer.status_code, answer.json()["code"]) for answer in answers} == {(404, "route_not_found")}
    assert not [name for answer in answers for name in answer.headers if name.startswith(("x-machpay", "ratelimit"))]


async def test_other_paths_belong_to_the_guarded_application() -> None:
    async with forward_auth_gateway(unlisted_routes="authenticated") as gateway:
        _, secret = await gateway.key()
        for path in ("/authorize", "/authorize/", "/authorize/apache", "/v1/x"):
            for credential, status in ((secret, 200), (None, 401)):
                async with gateway.client(credential, address=PROXY) as client:
                    assert (await client.get(path)).status_code == status, path


@pytest.mark.parametrize("path", ["/authorize/nginxx", "/authorize/envoy", "/authorize/envoyx", "/authorize/traefik/"])
async def test_paths_that_begin_like_check_requests_never_reach_the_application(path: str) -> None:
    async with forward_auth_gateway(unlisted_routes="authenticated") as gateway:
        _, secret = await gateway.key()
        async with gateway.client(secret, address=PROXY) as client:
            assert (await client.get(path)).json()["code"] == "malformed_request"


async def test_a_websocket_handshake_is_not_a_check_request() -> None:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async with forward_auth_gateway() as gateway:
        headers = [(b"x-forwarded-method", b"GET"), (b"x-forwarded-uri", b"/healthz")]
        scope = {"type": "websocket", "path": "/authorize/caddy", "headers": headers, "client": (PROXY, 1)}
        await gateway.app(scope, receive, send)
    assert [(message["type"], message["code"]) for message in sent] == [("websocket.close", 4404)]


@every_peer
async def test_by_default_a_slot_is_released_at_once(peer: str) -> None:
    async with forward_auth_gateway(tiers={"narrow": Tier("100/minute", 1)}) as gateway:
        _, secret = await gateway.key(tier="narrow")
        statuses = [(await gateway.ask(peer, "GET /v1/skills", secret)).status_code for _ in range(3)]
    assert statuses == [200] * 3


async def test_a_slot_is_held_for_lease_seconds() -> None:
    async with forward_auth_gateway(
        tiers={"narrow": Tier("100/minute", 1)}, forward_auth={"lease_seconds": 600}
    ) as gateway:
        _, secret = await gateway.key(tier="narrow")
        assert (await gateway.ask("caddy", "GET /v1/skills", secret)).status_code == 200
        refused = await gateway.ask("caddy", "GET /v1/skills", secret)
    assert refused.json()["violated_policies"] == ["concurrency"]


async def test_a_held_slot_ends_when_its_time_is_over() -> None:
    class Lease:
        ended = asyncio.Event()

        def release(self) -> None:
            self.ended.set()

        def charge(self, units: int) -> None:
            raise AssertionError(units)

    leases = HeldLeases(0.01)
    leases.hold(lease := Lease())
    assert not lease.ended.is_set()
    async with asyncio.timeout(10):
        await lease.ended.wait()
    assert len(leases) == 0


def test_a_shutdown_releases_held_slots_before_the_limiter_closes(monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    app = create_app(
        database="memory://", routes=ROUTES, trusted_proxies=["10.0.0.0/8"], forward_auth={"lease_seconds": 600}
    )
    limiter = app.gateway.limiter
    admitting, closing = limiter.admit, limiter.close

    class Lease:
        def release(self) -> None:
            steps.append("slot")

        def charge(self, units: int) -> None:
            raise AssertionError(units)

    def admit(demand: AdmissionRequest) -> Answer | PendingAnswer:
        granted = admitting(demand)
        return granted._replace(lease=Lease()) if isinstance(granted, Admitted) else granted

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
    async with forward_auth_gateway() as gateway:
        gateway.gateway.recorder.record = lambda *messages: counted.append((str(messages[2]), messages[3]))  # type: ignore[method-assign]  # a fake
        _, secret = await gateway.key()
        await gateway.ask("nginx", "GET /v1/skills", secret)
        await gateway.ask("nginx", "GET /nowhere", secret)
        await gateway.ask("nginx", "GET /healthz", address=STRANGER)
    assert counted == [("allowed", 200), ("route_not_found", 404), ("route_not_found", 404)]


async def test_the_log_has_the_problem_and_never_the_credential(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "machpay_gateway")
    async with forward_auth_gateway() as gateway:
        _, secret = await gateway.key()
        async with gateway.client(secret, address=PROXY) as client:
            await client.get("/authorize/nginx", headers={"X-Original-Method": "GET"})
        await gateway.ask("caddy", "GET /v1/skills", secret, {"X_MachPay_Key_Id": "key_1"})
        await gateway.ask("caddy", "GET /v1/skills", secret, address=STRANGER)
    messages = [record.getMessage() for record in caplog.records if "refused" in record.getMessage()]
    assert [text.split("(")[1].split(")")[0] for text in messages] == [
        "The proxy does not send X-Original-Uri or X-Original-Url exactly once.",
        "Only the gateway may set the header x_machpay_key_id: send the request without it.",
        "only trusted proxies may send check requests",
    ]
    assert secret not in caplog.text
