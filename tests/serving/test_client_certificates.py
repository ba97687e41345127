"""Client certificates: who must have one, and what an upstream is told of it."""

import hashlib
import os
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from machpay_gateway import Gateway, MachPayAuth, Route
from machpay_gateway.core.errors import ConfigurationError
from machpay_gateway.core.network.client_certificate import certificate_fields
from machpay_gateway.server import control_plane, served_routes
from tests.certificates import Authority, IssuedFiles
from tests.forward_auth.check_client import PROXY, answer_to
from tests.serving.processes import Served, served
from tests.serving.test_lifecycle import until

CURL = shutil.which("curl")
pytestmark = pytest.mark.xdist_group("client certificates")

ROUTES = """
[[routes]]
match = "GET /public/certified/{rest:path}"
public = true
client_certificate = "required"

[[routes]]
match = "GET /v1/certified/{rest:path}"
scopes = "skills:execute"
client_certificate = "required"
"""
FORGED = "X-MachPay-Certificate-Subject: CN=forged\r\nX_MachPay_Certificate_San: DNS:forged\r\n"


@dataclass(frozen=True)
class Certified:
    """A gateway that takes client certificates. *strict* is the port of a listener that requires them."""

    gateway: Served
    authority: Authority
    client: IssuedFiles
    strict: int
    folder: Path

    def context(self, files: IssuedFiles | None = None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.authority.path))
        if files is not None:
            context.load_cert_chain(files.certificate, files.key)
        return context

    def ask(self, port: int, path: str, files: IssuedFiles | None = None, fields: str = "") -> tuple[int, str]:
        """Return the status and the whole text of the response; 0 when the connection fails."""
        request = f"GET {path} HTTP/1.1\r\nHost: api.test\r\nConnection: close\r\n{fields}\r\n"
        try:
            with (
                socket.create_connection(
                    ("127.0.0.2" if port == self.strict else "127.0.0.1", port), timeout=15
                ) as plain,
                self.context(files).wrap_socket(plain, server_hostname="127.0.0.1") as connection,
            ):
                connection.sendall(request.encode())
                response = b""
                while data := connection.recv(65536):
                    response += data
        except (ssl.SSLError, ConnectionError):
            return 0, ""
        return (int(response.split(b" ", 2)[1]), response.decode()) if response else (0, "")


@pytest.fixture(scope="module")
def certified(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Certified]:
    folder = tmp_path_factory.mktemp("certified")
    authority = Authority(folder)
    server = authority.issue("server", "127.0.0.1", "127.0.0.2")
    client = authority.issue("client", "a.client.test", subject=r"CN=Ada\, Zoë,O=Example", uris=["spiffe://example/a"])
    shutil.copy(authority.path, folder / "clients.pem")
    settings = (
        f'[server]\nlisten = ["127.0.0.1:0", {{ address = "127.0.0.2:0", client_certificate = "required" }}]\n'
        f'tls_certificate = "{server.certificate}"\ntls_key = "{server.key}"\nclient_ca = "{folder / "clients.pem"}"'
    )
    with served(folder, settings=settings, routes=ROUTES, listen=()) as gateway:
        strict = urlsplit(gateway.urls[1]).port or 0
        yield Certified(gateway, authority, client, strict, folder)


def test_an_upstream_gets_the_subject_and_the_names_and_no_forged_ones(certified: Certified) -> None:
    status, text = certified.ask(certified.gateway.port, "/public/head", certified.client, FORGED)
    assert status == 200
    assert "\r\nX-MachPay-Certificate-Subject: CN=Ada\\, Zo%C3%AB,O=Example\r\n" in text
    assert "\r\nX-MachPay-Certificate-San: DNS:a.client.test, URI:spiffe://example/a\r\n" in text
    der = ssl.PEM_cert_to_DER_cert(certified.client.certificate.read_text())
    assert f"\r\nX-MachPay-Certificate-Sha256: {hashlib.sha256(der).hexdigest()}\r\n" in text
    assert "forged" not in text


def test_without_one_there_are_no_such_headers(certified: Certified) -> None:
    status, text = certified.ask(certified.gateway.port, "/public/head", fields=FORGED)
    assert (status, "ertificate" in text) == (200, False)


def test_a_route_requires_one(certified: Certified) -> None:
    port = certified.gateway.port
    status, text = certified.ask(port, "/public/certified/head")
    assert (status, '"code":"client_certificate_required"' in text) == (403, True)
    assert certified.ask(port, "/public/certified/head", certified.client)[0] == 200
    secret = certified.gateway.secret()
    bearer = f"Authorization: Bearer {secret}\r\n"
    assert certified.ask(port, "/v1/certified/head", certified.client, bearer)[0] == 200
    assert certified.ask(port, "/v1/certified/head", None, bearer)[0] == 403
    assert certified.ask(port, "/v1/certified/head", certified.client)[0] == 401
    assert certified.ask(port, "/v1/certified/head")[0] == 401  # strangers learn nothing of the route
    assert certified.ask(port, "/v1/head", None, bearer)[0] == 200


