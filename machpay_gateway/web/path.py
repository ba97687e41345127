"""One canonical path: what is authorised is exactly what the application routes by, or the request is refused.

Encoded slashes, dot segments and doubled slashes are read differently by the next server in the chain, and each
difference has been a bypass somewhere (CVE-2019-9901 in Envoy, GHSA-gm3x-23wp-hc2c in Traefik, CVE-2026-27587 in
Caddy). So they are not normalised here: they are refused.
"""

import re
from collections.abc import Container
from functools import lru_cache
from urllib.parse import unquote_to_bytes

LONG = 256
_ESCAPES = re.compile(rb"(?:[!-$&-~]|%[0-9A-Fa-f]{2})*")  # visible ASCII, and `%` only as a whole escape
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_FORBIDDEN_ESCAPE = re.compile(rb"%(?:2f|5c|0[0-9a-f]|1[0-9a-f]|7f)", re.IGNORECASE)


@lru_cache(maxsize=1024)
def canonical_path(full_path: str, raw: bytes | None, root: str | None) -> str | None:
    """Return the path that the application routes by, without its mount point; None when it is ambiguous.

    *full_path*, *raw* and *root* are the scope's `path`, `raw_path` and `root_path`. What is remembered must not fill
    the memory: for a path of `LONG` characters or more, call `canonical_path.__wrapped__`.
    """
    path = _without_root(full_path, root) if root else full_path
    if path is None or path[:1] != "/" or "//" in path or "\\" in path or ("/." in path and _has_dot_segment(path)):
        return None
    if path.isascii() and (not raw or b"%" not in raw):
        return path if path.isprintable() else None
    # U+FFFD is what servers put where the bytes were no UTF-8: many paths would read as this one.
    if _CONTROL.search(path) or "\ufffd" in path:
        return None
    return path if not raw or _decodes(raw, full_path) else None


def path_in(target: bytes) -> str | None:
    """Return the canonical path in *target*, a path and query as they were sent; None when it is ambiguous or none."""
    if b"#" in target:  # where the path ends is for its readers to agree on, and they do not
        return None
    raw = target.partition(b"?")[0]
    path = unquote_to_bytes(raw).decode("utf-8", "replace")
    read_path = canonical_path if len(raw) < LONG else canonical_path.__wrapped__
    return read_path(path, raw, None)


def matching_prefix(path: str, branches: Container[str]) -> str | None:
    """Return which of *branches*, each of one segment or two, canonical *path* is or is below; None for none."""
    segments = path.split("/", 3)
    return next((branch for end in (3, 2) if (branch := "/".join(segments[:end])) in branches), None)


def _without_root(path: str, root: str) -> str | None:
    """Return *path* below the mount point *root*; None when frameworks would take it off in different ways.

    Some take it off as text, without looking for the slash after it, and some wherever it stands. A server may have
    left it out of `path` altogether; then it must not stand anywhere in it.
    """
    mount = root.rstrip("/")
    if path == mount:
        return "/"
    if path.startswith(f"{mount}/"):
        return path[len(mount) :]
    return path if path[:1] == "/" and mount not in path else None


def _has_dot_segment(path: str) -> bool:
    # `..;x` is a dot segment to servers that cut path parameters off first.
    return any(segment.partition(";")[0] in {".", ".."} for segment in path.split("/"))


def _decodes(raw: bytes, path: str) -> bool:
    """Tell whether *raw* is well-formed, hides no separator, and is *path* in UTF-8, but for what stands before.

    A server may put the mount point into one of the two only, and so may whatever strips a prefix in front of us.
    """
    raw = raw.partition(b"?")[0]
    if not _ESCAPES.fullmatch(raw) or _FORBIDDEN_ESCAPE.search(raw):
        return False
    try:
        text = unquote_to_bytes(raw).decode()
    except UnicodeDecodeError:
        return False
    return path.endswith(text) or text.endswith(path)
