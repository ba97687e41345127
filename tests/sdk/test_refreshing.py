"""Automatic refresh of access tokens."""

import logging
from typing import Any

import machpay
import pytest
from machpay._tokens import expiry_of

from tests.sdk.conftest import Twin
from tests.sdk.issuing import REFUSED, Issuer, jwt, refresh_token, token
from tests.sdk.scripted import SECRET, Reply

GRANT: dict[str, Any] = {"api_key": None, "refresh_token": refresh_token(0), "client_id": "app_1"}
HELD: dict[str, Any] = {**GRANT, "access_token": token(0)}


@pytest.fixture
def issuer(twin: Twin) -> Issuer:
    return Issuer(twin.script)


@pytest.mark.parametrize("before_its_end, refreshes", [(31, 0), (30, 1), (0, 1), (-3600, 1)])
async def test_a_token_is_refreshed_half_a_minute_before_it_expires(
    twin: Twin, issuer: Issuer, before_its_end: int, refreshes: int
) -> None:
    del twin.script.on["/v1/whoami"]  # for what counts here is the clock
    client = twin.client(**{**HELD, "access_token": jwt({"exp": twin.world.now + before_its_end})})
    await twin.resolve(client.whoami())
    assert issuer.events == ["token"] * refreshes


async def test_a_refreshed_token_lasts_for_its_expires_in(twin: Twin, issuer: Issuer) -> None:
    client = twin.client(**GRANT)
    for now, count in [(0, 1), (3569, 1), (3570, 2), (3570 + 3569, 2), (3570 * 2, 3)]:
        twin.world.now = 1_800_000_000.0 + now
        await twin.resolve(client.whoami())
        assert issuer.issued == count
    assert [request.form for request in twin.script.requests_at("/oauth/token")] == [
        {"grant_type": "refresh_token", "refresh_token": refresh_token(number), "client_id": "app_1"}
        for number in range(3)
    ]


@pytest.mark.parametrize(
    "expires_in, due_after",
    [(3600, 3570), (60, 30), (40, 20), (1, 0.5)],  # half of a short life is used
)
async def test_a_short_lived_token_is_not_refreshed_by_every_call(
    twin: Twin, issuer: Issuer, expires_in: int, due_after: float
) -> None:
    issuer.members = {"expires_in": expires_in}
    client = twin.client(**GRANT)
    began = twin.world.now
    for now, count in [(began, 1), (began + due_after - 0.25, 1), (began + due_after, 2)]:
        twin.world.now = now
        await twin.resolve(client.whoami())
        assert issuer.issued == count


@pytest.mark.parametrize("members", [{}, {"expires_in": 0}, {"expires_in": -1}])
async def test_a_token_with_unknown_expiry_is_refreshed_when_it_is_refused(
    twin: Twin, issuer: Issuer, members: dict[str, int]
) -> None:
    issuer.members = members
    client = twin.client(**GRANT)
    for _ in range(2):
        await twin.resolve(client.whoami())
        twin.world.now += 10**9
    assert issuer.issued == 1
    issuer.end()
    await twin.resolve(client.whoami())
    assert issuer.events == ["token", "api", "api", "api", "token", "api"]


NOW = 1_800_000_000


@pytest.mark.parametrize(
    "access_token, expected",
    [
        (jwt({"exp": NOW}), NOW),
        (jwt({"exp": NOW + 0.5}), NOW + 0.5),
        (jwt({"exp": NOW, "pad": "?" * 7}), NOW),
        (jwt({}), None),
        (jwt({"exp": str(NOW)}), None),
        (jwt({"exp": True}), None),
        (jwt({"exp": -1}), None),
        (jwt({"exp": 10**400}), None),
        (jwt({"exp": float("inf")}), None),
        (jwt({"exp": float("nan")}), None),
        (jwt([NOW]), None),
        ("a.b.c", None),
        ("a.b", None),
        ("..", None),
        ("a." + "W" * 100_000 + ".c", None),
        (SECRET, None),
    ],
)
def test_the_expiry_of_a_token_is_read_from_its_claims(access_token: str, expected: float | None) -> None:
    assert expiry_of(access_token) == expected


async def test_a_token_that_is_refused_is_refreshed_and_the_call_sent_once_more(twin: Twin, issuer: Issuer) -> None:
    issuer.end()
    key = await twin.resolve(twin.client(**HELD).keys.create(name="a", scopes=[]))
    first, second = twin.script.requests_at("/v1/keys")
    assert (first.body, first.headers["idempotency-key"]) == (second.body, second.headers["idempotency-key"])
    assert (first.headers["authorization"], second.headers["authorization"]) == (
        f"Bearer {token(0)}",
        f"Bearer {token(1)}",
    )
    assert key.response.attempts == 2


async def test_a_refresh_and_the_call_after_it_have_a_calls_time_each(twin: Twin, issuer: Issuer) -> None:
    busy = Reply(503, {}, {"retry-after": "9"})
    issuer.answers = [busy]
    scripted = [busy, REFUSED, busy, Reply(200, {"id": "key_1"})]

    async def whoami(request: object) -> Reply:
        assert request
        return scripted.pop(0)

    twin.script.on["/v1/whoami"] = whoami
    await twin.resolve(twin.client(**HELD, timeout=5, max_retries=1).whoami())
    assert twin.world.slept == [9.0, 9.0, 9.0]


async def test_a_token_that_is_refused_at_once_is_not_refreshed_again(twin: Twin, issuer: Issuer) -> None:
    issuer.ended = {token(0), token(1)}
    with pytest.raises(machpay.AuthenticationError):
        await twin.resolve(twin.client(**HELD).whoami())
    assert (issuer.issued, len(twin.script.requests_at("/v1/whoami"))) == (1, 2)


