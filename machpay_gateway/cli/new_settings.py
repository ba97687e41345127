"""The settings file that `machpay-gateway init` writes: what was chosen, and comments on the rest."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from json import dumps
from pathlib import Path

from machpay_gateway.core.decision.route import Route
from machpay_gateway.core.errors import ConfigurationError
from machpay_gateway.settings import Options

DEFAULT_DATABASE = "sqlite:///machpay.db"
_PUBLIC = "public"
_EXAMPLE = "'GET /v1/orders orders:read'"
_APPLICATION_FILES = ("main.py", "app.py", "api.py", "app/main.py", "app/api.py", "src/main.py")
_APPLICATION = re.compile(r"^(\w+)(?:\s*:\s*[\w.]+)?\s*=\s*(?:fastapi\.)?FastAPI\(", re.MULTILINE)

_HEAD = """\
# Settings of MachPay Gateway. A value here is overridden by its variable, such as MACHPAY_DATABASE, and by Python.
# `machpay-gateway policy check` reports every mistake in this file; `policy explain GET /v1/orders` shows which rule
# applies.
"""
_APPLICATION_TEXT = "# Your FastAPI application: commands read there which scopes it requires."
_DATABASE_TEXT = "# Where accounts and keys are stored: a SQLite file, or postgresql://user@host/name."
_REDIS_TEXT = "# Where several processes count their limits together."
_UNLISTED_TEXT = (
    '# Requests that match no route below: "deny" refuses them, "authenticated" requires any valid credential.'
)
_OTHERS = """\
# The environments whose keys are accepted.
# environments = ["live", "test"]

# Proxies that may name the client's address, and the one header that they use for it.
# trusted_proxies = ["10.0.0.0/8"]
# client_ip_header = "X-Forwarded-For"

# How many bad credentials one address may present before it is refused for a while.
# failure_limit = "120/minute"

# Send X-RateLimit-* headers besides RateLimit and RateLimit-Policy.
# legacy_headers = false
"""
_UPSTREAMS_TEXT = "# Where `machpay-gateway serve` forwards requests, by the environment of their credential."
_SCOPES_TEXT = "# Scopes that keys may hold besides those that routes require, each with what it allows."
_TIERS = """\
# Tiers that are added to, or replace: test 100/minute and 5 at a time, standard 1000/minute and 50,
# enterprise 10000/minute and 500.
# [tiers.partner]
# rate = "5000/minute"
# concurrency = 200
"""
_ROUTES_TEXT = """\
# Routes: a method (* for all) and a path; {id} is one segment, a final {rest:path} matches the rest of the path.
# scopes: "a b" requires both, "a | b" one of them, and no scopes any valid credential. cost: units of the rate, by
# default 1."""
_NO_ROUTES = """\
# [[routes]]
# match = "GET /healthz"
# public = true

# [[routes]]
# match = "GET /v1/orders"
# scopes = "orders:read"
"""
_TAIL = """\
# Apps that act for users (OAuth 2.1): the URLs of the authorization server and of this API. The issuer's host serves
# only the gateway, and no upstream.
# Then: machpay-gateway users create EMAIL, and machpay-gateway clients create NAME.
# [oauth]
# issuer = "https://auth.example.com"
# audience = "https://api.example.com"
# Let apps register themselves, for this account and with no more scopes than these:
# registration_account = "acme"
# registration_scopes = ["account:read"]

# The Console, on which people create, watch and revoke keys: its URL, on a host that serves no upstream. The issuer may
# be on the same host.
# Then: machpay-gateway users create EMAIL --role admin
# [console]
# url = "https://console.example.com"
# api_url = "https://api.example.com"
# idle_minutes = 60      # an idle session ends
# confirm_minutes = 15   # pages on secrets ask for the password again; 0 never asks

# Issuers whose JWTs are accepted besides API keys.
# [[issuers]]
# issuer = "https://id.example.com"
# audience = "https://api.example.com"
# scopes_claim = "permissions"    # by default scope or scp; docs/issuers.md has the settings for each issuer
# tier = "standard"
"""


