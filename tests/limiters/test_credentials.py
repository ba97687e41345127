"""Passwords in files: one that is rotated holds at the next attempt to connect, without a restart."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from secrets import token_hex

import pytest

from machpay_gateway.core.errors import ConfigurationError
from machpay_gateway.core.limits.rate import Tier
from machpay_gateway.limiters.redis import RedisLimiter
from machpay_gateway.limiters.redis.health_checks import check_redis
from tests.clocks import FixedClock
from tests.limiters.harness import START, Harness
from tests.redises.cluster import running_cluster
from tests.redises.ports import HOST
from tests.redises.sentinel import running_sentinels
from tests.redises.servers import Server, running_server

TEN = Tier("10/minute", 4)
PATIENCE_SECONDS = 10.0
ALL = ("on", "+@all", "~*", "&*")


def set_password(user: str, password: str, *servers: Server) -> None:
    """Let *password* be the only one of *user*, and end the connections of those who had another."""
    for server in servers:
        server.command("ACL", "SETUSER", user, *ALL, "resetpass", f">{password}")
        server.command("CLIENT", "KILL", "TYPE", "normal")


@asynccontextmanager
async def limiter_on(url: str, url_file: Path | None = None) -> AsyncIterator[Harness]:
    limiter = RedisLimiter(url, url_file=url_file)
    await limiter.open()
    try:
        yield Harness(limiter, FixedClock(START))
    finally:
        await limiter.close()


async def until(harness: Harness, *, degraded: bool) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while harness.limiter.is_degraded is not degraded:  # noqa: ASYNC110 - no event
            await asyncio.sleep(0.01)


async def rotate(harness: Harness, file: Path, text: str, user: str, *servers: Server) -> None:
    """Rotate the password to the one in *text*, which *file* has only later, and wait until that ended the outage."""
    password = token_hex(8)
    await asyncio.to_thread(set_password, user, password, *servers)
    await until(harness, degraded=True)
    await asyncio.sleep(0.2)  # for an attempt with the old one
    assert harness.limiter.is_degraded
    await asyncio.to_thread(file.write_text, text.format(password) + "\n")
    await until(harness, degraded=False)


@pytest.mark.parametrize("user", ["", "gateway"])
async def test_a_password_file_is_read_at_each_login(tmp_path: Path, user: str) -> None:
    file = tmp_path / "password"
    with running_server() as server:
        set_password(user or "default", "first", server)
        file.write_text("first\n")
        named = f"{user}@" if user else ""
        async with limiter_on(f"redis://{named}{HOST}:{server.port}/0?password_file={file}") as harness:
            assert (await harness.take(TEN)).left == 9
            for _ in range(2):
                await rotate(harness, file, "{}", user or "default", server)
            assert (await harness.take(TEN)).left == 8


async def test_the_file_of_a_url_is_read_at_each_login(tmp_path: Path) -> None:
    file = tmp_path / "redis"
    with running_server() as server:
        text = f"redis://gateway:{{}}@{HOST}:{server.port}/0"
        set_password("gateway", "first", server)
        file.write_text(text.format("first"))
        async with limiter_on(file.read_text(), file) as harness:
            assert (await harness.take(TEN)).left == 9
            await rotate(harness, file, text, "gateway", server)
            assert (await harness.take(TEN)).left == 8


async def test_a_file_with_the_urls_of_a_cluster_is_read_at_each_login(tmp_path: Path) -> None:
    file = tmp_path / "redis"
    with running_cluster() as cluster:
        text = cluster.url.replace("//", "//gateway:{}@")
        set_password("gateway", "first", *cluster.servers)
        file.write_text(text.format("first"))
        async with limiter_on(file.read_text(), file) as harness:
            await rotate(harness, file, text, "gateway", *cluster.servers)
            assert (await harness.take(TEN)).left == 9


async def test_sentinels_and_their_primary_have_password_files_of_their_own(tmp_path: Path) -> None:
    primary, sentinel = tmp_path / "primary", tmp_path / "sentinel"
    with running_sentinels() as sentinels:
        set_password("gateway", "first", sentinels.primary)
        set_password("watcher", "other", *sentinels.sentinels)
        primary.write_text("first")
        sentinel.write_text("other")
        url = sentinels.url.replace("//", "//gateway@")
        options = f"password_file={primary}&sentinel_username=watcher&sentinel_password_file={sentinel}"
        async with limiter_on(f"{url}?{options}") as harness:
            assert (await harness.take(TEN)).left == 9


@pytest.mark.parametrize(
    "userinfo, name, message",
    [
        ("", "missing", "missing cannot be read"),
        ("gateway:word@", "password", "the URL has a password and a password_file: name one of the two"),
    ],
)
def test_a_password_file_that_cannot_be_used_stops_the_start(
    tmp_path: Path, userinfo: str, name: str, message: str
) -> None:
    (tmp_path / "password").write_text("word")
    with pytest.raises(ConfigurationError, match=message):
        RedisLimiter(f"redis://{userinfo}{HOST}:6379/0?password_file={tmp_path / name}")


async def test_doctor_logs_in_by_a_password_file_and_does_not_show_the_password(tmp_path: Path) -> None:
    file, password = tmp_path / "password", token_hex(8)
    with running_server() as server:
        set_password("gateway", password, server)
        url = f"redis://gateway@{HOST}:{server.port}/0?password_file={file}"
        file.write_text(password)
        found = await check_redis(url, prefix="machpay", on_failure="local")
        assert found[0].message.startswith(f"redis://{HOST}:{server.port}/0 answers")
        file.write_text(f"{password}x")
        (refused,) = await check_redis(url, prefix="machpay", on_failure="local")
        assert "does not let us in" in refused.message
        assert password not in repr([*found, refused])
