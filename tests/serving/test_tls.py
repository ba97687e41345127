"""TLS towards callers: which certificate they get, which versions and ciphers, and what happens when files change."""

import json
import os
import shutil
import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from machpay_gateway.core.errors import ConfigurationError
from machpay_gateway.serving.tls import load_certificates
from machpay_gateway.settings.server import ServerSettings
from tests.certificates import Authority, IssuedFiles
from tests.serving.processes import Served, served
from tests.serving.test_lifecycle import until

pytestmark = pytest.mark.xdist_group("tls")

REQUEST = b"GET /public/head HTTP/1.1\r\nHost: api.test\r\nConnection: close\r\n\r\n"


@dataclass(frozen=True)
class Named:
    """A gateway with certificates for several names, and where all of its files are."""

    gateway: Served
    authority: Authority
    folder: Path

    def context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.authority.path))


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Named]:
    folder = tmp_path_factory.mktemp("named")
    authority = Authority(folder)
    default = authority.issue("default", "127.0.0.1", "api.test")
    others = [authority.issue("wild", "*.partner.test"), authority.issue("exact", "a.partner.test", "api.test")]
    settings = (
        f'[server]\nlisten = ["127.0.0.1:0", {{ address = "127.0.0.2:0", tls = false }}]\n'
        f'tls_certificate = "{default.certificate}"\ntls_key = "{default.key}"\n'
        + "".join(
            f'[[server.certificates]]\ncertificate = "{files.certificate}"\nkey = "{files.key}"\n' for files in others
        )
    )
    with served(folder, settings=settings, listen=(), management="127.0.0.1:0") as gateway:
        yield Named(gateway, authority, folder)


def handshake(
    port: int, context: ssl.SSLContext, name: str | None = "127.0.0.1"
) -> tuple[x509.Certificate, tuple[str, str, int] | None]:
    """Return the certificate of the server and the cipher."""
    with (
        socket.create_connection(("127.0.0.1", port), timeout=15) as plain,
        context.wrap_socket(plain, server_hostname=name) as connection,
    ):
        connection.sendall(REQUEST)
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
        der = connection.getpeercert(binary_form=True)
        assert der is not None
        return x509.load_der_x509_certificate(der), connection.cipher()


def subject(port: int, context: ssl.SSLContext, name: str | None = "127.0.0.1") -> str:
    return handshake(port, context, name)[0].subject.rfc4514_string()


@pytest.mark.parametrize(
    "name, expected",
    [
        ("api.test", "CN=default"),  # the first of two
        ("a.partner.test", "CN=exact"),
        ("A.Partner.TEST", "CN=exact"),
        ("b.partner.test", "CN=wild"),
        ("127.0.0.1", "CN=default"),
        ("partner.test", "CN=default"),
        ("b.a.partner.test", "CN=default"),
        (None, "CN=default"),
    ],
)
def test_a_caller_gets_the_certificate_for_its_name(named: Named, name: str | None, expected: str) -> None:
    context = named.context()
    context.check_hostname = False
    assert subject(named.gateway.port, context, name) == expected


def test_a_listener_without_tls_is_beside_it(named: Named) -> None:
    (plain,) = [url for url in named.gateway.urls if url.startswith("http://")]
    with urllib.request.urlopen(f"{plain}/public/head") as response:  # noqa: S310 - our own
        assert b"X-Forwarded-Proto: http\r\n" in response.read()


