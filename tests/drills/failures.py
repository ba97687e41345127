"""The rows of the table of failures that one drill goes through: what fails, how it is mended, and where it shows."""

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from machpay_gateway import Gateway
from tests.drills.databases import away, frozen, locked_keys
from tests.drills.deployment import ACCOUNTS, DATABASE, MORE, MUCH, USER, Deployment, Needs
from tests.drills.open_loop import running_rate
from tests.drills.signs import Signs, distinct, furthest, missing_workers, total
from tests.redises.ports import HOST, free_port

FAULT_SECONDS = 20.0
SIGN_SECONDS = 30.0  # within which each promised sign is there
LAST = 5  # what is admitted of a limit within a second, before other workers hear of it
Fault = Callable[[Deployment], AbstractContextManager[None]]


@dataclass(frozen=True)
class Failure:
    """A row: a *fault* that lasts for *seconds*, or 0 if it is over at once or ends by itself.

    So many *windows* of a limit may be admitted in one. *served* is the least share of good requests meanwhile, and
    *recovered* the most seconds from the end of the fault until all is well. *over* units of a limit may be admitted
    in addition: a late reply is an outage, too, and before one, workers do not know what others admitted last.
    *prepare* is called before the load.
    """

    name: str
    fault: Fault
    signs: Signs
    seconds: float = FAULT_SECONDS
    windows: int = 1
    over: int = LAST
    served: float = 0.99
    recovered: float = 5.0
    needs: Needs = field(default_factory=Needs)
    prepare: Callable[[Deployment], None] = lambda _: None

    @property
    def is_there_first(self) -> bool:
        """Whether it has begun before the hosts start, so that it shows from the first request on."""
        return self.needs.is_redis_away or self.needs.is_issuer_away


@contextmanager
def redis_away(it: Deployment) -> Iterator[None]:
    it.redis.kill()
    yield
    it.redis.start()


@contextmanager
def redis_slow(it: Deployment) -> Iterator[None]:
    it.proxy.delay_seconds = 0.15  # each way
    yield
    it.proxy.delay_seconds = 0.0


def redis_frozen(it: Deployment) -> AbstractContextManager[None]:
    return it.redis.frozen()


@contextmanager
def redis_refuses(it: Deployment) -> Iterator[None]:
    it.redis.command("ACL", "SETUSER", USER, "resetpass", ">another")
    it.redis.command("CLIENT", "KILL", "USER", USER)
    yield
    it.redis.command("ACL", "SETUSER", USER, "resetpass", f">{urlsplit(it.redis.url_for(USER)).password}")


@contextmanager
def redis_read_only(it: Deployment) -> Iterator[None]:
    it.redis.command("REPLICAOF", HOST, free_port())
    yield
    it.redis.command("REPLICAOF", "NO", "ONE")


@contextmanager
def redis_full(it: Deployment) -> Iterator[None]:
    it.redis.command("CONFIG", "SET", "maxmemory", "100kb")
    yield
    it.redis.command("CONFIG", "SET", "maxmemory", "0")


@contextmanager
def redis_lost_its_data(it: Deployment) -> Iterator[None]:
    it.redis.flush()
    yield


@contextmanager
def shard_away(it: Deployment) -> Iterator[None]:
    assert it.cluster is not None
    it.cluster.servers[1].kill()
    yield
    it.cluster.servers[1].start()
    it.cluster.wait_until_ok()


@contextmanager
def started_without_redis(it: Deployment) -> Iterator[None]:
    yield
    it.redis.start()


@contextmanager
def database_read_only(it: Deployment) -> Iterator[None]:
    def set_read_only(value: str) -> None:
        it.postgres.execute(f"ALTER SYSTEM SET default_transaction_read_only = {value}", "SELECT pg_reload_conf()")

    set_read_only("on")
    yield
    set_read_only("off")


def back_up_and_change(it: Deployment) -> None:
    it.postgres.run("pg_dump", "--format=custom", f"--file={it.folder / 'backup'}", DATABASE)
    change_tiers(it, accounts=ACCOUNTS)


@contextmanager
def database_restored(it: Deployment) -> Iterator[None]:
    restore = ("pg_restore", "--clean", "--if-exists", "--single-transaction", f"--dbname={DATABASE}")
    it.postgres.run(*restore, str(it.folder / "backup"))
    yield


@contextmanager
def many_keys_change(it: Deployment) -> Iterator[None]:
    change_tiers(it, accounts=1)
    yield


@contextmanager
def disk_full(it: Deployment) -> Iterator[None]:
    logs = [host.gateway.folder / "access.log" for host in it.hosts]
    for log in logs:
        log.rename(log.with_suffix(".before"))
        log.symlink_to("/dev/full")
    yield
    for log in logs:
        log.unlink()
        log.with_suffix(".before").rename(log)


