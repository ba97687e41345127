"""What was refused, and whatever else went wrong: no secret that was presented stands in any log, file or figure."""

import asyncio
import re
import socket
import sqlite3
from base64 import b64encode
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from urllib.parse import quote

import httpx2
import orjson
import pytest

from machpay_gateway import Gateway
from machpay_gateway.core.decision.reason import Reason
from machpay_gateway.core.oauth.opaque_token import OpaqueTokenKind, mint
from tests.certificates import Authority
from tests.console.harness import forms_of
from tests.oauth.proofs import Prover
from tests.servers import exchange
from tests.serving.processes import Served, served, upstream_port

PASSWORD, WRONG_PASSWORD = "correct horse battery", "wrong horse battery"
EMAIL = "ada@example.org"
SETTINGS = """
trusted_proxies = ["127.0.0.1"]
failure_limit = "5/minute"
checks = ["a_check:refuse"]
[credentials]
headers = ["Authorization", "X-Second"]
[tiers.tiny]
rate = "1/minute"
concurrency = 1
[tiers.narrow]
rate = "1000/minute"
concurrency = 1
[services.small]
live = "{upstream}"
max_in_flight = 1
[server]
listen = [{ address = "127.0.0.1:0", tls = false }]
tls_certificate = "{folder}/server.pem"
tls_key = "{folder}/server.key"
client_ca = "{folder}/authority.pem"
head_seconds = 0.5
log_format = "{log_format}"
[console]
url = "http://localhost:8000"
api_url = "http://127.0.0.1:8000"
[oauth]
issuer = "http://localhost:8000"
audience = "http://127.0.0.1:8000"
"""
CHECK = """
from machpay_gateway import Reason, Refusal

def refuse(facts, route, principal):
    return Refusal(Reason.FORBIDDEN, f"at {facts.path}") if "forbidden" in facts.path else None
"""
ROUTES = """
[[routes]]
match = "GET /certified/{rest:path}"
client_certificate = "required"

[[routes]]
match = "GET /small/{rest:path}"
service = "small"

[[routes]]
match = "GET /live/{rest:path}"
environments = ["live"]

[[routes]]
match = "* /hasty/{rest:path}"
proxy = { first_byte_seconds = 0.5, max_body_bytes = 1000 }
"""
AT_PAGES = {"Host": "localhost:8000"}
_NUMBERS = count(1)


@dataclass
class Visitor:
    """Somebody who puts *secrets* wherever they do not belong, and keeps what is told."""

    gateway: Served
    secrets: list[str] = field(default_factory=list)
    responses: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.gateway.port}"

    def ask(
        self, method: str, path: str, secret: str = "", *, address: str = "", **arguments: object
    ) -> httpx2.Response:
        """Send a request with *secret*, from *address* or a new one, with more secrets in its fields."""
        litter = self.secrets[:6]
        headers = {
            "X-Forwarded-For": address or f"198.51.{next(_NUMBERS) >> 8}.{next(_NUMBERS) & 255}",
            "X-Api-Key": litter[0], "Cookie": f"a={litter[1]}; b={litter[2]}", "Referer": f"http://x/?t={litter[3]}",
            "User-Agent": f"curl {litter[4]}",
        } | ({"Authorization": f"Bearer {secret}"} if secret else {})  # fmt: skip
        headers |= arguments.pop("headers", {})  # type: ignore[call-overload]  # a dict of texts
        answer = httpx2.request(method, f"{self.url}{path}", headers=headers, timeout=20, **arguments)  # type: ignore[arg-type]
        self.responses.append(f"{answer.status_code} {answer.headers} {answer.text}")
        return answer

    def send(self, raw: str) -> None:
        """Send what is no request, or hardly one."""
        self.responses.append(exchange(("127.0.0.1", self.gateway.port), raw.encode("latin-1")).decode("latin-1"))


