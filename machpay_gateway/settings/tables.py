"""A table of settings, parsed into its class; mistakes are reported field by field."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import MISSING, fields
from typing import Any, TypeVar

from machpay_gateway.core.brand import Brand
from machpay_gateway.core.decision.credential_settings import CredentialSettings
from machpay_gateway.core.decision.route import Route
from machpay_gateway.core.errors import ConfigurationError
from machpay_gateway.core.jose.assertion import AssertionSettings
from machpay_gateway.core.jose.issuer import Issuer
from machpay_gateway.core.keys.leak import LeakSettings
from machpay_gateway.core.limits.rate import AnonymousLimits, RouteLimit, SharedLimits, Tier
from machpay_gateway.core.network.cors import CorsSettings
from machpay_gateway.core.network.proxy_settings import ProxySettings
from machpay_gateway.core.network.upstream_options import HealthCheck, UpstreamOptions
from machpay_gateway.core.oauth.settings import OAuthSettings
from machpay_gateway.settings.console import ConsoleSettings
from machpay_gateway.settings.forward_auth import ForwardAuthSettings
from machpay_gateway.settings.lines import SettingPath
from machpay_gateway.settings.server import ServerSettings

Parsed = TypeVar(
    "Parsed",
    bound=Route
    | Issuer
    | RouteLimit
    | Tier
    | SharedLimits
    | AnonymousLimits
    | LeakSettings
    | CredentialSettings
    | CorsSettings
    | ProxySettings
    | UpstreamOptions
    | HealthCheck
    | ServerSettings
    | AssertionSettings
    | ForwardAuthSettings
    | OAuthSettings
    | ConsoleSettings
    | Brand,
)
_SAMPLES: Mapping[type, Mapping[str, Any]] = {
    Route: {"match": "GET /"},
    Tier: {"rate": "1/minute", "concurrency": 1},
    RouteLimit: {"rate": "1/minute"},
    SharedLimits: {"rate": "1/minute"},
    AnonymousLimits: {"rate": "1/minute"},
    Issuer: {"issuer": "https://id.example.com", "audience": "audience", "tier_claim": "tier", "tier_map": {}},
    LeakSettings: {},
    CredentialSettings: {},
    CorsSettings: {"origins": ()},
    ProxySettings: {},
    UpstreamOptions: {},
    HealthCheck: {"path": "/"},
    ServerSettings: {},
    AssertionSettings: {"key": "key.pem", "issuer": "issuer", "audience": "audience"},
    ForwardAuthSettings: {},
    OAuthSettings: {"issuer": "https://auth.example.com"},
    ConsoleSettings: {"url": "https://console.example.com"},
    Brand: {},
}
_NESTED: Mapping[type, Mapping[str, type[RouteLimit | SharedLimits | CorsSettings | HealthCheck]]] = {
    Route: {"limit": RouteLimit, "cors": CorsSettings},
    Tier: {"account": SharedLimits, "owner": SharedLimits},
    UpstreamOptions: {"health": HealthCheck},
}
Report = Callable[[SettingPath, str], None]


def unknown_setting(name: str, names: Iterable[str]) -> str:
    """Return the message about an unknown *name*, which suggests the closest of *names*."""
    from difflib import get_close_matches  # noqa: PLC0415 - for mistakes only

    names = sorted(names)
    close = get_close_matches(name, names, n=1)
    way_out = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(names)}"
    return f"{name!r} is not a setting here; {way_out}"


def unknown_service(name: str, names: Iterable[str]) -> str:
    """Return the message about a *name* that is not among the *names* of services."""
    from difflib import get_close_matches  # noqa: PLC0415 - for mistakes only

    names = sorted(names)
    close = get_close_matches(name, names, n=1)
    way_out = f"did you mean {close[0]!r}?" if close else f"add [services.{name}]"
    return f"Service {name!r} is not defined; {way_out}" + (f" Known services: {', '.join(names)}" if names else "")


def parse_table(table_class: type[Parsed], value: object, path: SettingPath, report: Report) -> Parsed | None:
    """Return *value* if it is a *table_class*, else one parsed from the mapping; None, reported, if it is invalid."""
    if isinstance(value, table_class):
        return value
    if not isinstance(value, Mapping):
        report(path, f"{value!r} is not a table")
        return None
    parameters = {field.name: field for field in fields(table_class) if field.init}
    unknown = [name for name in value if name not in parameters]
    for name in unknown:
        report((*path, name), unknown_setting(name, parameters))
    values = {
        name: _parse_within(table_class, name, item, (*path, name), report)
        for name, item in value.items()
        if name in parameters
    }
    required = [name for name, field in parameters.items() if field.default is field.default_factory is MISSING]
    missing = [name for name in required if name not in value]
    if missing:
        report(path, f"lacks {' and '.join(missing)}")
        return None
    try:
        return table_class(**values)
    except ConfigurationError as exc:
        mistakes = list(_mistakes_by_field(table_class, values))
        for name, mistake in mistakes:
            report((*path, name), mistake)
        if not mistakes and not unknown:
            report(path, str(exc))  # of no field in particular, such as a table without any limit
        return None


def _parse_within(table_class: type, name: str, value: Any, path: SettingPath, report: Report) -> Any:  # noqa: ANN401 - of any field
    """Return *value*, the field *name* of a *table_class*; parsed, or without what is invalid, if it is a table."""
    nested = _NESTED.get(table_class, {}).get(name)
    if nested is not None and value is not None:
        return parse_table(nested, value, path, report)
    if table_class is Route and name == "proxy" and isinstance(value, Mapping):
        return dict(valid_changes(value, path, report))
    return value


def valid_changes(
    changes: Mapping[str, Any], path: SettingPath, report: Report, *, of_service: bool = False
) -> Iterator[tuple[str, Any]]:
    """Yield those *changes* of the proxy's settings, by a route or a service, that are valid, each by itself."""
    for name, value in changes.items():
        try:
            ProxySettings().with_changes({name: value}, of_service=of_service)
        except ConfigurationError as exc:
            report((*path, name), str(exc))
        else:
            yield name, value


def _mistakes_by_field(table_class: type[Parsed], values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield each invalid field of *values* with its message: the class itself raises for the first one only.

    Each field is tried over a valid sample, and stays in it if it is valid. One that is valid only together with a
    later one is tried again. So a contradiction between two fields is reported for the later one.
    """
    valid, mistakes = dict(_SAMPLES[table_class]), dict.fromkeys(values, "")
    is_progress = True
    while is_progress:
        is_progress = False
        for name in list(mistakes):
            try:
                table_class(**(valid | {name: values[name]}))
            except ConfigurationError as exc:
                mistakes[name] = str(exc)
            else:
                valid[name] = values[name]
                del mistakes[name]
                is_progress = True
    yield from mistakes.items()
