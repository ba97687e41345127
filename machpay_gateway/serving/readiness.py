"""The readiness check: whether this worker can serve requests, and what is wrong in words that an operator can act on.

Each text begins with one word that programs may look for. Passwords are masked: drivers put URLs into their errors.
"""

import asyncio
import re
import time
from collections.abc import Mapping

from machpay_gateway.core.errors import StoreUnavailable, describe_error
from machpay_gateway.core.text import mask_secrets
from machpay_gateway.gateway import Gateway
from machpay_gateway.proxy.pool import ServerPool
from machpay_gateway.stores.lookup_queue import LOOKUP_SECONDS, finish_within

OK = "ok"
_NEEDED = ("serving", "key store")  # the other checks are informative: requests are served all the same
_DEGRADED, NOT_READY = "degraded", "not ready"
_TIMEOUT_SECONDS = 2.0
_NO_DIGEST = bytes(32)  # of no secret
# An unescaped password may contain @ itself: masking up to the last one hides too much rather than too little.
_IN_URL = re.compile(r"(://).*@")
_BY_NAME = re.compile(r"(passw(?:or)?d\s*=\s*)(?:'(?:[^'\\]|\\.)*'?|\S+)", re.IGNORECASE)
_LONGEST = 300  # characters of a driver's error
_READ_ONLY = (
    "read-only: keys are verified, and nothing can be changed or counted until the database takes writes again; "
    "`machpay-gateway doctor` says more."
)
_MEANWHILE = {
    "local": "each worker counts by itself, up to its share of the limits",
    "deny": "requests with a key or token are refused with 503",
    "allow": "requests are admitted whatever the limits",
}


def status_of(checks: Mapping[str, str]) -> str:
    """Return `ready`, `degraded` while some requests are served as they should not be or not at all, or `not ready`."""
    if all(check == OK for check in checks.values()):
        return "ready"
    is_ready = all(checks[name] == OK or checks[name].startswith(_DEGRADED) for name in _NEEDED)
    return _DEGRADED if is_ready else NOT_READY


async def checks_of(
    gateway: Gateway, *, is_draining: bool, pools: Mapping[str, ServerPool] | None = None
) -> Mapping[str, str]:
    """Return the state of each component: `ok`, or what is wrong, its consequence, and the way out.

    *pools* are those of the proxy, if there is one.
    """
    checks = {
        "serving": "draining: it finishes requests in flight, then exits; send requests elsewhere"
        if is_draining
        else OK,
        "key store": await _key_store(gateway),
        "limiter": _limiter(gateway),
        "usage": _usage(gateway),
    }
    if pools is not None:
        checks["upstreams"] = _upstreams(pools)
    if gateway.store.is_read_only:
        checks["database"] = _READ_ONLY
    if gateway.settings.oauth is not None:
        checks["signing keys"] = await _signing_keys(gateway)
    if (mistake := gateway.signing.secret_key_mistake()) is not None:
        checks["signing keys"] = f"wrong secret_key: sessions and tokens get 503, and issued ones still work. {mistake}"
    return checks


async def _key_store(gateway: Gateway) -> str:
    try:
        _ = await finish_within(_TIMEOUT_SECONDS, gateway.store.audit_head(), "audit log")
        # The query of requests with a new key: one of its tables may be locked while all others are read.
        _ = await finish_within(LOOKUP_SECONDS, gateway.store.find_by_digest(_NO_DIGEST), "key lookup")
    except StoreUnavailable as exc:
        reason = _masked(describe_error(exc))
    else:
        return OK
    if seconds := gateway.key_cache.trusted_seconds():
        return f"degraded: {reason} Keys in the cache are served for {seconds:.0f} s longer; all others get 503."
    if gateway.serves_without_store:
        return f"degraded: {reason} Requests with a key get 503; public routes and tokens of issuers are served."
    return f"away: {reason} Requests with a key get 503."


def _limiter(gateway: Gateway) -> str:
    outage = gateway.limiter.outage
    if outage is None:
        return OK
    server = f"{outage.part} of Redis have not answered" if outage.part else "Redis has not answered"
    return (
        f"degraded: {server} for {outage.seconds:.0f} s ({_masked(outage.reason)}). Meanwhile "
        f'{_MEANWHILE[outage.mode]} (on_limiter_failure = "{outage.mode}"): check that Redis runs; '
        "`machpay-gateway doctor` says more."
    )


def _usage(gateway: Gateway) -> str:
    outage, unstored = gateway.recorder.outage, gateway.recorder.unstored
    if outage is None:
        return OK
    return (
        f"unstored: {unstored} requests of the last {max(0.0, time.time() - outage.since):.0f} s are counted in memory "
        f"alone, and stored once that works again. {_masked(outage.reason)}"
    )


def _upstreams(pools: Mapping[str, ServerPool]) -> str:
    outages = [_outage_of(name, pool) for name, pool in pools.items() if pool.problems()]
    return " ".join([f"{_DEGRADED}:", *outages]) if outages else OK


def _outage_of(name: str, pool: ServerPool) -> str:
    problems, count = pool.problems(), len(pool.servers)
    consequence = "the others get its requests." if len(problems) < count else "requests are tried there nevertheless."
    reasons = "; ".join(f"{server}: {_masked(problem)}" for server, problem in problems.items())
    return f"{len(problems)} of {count} servers of `{name}` out ({reasons}); {consequence}"


async def _signing_keys(gateway: Gateway) -> str:
    try:
        async with asyncio.timeout(_TIMEOUT_SECONDS):
            keys = await gateway.signing.jwks()
    except (TimeoutError, StoreUnavailable):
        return "away: they cannot be read from the database, as `key store` says; cached ones still verify tokens."
    if not keys:
        return "missing: no token can be issued or verified: `machpay-gateway signing-keys rotate` creates one."
    return OK


def _masked(text: str) -> str:
    text = _BY_NAME.sub(r"\1…", _IN_URL.sub(r"\1…@", mask_secrets(text)))
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
