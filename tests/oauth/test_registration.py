"""Clients that register themselves, where somebody lets them (RFC 7591)."""

import asyncio
import logging
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, closing
from functools import partial
from pathlib import Path
from secrets import token_hex
from typing import Any

import pytest
from httpx2 import AsyncClient, Response

from machpay_gateway.core.errors import ConfigurationError, InputError
from machpay_gateway.core.keys.audit import AuditFilter
from machpay_gateway.core.oauth.client import CLIENT_CREDENTIALS, OAuthClient
from machpay_gateway.core.oauth.settings import OAuthSettings
from machpay_gateway.server import create_app
from machpay_gateway.settings import Options, load_settings
from tests.gateways import Shared
from tests.oauth.harness import AUDIENCE, EMAIL, ISSUER, PASSWORD, REDIRECT, Rig, basic, serving_oauth
from tests.postgres.fixtures import postgres_server, postgres_url
from tests.prepared import new_sqlite
from tests.redises.servers import running_server

__all__ = ["postgres_server", "postgres_url"]

DAY = 86_400
TOKEN = token_hex(32)
ASKED = {"client_name": "A new app", "redirect_uris": [REDIRECT], "scope": "account:read"}


def opened(**settings: Any) -> OAuthSettings:  # noqa: ANN401 - any of its fields
    """Return an authority at which clients may register."""
    given: dict[str, Any] = {"registration_account": "acme", "registration_scopes": ("account:read",)}
    return OAuthSettings(ISSUER, audience=AUDIENCE, **(given | settings))


ShareOpen = Callable[..., Awaitable[Rig]]


@pytest.fixture
async def share_open(shared: Shared[Rig]) -> AsyncIterator[ShareOpen]:
    """A function that takes fields of the settings, and returns a rig of a server that is opened by them."""
    async with AsyncExitStack() as stack:

        async def share(**settings: Any) -> Rig:  # noqa: ANN401 - as `opened` has them
            serve = partial(serving_oauth, authority=opened(**settings))
            rig = await (await shared.part(str(settings), serve)).share()
            stack.push_async_callback(rig.close)
            return rig

        yield share


async def registered(rig: Rig, *, http: AsyncClient | None = None, **changes: Any) -> Response:  # noqa: ANN401 - JSON
    return await (http or rig.http()).post("/oauth/register", json=ASKED | changes)


async def registered_clients(rig: Rig) -> list[OAuthClient]:
    """Return the clients that registered themselves."""
    return [client for client in await rig.gateway.oauth_clients.list(None, limit=2000) if client.is_self_registered]


async def logged(rig: Rig, action: str) -> int:
    rows = await rig.gateway.store.audit_page(None, filters=AuditFilter(action=action), limit=1000)
    return len(rows)


async def test_nobody_can_unless_an_account_is_named_for_it(rig: Rig) -> None:
    answer = await registered(rig)
    assert answer.status_code in {401, 404}
    async with serving_oauth(authority=opened()) as other:
        message = (await other.http().get("/.well-known/oauth-authorization-server")).json()
        assert message["registration_endpoint"] == f"{ISSUER}/oauth/register"


async def test_a_registered_client_acts_for_a_user_who_allows_it(share_open: ShareOpen) -> None:
    rig = await share_open()
    answer = await registered(rig)
    assert answer.status_code == 201, answer.text
    assert answer.headers["cache-control"] == "no-store"
    made = answer.json()
    assert (made["client_name"], made["scope"], made["client_secret_expires_at"]) == (
        "A new app",
        "account:read",
        0,
    )
    assert (made["grant_types"], made["response_types"]) == (["authorization_code"], ["code"])
    client = await rig.gateway.oauth_clients.get(None, made["client_id"])
    assert client is not None
    assert client.requires_pkce
    assert client.is_self_registered
    code = await rig.code(client=client)
    sent = {"grant_type": "authorization_code", "code": code, "redirect_uri": REDIRECT, "code_verifier": "v" * 43}
    headers = basic(made["client_id"], made["client_secret"])
    tokens = await rig.http().post("/oauth/token", data=sent, headers=headers)
    assert tokens.json()["scope"] == "account:read"