@contextmanager
def clock_wrong(it: Deployment) -> Iterator[None]:
    host = it.hosts[1]
    ahead = host.gateway.folder / "ahead"
    ahead.touch()
    host.signal(signal.SIGUSR2)
    yield
    ahead.unlink()
    host.signal(signal.SIGUSR2)


def worker_gets(number: signal.Signals) -> Fault:
    @contextmanager
    def fault(it: Deployment) -> Iterator[None]:
        os.kill(it.hosts[0].gateway.workers()[0], number)
        yield

    return fault


@contextmanager
def flood(it: Deployment) -> Iterator[None]:
    with running_rate(it.folder, it.ports, it.flood, 1500, FAULT_SECONDS, path="/v1/x"):
        yield


@contextmanager
def policies_differ(it: Deployment) -> Iterator[None]:
    gateway = it.hosts[1].gateway
    settings = gateway.folder / "machpay.toml"
    text = settings.read_text()
    for changed in (text.replace(f'"{MORE.rate}"', '"3000000/minute"'), text):
        settings.write_text(changed)
        gateway.supervisor.send_signal(signal.SIGHUP)
        if changed is not text:
            yield


@contextmanager
def upstream_away(it: Deployment) -> Iterator[None]:
    it.upstreams[0].kill()
    yield
    it.upstreams[0].start()


@contextmanager
def issuer_away(it: Deployment) -> Iterator[None]:
    it.issuers[0].stop()
    yield
    for issuer in it.issuers:
        issuer.start()


def change_tiers(it: Deployment, *, accounts: int) -> None:
    """Give the first *accounts* of the callers another tier, as the command does it."""

    async def change() -> None:
        tiers = {"much": MUCH, "more": MORE}
        async with Gateway(database=it.database, redis=it.redis.url_for(USER), tiers=tiers) as gateway:
            for number in range(accounts):
                changed = await gateway.accounts.set_tier(f"good{number}", "more")
                assert changed is not None

    asyncio.run(change())


def database(fault: Callable[..., AbstractContextManager[None]]) -> Fault:
    return lambda it: fault(it.postgres)


REDIS = Signs("limiter", total("machpay_limiter_degraded"), 3.0, "Redis", "redis.*")
STORE = Signs("key store", total("machpay_requests_total", outcome="unavailable"), 0.0, "atabase", "database.*")

FAILURES = (
    Failure("Redis is away", redis_away, REDIS),
    Failure("Redis is slow", redis_slow, REDIS, needs=Needs(is_proxied=True)),
    Failure("Redis hangs", redis_frozen, REDIS),
    Failure("Redis refuses the password", redis_refuses, REDIS),
    Failure("Redis is a replica", redis_read_only, REDIS),
    Failure("Redis has full memory", redis_full, REDIS),
    Failure("Redis lost its data", redis_lost_its_data, Signs(), 0.0, windows=2),
    Failure("one shard of a Cluster is away", shard_away, REDIS, needs=Needs(is_cluster=True)),
    Failure("workers start while Redis is away", started_without_redis, REDIS, needs=Needs(is_redis_away=True)),
    Failure("the database is away", database(away), STORE),
    Failure("the database hangs", database(frozen), STORE),
    Failure("a table is locked", database(locked_keys), STORE),
    Failure(
        "the database takes no writes",
        database_read_only,
        Signs("database", total("machpay_usage_unstored"), 3000.0, "", "database.*"),
    ),
    Failure(
        "the database was restored",
        database_restored,
        Signs("", total("machpay_restored_records_total"), 0.0, "another history"),
        0.0,
        # All accounts had changed since the backup. A record behind its marker is refused for 3 s, then believed: until
        # then it may be a stale read, by which a revoked key would pass.
        served=0.65,
        prepare=back_up_and_change,
    ),
    Failure("100,000 keys change their tier", many_keys_change, Signs(), 0.0, needs=Needs(more_keys=100_000)),
    Failure("a disk is full", disk_full, Signs("", total("machpay_access_log_lost_total"), 0.0, "access log")),
    Failure(
        "the clock of a host is wrong",
        clock_wrong,
        Signs("", furthest("machpay_clock_skew_seconds"), 5.0, "", ".* clock", hosts=(1,)),
    ),
    Failure("a worker dies", worker_gets(signal.SIGKILL), Signs(log="died with status -9", hosts=(0,)), 0.0),
    Failure(
        "a worker hangs",
        worker_gets(signal.SIGSTOP),
        Signs("", missing_workers, 0.0, "has not reported", hosts=(0,)),
        0.0,
        served=0.95,
        recovered=15.0,
    ),
    # It shows once it overloads a worker, which takes more than these callers can send beside: `test_flood` does.
    Failure("one account floods", flood, Signs(), served=0.0),
    Failure("hosts serve by different policies", policies_differ, Signs("", distinct("machpay_policy_info", "digest"))),
    Failure("an upstream fails", upstream_away, Signs("", total("machpay_upstream_errors_total"))),
    Failure("an issuer is away", issuer_away, Signs(log="key set"), needs=Needs(is_issuer_away=True)),
)