@dataclass(frozen=True)
class Issued:
    """All secrets that somebody may misplace, by what they are of."""

    good: str
    bare: str
    elsewhere: str
    test: str
    tiny: str
    narrow: str
    revoked: str
    admin: str
    unseen: str
    client_id: str
    client_secret: str


async def _issued(folder: Path) -> Issued:
    """Make keys of every kind, a user and an app."""
    async with Gateway(config=folder / "machpay.toml") as gateway:
        owners = {name: await gateway.accounts.create(name, name) for name in ("standard", "tiny", "narrow")}

        async def secret(
            tier: str = "standard", *, environment: str = "live", scopes: str = "skills:execute", ips: str = ""
        ) -> str:
            _, made = await gateway.keys.create(
                owners[tier].id, name="k", scopes=scopes.split(), environment=environment, allowed_ips=ips.split()
            )
            return made

        record, revoked = await gateway.keys.create(
            owners["standard"].id, name="gone", scopes=["skills:execute"], environment="live"
        )
        await gateway.keys.revoke(None, record.id)
        await gateway.users.create(owners["standard"].id, EMAIL, PASSWORD, role="admin")
        app, app_secret = await gateway.oauth_clients.create(
            owners["standard"].id, name="app", scopes=["skills:execute"], grant_types=["client_credentials"]
        )
        return Issued(
            await secret(), await secret(scopes="account:read"), await secret(ips="203.0.113.7"),
            await secret(environment="test"), await secret("tiny"), await secret("narrow"), revoked,
            await secret(scopes="keys:manage skills:execute"), await secret(),
            app.id, app_secret or "",
        )  # fmt: skip


def _refused_for_every_reason(visitor: Visitor, issued: Issued) -> None:
    """Be refused for each reason that there is, with secrets in every part of the request."""
    good, litter = issued.good, visitor.secrets
    in_path, in_query = f"/v1/{good}", f"/v1/x?key={good}&token={litter[5]}"
    visitor.ask("GET", f"/public/{good}?key={good}")  # nothing is wrong with that
    visitor.ask("GET", in_query)
    visitor.ask("GET", f"/v1//{good}", good)
    for wrong in (good[:-1] + ("a" if good[-1] != "a" else "b"), issued.revoked, *litter[5:]):
        visitor.ask("GET", in_query, wrong)
    visitor.ask("GET", f"/v1/forbidden/{good}", good)
    visitor.ask("GET", in_path, good, headers={"X-Second": issued.bare})
    visitor.ask("GET", in_path, issued.bare)
    visitor.ask("GET", in_path, issued.elsewhere)
    visitor.ask("GET", f"/live/{good}", issued.test)
    visitor.ask("GET", in_path, issued.test)  # whose upstream is not there
    visitor.ask("GET", f"/nowhere/{good}", good)
    for _ in range(2):
        visitor.ask("GET", in_path, issued.tiny)
    for _ in range(7):
        visitor.ask("GET", in_path, issued.revoked, address="198.51.100.200")
    visitor.ask("POST", f"/hasty/{good}", good, content=b"x" * 2000)
    visitor.ask("GET", "/hasty/silent", good)
    credential = f"Authorization: Bearer {good}"
    visitor.send(_raw(f"GET {in_path}", credential, credential, "Connection: close"))
    visitor.send(_raw(f"GET {in_path}", credential, f"Content-Length: x{good}"))
    visitor.send(_raw(f"{good} /"))
    visitor.send(_raw(f"POST {in_path}", credential, "Transfer-Encoding: gzip, chunked"))
    visitor.send(_raw(f"GET {in_path}", f"X-Large: {good * 2000}"))
    visitor.send(f"GET {in_path} HTTP/1.1\r\n{credential}\r\nX-Slow: ")  # and no more comes
    visitor.send(f"\x16\x03\x01{good}")
    visitor.send(_raw(f"GET http://u:{good}@a/"))


