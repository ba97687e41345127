"""The pages on apps: creation, settings, rotation, deletion and grants."""

import re
from collections.abc import AsyncIterator

import pytest

from machpay_gateway.core.keys.audit import APPLICATION
from machpay_gateway.core.oauth.client import CLIENT_CREDENTIALS
from machpay_gateway.core.oauth.grant import Grant
from machpay_gateway.core.oauth.settings import OAuthSettings
from tests.console.app_records import REDIRECT, SCOPES, an_app, granted, made
from tests.console.crafted import HOSTILE, is_written_down, posted
from tests.console.harness import ADMIN, VIEWER, Rig, forms_of, secret_in, serving_console, submitted
from tests.keyrings import logged
from tests.prepared import SECRET_KEY


async def test_a_new_app_shows_its_secret_once_with_lines_for_env_and_never_again(rig: Rig) -> None:
    browser = await rig.signed_in()
    page = await made(browser)
    assert page.status_code == 200
    secret = secret_in(page)
    (client,) = await rig.gateway.oauth_clients.list(rig.account.id)
    assert client.accepts_secret(secret, client.created_at)
    lines = re.search(r'<pre id="env"[^>]*>([^<]*)</pre>', page.text)
    assert lines is not None
    assert lines[1] == f"MACHPAY_CLIENT_ID={client.id}\nMACHPAY_CLIENT_SECRET={secret}"
    assert page.headers["cache-control"] == "no-store"
    assert (client.name, client.environment, client.redirect_uris) == ("Notes", "live", (REDIRECT,))
    assert (list(client.scopes), client.requires_pkce, client.binds_tokens) == (SCOPES, True, False)
    for path in ("/apps", f"/apps/{client.id}", "/audit", "/audit.csv", f"/start?app={client.id}", "/sessions"):
        assert secret not in (await browser.get(f"/console{path}")).text
    rows = await rig.gateway.store.audit_page(rig.account.id)
    assert [row.action for row in rows if secret in row.before + row.after] == []
    assert rows[0].action == "client.create"
    assert rows[0].actor_id == rig.users[ADMIN].id
    assert not is_written_down(rig, secret)
    assert is_written_down(rig, client.secrets[0].masked)  # it is looked for where it would be


async def test_submitting_the_form_twice_creates_one_app_and_shows_its_secret_once(rig: Rig) -> None:
    browser = await rig.signed_in()
    page = await browser.get("/console/apps/new")
    first, second = [
        await submitted(browser, page, name="Notes", scopes=SCOPES, redirect_uris=REDIRECT) for _ in range(2)
    ]
    assert first.status_code == 200
    assert second.headers["location"] == "/console/apps?told=made-before"
    assert len(await rig.gateway.oauth_clients.list(rig.account.id)) == 1
    again = await made(browser)  # another page of the form is another app
    assert again.status_code == 200
    assert len(await rig.gateway.oauth_clients.list(rig.account.id)) == 2


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"name": " "}, "use 1 to 100"),
        ({"environment": "moon"}, "Choose live or test."),
        ({"kind": "secretive"}, "Choose confidential or public."),
        ({"scopes": ["keys:manage"]}, "is not for apps"),
        ({"scopes": ["skills:*"]}, "is not for apps"),
        ({"scopes": ["made:up"]}, "is not defined"),
        ({"redirect_uris": "http://app.example.com/"}, "use https://"),
        ({"redirect_uris": ""}, "needs a redirect URI"),
        ({"redirect_uris": "https://a.example.com/#x"}, "without a fragment"),
        ({"grant_types": None}, "needs a grant type"),
        ({"grant_types": ["implicit"]}, "is not supported"),
        ({"grant_types": ["client_credentials"]}, "Redirect URIs are for authorization_code"),
        (
            {"grant_types": ["authorization_code", "client_credentials"], "kind": "public"},
            "has no secret for client_credentials",
        ),
    ],
)
async def test_an_invalid_value_has_an_error_beside_its_field_and_creates_nothing(
    rig: Rig, fields: dict[str, str | list[str] | None], message: str
) -> None:
    browser = await rig.signed_in()
    page = await made(browser, **fields)
    assert page.status_code == 422
    assert re.search(rf'<p class="error"[^>]*>[^<]*{message}', page.text), page.text
    assert 'aria-invalid="true"' in page.text
    assert not await rig.gateway.oauth_clients.list(rig.account.id)


async def test_the_form_does_not_offer_scopes_that_apps_cannot_have(rig: Rig) -> None:
    browser = await rig.signed_in()
    page = await browser.get("/console/apps/new")
    assert "skills:execute" in page.text
    assert "Execute skills" in page.text
    assert "keys:manage" not in page.text


