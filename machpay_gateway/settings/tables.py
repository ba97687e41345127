"""A table of settings, made into what it describes; what is wrong with it is told field by field."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import MISSING, fields
from difflib import get_close_matches
from typing import Any, TypeVar

from machpay_gateway.core.decision.route import Route
from machpay_gateway.core.errors import ConfigurationError
from machpay_gateway.core.jose.assertion import AssertionSettings
from machpay_gateway.core.jose.issuer import Issuer
from machpay_gateway.core.keys.leak import LeakSettings
from machpay_gateway.core.limits.rate import Tier
from machpay_gateway.core.network.proxy_settings import ProxySettings
from machpay_gateway.core.oauth.settings import OAuthSettings
from machpay_gateway.settings.console import ConsoleSettings
from machpay_gateway.settings.forward_auth import ForwardAuthSettings
from machpay_gateway.settings.lines import Place
from machpay_gateway.settings.server import ServerSettings

Made = TypeVar(
    "Made",
    bound=Route
    | Issuer
    | Tier
    | LeakSettings
    | ProxySettings
    | ServerSettings
    | AssertionSettings
    | ForwardAuthSettings
    | OAuthSettings
    | ConsoleSettings,
)
_SAMPLES: Mapping[type, Mapping[str, Any]] = {
    Route: {"match": "GET /"},
    Tier: {"rate": "1/minute", "concurrency": 1},
    Issuer: {"issuer": "issuer", "audience": "audience", "jwks": "jwks.json"},
    LeakSettings: {},
    ProxySettings: {},
    ServerSettings: {},
    AssertionSettings: {"key": "key.pem", "issuer": "issuer", "audience": "audience"},
    ForwardAuthSettings: {},
    OAuthSettings: {"issuer": "https://auth.example.com"},
    ConsoleSettings: {"url": "https://console.example.com"},
}
Report = Callable[[Place, str], None]


def not_a_setting(name: str, known: Iterable[str]) -> str:
    """Return what to say of an unknown *name*."""
    known = sorted(known)
    close = get_close_matches(name, known, n=1)
    way_out = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"
    return f"{name!r} is not a setting here; {way_out}"


def made_from(made: type[Made], value: object, place: Place, report: Report) -> Made | None:
    """Return *value* if it is one already, else one *made* from the table it is; None, reported, when it is neither."""
    if isinstance(value, made):
        return value
    if not isinstance(value, Mapping):
        report(place, f"{value!r} is not a table")
        return None
    known = {field.name: field for field in fields(made) if field.init}
    for name in value:
        if name not in known:
            report((*place, name), not_a_setting(name, known))
    required = [name for name, field in known.items() if field.default is field.default_factory is MISSING]
    missing = [name for name in required if name not in value]
    if missing:
        report(place, f"lacks {' and '.join(missing)}")
        return None
    given = {name: item for name, item in value.items() if name in known}
    try:
        return made(**given)
    except ConfigurationError:
        for name, mistake in _mistakes_by_field(made, given):
            report((*place, name), mistake)
        return None


def _mistakes_by_field(made: type[Made], given: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield each field of *given* that cannot be meant, and why: a class itself stops at the first.

    The fields are tried one after the other over a sample that is right, and those that are right stay in it: so what
    two fields contradict each other in is told of the later one.
    """
    right = dict(_SAMPLES[made])
    for name, value in given.items():
        try:
            made(**(right | {name: value}))
        except ConfigurationError as exc:
            yield name, str(exc)
        else:
            right[name] = value
