"""Credentials: where one comes from, how it is sent, and that nobody sees it anywhere else."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from machpay.errors import ConfigurationError

API_KEY_VARIABLE = "MACHPAY_API_KEY"
_PREFIX = re.compile(r"sk_(?:live|test)_")
_SENDABLE = re.compile(r"[\x21-\x7e]+")
_SHOWN = 4  # as many characters as tell two keys apart in a list
_ENOUGH_TO_SHOW_SOME = 16


def masked(secret: str) -> str:
    """Return what may be shown of *secret*: `sk_live_…a1b2`."""
    found = _PREFIX.match(secret)
    prefix = found.group() if found else ""
    is_long = len(secret) - len(prefix) >= _ENOUGH_TO_SHOW_SOME
    return f"{prefix}…{secret[-_SHOWN:]}" if is_long else f"{prefix}…"


@dataclass(frozen=True, slots=True, repr=False)
class Credential:
    """An API key or an access token. Both are sent alike."""

    value: str

    @property
    def authorization(self) -> str:
        """The value of the Authorization header."""
        return f"Bearer {self.value}"

    def hidden_in(self, body: bytes) -> bytes:
        """Return *body* without this credential: proxies have been seen to echo what they refuse."""
        return body.replace(self.value.encode(), masked(self.value).encode())

    def __repr__(self) -> str:
        return f"Credential({masked(self.value)!r})"

    def __str__(self) -> str:
        return masked(self.value)


def credential_from(api_key: str | None, access_token: str | None, environment: Mapping[str, str]) -> Credential:
    """Return the one credential that is meant. Explicit beats *environment*; two explicit ones are an error."""
    if api_key is not None and access_token is not None:
        raise ConfigurationError("Both api_key and access_token are given; pass the one to be used.")
    if api_key is not None:
        return _checked("api_key", api_key)
    if access_token is not None:
        return _checked("access_token", access_token)
    if found := environment.get(API_KEY_VARIABLE):
        return _checked(API_KEY_VARIABLE, found)
    raise ConfigurationError(
        f"There is no credential: set the environment variable {API_KEY_VARIABLE}, or pass api_key or access_token."
    )


def _checked(name: str, value: object) -> Credential:
    """Refuse what cannot be a header's value, here rather than in a library that would print it."""
    if not isinstance(value, str):
        raise ConfigurationError(f"{name} is a {type(value).__name__}, and has to be a string.")
    if not value:
        raise ConfigurationError(f"{name} is empty.")
    if not _SENDABLE.fullmatch(value):
        raise ConfigurationError(f"{name} contains white space, a line break or a character that is not ASCII.")
    return Credential(value)