@dataclass(frozen=True, slots=True)
class NewSettings:
    """What is chosen for a new project. *scopes* are those in the table, with what each allows."""

    database: str = DEFAULT_DATABASE
    redis: str | None = None
    application: str | None = None
    upstream: str | None = None
    scopes: Mapping[str, str] = field(default_factory=dict)
    routes: Sequence[Route] = ()

    def options(self) -> Options:
        """Return the settings as arguments in Python. Routes and scopes are as they will be in the file."""
        options: Options = {
            "database": self.database,
            "redis": self.redis,
            "application": self.application,
            "scopes": self.scopes,
            "routes": self.routes,
        }
        if self.upstream is not None:
            options["upstreams"] = {"live": self.upstream, "sandbox": self.upstream}
        return options

    def render(self) -> str:
        """Return the text of the file."""
        unlisted = "deny" if self.routes else "authenticated"
        blocks = [
            _HEAD,
            _setting(_APPLICATION_TEXT, "application", self.application, "main:app"),
            _setting(_DATABASE_TEXT, "database", self.database, self.database),
            _setting(_REDIS_TEXT, "redis", self.redis, "redis://127.0.0.1:6379/0"),
            _setting(_UNLISTED_TEXT, "unlisted_routes", unlisted, unlisted),
            _OTHERS,
            self._upstreams(),
            self._scopes(),
            _TIERS,
            self._routes(),
            _TAIL,
        ]
        return "\n".join(block if block.endswith("\n") else f"{block}\n" for block in blocks)

    def _upstreams(self) -> str:
        if self.upstream is None:
            return f'{_UPSTREAMS_TEXT}\n# [upstreams]\n# live = "http://127.0.0.1:9000"\n# sandbox = "http://127.0.0.1:9001"'
        url = _quoted(self.upstream)
        return f"{_UPSTREAMS_TEXT}\n[upstreams]\nlive = {url}\nsandbox = {url}   # for test keys"

    def _scopes(self) -> str:
        if not self.scopes:
            return f'{_SCOPES_TEXT}\n# [scopes]\n# "reports:read" = "Read reports"'
        lines = [f"{_quoted(name)} = {_quoted(text)}" for name, text in self.scopes.items()]
        return "\n".join((_SCOPES_TEXT, "[scopes]", *lines))

    def _routes(self) -> str:
        if not self.routes:
            return f"{_ROUTES_TEXT}\n{_NO_ROUTES}"
        return "\n".join((_ROUTES_TEXT, "\n".join(_route(route) for route in self.routes)))


def parse_route(text: str) -> Route:
    """Return the route of *text*: `GET /v1/orders orders:read`, or `GET /healthz public`. Raises ConfigurationError."""
    words = text.split()
    if len(words) > 1 and "=" in words[1]:
        raise ConfigurationError(f"Route {text!r}: write a blank between the path and its scopes, as in {_EXAMPLE}")
    match, requires = " ".join(words[:2]), " ".join(words[2:])
    return Route(match, public=True) if requires == _PUBLIC else Route(match, scopes=requires)


def parse_scopes(texts: Sequence[str]) -> dict[str, str]:
    """Return what each scope allows: `orders:read=Read orders`, or a name or a list of names, which is described."""
    scopes: dict[str, str] = {}
    for text in texts:
        name, equals, description = text.partition("=")
        names = [name.strip()] if equals else re.split(r"[,\s]+", text)
        scopes.update({each: description.strip() or describe(each) for each in names if each})
    return scopes


def describe(scope: str) -> str:
    """Return what *scope* is likely to allow: `Read orders` for `orders:read`."""
    family, colon, action = scope.rpartition(":")
    words = f"{action} {family}" if colon and action != "*" else scope
    text = re.sub(r"[:_.-]+", " ", words).strip()
    return text[:1].upper() + text[1:] or scope


def find_application(folder: Path) -> str | None:
    """Return where the FastAPI application in *folder* is, as in `main:app`, if a usual file has one."""
    for name in _APPLICATION_FILES:
        try:
            match = _APPLICATION.search((folder / name).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError):
            continue
        if match is not None:
            return f"{name.removesuffix('.py').replace('/', '.')}:{match[1]}"
    return None


def _setting(text: str, name: str, value: str | None, example: str) -> str:
    return f"{text}\n{'# ' if value is None else ''}{name} = {_quoted(value or example)}"


def _route(route: Route) -> str:
    requires = "public = true\n" if route.public else ""
    if route.requires.alternatives:
        requires = f"scopes = {_quoted(str(route.requires))}\n"
    return f"[[routes]]\nmatch = {_quoted(route.match)}\n{requires}"


def _quoted(text: str) -> str:
    """Return *text* as a basic string of TOML, which has the escapes of JSON."""
    return dumps(text, ensure_ascii=False)
