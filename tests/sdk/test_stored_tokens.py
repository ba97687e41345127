"""Tokens that several processes share: `load_tokens` returns what another one has stored."""

import datetime as dt
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import machpay
import pytest

from tests.sdk.conftest import Twin
from tests.sdk.issuing import Issuer, refresh_token, token
from tests.sdk.scripted import Reply, Script

GRANT: dict[str, Any] = {"api_key": None, "refresh_token": refresh_token(0), "client_id": "app_1"}
HELD: dict[str, Any] = {**GRANT, "access_token": token(0)}


@pytest.fixture
def issuer(script: Script) -> Issuer:
    return Issuer(script)


class Store:
    """What processes share, in memory."""

    def __init__(self) -> None:
        self.tokens: Any = None
        self.loads = 0

    def save(self, tokens: machpay.Tokens) -> None:
        self.tokens = {"access_token": tokens.access_token, "refresh_token": tokens.refresh_token}

    def load(self) -> Any:  # noqa: ANN401 - whatever is stored
        self.loads += 1
        return self.tokens


async def test_clients_that_share_a_store_use_a_refresh_token_once(twin: Twin, issuer: Issuer) -> None:
    store = Store()
    first, second = (twin.client(**HELD, on_tokens=store.save, load_tokens=store.load) for _ in range(2))
    issuer.end()
    await twin.resolve(first.whoami())
    await twin.resolve(second.whoami())  # with the refresh token that the first one has used
    assert (issuer.issued, issuer.events) == (1, ["api", "token", "api", "api", "api"])
    issuer.end()
    await twin.resolve(second.whoami())
    await twin.resolve(first.whoami())
    assert (issuer.issued, store.loads) == (2, 4)


async def test_nothing_is_loaded_while_the_token_works(twin: Twin, issuer: Issuer) -> None:
    store = Store()
    for _ in range(2):
        await twin.resolve(twin.client(**HELD, on_tokens=store.save, load_tokens=store.load).whoami())
    assert (store.loads, issuer.issued) == (0, 0)


@pytest.mark.parametrize("kind", [dict, machpay.StoredTokens, machpay.Tokens])
async def test_a_client_may_begin_with_what_is_stored(twin: Twin, issuer: Issuer, kind: Any) -> None:  # noqa: ANN401 - a class
    members: dict[str, Any] = {"access_token": token(0), "refresh_token": refresh_token(0)}
    stored = kind(**members, **({"response": machpay.Response(200, {})} if kind is machpay.Tokens else {}))  # type: ignore[arg-type]  # no headers
    client = twin.client(api_key=None, client_id="app_1", on_tokens=lambda _: None, load_tokens=lambda: stored)
    await twin.resolve(client.whoami())
    assert issuer.events == ["api"]


@pytest.mark.parametrize("is_json", [False, True])
async def test_stored_tokens_that_expire_soon_are_refreshed(twin: Twin, issuer: Issuer, *, is_json: bool) -> None:
    end: Any = dt.datetime.fromtimestamp(twin.world.now - 1, dt.UTC)
    end = end.isoformat() if is_json else end
    stored = machpay.StoredTokens(access_token=token(0), refresh_token=refresh_token(0), expires_at=end)
    saved: list[machpay.Tokens] = []
    client = twin.client(api_key=None, client_id="app_1", on_tokens=saved.append, load_tokens=lambda: stored)
    await twin.resolve(client.whoami())
    assert (issuer.events, saved[0].access_token) == (["token", "api"], token(1))
    assert token(0) not in repr(stored)


async def test_a_refresh_token_that_was_used_meanwhile_is_replaced_by_the_stored_one(
    twin: Twin, issuer: Issuer
) -> None:
    store = Store()
    loads: list[Any] = [None, {"access_token": token(1), "refresh_token": refresh_token(1)}]
    client = twin.client(**GRANT, on_tokens=store.save, load_tokens=lambda: loads.pop(0))
    issuer.issued = 1  # by another process, between our look at the store and our request
    assert (await twin.resolve(client.whoami())).id == "key_1"
    assert (issuer.events, loads) == (["token", "api"], [])


async def test_a_new_sign_in_revives_a_client(twin: Twin, issuer: Issuer) -> None:
    store = Store()
    client = twin.client(**GRANT, on_tokens=store.save, load_tokens=store.load)
    issuer.answers = [Reply(400, {"error": "invalid_grant"})]
    for _ in range(2):
        with pytest.raises(machpay.OAuthError):
            await twin.resolve(client.whoami())
    assert issuer.events == ["token"]
    issuer.issued = 5
    store.tokens = {"access_token": token(5), "refresh_token": refresh_token(5)}
    assert (await twin.resolve(client.whoami())).id == "key_1"


