"""Where people find the Console, and where their programs find the API that it is about."""

from dataclasses import dataclass

from machpay_gateway.core.errors import ConfigurationError
from machpay_gateway.core.oauth.authority import secure_url


@dataclass(frozen=True, slots=True)
class Console:
    """A Console at *url*, an origin such as `https://console.example.com`, below `/console`.

    *api_url* is where the API is that keys are for, as the Console writes it into examples: *url* unless it is given.
    Raises ConfigurationError.
    """

    url: str
    api_url: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "url", _origin("url", self.url))
        object.__setattr__(self, "api_url", _origin("api_url", self.api_url) if self.api_url else self.url)

    @property
    def is_secure(self) -> bool:
        """Whether browsers reach it over TLS: only then do its cookies say that they need it."""
        return self.url.startswith("https://")


def _origin(name: str, url: object) -> str:
    parts = secure_url(name, url)
    if parts.path.strip("/") or parts.query:
        raise ConfigurationError(f"{name} {url!r} has a path or a query: write host and port alone")
    return f"{parts.scheme}://{parts.netloc}"
