"""A cluster for tests: primaries without replicas, which share the slots evenly, and slots that move on request."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

from tests.redises.ports import HOST
from tests.redises.servers import Server, running_server
from tests.redises.waiting import wait_until

SLOTS = 16384
# A starting node answers after two seconds, and later on a busy machine.
_READY_SECONDS = 20
_MOVE_MILLISECONDS = 5000
_FLAGS = (
    *("--cluster-enabled", "yes"),
    *("--cluster-node-timeout", "2000"),
    *("--cluster-announce-ip", HOST),  # or a node without peers does not know its address
)


@dataclass(frozen=True, slots=True)
class SlotMove:
    """The migration of a *slot* from *source* to *target*, step by step, so that a test can stop between the steps."""

    cluster: "Cluster"
    slot: int
    source: Server
    target: Server

    def begin(self) -> None:
        """Let *source* answer ASK for keys that it does not have."""
        self.target.command("CLUSTER", "SETSLOT", self.slot, "IMPORTING", node_id(self.source))
        self.source.command("CLUSTER", "SETSLOT", self.slot, "MIGRATING", node_id(self.target))

    def move_keys(self, count: int = 1000) -> int:
        """Move at most *count* keys to *target*; return the number of keys moved."""
        keys = self.source.command("CLUSTER", "GETKEYSINSLOT", self.slot, count)
        if keys:
            to = (HOST, self.target.port, "", 0, _MOVE_MILLISECONDS)
            self.source.command("MIGRATE", *to, "KEYS", *keys)
        return len(keys)

    def finish(self) -> None:
        """Make *target* the owner: all nodes answer MOVED from here on. No key may be left behind."""
        owner = node_id(self.target)
        # The new owner first: otherwise two nodes redirect clients to each other for a moment.
        others = [server for server in self.cluster.servers if server not in {self.source, self.target}]
        for server in (self.target, self.source, *others):
            server.command("CLUSTER", "SETSLOT", self.slot, "NODE", owner)


@dataclass(frozen=True, slots=True)
class Cluster:
    """The nodes of one cluster."""

    servers: tuple[Server, ...]

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"{HOST}:{server.port}" for server in self.servers)

    def slot_of(self, key: str) -> int:
        return int(self.servers[0].command("CLUSTER", "KEYSLOT", key))

    def owner_of(self, slot: int) -> Server:
        """Return the node that claims to serve *slot*."""
        return next(server for server in self.servers if _serves(server, slot))

    def slot_move(self, slot: int, source: Server, target: Server) -> SlotMove:
        """Return the steps of a migration, none of them taken yet."""
        return SlotMove(self, slot, source, target)

    def move_slot(self, slot: int, source: Server, target: Server) -> None:
        """Move *slot* with its keys from *source* to *target*, all steps at once."""
        move = self.slot_move(slot, source, target)
        move.begin()
        while move.move_keys():
            pass
        move.finish()

    def flush(self) -> None:
        """Forget all keys and scripts on all nodes."""
        for server in self.servers:
            server.flush()

    def wait_until_ok(self) -> None:
        """Wait until every node sees every other and all slots served, as after a `restart`."""
        wait_until(self._is_ok, seconds=_READY_SECONDS, claim="all nodes of the cluster are content")

    def _is_ok(self) -> bool:
        return all(_sees_all(server, len(self.servers)) for server in self.servers)


def node_id(server: Server) -> str:
    """Return the id of *server* in its cluster."""
    return str(server.command("CLUSTER", "MYID"))


@contextmanager
def running_cluster(*flags: str, nodes: int = 3) -> Iterator[Cluster]:
    """Run a cluster of *nodes* primaries, each with further *flags*."""
    with ExitStack() as stack:
        cluster = Cluster(tuple(stack.enter_context(running_server(*_FLAGS, *flags)) for _ in range(nodes)))
        first = cluster.servers[0]
        for number, server in enumerate(cluster.servers):
            server.command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)  # equal ones take time to resolve
            server.command("CLUSTER", "ADDSLOTSRANGE", number * SLOTS // nodes, (number + 1) * SLOTS // nodes - 1)
            if server is not first:
                server.command("CLUSTER", "MEET", HOST, first.port)
        cluster.wait_until_ok()
        yield cluster


@contextmanager
def running_joined(cluster: Cluster, *flags: str) -> Iterator[Server]:
    """Run one more server in *cluster*, without slots, with further *flags*."""
    with running_server(*_FLAGS, *flags) as server:
        server.command("CLUSTER", "MEET", HOST, cluster.servers[0].port)
        nodes = len(cluster.servers) + 1
        for each in (server, *cluster.servers):
            wait_until(partial(_sees_all, each, nodes), seconds=_READY_SECONDS, claim="all nodes are seen")
        yield server


@contextmanager
def running_replica(cluster: Cluster, primary: Server) -> Iterator[Server]:
    """Run a replica of a *primary* of *cluster*, which takes over when that fails."""
    with running_joined(cluster) as replica:
        replica.command("CLUSTER", "REPLICATE", node_id(primary))
        wait_until(
            lambda: replica.command("ROLE")[3] == "connected", seconds=_READY_SECONDS, claim="the replica follows"
        )
        yield replica


def _sees_all(server: Server, nodes: int) -> bool:
    state = server.command("CLUSTER INFO")
    return (
        state["cluster_state"] == "ok"
        and int(state["cluster_slots_ok"]) == SLOTS
        and int(state["cluster_known_nodes"]) == nodes
    )


def _serves(server: Server, slot: int) -> bool:
    mine = node_id(server)
    return any(
        int(first) <= slot <= int(last) and owner[2] == mine
        for first, last, owner, *_ in server.command("CLUSTER", "SLOTS")
    )
