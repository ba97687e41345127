"""The reader of each setting, by its name.

A reader takes a value from TOML, the environment (always text) or Python, and returns it parsed. It reports mistakes by
their path and goes on, so that one run names all of them.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from machpay_gateway.core.brand import MACHPAY, Brand
from machpay_gateway.core.decision.credential_settings import CredentialSettings
from machpay_gateway.core.decision.route import Route
from machpay_gateway.core.errors import ConfigurationError
from machpay_gateway.core.jose.assertion import AssertionSettings
from machpay_gateway.core.jose.issuer import Issuer
from machpay_gateway.core.keys.key import ENVIRONMENTS
from machpay_gateway.core.keys.leak import LeakSettings
from machpay_gateway.core.limits.rate import TIERS, AnonymousLimits, Tier, parse_rate
from machpay_gateway.core.network.address import Allowlist, parse_allowlist, parse_network
from machpay_gateway.core.network.cors import CorsSettings
from machpay_gateway.core.network.forwarded import UNIX_PEER
from machpay_gateway.core.network.proxy_settings import ProxySettings, option_names
from machpay_gateway.core.network.service import UpstreamService
from machpay_gateway.core.network.upstream import Upstream, parse_origin, parse_server
from machpay_gateway.core.network.upstream_options import UpstreamOptions
from machpay_gateway.core.network.url import without_user
from machpay_gateway.core.oauth.settings import OAuthSettings
from machpay_gateway.core.scopes import check_configured_scope
from machpay_gateway.core.usage.counters import MINUTE
from machpay_gateway.settings.console import ConsoleSettings
from machpay_gateway.settings.forward_auth import ForwardAuthSettings
from machpay_gateway.settings.lines import SettingPath
from machpay_gateway.settings.server import ServerSettings, parse_number
from machpay_gateway.settings.tables import Report, parse_table, unknown_setting, valid_changes

Reader = Callable[[object, SettingPath, Report], object]

_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}")
_APPLICATION = re.compile(r"[A-Za-z_]\w*(\.\w+)*:[A-Za-z_]\w*(\.\w+)*(\(\))?")
_PREFIX = re.compile(r"[A-Za-z0-9._:-]{1,32}")
_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_LIMITS = {"rate", "quota"}
_MOST_TRUST_SECONDS = 3600
_LEAST_CACHED, _MOST_CACHED = 100, 10_000_000
_MAX_WORKERS = 100_000  # over all hosts
_MIN_SECRET_KEY = 32  # characters: 128 bits when they are hex
_REDIS_SCHEMES = ("redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster")
_SERVICE = re.compile(r"[A-Za-z0-9_-]{1,64}")
_UPSTREAMS = ("live", "sandbox")
_DATABASE_SCHEMES = ("sqlite", "postgresql", "memory")


def read_fields(values: Mapping[str, Any], path: SettingPath, report: Report) -> dict[str, Any]:
    """Return the valid ones of *values*, parsed.

    In a list of tables, None replaces each invalid one, so that the others keep their indexes.
    """
    read: dict[str, Any] = {}
    for name, value in values.items():
        if name not in FIELDS:
            report((*path, name), unknown_setting(name, FIELDS))
            continue
        try:
            read[name] = FIELDS[name](value, (*path, name), report)
        except ConfigurationError as exc:
            report((*path, name), str(exc))
    return read


def _flag(value: object, _path: SettingPath, _report: Report) -> bool:
    if value in ("true", "false"):
        return value == "true"
    if not isinstance(value, bool):
        raise ConfigurationError(f"{value!r} is neither true nor false")
    return value


def _size(value: object, _path: SettingPath, _report: Report) -> int:
    size = parse_number(value)
    if type(size) is not int or not _LEAST_CACHED <= size <= _MOST_CACHED:
        raise ConfigurationError(f"{value!r} is not a whole number from {_LEAST_CACHED} to {_MOST_CACHED}")
    return size


def _one_of(*choices: str) -> Reader:
    def read(value: object, _path: SettingPath, _report: Report) -> str:
        if value not in choices:
            raise ConfigurationError(f"{value!r} is not one of {', '.join(choices)}")
        return str(value)

    return read


def _url(*schemes: str) -> Reader:
    def read(value: object, _path: SettingPath, _report: Report) -> str | None:
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


def _rate(value: object, _path: SettingPath, _report: Report) -> str:
    if not isinstance(value, str):
        raise ConfigurationError(f"{value!r} is not a rate: write it as in 1000/minute")
    parse_rate(value)
    return value


def _seconds(least: float, most: float) -> Reader:
    def read(value: object, _path: SettingPath, _report: Report) -> float:
        seconds = parse_number(value)
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not least <= seconds <= most:
            raise ConfigurationError(f"{value!r} is not a number of seconds from {least:g} to {most:g}")
        return float(seconds)

    return read


def _header(value: object, _path: SettingPath, _report: Report) -> str:
    if not isinstance(value, str) or not _HEADER.fullmatch(value):
        raise ConfigurationError(f"{value!r} is not the name of a header")
    if value.lower() in {"authorization", "host", "cookie"}:
        raise ConfigurationError(f"{value!r} does not carry addresses: use X-Forwarded-For or Forwarded")
    return value


def _prefix(value: object, _path: SettingPath, _report: Report) -> str:
    if not isinstance(value, str) or not _PREFIX.fullmatch(value):
        raise ConfigurationError(f"{value!r} is not a prefix for keys: use 1 to 32 letters, digits and . _ : -")
    return value


def _path(value: object, _path: SettingPath, _report: Report) -> Path | None:
    return None if value is None else Path(str(value))


def _hook(value: object, _path: SettingPath, _report: Report) -> object:
    if value is not None and not callable(value) and not (isinstance(value, str) and _FUNCTION.fullmatch(value)):
        raise ConfigurationError(f"{value!r} is neither a function nor the name of one, `package.module:function`")
    return value


def _hooks(value: object, path: SettingPath, report: Report) -> tuple[object, ...]:
    if callable(value):
        raise ConfigurationError(f"{value!r} is a function: write a list of functions")
    return tuple(_hook(item, path, report) for item in _as_list(value))


def _workers(value: object, _path: SettingPath, _report: Report) -> int | None:
    number = parse_number(value)
    if number is not None and (type(number) is not int or not 1 <= number <= _MAX_WORKERS):
        raise ConfigurationError(f"{value!r} is not a number of workers from 1 to {_MAX_WORKERS}")
    return number


def _secret_key(value: object, _path: SettingPath, _report: Report) -> str | None:
    if value is not None and not (isinstance(value, str) and len(value) >= _MIN_SECRET_KEY):
        # Not the value itself, however short it is.
        raise ConfigurationError(f"use {_MIN_SECRET_KEY} random characters or more, as from `openssl rand -hex 32`")
    return value


def _as_list(value: object) -> list[object]:
    """Return *value* as a list; text, as the environment has it, is split at commas."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    if isinstance(value, Sequence | set | frozenset):
        return list(value)
    raise ConfigurationError(f"{value!r} is not a list")


