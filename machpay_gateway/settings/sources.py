"""Where settings come from: `machpay.toml`, then `MACHPAY_*`, then Python, each over the one before."""

import os
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from machpay_gateway.core.errors import ConfigurationError
from machpay_gateway.core.policy import mistakes_in
from machpay_gateway.settings.fields import FIELDS, not_a_setting, read_fields
from machpay_gateway.settings.lines import Place, line_of, lines_of
from machpay_gateway.settings.model import Options, Settings

DEFAULT_FILE = "machpay.toml"
_PREFIX = "MACHPAY_"
# Read by other programs that people run beside the gateway: the SDK's own variables.
_NOT_OURS = {"API_KEY", "ADMIN_KEY", "ACCESS_TOKEN", "BASE_URL", "AUTH_URL", "CONFIG"}


@dataclass(slots=True)
class _Source:
    """Values from one place, and how a mistake in them is told."""

    values: dict[str, Any] = field(default_factory=dict)
    lines: Mapping[Place, int] | None = None
    name: str = ""

    def read(self, mistakes: list[str]) -> dict[str, Any]:
        """Return what could be read, and add to *mistakes* what could not."""
        return read_fields(self.values, (), lambda place, text: mistakes.append(self.told(place, text)))

    def told(self, place: Place, message: str) -> str:
        if self.lines is not None:
            return f"{self.name}:{line_of(self.lines, place)}: {_dotted(place)}: {message}"
        if self.name:
            return f"{_PREFIX}{'__'.join(str(part) for part in place if isinstance(part, str)).upper()}: {message}"
        return f"{_dotted(place)}: {message}"


def load_settings(options: Options | None = None, environ: Mapping[str, str] = os.environ) -> Settings:
    """Return the settings of this process. Raises ConfigurationError that names every mistake."""
    options = options or {}
    config = options.get("config") or environ.get("MACHPAY_CONFIG")
    given = {name: value for name, value in options.items() if name != "config"}
    mistakes: list[str] = []
    sources = [_file(config, mistakes), _environment(environ, mistakes), _Source(given)]
    return _settled(sources, mistakes)


def check_file(path: Path) -> list[str]:
    """Return every mistake in the file at *path*, each with its line; none when it can be served by."""
    mistakes: list[str] = []
    try:
        _settled([_file(path, mistakes)], mistakes)
    except ConfigurationError as exc:
        return mistakes or [str(exc)]
    return []


def _settled(sources: Iterable[_Source], mistakes: list[str]) -> Settings:
    read: dict[str, Any] = {}
    origin: dict[str, _Source] = {}
    for source in sources:
        found = source.read(mistakes)
        read |= found
        origin |= dict.fromkeys(found, source)
    settings = Settings(**read)
    for place, text in _contradictions(settings):
        mistakes.append(origin[str(place[0])].told(place, text))
    if mistakes:
        raise ConfigurationError("\n".join(mistakes))
    return settings


def _contradictions(settings: Settings) -> Iterable[tuple[Place, str]]:
    """Yield what is wrong between settings that are each well-formed."""
    for index, text in mistakes_in(settings.routes, settings.tiers):
        yield ("routes", index), text
    issuers: set[str] = set()
    for index, issuer in enumerate(settings.issuers):
        if issuer.tier not in settings.tiers:
            known = ", ".join(settings.tiers)
            yield ("issuers", index, "tier"), f"Tier {issuer.tier!r} is not defined; known tiers: {known}"
        if issuer.issuer in issuers:
            yield ("issuers", index, "issuer"), f"Issuer {issuer.issuer!r} is listed twice"
        issuers.add(issuer.issuer)


def _file(config: str | os.PathLike[str] | None, mistakes: list[str]) -> _Source:
    path = Path(config or DEFAULT_FILE)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        if config:
            mistakes.append(f"{path}: there is no such file; `machpay-gateway init` writes one")
        return _Source()
    except (OSError, UnicodeDecodeError) as exc:
        mistakes.append(f"{path}: cannot be read: {exc}")
        return _Source()
    try:
        return _Source(tomllib.loads(text), lines_of(text), str(path))
    except tomllib.TOMLDecodeError as exc:
        mistakes.append(f"{path}: {exc}")
        return _Source()


def _environment(environ: Mapping[str, str], mistakes: list[str]) -> _Source:
    """Read `MACHPAY_TIERS__GOLD__RATE` as `tiers.gold.rate`."""
    values: dict[str, Any] = {}
    for variable, value in environ.items():
        if not variable.startswith(_PREFIX) or (name := variable.removeprefix(_PREFIX)) in _NOT_OURS:
            continue
        *tables, last = name.lower().split("__")
        if (tables or [last])[0] not in FIELDS:
            known = [_PREFIX + field.upper() for field in FIELDS]
            mistakes.append(f"{variable}: {not_a_setting(variable, known)}")
            continue
        table = values
        for part in tables:
            table = table.setdefault(part, {})
        table[last] = value
    return _Source(values, name="environment")


def _dotted(place: Place) -> str:
    text = ""
    for part in place:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text
