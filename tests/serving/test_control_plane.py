"""The control plane behind the proxy, and what operators ask."""

import asyncio
import http.client
import json
import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.proxy.harness import Upstream, fields_of, proxied, request, status_of
from tests.redises.faults import FaultProxy
from tests.redises.tls import write_certificates
from tests.serving.processes import Served, served
from tests.serving.test_lifecycle import until
from tests.serving.test_stopping import ready

ASKED = {"X_Forwarded_Method": "POST", "X_Forwarded_Uri": "/v1/x", "X_Forwarded_For": "203.0.113.9"}
# Each start takes two seconds of a processor, so that what can be asked of one gateway is.
together = pytest.mark.xdist_group("control plane")


@pytest.fixture(scope="module")
def trusting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A gateway whose callers may say for whom they call."""
    folder, settings = tmp_path_factory.mktemp("trusting"), 'trusted_proxies = ["127.0.0.1"]\n'
    with served(folder, settings=settings, management="127.0.0.1:0") as gateway:
        yield gateway


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, ssl.SSLContext]]:
    """A control plane alone, and what its callers verify it by; they are soon taken for gone."""
    folder = tmp_path_factory.mktemp("alone")
    ca_path, settings = tls_settings(folder)
    with served(folder, settings=f'{settings}\ncontrol_plane = "only"\nkeepalive_seconds = 1') as gateway:
        yield gateway, ssl.create_default_context(cafile=str(ca_path))


def call(
    gateway: Served, method: str, path: str, secret: str = "", body: object = None, **fields: str
) -> tuple[int, dict[str, str], Any]:
    headers = {name.replace("_", "-"): value for name, value in fields.items()}
    if secret:
        headers["Authorization"] = f"Bearer {secret}"
    if body is not None:
        headers["Content-Type"] = "application/json"
    with closing(http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=15)) as connection:
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        answer = connection.getresponse()
        content = answer.read()
        response_fields = {name.lower(): value for name, value in answer.getheaders()}
        return (
            answer.status,
            response_fields,
            json.loads(content) if "json" in response_fields.get("content-type", "") else content,
        )


def logged(gateway: Served, request_id: str) -> dict[str, Any]:
    """Return the line of the access log about the request with that id."""
    log = gateway.folder / "access.log"

    def lines() -> list[dict[str, Any]]:
        written = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
        return [line for line in written if line["request_id"] == request_id]

    until(lambda: len(lines()) == 1)
    return lines()[0]


@together
@pytest.mark.parametrize(
    "method, path, scopes, status, outcome, route",
    [
        ("GET", "/v1/whoami", None, 401, "missing_credentials", "GET /v1/whoami"),
        ("GET", "/v1/whoami", ["skills:execute"], 200, "allowed", "GET /v1/whoami"),
        ("GET", "/v1/keys", ["skills:execute"], 403, "insufficient_scope", "GET /v1/keys"),
        ("GET", "/v1/whoami//", ["skills:execute"], 400, "malformed_request", None),
    ],
)
def test_the_access_log_says_how_the_control_plane_decided(  # noqa: PLR0917 - a row
    trusting: Served, method: str, path: str, scopes: list[str] | None, status: int, outcome: str, route: str | None
) -> None:
    key, secret = (None, "") if scopes is None else trusting.key(scopes=scopes)
    answered, fields, _ = call(trusting, method, path, secret)
    line = logged(trusting, fields["x-request-id"])
    assert answered == line["status"] == status
    assert (line["outcome"], line.get("route")) == (outcome, route)
    assert line.get("key") == (key if route is not None else None)


@together
@pytest.mark.parametrize(
    "uri, status, outcome, route",
    [
        ("/v1/x", 200, "allowed", "* /v1/{rest:path}"),
        ("/v1//x", 400, "malformed_request", None),
        ("/nowhere", 404, "route_not_found", None),
    ],
)
def test_the_access_log_says_how_a_check_request_was_decided(
    trusting: Served, uri: str, status: int, outcome: str, route: str | None
) -> None:
    key, secret = trusting.key()
    fields = {**ASKED, "X_Forwarded_Uri": uri}
    answered, response_fields, _ = call(trusting, "GET", "/authorize/traefik", secret, None, **fields)
    line = logged(trusting, response_fields["x-request-id"])
    assert answered == line["status"] == status
    assert (line["outcome"], line.get("route"), line.get("key")) == (outcome, route, key if route else None)
    assert (line["method"], line["address"]) == ("POST", "203.0.113.9")


@together
def test_callers_cannot_name_a_request_of_another_caller(trusting: Served) -> None:
    """The name by which the control plane notes its decision is the proxy's own."""
    for number in range(1, 200, 20):
        status, fields, _ = call(trusting, "GET", "/v1/whoami", X_MachPay_Request=str(number))
        assert (status, logged(trusting, fields["x-request-id"])["outcome"]) == (401, "missing_credentials")