@pytest.mark.parametrize(
    "changes, error",
    [
        ({"redirect_uris": ["http://app.example.org"]}, "invalid_redirect_uri"),
        ({"redirect_uris": []}, "invalid_redirect_uri"),
        ({"redirect_uris": "https://app.example.org"}, "invalid_client_metadata"),
        ({"scope": 7}, "invalid_client_metadata"),
        ({"grant_types": ["password"]}, "invalid_client_metadata"),
        ({"grant_types": ["client_credentials"], "token_endpoint_auth_method": "none"}, "invalid_client_metadata"),
        ({"grant_types": ["authorization_code", "client_credentials"]}, "invalid_client_metadata"),
        ({"grant_types": ["refresh_token"]}, "invalid_client_metadata"),
        ({"response_types": ["token"]}, "invalid_client_metadata"),
        ({"token_endpoint_auth_method": "private_key_jwt"}, "invalid_client_metadata"),
        ({"client_name": "x" * 101}, "invalid_client_metadata"),
        ({"client_name": "\u202ereversed"}, "invalid_client_metadata"),
        ({"client_name": 7}, "invalid_client_metadata"),
    ],
    ids=str,
)
async def test_what_cannot_be_registered_is_told_by_the_standards_codes(
    share_open: ShareOpen, changes: dict[str, Any], error: str
) -> None:
    rig = await share_open()
    clients, before = await registered_clients(rig), await rig.gateway.store.audit_head()
    answer = await registered(rig, **changes)
    assert (answer.status_code, answer.json()["error"]) == (400, error)
    assert await registered_clients(rig) == clients
    assert await rig.gateway.store.audit_head() == before


@pytest.mark.parametrize("body", [b"", b"[]", b"x", b"{" * 20_000, b'"x"'], ids=lambda body: str(body[:10]))
async def test_what_is_no_metadata_is_told_so(share_open: ShareOpen, body: bytes) -> None:
    rig = await share_open()
    answer = await rig.http().post("/oauth/register", content=body)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_client_metadata")


async def test_a_client_that_would_call_for_itself_cannot_register(share_open: ShareOpen) -> None:
    rig = await share_open(registration_scopes=("skills:execute",))
    clients = await registered_clients(rig)
    metadata = {
        "client_name": "x",
        "grant_types": ["client_credentials"],
        "token_endpoint_auth_method": "client_secret_post",
    }
    answer = await rig.http().post("/oauth/register", json=metadata)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_client_metadata")
    assert await registered_clients(rig) == clients


async def test_nobody_can_let_a_registered_client_call_for_itself(share_open: ShareOpen) -> None:
    rig = await share_open()
    made = (await registered(rig)).json()
    with pytest.raises(InputError, match="registered itself"):
        await rig.gateway.oauth_clients.update(
            None, made["client_id"], grant_types=["authorization_code", CLIENT_CREDENTIALS]
        )
    changed = await rig.gateway.oauth_clients.update(None, made["client_id"], name="Renamed")
    assert changed is not None
    assert changed.is_self_registered  # whatever is changed


async def test_a_row_that_says_otherwise_gets_a_registered_client_no_token(tmp_path: Path) -> None:
    path = tmp_path / "oauth.db"
    async with serving_oauth(authority=opened(), database=new_sqlite(path)) as rig:
        await rig.gateway.accounts.find("acme")
        made = (await registered(rig)).json()
        with closing(sqlite3.connect(path)) as connection, connection:
            kinds = '["authorization_code","client_credentials"]'
            connection.execute("UPDATE oauth_clients SET grant_types = ? WHERE is_self_registered", (kinds,))
        headers = basic(made["client_id"], made["client_secret"])
        answer = await rig.http().post("/oauth/token", data={"grant_type": CLIENT_CREDENTIALS}, headers=headers)
        assert (answer.status_code, answer.json()["error"]) == (400, "unauthorized_client")


