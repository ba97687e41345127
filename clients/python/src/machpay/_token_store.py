"""The user's `on_tokens` and `load_tokens`, which store tokens and read them, for either client."""

import datetime as dt
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from machpay._credential import masked_repr, parse_credential
from machpay._tokens import Tokens
from machpay.errors import ConfigurationError

OnTokens = Callable[[Tokens], object]
LoadTokens = Callable[[], object]
_MEMBERS = ("access_token", "refresh_token", "expires_at")


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class StoredTokens:
    """What `load_tokens` may return: the last tokens that `on_tokens` was given, in this process or another one."""

    access_token: str | None = None
    refresh_token: str | None = None
    expires_at: dt.datetime | None = None

    def __repr__(self) -> str:
        return masked_repr(self, "access_token", "refresh_token")


class AsyncTokenStore:
    """Calls functions or coroutine functions, and waits for them."""

    def __init__(self, on_tokens: OnTokens | None, load_tokens: LoadTokens | None = None) -> None:
        self._on_tokens, self._load_tokens = _validate(on_tokens, load_tokens)

    @property
    def can_load(self) -> bool:
        """Whether there is a `load_tokens`."""
        return self._load_tokens is not None

    async def save(self, tokens: Tokens) -> None:
        """Pass *tokens* to `on_tokens`. Return when it is done."""
        if self._on_tokens is None:
            return
        result = self._on_tokens(tokens)
        if inspect.isawaitable(result):
            await result

    async def load(self) -> StoredTokens | None:
        """Return what `load_tokens` returns, or None if nothing is stored. Raises ConfigurationError."""
        result = None if self._load_tokens is None else self._load_tokens()
        return _stored(await result if inspect.isawaitable(result) else result)


class TokenStore:
    """Calls functions. Coroutine functions are refused: they would never be awaited, and store nothing."""

    def __init__(self, on_tokens: OnTokens | None, load_tokens: LoadTokens | None = None) -> None:
        self._on_tokens, self._load_tokens = _validate(on_tokens, load_tokens)
        for name, function in (("on_tokens", on_tokens), ("load_tokens", load_tokens)):
            if inspect.iscoroutinefunction(function):
                raise _asynchronous(name)

    @property
    def can_load(self) -> bool:
        """Whether there is a `load_tokens`."""
        return self._load_tokens is not None

    def save(self, tokens: Tokens) -> None:
        """Pass *tokens* to `on_tokens`. Return when it is done."""
        _require_plain("on_tokens", None if self._on_tokens is None else self._on_tokens(tokens))

    def load(self) -> StoredTokens | None:
        """Return what `load_tokens` returns, or None if nothing is stored. Raises ConfigurationError."""
        result = None if self._load_tokens is None else self._load_tokens()
        _require_plain("load_tokens", result)
        return _stored(result)


def _validate(on_tokens: object, load_tokens: object) -> tuple[OnTokens | None, LoadTokens | None]:
    for name, function in (("on_tokens", on_tokens), ("load_tokens", load_tokens)):
        if function is not None and not callable(function):
            raise ConfigurationError(f"{name} is a {type(function).__name__}, and has to be callable.")
    if load_tokens is not None and on_tokens is None:
        # It would go back to the refresh token that the last refresh has used.
        raise ConfigurationError("load_tokens is given without on_tokens; pass both: new tokens have to be stored.")
    return on_tokens, load_tokens  # type: ignore[return-value]  # callable, which is all that can be checked


def _stored(value: Any) -> StoredTokens | None:  # noqa: ANN401 - whatever the user's function returns
    if value is None:
        return None
    if isinstance(value, Mapping):
        members = {name: value.get(name) for name in _MEMBERS}
    else:
        members = {name: getattr(value, name, None) for name in _MEMBERS}
    for name in ("access_token", "refresh_token"):
        if members[name] is not None:
            parse_credential(f"load_tokens: {name}", members[name])
    if members["refresh_token"] is None:
        raise ConfigurationError("load_tokens returned no refresh_token; return None if nothing is stored.")
    return StoredTokens(**members | {"expires_at": _moment(members["expires_at"])})


def _moment(value: object) -> dt.datetime | None:
    """Return *value*, a datetime or what JSON made of one."""
    try:
        moment = dt.datetime.fromisoformat(value) if isinstance(value, str) else value
    except ValueError:
        moment = value
    if moment is None or (isinstance(moment, dt.datetime) and moment.tzinfo is not None):
        return moment
    raise ConfigurationError("load_tokens: expires_at has to be a datetime with a time zone.")


def _require_plain(name: str, result: object) -> None:
    if inspect.isawaitable(result):
        if inspect.iscoroutine(result):
            result.close()
        raise _asynchronous(name)


def _asynchronous(name: str) -> ConfigurationError:
    return ConfigurationError(f"{name} is asynchronous; pass a plain function, or use AsyncMachPay.")
