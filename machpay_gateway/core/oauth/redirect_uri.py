"""Redirect URIs: exact match (RFC 9700 §2.1), with loopback ports for native apps (RFC 8252 §7)."""

import re
from collections.abc import Iterable
from urllib.parse import urlsplit

from machpay_gateway.core.errors import InputError
from machpay_gateway.core.text import mask_secrets, quote_value

MAX_URIS, MAX_URI = 20, 2000
# RFC 3986's characters without spaces, quotes, backslashes, brackets outside of an address, and non-ASCII characters:
# parsers disagree about those.
_CHARACTERS = re.compile(r"[A-Za-z0-9\-._~:/?\[\]@!$&()*+,;=%]+", re.ASCII)
_LOOPBACK = re.compile(r"http://(127\.0\.0\.1|\[::1\])(?::([0-9]{1,5}))?(/[^?#]*)?(\?[^#]*)?", re.ASCII)
# The host is written into the Content-Security-Policy of pages, where `;` and `,` are separators.
_HOST = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?", re.ASCII)
_PRIVATE_SCHEME = re.compile(r"[a-z][a-z0-9+-]*(?:\.[a-z0-9+-]+)+", re.ASCII)  # RFC 8252 §7.1: a domain, reversed
_MAX_PORT = 65535


class RedirectError(InputError):
    """Redirect URIs are not valid for the client; the message says what to do instead."""


def validate_redirect_uris(uris: Iterable[str]) -> tuple[str, ...]:
    """Return *uris* without repetitions. Raises RedirectError."""
    unique = tuple(dict.fromkeys(_validated(uri) for uri in uris))
    if len(unique) > MAX_URIS:
        raise RedirectError(f"{len(unique)} redirect URIs are too many: use at most {MAX_URIS}.")
    return unique


def is_registered(uri: str, registered_uris: Iterable[str]) -> bool:
    """Tell whether *uri* is one of *registered_uris*: byte by byte, except for the port of a loopback address."""
    registered = tuple(registered_uris)
    return uri in registered or any(_differs_in_port_only(uri, each) for each in registered)


def origin_source(uri: str) -> str:
    """Return the Content-Security-Policy source of a registered *uri*: its origin, or its private scheme."""
    parts = urlsplit(uri)
    return f"{parts.scheme}://{parts.netloc}" if parts.scheme in {"http", "https"} else f"{parts.scheme}:"


def _differs_in_port_only(uri: str, registered: str) -> bool:
    # Native apps listen on any free port (RFC 8252 §7.3), at an address and not at a name.
    one, other = _LOOPBACK.fullmatch(uri), _LOOPBACK.fullmatch(registered)
    if one is None or other is None or int(one[2] or 0) > _MAX_PORT:
        return False
    return one.group(1, 3, 4) == other.group(1, 3, 4)


def _validated(uri: str) -> str:
    reason = _mistake(uri)
    if reason is not None:
        raise RedirectError(f"Redirect URI {quote_value(uri)}: {reason}.")
    return uri


def _mistake(uri: str) -> str | None:
    if len(uri) > MAX_URI or not _CHARACTERS.fullmatch(uri):
        return f"use at most {MAX_URI} characters of RFC 3986, without a fragment, and others percent-encoded"
    if mask_secrets(uri) != uri:
        return "it holds a secret, and is stored as it is: leave it out"
    try:
        parts = urlsplit(uri)
        _ = parts.port
    except ValueError:
        return "it cannot be read"
    if "@" in parts.netloc:
        return "leave out the user"
    if "*" in parts.netloc:
        return "name the host: there are no wildcards"
    if parts.netloc and not _HOST.fullmatch(parts.netloc):
        return "write the host in letters, digits, hyphens and dots"
    if any(segment in {".", ".."} for segment in parts.path.replace("%2e", ".").replace("%2E", ".").split("/")):
        return "leave out dot segments"
    return _scheme_mistake(uri, parts.scheme, has_host=bool(parts.hostname))


def _scheme_mistake(uri: str, scheme: str, *, has_host: bool) -> str | None:
    if not uri.startswith(f"{scheme}:"):  # urlsplit lowercases it, but URIs are compared byte by byte
        return "write the scheme in lower case"
    if scheme == "https":
        return None if has_host else "it has no host"
    if scheme == "http":
        # `localhost` is for development, and is compared byte by byte.
        is_local = _LOOPBACK.fullmatch(uri) or urlsplit(uri).hostname == "localhost"
        return None if is_local else "use https:// (http:// is for 127.0.0.1, [::1] and localhost)"
    if not _PRIVATE_SCHEME.fullmatch(scheme):
        return "use https://, or for a native app a scheme that is a domain of yours reversed, as in com.example.app:/"
    return None
