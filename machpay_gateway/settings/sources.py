"""The sources of settings: `machpay.toml`, then `MACHPAY_*`, then Python, each overriding the one before."""

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, takewhile
from pathlib import Path
from typing import Any, NamedTuple

from machpay_gateway.core.decision.policy import find_route_mistakes
from machpay_gateway.core.errors import ConfigurationError
from machpay_gateway.core.network.header_rules import parse_header_rules
from machpay_gateway.core.network.trusted_headers import hyphenate
from machpay_gateway.core.scopes import KNOWN_SCOPES, similar_scope
from machpay_gateway.settings.fields import FIELDS, read_fields
from machpay_gateway.settings.lines import SettingPath, line_of, lines_of
from machpay_gateway.settings.model import Options, Settings
from machpay_gateway.settings.secret_files import replace_secret_files
from machpay_gateway.settings.tables import unknown_service, unknown_setting

DEFAULT_FILE = "machpay.toml"
_PREFIX = "MACHPAY_"
# Variables of the SDKs, which may run beside the gateway.
_NOT_OURS = {"API_KEY", "ADMIN_KEY", "ACCESS_TOKEN", "BASE_URL", "AUTH_URL", "CONFIG"}


class SettingMistake(NamedTuple):
    """What is wrong, and its line in the file; 0 when it is not in the file."""

    line: int
    text: str


@dataclass(frozen=True, slots=True)
class _Source:
    """Values from one source, and how a mistake in them is described."""

    values: Mapping[str, Any]
    describe: Callable[[SettingPath, str], SettingMistake]

    def without(self, names: Collection[str]) -> "_Source":
        """Return the source without the settings *names*."""
        return replace(self, values={name: value for name, value in self.values.items() if name not in names})


@dataclass(slots=True)
class _Merged:
    """The values of all sources, each overriding the one before, table by table, and the source of each value."""

    values: dict[str, Any] = field(default_factory=dict)
    origins: dict[SettingPath, _Source] = field(default_factory=dict)

    def take(self, source: _Source) -> None:
        """Override the values so far by those of *source*."""
        self._merge(self.values, source.values, (), source)

    def describe(self, path: SettingPath, message: str) -> SettingMistake:
        """Return a mistake at *path* as the source of that value, or of the table around it, describes it."""
        origins = (path[:length] for length in range(len(path), 0, -1) if path[:length] in self.origins)
        return self.origins[next(origins)].describe(path, message)

    def _merge(self, into: dict[str, Any], values: Mapping[str, Any], path: SettingPath, source: _Source) -> None:
        for name, value in values.items():
            here = (*path, name)
            self.origins[here] = source
            if isinstance(value, Mapping):
                earlier = into.get(name)
                into[name] = dict(earlier) if isinstance(earlier, Mapping) else {}
                self._merge(into[name], value, here, source)
            else:
                into[name] = value


def load_settings(
    options: Options | None = None,
    environ: Mapping[str, str] = os.environ,
    *,
    without: Collection[str] = (),
) -> Settings:
    """Return the settings of this process. Raises ConfigurationError that names every mistake.

    The settings *without* are not read, and have their defaults.
    """
    options = options or {}
    config = options.get("config") or environ.get("MACHPAY_CONFIG")
    values = {name: value for name, value in options.items() if name != "config"}
    mistakes: list[SettingMistake] = []
    python = _Source(values, lambda path, message: SettingMistake(0, f"{_dotted(path)}: {message}"))
    sources = [_file(config, mistakes), _environment(environ, mistakes), python]
    return _load([source.without(without) for source in sources], mistakes, Path(config or DEFAULT_FILE))


def check_file(path: Path) -> list[str]:
    """Return every mistake in the file at *path*, by line, without regard to the environment."""
    try:
        load_settings({"config": path}, environ={})
    except ConfigurationError as exc:
        return str(exc).splitlines()
    return []


def _load(sources: Iterable[_Source], mistakes: list[SettingMistake], file: Path) -> Settings:
    merged = _Merged()
    for source in sources:
        merged.take(_with_secrets(source, mistakes))
    read = read_fields(merged.values, (), lambda path, text: mistakes.append(merged.describe(path, text)))
    routes, issuers = _drop_invalid(read, "routes"), _drop_invalid(read, "issuers")
    settings = Settings(**read, file=file)
    wrong = (
        _wrong_routes(routes, settings),
        _misspelled_scopes(routes, settings),
        _wrong_issuers(issuers, settings),
        _wrong_credentials(settings),
        _wrong_listeners(settings),
        _wrong_services(routes, settings),
    )
    for path, text in chain.from_iterable(wrong):
        mistakes.append(merged.describe(path, text))
    if mistakes:
        raise ConfigurationError(
            "\n".join(mistake.text for mistake in sorted(mistakes, key=lambda mistake: mistake.line))
        )
    return settings


