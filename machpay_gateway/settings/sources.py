"""Where settings come from: `machpay.toml`, then `MACHPAY_*`, then Python, each over the one before."""

import os
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from machpay_gateway.core.decision.policy import find_route_mistakes
from machpay_gateway.core.errors import ConfigurationError
from machpay_gateway.settings.fields import FIELDS, read_fields
from machpay_gateway.settings.lines import Place, line_of, lines_of
from machpay_gateway.settings.model import Options, Settings
from machpay_gateway.settings.tables import not_a_setting

DEFAULT_FILE = "machpay.toml"
_PREFIX = "MACHPAY_"
# Read by other programs that people run beside the gateway: the SDK's own variables.
_NOT_OURS = {"API_KEY", "ADMIN_KEY", "ACCESS_TOKEN", "BASE_URL", "AUTH_URL", "CONFIG"}


class SettingMistake(NamedTuple):
    """What is wrong, with its place in the text; *line* is 0 where there are no lines."""

    line: int
    text: str


@dataclass(frozen=True, slots=True)
class _Source:
    """Values from one place, and how a mistake in them is told."""

    values: Mapping[str, Any]
    told: Callable[[Place, str], SettingMistake]


@dataclass(slots=True)
class _Merged:
    """The values of all sources, each over the one before, table by table; and where each of them came from."""

    values: dict[str, Any] = field(default_factory=dict)
    origins: dict[Place, _Source] = field(default_factory=dict)

    def take(self, source: _Source) -> None:
        """Put the values of *source* over what is there."""
        self._merge(self.values, source.values, (), source)

    def told(self, place: Place, message: str) -> SettingMistake:
        """Return how a mistake at *place* is told: by the source of the closest thing around it."""
        known = (place[:length] for length in range(len(place), 0, -1) if place[:length] in self.origins)
        return self.origins[next(known)].told(place, message)

    def _merge(self, into: dict[str, Any], values: Mapping[str, Any], place: Place, source: _Source) -> None:
        for name, value in values.items():
            here = (*place, name)
            self.origins[here] = source
            if isinstance(value, Mapping):
                kept = into.get(name)
                into[name] = dict(kept) if isinstance(kept, Mapping) else {}
                self._merge(into[name], value, here, source)
            else:
                into[name] = value


def load_settings(options: Options | None = None, environ: Mapping[str, str] = os.environ) -> Settings:
    """Return the settings of this process. Raises ConfigurationError that names every mistake."""
    options = options or {}
    config = options.get("config") or environ.get("MACHPAY_CONFIG")
    given = {name: value for name, value in options.items() if name != "config"}
    mistakes: list[SettingMistake] = []
    python = _Source(given, lambda place, message: SettingMistake(0, f"{_dotted(place)}: {message}"))
    return _settled([_file(config, mistakes), _environment(environ, mistakes), python], mistakes)


def check_file(path: Path) -> list[str]:
    """Return every mistake in the file at *path*, by line; the environment is left out."""
    try:
        load_settings({"config": path}, environ={})
    except ConfigurationError as exc:
        return str(exc).splitlines()
    return []


def _settled(sources: Iterable[_Source], mistakes: list[SettingMistake]) -> Settings:
    merged = _Merged()
    for source in sources:
        merged.take(source)
    read = read_fields(merged.values, (), lambda place, text: mistakes.append(merged.told(place, text)))
    routes, issuers = _without_holes(read, "routes"), _without_holes(read, "issuers")
    settings = Settings(**read)
    for place, text in chain(_wrong_routes(routes, settings), _wrong_issuers(issuers, settings)):
        mistakes.append(merged.told(place, text))
    if mistakes:
        raise ConfigurationError("\n".join(mistake.text for mistake in sorted(mistakes, key=lambda told: told.line)))
    return settings


def _without_holes(read: dict[str, Any], name: str) -> list[int]:
    """Leave only what could be read in the list *name*, and return the places it had."""
    items = read.get(name, ())
    places = [index for index, item in enumerate(items) if item is not None]
    if name in read:
        read[name] = tuple(items[index] for index in places)
    return places


def _wrong_routes(places: Sequence[int], settings: Settings) -> Iterator[tuple[Place, str]]:
    for index, text in find_route_mistakes(settings.routes, settings.tiers):
        yield ("routes", places[index]), text


def _wrong_issuers(places: Sequence[int], settings: Settings) -> Iterator[tuple[Place, str]]:
    seen: set[str] = set()
    for index, issuer in zip(places, settings.issuers, strict=True):
        if issuer.tier not in settings.tiers:
            known = ", ".join(settings.tiers)
            yield ("issuers", index, "tier"), f"Tier {issuer.tier!r} is not defined; known tiers: {known}"
        if issuer.issuer in seen:
            yield ("issuers", index, "issuer"), f"Issuer {issuer.issuer!r} is listed twice"
        seen.add(issuer.issuer)


def _file(config: str | os.PathLike[str] | None, mistakes: list[SettingMistake]) -> _Source:
    path = Path(config or DEFAULT_FILE)
    text = _text_of(path, mistakes, is_named=bool(config))
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        mistakes.append(SettingMistake(0, f"{path}: {exc}"))
        values = {}
    lines = lines_of(text)

    def told(place: Place, message: str) -> SettingMistake:
        line = line_of(lines, place)
        return SettingMistake(line, f"{path}:{line}: {_dotted(place)}: {message}")

    return _Source(values, told)


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
            known = [_PREFIX + field.upper() for field in FIELDS]
            mistakes.append(SettingMistake(0, f"{variable}: {not_a_setting(variable, known)}"))
        elif not _placed(values, parts, value):
            mistakes.append(
                SettingMistake(0, f"{variable}: a part of it is set as a value of its own; unset one of the two")
            )
    return _Source(values, lambda place, message: SettingMistake(0, f"{_variable(place)}: {message}"))


def _placed(values: dict[str, Any], parts: Sequence[str], value: str) -> bool:
    """Put *value* at *parts* into the tables of *values*; False where a value and a table meet."""
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


def _variable(place: Place) -> str:
    return _PREFIX + "__".join(str(part) for part in place if isinstance(part, str)).upper()


def _dotted(place: Place) -> str:
    text = ""
    for part in place:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text