def _raw(line: str, *fields: str) -> str:
    return "\r\n".join((f"{line} HTTP/1.1", "Host: a", *fields, "", ""))


def _refused_by_a_proof(visitor: Visitor, issued: Issued) -> None:
    prover, thief = Prover(), Prover()
    basic = b64encode(f"{issued.client_id}:{issued.client_secret}".encode()).decode()
    proof = prover.proof("POST", "http://localhost:8000/oauth/token")
    answer = visitor.ask(
        "POST", "/oauth/token", headers={"Authorization": f"Basic {basic}", "DPoP": proof},
        data={"grant_type": "client_credentials"},
    )  # fmt: skip
    token = answer.json()["access_token"]
    visitor.responses.pop()  # the one answer that shows it
    visitor.secrets += [token, proof]
    wrong = thief.proof("GET", "http://127.0.0.1:8000/v1/x", token)
    visitor.secrets.append(wrong)
    visitor.ask("GET", "/v1/x", headers={"Authorization": f"DPoP {token}", "DPoP": wrong})
    visitor.ask("GET", "/v1/x", token)


def _wrong_at_the_control_plane(visitor: Visitor, issued: Issued) -> None:
    """Make the mistakes that there are at the key API, the authorization server and the Console."""
    good, admin = issued.good, issued.admin
    for method, path, body in (
        ("POST", "/v1/keys", {"name": good, "scopes": [good], "allowed_ips": [good], "metadata": {good: good}}),
        ("POST", "/v1/keys", b'{"name": "' + good.encode()),
        ("GET", f"/v1/keys/{good}", None),
        ("GET", f"/v1/keys?after={good}&{good}=1", None),
        ("PUT", f"/v1/keys/{good}", None),
        ("POST", "/v1/sessions", {"scopes": [good]}),
        ("GET", f"/v1/{good}/x/y", None),
    ):
        content = body if isinstance(body, bytes) else orjson.dumps(body)
        headers = {"Content-Type": "application/json", "Idempotency-Key": good, "If-Match": good}
        visitor.ask(method, path, admin, content=content, headers=headers)
    app = {"client_id": issued.client_id, "client_secret": issued.client_secret}
    for fields in (
        {"grant_type": good, "code": visitor.secrets[5]},
        {"grant_type": "authorization_code", "code": visitor.secrets[5], **app},
        {"grant_type": "refresh_token", "refresh_token": visitor.secrets[6], "client_id": good},
        {"grant_type": "client_credentials", "scope": good, **app, "client_secret": visitor.secrets[7]},
    ):
        for path in ("/token", "/revoke", "/introspect", f"/token?client_secret={issued.client_secret}"):
            visitor.ask("POST", f"/oauth{path}", data=fields)
    arguments = f"client_id={good}&state={good}&redirect_uri=http://{good}"
    for headers in (AT_PAGES, {}):
        visitor.ask("GET", f"/oauth/authorize?{arguments}", headers=headers)
    with httpx2.Client(base_url=visitor.url, headers=AT_PAGES) as browser:
        page = browser.get(f"/console/sign-in?next=/{good}")
        proof = dict(next(iter(forms_of(page).values())))["proof"]
        for password, status in ((WRONG_PASSWORD, 400), (PASSWORD, 303)):
            answer = browser.post("/console/sign-in", data={"proof": proof, "email": EMAIL, "password": password})
            assert answer.status_code == status
        visitor.secrets += list(browser.cookies.values())
        for path in (f"/console/keys/{good}", f"/console/{good}", f"/console/keys?search={quote(good)}&after={good}"):
            browser.get(path)
        for path in (f"/console/keys/{good}", "/console/keys/new"):
            visitor.responses.append(browser.post(path, data={"proof": good, "name": good}).text)


@contextmanager
def _without_keys(folder: Path) -> Iterator[None]:
    """Have the key store fail within."""

    def execute(statement: str) -> None:
        with closing(sqlite3.connect(folder / "machpay.db", timeout=10)) as database, database:
            database.execute(statement)

    execute("ALTER TABLE key_secrets RENAME TO gone")
    yield
    execute("ALTER TABLE gone RENAME TO key_secrets")


