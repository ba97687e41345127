"""Work that goes on when whoever waits for it is cancelled. Synchronous code is not, so there is no generated twin."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")


def unbroken(method: Callable[_P, Coroutine[Any, Any, _T]]) -> Callable[_P, Coroutine[Any, Any, _T]]:
    """Return *method* with each call of it made into a task of its own."""
    running: set[object] = set()  # the loop refers to tasks only weakly

    async def begun(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        task = asyncio.ensure_future(method(*args, **kwargs))
        running.add(task)
        task.add_done_callback(running.discard)
        return await asyncio.shield(task)

    return begun
