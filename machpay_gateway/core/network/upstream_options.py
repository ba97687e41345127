"""Options of an upstream: how its names are resolved, and how long its connections are kept."""

from collections.abc import Mapping
from dataclasses import dataclass

from machpay_gateway.core.errors import ConfigurationError

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
    that is 0. Raises ConfigurationError.
    """

    resolve_seconds: float = 30.0
    # Below the keep-alive timeout of Node and uvicorn, 5 s: a request sent while the server closes is lost, and most
    # methods cannot be retried.
    keepalive_seconds: float = 4.0
    max_age_seconds: float = 300.0

    def __post_init__(self) -> None:
        for name, (least, most) in _SECONDS.items():
            _check_number(name, getattr(self, name), least, most)


def _check_number(name: str, value: object, least: float, most: float) -> None:
    if type(value) not in {int, float} or not least <= value <= most:  # type: ignore[operator]  # a number
        raise ConfigurationError(f"{name} is a number of seconds from {least:g} to {most:g}, not {value!r}")
