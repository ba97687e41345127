"""Issuers of tokens on loopback: HTTP servers with metadata and key sets, and the keys that sign."""

import asyncio
import datetime as dt
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from joserfc import jwt
from joserfc.jwk import RSAKey

OPENID, OAUTH = "/.well-known/openid-configuration", "/.well-known/oauth-authorization-server"


def ok(body: bytes, *headers: str) -> bytes:
    """Return a response with *body* that closes its connection."""
    lines = ["HTTP/1.1 200 OK", f"Content-Length: {len(body)}", "Connection: close", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def status(line: str, *headers: str) -> bytes:
    """Return an empty response such as `404 Not Found`."""
    return "\r\n".join([f"HTTP/1.1 {line}", "Content-Length: 0", "Connection: close", *headers, "", ""]).encode()


def jwks(*keys: RSAKey) -> bytes:
    """Return the key set with the public parts of *keys*."""
    return json.dumps({"keys": [key.as_dict(private=False) for key in keys]}).encode()


class IssuerServer:
    """Serves *documents*, whole responses by their paths, and lists the *fetches*; anything else is 404.

    Responses wait for *gate*.
    """

    def __init__(self) -> None:
        self.key = RSAKey.generate_key(2048, {"kid": "k1"})
        self.documents: dict[str, bytes] = {}
        self.fetches: list[str] = []
        self.requested, self.gate = asyncio.Event(), asyncio.Event()
        self.gate.set()
        self.origin = ""
        self._server: asyncio.Server | None = None

    async def start(self, tls: ssl.SSLContext | None = None) -> None:
        """Listen on a port that the system chooses."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=tls)
        port = self._server.sockets[0].getsockname()[1]
        self.origin = f"https://localhost:{port}" if tls else f"http://127.0.0.1:{port}"

    async def stop(self) -> None:
        """Close the server."""
        self.gate.set()
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    def publish(self, path: str = "", *, at: str | None = None, **metadata: object) -> str:
        """Publish the metadata, changed by *metadata*, and the keys of the issuer at *path*; return that issuer."""
        issuer = self.origin + path
        document = {"issuer": issuer, "jwks_uri": f"{self.origin}/keys", **metadata}
        self.documents[at or path.rstrip("/") + OPENID] = ok(json.dumps(document).encode())
        self.documents["/keys"] = ok(jwks(self.key))
        return issuer

    def sign(self, claims: dict[str, Any], *, typ: str | None = "JWT", key: RSAKey | None = None) -> str:
        """Return a token of this issuer; without *typ* for None."""
        key = key or self.key
        return jwt.encode({"alg": "RS256", "kid": key.kid, **({} if typ is None else {"typ": typ})}, claims, key)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            path = head.split(b" ", 2)[1].decode()
            self.fetches.append(path)
            self.requested.set()
            await self.gate.wait()
            writer.write(self.documents.get(path, status("404 Not Found")))
        finally:
            writer.close()


@asynccontextmanager
async def issuer_server(tls: ssl.SSLContext | None = None) -> AsyncIterator[IssuerServer]:
    """Run a server for an issuer."""
    server = IssuerServer()
    await server.start(tls)
    try:
        yield server
    finally:
        await server.stop()


def certificate(folder: Path) -> Path:
    """Write a certificate for localhost that signs itself, and its key, into one file."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    start = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder(issuer_name=name, subject_name=name, public_key=key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start - dt.timedelta(days=1))
        .not_valid_after(start + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=True)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem, pkcs8, plain = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    path = folder / "localhost.pem"
    path.write_bytes(made.public_bytes(pem) + key.private_bytes(pem, pkcs8, plain))
    return path


def tls_of(path: Path) -> ssl.SSLContext:
    """Return the TLS of a server with the certificate at *path*."""
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(path)
    return tls
