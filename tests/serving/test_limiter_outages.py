"""Redis refuses a gateway that serves: that is an outage like any other, however long, and nobody has to restart it."""

import os
import re
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex
from urllib.request import urlopen

import pytest

from tests.redises.servers import Server, running_server
from tests.serving.processes import Served, served
from tests.serving.test_lifecycle import ask, new_log, status, until
from tests.serving.test_replacing import hang_up
from tests.serving.test_stopping import ready

USER, LIMIT = "gw", 10_000
RIGHTS = ("+@all", "~machpay:*")


@contextmanager
def gateway_of(folder: Path, redis: Server, mode: str, *, workers: int = 1) -> Iterator[Served]:
    """Serve with a user of *redis* that tests change."""
    settings = f'redis = "{redis.add_user(USER, *RIGHTS)}"\non_limiter_failure = "{mode}"\n'
    tier = f'[tiers.standard]\nrate = "{LIMIT}/minute"\nconcurrency = 1000\n[server]\nworkers = {workers}\n'
    with served(folder, settings=settings + tier, management="127.0.0.1:0") as gateway:
        yield gateway


def statuses(gateway: Served, secret: str, requests: int = 50) -> Counter[int]:
    """Return how often each status answers *requests* with a key."""
    return Counter(status(ask(gateway, "/v1/x", f"Authorization: Bearer {secret}")) for _ in range(requests))


def degraded(gateway: Served) -> int:
    """Return how many workers decide without Redis, as the metrics have it."""
    with urlopen(f"{gateway.management}/metrics") as response:  # noqa: S310 - our own
        found = re.search(r"^machpay_limiter_degraded (\d+)", response.read().decode(), re.MULTILINE)
    return int(found[1]) if found else 0


def limiter_check(gateway: Served) -> str:
    """Return what readiness says of the limiter; the gateway is ready in any case."""
    code, body = ready(f"{gateway.management}/readyz")
    assert code == 200
    return str(body["limiter"])


def about_redis(log: str) -> list[str]:
    """Return the lines of *log* that warn of Redis."""
    return [line for line in log.splitlines() if " WARNING " in line and "Redis" in line]


def rotate_password(redis: Server) -> None:
    """Give the user another password, as somebody who rotates it does."""
    redis.command("ACL", "SETUSER", USER, "resetpass", f">{token_hex(8)}")


TAKEN: Mapping[str, Callable[[Server], object]] = {
    "the password": rotate_password,
    "EVALSHA": lambda redis: redis.command("ACL", "SETUSER", USER, "-evalsha"),
    "a command of a script": lambda redis: redis.command("ACL", "SETUSER", USER, "-mget"),
    "all commands": lambda redis: redis.command("ACL", "SETUSER", USER, "-@all"),
    "the keys": lambda redis: redis.command("ACL", "SETUSER", USER, "resetkeys", "~other:*"),
    "the user": lambda redis: redis.command("ACL", "SETUSER", USER, "off"),
}


@pytest.mark.parametrize("mode", ["local", "allow", "deny"])
def test_what_redis_refuses_while_serving_is_an_outage_that_ends_by_itself(tmp_path: Path, mode: str) -> None:
    expected = {503} if mode == "deny" else {200}
    with running_server() as redis, gateway_of(tmp_path, redis, mode) as gateway:
        secret = gateway.secret()
        assert set(statuses(gateway, secret)) == {200}
        for take in TAKEN.values():
            take(redis)
            redis.command("CLIENT", "KILL", "USER", USER)
            until(lambda: degraded(gateway) == 1)
            told = new_log(gateway)
            assert set(statuses(gateway, secret) + statuses(gateway, gateway.secret())) == expected
            assert limiter_check(gateway).startswith("degraded: ")
            give_back(redis, gateway)
            until(lambda: degraded(gateway) == 0)
            assert limiter_check(gateway) == "ok"
            assert set(statuses(gateway, secret)) == {200}
            assert len(about_redis(told())) <= 2


def give_back(redis: Server, gateway: Served) -> None:
    """Let the user do all again, with the password of the settings."""
    redis.command("ACL", "SETUSER", USER, "reset", "on", f">{_password(gateway)}", *RIGHTS)


def _password(gateway: Served) -> str:
    found = re.search(rf"redis://{USER}:([^@]+)@", (gateway.folder / "machpay.toml").read_text())
    assert found
    return found[1]


def test_workers_that_replace_others_while_redis_refuses_them_start_degraded(tmp_path: Path) -> None:
    with running_server() as redis, gateway_of(tmp_path, redis, "local", workers=2) as gateway:
        secret, before = gateway.secret(), set(gateway.workers())
        rotate_password(redis)
        redis.command("CLIENT", "KILL", "USER", USER)
        until(lambda: degraded(gateway) == 2)
        os.kill(min(before), signal.SIGKILL)
        until(lambda: "another one replaces it" in gateway.log and len(gateway.workers()) == 2)
        until(hang_up(gateway))
        until(lambda: not before & set(gateway.workers()))
        until(lambda: set(statuses(gateway, secret)) == {200})
        until(lambda: degraded(gateway) == 2)
        give_back(redis, gateway)
        until(lambda: degraded(gateway) == 0)


def test_a_password_in_a_file_is_rotated_without_a_restart(tmp_path: Path) -> None:
    file = tmp_path / "redis"
    with running_server() as redis:
        file.write_text(redis.add_user(USER, *RIGHTS) + "\n")
        environ = {"MACHPAY_REDIS_FILE": str(file)}
        with served(tmp_path, environ=environ, management="127.0.0.1:0") as gateway:
            secret, workers, password = gateway.secret(), gateway.workers(), token_hex(8)
            assert limiter_check(gateway) == "ok"
            redis.command("ACL", "SETUSER", USER, "resetpass", f">{password}")
            redis.command("CLIENT", "KILL", "USER", USER)
            until(lambda: degraded(gateway) == 1)
            file.write_text(f"redis://{USER}:{password}@127.0.0.1:{redis.port}/0\n")
            until(lambda: degraded(gateway) == 0)
            assert set(statuses(gateway, secret)) == {200}
            assert gateway.workers() == workers
            until(hang_up(gateway))  # with the same settings
            assert set(statuses(gateway, secret)) == {200}


def test_new_settings_of_redis_that_it_refuses_are_not_used(tmp_path: Path) -> None:
    with running_server() as redis, gateway_of(tmp_path, redis, "local") as gateway:
        settings, before = gateway.folder / "machpay.toml", gateway.workers()
        settings.write_text(settings.read_text().replace(_password(gateway), token_hex(8)))
        until(hang_up(gateway, message="the old ones stay in effect"))
        assert gateway.workers() == before
        assert degraded(gateway) == 0