@pytest.mark.parametrize(
    "version, ciphers, is_accepted",
    [
        (ssl.TLSVersion.TLSv1_3, "", True),
        (ssl.TLSVersion.TLSv1_2, "ECDHE-ECDSA-AES128-GCM-SHA256", True),
        (ssl.TLSVersion.TLSv1_2, "ECDHE-ECDSA-CHACHA20-POLY1305", True),
        (ssl.TLSVersion.TLSv1_2, "ECDHE-ECDSA-AES128-SHA256", False),
        (ssl.TLSVersion.TLSv1_2, "ECDHE-ECDSA-AES256-SHA", False),
        (ssl.TLSVersion.TLSv1_1, "DEFAULT:@SECLEVEL=0", False),
    ],
)
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
def test_versions_and_ciphers(named: Named, version: ssl.TLSVersion, ciphers: str, *, is_accepted: bool) -> None:
    context = named.context()
    context.minimum_version = context.maximum_version = version
    if ciphers:
        context.set_ciphers(ciphers)
    if is_accepted:
        assert handshake(named.gateway.port, context)[1] is not None
        return
    with pytest.raises(ssl.SSLError):
        handshake(named.gateway.port, context)


def test_a_key_with_a_passphrase_is_a_mistake_and_no_question(tmp_path: Path) -> None:
    files = Authority(tmp_path).issue("server", "127.0.0.1")
    key = load_pem_private_key(files.key.read_bytes(), None)
    secret = BestAvailableEncryption(os.urandom(8))
    files.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, secret))
    settings = ServerSettings(tls_certificate=str(files.certificate), tls_key=str(files.key))
    with pytest.raises(ConfigurationError, match="cannot be used"):
        load_certificates(settings)


def readiness(gateway: Served) -> tuple[str, str]:
    """Return the status, and what is said of certificates."""
    with urllib.request.urlopen(f"{gateway.management}/readyz") as response:  # noqa: S310 - our own
        document: dict[str, Any] = json.load(response)
    return document["status"], document["checks"]["certificates"]


def metric(gateway: Served, name: str) -> float:
    with urllib.request.urlopen(f"{gateway.management}/metrics") as response:  # noqa: S310 - our own
        lines = response.read().decode().splitlines()
    return float(next(line for line in lines if line.startswith(name)).rpartition(" ")[2])


def test_new_files_are_used_and_broken_ones_change_nothing(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    files = authority.issue("first", "127.0.0.1")
    used = IssuedFiles(tmp_path / "used.pem", tmp_path / "used.key")
    settings = f'[server]\ntls_certificate = "{used.certificate}"\ntls_key = "{used.key}"\n'

    def install(issued: IssuedFiles) -> None:
        shutil.copy(issued.certificate, used.certificate)
        shutil.copy(issued.key, used.key)

    install(files)
    with served(tmp_path, settings=settings, management="127.0.0.1:0") as gateway:
        context = ssl.create_default_context(cafile=str(authority.path))
        with (
            socket.create_connection(("127.0.0.1", gateway.port), timeout=15) as plain,
            context.wrap_socket(plain, server_hostname="127.0.0.1") as kept,
        ):
            assert readiness(gateway) == ("ready", "ok")
            expires_at = metric(gateway, "machpay_certificate_expiry_timestamp_seconds{")
            install(authority.issue("second", "127.0.0.1", days=5))
            until(lambda: subject(gateway.port, context) == "CN=second")
            kept.sendall(REQUEST)
            assert kept.recv(65536).startswith(b"HTTP/1.1 200 ")
        until(lambda: metric(gateway, "machpay_certificate_expiry_timestamp_seconds{") > expires_at + 3 * 86400)

        used.certificate.write_text("nothing")
        until(lambda: readiness(gateway)[1] != "ok")
        status, text = readiness(gateway)
        assert (status, text.startswith("stale: ")) == ("degraded", True)
        assert str(used.certificate) in text
        assert "The new certificates are not used" in gateway.log
        assert subject(gateway.port, context) == "CN=second"
        until(lambda: metric(gateway, "machpay_certificates_stale") == 1)

        install(authority.issue("third", "127.0.0.1", days=-1))
        until(lambda: readiness(gateway)[1].startswith("expired: "))
        install(authority.issue("fourth", "127.0.0.1"))
        until(lambda: readiness(gateway) == ("ready", "ok"))
        assert subject(gateway.port, context) == "CN=fourth"
