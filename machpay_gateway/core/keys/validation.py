"""Validation of the settings of keys and accounts. Each function returns the value to store, or raises InputError."""

from collections.abc import Collection, Iterable, Mapping

from machpay_gateway.core.errors import ConfigurationError, InputError
from machpay_gateway.core.network.address import parse_network
from machpay_gateway.core.scopes import DefinedScopes, Scopes, unknown_scopes
from machpay_gateway.core.text import format_moment, has_secret, mask_secrets, quote_value

MAX_NAME, MAX_OWNER, MAX_SCOPES, MAX_NETWORKS = 100, 200, 100, 1000
MAX_PAIRS, MAX_PAIR_KEY, MAX_PAIR_VALUE = 50, 40, 500
_LAST_MOMENT = 253_402_300_799.0  # the end of the year 9999, where RFC 3339 ends


def validate_name(name: str) -> str:
    """Return *name* without surrounding whitespace."""
    return _validate_line("name", name, MAX_NAME)


def validate_owner(owner: str | None) -> str | None:
    """Return *owner* without surrounding whitespace, or None for none."""
    return None if owner is None else _validate_line("owner", owner, MAX_OWNER)


def validate_tier(tier: str, configured: Collection[str]) -> str:
    """Return *tier*, which is one of those *configured*."""
    if tier not in configured:
        raise InputError(f"Tier {quote_value(tier)} is not configured; known tiers: {', '.join(configured)}.")
    return tier


def validate_scopes(names: Collection[str], known_scopes: DefinedScopes, *, for_operator: bool = False) -> Scopes:
    """Return *names* as Scopes. Each is one of *known_scopes* or a wildcard that matches one.

    The message about another one is for the caller of an API, or *for_operator*, who may learn where the settings are.
    """
    if len(names) > MAX_SCOPES:
        raise InputError(f"{len(names)} scopes are too many: use at most {MAX_SCOPES}, or wildcards such as skills:*.")
    if unknown := unknown_scopes(names, known_scopes):
        raise InputError(known_scopes.describe_undefined(unknown[0], for_operator=for_operator))
    if repeated := _repeated(names):
        raise InputError(f"Scope {quote_value(repeated)} is given twice: leave one out.")
    return Scopes(frozenset(names))


def validate_networks(networks: Collection[str]) -> tuple[str, ...]:
    """Return *networks* normalized and without duplicates. An empty result allows any address."""
    if len(networks) > MAX_NETWORKS:
        raise InputError(f"allowed_ips has {len(networks)} networks: use at most {MAX_NETWORKS}, or wider ones.")
    try:
        return tuple(dict.fromkeys(parse_network(network)[0] for network in networks))
    except ConfigurationError as exc:
        raise InputError(f"allowed_ips: {mask_secrets(str(exc))}.") from exc


def validate_expiry(expires_at: float | None, now: float) -> float | None:
    """Return *expires_at*, which is in seconds since the epoch and later than *now*, or None for never."""
    if expires_at is None:
        return None
    if not expires_at <= _LAST_MOMENT:  # also refuses NaN
        raise InputError(f"expires_at {expires_at} is not a moment before the year 10000: use none for never.")
    if expires_at <= now:
        raise InputError(f"expires_at {format_moment(expires_at)} is past: use a later moment, or none for never.")
    return float(expires_at)


def validate_metadata(metadata: Mapping[str, str]) -> dict[str, str]:
    """Return a copy of *metadata*."""
    if len(metadata) > MAX_PAIRS:
        raise InputError(f"metadata has {len(metadata)} pairs: use at most {MAX_PAIRS}.")
    for key, value in metadata.items():
        if not 1 <= len(key) <= MAX_PAIR_KEY or not key.isprintable():
            raise InputError(f"metadata key {quote_value(key)}: use 1 to {MAX_PAIR_KEY} characters that can be shown.")
        if len(value) > MAX_PAIR_VALUE:
            raise InputError(
                f"metadata value of {quote_value(key)} has {len(value)} characters: use at most {MAX_PAIR_VALUE}."
            )
        if has_secret(value) or has_secret(key):
            raise InputError(
                f"metadata {quote_value(key)} holds a secret, and metadata is stored as it is: leave it out."
            )
        if not _is_unicode(value):
            raise InputError(f"metadata value of {quote_value(key)} is not Unicode text: it has a lone surrogate.")
    return dict(metadata)


def _validate_line(kind: str, text: str, longest: int) -> str:
    stripped = text.strip()
    if not 1 <= len(stripped) <= longest:
        raise InputError(f"The {kind} {quote_value(text)} has {len(stripped)} characters: use 1 to {longest}.")
    if not stripped.isprintable():
        raise InputError(f"The {kind} {quote_value(text)} has characters that cannot be shown: leave them out.")
    if has_secret(stripped):
        raise InputError(
            f"The {kind} {quote_value(text)} holds a secret, and {kind}s are stored as they are: use another."
        )
    return stripped


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