def _with_secrets(source: _Source, mistakes: list[SettingMistake]) -> _Source:
    """Return *source* with what the files of secrets hold; a mistake in that names the setting of the file."""
    values, files = replace_secret_files(source.values, lambda path, text: mistakes.append(source.describe(path, text)))

    def describe(path: SettingPath, message: str) -> SettingMistake:
        return source.describe((*path[:-1], files[path]) if path in files else path, message)

    return _Source(values, describe)


def _drop_invalid(read: dict[str, Any], name: str) -> list[int]:
    """Drop the None of each invalid item from the list *name*, and return the original index of each item left."""
    items = read.get(name, ())
    indexes = [index for index, item in enumerate(items) if item is not None]
    if name in read:
        read[name] = tuple(items[index] for index in indexes)
    return indexes


def _wrong_credentials(settings: Settings) -> Iterator[tuple[SettingPath, str]]:
    for name in settings.credentials.headers:
        if name.lower() == settings.client_ip_header.lower():
            yield ("credentials", "headers"), f"{name!r} is client_ip_header, and cannot hold a credential too"
        if name.lower().startswith(settings.brand.header_prefix.lower()):
            yield ("credentials", "headers"), f"{name!r} would be an identity header: see brand.header_prefix"


def _wrong_listeners(settings: Settings) -> Iterator[tuple[SettingPath, str]]:
    server = settings.server
    if not any(server.has_proxy_protocol(listener) for listener in server.listeners):
        return
    place = ("server", "proxy_protocol" if server.proxy_protocol else "listen")
    if settings.trusted_proxies is None:
        yield place, "proxy_protocol needs trusted_proxies: whoever sends its header chooses the client's address"
    if server.control_plane == "only":
        yield place, 'proxy_protocol is not for control_plane = "only": send X-Forwarded-For instead'


def _wrong_routes(indexes: Sequence[int], settings: Settings) -> Iterator[tuple[SettingPath, str]]:
    if settings.server.client_ca is None:
        for index, route in zip(indexes, settings.routes, strict=True):
            if route.client_certificate == "required":
                yield ("routes", index, "client_certificate"), "needs client_ca under [server], and TLS"
    for index, text in find_route_mistakes(settings.routes, settings.tiers, settings.anonymous):
        yield ("routes", indexes[index]), text


def _wrong_services(indexes: Sequence[int], settings: Settings) -> Iterator[tuple[SettingPath, str]]:
    """Yield the routes whose service is not there, and header rules for the identity headers of the brand."""
    for index, route in zip(indexes, settings.routes, strict=True):
        if route.service is not None and route.service not in settings.services:
            yield ("routes", index, "service"), unknown_service(route.service, settings.services)
        elif route.service is None and settings.services and not settings.upstreams:
            yield ("routes", index), "names no service, and there is no default one: add service, or set [upstreams]"
        elif route.service is not None and not settings.services[route.service].environments & set(route.environments):
            kinds = " or ".join(sorted(route.environments))
            message = f"Service {route.service!r} has no upstream for {kinds} credentials: all callers would be refused"
            yield ("routes", index, "environments"), message
        yield from _branded_rules(("routes", index), route.proxy, settings)
    yield from _branded_rules(("upstreams",), settings.upstreams.options, settings)
    for name, service in settings.services.items():
        yield from _branded_rules(("services", name), service.options, settings)
    of_proxy = {name: getattr(settings.proxy, name) for name in ("request_headers", "response_headers")}
    yield from _branded_rules(("proxy",), of_proxy, settings)


def _branded_rules(
    path: SettingPath, options: Mapping[str, object], settings: Settings
) -> Iterator[tuple[SettingPath, str]]:
    prefix = settings.brand.header_prefix.lower()
    for setting in ("request_headers", "response_headers"):
        if (table := options.get(setting)) is None:
            continue
        rules = parse_header_rules(table, of_responses=setting == "response_headers")
        for name in sorted({*rules.removed, *(hyphenate(name) for name, _ in rules.fields)}):
            if name.startswith(prefix):
                yield (*path, setting), f"{name!r} cannot be changed: the gateway says who the caller is"


