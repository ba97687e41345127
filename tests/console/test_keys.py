"""The pages on keys: creation, settings, rotation and revocation."""

import asyncio
import re
import time
from dataclasses import replace

import pytest
from httpx2 import AsyncClient, Response

from machpay_gateway import Tier
from machpay_gateway.core.keys.audit import APPLICATION, Change
from machpay_gateway.core.keys.key import ROTATION_SECONDS, KeyStatus
from machpay_gateway.core.usage.counters import SecretUse, UsageBatch
from tests.console.crafted import posted
from tests.console.harness import ADMIN, API_URL, PASSWORD, Rig, Sent, forms_of, secret_in, serving_console, submitted

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>&{{7*7}}\u202e"[:100]
NEW = "/console/keys/new"


async def created(browser: AsyncClient, **fields: Sent) -> Response:
    defaults: dict[str, Sent] = {"name": "production-api", "scopes": ["skills:list", "skills:execute"]}
    return await submitted(browser, await browser.get(NEW), NEW, **(defaults | fields))


def _change(rig: Rig, at: float) -> Change:
    return Change(at, APPLICATION, "key.update", rig.account.id, "key", {}, {})


async def call(rig: Rig, secret: str, address: str = "192.0.2.1") -> int:
    headers = {"Authorization": f"Bearer {secret}"}
    return (await rig.http(address, url=API_URL).get("/v1/skills", headers=headers)).status_code


async def test_a_key_is_created_and_its_secret_shown_once(rig: Rig) -> None:
    browser = await rig.signed_in()
    page = await created(browser, environment="test", addresses="192.0.2.0/24, 2001:db8::1", expires="2099-01-31T12:30")
    assert page.status_code == 200
    secret = secret_in(page)
    assert f"MACHPAY_API_KEY={secret}" in page.text
    assert "curl https://api.example.com/v1/whoami" in page.text
    assert await call(rig, secret) == 200
    assert await call(rig, secret, "203.0.113.1") == 403
    (record,) = await rig.gateway.keys.list(rig.account.id)
    assert (record.name, record.environment, list(record.scopes)) == (
        "production-api",
        "test",
        ["skills:execute", "skills:list"],
    )
    assert record.allowed_ips == ("192.0.2.0/24", "2001:db8::1")
    assert record.expires_at == 4_073_545_800.0
    for path in ("/console/keys", f"/console/keys/{record.id}", f"/console/keys/{record.id}/revoke"):
        assert secret not in (await browser.get(path)).text
    (row,) = await rig.gateway.store.audit_page(rig.account.id, limit=1)
    assert (row.action, row.actor_kind, row.actor_id) == ("key.create", "user", next(iter(rig.users.values())).id)
    assert row.address == "192.0.2.1"
    assert secret not in row.after


async def test_submitting_the_form_again_creates_no_second_key(rig: Rig) -> None:
    browser = await rig.signed_in()
    form: dict[str, Sent] = {"name": "once", "scopes": ["skills:list"]}
    page = await browser.get(NEW)
    answers = await asyncio.gather(*(submitted(browser, page, NEW, **form) for _ in range(4)))
    assert sorted(answer.status_code for answer in answers) == [200, 303, 303, 303]
    assert len(await rig.gateway.keys.list(rig.account.id)) == 1
    (onward,) = {answer.headers["location"] for answer in answers if answer.status_code == 303}
    assert "This form was already submitted." in (await browser.get(onward)).text


