"""Users and passwords in files, read at each login: one that was rotated holds at the next attempt to connect."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

from redis.credentials import CredentialProvider
from redis.exceptions import AuthenticationError
from typing_extensions import override

from machpay_gateway.core.errors import ConfigurationError

Credentials = tuple[str] | tuple[str, str]  # a password, or a user and a password


class PasswordFile(CredentialProvider):
    """The password in a file, of a user or of the default one."""

    def __init__(self, path: Path, user: str | None) -> None:
        self._path = path
        self._user = user

    def check(self) -> None:
        """Raise ConfigurationError if the file cannot be read."""
        try:
            _ = self.get_credentials()
        except AuthenticationError as exc:
            raise ConfigurationError(f"redis: {exc}") from exc

    @override
    def get_credentials(self) -> Credentials:
        password = _read(self._path)
        return (self._user, password) if self._user else (password,)

    @override
    async def get_credentials_async(self) -> Credentials:
        return self.get_credentials()


class UrlFile(CredentialProvider):
    """The user and the password in the URL that is in a file. Another host there is for the next reload."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @override
    def get_credentials(self) -> Credentials:
        try:
            parts = urlsplit(_read(self._path))
        except ValueError:
            raise AuthenticationError(f"{self._path} holds no URL that can be read") from None
        user, password = unquote(parts.username or ""), unquote(parts.password or "")
        return (user, password) if user else (password,)

    @override
    async def get_credentials_async(self) -> Credentials:
        return self.get_credentials()


def _read(path: Path) -> str:
    """Return the text in *path* without the end of its line. Raises AuthenticationError."""
    try:
        return path.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as exc:
        raise AuthenticationError(f"{path} cannot be read: {exc}") from exc
