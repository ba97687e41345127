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
