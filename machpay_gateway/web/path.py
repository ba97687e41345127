"""One canonical path: the path that is authorized is the one that the application routes by, or the request is refused.

Servers disagree on encoded slashes, dot segments and repeated slashes, and each difference has been a bypass somewhere
(CVE-2019-9901 in Envoy, GHSA-gm3x-23wp-hc2c in Traefik, CVE-2026-27587 in Caddy). So they are not normalized here: they
are refused.
"""

import re
from collections.abc import Container
from functools import lru_cache
from urllib.parse import unquote_to_bytes

LONG = 256
_ESCAPES = re.compile(rb"(?:[!-$&-~]|%[0-9A-Fa-f]{2})*")  # visible ASCII, and `%` only as a whole escape
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_FORBIDDEN_ESCAPE = re.compile(rb"%(?:2f|5c|0[0-9a-f]|1[0-9a-f]|7f)", re.IGNORECASE)
_FORBIDDEN_ANYWHERE = re.compile(rb"%(?:5c|0[0-9a-f]|1[0-9a-f]|7f)", re.IGNORECASE)


@lru_cache(maxsize=1024)
def canonical_path(full_path: str, raw: bytes | None, root: str | None) -> str | None:
    """Return the path that the application routes by, without its mount point; None when it is ambiguous.

    *full_path*, *raw* and *root* are the scope's `path`, `raw_path` and `root_path`. Long paths would fill the memory
    through the cache: from `LONG` characters on, call `canonical_path.__wrapped__`.
    """
    path = _without_root(full_path, root) if root else full_path
    if path is None or path[:1] != "/" or "//" in path or "\\" in path or ("/." in path and _has_dot_segment(path)):
        return None
    if path.isascii() and (not raw or b"%" not in raw):
        return path if path.isprintable() else None
    # Servers replace bytes that are not UTF-8 by U+FFFD, which maps many paths to one.
    if _CONTROL.search(path) or "\ufffd" in path:
        return None
    return path if not raw or _decodes(raw, full_path) else None


def is_routable(raw: bytes, path: str) -> bool:
    """Tell whether *raw* is well-formed and *path*, all of it decoded, has no dot segment or control character.

    Repeated and encoded slashes are no matter here: a route may allow them.
    """
    return (
        path[:1] == "/"
        and "\\" not in path
        and "\ufffd" not in path
        and not _CONTROL.search(path)
        and not ("/." in path and _has_dot_segment(path))
        and _ESCAPES.fullmatch(raw) is not None
        and not _FORBIDDEN_ANYWHERE.search(raw)
    )


def matching_prefix(path: str, prefixes: Container[str]) -> str | None:
    """Return which of *prefixes*, each of one or two segments, canonical *path* equals or is below, if any."""
    segments = path.split("/", 3)
    return next((prefix for end in (3, 2) if (prefix := "/".join(segments[:end])) in prefixes), None)


def _without_root(path: str, root: str) -> str | None:
    """Return *path* below the mount point *root*; None when frameworks would remove it in different ways.

    Some remove it as text, without checking for the slash after it, and some wherever it occurs. Some servers leave it
    out of `path`; then it must not occur in it at all.
    """
    mount = root.rstrip("/")
    if path == mount:
        return "/"
    if path.startswith(f"{mount}/"):
        return path[len(mount) :]
    return path if path[:1] == "/" and mount not in path else None


def _has_dot_segment(path: str) -> bool:
    # `..;x` is a dot segment for servers that remove path parameters first.
    return any(segment.partition(";")[0] in {".", ".."} for segment in path.split("/"))


def _decodes(raw: bytes, path: str) -> bool:
    """Return whether *raw* is well-formed, hides no separator, and decodes to *path*, apart from a prefix.

    A server, or a proxy that strips a prefix, may leave the mount point in only one of the two.
    """
    raw = raw.partition(b"?")[0]
    if not _ESCAPES.fullmatch(raw) or _FORBIDDEN_ESCAPE.search(raw):
        return False
    try:
        text = unquote_to_bytes(raw).decode()
    except UnicodeDecodeError:
        return False
    return path.endswith(text) or text.endswith(path)