@together
def test_the_key_api_is_there_by_its_paths_and_sees_the_client(trusting: Served) -> None:
    admin = trusting.secret(scopes=["keys:manage", "skills:execute"])
    created = {"name": "from there", "scopes": ["skills:execute"], "allowed_ips": ["203.0.113.0/24"]}
    status, _, key = call(trusting, "POST", "/v1/keys", admin, created)
    assert status == 201

    def whoami(client: str) -> tuple[int, dict[str, str], Any]:
        return call(trusting, "GET", "/v1/whoami", key["secret"], X_Forwarded_For=client)

    assert whoami("203.0.113.9")[0] == 200
    status, response_fields, problem = whoami("198.51.100.1")
    assert (status, problem["code"]) == (403, "address_not_allowed")
    assert response_fields["x-request-id"] == problem["request_id"]
    assert whoami("203.0.113.9, 198.51.100.1")[0] == 403  # the leftmost is the client's own claim

    assert call(trusting, "POST", f"/v1/keys/{key['id']}/revoke", admin, {})[0] == 200
    assert whoami("203.0.113.9")[0] == 401
    assert call(trusting, "GET", "/.well-known/jwks.json")[2] == {"keys": []}


def test_off_it_is_not_there(tmp_path: Path) -> None:
    route = '[[routes]]\nmatch = "GET /v1/keys"\npublic = true\n'
    with served(tmp_path, settings='[server]\ncontrol_plane = "off"', routes=route) as gateway:
        assert call(gateway, "GET", "/v1/keys")[0] == 200
        assert call(gateway, "GET", "/public/x")[0] == 200


@together
def test_alone_it_speaks_tls_there_is_nothing_else_and_who_is_quiet_is_let_go(
    alone: tuple[Served, ssl.SSLContext],
) -> None:
    gateway, context = alone
    with (
        socket.create_connection(("127.0.0.1", gateway.port)) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as connection,
    ):
        for path, expected in (("/v1/keys", 401), ("/public/x", 404), ("/.well-known/jwks.json", 200)):
            connection.sendall(request("GET", path))
            answer = b""
            while not answer.endswith(b"}"):
                answer += connection.recv(65536)
            assert status_of(answer) == expected
        connection.settimeout(4)  # uvicorn itself would wait for 5 s
        assert connection.recv(65536) == b""


@pytest.mark.xdist_group("replacing")
def test_a_change_by_one_worker_holds_on_the_others(several: Served) -> None:
    admin = several.secret(scopes=["keys:manage", "skills:execute"])
    _, _, key = call(several, "POST", "/v1/keys", admin, {"name": "n", "scopes": ["skills:execute"]})
    for _ in range(20):  # until every worker has it in its cache
        assert call(several, "GET", "/v1/x", key["secret"])[0] == 200
    assert call(several, "POST", f"/v1/keys/{key['id']}/revoke", admin, {})[0] == 200
    assert {call(several, "GET", "/v1/x", key["secret"])[0] for _ in range(20)} == {401}


