"""The options of a client: addresses, timeout and retries. They are validated when the client is created."""

import ipaddress  # noqa: TID251 - the client stands alone: nothing but httpx2 is installed beside it
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import httpx2

from machpay._hooks import Hooks
from machpay.errors import ConfigurationError

BASE_URL_VARIABLE = "MACHPAY_BASE_URL"
AUTH_URL_VARIABLE = "MACHPAY_AUTH_URL"
DEFAULT_BASE_URL = "https://api.machpay.xyz"
DEFAULT_AUTH_URL = "https://auth.machpay.xyz"
DEFAULT_TIMEOUT_SECONDS = 30.0
DEFAULT_MAX_RETRIES = 2
CONNECT_SECONDS = 5.0  # a reachable server accepts much faster, however long the response takes


@dataclass(frozen=True, slots=True)
class Options:
    """The options of a client. *timeout* is in seconds, for one attempt."""

    base_url: str
    timeout: float = DEFAULT_TIMEOUT_SECONDS
    max_retries: int = DEFAULT_MAX_RETRIES
    auth_url: str = DEFAULT_AUTH_URL
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    hooks: Hooks = field(default_factory=Hooks, repr=False)

    def __post_init__(self) -> None:
        check_timeout(self.timeout)
        check_max_retries(self.max_retries)

    def changed(self, timeout: float | None, max_retries: int | None) -> "Options":
        """Return the options with those changed that are not None."""
        if timeout is None and max_retries is None:
            return self
        return replace(
            self,
            timeout=self.timeout if timeout is None else timeout,
            max_retries=self.max_retries if max_retries is None else max_retries,
        )

    @property
    def deadline(self) -> float:
        """The maximum duration of a call in seconds, with all attempts and the waits between them."""
        return self.timeout * (self.max_retries + 1)

    @property
    def is_plain(self) -> bool:
        """Whether any request uses http://, which is allowed for loopback only."""
        return self.base_url.startswith("http://") or self.auth_url.startswith("http://")


def check_timeout(value: object) -> None:
    """Raise ConfigurationError if the timeout is not a positive number of seconds."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ConfigurationError(f"timeout={value!r} is not a positive number of seconds.")


def check_max_retries(value: object) -> None:
    """Raise ConfigurationError if the number of retries is not a whole number from 0 upwards."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ConfigurationError(f"max_retries={value!r} is not a whole number from 0 upwards.")


def base_url_from(base_url: str | None, environment: Mapping[str, str]) -> str:
    """Return the address of the API, without a trailing slash. The argument overrides *environment*."""
    if base_url is not None:
        return _parse_url("base_url", base_url)
    if value := environment.get(BASE_URL_VARIABLE):
        return _parse_url(BASE_URL_VARIABLE, value)
    return DEFAULT_BASE_URL


def auth_url_from(auth_url: str | None, base_url: str | None, environment: Mapping[str, str]) -> str:
    """Return the address of the authorization server. It defaults to that of the API, if that was changed."""
    if auth_url is not None:
        return _parse_url("auth_url", auth_url, DEFAULT_AUTH_URL)
    if value := environment.get(AUTH_URL_VARIABLE):
        return _parse_url(AUTH_URL_VARIABLE, value, DEFAULT_AUTH_URL)
    if base_url is not None or environment.get(BASE_URL_VARIABLE):
        return base_url_from(base_url, environment)
    return DEFAULT_AUTH_URL


def _parse_url(name: str, value: str, example: str = DEFAULT_BASE_URL) -> str:
    """Return *value* as a URL. It is parsed by the library that sends to it: another parser could see another host."""
    try:
        url = httpx2.URL(value)
    except (httpx2.InvalidURL, TypeError) as exc:
        raise ConfigurationError(f"{name} is not a URL: {exc}") from None
    if url.scheme not in {"http", "https"} or not url.host:
        raise ConfigurationError(f"{name} {_redacted(url)!r} is not an https:// address; one is {example}.")
    if url.userinfo or url.query or url.fragment:
        raise ConfigurationError(f"{name} {_redacted(url)!r} may hold a host, a port and a path, and nothing else.")
    if url.scheme == "http" and not _is_loopback(url.host):
        raise ConfigurationError(
            f"{name} {_redacted(url)!r} would send the credential unencrypted; use https:// (http:// is for loopback)."
        )
    return str(url).rstrip("/")


def _redacted(url: httpx2.URL) -> str:
    """Return *url* without its parts that may be secret."""
    return str(url.copy_with(username=None, password=None, query=None, fragment=None))


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