def _networks(value: object, path: SettingPath, report: Report) -> Allowlist | None:
    accepted, has_unix = [], False
    for index, text in enumerate(_as_list(value)):
        if text == UNIX_PEER:
            has_unix = True
            continue
        try:
            accepted.append(_proxy_network(text))
        except ConfigurationError as exc:
            report((*path, index), str(exc))
    if not accepted and not has_unix:
        return None
    return replace(parse_allowlist(accepted), has_unix=has_unix)


def _proxy_network(text: object) -> str:
    normalized = parse_network(text if isinstance(text, str) else repr(text))[0]
    if normalized in {"0.0.0.0/0", "::/0"}:
        raise ConfigurationError(f"{text!r} would let every caller claim any address: name your proxies")
    return normalized


def _scopes(value: object, path: SettingPath, report: Report) -> tuple[str, ...] | Mapping[str, str]:
    """Return the names in a list, or those in a table with what each allows."""
    names = list(value.items()) if isinstance(value, Mapping) else [*enumerate(_as_list(value))]
    for place, content in names:
        try:
            if isinstance(value, Mapping):
                _check_scope(str(place), content)
            else:
                check_configured_scope(str(content))
        except ConfigurationError as exc:
            report((*path, place), str(exc))
    if isinstance(value, Mapping):
        return {str(name): str(description).strip() for name, description in names}
    return tuple(str(name) for _, name in names)


