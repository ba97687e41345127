"""Key sets in files and at URLs, and when they are loaded again.

A token can cause a fetch, so no token may start more than one fetch per cooldown, choose its URL, or evict a key set
that was loaded. The caller supplies the function that parses a document.
"""

import asyncio
import logging
import math
import ssl
from collections.abc import AsyncIterable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from machpay_gateway.core.errors import ConfigurationError, KeysetUnavailable, Unavailable
from machpay_gateway.core.jose.token import VerifyingKeys
from machpay_gateway.core.network.url import is_remote
from machpay_gateway.log_throttle import LogThrottle
from machpay_gateway.singleflight import SingleFlight

__all__ = ["FileKeySet", "KeySet", "Read", "RemoteKeySet", "key_set_at"]

# Parses a document; returns the keys in it, or the reason why there are none.
Read = Callable[[bytes], VerifyingKeys | str]

MAX_JWKS_BYTES = 512 * 1024
REFRESH_SECONDS = 600.0  # the age at which a set is fetched again, to notice revoked keys
COOLDOWN_SECONDS = 30.0  # between fetches caused by unknown key ids, and after a failed refresh
RETRY_SECONDS = 5.0  # between fetches while no set is loaded and every token waits for one
TIMEOUT_SECONDS = 5.0  # for a whole fetch: a server that drips bytes never exceeds a timeout per read
_FILE_CHECK_SECONDS = 1.0
# Uncompressed: half a megabyte that decompresses to a gigabyte would pass the size limit.
_HEADERS = {"Accept": "application/jwk-set+json, application/json", "Accept-Encoding": "identity"}

_log = logging.getLogger(__name__)


class KeySet(Protocol):
    """One issuer's keys. Raises KeysetUnavailable until they could be loaded once."""

    async def keys(self, now: float) -> VerifyingKeys:
        """Return the loaded keys."""

    async def newest_keys(self, now: float) -> VerifyingKeys:
        """Return the keys after loading newer ones, unless that was done just now."""

    async def close(self) -> None:
        """Cancel loads in progress."""


class FileKeySet:
    """Keys in a file, parsed by *read* at start and after changes. Raises ConfigurationError at start."""

    def __init__(self, path: str, read: Read) -> None:
        self._path = Path(path)
        self._read_document = read
        self._checked_at = -math.inf
        self._state = _file_state(self._path)
        keys = self._read()
        if isinstance(keys, str):
            raise ConfigurationError(f"key set {path!r}: {keys}; give a file of keys or an https URL")
        self._keys = keys

    async def keys(self, now: float) -> VerifyingKeys:
        """Return the file's keys; the last valid ones while it is missing or broken."""
        if not _within(_FILE_CHECK_SECONDS, self._checked_at, now):
            self._checked_at = now
            self._reload_if_changed()
        return self._keys

    async def newest_keys(self, now: float) -> VerifyingKeys:
        """Return the same as `keys`, which checks the file every second in any case."""
        return await self.keys(now)

    async def close(self) -> None:
        """Do nothing: no file stays open."""

    def _reload_if_changed(self) -> None:
        # One stat of a local file a second takes microseconds, less than a thread would.
        state = _file_state(self._path)
        if state == self._state:
            return
        self._state = state  # taken before reading: a change in between is noticed next time
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
        return _keys_in(document, self._read_document, str(self._path))


class RemoteKeySet:
    """Keys at *url*, parsed by *read*, loaded when first needed.

    Not bound to an event loop: each fetch has an HTTP client of its own.
    """

    def __init__(self, url: str, read: Read) -> None:
        import httpx2  # noqa: PLC0415 - takes 0.15 s: at start, and only if a URL is configured

        self._httpx = httpx2
        self._url = httpx2.URL(url)  # validated as a setting
        self._is_secure = self._url.scheme == "https"
        # Created once: reading the system's certificates takes longer than many requests.
        self._tls = httpx2.create_ssl_context() if self._is_secure else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._read_document = read
        self._keys: VerifyingKeys | None = None
        self._failure = "not loaded yet"
        self._loaded_at = self._attempted_at = -math.inf
        self._fetches = SingleFlight(self._fetch, failed=self._log_failure)
        self._throttle = LogThrottle(_log)

    async def keys(self, now: float) -> VerifyingKeys:
        """Return the loaded keys, and refresh them in the background when they are old."""
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
        """Return the keys after a fetch, of which there is at most one per cooldown.

        The cooldown covers the whole set and not one key id: made-up key ids would each start a fetch.
        """
        await self._fetch_unless_tried_within(COOLDOWN_SECONDS, now)
        return await self.keys(now)

    async def close(self) -> None:
        """Cancel a fetch in progress in this event loop."""
        await self._fetches.close()

    async def _fetch_unless_tried_within(self, seconds: float, now: float) -> None:
        if self._fetches.is_under_way(self._url) or not _within(seconds, self._attempted_at, now):
            self._attempted_at = now
            with suppress(Unavailable):  # canceled: the caller goes by the loaded keys, if any
                await self._fetches.join(self._url)

    async def _fetch(self, _: object) -> None:
        attempted_at = self._attempted_at
        document = await self._document()
        keys = document if isinstance(document, str) else _keys_in(document, self._read_document, str(self._url))
        if isinstance(keys, str):
            self._failure = keys
            self._throttle.log(
                logging.WARNING, "key set %s: %s; the last good one, if any, stays in use", self._url, keys
            )
            return
        self._keys, self._loaded_at = keys, attempted_at

    def _log_failure(self, error: BaseException) -> None:
        self._throttle.log(logging.ERROR, "key set %s: the fetch failed", self._url, error=error)

    async def _document(self) -> bytes | str:
        """Return the document at the URL, or the reason why there is none."""
        client = self._httpx.AsyncClient(verify=self._tls, timeout=TIMEOUT_SECONDS, trust_env=self._is_secure)
        try:
            async with (
                asyncio.timeout(TIMEOUT_SECONDS),
                client,
                client.stream("GET", self._url, headers=_HEADERS, follow_redirects=False) as response,
            ):
                if not response.is_success:
                    # A redirect is not followed: its target would speak for the issuer.
                    return f"responded {response.status_code} (redirects are not followed: give the final URL)"
                if response.headers.get("content-encoding", "identity") != "identity":
                    return "responded compressed, which was not requested"
                return await _capped(response.aiter_raw())
        except TimeoutError:
            return f"no complete response within {TIMEOUT_SECONDS:g} s"
        except self._httpx.HTTPError as exc:
            return f"{type(exc).__name__}: {exc}"


def key_set_at(source: str, read: Read) -> KeySet:
    """Return the keys at *source*, a URL or a file. Raises ConfigurationError."""
    return RemoteKeySet(source, read) if is_remote(source) else FileKeySet(source, read)


async def _capped(chunks: AsyncIterable[bytes]) -> bytes:
    """Return all *chunks*, or only as many as exceed the size limit."""
    body = bytearray()
    async for chunk in chunks:
        body += chunk
        if len(body) > MAX_JWKS_BYTES:
            break
    return bytes(body)


def _keys_in(document: bytes, read: Read, source: str) -> VerifyingKeys | str:
    if len(document) > MAX_JWKS_BYTES:
        return f"over {MAX_JWKS_BYTES} bytes"
    keys = read(document)
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
    """Return whether *since* is less than *seconds* ago; False when the clock was set back to before it."""
    return 0 <= now - since < seconds