async def test_a_public_app_has_no_secret_and_always_requires_pkce(rig: Rig) -> None:
    browser = await rig.signed_in()
    answer = await made(browser, kind="public", pkce=None, dpop="yes", environment="test")
    (client,) = await rig.gateway.oauth_clients.list(rig.account.id)
    assert answer.headers["location"] == f"/console/apps/{client.id}?told=app-created"
    assert (client.is_public, client.requires_pkce, client.binds_tokens) == (True, True, True)
    assert (client.environment, client.secrets) == ("test", ())
    page = await browser.get(f"/console/apps/{client.id}")
    assert f"/console/apps/{client.id}/rotate" not in forms_of(page)


async def test_redirect_uris_are_checked_while_typing(rig: Rig) -> None:
    browser = await rig.signed_in()
    typed = f"{REDIRECT}\nhttp://localhost:8000/cb\nhttp://example.com\n{HOSTILE}"
    page = await browser.get("/console/redirects", params={"redirect_uris": typed})
    assert page.text.count('class="valid"') == 2
    assert page.text.count('class="invalid"') >= 2
    assert "<img" not in page.text


async def test_a_self_registered_app_is_marked_and_cannot_use_client_credentials(rig: Rig) -> None:
    registered = await rig.gateway.oauth_clients.register(
        rig.account.id, name="Notes", scopes=SCOPES, redirect_uris=[REDIRECT], grant_types=["authorization_code"],
        is_public=False, binds_tokens=False, max_clients=9, actor=APPLICATION,
    )  # fmt: skip
    assert registered is not None
    browser, path = await rig.signed_in(), f"/console/apps/{registered[0].id}"
    page = await browser.get(path)
    assert "This app registered itself." in page.text
    assert "self-registered" in (await browser.get("/console/apps")).text
    assert CLIENT_CREDENTIALS not in page.text
    answer = await submitted(browser, page, path, grant_types=["authorization_code", CLIENT_CREDENTIALS])
    assert answer.status_code == 422
    assert re.search(r'id="grant_types-error">[^<]*acts only for users who consent', answer.text)
    assert await rig.gateway.oauth_clients.get(rig.account.id, registered[0].id) == registered[0]


async def test_settings_are_changed_unless_someone_else_changed_them_first(rig: Rig) -> None:
    client, _ = await an_app(rig)
    browser = await rig.signed_in()
    path = f"/console/apps/{client.id}"
    page = await browser.get(path)
    more = f"{REDIRECT}\ncom.example.app:/cb"
    answer = await submitted(
        browser, page, path, name="Notes 2", scopes=["account:read"], redirect_uris=more, pkce=None
    )
    assert answer.headers["location"] == f"{path}?told=saved"
    changed = await rig.gateway.oauth_clients.get(rig.account.id, client.id)
    assert changed is not None
    assert (changed.name, list(changed.scopes), changed.requires_pkce) == ("Notes 2", ["account:read"], False)
    assert changed.redirect_uris == (REDIRECT, "com.example.app:/cb")
    late = await submitted(browser, page, path, name="Notes 3")
    assert late.status_code == 422
    assert "was changed by someone else" in late.text
    assert await rig.gateway.oauth_clients.get(rig.account.id, client.id) == changed


async def test_the_environment_and_type_of_an_app_cannot_be_changed(rig: Rig) -> None:
    client, _ = await an_app(rig)
    browser = await rig.signed_in()
    path = f"/console/apps/{client.id}"
    answer = await submitted(browser, await browser.get(path), path, name="Other", environment="test", kind="public")
    assert answer.status_code == 303
    changed = await rig.gateway.oauth_clients.get(rig.account.id, client.id)
    assert changed is not None
    assert (changed.name, changed.environment, changed.is_public) == ("Other", "live", False)


async def test_a_rotation_has_a_grace_period_and_shows_the_new_secret_once(rig: Rig) -> None:
    client, old = await an_app(rig)
    browser = await rig.signed_in()
    path = f"/console/apps/{client.id}/rotate"
    page = await browser.get(f"/console/apps/{client.id}")
    first = await submitted(browser, page, path, grace="3600")
    new = secret_in(first)
    second = await submitted(browser, page, path, grace="3600")
    assert second.headers["location"] == f"/console/apps/{client.id}?told=made-before"
    rotated = await rig.gateway.oauth_clients.get(rig.account.id, client.id)
    assert rotated is not None
    now = rotated.secrets[0].created_at
    assert rotated.accepts_secret(new, now)
    assert rotated.accepts_secret(old, now + 3000)
    assert not rotated.accepts_secret(old, now + 4000)
    assert new not in (await browser.get(f"/console/apps/{client.id}")).text
    for wrong in ("", "1", "forever", "-1", "99999999"):
        again = await browser.get(f"/console/apps/{client.id}")
        assert (await submitted(browser, again, path, grace=wrong)).status_code == 422
    at_once = secret_in(await submitted(browser, await browser.get(f"/console/apps/{client.id}"), path, grace="0"))
    ended = await rig.gateway.oauth_clients.get(rig.account.id, client.id)
    assert ended is not None
    assert (ended.accepts_secret(at_once, now), ended.accepts_secret(new, now)) == (True, False)