def _concurrently(visitor: Visitor, secret: str) -> None:
    """Hold the only slot of *secret* by a tunnel, and ask for another one."""
    upgrade = _raw("GET /v1/echo", f"Authorization: Bearer {secret}", "Connection: Upgrade", "Upgrade: websocket")
    with socket.create_connection(("127.0.0.1", visitor.gateway.port), timeout=10) as connection:
        connection.sendall(upgrade.encode())
        assert connection.recv(4096).startswith(b"HTTP/1.1 101")
        assert visitor.ask("GET", f"/v1/{secret}", secret).status_code == 429


def _overloaded(visitor: Visitor, secret: str) -> None:
    """Take the only place at a service by a tunnel, and ask for another one."""
    upgrade = _raw("GET /small/echo", f"Authorization: Bearer {secret}", "Connection: Upgrade", "Upgrade: websocket")
    with socket.create_connection(("127.0.0.1", visitor.gateway.port), timeout=10) as connection:
        connection.sendall(upgrade.encode())
        assert connection.recv(4096).startswith(b"HTTP/1.1 101")
        assert visitor.ask("GET", f"/small/{secret}", secret).status_code == 503


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_no_secret_is_told_by_any_error_path(tmp_path: Path, log_format: str) -> None:
    settings = SETTINGS.replace("{log_format}", log_format).replace("{folder}", str(tmp_path))
    settings = settings.replace("{upstream}", f"http://127.0.0.1:{upstream_port()}")
    Authority(tmp_path).issue("server", "127.0.0.1")
    (tmp_path / "a_check.py").write_text(CHECK)
    nowhere = {"MACHPAY_UPSTREAMS__SANDBOX": "http://127.0.0.1:1"}
    with served(
        tmp_path,
        settings=settings,
        routes=ROUTES,
        management="127.0.0.1:0",
        environ=nowhere,
        listen=(),
        fails_within=True,
    ) as gateway:
        issued = asyncio.run(_issued(tmp_path))
        keys = [value for name, value in vars(issued).items() if name not in ("client_id", "unseen")]
        minted = [mint(kind, bytes([number]) * 32) for number, kind in enumerate(OpaqueTokenKind)]
        visitor = Visitor(gateway, [*keys[:5], *minted, *keys[5:], PASSWORD, WRONG_PASSWORD])
        _refused_for_every_reason(visitor, issued)
        _refused_by_a_proof(visitor, issued)
        _concurrently(visitor, issued.narrow)
        _overloaded(visitor, issued.good)
        assert visitor.ask("GET", f"/certified/{issued.good}", issued.good).status_code == 403
        _wrong_at_the_control_plane(visitor, issued)
        with _without_keys(tmp_path):
            assert visitor.ask("GET", "/v1/x", issued.admin[:-1]).status_code == 401
            visitor.secrets.append(issued.unseen)
            assert visitor.ask("GET", "/v1/x", issued.unseen).status_code == 503
        assert gateway.management is not None
        figures = httpx2.get(f"{gateway.management}/metrics").text + httpx2.get(f"{gateway.management}/readyz").text
    assert "unavailable: key lookup" in gateway.log  # the key store's failure: that is searched, too
    logged = (tmp_path / "access.log").read_text()
    outcomes = set(re.findall(r'"outcome":"(\w+)"', logged))
    assert set(Reason) - outcomes == set()  # nothing was left out
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    for name, content in {path.name: path.read_bytes() for path in files}.items():
        for secret in visitor.secrets:
            assert secret.encode() not in content, (name, secret[:8])
    for secret in visitor.secrets:
        assert secret not in figures
    responses = "\n".join(visitor.responses)
    assert [secret[:8] for secret in visitor.secrets if secret in responses] == []
