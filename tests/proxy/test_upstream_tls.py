"""An upstream that speaks TLS: verified by the authorities that the host trusts, and by its own address."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from machpay_gateway.core.errors import ConfigurationError
from tests.certificates import Authority, IssuedFiles
from tests.proxy.harness import OK, Rig, proxied, request
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


@asynccontextmanager
async def strict_upstream(files: IssuedFiles, clients: Path) -> AsyncIterator[tuple[int, list[str]]]:
    """Run an upstream that requires client certificates. Yields its port, and the subject of each of its clients."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate, files.key)
    context.load_verify_locations(clients)
    context.verify_mode = ssl.CERT_REQUIRED
    subjects: list[str] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        certificate = writer.get_extra_info("ssl_object").getpeercert()
        subjects.append(certificate["subject"][0][0][1])
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context) as server:
        yield server.sockets[0].getsockname()[1], subjects


async def status_through(rig: Rig) -> int:
    async with rig.client() as client:
        await client.send(request())
        return (await client.answer())[0]


async def test_an_upstream_gets_a_client_certificate_and_is_verified_by_its_own_authority(tmp_path: Path) -> None:
    servers, clients = Authority(tmp_path, "servers"), Authority(tmp_path, "clients")
    server, client = servers.issue("server", "billing.internal"), clients.issue("first")
    async with strict_upstream(server, clients.path) as (port, subjects):
        table: dict[str, object] = {
            "live": f"https://127.0.0.1:{port}",
            "tls_ca": str(servers.path),
            "tls_server_name": "billing.internal",
        }
        certificate = {"tls_certificate": str(client.certificate), "tls_key": str(client.key)}
        for changes, status in (
            (certificate, 200),
            ({}, 502),  # without a certificate
            (certificate | {"tls_server_name": "other.internal"}, 502),
            (certificate | {"tls_ca": str(clients.path)}, 502),
        ):
            async with proxied(upstreams=table | changes) as rig:
                assert await status_through(rig) == status
        assert subjects == ["first"]


async def test_changed_files_are_used_for_the_next_connection_and_broken_ones_are_not(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    server, client = authority.issue("server", "127.0.0.1"), authority.issue("client")
    async with strict_upstream(server, authority.path) as (port, subjects):
        upstreams = {
            "live": f"https://127.0.0.1:{port}",
            "tls_ca": str(authority.path),
            "tls_certificate": str(client.certificate),
            "tls_key": str(client.key),
        }
        async with proxied(upstreams=upstreams) as rig:
            assert await status_through(rig) == 200
            for subject, breaks in (("second", False), ("second", True)):
                if breaks:
                    client.key.write_text("nothing")
                else:
                    authority.issue("client", subject=f"CN={subject}")
                for _ in range(2):  # once to see the change, once to see that it is over
                    rig.proxy.router.maintain(0.0)
                assert await status_through(rig) == 200
                assert subjects[-1] == subject


async def test_files_that_cannot_be_used_stop_the_start() -> None:
    with pytest.raises(ConfigurationError, match=r"tls_ca '/nowhere.pem' cannot be used"):
        async with proxied(upstreams={"live": "https://127.0.0.1:1", "tls_ca": "/nowhere.pem"}):
            pass