async def test_tokens_that_could_not_be_stored_are_not_replaced_by_older_ones(twin: Twin, issuer: Issuer) -> None:
    store = Store()
    store.tokens = {"access_token": token(0), "refresh_token": refresh_token(0)}

    def fail(_: machpay.Tokens) -> None:
        raise OSError("the disk is full")

    client = twin.client(**GRANT, on_tokens=fail, load_tokens=store.load)
    for _ in range(2):
        with pytest.raises(OSError, match="full"):
            await twin.resolve(client.whoami())
        twin.world.now += 3600
    assert (issuer.issued, store.loads) == (2, 1)


@pytest.mark.parametrize(
    "stored, match",
    [
        (None, "sign in"),
        ({"access_token": "a"}, "no refresh_token"),
        ({"access_token": "a\nb", "refresh_token": "r"}, "white space"),
        ({"access_token": "a", "refresh_token": 7}, "is a int"),
        ({"refresh_token": "r", "expires_at": 17}, "time zone"),
        ({"refresh_token": "r", "expires_at": "soon"}, "time zone"),
        ({"refresh_token": "r", "expires_at": "2030-01-01T00:00:00"}, "time zone"),
    ],
)
async def test_what_cannot_be_used_of_a_store_is_an_error(twin: Twin, stored: object, match: str) -> None:
    client = twin.client(api_key=None, client_id="a", on_tokens=lambda _: None, load_tokens=lambda: stored)
    with pytest.raises(machpay.ConfigurationError, match=match):
        await twin.resolve(client.whoami())


def test_reading_without_storing_is_refused() -> None:
    with pytest.raises(machpay.ConfigurationError, match="without on_tokens"):
        machpay.MachPay(load_tokens=dict, refresh_token="r", client_id="a")
    with pytest.raises(machpay.ConfigurationError, match="without client_id"):
        machpay.MachPay(load_tokens=dict, on_tokens=print)
    with pytest.raises(machpay.ConfigurationError, match="never refreshed"):
        machpay.MachPay("k", load_tokens=dict, on_tokens=print, client_id="a")


async def test_what_loads_tokens_may_ask_with_the_client(twin: Twin, issuer: Issuer) -> None:
    issuer.end()

    def load() -> Any:  # noqa: ANN401 - either kind
        async def ask() -> None:
            with pytest.raises(machpay.AuthenticationError):
                await twin.resolve(client.whoami())

        if twin.kind is machpay.AsyncMachPay:
            return ask()
        with pytest.raises(machpay.AuthenticationError):
            client.whoami()
        return None

    client = twin.client(**HELD, on_tokens=lambda _: None, load_tokens=load)
    assert (await twin.resolve(client.whoami())).id == "key_1"


def test_a_callback_that_waits_for_another_thread_ends_with_an_error(
    served: tuple[Script, str], issuer: Issuer
) -> None:
    def take(_: machpay.Tokens) -> None:
        with ThreadPoolExecutor(1) as pool:
            pool.submit(client.whoami).result()

    client = machpay.MachPay(**{**GRANT, "on_tokens": take, "base_url": served[1], "timeout": 0.2, "max_retries": 0})
    with client, pytest.raises(machpay.APITimeoutError, match="must not use this client"):
        client.whoami()
    assert issuer.events == ["token"]


PROGRAM = """
import json, os, sys
import machpay

path, url, access_token, refresh_token = sys.argv[1:]

def save(tokens):
    with open(path, "w") as file:
        json.dump({"access_token": tokens.access_token, "refresh_token": tokens.refresh_token}, file)

def load():
    return json.load(open(path)) if os.path.exists(path) else None

client = machpay.MachPay(access_token=access_token, refresh_token=refresh_token, client_id="app_1", base_url=url,
    on_tokens=save, load_tokens=load)
print("ready", flush=True)
for _ in sys.stdin:
    print(client.whoami().id, flush=True)
"""


def test_two_processes_share_one_sign_in(served: tuple[Script, str], issuer: Issuer, tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "tokens"), served[1], token(0), refresh_token(0)]
    processes = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for _ in range(2):  # the second round is longer after the first than any grace of a used refresh token
            issuer.end()
            for process in processes:
                assert process.stdin is not None
                assert process.stdout is not None
                process.stdin.write("\n")
                process.stdin.flush()
                assert process.stdout.readline() == "key_1\n"
    finally:
        for process in processes:
            process.communicate(timeout=20)
    assert issuer.issued == 2
