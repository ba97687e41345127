"""A primary, its replica and three sentinels for tests, with timeouts for a failover within seconds."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from tests.redises.ports import HOST
from tests.redises.servers import Server, running_server
from tests.redises.waiting import wait_until

SERVICE = "primary"
_QUORUM = 2
_READY_SECONDS = 20
# Sentinels do by default every one, two or ten seconds what they do several times a second here.
_SHORT_PERIODS = (
    *("INFO-PERIOD", 300),
    # A replica may be promoted if its INFO is at most five of these old, and once the primary is down, INFO comes every
    # second whatever its period: with less than 200, the sentinels often have no candidate, and retry much later.
    *("PING-PERIOD", 300),
    *("ASK-PERIOD", 100),
    *("PUBLISH-PERIOD", 200),
    *("MIN-LINK-RECONNECT-PERIOD", 500),
    *("ELECTION-TIMEOUT", 1000),
    # A sentinel that notices its own delay does nothing for this long, which is often on a busy machine.
    *("TILT-PERIOD", 1000),
)


class Sentinels:
    """The *sentinels* and the servers they watch, *primary* and *replica*, which swap roles in a failover."""

    def __init__(self, sentinels: Sequence[Server], primary: Server, replica: Server) -> None:
        self.sentinels = tuple(sentinels)
        self.primary = primary
        self.replica = replica

    @property
    def url(self) -> str:
        hosts = ",".join(f"{HOST}:{sentinel.port}" for sentinel in self.sentinels)
        return f"redis+sentinel://{hosts}/{SERVICE}/0"

    def failover(self) -> None:
        """Kill the primary and wait until all living sentinels name the replica instead.

        Afterwards `primary` is the new one, and `replica` the dead one until `heal` starts it again.
        """
        self.primary.kill()
        self.primary, self.replica = self.replica, self.primary
        wait_until(self._is_promoted, seconds=_READY_SECONDS, claim="all sentinels name the replica as primary")

    def heal(self) -> None:
        """Start the dead servers, and wait until a replica is ready for the next failover."""
        for server in (self.primary, self.replica, *self.sentinels):
            if not server.is_running:
                server.start()
        self.wait_until_agreed()

    def flush(self) -> None:
        """Forget all keys and scripts; the replica follows."""
        self.primary.flush()

    def wait_until_agreed(self) -> None:
        """Wait until all sentinels know each other, the primary, and a replica that has all its data."""
        for sentinel in self.sentinels:
            sentinel.command("SENTINEL", "DEBUG", *_SHORT_PERIODS)
        wait_until(self._is_agreed, seconds=_READY_SECONDS, claim="all sentinels agree on the primary and its replica")

    def _is_promoted(self) -> bool:
        alive = [sentinel for sentinel in self.sentinels if sentinel.is_running]
        return _is_primary(self.primary) and all(_named_port(sentinel) == self.primary.port for sentinel in alive)

    def _is_agreed(self) -> bool:
        return self._is_promoted() and _follows(self.replica) and all(map(self._sees_all, self.sentinels))

    def _sees_all(self, sentinel: Server) -> bool:
        state = sentinel.command("SENTINEL MASTER", SERVICE)
        replicas = {
            int(replica["port"])
            for replica in sentinel.command("SENTINEL SLAVES", SERVICE)
            if replica["flags"] == "slave" and replica["master-link-status"] == "ok"
        }
        return (
            state["flags"] == "master"
            and state["num-other-sentinels"] == len(self.sentinels) - 1
            and replicas == {self.replica.port}
        )


@contextmanager
def running_sentinels() -> Iterator[Sentinels]:
    """Run a primary, its replica and three sentinels, of which two must agree."""
    with ExitStack() as stack:
        # The replica's data at once: by default the primary waits five seconds for further replicas.
        primary, replica = (stack.enter_context(running_server("--repl-diskless-sync-delay", "0")) for _ in range(2))
        # By command and not as a flag: after a restart the sentinels decide which of the two is the replica.
        replica.command("REPLICAOF", HOST, primary.port)
        wait_until(lambda: _follows(replica), seconds=_READY_SECONDS, claim="the replica has the primary's data")
        lines = (
            f"sentinel monitor {SERVICE} {HOST} {primary.port} {_QUORUM}",
            f"sentinel down-after-milliseconds {SERVICE} 500",
            f"sentinel failover-timeout {SERVICE} 2000",
        )
        sentinels = [stack.enter_context(running_server("--sentinel", lines=lines)) for _ in range(3)]
        watched = Sentinels(sentinels, primary, replica)
        watched.wait_until_agreed()
        yield watched


def _is_primary(server: Server) -> bool:
    return bool(server.command("INFO", "replication")["role"] == "master")


def _follows(server: Server) -> bool:
    state = server.command("INFO", "replication")
    return state["role"] == "slave" and bool(state["master_link_status"] == "up")


def _named_port(sentinel: Server) -> int:
    _host, port = sentinel.command("SENTINEL GET-MASTER-ADDR-BY-NAME", SERVICE)
    return int(port)
