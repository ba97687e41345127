"""A gateway and an upstream on real sockets, and clients with addresses of their own that call through a proxy."""

import asyncio
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from starlette.types import Receive, Scope, Send

from machpay_gateway import Tier
from machpay_gateway.assembly import ConfiguredGateway
from machpay_gateway.core.decision.decision import Decision
from machpay_gateway.core.decision.request_facts import RequestFacts
from machpay_gateway.core.jose.assertion import AssertionSettings
from machpay_gateway.gateway import Gateway
from machpay_gateway.server import create_app
from machpay_gateway.settings import Options
from tests.forward_auth.proxies import DEPLOY, running_proxy
from tests.prepared import new_sqlite
from tests.redises.ports import HOST, free_port
from tests.servers import serving

CLIENT, NEIGHBOUR = "127.0.0.9", "127.0.0.8"  # all of 127.0.0.0/8 is this host
ORIGIN = "https://app.example"
MANY_SCOPES = ["skills:list", *(f"area-{number:02}:".ljust(128, "x") for number in range(99))]  # as long as can be
_PATIENCE_SECONDS = 20


@dataclass
class Seen:
    """A request as the upstream got it."""

    method: str
    target: bytes
    fields: list[tuple[str, str]]
    body: bytes

    def identity(self) -> dict[str, str]:
        """Return the fields that would read as ours to an application that knows no hyphens."""
        wanted = {name.replace("_", "-"): value for name, value in self.fields}
        return {name: value for name, value in wanted.items() if name.startswith("x-machpay")}

    def values(self, name: str) -> list[str]:
        return [value for field_name, value in self.fields if field_name == name]


@dataclass
class Upstream:
    """An application that remembers what came, and answers with the status in the query, 200 if there is none.

    It tries to set *cookies*.
    """

    seen: list[Seen] = field(default_factory=list)
    cookies: tuple[bytes, ...] = ()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == "lifespan":
            return
        body = b""
        if scope["type"] == "http":
            more = True
            while more:
                message = await receive()
                body += message.get("body", b"")
                more = message.get("more_body", False)
        fields = [(name.decode(), value.decode("latin-1")) for name, value in scope["headers"]]
        self.seen.append(Seen(scope.get("method", "GET"), scope["raw_path"], fields, body))
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.close"})
            return
        name, _, value = scope["query_string"].partition(b"=")
        status = int(value) if name == b"status" else 200
        headers = [(b"x-app", b"1"), *((b"set-cookie", cookie) for cookie in self.cookies)]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"from the application"})


@dataclass(frozen=True)
class Answer:
    """What a client gets."""

    status: int
    fields: list[tuple[str, str]]
    body: bytes

    def values(self, name: str) -> list[str]:
        return [value for field_name, value in self.fields if field_name.lower() == name]

    def problem(self) -> Any:  # noqa: ANN401 - JSON
        return orjson.loads(self.body)


@dataclass
class Rig:
    """A *proxy* of that name at *port*, in front of an upstream, asking a gateway."""

    proxy: str
    port: int
    gateway: Gateway
    upstream: Upstream
    decided: list[RequestFacts]
    secrets: Mapping[str, str]

    def call(
        self,
        request: str,
        secret: str | None = None,
        fields: Sequence[tuple[str, str]] = (),
        body: bytes | None = None,
        source: str = CLIENT,
        *,
        host: str = "",
    ) -> Answer:
        """Return what comes back for a *request*, written as in `GET /a`, with the credential of that name.

        *host* is what its Host says, the proxy's address unless it is given.
        """
        method, target = request.split(" ", 1)
        connection = HTTPConnection(HOST, self.port, timeout=_PATIENCE_SECONDS, source_address=(source, 0))
        try:
            connection.putrequest(method, target, skip_accept_encoding=True, skip_host=bool(host))
            if host:
                connection.putheader("Host", host)
            if secret is not None:
                connection.putheader("Authorization", f"Bearer {self.secrets[secret]}")
            for name, value in fields:
                connection.putheader(name, value)
            in_chunks = any(name == "Transfer-Encoding" for name, _ in fields)
            if body is not None and not in_chunks:
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body, encode_chunked=in_chunks)
            response = connection.getresponse()
            return Answer(response.status, response.getheaders(), b"" if response.status == 101 else response.read())
        finally:
            connection.close()

    def seen(self) -> Seen:
        """Return the only request that reached the upstream."""
        (seen,) = self.upstream.seen
        return seen


@contextmanager
def running_rig(name: str) -> Iterator[Rig]:
    """Run the proxy of that *name*, with the gateway's shipped configuration and a database of its own."""
    upstream, decided = Upstream(), []
    with tempfile.TemporaryDirectory() as folder:
        options = Options(
            config=DEPLOY / "machpay.toml",
            database=new_sqlite(Path(folder) / "machpay.db"),
            trusted_proxies=[HOST],
            tiers={"tiny": Tier("1/minute", 5)},
            cors={"origins": [ORIGIN]},
            credentials={"headers": ["Authorization", "X-API-Key"]},
            assertion=AssertionSettings(_key_file(Path(folder)), "https://gateway.test", "https://upstream.test"),
            scopes=MANY_SCOPES,
        )
        secrets = asyncio.run(_keys(options))
        app = create_app(**options)
        deciding = app.gateway.gate.decide

        async def decide(facts: RequestFacts) -> Decision:
            decided.append(facts)
            return await deciding(facts)

        with pytest.MonkeyPatch.context() as patch, serving(upstream) as there, serving(app) as here:
            patch.setattr(app.gateway.gate, "decide", decide)
            with running_proxy(name, gateway=here[1], upstream=there[1]) as proxy:
                yield Rig(name, proxy.port, app.gateway, upstream, decided, secrets)


@contextmanager
def without_gateway(name: str) -> Iterator[Rig]:
    """Run the proxy of that *name* where no gateway answers."""
    upstream = Upstream()
    gateway = ConfiguredGateway(config=DEPLOY / "machpay.toml", database="sqlite://")
    with serving(upstream) as there, running_proxy(name, gateway=free_port(), upstream=there[1]) as proxy:
        yield Rig(name, proxy.port, gateway, upstream, [], {})


def _key_file(folder: Path) -> str:
    path = folder / "key.pem"
    path.write_bytes(Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return str(path)


async def _keys(options: Options) -> dict[str, str]:
    async with ConfiguredGateway(**options) as gateway:

        async def key(scopes: Sequence[str], *, tier: str = "standard", allowed_ips: Sequence[str] = ()) -> str:
            account = await gateway.accounts.find(tier) or await gateway.accounts.create(tier, tier)
            _, secret = await gateway.keys.create(
                account.id, name="test", scopes=scopes, environment="live", allowed_ips=allowed_ips
            )
            return secret

        return {
            "all": await key(["skills:execute", "skills:list"]),
            "many": await key(MANY_SCOPES),
            "reader": await key(["account:read"]),
            "tiny": await key(["skills:list"], tier="tiny"),
            "at home": await key(["skills:list"], allowed_ips=[CLIENT]),
            "unseen": await key(["skills:list"]),
        }
