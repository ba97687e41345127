"""Credentials: where one comes from, how it is sent, and that nobody sees it anywhere else."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus

from machpay.errors import ConfigurationError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

API_KEY_VARIABLE = "MACHPAY_API_KEY"
_PREFIX = re.compile(r"sk_(?:live|test)_")
_SENDABLE = re.compile(r"[\x21-\x7e]+")
_PLAIN = re.compile(r"[\w.~+/=-]+", re.ASCII)
_SHOWN = 4  # as many characters as tell two keys apart in a list
_ENOUGH_TO_SHOW_SOME = 16
_LEAST_HIDDEN = 8  # anything shorter is found in texts that do not mean it, and is no secret


def masked(secret: str) -> str:
    """Return what may be shown of *secret*: `sk_live_…a1b2`."""
    found = _PREFIX.match(secret)
    prefix = found.group() if found else ""
    is_long = len(secret) - len(prefix) >= _ENOUGH_TO_SHOW_SOME
    return f"{prefix}…{secret[-_SHOWN:]}" if is_long else f"{prefix}…"


def shown(value: "DataclassInstance", *secret: str) -> str:
    """Return the repr of *value* with the fields called *secret* masked."""
    named = {each.name: getattr(value, each.name) for each in fields(value) if each.repr}
    kept = {name: masked(named[name]) for name in secret if named[name] is not None}
    told = (f"{name}={each!r}" for name, each in (named | kept).items())
    return f"{type(value).__name__}({', '.join(told)})"


def is_sendable(value: str) -> bool:
    """Return whether *value* can be a part of a header's value."""
    return _SENDABLE.fullmatch(value) is not None


@dataclass(frozen=True, slots=True, repr=False)
class Presented:
    """What a request says of who sends it, and which of the *secrets* in it are told to nobody else."""

    authorization: str | None = None
    secrets: tuple[str, ...] = ()

    def hidden_in(self, body: bytes) -> bytes:
        """Return *body* without the secrets: proxies have been seen to echo what they refuse."""
        hidden = {shape: _replacement(secret) for secret in self.secrets for shape in _shapes(secret)}
        for shape in sorted(hidden, key=len, reverse=True):  # what contains another is hidden whole
            body = body.replace(shape.encode(), hidden[shape].encode())
        return body


@dataclass(frozen=True, slots=True, repr=False)
class Credential:
    """An API key or an access token. Both are sent alike."""

    value: str

    @property
    def presented(self) -> Presented:
        """What a request with it carries."""
        return Presented(f"Bearer {self.value}", (self.value,))

    def __repr__(self) -> str:
        return f"Credential({masked(self.value)!r})"

    def __str__(self) -> str:
        return masked(self.value)


def credential_from(api_key: str | None, access_token: str | None, environment: Mapping[str, str]) -> Credential | None:
    """Return the one credential that is meant, None without any. Explicit beats *environment*; two are an error."""
    if api_key is not None and access_token is not None:
        raise ConfigurationError("Both api_key and access_token are given; pass the one to be used.")
    if api_key is not None:
        return _checked("api_key", api_key)
    if access_token is not None:
        return _checked("access_token", access_token)
    if found := environment.get(API_KEY_VARIABLE):
        return _checked(API_KEY_VARIABLE, found)
    return None


def missing_credential() -> ConfigurationError:
    """Return what to raise where a call needs a credential and there is none."""
    return ConfigurationError(
        f"There is no credential: set the environment variable {API_KEY_VARIABLE}, or pass api_key or access_token."
    )


def _checked(name: str, value: object) -> Credential:
    """Refuse what cannot be a header's value, here rather than in a library that would print it."""
    if not isinstance(value, str):
        raise ConfigurationError(f"{name} is a {type(value).__name__}, and has to be a string.")
    if not value:
        raise ConfigurationError(f"{name} is empty.")
    if not is_sendable(value):
        raise ConfigurationError(f"{name} contains white space, a line break or a character that is not ASCII.")
    return Credential(value)


def _shapes(secret: str) -> Iterator[str]:
    """Yield *secret* as it may be echoed: as it is, and as it stands in a form, in a URL and in JSON."""
    if len(secret) >= _LEAST_HIDDEN:
        yield from (secret, quote_plus(secret), quote(secret, safe=""), json.dumps(secret)[1:-1])
        yield json.dumps(secret, ensure_ascii=False)[1:-1]


def _replacement(secret: str) -> str:
    """Return what stands for *secret*: none of its characters where they would end a string of JSON."""
    return masked(secret) if _PLAIN.fullmatch(secret) else "…"
