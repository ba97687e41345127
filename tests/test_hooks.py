"""Checks and credentials of the application, in every front that decides."""

import asyncio
import functools
import logging
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from machpay_gateway import (
    ConfigurationError,
    Gateway,
    Identity,
    Principal,
    Reason,
    Refusal,
    RequestFacts,
    Route,
    Tier,
    Unavailable,
    cached,
    hooks,
)
from machpay_gateway.core.decision.hooks import CheckHook, IdentifyHook
from machpay_gateway.settings import load_settings
from tests.applications import ok
from tests.forward_auth.check_client import forward_auth_gateway
from tests.gateways import Guarded, guarded
from tests.serving.processes import served

UNPAID = "The account has unpaid invoices."
CREDENTIAL = "legacy-" + "7" * 24
TIERS = {"standard": Tier("3/minute", 5), "large": Tier("1000/minute", 50)}


def refuse(*_: object) -> Refusal:
    return Refusal(Reason.FORBIDDEN, "invoice 7 is unpaid", message=UNPAID)


async def refuse_later(*_: object) -> Refusal:
    await asyncio.sleep(0)
    return refuse()


def allow(*_: object) -> None:
    return None


async def allow_later(*_: object) -> None:
    await asyncio.sleep(0)


class Checker:
    """A check that is an object, as with a connection of its own."""

    async def __call__(self, *_: object) -> Refusal:
        return await refuse_later()


@pytest.fixture
async def plain() -> AsyncIterator[Guarded]:
    async with guarded(ok, tiers=TIERS) as api:
        yield api


@pytest.mark.parametrize(
    "check",
    [
        refuse,
        refuse_later,
        Checker(),
        functools.partial(refuse),
        functools.partial(refuse_later),
        cached(60)(Checker()),
    ],
    ids=["sync", "async", "object", "partial", "async partial", "cached"],
)
async def test_a_check_refuses_with_its_message_and_spends_nothing(check: CheckHook) -> None:
    async with guarded(ok, tiers=TIERS, checks=[allow, allow_later, check]) as api:
        _, secret = await api.key()
        async with api.client(secret) as client:
            responses = [await client.get("/v1/skills") for _ in range(5)]
    assert {response.status_code for response in responses} == {403}
    problem = responses[0].json()
    assert (problem["code"], problem["title"], problem["detail"]) == ("forbidden", "Forbidden", UNPAID)
    assert "invoice 7" not in responses[0].text, "what is for the log is not for callers"


async def test_checks_come_last_and_are_not_asked_about_what_is_refused_anyway() -> None:
    calls: list[tuple[str, str, str]] = []

    def note(facts: RequestFacts, route: Route, principal: Principal) -> None:
        calls.append((facts.path or "", route.match, principal.account_id or ""))

    async with guarded(ok, checks=[note]) as api:
        _, weak = await api.key(scopes=["account:read"])
        key, secret = await api.key()
        account = (await api.gateway.accounts.find("standard") or pytest.fail("no account")).id
        async with api.client(weak) as client:
            assert (await client.get("/v1/skills/1")).status_code == 403
        async with api.client(secret[:-1]) as client:
            assert (await client.get("/v1/skills/1")).status_code == 401
            assert (await client.get("/healthz")).status_code == 200, "a public route has no principal"
        async with api.client(secret) as client:
            assert (await client.get("/v1/skills/1")).status_code == 200
    assert key
    assert calls == [("/v1/skills/1", "GET /v1/skills/{id}", account)]


@pytest.mark.parametrize("is_async", [False, True])
async def test_a_cached_result_is_used_for_the_same_principal_route_and_address(*, is_async: bool) -> None:
    calls: list[str] = []

    def count(facts: RequestFacts, *_: object) -> None:
        calls.append(facts.path or "")

    async def count_later(facts: RequestFacts, *_: object) -> None:
        calls.append(facts.path or "")

    check = cached(60)(count_later if is_async else count)
    async with guarded(ok, checks=[check]) as api:
        _, secret = await api.key()
        _, other = await api.key()
        for which, address in (
            (secret, "192.0.2.1"),
            (secret, "192.0.2.1"),
            (other, "192.0.2.1"),
            (secret, "192.0.2.2"),
        ):
            async with api.client(which, address=address) as client:
                for path in ("/v1/skills/1", "/v1/skills/2", "/v1/skills"):
                    assert (await client.get(path)).status_code == 200
    assert calls == ["/v1/skills/1", "/v1/skills"] * 3


