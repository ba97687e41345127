"""The user's `on_tokens` callback, which stores new tokens, for either client."""

import inspect
from collections.abc import Callable

from machpay._tokens import Tokens
from machpay.errors import ConfigurationError

OnTokens = Callable[[Tokens], object]


class AsyncTokenCallback:
    """Calls a function or a coroutine function, and waits for it."""

    def __init__(self, on_tokens: OnTokens | None) -> None:
        self._on_tokens = _validate(on_tokens)

    async def call(self, tokens: Tokens) -> None:
        """Pass *tokens* to the callback. Return when it is done."""
        if self._on_tokens is None:
            return
        result = self._on_tokens(tokens)
        if inspect.isawaitable(result):
            await result


class TokenCallback:
    """Calls a function. A coroutine function is refused: it would never be awaited, and store nothing."""

    def __init__(self, on_tokens: OnTokens | None) -> None:
        self._on_tokens = _validate(on_tokens)
        if inspect.iscoroutinefunction(on_tokens):
            raise _asynchronous()

    def call(self, tokens: Tokens) -> None:
        """Pass *tokens* to the callback. Return when it is done."""
        result = None if self._on_tokens is None else self._on_tokens(tokens)
        if inspect.isawaitable(result):
            if inspect.iscoroutine(result):
                result.close()
            raise _asynchronous()


def _validate(on_tokens: OnTokens | None) -> OnTokens | None:
    if on_tokens is not None and not callable(on_tokens):
        raise ConfigurationError(f"on_tokens is a {type(on_tokens).__name__}, and has to be callable.")
    return on_tokens


def _asynchronous() -> ConfigurationError:
    return ConfigurationError("on_tokens is asynchronous; pass a plain function, or use AsyncMachPay.")
