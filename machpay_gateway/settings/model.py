"""The settings themselves, with their defaults."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from typing import Literal, TypedDict

from machpay_gateway.core.address import Allowlist
from machpay_gateway.core.assertion import Assertion
from machpay_gateway.core.carriage import Carriage, Upstream
from machpay_gateway.core.issuer import Issuer
from machpay_gateway.core.key import ENVIRONMENTS
from machpay_gateway.core.leak import Leaks
from machpay_gateway.core.oauth.authority import Authority
from machpay_gateway.core.page_hosts import PageHosts, page_hosts, shared_hosts
from machpay_gateway.core.policy import Unlisted
from machpay_gateway.core.quota import TIERS, Tier
from machpay_gateway.core.route import Route
from machpay_gateway.settings.asking import Asking
from machpay_gateway.settings.console import Console
from machpay_gateway.settings.serving import Serving

LimiterFailure = Literal["local", "deny", "allow"]


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that was configured, parsed. What each means stands in docs/configuration.md."""

    database: str = field(default="sqlite:///machpay.db", repr=False)  # a URL may hold a password
    redis: str | None = field(default=None, repr=False)
    redis_prefix: str = "machpay"
    routes: tuple[Route, ...] = ()
    tiers: Mapping[str, Tier] = field(default_factory=lambda: TIERS)
    unlisted_routes: Unlisted = "authenticated"
    environments: tuple[str, ...] = ENVIRONMENTS
    scopes: tuple[str, ...] = ()
    trusted_proxies: Allowlist | None = None
    client_ip_header: str = "X-Forwarded-For"
    issuers: tuple[Issuer, ...] = ()
    failure_limit: str = "120/minute"
    legacy_headers: bool = False
    on_limiter_failure: LimiterFailure = "local"
    upstreams: Mapping[str, Upstream] = field(default_factory=dict)
    proxy: Carriage = field(default_factory=Carriage)
    server: Serving = field(default_factory=Serving)
    forward_auth: Asking = field(default_factory=Asking)
    leaks: Leaks | None = None
    assertion: Assertion | None = None
    oauth: Authority | None = None
    console: Console | None = None
    secret_key: str | None = field(default=None, repr=False)
    traces: bool = False

    @property
    def page_hosts(self) -> PageHosts | None:
        """The hosts that the Console and the authorization server's pages are bound to; None without either."""
        return page_hosts(None if self.console is None else self.console.url, self.oauth)

    @property
    def host_warnings(self) -> Sequence[str]:
        """What is not answered because a host is for pages alone, though other settings name it as the API's."""
        api_url = None if self.console is None else self.console.api_url
        audience = None if self.oauth is None else self.oauth.audience
        return tuple(shared_hosts(self.page_hosts, api_url, audience))


class Options(TypedDict, total=False):
    """The settings as they may be given in Python. *config* names the file to read instead of `machpay.toml`."""

    config: str | PathLike[str]
    database: str
    redis: str | None
    redis_prefix: str
    routes: Sequence[Route]
    tiers: Mapping[str, Tier]
    unlisted_routes: Unlisted
    environments: Sequence[str]
    scopes: Sequence[str]
    trusted_proxies: Sequence[str]
    client_ip_header: str
    issuers: Sequence[Issuer]
    failure_limit: str
    legacy_headers: bool
    on_limiter_failure: LimiterFailure
    upstreams: Mapping[str, str | Sequence[str]]
    proxy: Mapping[str, float | Sequence[str]]
    server: Mapping[str, str | float]
    forward_auth: Mapping[str, float]
    leaks: Leaks | None
    assertion: Assertion | None
    oauth: Authority | None
    console: Console | None
    secret_key: str | None
    traces: bool