async def test_without_cached_each_request_is_checked() -> None:
    calls: list[object] = []
    async with guarded(ok, checks=[lambda *_: calls.append(None)]) as api:
        _, secret = await api.key()
        async with api.client(secret) as client:
            for _ in range(4):
                assert (await client.get("/v1/skills")).status_code == 200
    assert len(calls) == 4


def raise_error(*_: object) -> None:
    raise LookupError("a secret of the application")


async def raise_later(*_: object) -> None:
    raise LookupError("a secret of the application")


async def hang(*_: object) -> None:
    await asyncio.Event().wait()


def return_text(*_: object) -> str:
    return "no"


def return_coroutine(*arguments: object) -> object:
    return refuse_later(*arguments)


@pytest.mark.parametrize("check", [raise_error, raise_later, hang, return_text, return_coroutine])
async def test_a_check_that_fails_refuses_and_says_why_in_the_log_alone(
    check: Any,  # noqa: ANN401 - wrong on purpose
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(hooks, "HOOK_SECONDS", 0.02)
    with caplog.at_level(logging.INFO, "machpay_gateway"):
        async with guarded(ok, checks=[check]) as api:
            _, secret = await api.key()
            async with api.client(secret) as client:
                responses = [await client.get("/v1/skills") for _ in range(3)]
    assert {response.status_code for response in responses} == {503}
    assert responses[0].headers["retry-after"] == "1"
    assert "secret of the application" not in responses[0].text
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 1, "a repeated line waits for the end of the minute"
    assert f"test_hooks:{check.__qualname__}" in errors[0].getMessage()
    assert errors[0].exc_info is not None


async def test_a_check_holds_for_streams_in_progress_and_its_failure_ends_none(plain: Guarded) -> None:
    answers: list[Refusal | Exception | None] = [None]

    def check(*_: object) -> Refusal | None:
        if isinstance(answers[-1], Exception):
            raise answers[-1]
        return answers[-1]

    async with guarded(ok, checks=[check]) as api:
        _, secret = await api.key()
        gate, route = api.gateway.gate, Route("GET /v1/skills")
        facts = RequestFacts("GET", "/v1/skills", (f"Bearer {secret}".encode(),), 0xC0000201, b"id")
        assert await gate.is_still_allowed(facts, route)
        answers.append(LookupError())
        assert await gate.is_still_allowed(facts, route)
        answers.append(refuse())
        assert not await gate.is_still_allowed(facts, route)
    assert plain.gateway.gate is not api.gateway.gate


async def identify(credential: str) -> Identity | None:
    await asyncio.sleep(0)
    if credential != CREDENTIAL:
        return None
    return Identity(id="ada", scopes=["skills:list"], account="acme", owner="team", claims={"plan": "gold"})


def identify_now(credential: str) -> Identity | None:
    return Identity(id="ada", scopes=["skills:list"], tier="standard") if credential == CREDENTIAL else None


async def whoami(scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401 - an ASGI application
    principal = scope.get("machpay")
    if scope["type"] == "http" and principal is not None:
        body = (
            f"{principal.kind} {principal.id} {principal.account_id} {principal.owner} {principal.claims.get('plan')}"
        )
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body.encode()})
    else:
        await ok(scope, receive, send)


@pytest.mark.parametrize("hook", [identify, cached(60)(functools.partial(identify))], ids=["each time", "cached"])
async def test_a_credential_of_the_application_is_a_caller_like_any_other(hook: IdentifyHook) -> None:
    async with guarded(whoami, tiers=TIERS, identify=hook) as api:
        async with api.client(CREDENTIAL) as client:
            first = await client.get("/v1/skills")
            assert (first.status_code, first.text) == (200, "custom ada acme team gold")
            assert (await client.get("/v1/account")).status_code == 403, "its scopes hold"
            assert [(await client.get("/v1/skills")).status_code for _ in range(3)] == [200, 200, 429], "its tier holds"
        async with api.client(CREDENTIAL + "x") as client:
            assert (await client.get("/v1/skills")).json()["code"] == "invalid_credentials"
        _, secret = await api.key(tier="large")
        async with api.client(secret) as client:
            assert (await client.get("/v1/skills")).status_code == 200, "keys work beside it"


