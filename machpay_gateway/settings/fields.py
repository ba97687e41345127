"""What each setting may be: one table from its name to the function that reads it.

A reader takes what TOML, the environment (always text) or Python gave, and returns the value; what cannot be meant it
reports by place and goes on, so that one run names every mistake.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from machpay_gateway.core.decision.route import Route
from machpay_gateway.core.errors import ConfigurationError
from machpay_gateway.core.jose.assertion import AssertionSettings
from machpay_gateway.core.jose.issuer import Issuer
from machpay_gateway.core.keys.key import ENVIRONMENTS
from machpay_gateway.core.keys.leak import LeakSettings
from machpay_gateway.core.limits.rate import TIERS, Tier, parse_rate
from machpay_gateway.core.network.address import Allowlist, parse_allowlist, parse_network
from machpay_gateway.core.network.proxy_settings import ProxySettings
from machpay_gateway.core.network.upstream import Upstream, parse_origin
from machpay_gateway.core.network.url import without_user
from machpay_gateway.core.oauth.settings import OAuthSettings
from machpay_gateway.core.scopes import check_scope_name
from machpay_gateway.settings.console import ConsoleSettings
from machpay_gateway.settings.forward_auth import ForwardAuthSettings
from machpay_gateway.settings.lines import Place
from machpay_gateway.settings.server import ServerSettings, counted
from machpay_gateway.settings.tables import Report, made_from, not_a_setting

Reader = Callable[[object, Place, Report], object]

_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}")
_PREFIX = re.compile(r"[A-Za-z0-9._:-]{1,32}")
_LEAST_SECRET_KEY = 32  # characters: 128 bits when they are hex
_REDIS_SCHEMES = ("redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster")
_DATABASE_SCHEMES = ("sqlite", "postgresql", "memory")


def read_fields(values: Mapping[str, Any], place: Place, report: Report) -> dict[str, Any]:
    """Return those of *values* that could be read, by the table of settings.

    In a list of tables, None stands where one could not be read, so that the others keep their places.
    """
    read: dict[str, Any] = {}
    for name, value in values.items():
        if name not in FIELDS:
            report((*place, name), not_a_setting(name, FIELDS))
            continue
        try:
            read[name] = FIELDS[name](value, (*place, name), report)
        except ConfigurationError as exc:
            report((*place, name), str(exc))
    return read


def _flag(value: object, _place: Place, _report: Report) -> bool:
    if value in ("true", "false"):
        return value == "true"
    if not isinstance(value, bool):
        raise ConfigurationError(f"{value!r} is neither true nor false")
    return value


def _one_of(*choices: str) -> Reader:
    def read(value: object, _place: Place, _report: Report) -> str:
        if value not in choices:
            raise ConfigurationError(f"{value!r} is not one of {', '.join(choices)}")
        return str(value)

    return read


def _url(*schemes: str) -> Reader:
    def read(value: object, _place: Place, _report: Report) -> str | None:
        if value is None:
            return None
        if _scheme_and_host(value)[0] not in schemes:
            # Not the value itself: a URL often holds a password.
            raise ConfigurationError(f"not a URL that starts with {' or '.join(f'{s}://' for s in schemes)}")
        return str(value)

    return read


def _scheme_and_host(value: object) -> tuple[str, str | None]:
    try:
        parts = urlsplit(value if isinstance(value, str) else "")
    except ValueError:
        return "", None
    return parts.scheme, parts.hostname


def _rate(value: object, _place: Place, _report: Report) -> str:
    if not isinstance(value, str):
        raise ConfigurationError(f"{value!r} is not a rate: write it as in 1000/minute")
    parse_rate(value)
    return value


def _header(value: object, _place: Place, _report: Report) -> str:
    if not isinstance(value, str) or not _HEADER.fullmatch(value):
        raise ConfigurationError(f"{value!r} is not the name of a header")
    if value.lower() in {"authorization", "host", "cookie"}:
        raise ConfigurationError(f"{value!r} does not carry addresses: use X-Forwarded-For or Forwarded")
    return value


def _prefix(value: object, _place: Place, _report: Report) -> str:
    if not isinstance(value, str) or not _PREFIX.fullmatch(value):
        raise ConfigurationError(f"{value!r} is not a prefix for keys: use 1 to 32 letters, digits and . _ : -")
    return value


def _secret_key(value: object, _place: Place, _report: Report) -> str | None:
    if value is not None and not (isinstance(value, str) and len(value) >= _LEAST_SECRET_KEY):
        # Not the value itself, however short it is.
        raise ConfigurationError(f"use {_LEAST_SECRET_KEY} random characters or more, as from `openssl rand -hex 32`")
    return value


def _listed(value: object) -> list[object]:
    """Return *value* as a list; text, as the environment has it, is separated by commas."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    if isinstance(value, Sequence | set | frozenset):
        return list(value)
    raise ConfigurationError(f"{value!r} is not a list")


