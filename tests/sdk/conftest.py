import inspect
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from machpay import AsyncMachPay, MachPay

from tests.sdk.scripted import SECRET, Script
from tests.servers import serving


@dataclass
class FakeEffects:
    """The clocks and randomness of a client. Sleeps return at once, advance every clock, and are recorded."""

    now: float = 1_800_000_000.0
    drawn: float = 1.0
    slept: list[float] = field(default_factory=list)

    def effects(self, client: AsyncMachPay | MachPay) -> Any:  # noqa: ANN401 - private to the package
        transport: Any = client._transport  # noqa: SLF001 - the clock has no public setting
        return replace(
            transport.sender.effects,
            now=lambda: self.now,
            monotonic=lambda: time.monotonic() + sum(self.slept),
            draw=lambda: self.drawn,
        )

    async def wait(self, seconds: float) -> None:
        self.slept.append(seconds)


@dataclass
class Twin:
    """The synchronous or the asynchronous client, with a scripted server.

    Tests run with both: `resolve` awaits a result if it is awaitable.
    """

    kind: type[AsyncMachPay] | type[MachPay]
    url: str
    script: Script
    world: FakeEffects
    opened: list[AsyncMachPay | MachPay] = field(default_factory=list)

    def client(self, **options: Any) -> Any:  # noqa: ANN401 - either client, any option
        made = self.kind(**{"api_key": SECRET, "base_url": self.url, **options})
        self.opened.append(made)
        is_async = isinstance(made, AsyncMachPay)
        sleep: Callable[[float], Any] = self.world.wait if is_async else self.world.slept.append
        transport: Any = made._transport  # noqa: SLF001 - as above
        sender = replace(transport.sender, effects=self.world.effects(made), sleep=sleep)
        made._transport = replace(transport, sender=sender)  # noqa: SLF001 - as above
        return made

    async def resolve(self, value: Any) -> Any:  # noqa: ANN401 - whatever a call returns
        return await value if inspect.isawaitable(value) else value

    async def collect(self, listing: Any) -> list[Any]:  # noqa: ANN401 - a page or a listing
        return [item async for item in listing] if hasattr(listing, "__aiter__") else list(listing)

    async def close(self) -> None:
        for client in self.opened:
            await client.aclose() if isinstance(client, AsyncMachPay) else client.close()


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MACHPAY_API_KEY", "MACHPAY_BASE_URL", "MACHPAY_AUTH_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def served() -> Iterator[tuple[Script, str]]:
    script = Script()
    with serving(script, date_header=False, timeout_graceful_shutdown=1) as (host, port):
        yield script, f"http://{host}:{port}"


@pytest.fixture
def script(served: tuple[Script, str]) -> Script:
    script, _ = served
    script.reset()
    return script


@pytest.fixture(params=[MachPay, AsyncMachPay], ids=["sync", "async"])
async def twin(request: pytest.FixtureRequest, script: Script, served: tuple[Script, str]) -> AsyncIterator[Twin]:
    made = Twin(request.param, served[1], script, FakeEffects())
    yield made
    await made.close()