@pytest.mark.parametrize(
    "credential, is_passed",
    [
        (CREDENTIAL, True),
        ("abc", True),
        ("a.b.c", True),  # in the shape of a JWT, of nobody we trust
        ("eyJhbGciOiJub25lIn0.eyJpc3MiOiJvdGhlciJ9.", True),
        ("sk_" + "8" * 30, True),  # another product's key
        ("Basic", True),
        ("gültig", False),  # not ASCII
        ("", False),
    ],
)
async def test_what_is_no_key_and_no_trusted_token_is_passed_to_identify(credential: str, *, is_passed: bool) -> None:
    passed: list[str] = []

    def note(text: str) -> Identity:
        passed.append(text)
        return Identity(id="x", scopes=["skills:list"])

    async with guarded(ok, identify=note) as api, api.client() as client:
        response = await client.get("/v1/skills", headers={b"Authorization": f"Bearer {credential}".encode()})
    assert passed == ([credential] if is_passed else [])
    assert response.status_code == (200 if is_passed else response.status_code)
    assert is_passed or response.status_code in {400, 401}


async def test_a_mistyped_secret_of_ours_is_not_passed_to_identify() -> None:
    async with guarded(ok, identify=lambda _: pytest.fail("called")) as api:
        _, secret = await api.key()
        mistyped = secret[:-1] + ("a" if secret[-1] != "a" else "b")
        async with api.client(mistyped) as client:
            assert (await client.get("/v1/skills")).status_code == 401


async def test_wrong_credentials_of_the_application_are_limited_by_address() -> None:
    async with guarded(ok, identify=identify, failure_limit="5/minute") as api, api.client("wrong") as client:
        statuses = [(await client.get("/v1/skills")).status_code for _ in range(60)]
        assert statuses[:5] == [401] * 5
        assert statuses[-1] == 429
        async with api.client(CREDENTIAL) as good:  # behind the same address
            assert (await good.get("/v1/skills")).status_code in {200, 429}
        async with api.client(CREDENTIAL, address="192.0.2.77") as good:
            assert (await good.get("/v1/skills")).status_code == 200


async def test_concurrent_requests_share_one_call_of_identify() -> None:
    calls = 0
    entered, go_on = asyncio.Event(), asyncio.Event()

    @cached(60)
    async def slow(_: str) -> Identity:
        nonlocal calls
        calls += 1
        entered.set()
        await go_on.wait()
        return Identity(id="ada", scopes=["skills:list"])

    async with guarded(ok, identify=slow) as api, api.client(CREDENTIAL) as client:
        requests = [asyncio.create_task(client.get("/v1/skills")) for _ in range(8)]
        await entered.wait()
        go_on.set()
        assert {(await request).status_code for request in requests} == {200}
        assert (await client.get("/v1/skills")).status_code == 200
    assert calls == 1


@pytest.mark.parametrize(
    "identity",
    [
        "ada",
        Identity(id=""),
        Identity(id="a\nb"),
        Identity(id="a" * 256),
        Identity(id="ada", tier="unknown"),
        Identity(id="ada", environment="staging"),
        Identity(id="ada", scopes="skills:list"),
        Identity(id="ada", scopes=["a b"]),
        Identity(id="ada", account=""),
        LookupError("away"),
        Unavailable("away"),
    ],
    ids=str,
)
async def test_an_impossible_identity_is_a_failure_of_the_hook(
    identity: object, caplog: pytest.LogCaptureFixture
) -> None:
    def answer(_: str) -> Any:  # noqa: ANN401 - wrong on purpose
        if isinstance(identity, Exception):
            raise identity
        return identity

    async with guarded(ok, identify=answer) as api, api.client(CREDENTIAL) as client:
        assert (await client.get("/v1/skills")).status_code == 503
    assert any("failed" in record.getMessage() for record in caplog.records)


