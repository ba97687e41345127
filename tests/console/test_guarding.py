"""Access control of pages: viewers, other sites, links, hostile names; and the error page of an outage."""

import re
from collections.abc import AsyncIterator, MutableMapping
from html import escape
from typing import Any
from urllib.parse import urlencode

import pytest
from httpx2 import AsyncClient

from machpay_gateway.core.errors import StoreUnavailable
from machpay_gateway.web.browser import csrf_token
from tests.console.app_records import an_app
from tests.console.crafted import changed_since, posted
from tests.console.harness import ADMIN, API_URL, FORM, PASSWORD, STRANGER, URL, VIEWER, Rig, forms_of, submitted

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>&{{7*7}}\u202e"[:100]
NEW = "/console/keys/new"


def _csrf_token(browser: AsyncClient, path: str) -> str:
    """Return the CSRF token of a form with this *path* in *browser*."""
    return csrf_token(browser.cookies["__Host-machpay-session"], path, b"")


async def call(rig: Rig, secret: str, address: str = "192.0.2.1") -> int:
    headers = {"Authorization": f"Bearer {secret}"}
    return (await rig.http(address, url=API_URL).get("/v1/skills", headers=headers)).status_code


async def test_a_viewer_sees_everything_and_changes_nothing(rig: Rig) -> None:
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
        token = _csrf_token(viewer, address.removeprefix("/console"))
        body = f"proof={token}&typed=production-api&grace=0&name=x&version=1"
        answer = await viewer.post(address, content=body, headers=FORM)
        assert answer.status_code == 403
        assert "Only admins" in answer.text
    body = f"proof={_csrf_token(viewer, '/keys/new')}&name=x&environment=live&scopes=keys:manage"
    assert (await viewer.post(NEW, content=body, headers=FORM)).status_code == 403
    assert await changed_since(rig, before) == []
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
    assert list(await rig.gateway.keys.list(rig.account.id)) == []


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
            proof = _csrf_token(browser, "/keys/new")
        case "other browser":
            proof = _csrf_token(await rig.signed_in(STRANGER), path.removeprefix("/console"))
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
    record, _ = await rig.gateway.keys.create(
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


async def test_hostile_input_is_shown_again_as_text(rig: Rig) -> None:
    """In every form that is shown again with what was typed, and every filter."""
    key, _ = await rig.key()
    app, _ = await an_app(rig)
    browser, visitor = await rig.signed_in(), rig.http()
    sign_in = await visitor.get("/console/sign-in")
    pages = [
        await submitted(visitor, sign_in, email=HOSTILE, password="wrong"),
        await posted(browser, f"/keys/{key.id}/revoke", typed=HOSTILE),
        await posted(browser, f"/apps/{app.id}/delete", typed=HOSTILE),
        await posted(browser, "/keys/new", name=HOSTILE, addresses=HOSTILE, expires=HOSTILE),
        await posted(browser, f"/keys/{key.id}", name=HOSTILE, addresses=HOSTILE, expires=HOSTILE, version=HOSTILE),
        await posted(browser, "/apps/new", name=HOSTILE, redirect_uris=HOSTILE),
        await posted(browser, f"/apps/{app.id}", name=HOSTILE, redirect_uris=HOSTILE, version=HOSTILE),
        *[
            await browser.get("/console/audit", params={name: HOSTILE})
            for name in ("action", "who", "object", "from", "until")
        ],
    ]
    for page in pages:
        assert "<img" not in page.text, page.url
        assert "<script>" not in page.text, page.url
    assert sum("&lt;img" in page.text for page in pages) == len(pages) - 1  # an unknown action is dropped


async def test_a_url_can_choose_a_message_and_never_its_text(rig: Rig) -> None:
    browser = await rig.signed_in()
    assert "Changes saved." in (await browser.get("/console/keys?told=saved")).text
    page = await browser.get("/console/keys?told=Call+0800+for+help")
    assert "0800" not in page.text
    assert 'role="status"' not in page.text


async def test_an_unavailable_store_has_an_error_page(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    browser = await rig.signed_in()

    async def away(*_: object, **__: object) -> None:
        raise StoreUnavailable("keys")

    monkeypatch.setattr(rig.gateway.store, "keys", away)
    page = await browser.get("/console/keys")
    assert page.status_code == 503
    assert "Try again in a moment" in page.text
    oauth = rig.gateway.store
    assert oauth is not None
    monkeypatch.setattr(oauth, "session", away)
    assert (await browser.get("/console/keys/new")).status_code == 503


async def test_a_user_disabled_during_a_slow_upload_changes_nothing(rig: Rig) -> None:
    browser = await rig.signed_in()
    page = await browser.get(NEW)
    fields = [(name, value) for name, value in forms_of(page)[NEW] if name != "name"]
    body = urlencode([*fields, ("name", "late"), ("scopes", "skills:list")]).encode()

    async def slowly() -> AsyncIterator[bytes]:
        yield body[:5]
        await rig.gateway.users.disable(rig.users[ADMIN])
        yield body[5:]

    answer = await browser.post(NEW, content=slowly(), headers=FORM)
    assert answer.status_code == 303
    assert list(await rig.gateway.keys.list(rig.account.id)) == []


async def test_checks_while_typing_are_limited(rig: Rig) -> None:
    browser = await rig.signed_in()
    for path, name, most in (("addresses", "addresses", 1000), ("redirects", "redirect_uris", 20)):
        page = await browser.get(f"/console/{path}", params={name: " ".join(["1"] * 5000)})
        assert page.text.count("<li") == most + 1
        assert f"{5000 - most} too many: the limit is {most}." in page.text


async def test_signing_in_again_ends_the_previous_session(rig: Rig) -> None:
    browser = await rig.signed_in()
    before = rig.http()
    before.cookies.update(dict(browser.cookies))
    fresh = await rig.http().get("/console/sign-in")
    proof, form = dict(next(iter(forms_of(fresh).values())))["proof"], rig.opened[-1].cookies["__Host-machpay-form"]
    browser.cookies.set("__Host-machpay-form", form)
    fields = {"proof": proof, "email": VIEWER, "password": PASSWORD}
    answer = await browser.post("/console/sign-in", content=urlencode(fields), headers=FORM)
    assert answer.status_code == 303
    assert (await before.get("/console/keys")).status_code == 303


async def test_no_websocket_is_accepted_on_the_gateways_public_paths(rig: Rig) -> None:
    for path in ("/console/ws", "/console", "/v1/keys/ws", "/.well-known/jwks.json"):
        scope: dict[str, Any] = {
            "type": "websocket", "path": path, "raw_path": path.encode(), "headers": [], "client": ("192.0.2.1", 1),
            "scheme": "wss", "query_string": b"", "subprotocols": [], "extensions": {},
        }  # fmt: skip
        sent: list[str] = []

        async def receive() -> dict[str, str]:
            return {"type": "websocket.connect"}

        async def send(message: MutableMapping[str, Any], sent: list[str] = sent) -> None:
            sent.append(message["type"])

        await rig.app(scope, receive, send)
        assert sent == ["websocket.close"]


async def test_sign_in_returns_to_the_page_that_requested_a_fragment(rig: Rig) -> None:
    headers = {"HX-Request": "true", "HX-Current-URL": f"{URL}/console/keys/new?x=1"}
    answer = await rig.http().get("/console/addresses?addresses=1", headers=headers)
    assert (answer.status_code, answer.headers["hx-redirect"]) == (204, "/console/sign-in?next=/keys/new")


async def test_a_root_path_may_be_missing_from_the_path(rig: Rig) -> None:
    browser = await rig.signed_in()
    browser._transport.root_path = "/gateway"  # type: ignore[attr-defined]  # noqa: SLF001 - as a server's has it
    page = await browser.get(NEW)
    assert 'aria-current="true">Keys' in page.text
    answer = await browser.post(NEW, content=urlencode(forms_of(page)["/gateway" + NEW]), headers=FORM)
    assert answer.status_code == 422  # and not 403: the proof holds, a name is missing
    asset = re.search(r'href="/gateway(/console/static/console.css[^"]*)"', page.text)
    assert asset
    assert (await browser.get(asset[1])).status_code == 200
