"""The settings themselves, with their defaults."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Literal, TypedDict

from machpay_gateway.core.brand import MACHPAY, Brand
from machpay_gateway.core.decision.credential_settings import CredentialSettings
from machpay_gateway.core.decision.hooks import CheckHook, IdentifyHook
from machpay_gateway.core.decision.policy import Unlisted
from machpay_gateway.core.decision.route import Route
from machpay_gateway.core.decision.route_options import RouteOptions
from machpay_gateway.core.errors import ConfigurationError
from machpay_gateway.core.jose.assertion import AssertionSettings
from machpay_gateway.core.jose.issuer import Issuer
from machpay_gateway.core.keys.key import ENVIRONMENTS
from machpay_gateway.core.keys.leak import LeakSettings
from machpay_gateway.core.limits.rate import TIERS, AnonymousLimits, Tier
from machpay_gateway.core.network.address import Allowlist
from machpay_gateway.core.network.cors import CorsSettings
from machpay_gateway.core.network.page_hosts import PageHosts, bound_pages, page_hosts, shared_hosts
from machpay_gateway.core.network.proxy_settings import ProxySettings
from machpay_gateway.core.network.service import UpstreamService
from machpay_gateway.core.oauth.settings import OAuthSettings
from machpay_gateway.settings.console import CONSOLE_PATH, ConsoleSettings
from machpay_gateway.settings.forward_auth import ForwardAuthSettings
from machpay_gateway.settings.server import ServerSettings

LimiterFailure = Literal["local", "deny", "allow"]

MEMORY_DATABASE = "memory://"  # not persistent: for tests, benchmarks and experiments


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings, parsed. docs/configuration.md explains each."""

    database: str = field(default="sqlite:///machpay.db", repr=False)  # a URL may hold a password
    database_file: Path | None = None  # that `database` is from, and so on
    redis: str | None = field(default=None, repr=False)
    redis_file: Path | None = None
    redis_prefix: str = "machpay"
    routes: tuple[Route, ...] = ()
    tiers: Mapping[str, Tier] = field(default_factory=lambda: TIERS)
    anonymous: AnonymousLimits | None = None
    unlisted_routes: Unlisted = "authenticated"
    environments: tuple[str, ...] = ENVIRONMENTS
    scopes: tuple[str, ...] | Mapping[str, str] = ()  # in a table, with what each allows
    application: str | None = None
    trusted_proxies: Allowlist | None = None
    client_ip_header: str = "X-Forwarded-For"
    credentials: CredentialSettings = field(default_factory=CredentialSettings)
    cors: CorsSettings | None = None
    issuers: tuple[Issuer, ...] = ()
    checks: tuple[CheckHook | str, ...] = ()
    identify: IdentifyHook | str | None = None
    failure_limit: str = "120/minute"
    trust_seconds: float = 5.0
    cache_size: int = 0  # 0: by the memory of the process
    legacy_headers: bool = False
    on_limiter_failure: LimiterFailure = "local"
    expected_workers: int | None = None
    upstreams: UpstreamService = field(default_factory=UpstreamService)
    services: Mapping[str, UpstreamService] = field(default_factory=dict)
    proxy: ProxySettings = field(default_factory=ProxySettings)
    server: ServerSettings = field(default_factory=ServerSettings)
    forward_auth: ForwardAuthSettings = field(default_factory=ForwardAuthSettings)
    leaks: LeakSettings | None = None
    assertion: AssertionSettings | None = None
    oauth: OAuthSettings | None = None
    console: ConsoleSettings | None = None
    secret_key: str | None = field(default=None, repr=False)
    secret_key_file: Path | None = None
    traces: bool = False
    usage_seconds: float = 5.0
    brand: Brand = MACHPAY
    file: Path = field(default=Path("machpay.toml"), repr=False)  # the settings file, which need not exist

    @property
    def page_hosts(self) -> PageHosts | None:
        """The hosts that the pages of the Console and the authorization server are bound to; None without either."""
        pages = []
        if self.console is not None:
            pages.append(bound_pages("console.url", self.console.url, (CONSOLE_PATH,)))
        if self.oauth is not None:
            pages.append(bound_pages("oauth.issuer", self.oauth.issuer, self.oauth.page_paths))
        return page_hosts(pages)

    @property
    def all_services(self) -> Mapping[str | None, UpstreamService]:
        """All services by name; None is the default one, `[upstreams]`."""
        services: dict[str | None, UpstreamService] = {None: self.upstreams}
        services.update(self.services)
        return services

    def route_options(self, routes: Iterable[Route] = ()) -> RouteOptions:
        """Return the settings of the proxy for each of *routes*, which may be more than those configured."""
        changes = {name: service.options for name, service in self.all_services.items()}
        return RouteOptions(self.proxy, changes, routes)

    @property
    def scope_descriptions(self) -> Mapping[str, str]:
        """What scopes allow, by their names; none of a list."""
        return self.scopes if isinstance(self.scopes, Mapping) else {}

    @property
    def host_warnings(self) -> Sequence[str]:
        """What is not answered because a host is for pages alone, though other settings name it as the API's."""
        api_url = None if self.console is None else self.console.api_url
        audience = None if self.oauth is None else self.oauth.audience
        return tuple(shared_hosts(self.page_hosts, api_url, audience))

    @property
    def unserved_by_middleware(self) -> Sequence[str]:
        """Warnings about settings of what the middleware alone does not serve."""
        warnings = [
            f"[{name}] is set, and MachPayAuth alone does not serve it: run `machpay-gateway serve`, or use "
            "`create_app` of machpay_gateway.server instead, which serves it beside your application"
            for name in ("console", "oauth", "leaks")
            if getattr(self, name) is not None
        ]
        warnings += [
            f"[{name}] is set, and MachPayAuth does not forward there: run `machpay-gateway serve`"
            for name in ("upstreams", "services")
            if getattr(self, name)
        ]
        return warnings


