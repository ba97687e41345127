"""Reports of leaked secrets: their signature, the revocation, and the audit log."""

import base64
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from httpx2 import Response

from machpay_gateway.admin.leaks import KEY_ID, SIGNATURE
from machpay_gateway.core.keys.leak import LeakAction, LeakSettings
from machpay_gateway.server import create_app
from machpay_gateway.services.keys import SecretInspection
from tests.admin.conftest import Api, Caller
from tests.admin.scanner import KEY, scanners_keys
from tests.applications import ok
from tests.gateways import Guarded
from tests.redises.ports import free_port

WHERE = "https://github.com/octocat/hello/blob/main/settings.py"


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    return scanners_keys(tmp_path)


@dataclass(frozen=True)
class Scanned:
    """A gateway that accepts reports."""

    api: Api
    admin: Caller

    async def report(
        self, *secrets: str, url: str = WHERE, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Response:
        items = [{"token": secret, "type": "machpay_key", "url": url, "source": "content"} for secret in secrets]
        sent = orjson.dumps(items) if body is None else body
        signed = {
            "Content-Type": "application/json",
            "Github-Public-Key-Identifier": "k1",
            "Github-Public-Key-Signature": base64.b64encode(KEY.sign(sent, ec.ECDSA(hashes.SHA256()))).decode(),
        }
        return await self.api.client(None).post("/v1/leaks", content=sent, headers=signed | dict(headers or {}))

    async def status(self, key_id: str) -> str:
        return str((await self.admin.ask("GET", f"/v1/keys/{key_id}")).json()["status"])

    async def log(self) -> list[dict[str, Any]]:
        entries: list[dict[str, Any]] = (await self.admin.ask("GET", "/v1/audit-log")).json()["data"]
        return entries


@pytest.fixture
def action() -> LeakAction:
    return "revoke"


@pytest.fixture
async def scanned(keys: Path, database: str, action: LeakAction) -> AsyncIterator[Scanned]:
    app = create_app(ok, database=database, leaks=LeakSettings(str(keys), action=action))
    async with app.gateway:
        api = Api(Guarded(app, app.gateway))
        yield Scanned(api, await api.caller())
        for client in api.opened:
            await client.aclose()


async def test_a_leaked_key_is_revoked_and_the_audit_log_has_the_location(
    scanned: Scanned, caplog: pytest.LogCaptureFixture
) -> None:
    key = await scanned.admin.created()
    response = await scanned.report(key["secret"])
    assert response.status_code == 200
    assert [feedback["label"] for feedback in response.json()] == ["true_positive"]
    assert key["secret"] not in response.text + caplog.text
    assert await scanned.status(key["id"]) == "revoked"
    ended, leaked = (await scanned.log())[:2]
    assert (ended["action"], ended["actor"]["kind"], ended["actor"]["id"]) == ("key.revoke", "scanner", "k1")
    assert leaked["action"] == "key.leaked"
    assert leaked["after"] == {"url": WHERE, "source": "content", "secret": "current"}


async def test_of_a_rotated_key_only_the_secret_that_leaked_ends(scanned: Scanned) -> None:
    key = await scanned.admin.created()
    rotated = (await scanned.admin.ask("POST", f"/v1/keys/{key['id']}/rotate")).json()
    await scanned.report(key["secret"])
    assert await scanned.status(key["id"]) == "active"
    new, old = (Caller(scanned.api, key["id"], secret) for secret in (rotated["secret"], key["secret"]))
    assert (await new.ask("GET", "/v1/whoami")).status_code == 200
    assert (await old.ask("GET", "/v1/whoami")).status_code == 401


def rotate_after_look_up(
    scanned: Scanned, key: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> list[dict[str, Any]]:
    """Rotate *key* right after the look-up of a reported secret. Return a list that gets the response."""
    keyring, rotated = scanned.api.gateway.keys, list[dict[str, Any]]()
    inspect = keyring.inspect

    async def inspected(secret: str) -> SecretInspection:
        leaked = await inspect(secret)
        if not rotated:
            rotated.append((await scanned.admin.ask("POST", f"/v1/keys/{key['id']}/rotate")).json())
        return leaked

    monkeypatch.setattr(keyring, "inspect", inspected)
    return rotated


async def test_a_rotation_during_a_report_saves_the_key(scanned: Scanned, monkeypatch: pytest.MonkeyPatch) -> None:
    # The owner may be informed of the leak at the same time as the gateway.
    key = await scanned.admin.created()
    rotated = rotate_after_look_up(scanned, key, monkeypatch)
    assert (await scanned.report(key["secret"])).status_code == 200
    new, old = (Caller(scanned.api, key["id"], secret) for secret in (rotated[0]["secret"], key["secret"]))
    assert (await new.ask("GET", "/v1/whoami")).status_code == 200
    assert (await old.ask("GET", "/v1/whoami")).status_code == 401


async def test_a_rotation_during_the_revocation_of_the_previous_secret_spares_the_new_one(
    scanned: Scanned, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = await scanned.admin.created()
    second = (await scanned.admin.ask("POST", f"/v1/keys/{key['id']}/rotate")).json()
    rotated = rotate_after_look_up(scanned, key, monkeypatch)
    assert (await scanned.report(key["secret"])).status_code == 200
    for secret in (second["secret"], rotated[0]["secret"]):
        assert (await Caller(scanned.api, key["id"], secret).ask("GET", "/v1/whoami")).status_code == 200


async def test_an_unknown_secret_is_a_false_positive_and_changes_nothing(scanned: Scanned) -> None:
    before = await scanned.log()
    response = await scanned.report("sk_live_" + "x" * 30, "", "ghp_" + "y" * 36)
    assert [feedback["label"] for feedback in response.json()] == ["false_positive"] * 3
    assert await scanned.log() == before


async def test_a_repeated_report_is_logged_once(scanned: Scanned) -> None:
    key = await scanned.admin.created()
    assert [(await scanned.report(key["secret"])).status_code for _ in range(3)] == [200] * 3
    assert [entry["action"] for entry in await scanned.log()].count("key.leaked") == 1


@pytest.mark.parametrize("action", ["alert"])
async def test_an_alert_revokes_nothing(scanned: Scanned, caplog: pytest.LogCaptureFixture) -> None:
    key = await scanned.admin.created()
    await scanned.report(key["secret"])
    assert await scanned.status(key["id"]) == "active"
    for _ in range(3):
        await scanned.report(key["secret"])
    assert [entry["action"] for entry in await scanned.log()].count("key.leaked") == 1
    assert f"a secret of key {key['id']} was found in public" in caplog.text


async def test_a_leak_of_a_revoked_key_changes_nothing(scanned: Scanned) -> None:
    key = await scanned.admin.created()
    await scanned.admin.ask("POST", f"/v1/keys/{key['id']}/revoke")
    before = await scanned.api.head()
    response = await scanned.report(key["secret"])
    assert [feedback["label"] for feedback in response.json()] == ["true_positive"]
    assert await scanned.api.head() == before


@pytest.mark.parametrize("action", ["alert"])
async def test_each_location_of_a_leak_is_logged(scanned: Scanned) -> None:
    key = await scanned.admin.created()
    urls = [WHERE, "https://github.com/octocat/fork/blob/main/settings.py"]
    for url in urls * 2:
        await scanned.report(key["secret"], url=url)
    logged = [entry["after"]["url"] for entry in await scanned.log() if entry["action"] == "key.leaked"]
    assert logged == urls[::-1]


@pytest.mark.parametrize(
    "headers",
    [
        {"Github-Public-Key-Identifier": "k2"},
        {"Github-Public-Key-Identifier": ""},
        {"Github-Public-Key-Signature": ""},
        {"Github-Public-Key-Signature": base64.b64encode(KEY.sign(b"[]", ec.ECDSA(hashes.SHA256()))).decode()},
    ],
)
async def test_an_unsigned_report_revokes_nothing(scanned: Scanned, headers: dict[str, str]) -> None:
    key = await scanned.admin.created()
    response = await scanned.report(key["secret"], headers=headers)
    assert (response.status_code, response.json()["code"]) == (403, "not_permitted")
    assert await scanned.status(key["id"]) == "active"


@pytest.mark.parametrize(
    "key_id, signature, expected",
    [
        (None, None, 403),
        ("k1", None, 403),
        (None, "good", 403),
        ("", "good", 403),
        ("k1", "", 403),
        ("k1", "?", 403),  # not base64
        ("k1", "bm8=", 403),  # not DER
        ("k1", base64.b64encode(encode_dss_signature(0, 1)).decode(), 403),
        ("k1", base64.b64encode(encode_dss_signature(1, 1 << 256)).decode(), 403),
        ("k1", "good", 503),  # only the keys could tell
    ],
)
async def test_while_the_scanners_keys_cannot_be_fetched_only_what_they_could_verify_is_unavailable(
    database: str, key_id: str | None, signature: str | None, expected: int
) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}/keys"
    app = create_app(ok, database=database, leaks=LeakSettings(nowhere))
    if signature == "good":
        signature = base64.b64encode(KEY.sign(b"[]", ec.ECDSA(hashes.SHA256()))).decode()
    sent = {KEY_ID: key_id, SIGNATURE: signature}
    headers = {name: value for name, value in sent.items() if value is not None} | {"Content-Type": "application/json"}
    async with app.gateway:
        client = Api(Guarded(app, app.gateway)).client(None)
        response = await client.post("/v1/leaks", content=b"[]", headers=headers)
        await client.aclose()
    assert response.status_code == expected
    assert response.json()["code"] == ("not_permitted" if expected == 403 else "unavailable")


@pytest.mark.parametrize(
    "body, headers, code",
    [
        (b"{}", {}, "malformed_body"),
        (b"[", {}, "malformed_body"),
        (b'[{"token":1}]', {}, "malformed_body"),
        (b"[]" + b" " * 1_048_576, {}, "body_too_large"),
        (b"[" + b"{}," * 5000 + b"{}]", {}, "body_too_large"),
        (b"[]", {"Content-Type": "text/plain"}, "unsupported_media_type"),
    ],
)
async def test_a_malformed_report_is_refused(scanned: Scanned, body: bytes, headers: dict[str, str], code: str) -> None:
    assert (await scanned.report(body=body, headers=headers)).json()["code"] == code


async def test_it_is_described_where_a_scanner_is_configured(scanned: Scanned, api: Api) -> None:
    for served, is_there in ((scanned.api, True), (api, False)):
        described = (await served.client(None).get("/v1/openapi.json")).json()["paths"]
        assert ("/v1/leaks" in described) is is_there


async def test_without_a_configured_scanner_the_path_is_not_found(api: Api, admin: Caller) -> None:
    assert (await Scanned(api, admin).report(admin.secret)).status_code == 404
    assert (await admin.ask("GET", "/v1/whoami")).status_code == 200
