"""Whoever is to hear of new tokens: a callable of the user's, for either client."""

import inspect
from collections.abc import Callable

from machpay._tokens import Tokens
from machpay.errors import ConfigurationError

OnTokens = Callable[[Tokens], object]


class AsyncListener:
    """Tells a callable, asynchronous or not, and waits for its end."""

    def __init__(self, on_tokens: OnTokens | None) -> None:
        self._on_tokens = _checked(on_tokens)

    async def tell(self, tokens: Tokens) -> None:
        """Return when *tokens* have been taken."""
        if self._on_tokens is None:
            return
        done = self._on_tokens(tokens)
        if inspect.isawaitable(done):
            await done


class Listener:
    """Tells a callable, and refuses an asynchronous one: what nobody awaits would store nothing."""

    def __init__(self, on_tokens: OnTokens | None) -> None:
        self._on_tokens = _checked(on_tokens)
        if inspect.iscoroutinefunction(on_tokens):
            raise _asynchronous()

    def tell(self, tokens: Tokens) -> None:
        """Return when *tokens* have been taken."""
        done = None if self._on_tokens is None else self._on_tokens(tokens)
        if inspect.isawaitable(done):
            if inspect.iscoroutine(done):
                done.close()
            raise _asynchronous()


def _checked(on_tokens: OnTokens | None) -> OnTokens | None:
    if on_tokens is not None and not callable(on_tokens):
        raise ConfigurationError(f"on_tokens is a {type(on_tokens).__name__}, and has to be callable.")
    return on_tokens


def _asynchronous() -> ConfigurationError:
    return ConfigurationError("on_tokens is asynchronous; pass a plain function, or use AsyncMachPay.")
