"""Results for states that a test cannot bring a server into: old versions, full memory, broken clusters."""

import pytest

from machpay_gateway.core.check_result import CheckStatus
from machpay_gateway.limiters.redis.diagnostics import (
    ServerFacts,
    check_results,
    clock,
    cluster,
    latency,
    memory,
    persistence,
    version,
)
from machpay_gateway.limiters.redis.refusals import LimiterUse

OK, WARNING, WRONG = CheckStatus
ALONE = LimiterUse("machpay", "local")
IN_CLUSTER = LimiterUse("machpay", "local", "cluster")


@pytest.mark.parametrize(
    "info, status, message",
    [
        ({"redis_version": "6.0.20"}, WRONG, "Redis 6.0.20 is too old"),  # it has another CLIENT INFO and ACL
        ({"redis_version": "5.0.14"}, WRONG, "Redis 5.0.14 is too old"),
        ({"redis_version": "6.2.0"}, OK, "Redis 6.2.0"),
        ({"redis_version": "8.4.0"}, OK, "Redis 8.4.0"),
        ({"redis_version": "10.0"}, OK, "Redis 10.0"),  # compared as numbers
        (
            {"redis_version": "4.0", "server_name": "valkey", "valkey_version": "8.0.1"},
            OK,
            "Valkey 8.0.1",
        ),  # every version
        ({}, WRONG, "Redis of unknown version is too old"),
    ],
)
def test_a_supported_version_is_required(info: dict[str, str], status: CheckStatus, message: str) -> None:
    result = version(ServerFacts("", info=info), ALONE)

    assert (result.status, result.message) == (status, message)


@pytest.mark.parametrize("used, status", [(90, OK), (91, WARNING)])
def test_memory_that_is_nearly_full_is_a_warning(used: int, status: CheckStatus) -> None:
    info = {"maxmemory": "100", "used_memory": str(used), "maxmemory_policy": "noeviction"}
    result = memory(ServerFacts("", info=info), ALONE)

    assert result is not None
    assert result.status is status


@pytest.mark.parametrize(
    "aof, snapshots, replicas, message",
    [
        ("1", "", "0", "an append-only file, no replicas"),
        ("0", "900 1", "1", "snapshots, 1 replica: a restart loses"),
        (
            "0",
            "",
            "2",
            "nothing is written to disk, 2 replicas: after a restart without a replica to take over, windows",
        ),
        ("0", None, "0", "no append-only file, and whether there are snapshots cannot be read"),
    ],
)
def test_what_a_restart_loses_is_reported_and_never_wrong(
    aof: str, snapshots: str | None, replicas: str, message: str
) -> None:
    info = {"aof_enabled": aof, "connected_slaves": replicas}
    result = persistence(ServerFacts("", info=info, snapshots=snapshots), ALONE)

    assert result is not None
    assert result.status is OK
    assert result.message.startswith(message)


@pytest.mark.parametrize(
    "round_trips, status",
    [
        ([0.001] * 20, OK),
        ([0.001] * 19 + [0.15], OK),  # within the deadline of a decision
        ([0.001] * 19 + [0.21], WARNING),  # beyond it
        ([0.006] * 20, WARNING),
        ([0.21] * 10, WRONG),
    ],
)
def test_latency_is_judged_by_what_a_decision_waits(round_trips: list[float], status: CheckStatus) -> None:
    result = latency(ServerFacts("", round_trips=round_trips))

    assert result is not None
    assert result.status is status


@pytest.mark.parametrize(
    "state, status, message",
    [
        ({"cluster_state": "ok", "cluster_size": "1"}, OK, "state ok, 1 primary"),
        ({"cluster_state": "fail", "cluster_size": "2", "cluster_slots_ok": "9"}, WRONG, "9 of 16384 slots served"),
        (None, OK, "cannot be read"),
    ],
)
def test_a_cluster_serves_all_slots(state: dict[str, str] | None, status: CheckStatus, message: str) -> None:
    result = cluster(ServerFacts("", cluster=state), IN_CLUSTER)

    assert result is not None
    assert result.status is status
    assert message in result.message
    assert cluster(ServerFacts("", cluster=state), ALONE) is None


def test_of_several_servers_the_slowest_and_the_largest_clock_skew_are_reported() -> None:
    servers = [
        ServerFacts("a", round_trips=[0.001], ahead_seconds=-5.0),
        ServerFacts("b", round_trips=[0.02], ahead_seconds=2.0),
    ]

    slow, off = check_results(servers, IN_CLUSTER)[-2:]

    assert slow.message.startswith("b: median 20.0 ms")
    assert off.message.startswith("a: 5.0 s behind")


def test_missing_facts_have_no_result() -> None:
    silent = ServerFacts("")

    assert (memory(silent, ALONE), persistence(silent, ALONE), latency(silent), clock(silent)) == (None,) * 4