def _check_scope(name: str, description: object) -> None:
    check_configured_scope(name)
    if not isinstance(description, str) or not description.strip():
        raise ConfigurationError(
            f'{description!r} does not say what the scope allows: write "{name}" = "What it allows"'
        )


def _application(value: object, _path: SettingPath, _report: Report) -> str | None:
    if value is not None and not (isinstance(value, str) and _APPLICATION.fullmatch(value)):
        raise ConfigurationError(f'{value!r} is not a module and the name of an application in it, as in "main:app"')
    return value


def _environments(value: object, _path: SettingPath, _report: Report) -> tuple[str, ...]:
    names = _as_list(value)
    if not names or any(name not in ENVIRONMENTS for name in names):
        raise ConfigurationError(f"{value!r} is not a list of live, test or both")
    return tuple(str(name) for name in names)


def _list_of(table_class: type[Route] | type[Issuer]) -> Reader:
    def read(value: object, path: SettingPath, report: Report) -> tuple[object, ...]:
        tables = _tables_in(value) if isinstance(value, str) else _as_list(value)
        return tuple(parse_table(table_class, item, (*path, index), report) for index, item in enumerate(tables))

    return read


def _tables_in(text: str) -> list[object]:
    """Return the list of tables that the environment has as JSON."""
    try:
        tables = json.loads(text)
    except ValueError:
        tables = None
    if not isinstance(tables, list):
        raise ConfigurationError('is a list of tables: in the environment, write it as JSON, as in [{"name": "value"}]')
    return tables


def _tiers(value: object, path: SettingPath, report: Report) -> Mapping[str, Tier]:
    if not isinstance(value, Mapping):
        raise ConfigurationError(f"{value!r} is not a table of tiers")
    tiers = dict(TIERS)
    for name, item in value.items():
        table = item
        if isinstance(item, Mapping):
            defaults = {"rate": TIERS[name].rate, "concurrency": TIERS[name].concurrency} if name in TIERS else {}
            table = _with_numbers(defaults | dict(item))
        if (tier := parse_table(Tier, table, (*path, name), report)) is not None:
            tiers[name] = tier
    return tiers


