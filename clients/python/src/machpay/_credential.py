"""Credentials: where they come from, how they are sent, and how they are kept out of logs and errors."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus

from machpay._dpop import DPoPKey
from machpay.errors import ConfigurationError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

API_KEY_VARIABLE = "MACHPAY_API_KEY"
_PREFIX = re.compile(r"[a-z][a-z0-9]{0,15}_(?:live|test)_")  # a gateway may have a brand of its own
_SENDABLE = re.compile(r"[\x21-\x7e]+")
_PLAIN = re.compile(r"[\w.~+/=-]+", re.ASCII)
_VISIBLE = 4  # characters, enough to tell two keys apart in a list
_MIN_PARTLY_VISIBLE = 16
_MIN_REDACTED = 8  # anything shorter occurs in texts by chance, and is no secret


def masked(secret: str) -> str:
    """Return *secret* as displayed: `sk_live_…a1b2`."""
    match = _PREFIX.match(secret)
    prefix = match.group() if match else ""
    is_long = len(secret) - len(prefix) >= _MIN_PARTLY_VISIBLE
    return f"{prefix}…{secret[-_VISIBLE:]}" if is_long else f"{prefix}…"


def masked_repr(value: "DataclassInstance", *secret: str) -> str:
    """Return the repr of *value* with the fields named *secret* masked."""
    values = {each.name: getattr(value, each.name) for each in fields(value) if each.repr}
    masked_values = {name: masked(values[name]) for name in secret if values[name] is not None}
    arguments = (f"{name}={each!r}" for name, each in (values | masked_values).items())
    return f"{type(value).__name__}({', '.join(arguments)})"


def is_sendable(value: str) -> bool:
    """Return whether *value* can be part of a header value."""
    return _SENDABLE.fullmatch(value) is not None


@dataclass(frozen=True, slots=True, repr=False)
class Authorization:
    """The Authorization *header* of a request, and all *secrets* in the request, which must not leak.

    With a *dpop_key*, each attempt has a proof of it, for the *access_token* if there is one.
    """

    header: str | None = None
    secrets: tuple[str, ...] = ()
    dpop_key: DPoPKey | None = None
    access_token: str | None = None

    def redact(self, body: bytes) -> bytes:
        """Return *body* without the secrets: some proxies echo the requests that they refuse."""
        replacements = {form: _replacement(secret) for secret in self.secrets for form in _encoded_forms(secret)}
        for form in sorted(replacements, key=len, reverse=True):  # longest first: one form may contain another
            body = body.replace(form.encode(), replacements[form].encode())
        return body


@dataclass(frozen=True, slots=True, repr=False)
class Credential:
    """An API key or an access token. Both are sent in the same way."""

    value: str

    @property
    def authorization(self) -> Authorization:
        """The authorization of a request with it."""
        return Authorization(f"Bearer {self.value}", (self.value,))

    def __repr__(self) -> str:
        return f"Credential({masked(self.value)!r})"

    def __str__(self) -> str:
        return masked(self.value)


def credential_from(api_key: str | None, access_token: str | None, environment: Mapping[str, str]) -> Credential | None:
    """Return the credential, or None if there is none. Arguments override *environment*; two are an error."""
    if api_key is not None and access_token is not None:
        raise ConfigurationError("Both api_key and access_token are given; pass the one to be used.")
    if api_key is not None:
        return parse_credential("api_key", api_key)
    if access_token is not None:
        return parse_credential("access_token", access_token)
    if value := environment.get(API_KEY_VARIABLE):
        return parse_credential(API_KEY_VARIABLE, value)
    return None


def missing_credential() -> ConfigurationError:
    """Return the error of a call that needs a credential when there is none."""
    return ConfigurationError(
        f"There is no credential: set the environment variable {API_KEY_VARIABLE}, or pass api_key or access_token."
    )


def parse_credential(name: str, value: object) -> Credential:
    """Return *value* as a Credential. Raises here, because an HTTP library would print the value in its error."""
    if not isinstance(value, str):
        raise ConfigurationError(f"{name} is a {type(value).__name__}, and has to be a string.")
    if not value:
        raise ConfigurationError(f"{name} is empty.")
    if not is_sendable(value):
        raise ConfigurationError(f"{name} contains white space, a line break or a character that is not ASCII.")
    return Credential(value)


def _encoded_forms(secret: str) -> Iterator[str]:
    """Yield *secret* as it may be echoed: plain, and as encoded in a form, in a URL and in JSON."""
    if len(secret) >= _MIN_REDACTED:
        yield from (secret, quote_plus(secret), quote(secret, safe=""), json.dumps(secret)[1:-1])
        yield json.dumps(secret, ensure_ascii=False)[1:-1]


def _replacement(secret: str) -> str:
    """Return the replacement of *secret*, without any character that would end a JSON string."""
    return masked(secret) if _PLAIN.fullmatch(secret) else "…"
