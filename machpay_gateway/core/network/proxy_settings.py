"""Settings of the reverse proxy: timeouts, the size of bodies, and the headers that are forwarded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace

from machpay_gateway.core.errors import ConfigurationError
from machpay_gateway.core.network.trusted_headers import validate_pass_headers


@dataclass(frozen=True, slots=True)
class ProxySettings:
    """Settings for forwarding a request. Times are in seconds; 0 is no limit.

    *connect_seconds* limits connecting to an upstream, *first_byte_seconds* the time from the end of the request to the
    head of the response, *idle_seconds* the time without a byte in either direction, *total_seconds* the whole request.
    *max_body_bytes* limits the request's body. *forward_credentials* forwards the caller's Authorization.
    *pass_headers* are headers that upstreams trust and that are forwarded nevertheless. Raises ConfigurationError.
    """

    connect_seconds: float = 5.0
    first_byte_seconds: float = 60.0
    idle_seconds: float = 60.0
    total_seconds: float = 0.0
    max_body_bytes: int = 100 * 1024 * 1024
    forward_credentials: bool = False
    pass_headers: Sequence[str] = ()

    def __post_init__(self) -> None:
        for name in ("connect_seconds", "first_byte_seconds", "idle_seconds", "total_seconds"):
            value = getattr(self, name)
            if type(value) not in {int, float} or not 0 <= value < float("inf"):
                raise ConfigurationError(f"{name} is a number of seconds, 0 for no limit, not {value!r}")
        if type(self.max_body_bytes) is not int or self.max_body_bytes < 0:
            raise ConfigurationError(
                f"max_body_bytes is a number of bytes, 0 for no limit, not {self.max_body_bytes!r}"
            )
        if type(self.forward_credentials) is not bool:  # "false" must not forward credentials
            raise ConfigurationError(f"forward_credentials is true or false, not {self.forward_credentials!r}")
        object.__setattr__(self, "pass_headers", validate_pass_headers(self.pass_headers))

    def with_changes(self, changes: Mapping[str, object]) -> "ProxySettings":
        """Return these settings with the *changes* of a route. Raises ConfigurationError for an unknown name."""
        # Whether a header passes is cached by its name, before the route of a request is determined.
        if "pass_headers" in changes:
            raise ConfigurationError("pass_headers holds for all routes: set it under [proxy]")
        names = [field.name for field in fields(self) if field.name != "pass_headers"]
        for name in changes:
            if name not in names:
                raise ConfigurationError(f"{name!r} is not a setting here; known: {', '.join(names)}")
        return replace(self, **changes)  # type: ignore[arg-type]  # checked by __post_init__
