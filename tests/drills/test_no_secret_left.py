"""Of a thousand secrets that were issued, used, rotated and misplaced, none stands anywhere in clear."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from httpx2 import AsyncClient

from machpay_gateway import Tier
from tests.drills.tiers import tightest_of_four
from tests.drills.workers import Fleet, running_workers
from tests.redises.servers import Server, running_server

KEYS, ROTATED, AT_ONCE = 800, 200, 8
TIERS = {"standard": tightest_of_four(Tier("1000000/minute", 50))}
ADMIN = ("keys:manage", "skills:execute")


@pytest.mark.drill
@pytest.mark.timeout(180)
async def test_no_issued_secret_is_found_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRILL_LOG_LEVEL", "DEBUG")
    with running_server() as server, running_workers(2, server.url, TIERS) as fleet:
        issued = await _issued(fleet)
        server.command("SAVE")
        held = dict(_contents(fleet, server, "while it ran"))
        for worker in fleet.workers:
            worker.stop()
        held |= dict(_contents(fleet, server, "after the stop"))
    leaks = sorted({name for name, content in held.items() for secret in issued if secret.encode() in content})
    size = sum(map(len, held.values()))
    print(f"\n{len(set(issued))} secrets looked for in {len(held)} files of {size:,} bytes: found in {len(leaks)}")
    assert len(set(issued)) == KEYS + ROTATED + 1
    looked_at = " ".join(held)
    assert all(name in looked_at for name in ("machpay.db while", "machpay.db-wal", "worker1.log", "dump.rdb"))
    assert "refused" in held["worker0.log after the stop"].decode()
    assert leaks == []


def _contents(fleet: Fleet, server: Server, when: str) -> Iterator[tuple[str, bytes]]:
    for path in [*fleet.folder.iterdir(), *server.log_path.parent.iterdir()]:
        if path.is_file():
            yield f"{path.name} {when}", Path(path).read_bytes()


async def _issued(fleet: Fleet) -> list[str]:
    """Issue secrets through the key API, use each, and put each where it does not belong; return them all."""
    [(_, admin)] = await fleet.keys(scopes=ADMIN)
    numbers = iter(range(KEYS))
    issued = [admin]

    async def work() -> None:
        async with AsyncClient(headers={"Authorization": f"Bearer {admin}"}, timeout=30) as client:
            for number in numbers:
                here, there = (f"http://127.0.0.1:{port}" for port in fleet.ports)
                key = await _created(client, here, number)
                issued.append(key["secret"])
                await _use_and_misplace(client, here, there, key["secret"])
                if number < ROTATED:
                    name = {"Idempotency-Key": f"rotate {number}"}
                    rotated = await client.post(f"{there}/v1/keys/{key['id']}/rotate", headers=name)
                    issued.append(rotated.json()["secret"])
                    await _use_and_misplace(client, there, here, rotated.json()["secret"])

    await asyncio.gather(*(work() for _ in range(AT_ONCE)))
    return issued


async def _created(client: AsyncClient, url: str, number: int) -> dict[str, str]:
    body = {"name": f"key {number}", "scopes": ["skills:execute"]}
    answers = [
        await client.post(f"{url}/v1/keys", json=body, headers={"Idempotency-Key": f"create {number}"})
        for _ in range(2)
    ]
    assert [answer.status_code for answer in answers] == [201, 201]
    assert answers[0].content == answers[1].content
    key: dict[str, str] = answers[0].json()
    return key


async def _use_and_misplace(client: AsyncClient, here: str, there: str, secret: str) -> None:
    own = {"Authorization": f"Bearer {secret}"}
    assert (await client.get(f"{there}/quick", headers=own)).status_code == 200
    assert (await client.get(f"{there}/v1/keys/{secret}", headers=own)).status_code == 403
    assert (await client.get(f"{here}/v1/keys/{secret}?after={secret}")).status_code == 422
    assert (await client.get(f"{here}/{secret}/quick", headers={"Authorization": f"Basic {secret}"})).status_code == 401
    placed = {"name": secret, "scopes": [secret], "metadata": {secret: secret}, secret: secret}
    refused = await client.post(f"{here}/v1/keys", json=placed, headers={"If-Match": secret, "X-Request-Id": secret})
    assert refused.status_code == 422
    assert secret not in refused.text
