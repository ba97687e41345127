"""Fetches the documents that issuers publish, each within bounds of size and time and without redirects."""

import asyncio
import ssl
from collections.abc import AsyncIterable
from dataclasses import dataclass

from machpay_gateway.core.errors import ConfigurationError

MAX_DOCUMENT_BYTES = 512 * 1024
TIMEOUT_SECONDS = 5.0  # for a whole fetch: a server that drips bytes never exceeds a timeout per read
# Uncompressed: half a megabyte that decompresses to a gigabyte would pass the size limit.
_HEADERS = {"Accept": "application/jwk-set+json, application/json", "Accept-Encoding": "identity"}
_CLIENT_ERRORS = range(400, 500)


@dataclass(frozen=True, slots=True)
class FetchFailure:
    """Why there is no document. *is_absent* means that the server has none at this URL."""

    reason: str
    is_absent: bool = False


class DocumentFetcher:
    """Fetches from *url* and from URLs that its documents name; https servers are trusted by *ca_file* if it is given.

    Not bound to an event loop: each fetch has an HTTP client of its own. Raises ConfigurationError for an unusable
    *ca_file*.
    """

    def __init__(self, url: str, *, ca_file: str | None = None) -> None:
        import httpx2  # noqa: PLC0415 - takes 0.15 s: at start, and only if a URL is configured

        self._httpx = httpx2
        self._ca_file = ca_file
        is_needed = ca_file is not None or url.startswith("https:")
        self._tls = self._tls_context() if is_needed else None

    async def fetch(self, url: str) -> bytes | FetchFailure:
        """Return the document at *url*: all of it, or a part that exceeds the size limit."""
        is_secure = url.startswith("https:")
        if is_secure and self._tls is None:
            self._tls = self._tls_context()
        verify = self._tls or ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        client = self._httpx.AsyncClient(verify=verify, timeout=TIMEOUT_SECONDS, trust_env=is_secure)
        try:
            async with (
                asyncio.timeout(TIMEOUT_SECONDS),
                client,
                client.stream("GET", url, headers=_HEADERS, follow_redirects=False) as response,
            ):
                if not response.is_success:
                    # A redirect is not followed: its target would speak for the issuer.
                    reason = f"responded {response.status_code} (redirects are not followed: give the final URL)"
                    return FetchFailure(reason, is_absent=response.status_code in _CLIENT_ERRORS)
                if response.headers.get("content-encoding", "identity") != "identity":
                    return FetchFailure("responded compressed, which was not requested")
                return await _capped(response.aiter_raw())
        except TimeoutError:
            return FetchFailure(f"no complete response within {TIMEOUT_SECONDS:g} s")
        except (self._httpx.HTTPError, self._httpx.InvalidURL) as exc:
            return FetchFailure(f"{type(exc).__name__}: {exc}")

    def _tls_context(self) -> ssl.SSLContext:
        # Created once: reading the system's certificates takes longer than many requests.
        if self._ca_file is None:
            return self._httpx.create_ssl_context()
        try:
            return ssl.create_default_context(cafile=self._ca_file)
        except OSError as exc:  # ssl.SSLError is one
            raise ConfigurationError(
                f"ca_file {self._ca_file!r} cannot be used ({exc.strerror or exc}): give a PEM file with certificates"
            ) from exc


async def _capped(chunks: AsyncIterable[bytes]) -> bytes:
    """Return all *chunks*, or only as many as exceed the size limit."""
    body = bytearray()
    async for chunk in chunks:
        body += chunk
        if len(body) > MAX_DOCUMENT_BYTES:
            break
    return bytes(body)
