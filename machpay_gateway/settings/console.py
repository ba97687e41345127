"""The `[console]` table: the URLs of the Console and of the API, and the lifetimes of its sessions."""

from dataclasses import dataclass

from machpay_gateway.core.errors import ConfigurationError
from machpay_gateway.core.oauth.settings import secure_url

CONSOLE_PATH = "/console"
IDLE_MINUTES = 60
_MAX_MINUTES = 12 * 60  # every session ends after that


@dataclass(frozen=True, slots=True)
class ConsoleSettings:
    """A Console at *url*, an origin such as `https://console.example.com`, below `/console`.

    *api_url* is the URL of the API in the Console's examples, by default *url*. An idle session ends after
    *idle_minutes*. Pages on secrets ask for the password again when it was entered more than *confirm_minutes* ago;
    0 never asks. Raises ConfigurationError.
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
        """Whether browsers reach it over TLS, so that its cookies can be `Secure`."""
        return self.url.startswith("https://")


def _in_range(name: str, value: object, least: int) -> None:
    if type(value) is not int or not least <= value <= _MAX_MINUTES:
        raise ConfigurationError(f"{name} {value!r} is not a number of minutes: use {least} to {_MAX_MINUTES}")


def _origin(name: str, url: object) -> str:
    parts = secure_url(name, url)
    if parts.path.strip("/") or parts.query:
        raise ConfigurationError(f"{name} {url!r} has a path or a query: write host and port alone")
    return f"{parts.scheme}://{parts.netloc}"