def _networks(value: object, place: Place, report: Report) -> Allowlist | None:
    accepted = []
    for index, text in enumerate(_listed(value)):
        try:
            accepted.append(_proxy_network(text))
        except ConfigurationError as exc:
            report((*place, index), str(exc))
    return parse_allowlist(accepted) if accepted else None


def _proxy_network(text: object) -> str:
    normalised = parse_network(text if isinstance(text, str) else repr(text))[0]
    if normalised in {"0.0.0.0/0", "::/0"}:
        raise ConfigurationError(f"{text!r} would let every caller claim any address: name your proxies")
    return normalised


def _scopes(value: object, place: Place, report: Report) -> tuple[str, ...]:
    names = _listed(value)
    for index, name in enumerate(names):
        try:
            check_scope_name(str(name))
        except ConfigurationError as exc:
            report((*place, index), str(exc))
    return tuple(str(name) for name in names)


def _environments(value: object, _place: Place, _report: Report) -> tuple[str, ...]:
    names = _listed(value)
    if not names or any(name not in ENVIRONMENTS for name in names):
        raise ConfigurationError(f"{value!r} is not a list of live, test or both")
    return tuple(str(name) for name in names)


def _each(made: type[Route] | type[Issuer]) -> Reader:
    def read(value: object, place: Place, report: Report) -> tuple[object, ...]:
        if isinstance(value, str):
            raise ConfigurationError("is a list of tables and cannot be set by text: use machpay.toml or Python")
        return tuple(made_from(made, item, (*place, index), report) for index, item in enumerate(_listed(value)))

    return read


def _tiers(value: object, place: Place, report: Report) -> Mapping[str, Tier]:
    if not isinstance(value, Mapping):
        raise ConfigurationError(f"{value!r} is not a table of tiers")
    tiers = dict(TIERS)
    for name, item in value.items():
        given = item
        if isinstance(item, Mapping):
            defaults = {"rate": TIERS[name].rate, "concurrency": TIERS[name].concurrency} if name in TIERS else {}
            given = {key: counted(entry) for key, entry in (defaults | dict(item)).items()}
        if (tier := made_from(Tier, given, (*place, name), report)) is not None:
            tiers[name] = tier
    return tiers


def _upstreams(value: object, place: Place, report: Report) -> Mapping[str, Upstream]:
    if not isinstance(value, Mapping):
        raise ConfigurationError(f"{value!r} is not a table of upstreams")
    upstreams = {}
    for name, urls in value.items():
        if name not in {"live", "sandbox"}:
            report((*place, name), not_a_setting(name, ["live", "sandbox"]))
            continue
        several = _listed(urls) if isinstance(urls, str | list | tuple) else [urls]
        if not several:
            report((*place, name), "names no address")
        wrong = [url for url in several if not _is_origin(url)]
        for url in wrong:
            shown = without_user(url) if isinstance(url, str) else url
            report((*place, name), f"{shown!r} is not an http:// or https:// address without a path, user or password")
        if several and not wrong:
            upstreams[name] = Upstream.of([str(url) for url in several])
    return upstreams


def _is_origin(url: object) -> bool:
    try:
        return isinstance(url, str) and bool(parse_origin(url))
    except ConfigurationError:
        return False


def _optional(
    made: type[LeakSettings] | type[AssertionSettings] | type[OAuthSettings] | type[ConsoleSettings],
) -> Reader:
    def read(value: object, place: Place, report: Report) -> object:
        if isinstance(value, Mapping):
            value = {name: counted(item) for name, item in value.items()}
        return None if value is None else made_from(made, value, place, report)

    return read


def _table_of(made: type[ProxySettings] | type[ServerSettings] | type[ForwardAuthSettings]) -> Reader:
    def read(value: object, place: Place, report: Report) -> object:
        if isinstance(value, Mapping):
            value = {name: _from_text(item) for name, item in value.items()}
        return made_from(made, value, place, report) or made()

    return read


def _from_text(value: object) -> object:
    """Return a flag or number that came as text, from the environment, as what it is."""
    if value in ("true", "false"):
        return value == "true"
    return counted(value)


FIELDS: Mapping[str, Reader] = {
    "database": _url(*_DATABASE_SCHEMES),
    "redis": _url(*_REDIS_SCHEMES),
    "redis_prefix": _prefix,
    "routes": _each(Route),
    "tiers": _tiers,
    "unlisted_routes": _one_of("deny", "authenticated"),
    "environments": _environments,
    "scopes": _scopes,
    "trusted_proxies": _networks,
    "client_ip_header": _header,
    "issuers": _each(Issuer),
    "failure_limit": _rate,
    "legacy_headers": _flag,
    "on_limiter_failure": _one_of("local", "deny", "allow"),
    "upstreams": _upstreams,
    "proxy": _table_of(ProxySettings),
    "server": _table_of(ServerSettings),
    "forward_auth": _table_of(ForwardAuthSettings),
    "leaks": _optional(LeakSettings),
    "assertion": _optional(AssertionSettings),
    "oauth": _optional(OAuthSettings),
    "console": _optional(ConsoleSettings),
    "secret_key": _secret_key,
    "traces": _flag,
}
