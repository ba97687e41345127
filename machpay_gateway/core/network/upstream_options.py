"""Options of an upstream: how connections are made and kept, and how requests are balanced among healthy servers."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from machpay_gateway.core.errors import ConfigurationError

Balance = Literal["least", "round_robin", "hash"]

_COOKIE_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,256}")  # RFC 6265 §4.1.1
_SERVER_NAME = re.compile(r"[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*|[0-9A-Fa-f:.]{2,45}")
_DAY = 86400.0
_LEAST_DEAD_SECONDS = 4.0  # three probes, and the time before the first
# The least and the greatest value of each number of seconds.
_SECONDS: Mapping[str, tuple[float, float]] = {
    "resolve_seconds": (0.1, _DAY),
    "keepalive_seconds": (0.0, _DAY),
    "max_age_seconds": (0.0, _DAY),
    "slow_start_seconds": (0.0, _DAY),
}
_OF_HEALTH_CHECKS: Mapping[str, tuple[float, float]] = {
    "interval_seconds": (0.1, _DAY),
    "timeout_seconds": (0.1, _DAY),
}
_MAX_THRESHOLD = 100
_PATH = re.compile(r"/[!-~]{0,2000}")
_LEAST_STATUS, _MOST_STATUS = 200, 599
_OK = 200
_LEAST_ERROR = 400


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """How the servers of an upstream are checked: `GET` *path* every *interval_seconds*.

    A check fails unless one of *statuses* comes within *timeout_seconds*; without them, any from 200 to 299. A server
    is out after *unhealthy* failures in a row, and back after as many successes as *healthy*. The first result counts
    at once. Raises ConfigurationError.
    """

    path: str
    interval_seconds: float = 5.0
    timeout_seconds: float = 2.0
    unhealthy: int = 3
    healthy: int = 2
    statuses: Sequence[int] = ()

    def __post_init__(self) -> None:
        if not _PATH.fullmatch(str(self.path)):
            raise ConfigurationError(f"path {self.path!r} does not start with / or has characters to escape")
        for name, (least, most) in _OF_HEALTH_CHECKS.items():
            _check_number(name, getattr(self, name), least, most)
        for name in ("unhealthy", "healthy"):
            value = getattr(self, name)
            if type(value) is not int or not 1 <= value <= _MAX_THRESHOLD:
                raise ConfigurationError(f"{name} is a number of checks from 1 to {_MAX_THRESHOLD}, not {value!r}")
        object.__setattr__(self, "statuses", _check_statuses("statuses", self.statuses, _LEAST_STATUS))

    def expects(self, status: int) -> bool:
        """Return whether a server that responds with *status* is healthy."""
        return status in self.statuses if self.statuses else _OK <= status < _OK + 100


@dataclass(frozen=True, slots=True)
class UpstreamOptions:
    """Options of the servers of one upstream. Times are in seconds.

    Names are resolved again every *resolve_seconds*. A connection may be idle for *keepalive_seconds* between two
    requests, 0 for one request a connection; it gets no more requests *max_age_seconds* after it was opened, unless
    that is 0. One whose server has acknowledged nothing for *dead_peer_seconds* is closed, unless these are 0.
    *balance* is how a server is chosen: the one with the fewest requests in flight, the next one, or by
    *hash_by*: `key`, `owner`, `address`, or the name of a cookie.

    *health* is how servers are checked, None for not at all. A server is ejected when its share of responses with a 5xx
    status reaches *eject_5xx_rate*, unless that is 0. One that is back gets its whole share of requests only after
    *slow_start_seconds*. A safe request whose response has one of *retry_statuses* is sent to another server, as long
    as such retries are at most the share *retry_budget* of requests. More requests than *max_in_flight* at once are
    refused, unless that is 0.

    *tls_ca* are the authorities of the servers' certificates, a PEM file, instead of the host's. *tls_certificate* and
    *tls_key* are the PEM files of a client certificate. *tls_server_name* is the name that is asked for and verified,
    instead of the server's. Raises ConfigurationError.
    """

    resolve_seconds: float = 30.0
    # Below the keep-alive timeout of Node and uvicorn, 5 s: a request sent while the server closes is lost, and most
    # methods cannot be retried.
    keepalive_seconds: float = 4.0
    max_age_seconds: float = 300.0
    dead_peer_seconds: float = 45.0
    balance: Balance = "least"
    hash_by: str = "address"
    health: HealthCheck | None = None
    eject_5xx_rate: float = 0.0
    slow_start_seconds: float = 0.0
    retry_statuses: Sequence[int] = ()
    retry_budget: float = 0.2
    max_in_flight: int = 0
    tls_ca: str | None = None
    tls_certificate: str | None = None
    tls_key: str | None = None
    tls_server_name: str | None = None

    def __post_init__(self) -> None:
        if self.balance not in get_args(Balance):
            raise ConfigurationError(f"balance {self.balance!r} is not one of {', '.join(get_args(Balance))}")
        if not _COOKIE_NAME.fullmatch(str(self.hash_by)):
            raise ConfigurationError(f"hash_by {self.hash_by!r} is not key, owner, address or the name of a cookie")
        for name, (least, most) in _SECONDS.items():
            _check_number(name, getattr(self, name), least, most)
        check_dead_peer_seconds(self.dead_peer_seconds)
        _check_share("eject_5xx_rate", self.eject_5xx_rate)
        _check_share("retry_budget", self.retry_budget)
        object.__setattr__(self, "retry_statuses", _check_statuses("retry_statuses", self.retry_statuses, _LEAST_ERROR))
        if type(self.max_in_flight) is not int or self.max_in_flight < 0:
            raise ConfigurationError(
                f"max_in_flight is a number of requests, 0 for no limit, not {self.max_in_flight!r}"
            )
        self._check_tls()

    def _check_tls(self) -> None:
        for name in ("tls_ca", "tls_certificate", "tls_key"):
            if (path := getattr(self, name)) is not None and not (isinstance(path, str) and path):
                raise ConfigurationError(f"{name} {path!r} is not the name of a PEM file")
        if (self.tls_certificate is None) is not (self.tls_key is None):
            raise ConfigurationError("tls_certificate and tls_key come together: set both, or neither")
        if self.tls_server_name is not None and not _SERVER_NAME.fullmatch(str(self.tls_server_name)):
            raise ConfigurationError(f"tls_server_name {self.tls_server_name!r} is not the name of a host")

    @property
    def tls_files(self) -> Sequence[str]:
        """The files that TLS needs."""
        return [path for path in (self.tls_ca, self.tls_certificate, self.tls_key) if path is not None]


def _check_number(name: str, value: object, least: float, most: float) -> None:
    if type(value) not in {int, float} or not least <= value <= most:  # type: ignore[operator]  # a number
        raise ConfigurationError(f"{name} is a number of seconds from {least:g} to {most:g}, not {value!r}")


def check_dead_peer_seconds(value: object) -> float:
    """Return *value*, after how long without an acknowledgment a connection is closed. Raises ConfigurationError."""
    if type(value) not in {int, float} or not (value == 0 or _LEAST_DEAD_SECONDS <= value <= _DAY):  # type: ignore[operator]  # a number
        raise ConfigurationError(
            f"dead_peer_seconds is a number of seconds from {_LEAST_DEAD_SECONDS:g} to {_DAY:g}, or 0, not {value!r}"
        )
    return value  # type: ignore[return-value]  # as above


def _check_share(name: str, value: object) -> None:
    if type(value) not in {int, float} or not 0 <= value <= 1:  # type: ignore[operator]  # a number
        raise ConfigurationError(f"{name} is a share from 0 to 1, such as 0.5, not {value!r}")


def _check_statuses(name: str, value: object, least: int) -> tuple[int, ...]:
    if not isinstance(value, list | tuple) or not all(
        type(status) is int and least <= status <= _MOST_STATUS for status in value
    ):
        raise ConfigurationError(f"{name} is a list of statuses from {least} to {_MOST_STATUS}, not {value!r}")
    return tuple(value)