async def test_the_idempotency_key_of_a_form_is_its_users_own(rig: Rig) -> None:
    other = await rig.gateway.users.create(rig.account.id, "eve@example.org", PASSWORD, role="admin")
    fields = {"name": "a", "environment": "live", "scopes": "skills:list", "once": "1"}
    for email in (ADMIN, other.email):
        assert (await posted(await rig.signed_in(email), "/keys/new", **fields)).status_code == 200
    assert len(await rig.gateway.keys.list(rig.account.id)) == 2


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"name": ""}, "use 1 to 100"),
        ({"name": "a" * 101}, "use 1 to 100"),
        ({"owner": "a" * 201}, "use 1 to 200"),
        ({"owner": "a\u202eb"}, "cannot be shown"),
        ({"environment": "prod"}, "Choose live or test."),
        ({"environment": None}, "Choose live or test."),
        ({"scopes": ["skills:all"]}, "is not defined; known scopes"),
        ({"addresses": "10.0.0.0/33"}, "is not a network (prefix is 0–32)"),
        ({"addresses": "10.0.0.1/8"}, "has host bits set"),
        ({"expires": "2001-01-01T00:00"}, "is past"),
        ({"expires": "soon"}, "is not a date and time"),
        ({"expires": "2099-01-01T00:00+02:00"}, "is not a date and time"),
    ],
    ids=lambda value: str(value)[:30],
)
async def test_an_invalid_value_has_an_error_and_the_form_keeps_its_values(
    rig: Rig, fields: dict[str, Sent], message: str
) -> None:
    browser = await rig.signed_in()
    kept: dict[str, Sent] = {"name": "kept-name", "owner": "kept-owner", "addresses": "192.0.2.7"}
    values = kept | fields
    page = await created(browser, **values)
    assert page.status_code == 422
    assert message in page.text.replace("&#34;", '"').replace("&#39;", "'")
    assert list(await rig.gateway.keys.list(rig.account.id)) == []
    sent = dict(forms_of(page)[NEW])
    assert sent["name"] == values["name"]
    assert (sent["owner"], sent["addresses"]) == (values["owner"], values["addresses"])


async def test_the_owner_of_a_key_is_set_changed_cleared_and_shown(rig: Rig) -> None:
    browser = await rig.signed_in()
    await created(browser, owner="  customer 17 ")
    (record,) = await rig.gateway.keys.list(rig.account.id)
    assert record.owner == "customer 17"
    path = f"/console/keys/{record.id}"
    for shown in ("/console/keys", path):
        assert "<bdi>customer 17</bdi>" in (await browser.get(shown)).text
    for owner, stored in (("customer 18", "customer 18"), (" ", None)):
        saved = await submitted(browser, await browser.get(path), path, owner=owner)
        assert saved.status_code == 303
        (record,) = await rig.gateway.keys.list(rig.account.id)
        assert record.owner == stored
    (row, *_) = await rig.gateway.store.audit_page(rig.account.id, limit=1)
    assert (row.before, row.after) == ('{"owner":"customer 18"}', '{"owner":null}')


async def test_the_tier_of_a_key_is_shown_and_not_the_consoles_to_change(rig: Rig) -> None:
    browser = await rig.signed_in()
    record, _ = await rig.key("deploy")
    path = f"/console/keys/{record.id}"
    for tier, marked in (("enterprise", "enterprise (own)"), (None, "standard")):
        await rig.gateway.keys.update(None, record.id, own_tier=tier)
        page = await browser.get(path)
        assert f"<dt>Tier</dt><dd>{marked}</dd>" in page.text
        assert f"<td>{marked}</td>" in (await browser.get("/console/keys")).text
        assert (await submitted(browser, page, path, own_tier="test", tier="test")).status_code in {303, 422}
        kept = await rig.gateway.keys.get(None, record.id)
        assert kept is not None
        assert kept.own_tier == tier


async def test_a_tier_that_is_not_configured_is_marked(rig: Rig) -> None:
    record, _ = await rig.key("deploy")
    unknown = replace(record.with_own_tier("gone"), version=record.version + 1)
    assert await rig.gateway.store.replace_key(unknown, _change(rig, time.time()))
    browser = await rig.signed_in()
    for path in ("/console/keys", f"/console/keys/{record.id}"):
        assert "gone (own, unknown)" in (await browser.get(path)).text


async def test_one_more_key_than_the_tier_allows_is_an_error_of_the_form() -> None:
    tiers = {"standard": Tier("1000/minute", 50, max_keys=2)}
    async with serving_console(tiers=tiers) as rig:
        browser = await rig.signed_in()
        expired, _ = await rig.key("expired")
        past = replace(expired, expires_at=1_000_000_000.0, version=2)
        assert await rig.gateway.store.replace_key(past, _change(rig, time.time()))
        assert (await created(browser)).status_code == 200
        page = await browser.get(NEW)
        form: dict[str, Sent] = {"name": "kept-name", "scopes": ["skills:list"]}
        answers = await asyncio.gather(*(submitted(browser, page, NEW, **form) for _ in range(3)))
        assert sorted(answer.status_code for answer in answers) == [200, 303, 303]  # not a refusal of its own key
        refused = await created(browser, name="kept-name")
        path = f"/console/keys/{expired.id}"
        for page in (refused, await submitted(browser, await browser.get(path), path, expires="")):
            assert page.status_code == 422
            assert "The account has 2 working live keys, and its tier standard allows 2: revoke a key" in page.text
        assert dict(forms_of(refused)[NEW])["name"] == "kept-name"


