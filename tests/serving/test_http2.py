"""HTTP/2 to a served gateway: curl and Node.js, over TLS and with prior knowledge, and an upstream over TLS."""

import json
import os
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.certificates import Authority
from tests.serving.processes import Served, served

pytestmark = pytest.mark.xdist_group("tls")

CURL, NODE = shutil.which("curl"), shutil.which("node")
_IN_CI = "CI" in os.environ
_NODE_CLIENT = """
const http2 = require("node:http2"), fs = require("node:fs");
const [url, ca] = process.argv.slice(2);
const session = http2.connect(url, { ca: fs.readFileSync(ca) });
const fetch = (number) => new Promise((resolve, reject) => {
  const path = number % 2 ? "/public/head" : "/public/down?" + number * 1000;
  const stream = session.request({ ":path": path, "x-number": `${number}` });
  let status, body = "";
  stream.on("response", (headers) => { status = headers[":status"]; });
  stream.on("data", (piece) => { body += piece; });
  stream.on("end", () => {
    resolve([status, number % 2 ? body.includes(`x-number: ${number}\\r\\n`) : body.length === number * 1000]);
  });
  stream.on("error", reject);
  stream.end();
});
Promise.all(Array.from({ length: 100 }, (_, number) => fetch(number))).then((results) => {
  console.log(JSON.stringify(results));
  session.close();
});
"""


@dataclass(frozen=True)
class Secure:
    gateway: Served
    authority: Authority

    @property
    def plain(self) -> str:
        """The URL of the listener without TLS."""
        return next(url for url in self.gateway.urls if url.startswith("http://"))


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secure]:
    folder = tmp_path_factory.mktemp("http2")
    authority = Authority(folder)
    files = authority.issue("server", "127.0.0.1")
    settings = (
        '[server]\nlisten = ["127.0.0.1:0", { address = "127.0.0.2:0", tls = false }]\n'
        f'tls_certificate = "{files.certificate}"\ntls_key = "{files.key}"\n'
    )
    with served(folder, settings=settings, listen=(), management="127.0.0.1:0") as gateway:
        yield Secure(gateway, authority)


def curl(*arguments: str) -> tuple[str, str]:
    """Return the version and status of the response, and its body."""
    command = [CURL or "curl", "--silent", "--write-out", "\n%{http_version} %{http_code}", *arguments]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    body, _, version = output.rpartition("\n")
    return version, body


@pytest.mark.skipif(CURL is None and not _IN_CI, reason="curl is not installed")
def test_curl_agrees_on_it_or_knows_before(secure: Secure) -> None:
    ca, url = str(secure.authority.path), f"https://127.0.0.1:{secure.gateway.port}"
    assert curl("--cacert", ca, "--http2", f"{url}/public/head")[0] == "2 200"
    assert curl("--cacert", ca, "--http1.1", f"{url}/public/head")[0] == "1.1 200"
    assert curl("--http2-prior-knowledge", f"{secure.plain}/public/head")[0] == "2 200"
    assert curl("--http2", f"{secure.plain}/public/head")[0] == "1.1 200"  # its Upgrade to h2c is ignored
    version, body = curl("--cacert", ca, "--http2", f"{url}/v1/whoami")  # of the control plane
    assert (version, json.loads(body)["code"]) == ("2 401", "missing_credentials")
    secret = secure.gateway.secret()
    version, body = curl("--cacert", ca, "--http2", "-H", f"Authorization: Bearer {secret}", f"{url}/v1/whoami")
    assert version == "2 200"


@pytest.mark.skipif(NODE is None and not _IN_CI, reason="Node.js is not installed")
def test_node_sends_many_requests_at_once(secure: Secure, tmp_path: Path) -> None:
    script = tmp_path / "client.js"
    script.write_text(_NODE_CLIENT)
    url, ca = f"https://127.0.0.1:{secure.gateway.port}", str(secure.authority.path)
    command = [NODE or "node", str(script), url, ca]
    output = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout
    assert json.loads(output) == [[200, True]] * 100


def test_the_handshake_offers_what_is_on(secure: Secure, tmp_path: Path) -> None:
    context = ssl.create_default_context(cafile=str(secure.authority.path))
    context.set_alpn_protocols(["h2", "http/1.1"])
    with (
        socket.create_connection(("127.0.0.1", secure.gateway.port)) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as connection,
    ):
        assert connection.selected_alpn_protocol() == "h2"
    files = secure.authority.issue("other", "127.0.0.1")
    settings = f'[server]\nhttp2 = false\ntls_certificate = "{files.certificate}"\ntls_key = "{files.key}"\n'
    with (
        served(tmp_path, settings=settings) as gateway,
        socket.create_connection(("127.0.0.1", gateway.port)) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as connection,
    ):
        assert connection.selected_alpn_protocol() == "http/1.1"