async def test_an_app_is_deleted_when_its_name_is_typed(rig: Rig) -> None:
    client, _ = await an_app(rig, "Notes & more")
    browser = await rig.signed_in()
    path = f"/console/apps/{client.id}/delete"
    page = await browser.get(path)
    wrong = await submitted(browser, page, typed="notes")
    assert wrong.status_code == 422
    assert await rig.gateway.oauth_clients.get(rig.account.id, client.id) is not None
    right = await submitted(browser, page, typed="Notes & more")
    assert right.headers["location"] == "/console/apps?told=app-deleted"
    assert await rig.gateway.oauth_clients.get(rig.account.id, client.id) is None
    assert client.id not in (await browser.get("/console/apps")).text
    gone = await browser.get(f"/console/apps/{client.id}")  # where the audit log leads to
    assert gone.status_code == 200
    assert "deleted" in gone.text
    assert [action for action in forms_of(gone) if client.id in action] == []
    assert (await browser.get(path)).status_code == 404
    assert (await submitted(browser, page, typed="Notes & more")).status_code == 404


async def test_grants_are_described_paginated_and_revoked(rig: Rig) -> None:
    client, _ = await an_app(rig, grant_types=["authorization_code", "refresh_token", CLIENT_CREDENTIALS])
    other, _ = await an_app(rig, "Other")
    for number, email in enumerate((VIEWER, ADMIN, None), 1):
        await granted(rig, client, number, email)
    foreign = await granted(rig, other, 9)
    browser = await rig.signed_in()
    path = f"/console/apps/{client.id}"
    page = await browser.get(path)
    assert page.text.index("The app itself") < page.text.index(f"{ADMIN}</bdi></th>") < page.text.index(VIEWER)
    assert "Execute skills" in page.text
    older = await browser.get(f"{path}?after=grant_002")
    assert "The app itself" not in older.text
    assert VIEWER in older.text
    ended = await submitted(browser, page, f"{path}/grants/grant_001/end")
    assert ended.headers["location"] == f"{path}?told=grant-ended"
    grant = await rig.gateway.revocation.get(rig.account.id, "grant_001")
    assert grant is not None
    assert not grant.is_alive
    assert f"{path}/grants/grant_001/end" not in forms_of(await browser.get(path))
    assert f"{path}/grants/{foreign.id}/end" not in forms_of(page)
    assert (await posted(browser, f"/apps/{client.id}/grants/{foreign.id}/end")).status_code == 404
    other_grant = await rig.gateway.revocation.get(rig.account.id, foreign.id)
    assert other_grant is not None
    assert other_grant.is_alive


async def test_more_grants_are_on_the_next_page(rig: Rig) -> None:
    client, _ = await an_app(rig)
    for number in range(22):
        user = await rig.gateway.users.create(rig.account.id, f"user{number}@example.org")
        await rig.gateway.store.put_grant(
            Grant(
                f"grant_{number:03}",
                client.id,
                user.id,
                rig.account.id,
                "live",
                "standard",
                client.scopes,
                1e9 + number,
            ),
            logged(),
        )
    browser = await rig.signed_in()
    page = await browser.get(f"/console/apps/{client.id}")
    assert page.text.count('<th scope="row">') == 20
    (more,) = re.findall(r'rel="next" href="([^"#]*)', page.text)
    rest = await browser.get(more)
    assert re.findall(r"user\d+@", rest.text) == ["user1@", "user1@", "user0@", "user0@"]  # in its row and its button


async def test_apps_are_paginated_and_filtered_by_environment(rig: Rig) -> None:
    for number in range(51):
        await an_app(rig, f"App {number}", environment="test" if number == 50 else "live")
    browser = await rig.signed_in()
    page = await browser.get("/console/apps")
    assert page.text.count('<th scope="row">') == 50
    (more,) = re.findall(r'rel="next" href="([^"]*)"', page.text)
    assert "App 0<" in (await browser.get(more.replace("&amp;", "&"))).text
    only = await browser.get("/console/apps?environment=test")
    assert only.text.count('<th scope="row">') == 1


@pytest.fixture
async def issuing() -> AsyncIterator[Rig]:
    oauth = OAuthSettings("https://auth.example.com")
    async with serving_console(oauth=oauth, secret_key=SECRET_KEY) as rig:
        yield rig


async def test_pages_say_when_there_is_no_authorization_server(rig: Rig, issuing: Rig) -> None:
    for each, has_notice in ((rig, True), (issuing, False)):
        client, _ = await an_app(each)
        browser = await each.signed_in()
        for path in ("/apps", "/apps/new", f"/apps/{client.id}"):
            page = await browser.get(f"/console{path}")
            assert page.status_code == 200
            assert ("oauth.issuer" in page.text) is has_notice
        assert (await made(browser)).status_code == 200