async def test_the_list_is_searched_and_filtered(rig: Rig) -> None:
    browser = await rig.signed_in()
    names = ("Deploy A", "deploy b", "other")
    records = {name: await rig.key(name, environment="test" if name == "other" else "live") for name in names}
    await rig.gateway.keys.revoke(rig.account.id, records["deploy b"][0].id)

    async def listed(query: str) -> list[str]:
        page = await browser.get(f"/console/keys?{query}")
        return re.findall(r"<bdi>([^<]*)</bdi></a></th>", page.text)

    assert await listed("") == ["other", "deploy b", "Deploy A"]
    assert await listed("search=deploy") == ["deploy b", "Deploy A"]
    assert await listed(f"search={records['Deploy A'][0].id}") == ["Deploy A"]
    assert await listed(f"search={records['other'][1][-4:]}") == ["other"]
    assert await listed("environment=test") == ["other"]
    assert await listed("status=revoked") == ["deploy b"]
    assert await listed("status=nonsense&environment=x&search=") == ["other", "deploy b", "Deploy A"]
    assert await listed("search=nothing%00") == []
    assert await listed(f"after={records['deploy b'][0].id}") == ["Deploy A"]
    assert await listed("after=%00") == []


async def test_pagination_leads_to_the_oldest_key(rig: Rig) -> None:
    browser = await rig.signed_in()
    for number in range(120):
        await rig.key(f"key {number:03} & <co>")
    numbers, path = [], "/console/keys?search=co"
    while path:
        page = await browser.get(path)
        assert page.text.count('<th scope="row">') <= 50
        numbers += re.findall(r"<bdi>key (\d+) &amp; &lt;co&gt;</bdi></a></th>", page.text)
        onward = re.search(r'rel="next" href="([^"]*)"', page.text)
        path = onward[1].replace("&amp;", "&") if onward else ""
    assert numbers == [f"{number:03}" for number in range(119, -1, -1)]


async def test_an_old_secret_is_marked_to_be_rotated(rig: Rig) -> None:
    record, _ = await rig.key()
    browser = await rig.signed_in()
    assert "badge due" not in (await browser.get("/console/keys")).text
    old = time.time() - ROTATION_SECONDS - 60
    aged = replace(record, version=2, last_rotated_at=old)
    assert await rig.gateway.store.replace_key(aged, _change(rig, old))
    assert "badge due" in (await browser.get("/console/keys")).text
    assert "badge due" in (await browser.get(f"/console/keys/{record.id}")).text


async def test_changed_settings_apply_immediately(rig: Rig) -> None:
    record, secret = await rig.key()
    browser = await rig.signed_in()
    assert await call(rig, secret) == 200
    path = f"/console/keys/{record.id}"
    page = await browser.get(path)
    answer = await submitted(browser, page, path, name="renamed", addresses="203.0.113.0/24", scopes=["skills:list"])
    assert (answer.status_code, answer.headers["location"]) == (303, f"{path}?told=saved")
    assert await call(rig, secret) == 403
    changed = await rig.gateway.keys.get(rig.account.id, record.id)
    assert changed is not None
    assert (changed.name, list(changed.scopes), changed.environment) == ("renamed", ["skills:list"], "live")
    assert "Changes saved." in (await browser.get(answer.headers["location"])).text


async def test_unedited_settings_stay_as_they_are(rig: Rig) -> None:
    record, _ = await rig.gateway.keys.create(
        rig.account.id, name="a", scopes=["skills:*"], environment="live", expires_at=time.time() + 5000.25
    )
    browser = await rig.signed_in()
    path = f"/console/keys/{record.id}"
    await submitted(browser, await browser.get(path), path, name="b")
    changed = await rig.gateway.keys.get(rig.account.id, record.id)
    assert changed == replace(record, name="b", version=2)


