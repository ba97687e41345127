"""Both event loops: the product runs on uvloop, and on asyncio's own where that is missing."""

import asyncio
from collections.abc import Callable, Mapping

import pytest
import uvloop

from machpay_gateway.proxy import proxy

LoopFactory = Callable[[], asyncio.AbstractEventLoop]


def pytest_asyncio_loop_factories() -> Mapping[str, LoopFactory]:
    return {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}


@pytest.fixture
def quick_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look after connections fifty times a second instead of once."""
    monkeypatch.setattr(proxy, "_TICK_SECONDS", 0.02)


@pytest.fixture
def replaceable(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Let a test put something in the place of a method, which cannot be done to what is compiled."""
    if not str(proxy.__file__).endswith(".py"):
        pytest.skip("the methods of compiled classes cannot be replaced")
    return monkeypatch
