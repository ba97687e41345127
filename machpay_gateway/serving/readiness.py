"""Whether requests should come here, and what is wrong in words that an operator can act on.

Each begins with one word that programs may look for. No password is repeated, though drivers put URLs into errors.
"""

import asyncio
import re
import time
from collections.abc import Mapping

from machpay_gateway.core.errors import StoreUnavailable, describe_error
from machpay_gateway.core.text import mask_secrets
from machpay_gateway.gateway import Gateway

OK = "ok"
NEEDED = ("serving", "key store")  # without the others requests are served all the same, each as it says
_PATIENCE_SECONDS = 2.0
# Where one was not escaped, nothing tells it from what follows but the last @: rather too much is left out than a part.
_IN_URL = re.compile(r"(://).*@")
_BY_NAME = re.compile(r"(passw(?:or)?d\s*=\s*)(?:'(?:[^'\\]|\\.)*'?|\S+)", re.IGNORECASE)
_LONGEST = 300  # characters of what a driver has to say
_MEANWHILE = {
    "local": "each worker counts for itself, up to its part of the limits",
    "deny": "requests with a key or token are refused with 503",
    "allow": "requests are admitted whatever the limits",
}


async def checks_of(gateway: Gateway, *, is_draining: bool) -> Mapping[str, str]:
    """Return what there is to say of each part: `ok`, or what is wrong, what follows from it, and what to do."""
    checks = {
        "serving": "draining: it answers what is under way, and ends; send requests elsewhere" if is_draining else OK,
        "key store": await _key_store(gateway),
        "limiter": _limiter(gateway),
        "usage": _usage(gateway),
    }
    if gateway.settings.oauth is not None:
        checks["signing keys"] = await _signing_keys(gateway)
    return checks


async def _key_store(gateway: Gateway) -> str:
    try:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            await gateway.store.versions_since(time.time())
    except TimeoutError:
        reason = f"The database did not answer within {_PATIENCE_SECONDS:.0f} s: see that it runs, and has time."
    except StoreUnavailable as exc:
        reason = _said(describe_error(exc))
    else:
        return OK
    return f"away: {reason} Keys seen lately are trusted for 5 s, then requests with a key are refused with 503."


def _limiter(gateway: Gateway) -> str:
    outage = gateway.limiter.outage
    if outage is None:
        return OK
    return (
        f"degraded: Redis has not answered for {outage.seconds:.0f} s ({_said(outage.reason)}). Meanwhile "
        f'{_MEANWHILE[outage.mode]} (on_limiter_failure = "{outage.mode}"): see that Redis runs; '
        "`machpay-gateway doctor` says more."
    )


def _usage(gateway: Gateway) -> str:
    outage, unstored = gateway.recorder.outage, gateway.recorder.unstored
    if outage is None:
        return OK
    return (
        f"unstored: {unstored} requests of the last {max(0.0, time.time() - outage.since):.0f} s are counted in memory "
        f"alone, and stored when that can be done. {_said(outage.reason)}"
    )


async def _signing_keys(gateway: Gateway) -> str:
    try:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            keys = await gateway.signing.jwks()
    except (TimeoutError, StoreUnavailable):
        return "away: they cannot be read from the database, as `key store` says; those read before go on to verify."
    if not keys:
        return "missing: no token can be issued or verified: `machpay-gateway signing-keys rotate` makes one."
    return OK


def _said(text: str) -> str:
    text = _BY_NAME.sub(r"\1…", _IN_URL.sub(r"\1…@", mask_secrets(text)))
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
