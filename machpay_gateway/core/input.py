"""What people may write into keys and accounts: each returns the value as it is stored, or raises InputError."""

import re
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime

from machpay_gateway.core.address import parse_network
from machpay_gateway.core.errors import ConfigurationError, InputError
from machpay_gateway.core.scopes import Scopes, unknown_scopes

MAX_NAME, MAX_SCOPES, MAX_NETWORKS = 100, 100, 1000
MAX_PAIRS, MAX_PAIR_KEY, MAX_PAIR_VALUE = 50, 40, 500
_LAST_MOMENT = 253_402_300_799.0  # the end of the year 9999, where RFC 3339 ends
# Of keys, and of what `core.oauth.opaque` makes for apps.
_SECRETS = re.compile(r"(sk_(?:live|test)_|(?:ac|bs|cs|rt)_mp1_)[0-9A-Za-z_]{8,}")
# Of issuers and ours: what is signed is JSON in base64url between two others, and what is encrypted has five parts.
# Each begins where nothing of it stands before, or a long path would be read again from each of its letters.
_TOKENS = re.compile(
    r"(?<![\w-])(?:([\w-]{3})[\w-]{7,}\.e[wy][\w-]{8,}(?:\.[\w-]*)?|(e[wy][\w-])[\w-]{7,}(?:\.[\w-]*){4})", re.ASCII
)
# RFC 3986 §3.2.1: of a database, of Redis. No other one can begin within what it takes, so that it is as quick.
_PASSWORDS = re.compile(r"(://[^\s/?#:@]*:)[^\s/?#]+(?=@)")
_ESCAPES = re.compile(r"%(?:25)*([2-7][0-9A-Fa-f])")  # of ASCII that can be seen, however often it was escaped
_DATE_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:[Zz]|[+-]\d\d:\d\d)", re.ASCII)
_SHOWN = 80  # characters of a wrong value that its error repeats


def shown(value: str) -> str:
    """Return *value* in quotes, as an error repeats it: shortened, and with nothing that a terminal would act on."""
    text = masked(value if len(value) <= _SHOWN else f"{value[:_SHOWN]}…")
    return '"' + "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text) + '"'


def checked_name(name: str) -> str:
    """Return *name* without the blanks around it."""
    stripped = name.strip()
    if not 1 <= len(stripped) <= MAX_NAME:
        raise InputError(f"The name {shown(name)} has {len(stripped)} characters: use 1 to {MAX_NAME}.")
    if not stripped.isprintable():
        raise InputError(f"The name {shown(name)} has characters that cannot be shown: leave them out.")
    if _SECRETS.search(stripped):
        raise InputError(f"The name {shown(name)} holds a secret, and names are stored as they are: use another.")
    return stripped


def checked_scopes(names: Collection[str], known: Collection[str]) -> Scopes:
    """Return *names* as Scopes: *known* ones, or wildcards over known ones."""
    if len(names) > MAX_SCOPES:
        raise InputError(f"{len(names)} scopes are too many: use at most {MAX_SCOPES}, or wildcards such as skills:*.")
    if unknown := unknown_scopes(names, known):
        raise InputError(f"Scope {shown(unknown[0])} is not defined; known scopes: {', '.join(sorted(known))}.")
    if repeated := _repeated(names):
        raise InputError(f"Scope {shown(repeated)} is given twice: leave one out.")
    return Scopes(frozenset(names))


def checked_networks(networks: Collection[str]) -> tuple[str, ...]:
    """Return *networks* normalised, each once; none of them means that any address will do."""
    if len(networks) > MAX_NETWORKS:
        raise InputError(f"allowed_ips has {len(networks)} networks: use at most {MAX_NETWORKS}, or wider ones.")
    try:
        return tuple(dict.fromkeys(parse_network(network)[0] for network in networks))
    except ConfigurationError as exc:
        raise InputError(f"allowed_ips: {masked(str(exc))}.") from exc


def checked_expiry(expires_at: float | None, now: float) -> float | None:
    """Return *expires_at*, seconds since the epoch and later than *now*, or None for never."""
    if expires_at is None:
        return None
    if not expires_at <= _LAST_MOMENT:  # NaN is not either
        raise InputError(f"expires_at {expires_at} is not a moment before the year 10000: use none for never.")
    if expires_at <= now:
        raise InputError(f"expires_at {format_moment(expires_at)} is past: use a later moment, or none for never.")
    return float(expires_at)


def checked_metadata(metadata: Mapping[str, str]) -> dict[str, str]:
    """Return a copy of *metadata*."""
    if len(metadata) > MAX_PAIRS:
        raise InputError(f"metadata has {len(metadata)} pairs: use at most {MAX_PAIRS}.")
    for key, value in metadata.items():
        if not 1 <= len(key) <= MAX_PAIR_KEY or not key.isprintable():
            raise InputError(f"metadata key {shown(key)}: use 1 to {MAX_PAIR_KEY} characters that can be shown.")
        if len(value) > MAX_PAIR_VALUE:
            raise InputError(
                f"metadata value of {shown(key)} has {len(value)} characters: use at most {MAX_PAIR_VALUE}."
            )
        if _SECRETS.search(value) or _SECRETS.search(key):
            raise InputError(f"metadata {shown(key)} holds a secret, and metadata is stored as it is: leave it out.")
        if not _is_unicode(value):
            raise InputError(f"metadata value of {shown(key)} is not Unicode text: it has a lone surrogate.")
    return dict(metadata)


def format_moment(moment: float) -> str:
    """Return *moment*, seconds since the epoch, as RFC 3339 in UTC; a moment that has no date as its number."""
    try:
        return datetime.fromtimestamp(moment, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    except (OverflowError, ValueError, OSError):
        return str(moment)


def format_moment_or_none(moment: float | None) -> str | None:
    """Return *moment* as `format_moment` does; None stays None."""
    return None if moment is None else format_moment(moment)


def parse_moment(text: str) -> float:
    """Return the moment that *text* is in RFC 3339 (§5.6), in seconds since the epoch. Raises InputError."""
    # `fromisoformat` reads more than that: dates without a time, weeks, and moments without an offset.
    if _DATE_TIME.fullmatch(text):
        with suppress(ValueError):  # a 31st of February, a leap second
            return datetime.fromisoformat(text.upper()).timestamp()
    raise InputError(f"{shown(text)} is not a moment in RFC 3339: write it as in 2030-01-31T00:00:00Z.")


def masked(text: str) -> str:
    """Return *text* with the secrets in it cut short, tokens and URLs' passwords among them, also escaped ones."""
    plain = _ESCAPES.sub(_unescaped, text) if "%" in text else text
    cut = _PASSWORDS.sub(r"\1…", _TOKENS.sub(r"\1\2…", _SECRETS.sub(r"\1…", plain)))
    return text if cut == plain else cut


def holds_secret(text: str) -> bool:
    """Tell whether there is something in *text* that `masked` cuts short."""
    return masked(text) != text


def _unescaped(escape: re.Match[str]) -> str:
    return chr(int(escape[1], 16))


def _repeated(names: Iterable[str]) -> str | None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