@pytest.mark.parametrize(
    "within, metadata, given",
    [
        ((), {}, ""),  # by default there are none
        ((), {"scope": "account:read skills:execute"}, ""),
        (("account:read",), {}, "account:read"),  # left out, it is all of them
        (("account:read", "skills:list"), {}, "account:read skills:list"),
        (("account:read", "skills:list"), {"scope": "skills:list"}, "skills:list"),
        (("account:read",), {"scope": "account:read skills:execute"}, "account:read"),
        (("account:read",), {"scope": "keys:manage account:* unknown"}, ""),
        (("account:read",), {"scope": ""}, ""),
    ],
    ids=str,
)
async def test_a_registered_client_gets_of_the_set_scopes_those_it_asks_for(
    share_open: ShareOpen, within: tuple[str, ...], metadata: dict[str, str], given: str
) -> None:
    rig = await share_open(registration_scopes=within)
    sent = {"client_name": "x", "redirect_uris": [REDIRECT]} | metadata
    made = (await rig.http().post("/oauth/register", json=sent)).json()
    assert made["scope"] == given
    client = await rig.gateway.oauth_clients.get(None, made["client_id"])
    assert str(client.scopes) == given  # type: ignore[union-attr]  # it was just made


async def test_an_address_block_registers_as_many_clients_as_it_may() -> None:
    async with serving_oauth(authority=opened()) as rig:
        http, before = rig.http(address="2001:db8::1"), (await rig.gateway.store.audit_head()).sequence
        answers = [await registered(rig, http=http) for _ in range(60)]
        codes = [answer.status_code for answer in answers]
        assert codes == [201] * 10 + [429] * 50
        refused = answers[-1]
        assert refused.json()["error"] == "slow_down"
        assert 0 < int(refused.headers["retry-after"]) <= 3720
        assert (len(await registered_clients(rig)), (await rig.gateway.store.audit_head()).sequence) == (
            10,
            before + 10,
        )
        neighbor = await registered(rig, http=rig.http(address="2001:db8::ffff:2"))
        assert neighbor.status_code == 429  # of the same /64
        assert (await registered(rig, http=rig.http(address="2001:db8:0:1::1"))).status_code == 201


async def test_what_cannot_be_read_counts_too() -> None:
    async with serving_oauth(authority=opened(registration_limit="2/hour")) as rig:
        http = rig.http()
        codes = [(await http.post("/oauth/register", content=b"x")).status_code for _ in range(3)]
        assert codes == [400, 400, 429]


async def test_refused_registrations_are_one_line_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async with serving_oauth(authority=opened(registration_limit="1/hour")) as rig:
        with caplog.at_level(logging.WARNING, logger="machpay_gateway.oauth.register"):
            for _ in range(20):
                await registered(rig)
    lines = [record for record in caplog.records if record.name == "machpay_gateway.oauth.register"]
    assert len(lines) == 1
    assert "registration_limit" in lines[0].getMessage()


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return new_sqlite(tmp_path / "oauth.db")
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def settings(database: str) -> Iterator[Options]:
    """Return what several workers serve by."""
    with running_server() as redis:
        oauth = opened(registration_clients=5)
        yield {"oauth": oauth, "database": database, "redis": redis.url, "secret_key": token_hex(32)}


async def test_no_more_clients_exist_than_may_also_when_many_register_at_once(settings: Options) -> None:
    async with serving_oauth(**settings) as rig, serving_oauth(**settings) as other:
        places = [each.http(address=f"192.0.2.{number}") for number in range(1, 21) for each in (rig, other)]
        answers = await asyncio.gather(*(registered(rig, http=http) for http in places))
        assert sorted(answer.status_code for answer in answers) == [201] * 5 + [429] * 35
        refused = next(answer for answer in answers if answer.status_code == 429)
        assert (refused.json()["error"], refused.headers["retry-after"]) == ("slow_down", "3600")
        assert len(await registered_clients(rig)) == 5
        assert await logged(rig, "client.create") == 5 + 2  # with the app of each
    async with serving_oauth(**settings) as rig:  # and after a restart
        assert (await registered(rig)).status_code == 429
        await rig.gateway.oauth_clients.delete(None, (await registered_clients(rig))[0].id)
        assert (await registered(rig)).status_code == 201  # as there is room for one again


