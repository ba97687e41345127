"""Who may do nothing on pages: viewers, other sites, links, names that mean harm; and what a lost database shows."""

from html import escape

import pytest
from httpx2 import AsyncClient, Response

from machpay_gateway.core.errors import StoreUnavailable
from machpay_gateway.web.browser import proof_of
from tests.console.rigs import FORM, STRANGER, VIEWER, Rig, Sent, forms_of, submitted

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>&{{7*7}}\u202e"[:100]
NEW = "/console/keys/new"


async def created(browser: AsyncClient, **fields: Sent) -> Response:
    given: dict[str, Sent] = {"name": "production-api", "scopes": ["skills:list", "skills:execute"]}
    return await submitted(browser, await browser.get(NEW), NEW, **(given | fields))


def _proof(browser: AsyncClient, path: str) -> str:
    """Return the proof that a page of ours would give this browser for a form that goes to *path*."""
    return proof_of(browser.cookies["__Host-machpay-session"], path, b"")


async def call(rig: Rig, secret: str, address: str = "192.0.2.1") -> int:
    headers = {"Authorization": f"Bearer {secret}"}
    return (await rig.http(address).get("/v1/skills", headers=headers)).status_code


async def test_a_viewer_sees_all_and_changes_nothing(rig: Rig) -> None:
    record, secret = await rig.key()
    admin, viewer = await rig.signed_in(), await rig.signed_in(VIEWER)
    for path in ("/console/keys", NEW, f"/console/keys/{record.id}", f"/console/keys/{record.id}/revoke"):
        page = await viewer.get(path)
        assert page.status_code == 200
        assert set(forms_of(page)) <= {"/console/sign-out", "/console/keys"}  # the latter is the search
    before = await rig.gateway.store.audit_head()
    # What an admin's browser would send, with a proof of the viewer's own.
    for path in ("", "/rotate", "/end-grace", "/revoke"):
        address = f"/console/keys/{record.id}{path}"
        body = f"proof={_proof(viewer, address.removeprefix('/console'))}&typed=production-api&grace=0&name=x&version=1"
        answer = await viewer.post(address, content=body, headers=FORM)
        assert answer.status_code == 403
        assert "Only admins" in answer.text
    body = f"proof={_proof(viewer, '/keys/new')}&name=x&environment=live&scopes=keys:manage"
    assert (await viewer.post(NEW, content=body, headers=FORM)).status_code == 403
    assert await rig.gateway.store.audit_head() == before
    assert await call(rig, secret) == 200
    assert (await admin.get(NEW)).status_code == 200


async def test_an_admin_who_becomes_a_viewer_has_to_sign_in_and_changes_nothing(rig: Rig) -> None:
    browser = await rig.signed_in()
    page = await browser.get(NEW)
    await rig.gateway.users.set_role(rig.users["ada@example.org"], "viewer")
    answer = await submitted(browser, page, NEW, name="x", scopes=["skills:list"])
    assert answer.status_code == 303
    again = await rig.signed_in()
    assert (await again.get("/console/keys")).status_code == 200
    assert list(await rig.gateway.keyring.list(rig.account.id)) == []


@pytest.mark.parametrize(
    "headers, forge",
    [
        ({"Sec-Fetch-Site": "cross-site"}, None),
        ({"Sec-Fetch-Site": "same-site"}, None),
        ({}, ""),
        ({}, "0" * 64),
        ({}, "other page"),
        ({}, "other browser"),
        ({"Content-Type": "text/plain"}, None),
        ({"Content-Type": "application/json"}, None),
        ({"Content-Type": "multipart/form-data; boundary=x"}, None),
    ],
    ids=str,
)
async def test_no_other_site_can_change_anything(rig: Rig, headers: dict[str, str], forge: str | None) -> None:
    record, secret = await rig.key()
    browser = await rig.signed_in()
    path = f"/console/keys/{record.id}/revoke"
    proof = dict(forms_of(await browser.get(path))[path])["proof"]
    match forge:
        case "other page":
            proof = _proof(browser, "/keys/new")
        case "other browser":
            proof = _proof(await rig.signed_in(STRANGER), path.removeprefix("/console"))
        case str():
            proof = forge
    answer = await browser.post(path, content=f"proof={proof}&typed=production-api", headers=FORM | headers)
    assert answer.status_code == 403
    assert "opened by another site" in answer.text
    assert await call(rig, secret) == 200


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"])
async def test_nothing_is_changed_by_following_a_link(rig: Rig, method: str) -> None:
    record, secret = await rig.key()
    browser = await rig.signed_in()
    before = await rig.gateway.store.audit_head()
    for path in ("", "/rotate", "/end-grace", "/revoke"):
        await browser.request(method, f"/console/keys/{record.id}{path}?typed=production-api&grace=0")
    assert await rig.gateway.store.audit_head() == before
    assert await call(rig, secret) == 200


async def test_hostile_names_are_text(rig: Rig) -> None:
    hostile = HOSTILE.replace("\u202e", "")
    record, _ = await rig.gateway.keyring.create(
        rig.account.id, name=hostile, scopes=["skills:list"], environment="live", metadata={hostile[:40]: hostile}
    )
    browser = await rig.signed_in()
    for path in ("/console/keys", f"/console/keys/{record.id}", f"/console/keys/{record.id}/revoke"):
        page = await browser.get(path)
        assert hostile not in page.text
        assert escape(hostile).replace("&quot;", "&#34;").replace("&#x27;", "&#39;") in page.text
        assert "<img" not in page.text
    searched = await browser.get("/console/keys", params={"search": '"><script>alert(1)</script>'})
    assert "<script>alert" not in searched.text


async def test_while_the_store_is_away_pages_say_so(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    browser = await rig.signed_in()

    async def away(*_: object, **__: object) -> None:
        raise StoreUnavailable("keys")

    monkeypatch.setattr(rig.gateway.store, "keys", away)
    page = await browser.get("/console/keys")
    assert page.status_code == 503
    assert "Try again in a moment" in page.text
    oauth = rig.gateway.store.oauth
    assert oauth is not None
    monkeypatch.setattr(oauth, "signed_in", away)
    assert (await browser.get("/console/keys/new")).status_code == 503