async def test_a_form_does_not_overwrite_a_change_of_someone_else(rig: Rig) -> None:
    record, _ = await rig.key()
    browser = await rig.signed_in()
    path = f"/console/keys/{record.id}"
    page = await browser.get(path)
    await rig.gateway.keys.update(rig.account.id, record.id, scopes=["skills:list"])
    answer = await submitted(browser, page, path, name="renamed")
    assert answer.status_code == 422
    assert "was changed by someone else" in answer.text
    # What is shown is what is there now: saving that changes nothing of it.
    again = await submitted(browser, answer, path)
    assert again.status_code == 303
    stored = await rig.gateway.keys.get(rig.account.id, record.id)
    assert stored is not None
    assert (stored.name, list(stored.scopes)) == ("production-api", ["skills:list"])


async def test_a_corrected_form_does_not_overwrite_a_change_of_someone_else(rig: Rig) -> None:
    record, _ = await rig.key()
    browser = await rig.signed_in()
    path = f"/console/keys/{record.id}"
    page = await browser.get(path)
    await rig.gateway.keys.update(rig.account.id, record.id, scopes=["skills:list"])
    wrong = await submitted(browser, page, path, name="")
    assert wrong.status_code == 422
    corrected = await submitted(browser, wrong, path, name="renamed")
    assert corrected.status_code == 422
    assert "was changed by someone else" in corrected.text
    stored = await rig.gateway.keys.get(rig.account.id, record.id)
    assert stored is not None
    assert list(stored.scopes) == ["skills:list"]


