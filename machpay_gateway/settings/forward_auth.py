"""The `[forward_auth]` table: a proxy asks about each request, and never reports its end."""

from dataclasses import dataclass

from machpay_gateway.core.errors import ConfigurationError

_MAX_SECONDS = 86_400


@dataclass(frozen=True, slots=True)
class ForwardAuthSettings:
    """How long an allowed request holds its concurrency slot, in seconds; 0 releases it at once.

    Raises ConfigurationError.
    """

    lease_seconds: float = 0.0

    def __post_init__(self) -> None:
        if type(self.lease_seconds) not in {int, float} or not 0 <= self.lease_seconds <= _MAX_SECONDS:
            raise ConfigurationError(
                f"lease_seconds is a number of seconds up to {_MAX_SECONDS}, 0 for none, not {self.lease_seconds!r}"
            )
