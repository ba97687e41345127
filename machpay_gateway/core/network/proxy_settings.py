"""How a request is carried to its upstream: where that is, how long each step may take, how much may be sent."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace

from machpay_gateway.core.errors import ConfigurationError
from machpay_gateway.core.network.trusted_headers import validate_pass_headers


@dataclass(frozen=True, slots=True)
class ProxySettings:
    """What holds for carrying one request. Times are in seconds, 0 meaning that there is no limit.

    *connect_seconds* is for a connection to an upstream, *first_byte_seconds* from the whole request being sent to the
    head of its answer, *idle_seconds* without a byte either way, *total_seconds* for all of it. *max_body_bytes* is
    of the request's body. *forward_credentials* hands on the caller's Authorization. *pass_headers* are those that
    upstreams believe and that are handed on all the same. Raises ConfigurationError.
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
        if type(self.forward_credentials) is not bool:  # "false" must not hand credentials on
            raise ConfigurationError(f"forward_credentials is true or false, not {self.forward_credentials!r}")
        object.__setattr__(self, "pass_headers", validate_pass_headers(self.pass_headers))

    def with_changes(self, changes: Mapping[str, object]) -> "ProxySettings":
        """Return this with *changes*, as a route asks for. Raises ConfigurationError for an unknown one."""
        # Which headers pass is found once for each name, before it is known which route a request is for.
        if "pass_headers" in changes:
            raise ConfigurationError("pass_headers holds for all routes: set it under [proxy]")
        known = [field.name for field in fields(self) if field.name != "pass_headers"]
        for name in changes:
            if name not in known:
                raise ConfigurationError(f"{name!r} is not a setting here; known: {', '.join(known)}")
        return replace(self, **changes)  # type: ignore[arg-type]  # checked by __post_init__