async def test_an_expiry_that_passes_during_creation_has_an_error(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    browser = await rig.signed_in()
    page = await browser.get(NEW)
    monkeypatch.setattr(rig.gateway.keys, "_clock", lambda: 4_073_545_801.0)
    answer = await submitted(browser, page, NEW, name="x", expires="2099-01-31T12:30")
    assert answer.status_code == 422
    assert "is past" in answer.text


@pytest.mark.parametrize("grace, works_on", [("86400", True), ("0", False)])
async def test_a_rotation_shows_the_new_secret_and_the_old_one_has_its_grace_period(
    rig: Rig,
    grace: str,
    works_on: bool,  # noqa: FBT001 - a column
) -> None:
    record, old = await rig.key()
    browser = await rig.signed_in()
    path = f"/console/keys/{record.id}"
    page = await browser.get(path)
    rotated = await submitted(browser, page, f"{path}/rotate", grace=grace)
    new = secret_in(rotated)
    assert new != old
    assert [await call(rig, each) for each in (new, old)] == [200, 200 if works_on else 401]
    again = await submitted(browser, page, f"{path}/rotate", grace=grace)
    assert (again.status_code, again.headers["location"]) == (303, f"{path}?told=made-before")
    if works_on:
        page = await browser.get(path)
        ended = await submitted(browser, page, f"{path}/end-grace")
        assert "The previous secret no longer works." in (await browser.get(ended.headers["location"])).text
        assert [await call(rig, each) for each in (new, old)] == [200, 401]


async def test_the_page_shows_whether_the_previous_secret_is_still_in_use(rig: Rig) -> None:
    record, _ = await rig.key()
    await rig.gateway.keys.rotate(rig.account.id, record.id)
    browser = await rig.signed_in()
    path = f"/console/keys/{record.id}"
    assert "not used</strong> since the rotation" in (await browser.get(path)).text
    use = SecretUse(record.secrets[0].digest, record.id, time.time() + 1)
    await rig.gateway.store.add_usage(UsageBatch((), [use]))
    assert "still in use</strong>, last" in (await browser.get(path)).text


@pytest.mark.parametrize("grace", ["", "1", "-1", "86400.0", "999999999", "NaN"])
async def test_only_offered_grace_periods_are_accepted(rig: Rig, grace: str) -> None:
    record, secret = await rig.key()
    browser = await rig.signed_in()
    page = await browser.get(f"/console/keys/{record.id}")
    answer = await submitted(browser, page, f"/console/keys/{record.id}/rotate", grace=grace)
    assert answer.status_code == 422
    assert await call(rig, secret) == 200


async def test_a_key_is_revoked_when_its_name_is_typed(rig: Rig) -> None:
    record, secret = await rig.key()
    browser = await rig.signed_in()
    path = f"/console/keys/{record.id}/revoke"
    page = await browser.get(path)
    for typed in ("", "production", "Production-API", record.id):
        answer = await submitted(browser, page, path, typed=typed)
        assert answer.status_code == 422
        assert "This is not the key’s name." in answer.text
    assert await call(rig, secret) == 200
    answer = await submitted(browser, page, path, typed=" production-api ")
    assert answer.headers["location"] == f"/console/keys/{record.id}?told=key-revoked"
    assert await call(rig, secret) == 401
    page = await browser.get(f"/console/keys/{record.id}")
    assert set(forms_of(page)) == {"/console/sign-out"}
    assert "This key is already revoked." in (await browser.get(path)).text


async def test_a_key_that_cannot_be_rotated_says_why(rig: Rig) -> None:
    record, _ = await rig.key()
    browser = await rig.signed_in()
    page = await browser.get(f"/console/keys/{record.id}")
    await rig.gateway.keys.revoke(rig.account.id, record.id)
    answer = await submitted(browser, page, f"/console/keys/{record.id}/rotate", grace="0")
    assert answer.status_code == 409
    assert "is revoked, which is final" in answer.text
    change = await submitted(browser, page, f"/console/keys/{record.id}", name="other")
    assert change.status_code == 422
    assert "This key was changed by someone else" in change.text


@pytest.mark.parametrize(
    "typed, parts",
    [
        ("203.0.113.0/24", ['class="valid">203.0.113.0/24']),
        ("203.0.113.0/24", ["Your own address, 192.0.2.1, is not included"]),
        ("192.0.2.0/24 10.0.0.0/8", ['class="valid">10.0.0.0/8']),
        ("::ffff:10.0.0.1", ['class="valid">10.0.0.1']),
        ("10.0.0.1/8", ['class="invalid"', "write 10.0.0.0/8 for the network"]),
        ("<script>", ['class="invalid"', "&lt;script&gt;"]),
        ("", ['<ul id="address-checks" class="checks" aria-live="polite">\n</ul>']),
    ],
    ids=lambda value: str(value)[:20],
)
async def test_addresses_are_checked_while_typing(rig: Rig, typed: str, parts: list[str]) -> None:
    browser = await rig.signed_in()
    page = await browser.get("/console/addresses", params={"addresses": typed})
    assert page.status_code == 200
    for part in parts:
        assert part in page.text
    assert "<script>" not in page.text
    assert ("Your own address" in page.text) == (
        parts[0].startswith(("Your", 'class="valid">203', 'class="valid">10.0.0.1'))
    )


async def test_an_expired_key_is_shown_and_can_be_extended(rig: Rig) -> None:
    record, secret = await rig.key()
    ended = replace(record, version=2, expires_at=time.time() - 10)
    assert await rig.gateway.store.replace_key(ended, _change(rig, time.time()))
    browser = await rig.signed_in()
    path = f"/console/keys/{record.id}"
    page = await browser.get(path)
    assert f"{path}/rotate" not in forms_of(page)
    renamed = await submitted(browser, page, path, name="still expired")
    assert renamed.status_code == 422  # it would have to be defaults another end first
    answer = await submitted(browser, page, path, expires="2099-01-01T00:00:00")
    assert answer.status_code == 303
    prolonged = await rig.gateway.keys.get(rig.account.id, record.id)
    assert prolonged is not None
    assert prolonged.status(time.time()) is KeyStatus.ACTIVE
    assert await call(rig, secret) == 200


@pytest.mark.own_gateway
async def test_scopes_are_described_and_others_defined_by_an_operator() -> None:
    async with serving_console(scopes={"orders:read": "See <all> orders"}) as rig:
        browser = await rig.signed_in()
        page = await created(browser, scopes=["orders:raed"])
        assert page.status_code == 422
        assert "Did you mean &#34;orders:read&#34;? An operator defines it in machpay.toml, below [scopes]" in page.text
        assert "See &lt;all&gt; orders" in page.text
        assert (await created(browser, scopes=["orders:read"])).status_code == 200