def check_certified_routes(settings: Settings) -> None:
    """Check that no route requires what an ASGI application does not see. Raises ConfigurationError."""
    for route in settings.routes:
        if route.client_certificate == "required":
            raise ConfigurationError(
                f"Route {route.match!r}: client_certificate is checked by `machpay-gateway serve` alone, and not by a "
                "middleware: serve it so, or have the server in front require certificates"
            )


class Options(TypedDict, total=False):
    """The settings as arguments in Python. *config* is the file to read instead of `machpay.toml`."""

    config: str | PathLike[str]
    database: str
    database_file: str | PathLike[str] | None
    redis: str | None
    redis_file: str | PathLike[str] | None
    redis_prefix: str
    routes: Sequence[Route]
    tiers: Mapping[str, Tier]
    anonymous: AnonymousLimits | None
    unlisted_routes: Unlisted
    environments: Sequence[str]
    scopes: Sequence[str] | Mapping[str, str]
    application: str | None
    trusted_proxies: Sequence[str]
    client_ip_header: str
    credentials: CredentialSettings | Mapping[str, str | Sequence[str] | bool | None]
    cors: CorsSettings | Mapping[str, object] | None
    issuers: Sequence[Issuer]
    checks: Sequence[CheckHook | str]
    identify: IdentifyHook | str | None
    failure_limit: str
    trust_seconds: float
    cache_size: int
    legacy_headers: bool
    on_limiter_failure: LimiterFailure
    expected_workers: int | None
    upstreams: Mapping[str, object]
    services: Mapping[str, Mapping[str, object]]
    proxy: Mapping[str, object]
    server: Mapping[str, object]
    forward_auth: Mapping[str, float]
    leaks: LeakSettings | None
    assertion: AssertionSettings | None
    oauth: OAuthSettings | None
    console: ConsoleSettings | None
    secret_key: str | None
    secret_key_file: str | PathLike[str] | None
    traces: bool
    usage_seconds: float
    brand: Brand | Mapping[str, str | Sequence[str]]
