"""The metrics of one worker, collected from its components."""

from collections.abc import Iterator, Mapping

from machpay_gateway.gateway import Gateway
from machpay_gateway.proxy.pool import ServerPool
from machpay_gateway.proxy.proxy import Proxy
from machpay_gateway.serving.tls import CallerTls
from machpay_gateway.serving.vitals import Vitals
from machpay_gateway.telemetry.access_log import AccessLog
from machpay_gateway.telemetry.metrics import Counts, Series, batch_size_histogram


def collect_counts(
    gateway: Gateway, vitals: Vitals, proxy: Proxy | None, log: AccessLog | None, tls: CallerTls | None = None
) -> Counts:
    """Return the current counts of this worker; a *proxy*, a *log* and *tls* add their own."""
    gateway.recorder.gather()
    counts = dict(gateway.recorder.requests.counts)
    counts.update(_of_decisions(gateway))
    counts.update(vitals.counts())
    if proxy is not None:
        counts["machpay_connections", ()] = [len(proxy)]
        counts["machpay_requests_in_flight", ()] = [proxy.in_flight]
        for name, pool in proxy.router.pools.items():
            counts.update(_of_upstream(name, pool))
    if log is not None:
        counts["machpay_access_log_lost_total", ()] = [log.lost]
    if tls is not None:
        counts["machpay_certificates_stale", ()] = [float(bool(tls.mistake))]
        for file, expires_at in tls.expiries().items():
            counts["machpay_certificate_expiry_timestamp_seconds", (file,)] = [expires_at]
    return counts


def _of_decisions(gateway: Gateway) -> Iterator[tuple[Series, list[float]]]:
    steps, limiter, keys = gateway.steps, gateway.limiter, gateway.key_cache
    yield ("machpay_step_duration_seconds", ("decide",)), list(steps.decide)
    yield ("machpay_step_duration_seconds", ("admission",)), list(steps.admission)
    yield ("machpay_step_duration_seconds", ("upstream",)), list(steps.upstream)
    yield ("machpay_admission_batches_total", ()), [sum(limiter.batches.values())]
    yield ("machpay_admission_batch_size", ()), batch_size_histogram(limiter.batches)
    yield ("machpay_limiter_degraded", ()), [float(limiter.is_degraded)]
    yield from _by_label("machpay_degraded_decisions_total", limiter.counts)
    yield from _by_label("machpay_key_cache_lookups_total", {"hit": keys.hits, "miss": keys.misses})
    yield ("machpay_key_cache_entries", ()), [len(keys)]
    yield ("machpay_shed_requests_total", ()), [gateway.shedder.count]
    yield ("machpay_restored_records_total", ()), [gateway.restored.count]
    yield from _by_label("machpay_unknown_tier_requests_total", gateway.recorder.unknown_tiers.counts)
    yield ("machpay_usage_unstored", ()), [gateway.recorder.unstored]
    yield ("machpay_forwarding_ignored_total", ()), [gateway.trust.ignored.count]


def _of_upstream(name: str, pool: ServerPool) -> Iterator[tuple[Series, list[float]]]:
    yield ("machpay_upstream_connections", (name, "idle")), [sum(server.idle for server in pool.servers)]
    yield ("machpay_upstream_connections", (name, "busy")), [sum(server.in_flight for server in pool.servers)]
    yield ("machpay_upstream_connections_opened_total", (name,)), [sum(server.opened for server in pool.servers)]
    yield ("machpay_upstream_retries_total", (name,)), [pool.retries]
    problems = pool.problems()
    for server in pool.servers:
        yield ("machpay_upstream_server_up", (name, server.name)), [float(server.name not in problems)]
    for reason in pool.servers[0].errors:
        yield ("machpay_upstream_errors_total", (name, reason)), [sum(server.errors[reason] for server in pool.servers)]


def _by_label(metric: str, counts: Mapping[str, int]) -> Iterator[tuple[Series, list[float]]]:
    for value, count in counts.items():
        yield (metric, (value,)), [count]