def _misspelled_scopes(indexes: Sequence[int], settings: Settings) -> Iterator[tuple[SettingPath, str]]:
    """Yield the scopes of routes that are not in the table of scopes, but very like one that is."""
    if not isinstance(settings.scopes, Mapping):
        return  # a list is of what keys may hold besides the scopes of routes
    for index, route in zip(indexes, settings.routes, strict=True):
        for name in sorted({name for names in route.requires.alternatives for name in names}):
            if name not in KNOWN_SCOPES and (similar := similar_scope(name, settings.scopes)):
                yield (
                    ("routes", index, "scopes"),
                    f'{name!r} is not in [scopes]; did you mean {similar!r}? Else add: "{name}" = "What it allows"',
                )


def _wrong_issuers(indexes: Sequence[int], settings: Settings) -> Iterator[tuple[SettingPath, str]]:
    issuers: set[str] = set()
    for index, issuer in zip(indexes, settings.issuers, strict=True):
        mapped = [(("tier_map", value), tier) for value, tier in (issuer.tier_map or {}).items()]
        for place, tier in [(("tier",), issuer.tier), *mapped]:
            if tier not in tuple(settings.tiers):  # of any type, as in TOML
                tiers = ", ".join(settings.tiers)
                yield ("issuers", index, *place), f"Tier {tier!r} is not defined; known tiers: {tiers}"
        if issuer.issuer in issuers:
            yield ("issuers", index, "issuer"), f"Issuer {issuer.issuer!r} is listed twice"
        issuers.add(issuer.issuer)


def _file(config: str | os.PathLike[str] | None, mistakes: list[SettingMistake]) -> _Source:
    import tomllib  # noqa: PLC0415 - it takes 3 ms, which an import of the package need not

    file = Path(config or DEFAULT_FILE)
    text = _text_of(file, mistakes, is_named=bool(config))
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        mistakes.append(SettingMistake(0, f"{file}: {exc}"))
        values = {}
    lines = lines_of(text)

    def describe(path: SettingPath, message: str) -> SettingMistake:
        line = line_of(lines, path)
        return SettingMistake(line, f"{file}:{line}: {_dotted(path)}: {message}")

    return _Source(values, describe)


def _text_of(path: Path, mistakes: list[SettingMistake], *, is_named: bool) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        if is_named:
            mistakes.append(SettingMistake(0, f"{path}: there is no such file; `machpay-gateway init` writes one"))
    except (OSError, UnicodeDecodeError) as exc:
        mistakes.append(SettingMistake(0, f"{path}: cannot be read: {exc}"))
    return ""


def _environment(environ: Mapping[str, str], mistakes: list[SettingMistake]) -> _Source:
    """Read `MACHPAY_TIERS__GOLD__RATE` as `tiers.gold.rate`."""
    values: dict[str, Any] = {}
    for variable, value in sorted(environ.items()):
        if not variable.startswith(_PREFIX) or (name := variable.removeprefix(_PREFIX)) in _NOT_OURS:
            continue
        parts = name.lower().split("__")
        if parts[0] not in FIELDS:
            variables = [_PREFIX + field.upper() for field in FIELDS]
            mistakes.append(SettingMistake(0, f"{variable}: {unknown_setting(variable, variables)}"))
        elif not _insert(values, parts, value):
            mistakes.append(
                SettingMistake(0, f"{variable}: a part of it is set as a value of its own; unset one of the two")
            )
    return _Source(values, lambda path, message: SettingMistake(0, f"{_variable(path)}: {message}"))


def _insert(values: dict[str, Any], parts: Sequence[str], value: str) -> bool:
    """Insert *value* at *parts* into nested tables; return False where a value and a table have the same name."""
    *tables, last = parts
    table = values
    for part in tables:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            return False
    if last in table:
        return False
    table[last] = value
    return True


def _variable(path: SettingPath) -> str:
    """Return the variable of *path*, followed by the place within its JSON if it has a list of tables."""
    names = [part for part in takewhile(lambda part: isinstance(part, str), path) if isinstance(part, str)]
    within = path[len(names) :]
    variable = _PREFIX + "__".join(names).upper()
    return f"{variable}: {_dotted(within)}" if any(isinstance(part, str) for part in within) else variable


def _dotted(path: SettingPath) -> str:
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text