async def test_refused_registrations_leave_one_counter_in_redis() -> None:
    with running_server() as redis:
        authority = opened(registration_limit="3/hour")
        async with serving_oauth(authority=authority, redis=redis.url) as rig:
            http, before = rig.http(address="2001:db8::1"), redis.command("DBSIZE")
            codes = [(await registered(rig, http=http)).status_code for _ in range(30)]
            assert codes == [201] * 3 + [429] * 27
            assert redis.command("DBSIZE") - before == 1, redis.command("KEYS", "*")


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.mark.parametrize(
    "headers, status, challenge",
    [
        ([("Authorization", f"Bearer {TOKEN}")], 201, None),
        ([("Authorization", f"bearer {TOKEN}")], 201, None),  # RFC 9110 §11.1: schemes are in any case
        ([], 401, 'Bearer realm="machpay"'),  # RFC 6750 §3.1: no code without a credential
        ([("Authorization", f"Bearer {TOKEN[:-1]}")], 401, 'Bearer realm="machpay", error="invalid_token"'),
        ([("Authorization", f"Bearer {TOKEN.upper()}")], 401, 'Bearer realm="machpay", error="invalid_token"'),
        ([("Authorization", TOKEN)], 401, 'Bearer realm="machpay", error="invalid_token"'),
        ([("Authorization", f"Basic {TOKEN}")], 401, 'Bearer realm="machpay", error="invalid_token"'),
        ([("Authorization", "Bearer")], 401, 'Bearer realm="machpay", error="invalid_token"'),
        ([("Authorization", f"Bearer {TOKEN}")] * 2, 401, 'Bearer realm="machpay", error="invalid_token"'),
    ],
)
async def test_where_a_token_is_set_only_its_holder_registers(
    share_open: ShareOpen, headers: list[tuple[str, str]], status: int, challenge: str | None
) -> None:
    rig = await share_open(registration_token=TOKEN)
    clients = await registered_clients(rig)
    answer = await rig.http().post("/oauth/register", json=ASKED, headers=headers)
    assert answer.status_code == status, answer.text
    assert answer.headers.get("www-authenticate") == challenge
    assert len(await registered_clients(rig)) - len(clients) == (status == 201)
    assert status == 201 or answer.json()["error"] == "invalid_token"
    assert TOKEN not in answer.text


async def test_guesses_at_the_token_slow_their_address_and_use_up_nothing_else() -> None:
    authority = opened(registration_token=TOKEN, registration_limit="1/hour")
    async with serving_oauth(authority=authority, failure_limit="5/minute") as rig:
        http = rig.http()
        for _ in range(10):  # without any token, as a browser may: no guess
            assert (await registered(rig, http=http)).status_code == 401
        wrong = [(await http.post("/oauth/register", json=ASKED, headers=bearer("x" * 40))) for _ in range(7)]
        assert [answer.status_code for answer in wrong] == [401] * 5 + [429] * 2
        elsewhere = await rig.http(address="192.0.2.9").post("/oauth/register", json=ASKED, headers=bearer(TOKEN))
        assert elsewhere.status_code == 201
        rig.gateway.failures.__init__(5, 60)  # type: ignore[misc]  # as a minute later
        assert (await http.post("/oauth/register", json=ASKED, headers=bearer(TOKEN))).status_code == 201


async def test_clients_that_no_user_allowed_are_removed_after_some_days(tmp_path: Path) -> None:
    path = tmp_path / "oauth.db"
    async with serving_oauth(authority=opened(), database=new_sqlite(path)) as rig:
        unused, used = [(await registered(rig)).json()["client_id"] for _ in range(2)]
        client = await rig.gateway.oauth_clients.get(None, used)
        await rig.code(client=client)
        rig.later(30 * DAY - 60)
        await registered(rig)
        assert {client.id for client in await registered_clients(rig)} >= {unused, used}
        rig.later(120)
        assert (await registered(rig, redirect_uris=[])).status_code == 400
        assert await rig.gateway.oauth_clients.get_even_deleted(None, unused) is None
        assert {client.id for client in await registered_clients(rig)} >= {used}
        assert await rig.gateway.oauth_clients.get(None, rig.client.id) is not None  # an operator's stays
        [row] = await rig.gateway.store.audit_page(None, filters=AuditFilter(action="client.remove_unused"))
        assert (row.actor_kind, row.before) == ("application", f'{{"clients":["{unused}"],"count":1}}')
    with closing(sqlite3.connect(path)) as connection:
        secrets = connection.execute("SELECT count(*) FROM oauth_client_secrets WHERE client_id = ?", (unused,))
        assert secrets.fetchall() == [(0,)]


