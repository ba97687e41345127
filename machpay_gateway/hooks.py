"""Runs the hooks of an application: its checks, and what identifies its credentials.

A hook that fails or hangs refuses the request: an application that forbids something must not allow it by an error.
"""

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Iterable
from enum import Enum
from typing import Any, Final, Literal
from weakref import WeakKeyDictionary

from machpay_gateway.core.decision.decision import Denied, Refusal, unavailable
from machpay_gateway.core.decision.hooks import CheckHook, cache_seconds
from machpay_gateway.core.decision.principal import Principal
from machpay_gateway.core.decision.reason import Reason
from machpay_gateway.core.decision.request_facts import RequestFacts
from machpay_gateway.core.decision.route import Route
from machpay_gateway.core.errors import Unavailable
from machpay_gateway.log_throttle import LogThrottle

HOOK_SECONDS = 5.0  # that an asynchronous hook may take
_MOST_RESULTS = 256  # cached of one principal: an address is a part of each

_log = logging.getLogger(__name__)


class Pending(Enum):
    """A check that has to be awaited."""

    PENDING = "pending"


PENDING: Final = Pending.PENDING


class CheckHooks:
    """The checks of an application, which come after those of the gateway and before the limiter."""

    def __init__(self, hooks: Iterable[CheckHook]) -> None:
        self._checks = tuple(_Check(hook) for hook in hooks)

    def check_nowait(
        self, facts: RequestFacts, route: Route, principal: Principal, now: float
    ) -> Denied | Literal[Pending.PENDING] | None:
        """Return the first refusal, or None; PENDING when a check has to be awaited first."""
        for check in self._checks:
            result = check.result_nowait(facts, route, principal, now)
            if result is not None:
                return result if result is PENDING else _denied(result, route, principal)
        return None

    async def check(self, facts: RequestFacts, route: Route, principal: Principal, now: float) -> Denied | None:
        """Return the first refusal, or None."""
        for check in self._checks:
            if refusal := await check.result(facts, route, principal, now):
                return _denied(refusal, route, principal)
        return None

    async def recheck(self, facts: RequestFacts, route: Route, principal: Principal, now: float) -> Denied | None:
        """Return the first refusal of a request in progress. An error ends no stream."""
        denied = await self.check(facts, route, principal, now)
        return None if denied is None or denied.reason is Reason.UNAVAILABLE else denied


class _Check:
    """One hook, with the results that may be used again."""

    def __init__(self, hook: CheckHook) -> None:
        self._hook = hook
        self._log = FailureLog(hook)
        self._is_async = is_async(hook)
        self._seconds = cache_seconds(hook)
        # Principals are compared by identity: a changed record is a new one, of which nothing is cached.
        self._results: WeakKeyDictionary[Principal, dict[tuple[str, int | None], tuple[Refusal | None, float]]] = (
            WeakKeyDictionary()
        )

    def result_nowait(
        self, facts: RequestFacts, route: Route, principal: Principal, now: float
    ) -> Refusal | Literal[Pending.PENDING] | None:
        if self._seconds:
            results = self._results.get(principal)
            if results is not None and (cached := results.get((route.match, facts.address))) is not None:
                result, until = cached
                if until - self._seconds <= now < until:  # the lower bound covers a clock that was set back
                    return result
        if self._is_async:
            return PENDING
        try:
            result = _checked(self._hook(facts, route, principal), self._hook)
        except Exception as exc:  # noqa: BLE001 - the application's code may raise anything
            return self._failed(exc)
        self._remember(facts, route, principal, result, now)
        return result

    async def result(self, facts: RequestFacts, route: Route, principal: Principal, now: float) -> Refusal | None:
        result = self.result_nowait(facts, route, principal, now)
        if result is not PENDING:
            return result
        try:
            awaited = _checked(await within_seconds(self._hook, facts, route, principal), self._hook)
        except Exception as exc:  # noqa: BLE001 - as above
            return self._failed(exc)
        self._remember(facts, route, principal, awaited, now)
        return awaited

    def _remember(
        self, facts: RequestFacts, route: Route, principal: Principal, result: Refusal | None, now: float
    ) -> None:
        if not self._seconds:
            return
        results = self._results.setdefault(principal, {})
        if len(results) >= _MOST_RESULTS:
            results.clear()
        results[route.match, facts.address] = result, now + self._seconds

    def _failed(self, error: BaseException) -> Refusal:
        self._log.add(error)
        reason = str(error) if isinstance(error, Unavailable) else type(error).__name__
        return Refusal(Reason.UNAVAILABLE, f"the check {hook_name(self._hook)} failed: {reason}")


class FailureLog:
    """Logs the failures of one hook, with a traceback, once a minute."""

    def __init__(self, hook: Callable[..., object]) -> None:
        self._name = hook_name(hook)
        self._throttle = LogThrottle(_log)

    def add(self, error: BaseException) -> None:
        """Log *error*."""
        self._throttle.log(logging.ERROR, "The hook %s failed: the request is refused.", self._name, error=error)


def is_async(hook: Callable[..., object]) -> bool:
    """Tell whether *hook* is a coroutine function, or an object whose `__call__` is one."""
    return inspect.iscoroutinefunction(hook) or inspect.iscoroutinefunction(getattr(hook, "__call__", None))  # noqa: B004 - its type


async def within_seconds(hook: Callable[..., Any], *arguments: object) -> Any:  # noqa: ANN401 - of any hook
    """Return what the asynchronous *hook* returns for *arguments*. Raises TimeoutError after 5 s."""
    async with asyncio.timeout(HOOK_SECONDS):
        result: Awaitable[Any] = hook(*arguments)
        return await result


def hook_name(hook: Callable[..., object]) -> str:
    """Return the module and the name of *hook*."""
    name = getattr(hook, "__qualname__", None) or type(hook).__qualname__
    return f"{getattr(hook, '__module__', '')}:{name}"


def _checked(result: object, hook: CheckHook) -> Refusal | None:
    if result is None or isinstance(result, Refusal):
        return result
    if inspect.iscoroutine(result):
        result.close()
    raise TypeError(f"{hook_name(hook)} returned {type(result).__name__}, not a Refusal or None")


def _denied(refusal: Refusal, route: Route, principal: Principal) -> Denied:
    reason, detail, missing, message = refusal
    if reason is Reason.UNAVAILABLE:
        return unavailable(route, detail, principal)
    return Denied(Reason(reason), detail, route, principal, missing=tuple(missing), message=message)
