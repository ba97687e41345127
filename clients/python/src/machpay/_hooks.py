"""What a client reports about each request: for logs, metrics and traces of one's own. Neither event has a secret."""

from collections.abc import Callable
from dataclasses import dataclass

from machpay.errors import ConfigurationError


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestEvent:
    """A request that is sent next. *attempt* counts from 1; *url* has no query."""

    method: str
    url: str
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseEvent:
    """The end of a request: its *status*, or the *error* that there is no response. *seconds* is how long it took."""

    method: str
    url: str
    attempt: int
    seconds: float
    status: int | None = None
    request_id: str | None = None
    error: Exception | None = None


OnRequest = Callable[[RequestEvent], object]
OnResponse = Callable[[ResponseEvent], object]


@dataclass(frozen=True, slots=True)
class Hooks:
    """The functions to call. What they raise is raised by the call."""

    on_request: OnRequest | None = None
    on_response: OnResponse | None = None

    def __post_init__(self) -> None:
        for name, value in (("on_request", self.on_request), ("on_response", self.on_response)):
            if value is not None and not callable(value):
                raise ConfigurationError(f"{name} is a {type(value).__name__}, and has to be callable.")