def _with_numbers(table: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return *table* with numbers for those in text, as the environment has them, also within a table.

    Limits stay text: a mistake in them is described as it is written.
    """
    return {
        name: _with_numbers(item) if isinstance(item, Mapping) else item if name in _LIMITS else parse_number(item)
        for name, item in table.items()
    }


def _services(value: object, path: SettingPath, report: Report) -> Mapping[str, UpstreamService]:
    if not isinstance(value, Mapping):
        raise ConfigurationError(f"{value!r} is not a table of services")
    services = {}
    for name, item in value.items():
        if not _SERVICE.fullmatch(str(name)):
            report((*path, name), f"{name!r} is not the name of a service: use letters, digits, - and _")
        elif not isinstance(item, Mapping):
            report((*path, name), f"{item!r} is not a table with live, sandbox or both")
        else:
            services[name] = _upstreams(item, (*path, name), report)
            if not any(upstream in item for upstream in _UPSTREAMS):
                report((*path, name), "names neither live nor sandbox, so there is nowhere to forward requests to")
    return services


def _upstreams(value: object, path: SettingPath, report: Report) -> UpstreamService:
    if not isinstance(value, Mapping):
        raise ConfigurationError(f"{value!r} is not a table of upstreams")
    upstreams = {}
    options = _upstream_options(value, path, report)
    for name in _UPSTREAMS:
        if name not in value:
            continue
        servers = value[name]
        servers = _as_list(servers) if isinstance(servers, str | list | tuple) else [servers]
        if not servers:
            report((*path, name), "names no address")
        mistakes = [mistake for server in servers if (mistake := _server_mistake(server)) is not None]
        for mistake in mistakes:
            report((*path, name), mistake)
        if servers and not mistakes:
            try:
                upstreams[name] = Upstream.of(servers, options)
            except ConfigurationError as exc:
                report((*path, name), str(exc))
    changes = {name: _from_text(item) for name, item in value.items() if name in option_names()}
    return UpstreamService(upstreams, dict(valid_changes(changes, path, report, of_service=True)))


def _upstream_options(value: Mapping[str, Any], path: SettingPath, report: Report) -> UpstreamOptions:
    """Return what is in *value*, a table of upstreams, beside their addresses."""
    names = [field.name for field in fields(UpstreamOptions)]
    options = {}
    for name, item in value.items():
        if name in names:
            options[name] = _with_numbers(item) if isinstance(item, Mapping) else _from_text(item)
        elif name not in _UPSTREAMS and name not in option_names():
            report((*path, name), unknown_setting(name, [*_UPSTREAMS, *names, *option_names()]))
    return parse_table(UpstreamOptions, options, path, report) or UpstreamOptions()


def _server_mistake(server: object) -> str | None:
    """Return what is wrong with *server*, a URL or a table with one, None if nothing is."""
    url = server.get("url") if isinstance(server, Mapping) else server
    try:
        parse_origin(url)
    except ConfigurationError:
        masked = without_user(url) if isinstance(url, str) else url
        return (
            f"{masked!r} is not an http:// or https:// address without a query, user or password, nor the unix:/path "
            "of a socket"
        )
    try:
        parse_server(server)
    except ConfigurationError as exc:
        return str(exc)
    return None


def _optional(
    table_class: type[LeakSettings]
    | type[AssertionSettings]
    | type[OAuthSettings]
    | type[ConsoleSettings]
    | type[AnonymousLimits],
) -> Reader:
    def read(value: object, path: SettingPath, report: Report) -> object:
        if isinstance(value, Mapping):
            value = {name: item if name in _LIMITS else parse_number(item) for name, item in value.items()}
        return None if value is None else parse_table(table_class, value, path, report)

    return read


def _table_of(
    table_class: type[ProxySettings] | type[ServerSettings] | type[ForwardAuthSettings] | type[CredentialSettings],
) -> Reader:
    def read(value: object, path: SettingPath, report: Report) -> object:
        if isinstance(value, Mapping):
            value = {name: _from_text(item) for name, item in value.items()}
        return parse_table(table_class, value, path, report) or table_class()

    return read


def _brand(value: object, path: SettingPath, report: Report) -> object:
    return parse_table(Brand, value, path, report) or MACHPAY


def _cors(value: object, path: SettingPath, report: Report) -> CorsSettings | None:
    if isinstance(value, Mapping):
        value = {name: _from_text(item) for name, item in value.items()}
    return None if value is None else parse_table(CorsSettings, value, path, report)


def _from_text(value: object) -> object:
    """Return *value* as a flag or number if it is one in text, as the environment has it, else as it is."""
    if value in ("true", "false"):
        return value == "true"
    return parse_number(value)


FIELDS: Mapping[str, Reader] = {
    "database": _url(*_DATABASE_SCHEMES),
    "database_file": _path,
    "redis": _url(*_REDIS_SCHEMES),
    "redis_file": _path,
    "redis_prefix": _prefix,
    "routes": _list_of(Route),
    "tiers": _tiers,
    "anonymous": _optional(AnonymousLimits),
    "unlisted_routes": _one_of("deny", "authenticated"),
    "environments": _environments,
    "scopes": _scopes,
    "application": _application,
    "trusted_proxies": _networks,
    "client_ip_header": _header,
    "credentials": _table_of(CredentialSettings),
    "cors": _cors,
    "issuers": _list_of(Issuer),
    "checks": _hooks,
    "identify": _hook,
    "failure_limit": _rate,
    "trust_seconds": _seconds(0, _MOST_TRUST_SECONDS),
    "cache_size": _size,
    "legacy_headers": _flag,
    "on_limiter_failure": _one_of("local", "deny", "allow"),
    "expected_workers": _workers,
    "upstreams": _upstreams,
    "services": _services,
    "proxy": _table_of(ProxySettings),
    "server": _table_of(ServerSettings),
    "forward_auth": _table_of(ForwardAuthSettings),
    "leaks": _optional(LeakSettings),
    "assertion": _optional(AssertionSettings),
    "oauth": _optional(OAuthSettings),
    "console": _optional(ConsoleSettings),
    "secret_key": _secret_key,
    "secret_key_file": _path,
    "traces": _flag,
    "usage_seconds": _seconds(1, MINUTE.seconds),
    "brand": _brand,
}
