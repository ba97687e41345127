"""Whose tokens are accepted: issuers' verifying keys from a file or a URL, and the tokens verified with them.

Fetching is the one thing here that a stranger could make us do, so nothing a token says starts more than one fetch per
cooldown, chooses where it goes, or makes a set that worked be forgotten. How a token is judged is `core`'s to say.
"""

import asyncio
import logging
import math
import ssl
from collections import OrderedDict
from collections.abc import AsyncIterable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Protocol

from machpay_gateway.core.claims import accepted_claims, principal_from
from machpay_gateway.core.compact import CompactToken, parse_compact
from machpay_gateway.core.credential import SignedToken
from machpay_gateway.core.errors import ConfigurationError, KeysetUnavailable, Unavailable
from machpay_gateway.core.issuer import Issuer
from machpay_gateway.core.principal import Principal
from machpay_gateway.core.quota import Tier
from machpay_gateway.core.token import VerifyingKey, VerifyingKeys, is_signed_by, keys_for, keys_from_jwks
from machpay_gateway.flights import SingleFlight

__all__ = ["FileKeySet", "IssuedTokens", "KeySet", "RemoteKeySet"]

MAX_JWKS_BYTES = 512 * 1024
REFRESH_SECONDS = 600.0  # the age at which a set is fetched again, to notice keys that its issuer withdrew
COOLDOWN_SECONDS = 30.0  # between fetches that unknown keys ask for, and after a refresh that failed
RETRY_SECONDS = 5.0  # between fetches while no set is held at all and every token waits for one
TIMEOUT_SECONDS = 5.0  # for a whole fetch: a server that drips bytes never meets a timeout per read
VERIFIED_SECONDS = 60.0  # how long a token is known without its signature being looked at again
VERIFIED_TOKENS = 4096
_FILE_CHECK_SECONDS = 1.0
# Not compressed: half a megabyte that unfolds to a gigabyte would pass the cap.
_HEADERS = {"Accept": "application/jwk-set+json, application/json", "Accept-Encoding": "identity"}

_log = logging.getLogger(__name__)


class KeySet(Protocol):
    """One issuer's keys. Raises KeysetUnavailable while none could ever be loaded."""

    async def keys(self, now: float) -> VerifyingKeys:
        """Return the keys that are held."""

    async def newest_keys(self, now: float) -> VerifyingKeys:
        """Return the keys after asking for newer ones, if that was not done just now."""

    async def close(self) -> None:
        """Stop what is under way."""


class FileKeySet:
    """Keys from a JWK Set in a file, read at start and again when it changed. Raises ConfigurationError at start."""

    def __init__(self, issuer: Issuer) -> None:
        self._path = Path(issuer.jwks)
        self._algorithms = issuer.algorithms
        self._checked_at = -math.inf
        self._state = _file_state(self._path)
        keys = self._read()
        if isinstance(keys, str):
            msg = f"Issuer {issuer.issuer!r}: key set {issuer.jwks!r}: {keys}; give a JWK Set file or an https URL"
            raise ConfigurationError(msg)
        self._keys = keys

    async def keys(self, now: float) -> VerifyingKeys:
        """Return the file's keys; the last good ones while it is away or broken."""
        if not _within(_FILE_CHECK_SECONDS, self._checked_at, now):
            self._checked_at = now
            self._follow()
        return self._keys

    async def newest_keys(self, now: float) -> VerifyingKeys:
        """Return the same as `keys`: the file is looked at every second anyway."""
        return await self.keys(now)

    async def close(self) -> None:
        """Do nothing: no file is kept open."""

    def _follow(self) -> None:
        # One stat of a local file a second takes microseconds, less than handing it to a thread would.
        state = _file_state(self._path)
        if state == self._state:
            return
        self._state = state  # taken before reading: a change in between is seen next time
        keys = self._read()
        if isinstance(keys, str):
            _log.warning("key set %s: %s; the last good one stays in use", self._path, keys)
            return
        self._keys = keys

    def _read(self) -> VerifyingKeys | str:
        try:
            with self._path.open("rb") as file:
                document = file.read(MAX_JWKS_BYTES + 1)
        except OSError as exc:
            return exc.strerror or type(exc).__name__
        return _keys_in(document, self._algorithms, str(self._path))