def test_a_listener_requires_one(certified: Certified) -> None:
    assert certified.ask(certified.strict, "/public/head")[0] == 0
    assert certified.ask(certified.strict, "/public/head", certified.client)[0] == 200


def test_one_of_another_authority_or_an_expired_one_fails_the_handshake(certified: Certified) -> None:
    stranger = Authority(certified.folder, "stranger").issue("strange", "a.client.test")
    expired = certified.authority.issue("expired", "a.client.test", days=-1)
    for files in (stranger, expired):
        for port in (certified.gateway.port, certified.strict):
            assert certified.ask(port, "/public/head", files)[0] == 0


def test_authorities_are_loaded_again(certified: Certified) -> None:
    other = Authority(certified.folder, "other")
    files = other.issue("of-other", "b.client.test")
    shutil.copy(other.path, certified.folder / "clients.pem")
    until(lambda: certified.ask(certified.strict, "/public/head", files)[0] == 200)
    assert certified.ask(certified.strict, "/public/head", certified.client)[0] == 0
    shutil.copy(certified.authority.path, certified.folder / "clients.pem")
    until(lambda: certified.ask(certified.strict, "/public/head", certified.client)[0] == 200)


@pytest.mark.skipif(CURL is None and "CI" not in os.environ, reason="curl is not installed")
@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
def test_curl_presents_one(certified: Certified, version: str) -> None:
    files, url = certified.client, f"https://127.0.0.2:{certified.strict}/public/certified/head"
    options = ["--cacert", f"{certified.authority.path}", "--cert", f"{files.certificate}", "--key", f"{files.key}"]
    output = subprocess.run(
        [CURL or "curl", "--silent", version, *options, url], capture_output=True, text=True, check=True
    ).stdout
    assert "X-MachPay-Certificate-San: DNS:a.client.test" in output


@pytest.mark.parametrize(
    "certificate, expected",
    [
        ({"subject": ((("commonName", "a"),), (("organizationName", "b"),))}, "O=b,CN=a"),
        ({"subject": ((("commonName", "a"), ("userId", "u")),)}, "CN=a+UID=u"),
        ({"subject": ((("commonName", 'x,y+"z"'),),)}, 'CN=x\\,y\\+\\"z\\"'),
        ({"subject": ((("commonName", " a "),),)}, "CN=\\ a\\ "),
        ({"subject": ((("commonName", "#a"),),)}, "CN=\\#a"),
        ({"subject": ((("commonName", "a\r\nX-MachPay-Tier: b%"),),)}, "CN=a%0D%0AX-MachPay-Tier: b%25"),
        ({"subject": ((("1.2.3", "a"),),)}, "1.2.3=a"),
        ({}, ""),
    ],
)
def test_subjects_are_written_as_rfc_4514_says(certificate: dict[str, object], expected: str) -> None:
    assert dict(certificate_fields(certificate, b"", "X-"))["X-Certificate-Subject"] == expected


@pytest.mark.parametrize(
    "names, expected",
    [
        ((("DNS", "a"), ("URI", "spiffe://b/c?d=e"), ("email", "a@b")), "DNS:a, URI:spiffe://b/c?d=e, email:a@b"),
        ((("IP Address", "192.0.2.1"), ("DirName", ((("commonName", "a"),),))), "IP:192.0.2.1"),
        ((("DNS", "a, URI:spiffe://admin"),), "DNS:a%2C%20URI:spiffe://admin"),  # one name that looks like two
        ((), None),
    ],
)
def test_a_name_cannot_look_like_two(names: tuple[object, ...], expected: str | None) -> None:
    assert dict(certificate_fields({"subjectAltName": names}, b"", "X-")).get("X-Certificate-San") == expected


async def test_forward_auth_refuses_what_requires_one() -> None:
    routes = [Route("GET /a", public=True, client_certificate="required"), Route("GET /b", public=True)]
    server = {"tls_certificate": "a", "tls_key": "b", "client_ca": "c"}
    async with Gateway(
        database="memory://", routes=routes, trusted_proxies=[PROXY], server=server, own_routes=served_routes
    ) as gateway:
        app = control_plane(gateway)
        refused = await answer_to(app, "GET", b"/authorize/envoy/a", [], PROXY)
        assert (refused.status_code, refused.json()["code"]) == (403, "client_certificate_required")
        assert (await answer_to(app, "GET", b"/authorize/envoy/b", [], PROXY)).status_code == 200


def test_a_middleware_does_not_start_with_a_route_that_requires_one() -> None:
    route = Route("GET /a", client_certificate="required")
    server = {"tls_certificate": "a", "tls_key": "b", "client_ca": "c"}
    with pytest.raises(ConfigurationError, match="is checked by `machpay-gateway serve` alone"):
        MachPayAuth(lambda *_: None, database="memory://", routes=[route], server=server)  # type: ignore[arg-type]
