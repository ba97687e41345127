"""What holds for requests that a proxy asks about, and whose end is not seen."""

from dataclasses import dataclass

from machpay_gateway.core.errors import ConfigurationError

_MOST_SECONDS = 86_400


@dataclass(frozen=True, slots=True)
class ForwardAuthSettings:
    """How long a slot is held for a request that a proxy was allowed, in seconds; with 0 it is given back at once.

    Raises ConfigurationError.
    """

    lease_seconds: float = 0.0

    def __post_init__(self) -> None:
        if type(self.lease_seconds) not in {int, float} or not 0 <= self.lease_seconds <= _MOST_SECONDS:
            raise ConfigurationError(
                f"lease_seconds is a number of seconds up to {_MOST_SECONDS}, 0 for none, not {self.lease_seconds!r}"
            )