class RemoteKeySet:
    """Keys from a JWK Set at a URL, loaded when first needed. Bound to no event loop: each fetch has its own client."""

    def __init__(self, issuer: Issuer) -> None:
        import httpx2  # noqa: PLC0415 - 0.15 s, at start and not in a request, for those who configured a URL

        self._httpx = httpx2
        self._url = httpx2.URL(issuer.jwks)  # an Issuer has checked it
        self._is_secure = self._url.scheme == "https"
        # Made once: reading the system's certificates takes longer than many requests.
        self._tls = httpx2.create_ssl_context() if self._is_secure else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._algorithms = issuer.algorithms
        self._keys: VerifyingKeys | None = None
        self._failure = "not loaded yet"
        self._loaded_at = self._attempted_at = -math.inf
        self._fetches = SingleFlight(self._fetch, failed=self._log_surprise)

    async def keys(self, now: float) -> VerifyingKeys:
        """Return the keys that are held, and have them refreshed in the background when they are old."""
        if self._keys is None:
            await self._fetch_unless_tried_within(RETRY_SECONDS, now)
        elif not (_within(REFRESH_SECONDS, self._loaded_at, now) or _within(COOLDOWN_SECONDS, self._attempted_at, now)):
            self._attempted_at = now
            self._fetches.begin(self._url)
        if self._keys is None:
            msg = f"key set {self._url}: {self._failure}"
            raise KeysetUnavailable(msg)
        return self._keys

    async def newest_keys(self, now: float) -> VerifyingKeys:
        """Return the keys after a fetch; at most one each cooldown, however many unknown keys are asked about.

        The cooldown is the whole set's, not a key's: made-up key ids would each bring a fresh one.
        """
        await self._fetch_unless_tried_within(COOLDOWN_SECONDS, now)
        return await self.keys(now)

    async def close(self) -> None:
        """Abandon a fetch that is under way in this event loop."""
        await self._fetches.close()

    async def _fetch_unless_tried_within(self, seconds: float, now: float) -> None:
        if self._fetches.is_under_way(self._url) or not _within(seconds, self._attempted_at, now):
            self._attempted_at = now
            with suppress(Unavailable):  # abandoned: what is held, or that nothing is, says what follows
                await self._fetches.join(self._url)

    async def _fetch(self, _: object) -> None:
        asked_at = self._attempted_at
        document = await self._document()
        keys = document if isinstance(document, str) else _keys_in(document, self._algorithms, str(self._url))
        if isinstance(keys, str):
            self._failure = keys
            _log.warning("key set %s: %s; the last good one, if any, stays in use", self._url, keys)
            return
        self._keys, self._loaded_at = keys, asked_at

    def _log_surprise(self, error: BaseException) -> None:
        _log.error("key set %s: the fetch failed", self._url, exc_info=error)

    async def _document(self) -> bytes | str:
        """Return what the URL answers, or why that is nothing to go by."""
        client = self._httpx.AsyncClient(verify=self._tls, timeout=TIMEOUT_SECONDS, trust_env=self._is_secure)
        try:
            async with (
                asyncio.timeout(TIMEOUT_SECONDS),
                client,
                client.stream("GET", self._url, headers=_HEADERS, follow_redirects=False) as response,
            ):
                if not response.is_success:
                    # A redirect is not followed: it would let whoever answers there speak for the issuer.
                    return f"answered {response.status_code} (redirects are not followed: give the final URL)"
                if response.headers.get("content-encoding", "identity") != "identity":
                    return "answered compressed, which was not asked for"
                return await _capped(response.aiter_raw())
        except TimeoutError:
            return f"no full answer within {TIMEOUT_SECONDS:g} s"
        except self._httpx.HTTPError as exc:
            return f"{type(exc).__name__}: {exc}"


class _Verified(NamedTuple):
    principal: Principal
    since: float
    until: float


