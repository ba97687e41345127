"""Every form of the Console, submitted by each kind of user, on records of their own and of another account."""

from typing import Any

import pytest

from machpay_gateway.console.app import PAGES
from machpay_gateway.console.guard import Page
from machpay_gateway.core.accounts.account import Account
from machpay_gateway.core.errors import NotPermitted
from tests.console.app_records import REDIRECT, SCOPES, granted
from tests.console.crafted import posted
from tests.console.harness import ADMIN, STRANGER, VIEWER, Rig

# The result of each user's change to a record of the admin's and the viewer's account. The stranger is an admin of
# another account.
EXPECTED = {ADMIN: "done", VIEWER: "forbidden", STRANGER: "hidden"}
OUTCOMES = {200: "done", 303: "done", 403: "forbidden", 404: "hidden"}
# Valid fields for each form. A new page must be added here.
FIELDS: dict[str, dict[str, str]] = {
    "/keys/new": {"name": "new", "environment": "live", "scopes": "skills:list", "once": "1"},
    "/keys/{id}": {"name": "renamed", "environment": "live", "scopes": "skills:list", "version": "1"},
    "/keys/{id}/rotate": {"grace": "86400", "once": "2"},
    "/keys/{id}/end-grace": {},
    "/keys/{id}/revoke": {"typed": "record"},
    "/apps/new": {
        "name": "new", "kind": "confidential", "environment": "live", "scopes": "skills:execute",
        "redirect_uris": REDIRECT, "grant_types": "authorization_code", "requires_pkce": "yes", "once": "3",
    },
    "/apps/{id}": {
        "name": "renamed", "scopes": "skills:execute", "redirect_uris": REDIRECT,
        "grant_types": "authorization_code", "requires_pkce": "yes", "version": "1",
    },
    "/apps/{id}/rotate": {"grace": "86400", "once": "4"},
    "/apps/{id}/delete": {"typed": "record"},
    "/apps/{id}/grants/{grant}/end": {},
}  # fmt: skip
CHANGING = [page for page in PAGES if page.method == "POST" and not page.allows_viewers]


async def records(rig: Rig, account: Account) -> dict[str, Any]:
    """Return new records of *account* by kind."""
    gateway = rig.gateway
    key, _ = await gateway.keys.create(account.id, name="record", scopes=["skills:list"], environment="live")
    app, _ = await gateway.oauth_clients.create(account.id, name="record", scopes=SCOPES, redirect_uris=[REDIRECT])
    return {"key": key, "app": app, "grant": await granted(rig, app)}


def test_every_page_with_a_form_is_tested() -> None:
    assert {page.path for page in CHANGING} == set(FIELDS)
    assert {page.path for page in PAGES if page.allows_viewers} == {
        "/sessions/{id}/end",
        "/sessions/end-others",
        "/sessions/pass",
        "/password",
    }


@pytest.mark.parametrize("email", EXPECTED)
@pytest.mark.parametrize("page", CHANGING, ids=lambda page: page.path)
async def test_only_admins_of_the_account_change_its_records(rig: Rig, page: Page, email: str) -> None:
    made = await records(rig, rig.account)
    about = made["key" if page.path.startswith("/keys") else "app"]
    path = page.path.format(id=about.id, grant=made["grant"].id)
    browser, store = await rig.signed_in(email), rig.gateway.store
    before = await store.audit_head()
    answer = await posted(browser, path, **FIELDS[page.path])
    is_new = page.path.endswith("/new")
    expected = "done" if is_new and email == STRANGER else EXPECTED[email]  # of their own account
    assert OUTCOMES[answer.status_code] == expected, answer.text
    if expected == "done":
        if is_new:
            (row,) = await store.audit_page(None, limit=1)
            assert row.account_id == rig.users[email].account_id
    else:
        since = await store.audit_rows(before.sequence)
        assert [row.action for row in since] == (["console.refused"] if expected == "forbidden" else [])
        assert "sk_live_" not in answer.text


async def test_a_refusal_of_a_service_has_an_error_page(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    made, browser = await records(rig, rig.account), await rig.signed_in()

    async def refused(*_: object, **__: object) -> None:
        raise NotPermitted("Ask an operator.")

    monkeypatch.setattr(rig.gateway.keys, "revoke", refused)
    page = await posted(browser, f"/keys/{made['key'].id}/revoke", typed="record")
    assert page.status_code == 403
    assert "Ask an operator." in page.text
