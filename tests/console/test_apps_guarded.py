"""Access control of the pages on apps: other accounts, viewers, other sites, hostile names."""

import re
from html import escape

import pytest

from tests.console.app_records import REDIRECT, SCOPES, an_app, granted, made
from tests.console.crafted import HOSTILE, below, changed_since, lose, posted, refused_from_elsewhere
from tests.console.harness import STRANGER, VIEWER, Rig, forms_of, submitted


async def test_another_accounts_app_and_grants_are_not_found(rig: Rig) -> None:
    client, _ = await an_app(rig)
    grant = await granted(rig, client)
    browser = await rig.signed_in(STRANGER)
    own, _ = await rig.gateway.oauth_clients.create(rig.other.id, name="Own", scopes=SCOPES, redirect_uris=[REDIRECT])
    assert client.id not in (await browser.get("/console/apps")).text
    for path in (f"/apps/{client.id}", f"/apps/{client.id}/delete", f"/start?app={client.id}"):
        assert (await browser.get(f"/console{path}")).status_code == 404
    assert "No apps match." in (await browser.get(f"/console/apps?after={client.id}")).text
    before = await rig.gateway.store.audit_head()
    # Their own proofs for the very same paths: what is refused is the object, not the form.
    for path, fields in (
        (f"/apps/{client.id}", {"name": "mine"}),
        (f"/apps/{client.id}/rotate", {"grace": "0"}),
        (f"/apps/{client.id}/delete", {"typed": client.name}),
        (f"/apps/{client.id}/grants/{grant.id}/end", {}),
        (f"/apps/{own.id}/grants/{grant.id}/end", {}),
    ):
        assert (await posted(browser, path, **fields)).status_code == 404, path
    assert await rig.gateway.store.audit_head() == before


async def test_a_viewer_sees_everything_and_changes_nothing(rig: Rig) -> None:
    client, _ = await an_app(rig)
    grant = await granted(rig, client)
    browser = await rig.signed_in(VIEWER)
    for path in ("/apps", "/apps/new", f"/apps/{client.id}", f"/apps/{client.id}/delete"):
        page = await browser.get(f"/console{path}")
        assert page.status_code == 200
        assert [each for each in forms_of(page) if not each.endswith(("/sign-out", "/console/apps"))] == []
    assert REDIRECT in (await browser.get(f"/console/apps/{client.id}")).text
    before = await rig.gateway.store.audit_head()
    for path in POSTED:
        answer = await posted(browser, path.format(app=client.id, grant=grant.id), typed=client.name, grace="0")
        assert answer.status_code == 403
        assert "Only admins" in answer.text
    assert await changed_since(rig, before) == []


POSTED = ("/apps/new", "/apps/{app}", "/apps/{app}/rotate", "/apps/{app}/delete", "/apps/{app}/grants/{grant}/end")


@pytest.mark.parametrize("path", POSTED)
async def test_a_form_of_another_site_changes_nothing(rig: Rig, path: str) -> None:
    client, _ = await an_app(rig)
    grant = await granted(rig, client)
    browser = await rig.signed_in()
    path = path.format(app=client.id, grant=grant.id)
    before = await rig.gateway.store.audit_head()
    fields = {"name": "x", "typed": client.name, "grace": "0"}
    assert await refused_from_elsewhere(browser, path, **fields)
    assert await changed_since(rig, before) == []


@pytest.mark.parametrize(
    "name", [HOSTILE, "שלום עולם", "W" * 100, "</title><script>", "{{ 7*7 }}", "a" + "\u0301" * 99]
)
async def test_a_hostile_name_is_shown_and_does_nothing(rig: Rig, name: str) -> None:
    client, _ = await an_app(rig, name)
    browser = await rig.signed_in()
    for path in ("/apps", f"/apps/{client.id}", f"/apps/{client.id}/delete", "/audit", f"/start?app={client.id}"):
        page = await browser.get(f"/console{path}")
        assert page.status_code == 200
        assert "<img" not in page.text
        assert "<script>" not in page.text
    assert (
        f"<bdi>{escape(name).replace('&#x27;', '&#39;').replace('&quot;', '&#34;')}</bdi>"
        in (await browser.get("/console/apps")).text
    )


@pytest.mark.parametrize("name", ["a\u202eb", "a\x00b", "\u2066", "a\nb"])
async def test_a_name_with_bidirectional_control_characters_is_refused(rig: Rig, name: str) -> None:
    page = await made(await rig.signed_in(), name=name)
    assert page.status_code == 422
    assert name not in re.sub(r"<input[^>]*>", "", page.text)


async def test_an_unavailable_store_has_an_error_page(rig: Rig) -> None:
    client, _ = await an_app(rig)
    browser = await rig.signed_in()
    await lose(rig, "oauth_clients")
    for path in ("/apps", f"/apps/{client.id}"):
        page = await browser.get(f"/console{path}")
        assert page.status_code == 503
        assert "temporarily unavailable" in page.text


async def test_the_pages_work_below_a_root_path(rig: Rig) -> None:
    client, _ = await an_app(rig)
    browser = await below(rig, "/machpay")
    path = f"/machpay/console/apps/{client.id}"
    page = await browser.get(path)
    assert f'href="{path}/delete"' in page.text
    assert '"/console' not in page.text
    answer = await submitted(browser, page, path, name="Renamed")
    assert answer.headers["location"] == f"{path}?told=saved"
