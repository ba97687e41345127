"""Where an app's users may be sent back to (RFC 9700 §2.1: exact match, RFC 8252 §7 for apps on the user's machine)."""

import re
from collections.abc import Iterable
from urllib.parse import urlsplit

from machpay_gateway.core.errors import InputError
from machpay_gateway.core.text import mask_secrets, quote_value

MAX_URIS, MAX_URI = 20, 2000
# Of RFC 3986's characters: no space, quote, backslash, bracket outside of an address, or anything past ASCII, which
# parsers read as one thing and another.
_CHARACTERS = re.compile(r"[A-Za-z0-9\-._~:/?\[\]@!$&()*+,;=%]+", re.ASCII)
_LOOPBACK = re.compile(r"http://(127\.0\.0\.1|\[::1\])(?::([0-9]{1,5}))?(/[^?#]*)?(\?[^#]*)?", re.ASCII)
# A host stands in the page's policy, where `;` and `,` would begin something else.
_HOST = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?", re.ASCII)
_PRIVATE_SCHEME = re.compile(r"[a-z][a-z0-9+-]*(?:\.[a-z0-9+-]+)+", re.ASCII)  # RFC 8252 §7.1: a domain, reversed
_MAX_PORT = 65535


class RedirectError(InputError):
    """A client cannot have the redirect URIs that were asked for; the message names the way out."""


def checked_redirect_uris(uris: Iterable[str]) -> tuple[str, ...]:
    """Return *uris* as they are registered, each once. Raises RedirectError."""
    kept = tuple(dict.fromkeys(_checked(uri) for uri in uris))
    if len(kept) > MAX_URIS:
        raise RedirectError(f"{len(kept)} redirect URIs are too many: use at most {MAX_URIS}.")
    return kept


def is_registered(asked: str, registered: Iterable[str]) -> bool:
    """Tell whether *asked* is one of the *registered* URIs: byte by byte, but for the port of a loopback address."""
    known = tuple(registered)
    return asked in known or any(_same_but_for_port(asked, uri) for uri in known)


def origin_source(uri: str) -> str:
    """Return what stands for a registered *uri* in a Content-Security-Policy: its origin, or its private scheme."""
    parts = urlsplit(uri)
    return f"{parts.scheme}://{parts.netloc}" if parts.scheme in {"http", "https"} else f"{parts.scheme}:"


def _same_but_for_port(asked: str, registered: str) -> bool:
    # The system gives a native app whatever port is free (RFC 8252 §7.3), to an address and never to a name.
    one, other = _LOOPBACK.fullmatch(asked), _LOOPBACK.fullmatch(registered)
    if one is None or other is None or int(one[2] or 0) > _MAX_PORT:
        return False
    return one.group(1, 3, 4) == other.group(1, 3, 4)


def _checked(uri: str) -> str:
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
    if not uri.startswith(f"{scheme}:"):  # urlsplit lowers it, and what is compared is bytes
        return "write the scheme in lower case"
    if scheme == "https":
        return None if has_host else "it has no host"
    if scheme == "http":
        # `localhost` is for the developer's browser, and is compared byte by byte as any name.
        is_local = _LOOPBACK.fullmatch(uri) or urlsplit(uri).hostname == "localhost"
        return None if is_local else "use https:// (http:// is for 127.0.0.1, [::1] and localhost)"
    if not _PRIVATE_SCHEME.fullmatch(scheme):
        return "use https://, or for a native app a scheme that is a domain of yours reversed, as in com.example.app:/"
    return None
