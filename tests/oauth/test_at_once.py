"""The same code, and the same refresh token, fifty times at once over four workers (RFC 9700 §4.14)."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from secrets import token_hex
from typing import Any
from urllib.parse import urlencode

import orjson
import pytest
from httpx2 import AsyncClient, Limits

from machpay_gateway.core.oauth.settings import OAuthSettings
from machpay_gateway.settings import Options
from tests.oauth.harness import REDIRECT, VERIFIER, Rig, basic, serving_oauth
from tests.postgres.fixtures import MIGRATED, postgres_server
from tests.prepared import new_sqlite
from tests.redises.servers import running_server
from tests.serving.processes import Served, served

__all__ = ["postgres_server"]

ISSUER = "http://127.0.0.1"
TIMES = 50


class Workers:
    """Four workers that serve, and in this process somebody who may sign in on the same database."""

    def __init__(self, gateway: Served, rig: Rig) -> None:
        self.gateway = gateway
        self.rig = rig
        self.url = f"http://127.0.0.1:{gateway.port}"

    async def at_once(self, **sent: str) -> list[dict[str, Any]]:
        """Send the same token request on fifty connections of their own, and return what was answered."""
        body = urlencode(sent).encode()
        headers = basic(self.rig.client.id, self.rig.secret) | {"Content-Type": "application/x-www-form-urlencoded"}
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        request = f"POST /oauth/token HTTP/1.1\r\nHost: x\r\n{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
        streams = [await asyncio.open_connection("127.0.0.1", self.gateway.port) for _ in range(TIMES)]
        for _, writer in streams:
            writer.write(request)
        answers = await asyncio.gather(*(_answer(reader) for reader, _ in streams))
        for _, writer in streams:
            writer.close()
        return answers

    async def statuses(self, token: str) -> set[int]:
        """Return what the API says to *token*, on as many connections as reach every worker."""
        statuses = set()
        async with AsyncClient(limits=Limits(max_keepalive_connections=0)) as http:  # a connection for each request
            for _ in range(24):
                answer = await http.get(f"{self.url}/v1/whoami", headers={"Authorization": f"Bearer {token}"})
                statuses.add(answer.status_code)
        return statuses

    async def is_dead_everywhere(self, token: str) -> bool:
        """Tell whether no worker takes *token* any more, within a second from now."""
        until = time.monotonic() + 1
        while await self.statuses(token) != {401}:
            if time.monotonic() > until:
                return False
        return True


async def _answer(reader: asyncio.StreamReader) -> dict[str, Any]:
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
    document: dict[str, Any] = orjson.loads(await reader.readexactly(length))
    return document


# Each place serves for all its tests: it takes longer to start than they take.
PLACES = [
    pytest.param((database, grace), id=f"{database}-{kind}", marks=pytest.mark.xdist_group(f"{database} {kind}"))
    for database in ("sqlite", "postgresql")
    for grace, kind in ((10, "grace"), (0, "no grace"))
]


pytestmark = pytest.mark.parametrize("place", PLACES, indirect=True, scope="module")


@pytest.fixture(scope="module")
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, Options]]:
    """Four workers that serve, and the settings of a gateway beside them."""
    (database, grace), folder = request.param, tmp_path_factory.mktemp("workers")
    if database == "sqlite":
        url = new_sqlite(folder / "oauth.db")
    else:
        url = request.getfixturevalue("postgres_server").make_database(f"at_once_{grace}", template=MIGRATED)
    with running_server() as redis:
        options = Options(
            database=url,
            secret_key=token_hex(32),
            redis=redis.url,
            failure_limit="900000/minute",
            oauth=OAuthSettings(ISSUER, refresh_grace_seconds=grace),
        )
        environ = {f"MACHPAY_{name.upper()}": str(value) for name, value in options.items() if name != "oauth"}
        settings = f'[server]\nworkers = 4\n[oauth]\nissuer = "{ISSUER}"\nrefresh_grace_seconds = {grace}\n'
        with served(folder, settings=settings, environ=environ) as gateway:
            yield gateway, options


@pytest.fixture(scope="module")
async def beside(place: tuple[Served, Options]) -> AsyncIterator[Rig]:
    """A gateway in this process on the same database."""
    _, options = place
    async with serving_oauth(**options) as rig:
        yield rig


@pytest.fixture
async def workers(place: tuple[Served, Options], beside: Rig) -> AsyncIterator[Workers]:
    gateway, _ = place
    rig = await beside.share()
    yield Workers(gateway, rig)
    await rig.close()


async def test_fifty_presentations_of_a_code_give_tokens_once_and_then_end_them(workers: Workers) -> None:
    code = await workers.rig.code()
    answers = await workers.at_once(
        grant_type="authorization_code", code=code, redirect_uri=REDIRECT, code_verifier=VERIFIER
    )
    good = [answer for answer in answers if "access_token" in answer]
    errors = Counter(answer.get("error") for answer in answers)
    assert len(good) == 1
    assert errors == {None: 1, "invalid_grant": TIMES - 1}
    assert await workers.is_dead_everywhere(good[0]["access_token"])
    assert (await workers.rig.refreshed(good[0]["refresh_token"])).json()["error"] == "invalid_grant"


async def test_fifty_presentations_of_a_refresh_token_have_one_successor(workers: Workers) -> None:
    tokens = await workers.rig.tokens()
    answers = await workers.at_once(grant_type="refresh_token", refresh_token=tokens["refresh_token"])
    good = [answer for answer in answers if "access_token" in answer]
    successors = {answer["refresh_token"] for answer in good}
    assert len(successors) == 1
    if workers.rig.gateway.settings.oauth.refresh_grace_seconds:  # type: ignore[union-attr]  # it is set
        assert len(good) == TIMES  # the answer and its twins
        (successor,) = successors
        assert (await workers.rig.refreshed(successor)).status_code == 200
        again = await workers.rig.refreshed(tokens["refresh_token"])  # its successor was used: no retry any more
        assert again.json()["error"] == "invalid_grant"
    else:
        assert len(good) == 1
        assert sum(answer.get("error") == "invalid_grant" for answer in answers) == TIMES - 1
    for answer in good[:2]:
        assert await workers.is_dead_everywhere(answer["access_token"])
    assert (await workers.rig.refreshed(successors.pop())).json()["error"] == "invalid_grant"