async def test_the_hourly_clean_up_removes_unused_clients(tmp_path: Path) -> None:
    async with serving_oauth(authority=opened(), database=new_sqlite(tmp_path / "oauth.db")) as rig:
        await registered(rig)
        rig.later(31 * DAY)
        await rig.gateway.recorder._drop_old()  # noqa: SLF001 - what a flush does once an hour
        assert await registered_clients(rig) == []


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"registration_scopes": ["keys:manage"]}, "not for apps"),
        ({"registration_scopes": ["skills:*"]}, "not for apps"),
        ({"registration_scopes": ["a b"]}, "not a scope name"),
        ({"registration_scopes": 7}, "list of scopes"),
        ({"registration_token": "x" * 31}, "32 random characters"),
        ({"registration_token": "x" * 40 + " y"}, "32 random characters"),
        ({"registration_token": 7}, "32 random characters"),
        ({"registration_limit": "often"}, "is not a rate"),
        ({"registration_limit": 10}, "is not a rate"),
        ({"registration_clients": 0}, "whole number"),
        ({"registration_clients": 1.5}, "whole number"),
        ({"registration_clients": True}, "whole number"),
        ({"registration_days": 0}, "is not a number"),
    ],
    ids=str,
)
def test_a_setting_that_cannot_be_meant_stops_the_start(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        opened(**changes)
    assert str(changes.get("registration_token", "no token")) not in str(caught.value)


def test_a_scope_that_does_not_exist_stops_the_start() -> None:
    with pytest.raises(ConfigurationError, match=r"'skills:run' does not exist; known: account:read"):
        create_app(oauth=opened(registration_scopes=["skills:run"]), database="sqlite://")


def test_the_settings_of_registration_come_from_the_environment_too(tmp_path: Path) -> None:
    (tmp_path / "machpay.toml").write_text("")
    given = {"ISSUER": ISSUER, "REGISTRATION_TOKEN": TOKEN, "REGISTRATION_SCOPES": "account:read,skills:list"}
    given |= {"REGISTRATION_LIMIT": "3/day", "REGISTRATION_CLIENTS": "7", "REGISTRATION_DAYS": "2.5"}
    environ = {f"MACHPAY_OAUTH__{name}": value for name, value in given.items()}
    oauth = load_settings({"config": tmp_path / "machpay.toml"}, environ=environ).oauth
    assert oauth is not None
    assert (oauth.registration_token, oauth.registration_scopes) == (TOKEN, ("account:read", "skills:list"))
    assert (oauth.registration_tier.limit, oauth.registration_clients, oauth.registration_days) == (3, 7, 2.5)
    assert TOKEN not in repr(oauth)


def test_a_short_token_is_not_repeated(tmp_path: Path) -> None:
    short = token_hex(8)
    environ = {"MACHPAY_OAUTH__ISSUER": ISSUER, "MACHPAY_OAUTH__REGISTRATION_TOKEN": short}
    with pytest.raises(ConfigurationError, match="REGISTRATION_TOKEN") as caught:
        load_settings({"config": tmp_path / "machpay.toml"}, environ=environ)
    assert short not in str(caught.value)


async def test_a_client_that_is_removed_while_its_user_reads_the_page_is_an_error_page(tmp_path: Path) -> None:
    from tests.oauth.harness import request_of, submitted  # noqa: PLC0415 - this test's alone

    async with serving_oauth(authority=opened(), database=new_sqlite(tmp_path / "oauth.db")) as rig:
        client = await rig.gateway.oauth_clients.get(None, (await registered(rig)).json()["client_id"])
        assert client is not None
        browser = rig.http()
        page = await browser.get("/oauth/authorize", params=request_of(client))
        page = await submitted(browser, page, email=EMAIL, password=PASSWORD)
        page = await browser.get(page.headers["location"])
        given = rig.gateway.consents.give

        async def late(*args: Any) -> str:  # noqa: ANN401 - as `give`
            rig.later(31 * DAY)
            await rig.gateway.oauth_clients.remove_unused(30)
            return await given(*args)

        rig.gateway.consents.give = late  # type: ignore[method-assign,assignment]  # between looking and allowing
        answer = await submitted(browser, page, decision="allow")
        assert (answer.status_code, answer.headers.get("location")) == (400, None)
