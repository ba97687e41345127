"""Loads the key set that an issuer's metadata names."""

import logging

from machpay_gateway.core.jose.discovery import KeySetLocation, key_set_location, metadata_urls
from machpay_gateway.keysets.fetching import MAX_DOCUMENT_BYTES, DocumentFetcher, FetchFailure
from machpay_gateway.log_throttle import LogThrottle

_log = logging.getLogger(__name__)


class DiscoveredDocument:
    """The key set of *issuer*, wherever its metadata says that it is at the time.

    While the metadata cannot be had, or is of another issuer, the last good location stays in use.
    """

    def __init__(self, issuer: str, fetcher: DocumentFetcher) -> None:
        self._issuer = issuer
        self._fetcher = fetcher
        self._location: KeySetLocation | None = None
        self._throttle = LogThrottle(_log)

    async def load(self) -> bytes | FetchFailure:
        """Return the key set as the issuer publishes it, or why there is none."""
        located = await self._locate()
        if isinstance(located, KeySetLocation):
            self._location = located
        elif self._location is None:
            return located
        else:
            self._throttle.log(
                logging.WARNING,
                "issuer %s: %s; the keys are still fetched from %s",
                self._issuer,
                located.reason,
                self._location.url,
            )
        document = await self._fetcher.fetch(self._location.url)
        if isinstance(document, FetchFailure):
            return FetchFailure(f"{self._location.url} {document.reason}")
        return document

    async def _locate(self) -> KeySetLocation | FetchFailure:
        failures = []
        for url in metadata_urls(self._issuer):
            document = await self._fetcher.fetch(url)
            if isinstance(document, FetchFailure):
                failures.append(f"{url} {document.reason}")
                if document.is_absent:
                    continue
                break
            if len(document) > MAX_DOCUMENT_BYTES:
                return FetchFailure(f"{url} is over {MAX_DOCUMENT_BYTES} bytes")
            located = key_set_location(document, self._issuer)
            return located if isinstance(located, KeySetLocation) else FetchFailure(f"{url}: {located}")
        return FetchFailure("; ".join(failures))