@pytest.mark.parametrize(
    "scripted",
    [
        Reply(401, {"code": "missing_credentials"}),
        Reply(401, b"<html>"),
        Reply(403, {"code": "invalid_credentials"}),
    ],
)
async def test_no_other_refusal_leads_to_a_refresh(twin: Twin, issuer: Issuer, scripted: Reply) -> None:
    del twin.script.on["/v1/whoami"]
    twin.script.respond_with(scripted)
    with pytest.raises(machpay.APIStatusError):
        await twin.resolve(twin.client(**HELD).whoami())
    assert (issuer.events, len(twin.script.requests)) == ([], 1)


@pytest.mark.parametrize("given", [{"api_key": SECRET}, {"api_key": None, "access_token": jwt({"exp": 1})}])
async def test_without_a_refresh_token_nothing_is_refreshed(twin: Twin, issuer: Issuer, given: dict[str, Any]) -> None:
    with pytest.raises(machpay.AuthenticationError):
        await twin.resolve(twin.client(**given, client_id="app_1").whoami())
    assert issuer.events == ["api"]


async def test_a_refresh_token_alone_suffices_and_overrides_the_environment(
    twin: Twin, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MACHPAY_API_KEY", SECRET)
    client = twin.client(**GRANT, client_secret="cs_" + "z" * 40)
    assert (await twin.resolve(client.whoami())).id == "key_1"
    assert twin.script.requests[0].headers["authorization"].startswith("Basic ")
    assert issuer.events == ["token", "api"]


async def test_a_refresh_token_that_is_not_rotated_is_reported_and_reused(twin: Twin, issuer: Issuer) -> None:
    issuer.rotates = False
    seen: list[machpay.Tokens] = []
    client = twin.client(**GRANT, on_tokens=seen.append)
    for _ in range(2):
        await twin.resolve(client.whoami())
        twin.world.now += 3600
    assert [tokens.refresh_token for tokens in seen] == [refresh_token(0)] * 2


async def test_a_client_with_other_options_has_the_same_tokens(twin: Twin, issuer: Issuer) -> None:
    client = twin.client(**GRANT)
    await twin.resolve(client.with_options(timeout=5).whoami())
    await twin.resolve(client.whoami())
    await twin.resolve(client.with_options(max_retries=0).whoami())
    assert issuer.events == ["token", "api", "api", "api"]


async def test_a_revoked_grant_is_raised_each_time_and_requested_once(twin: Twin, issuer: Issuer) -> None:
    client = twin.client(**{**HELD, "refresh_token": refresh_token(7)})
    issuer.end()
    for _ in range(3):
        with pytest.raises(machpay.OAuthError, match=r"^invalid_grant") as caught:
            await twin.resolve(client.whoami())
        assert (caught.value.error, caught.value.status, caught.value.request_id) == ("invalid_grant", 400, "req-1")
        assert refresh_token(7) not in f"{caught.value} {caught.value.error_description} {caught.value.response!r}"
    assert issuer.events == ["api", "token"]


@pytest.mark.parametrize(
    "scripted, expected",
    [
        (Reply(401, {"error": "invalid_client"}), machpay.OAuthError),
        (Reply(500, {"error": "server_error"}), machpay.OAuthError),
        (Reply(500, b"<html>"), machpay.InternalServerError),
        (Reply(200, {"token_type": "Bearer"}), machpay.InvalidResponseError),
        (Reply(cut=True), machpay.APIConnectionError),
    ],
)
async def test_any_other_failure_of_a_refresh_fails_one_call(
    twin: Twin, issuer: Issuer, scripted: Reply, expected: type[Exception]
) -> None:
    issuer.answers = [scripted]
    client = twin.client(**GRANT, max_retries=0)
    with pytest.raises(expected):
        await twin.resolve(client.whoami())
    assert issuer.events == ["token"]
    await twin.resolve(client.whoami())
    assert issuer.events == ["token", "token", "api"]


@pytest.mark.parametrize(
    "given, match",
    [
        ({"refresh_token": "r"}, "^refresh_token is given without client_id; pass the client_id"),
        ({"refresh_token": "r", "client_id": "c", "api_key": "k"}, "^Both api_key and refresh_token"),
        ({"access_token": "a", "refresh_token": "r", "client_id": "c", "api_key": "k"}, "^Both api_key and"),
        ({"refresh_token": "", "client_id": "c"}, "^refresh_token is empty"),
        ({"refresh_token": "r", "client_id": ""}, "^client_id is empty"),
        ({"refresh_token": "r", "client_id": "c", "client_secret": ""}, "^client_secret is empty"),
        ({"refresh_token": "r", "client_id": "c", "access_token": ""}, "^access_token is empty"),
        ({"access_token": "a", "on_tokens": "store"}, "^on_tokens is a str, and has to be callable"),
    ],
)
def test_incomplete_refresh_options_are_refused(twin: Twin, given: dict[str, Any], match: str) -> None:
    with pytest.raises(machpay.ConfigurationError, match=match):
        twin.kind(**given)


async def test_a_client_that_refreshes_shows_no_token(
    twin: Twin, issuer: Issuer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    client = twin.client(**HELD, client_secret=SECRET)
    issuer.end()
    shown = [repr(client)]
    for _ in range(2):
        shown += [repr(vars(client)), repr(vars(client._transport.credentials))]  # noqa: SLF001 - what a debugger shows
        await twin.resolve(client.whoami())
    shown.append(caplog.text)
    for secret in (SECRET, token(0), token(1), refresh_token(0), refresh_token(1)):
        assert secret not in "\n".join(shown)
    assert shown[0] == f"{twin.kind.__name__}('…0000', base_url={twin.url!r})"
    assert repr(client) == f"{twin.kind.__name__}('…0001', base_url={twin.url!r})"
