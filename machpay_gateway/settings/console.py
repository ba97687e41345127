"""Where people find the Console, and where their programs find the API that it is about."""

from dataclasses import dataclass

from machpay_gateway.core.errors import ConfigurationError
from machpay_gateway.core.oauth.settings import secure_url

CONSOLE_PATH = "/console"
IDLE_MINUTES = 60
_MOST_MINUTES = 12 * 60  # a sign-in ends then in any case


@dataclass(frozen=True, slots=True)
class ConsoleSettings:
    """A Console at *url*, an origin such as `https://console.example.com`, below `/console`.

    *api_url* is where the API is that keys are for, as the Console writes it into examples: *url* unless it is given.
    A session that nobody uses ends after *idle_minutes*. What concerns secrets asks for the password again when it was
    given more than *confirm_minutes* ago; 0 asks never.
    Raises ConfigurationError.
    """

    url: str
    api_url: str = ""
    idle_minutes: int = IDLE_MINUTES
    confirm_minutes: int = 15

    def __post_init__(self) -> None:
        object.__setattr__(self, "url", _origin("url", self.url))
        object.__setattr__(self, "api_url", _origin("api_url", self.api_url) if self.api_url else self.url)
        _in_range("idle_minutes", self.idle_minutes, 1)
        _in_range("confirm_minutes", self.confirm_minutes, 0)

    @property
    def is_secure(self) -> bool:
        """Whether browsers reach it over TLS: only then do its cookies say that they need it."""
        return self.url.startswith("https://")


def _in_range(name: str, value: object, least: int) -> None:
    if type(value) is not int or not least <= value <= _MOST_MINUTES:
        raise ConfigurationError(f"{name} {value!r} is not a number of minutes: use {least} to {_MOST_MINUTES}")


def _origin(name: str, url: object) -> str:
    parts = secure_url(name, url)
    if parts.path.strip("/") or parts.query:
        raise ConfigurationError(f"{name} {url!r} has a path or a query: write host and port alone")
    return f"{parts.scheme}://{parts.netloc}"
