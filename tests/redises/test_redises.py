"""What tests rely on: these servers do what their methods promise."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import AskError, AuthenticationError, MovedError, NoPermissionError, RedisError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

from tests.redises.cluster import SLOTS, Cluster
from tests.redises.faults import FaultProxy
from tests.redises.ports import free_port
from tests.redises.sentinel import SERVICE, Sentinels
from tests.redises.servers import Server, running_server
from tests.redises.tls import TlsServer, tls_server
from tests.redises.waiting import wait_until

ROOT = Path(__file__).parents[2]
# Short enough to wait for nothing, long enough for a busy machine.
IN_VAIN_SECONDS = 0.3
PATIENCE_SECONDS = 5.0


@contextmanager
def client(url: str, patience_seconds: float = PATIENCE_SECONDS, *, pooled: bool = True) -> Iterator[Redis]:
    """Connect as an application does, but never try twice.

    From a pool, redis-py quietly takes a new connection for one that it finds dead; without, it keeps its first.
    """
    retry, single = Retry(NoBackoff(), 0), not pooled
    with Redis.from_url(
        url, socket_timeout=patience_seconds, retry=retry, decode_responses=True, single_connection_client=single
    ) as redis:
        yield redis


def is_alive(pid: int) -> bool:
    with suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


def seconds_of(call: Callable[[], object]) -> float:
    start = time.monotonic()
    call()
    return time.monotonic() - start


def test_a_server_answers_on_its_port_and_on_its_socket(empty_redis: Server) -> None:
    with client(empty_redis.url) as by_port, client(empty_redis.unix_url) as by_socket:
        by_port.set("key", "ö")
        assert by_socket.get("key") == "ö"
    assert empty_redis.command("GET", "key") == "ö"


def test_a_killed_server_comes_back_empty_on_the_same_port() -> None:
    with running_server() as server:
        url, pid = server.url, server.pid
        server.command("SET", "key", "value")
        server.kill()
        with client(url) as redis, pytest.raises(RedisConnectionError):
            redis.ping()
        server.restart()
        with client(url) as redis:
            assert redis.get("key") is None
        assert server.pid != pid


def test_a_restarted_server_has_what_it_was_configured_to_keep() -> None:
    with running_server("--appendonly", "yes") as server:
        server.command("SET", "key", "value")
        server.restart()
        assert server.command("GET", "key") == "value"


def test_a_frozen_server_takes_connections_and_answers_only_when_thawed() -> None:
    with running_server() as server, client(server.url, IN_VAIN_SECONDS) as redis:
        with server.frozen(), pytest.raises(RedisTimeoutError):
            redis.ping()
        assert redis.ping()


@pytest.mark.parametrize("end", [Server.freeze, Server.kill, Server.stop, Server.restart])
def test_no_process_and_no_folder_outlive_the_block_whatever_a_test_did(end: Callable[[Server], None]) -> None:
    pids = []
    with suppress(ZeroDivisionError), running_server() as server:
        pids.append(server.pid)
        end(server)
        if server.is_running:
            pids.append(server.pid)
        raise ZeroDivisionError
    assert not any(map(is_alive, pids))
    assert not server.socket_path.parent.exists()


def test_no_server_and_no_folder_outlive_a_process_that_was_killed() -> None:
    program = (
        "import os, signal\n"
        "from tests.redises.servers import running_server\n"
        "with running_server() as server:\n"
        "    print(server.url, server.socket_path.parent, flush=True)\n"
        "    server.freeze()\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    finished = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, check=False, timeout=30)
    assert finished.returncode == -signal.SIGKILL, finished.stderr
    url, folder = finished.stdout.decode().split()
    wait_until(lambda: not Path(folder).exists(), seconds=PATIENCE_SECONDS, claim="the folder is gone")
    with client(url) as redis, pytest.raises(RedisConnectionError, match="refused"):
        redis.ping()


def test_a_server_that_cannot_start_reports_why() -> None:
    with pytest.raises(RuntimeError, match="argument must be a memory value"), running_server("--maxmemory", "lots"):
        pass


def test_a_port_that_was_taken_in_the_meantime_is_given_up(
    redis_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = free_port()
    ports = iter((redis_server.port, free))
    monkeypatch.setattr("tests.redises.servers.free_port", lambda: next(ports))
    with running_server() as server:
        assert server.port == free


def test_a_users_rules_hold_also_after_a_restart() -> None:
    with running_server(users={"reader": ("~read:*", "+get")}) as server:
        server.restart()
        server.command("ACL", "SETUSER", "default", "off")
        with client(server.url_for("reader")) as redis:
            assert redis.get("read:key") is None
            with pytest.raises(NoPermissionError):
                redis.set("read:key", "value")
        with client(server.url) as redis, pytest.raises(AuthenticationError):
            redis.ping()
        assert server.command("PING")


def test_the_nodes_of_a_cluster_serve_all_slots(redis_cluster: Cluster) -> None:
    assert redis_cluster.url == "redis+cluster://" + ",".join(
        f"127.0.0.1:{node.port}" for node in redis_cluster.servers
    )
    owners = [redis_cluster.owner_of(slot) for slot in (0, SLOTS // 2, SLOTS - 1)]
    assert owners == list(redis_cluster.servers)


def test_a_migrating_slot_answers_ask_and_then_moved(redis_cluster: Cluster) -> None:
    slot = redis_cluster.slot_of("{tag}")
    source = redis_cluster.owner_of(slot)
    target = next(node for node in redis_cluster.servers if node is not source)
    source.command("MSET", "{tag}1", "one", "{tag}2", "two")
    move = redis_cluster.slot_move(slot, source, target)
    move.begin()
    assert source.command("GET", "{tag}1") == "one"  # what has not moved is still served
    assert move.move_keys() == 2
    with pytest.raises(AskError) as redirection:
        source.command("GET", "{tag}1")
    assert redirection.value.port == target.port
    move.finish()
    with pytest.raises(MovedError):
        source.command("GET", "{tag}1")
    assert target.command("MGET", "{tag}1", "{tag}2") == ["one", "two"]
    redis_cluster.move_slot(slot, target, source)
    assert source.command("MGET", "{tag}1", "{tag}2") == ["one", "two"]
    assert redis_cluster.owner_of(slot) is source


def test_sentinels_name_the_replica_soon_after_the_primary_dies(redis_sentinels: Sentinels) -> None:
    primary, replica = redis_sentinels.primary, redis_sentinels.replica
    primary.command("SET", "key", "value")
    assert primary.command("WAIT", 1, 5000) == 1
    assert seconds_of(redis_sentinels.failover) < 10
    assert (redis_sentinels.primary, redis_sentinels.replica) == (replica, primary)
    for sentinel in redis_sentinels.sentinels:
        assert sentinel.command("SENTINEL GET-MASTER-ADDR-BY-NAME", SERVICE) == ("127.0.0.1", replica.port)
    assert replica.command("GET", "key") == "value"
    redis_sentinels.heal()
    wait_until(lambda: primary.command("GET", "key") == "value", seconds=PATIENCE_SECONDS, claim="it follows now")


@pytest.fixture
def proxy(redis_server: Server) -> Iterator[FaultProxy]:
    with FaultProxy(redis_server.port) as proxy:
        yield proxy


def test_a_delay_holds_up_both_directions_and_keeps_the_order(empty_redis: Server, proxy: FaultProxy) -> None:
    with client(proxy.url) as redis:
        redis.ping()
        proxy.delay_seconds = 0.1
        assert 0.2 <= seconds_of(redis.ping) < 2
        with redis.pipeline(transaction=False) as pipeline:
            for number in range(1000):
                pipeline.rpush("list", str(number).ljust(1000))  # a megabyte: more than one chunk
            assert pipeline.execute() == list(range(1, 1001))
        proxy.delay_seconds = 0.0
        assert seconds_of(redis.ping) < 0.1
    assert [int(number) for number in empty_redis.command("LRANGE", "list", 0, -1)] == list(range(1000))


def test_a_reset_ends_open_connections_and_lets_new_ones_in(proxy: FaultProxy) -> None:
    with client(proxy.url, pooled=False) as redis:
        redis.ping()
        proxy.reset_all()
        with pytest.raises(RedisConnectionError, match="reset by peer"):
            redis.ping()
        assert redis.ping()
    assert proxy.accepted == 2


def test_refused_clients_cannot_connect_while_the_others_go_on(proxy: FaultProxy) -> None:
    with client(proxy.url) as inside, client(proxy.url) as outside:
        inside.ping()
        proxy.refuse()
        proxy.refuse()  # a second time changes nothing
        with pytest.raises(RedisConnectionError, match="refused"):
            outside.ping()
        assert inside.ping()
        proxy.accept()
        assert outside.ping()


def test_a_black_hole_answers_nobody_and_keeps_the_connections_it_swallowed(
    empty_redis: Server, proxy: FaultProxy
) -> None:
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=PATIENCE_SECONDS) as before:
        before.sendall(b"PING\r\n")
        assert before.recv(100) == b"+PONG\r\n"
        before.settimeout(IN_VAIN_SECONDS)
        proxy.blackhole = True
        before.sendall(b"SET key value\r\n")
        with client(proxy.url, IN_VAIN_SECONDS) as during, pytest.raises(RedisTimeoutError):
            during.ping()
        proxy.blackhole = False
        before.sendall(b"PING\r\n")
        with pytest.raises(TimeoutError):
            before.recv(100)
        with client(proxy.url) as after:
            assert after.ping()
    assert empty_redis.command("GET", "key") is None


def test_a_proxy_hangs_up_when_its_server_is_dead() -> None:
    with running_server() as server, FaultProxy(server.port) as proxy, client(proxy.url, pooled=False) as redis:
        redis.ping()
        server.kill()
        for _ in range(2):  # the old connection, and a new one
            with pytest.raises(RedisConnectionError):
                redis.ping()
        server.restart()
        assert redis.ping()


@pytest.fixture(scope="module")
def secured() -> Iterator[TlsServer]:
    with tls_server() as secured:
        yield secured


def test_a_client_that_trusts_the_authority_is_served(secured: TlsServer) -> None:
    with client(secured.url) as redis:
        assert redis.set("key", "value")
    assert secured.server.command("GET", "key") == "value"


@pytest.mark.parametrize(
    "url, reason",
    [
        ("rediss://127.0.0.1:{port}/0", "CERTIFICATE_VERIFY_FAILED"),  # nobody vouches for the server
        ("rediss://localhost:{port}/0?ssl_ca_certs={ca}", "mismatch"),  # the certificate is for the address
        ("redis://127.0.0.1:{port}/0", None),  # plain text where TLS is spoken
    ],
)
def test_a_client_that_cannot_verify_the_server_is_not_served(secured: TlsServer, url: str, reason: str | None) -> None:
    with client(url.format(port=secured.port, ca=secured.ca_path)) as redis, pytest.raises(RedisError, match=reason):
        redis.ping()


def test_faults_reach_clients_through_tls(secured: TlsServer) -> None:
    with client(secured.url, pooled=False) as redis:
        redis.ping()
        secured.proxy.reset_all()
        with pytest.raises(RedisConnectionError):
            redis.ping()
        assert redis.ping()
