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

OK = "ok"
NEEDED = ("serving", "key store")  # the other checks are informative: requests are served all the same
_TIMEOUT_SECONDS = 2.0
# An unescaped password may contain @ itself: masking up to the last one hides too much rather than too little.
_IN_URL = re.compile(r"(://).*@")
_BY_NAME = re.compile(r"(passw(?:or)?d\s*=\s*)(?:'(?:[^'\\]|\\.)*'?|\S+)", re.IGNORECASE)
_LONGEST = 300  # characters of a driver's error
_MEANWHILE = {
    "local": "each worker counts by itself, up to its share of the limits",
    "deny": "requests with a key or token are refused with 503",
    "allow": "requests are admitted whatever the limits",
}


async def checks_of(gateway: Gateway, *, is_draining: bool) -> Mapping[str, str]:
    """Return the state of each component: `ok`, or what is wrong, its consequence, and the way out."""
    checks = {
        "serving": "draining: it finishes requests in flight, then exits; send requests elsewhere"
        if is_draining
        else OK,
        "key store": await _key_store(gateway),
        "limiter": _limiter(gateway),
        "usage": _usage(gateway),
    }
    if gateway.settings.oauth is not None:
        checks["signing keys"] = await _signing_keys(gateway)
    return checks


async def _key_store(gateway: Gateway) -> str:
    try:
        async with asyncio.timeout(_TIMEOUT_SECONDS):
            await gateway.store.versions_since(time.time())
    except TimeoutError:
        reason = (
            f"The database did not answer within {_TIMEOUT_SECONDS:.0f} s: check that it runs, and is not overloaded."
        )
    except StoreUnavailable as exc:
        reason = _masked(describe_error(exc))
    else:
        return OK
    return f"away: {reason} Cached keys are trusted for 5 s, then requests with a key are refused with 503."


def _limiter(gateway: Gateway) -> str:
    outage = gateway.limiter.outage
    if outage is None:
        return OK
    return (
        f"degraded: Redis has not answered for {outage.seconds:.0f} s ({_masked(outage.reason)}). Meanwhile "
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
