"""An upstream that speaks TLS: verified by the authorities that the host trusts, and by its own address."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.proxy.harness import OK, proxied, request
from tests.redises.tls import write_certificates


@asynccontextmanager
async def tls_upstream(chain_path: Path) -> AsyncIterator[int]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain_path)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(OK)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]


@pytest.mark.parametrize(
    "trusts_it, host, status",
    [
        (True, "127.0.0.1", 200),
        (False, "127.0.0.1", 502),  # by an authority that nobody here knows
        (True, "localhost", 502),  # the certificate is for another name
    ],
)
async def test_an_upstreams_certificate_is_verified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, trusts_it: bool, host: str, status: int
) -> None:
    ca_path, chain_path = write_certificates(tmp_path)
    if trusts_it:
        monkeypatch.setenv("SSL_CERT_FILE", str(ca_path))
    async with tls_upstream(chain_path) as port, proxied(upstreams={"live": f"https://{host}:{port}"}) as rig:
        for _ in range(2):  # over a kept connection, too
            async with rig.client() as client:
                await client.send(request())
                assert (await client.answer())[0] == status