@together
def test_other_proxies_ask_through_ours(trusting: Served) -> None:
    secret = trusting.secret()
    status, response_fields, _ = call(trusting, "GET", "/authorize/traefik", secret, **ASKED)
    assert (status, response_fields["x-machpay-environment"]) == (200, "live")
    assert call(trusting, "GET", "/authorize/traefik", **ASKED)[0] == 401
    assert call(trusting, "GET", "/authorize/envoy/v1/x", secret, X_Forwarded_For="203.0.113.9")[0] == 200


def test_nobody_asks_where_nobody_is_trusted_whatever_is_claimed_of_a_peer(tmp_path: Path) -> None:
    with served(tmp_path) as gateway:
        claimed = ASKED | {"X_MachPay_Peer": "10.0.0.1"}
        assert call(gateway, "GET", "/authorize/traefik", gateway.secret(), **claimed)[0] == 404


async def test_callers_may_speak_tls_and_the_upstream_is_told(tmp_path: Path) -> None:
    ca_path, settings = tls_settings(tmp_path)
    async with Upstream() as upstream:
        environ = {"MACHPAY_UPSTREAMS__LIVE": f"http://127.0.0.1:{upstream.port}"}
        with served(tmp_path, settings=settings, environ=environ) as gateway:
            context = ssl.create_default_context(cafile=str(ca_path))
            reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port, ssl=context)
            writer.write(request())
            assert status_of(await reader.readuntil(b"\r\n\r\n")) == 200
            writer.close()
    assert fields_of(upstream.heads[0])["x-forwarded-proto"] == ["https"]


def tls_settings(folder: Path) -> tuple[Path, str]:
    """Return the path of an authority's certificate, and settings with a certificate of the authority."""
    ca_path, chain_path = write_certificates(folder)
    return ca_path, f'[server]\ntls_certificate = "{chain_path}"\ntls_key = "{chain_path}"'


async def test_each_environment_has_an_upstream_of_its_own() -> None:
    async with Upstream() as live, Upstream() as sandbox:
        urls = {"live": f"http://127.0.0.1:{live.port}", "sandbox": f"http://127.0.0.1:{sandbox.port}"}
        async with proxied(upstreams=urls) as rig, rig.client() as client:
            for environment in ("live", "test", "test"):
                await client.send(request("GET", "/v1/x", secret=await rig.secret(environment=environment)))
                assert (await client.answer())[0] == 200
            await client.send(request())
            await client.answer()
            assert (len(live.heads), len(sandbox.heads)) == (2, 2)  # what is public goes to the live one
        async with proxied(upstreams={"live": urls["live"]}) as rig, rig.client() as client:
            await client.send(request("GET", "/v1/x", secret=await rig.secret(environment="test")))
            status, _, body = await client.answer()
            assert (status, b'"wrong_environment"' in body) == (403, True)


@together
def test_operators_are_answered_on_an_address_of_their_own(trusting: Served) -> None:
    assert trusting.management is not None
    for path, status in (("/healthz", 200), ("/readyz", 200), ("/public/x", 404)):
        try:
            with urllib.request.urlopen(trusting.management + path) as answer:  # noqa: S310 - our own
                assert (answer.status, json.loads(answer.read())["status"] in {"alive", "ready"}) == (status, True)
        except urllib.error.HTTPError as exc:
            assert exc.code == status  # noqa: PT017 - which is how urllib tells it


def test_operators_are_told_when_the_key_store_is_away_and_when_it_is_back(tmp_path: Path, postgres_url: str) -> None:
    port = urlsplit(postgres_url).port
    assert port is not None
    with FaultProxy(port) as database:
        environ = {"MACHPAY_DATABASE": postgres_url.replace(f":{port}/", f":{database.port}/")}
        with served(tmp_path, management="127.0.0.1:0", environ=environ) as gateway:
            readiness = f"{gateway.management}/readyz"
            assert ready(readiness)[0] == 200
            database.refuse()
            database.reset_all()
            status, checks = ready(readiness)
            assert (status, checks["serving"], checks["limiter"]) == (200, "ok", "ok")  # public routes are served
            assert checks["key store"].startswith("degraded: The database did not answer")
            database.accept()
            until(lambda: ready(readiness)[1]["key store"] == "ok")