async def test_an_identity_ends_when_it_expires_also_while_it_is_cached() -> None:
    @cached(60)
    def expired(_: str) -> Identity:
        return Identity(id="ada", scopes=["skills:list"], expires_at=1.0)

    async with guarded(ok, identify=expired) as api, api.client(CREDENTIAL) as client:
        assert (await client.get("/v1/skills")).json()["code"] == "invalid_credentials"


async def test_forward_auth_decides_by_hooks_too() -> None:
    async with forward_auth_gateway(checks=[refuse_later], identify=identify) as gateway:
        response = await gateway.ask("traefik", "GET /v1/skills", CREDENTIAL)
    assert (response.status_code, response.json()["detail"]) == (403, UNPAID)


MODULE = """
from machpay_gateway import Identity, Reason, Refusal

def paid(facts, route, principal):
    if principal.id == "eve":
        return Refusal(Reason.FORBIDDEN, message="The account has unpaid invoices.")

async def identify(credential):
    name, _, secret = credential.partition("-")
    return Identity(id=name, scopes=["skills:execute"]) if secret == "7777" else None
"""


def test_the_proxy_loads_hooks_by_their_names(tmp_path: Path) -> None:
    (tmp_path / "my_hooks.py").write_text(MODULE)
    settings = 'checks = ["my_hooks:paid"]\nidentify = "my_hooks:identify"\n'
    with served(tmp_path, settings=settings) as gateway:

        def status(credential: str) -> int:
            request = urllib.request.Request(
                f"http://127.0.0.1:{gateway.port}/v1/x", headers={"Authorization": f"Bearer {credential}"}
            )
            try:
                with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310 - http
                    return int(response.status)
            except urllib.error.HTTPError as error:
                return error.code

        assert [status("ada-7777"), status("eve-7777"), status("ada-8888")] == [200, 403, 401]


@pytest.mark.parametrize(
    "options, message",
    [
        ({"checks": ["no_colon"]}, "checks: 'no_colon' is neither a function nor the name of one"),
        ({"checks": [7]}, "checks: 7 is neither a function nor the name of one"),
        ({"checks": allow}, "write a list of functions"),
        ({"identify": ["a:b"]}, "identify: .* is neither a function nor the name of one"),
        ({"identify": "a b:c"}, "identify: 'a b:c' is neither"),
    ],
)
def test_a_wrong_hook_is_refused_with_the_way_out(options: Any, message: str) -> None:  # noqa: ANN401 - wrong on purpose
    with pytest.raises(ConfigurationError, match=message):
        load_settings(options, environ={})


@pytest.mark.parametrize(
    "name, message",
    [
        ("no_such_module:f", "cannot be imported"),
        ("machpay_gateway.hooks:no_such_function", "cannot be imported"),
        ("machpay_gateway.hooks:HOOK_SECONDS", "is not a function"),
    ],
)
def test_a_hook_that_cannot_be_loaded_stops_the_start(name: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Gateway(database="memory://", checks=[name])
    with pytest.raises(ConfigurationError, match=message):
        Gateway(database="memory://", identify=name)


@pytest.mark.parametrize("seconds", [0, -1, 3601, True, "60", None])
def test_seconds_of_a_cache_are_checked(seconds: Any) -> None:  # noqa: ANN401 - wrong on purpose
    with pytest.raises(ConfigurationError, match="cached: "):
        cached(seconds)


Decorated = Callable[[str], Identity | None]


def test_cached_returns_the_function_itself() -> None:
    hook: Decorated = identify_now
    assert cached(5)(hook) is hook


async def test_hooks_are_found_beside_the_settings_and_commands_import_none(tmp_path: Path) -> None:
    (tmp_path / "beside_settings.py").write_text(MODULE)
    settings = tmp_path / "machpay.toml"
    settings.write_text('database = "memory://"\nchecks = ["beside_settings:paid"]\n')
    assert Gateway(config=settings).gate.hooks is not None
    settings.write_text('database = "memory://"\nchecks = ["not_there:paid"]\nidentify = "not_there:identify"\n')
    async with Gateway(config=settings, workers=0) as for_records:
        assert await for_records.accounts.list() == []
