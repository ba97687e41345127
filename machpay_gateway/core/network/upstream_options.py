"""Options of an upstream: how its names are resolved, how long connections are kept, and how requests are balanced."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from machpay_gateway.core.errors import ConfigurationError

Balance = Literal["least", "round_robin", "hash"]

_COOKIE_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,256}")  # RFC 6265 §4.1.1
_DAY = 86400.0
# The least and the greatest value of each number of seconds.
_SECONDS: Mapping[str, tuple[float, float]] = {
    "resolve_seconds": (0.1, _DAY),
    "keepalive_seconds": (0.0, _DAY),
    "max_age_seconds": (0.0, _DAY),
}


@dataclass(frozen=True, slots=True)
class UpstreamOptions:
    """Options of the servers of one upstream. Times are in seconds.

    Names are resolved again every *resolve_seconds*. A connection may be idle for *keepalive_seconds* between two
    requests, 0 for one request a connection; it gets no more requests *max_age_seconds* after it was opened, unless
    that is 0. *balance* is how a server is chosen: the one with the fewest requests in flight, the next one, or by
    *hash_by*: `key`, `owner`, `address`, or the name of a cookie. Raises ConfigurationError.
    """

    resolve_seconds: float = 30.0
    # Below the keep-alive timeout of Node and uvicorn, 5 s: a request sent while the server closes is lost, and most
    # methods cannot be retried.
    keepalive_seconds: float = 4.0
    max_age_seconds: float = 300.0
    balance: Balance = "least"
    hash_by: str = "address"

    def __post_init__(self) -> None:
        if self.balance not in get_args(Balance):
            raise ConfigurationError(f"balance {self.balance!r} is not one of {', '.join(get_args(Balance))}")
        if not _COOKIE_NAME.fullmatch(str(self.hash_by)):
            raise ConfigurationError(f"hash_by {self.hash_by!r} is not key, owner, address or the name of a cookie")
        for name, (least, most) in _SECONDS.items():
            _check_number(name, getattr(self, name), least, most)


def _check_number(name: str, value: object, least: float, most: float) -> None:
    if type(value) not in {int, float} or not least <= value <= most:  # type: ignore[operator]  # a number
        raise ConfigurationError(f"{name} is a number of seconds from {least:g} to {most:g}, not {value!r}")
