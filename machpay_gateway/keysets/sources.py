"""Key sets in files and at URLs, and when they are loaded again.

A token can cause a fetch, so no token may start more than one fetch per cooldown, choose its URL, or evict a key set
that was loaded. The caller supplies the function that parses a document.
"""

import logging
import math
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Protocol

from machpay_gateway.core.errors import ConfigurationError, KeysetUnavailable, Unavailable
from machpay_gateway.core.jose.token import VerifyingKeys
from machpay_gateway.core.network.url import is_remote
from machpay_gateway.keysets.discovery import DiscoveredDocument
from machpay_gateway.keysets.fetching import MAX_DOCUMENT_BYTES, DocumentFetcher, FetchFailure
from machpay_gateway.log_throttle import LogThrottle
from machpay_gateway.singleflight import SingleFlight

__all__ = ["FileKeySet", "KeySet", "Read", "RemoteKeySet", "discovered_key_set", "key_set_at"]

# Parses a document; returns the keys in it, or the reason why there are none.
Read = Callable[[bytes], VerifyingKeys | str]
# Fetches a document.
Load = Callable[[], Awaitable[bytes | FetchFailure]]

REFRESH_SECONDS = 600.0  # the age at which a set is fetched again, to notice revoked keys
COOLDOWN_SECONDS = 30.0  # between fetches caused by unknown key ids, and after a failed refresh
RETRY_SECONDS = 5.0  # between fetches while no set is loaded and every token waits for one
_FILE_CHECK_SECONDS = 1.0

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
                document = file.read(MAX_DOCUMENT_BYTES + 1)
        except OSError as exc:
            return exc.strerror or type(exc).__name__
        return _keys_in(document, self._read_document, str(self._path))


class RemoteKeySet:
    """Keys that *load* fetches and *read* parses, loaded when first needed; *name* is for the log.

    Not bound to an event loop.
    """

    def __init__(self, name: str, load: Load, read: Read) -> None:
        self._name = name
        self._load = load
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
            self._fetches.begin(self._name)
        if self._keys is None:
            msg = f"key set {self._name}: {self._failure}"
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
        if self._fetches.is_under_way(self._name) or not _within(seconds, self._attempted_at, now):
            self._attempted_at = now
            with suppress(Unavailable):  # canceled: the caller goes by the loaded keys, if any
                await self._fetches.join(self._name)

    async def _fetch(self, _: object) -> None:
        attempted_at = self._attempted_at
        document = await self._load()
        keys = (
            document.reason
            if isinstance(document, FetchFailure)
            else _keys_in(document, self._read_document, self._name)
        )
        if isinstance(keys, str):
            self._failure = keys
            self._throttle.log(
                logging.WARNING, "key set %s: %s; the last good one, if any, stays in use", self._name, keys
            )
            return
        self._keys, self._loaded_at = keys, attempted_at

    def _log_failure(self, error: BaseException) -> None:
        self._throttle.log(logging.ERROR, "key set %s: the fetch failed", self._name, error=error)


def key_set_at(source: str, read: Read, *, ca_file: str | None = None) -> KeySet:
    """Return the keys at *source*, a URL or a file. Raises ConfigurationError."""
    if not is_remote(source):
        return FileKeySet(source, read)
    return RemoteKeySet(source, partial(DocumentFetcher(source, ca_file=ca_file).fetch, source), read)


def discovered_key_set(issuer: str, read: Read, *, ca_file: str | None = None) -> KeySet:
    """Return the keys that the metadata of *issuer* names. Raises ConfigurationError."""
    return RemoteKeySet(issuer, DiscoveredDocument(issuer, DocumentFetcher(issuer, ca_file=ca_file)).load, read)


def _keys_in(document: bytes, read: Read, source: str) -> VerifyingKeys | str:
    if len(document) > MAX_DOCUMENT_BYTES:
        return f"over {MAX_DOCUMENT_BYTES} bytes"
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