class IssuedTokens:
    """The tokens of *issuers*: verifies them and remembers, for a minute, those that were good.

    Raises ConfigurationError for an issuer given twice or a key set that cannot be meant.
    """

    def __init__(self, issuers: Iterable[Issuer], tiers: Mapping[str, Tier]) -> None:
        self._tiers = tiers
        self._trusted: dict[str, tuple[Issuer, KeySet]] = {}
        self._verified: OrderedDict[bytes, _Verified] = OrderedDict()
        for issuer in issuers:
            if issuer.issuer in self._trusted:
                msg = f"Issuer {issuer.issuer!r} is configured twice; give one entry all its audiences and algorithms"
                raise ConfigurationError(msg)
            key_set = RemoteKeySet(issuer) if issuer.keys_are_remote else FileKeySet(issuer)
            self._trusted[issuer.issuer] = issuer, key_set

    def known(self, digest: bytes, now: float) -> Principal | None:
        """Return the principal of a token that was verified lately, without any I/O."""
        verified = self._verified.get(digest)
        # The lower bound is for a clock that was set back: "until" would be far away then.
        if verified is None or not verified.since <= now < verified.until:
            return None
        self._verified.move_to_end(digest)
        return verified.principal

    def holds(self, digest: bytes) -> bool:
        """Tell whether a token of this *digest* was good lately, whether it is known now or not."""
        return digest in self._verified

    async def verify(self, token: SignedToken, now: float) -> Principal | str:
        """Return the principal of *token*, or the reason, for the log, why it is not accepted.

        Raises KeysetUnavailable when its issuer's keys could never be loaded.
        """
        compact = parse_compact(token.token)
        if isinstance(compact, str):
            return compact
        # Unverified, `iss` says only whose keys to try; the signature and `accepted_claims` hold it to that.
        iss = compact.claims.get("iss")
        trusted = self._trusted.get(iss) if isinstance(iss, str) else None
        if trusted is None:
            return "iss is not configured"
        issuer, key_set = trusted
        claims = accepted_claims(compact, issuer, now)
        if isinstance(claims, str):
            return claims
        if not (keys := await _fitting_keys(compact, key_set, now)):
            return "no key of its issuer has its kid and alg"
        if not is_signed_by(compact, keys):
            return "wrong signature"
        principal = principal_from(claims, issuer, self._tiers)
        self._remember(token.digest, principal, now)
        return principal

    async def close(self) -> None:
        """Abandon the fetches that are under way."""
        for _, key_set in self._trusted.values():
            await key_set.close()

    def _remember(self, digest: bytes, principal: Principal, now: float) -> None:
        until = min(principal.expires_at or now, now + VERIFIED_SECONDS)
        self._verified[digest] = _Verified(principal, now, until)
        self._verified.move_to_end(digest)
        if len(self._verified) > VERIFIED_TOKENS:
            self._verified.popitem(last=False)


async def _fitting_keys(token: CompactToken, key_set: KeySet, now: float) -> tuple[VerifyingKey, ...]:
    return keys_for(token, await key_set.keys(now)) or keys_for(token, await key_set.newest_keys(now))


async def _capped(chunks: AsyncIterable[bytes]) -> bytes:
    """Return all *chunks*, or as many as are already too much."""
    body = bytearray()
    async for chunk in chunks:
        body += chunk
        if len(body) > MAX_JWKS_BYTES:
            break
    return bytes(body)


def _keys_in(document: bytes, algorithms: Iterable[str], source: str) -> VerifyingKeys | str:
    if len(document) > MAX_JWKS_BYTES:
        return f"over {MAX_JWKS_BYTES} bytes"
    keys = keys_from_jwks(document, algorithms)
    if isinstance(keys, VerifyingKeys):
        for reason in keys.unusable:
            _log.info("key set %s: passed over %s", source, reason)
    return keys


def _file_state(path: Path) -> tuple[int, ...] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def _within(seconds: float, since: float, now: float) -> bool:
    """Whether *since* is less than *seconds* ago. A clock that was set back must not make that last for hours."""
    return 0 <= now - since < seconds
