"""The audit log as people read it, and as a file."""

import csv
import re
from collections.abc import Sequence
from html import unescape
from io import StringIO
from typing import Any

import pytest
from httpx2 import AsyncClient

from machpay_gateway.console import audit
from machpay_gateway.core.errors import StoreUnavailable
from machpay_gateway.core.keys.audit import Actor, AuditFilter, AuditRow, Change
from tests.console.crafted import HOSTILE, below, lose
from tests.console.harness import ADMIN, STRANGER, VIEWER, Rig, forms_of, submitted

DAY = 86_400.0
JUNE_1 = 1_780_272_000.0  # 2026-06-01T00:00:00Z


async def noted(rig: Rig, number: int, *, account_id: str = "", **change: Any) -> None:  # noqa: ANN401 - any of its fields
    """Write a change of the account's down."""
    given: dict[str, Any] = {
        "at": JUNE_1 + number,
        "actor": Actor("operator"),
        "action": "key.update",
        "account_id": account_id or rig.account.id,
        "object_id": "key_1",
        "before": {},
        "after": {},
    }
    assert await rig.gateway.store.add_change(Change(**(given | change)), number.to_bytes(32, "big"))


def rows_of(page: str) -> list[str]:
    """Return what each row of the table says, in text alone."""
    body = page.partition("<tbody>")[2].partition("</tbody>")[0]
    return [
        " ".join(unescape(re.sub(r"<[^>]*>", " ", row)).split()) for row in re.findall(r"<tr>.*?</tr>", body, re.DOTALL)
    ]


async def rows(browser: AsyncClient, **asked: str) -> list[str]:
    page = await browser.get("/console/audit", params=asked)
    assert page.status_code == 200
    return rows_of(page.text)


async def cells(browser: AsyncClient, **asked: str) -> list[list[str]]:
    answer = await browser.get("/console/audit.csv", params=asked)
    assert answer.status_code == 200
    return list(csv.reader(StringIO(answer.text, newline="")))


async def test_a_row_tells_who_did_what_to_what_from_where_and_how_it_was_before(rig: Rig) -> None:
    key, _ = await rig.key()
    browser = await rig.signed_in(address="192.0.2.33")
    page = await browser.get(f"/console/keys/{key.id}")
    await submitted(browser, page, f"/console/keys/{key.id}", name="billing-api")
    found = (await rows(browser))[0]
    for part in (
        "Key updated",
        key.id,
        "user ada@example.org",
        "from 192.0.2.33",
        "Name production-api → billing-api",
    ):
        assert part in found
    (row, *_) = await rig.gateway.store.audit_page(rig.account.id)
    assert row.request_id
    assert row.request_id in found
    text = (await browser.get("/console/audit")).text
    assert f'href="/console/keys/{key.id}"' in text
    assert "<time " in text
    assert f'href="/console/audit?object={key.id}"' in (await browser.get(f"/console/keys/{key.id}")).text


async def test_the_log_is_filtered_by_all_that_is_asked(rig: Rig) -> None:
    ada = rig.users[ADMIN]
    by_ada = Actor("user", ada.id)
    await noted(rig, 1, action="key.rotate", actor=by_ada)
    await noted(rig, 2, action="client.update", object_id="app_1")
    await noted(rig, 3, action="client.delete", object_id="app_1", actor=by_ada)
    await noted(rig, 4, action="grant.revoke", object_id="grant_1", at=JUNE_1 + DAY)
    await noted(rig, 5, action="grant.revoke", object_id="grant_2", at=JUNE_1 + 2 * DAY)
    browser = await rig.signed_in()
    for asked, expected in (
        ({"action": "client."}, ["App deleted", "App updated"]),
        ({"action": "client.update"}, ["App updated"]),
        ({"who": ada.id, "from": "2026-06-01", "until": "2026-06-30"}, ["App deleted", "Key rotated"]),
        ({"who": " ADA@example.org "}, ["User signed in", "App deleted", "Key rotated"]),
        ({"who": ADMIN, "action": "key."}, ["Key rotated"]),
        ({"object": "app_1"}, ["App deleted", "App updated"]),
        ({"from": "2026-06-02", "until": "2026-06-02"}, ["Grant revoked"]),
        ({"until": "2026-06-01", "action": "key."}, ["Key rotated"]),
        ({"object": "app_2"}, []),
        ({"who": "nobody@example.org"}, []),
        ({"object": "no id\x00"}, []),
        ({"who": "\x00"}, []),
        ({"from": "yesterday"}, []),
        ({"until": "2026-02-31"}, []),
        ({"before": "0"}, []),
    ):
        found = await rows(browser, **asked)
        assert len(found) == len(expected), asked
        assert all(words in row for words, row in zip(expected, found, strict=True)), asked
        exported = await cells(browser, **{name: value for name, value in asked.items() if name != "before"})
        assert len(exported) - 1 == len(expected) or "before" in asked
    assert "is not a date" in (await browser.get("/console/audit?from=yesterday")).text
    # One that there is not is no filter, and the page says so: everything is chosen.
    assert len(await rows(browser, action="made.up")) == len(await rows(browser))


async def test_what_nothing_can_be_called_never_reaches_the_database(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    browser, reached = await rig.signed_in(), []

    async def noticed(*args: object, **asked: object) -> Sequence[AuditRow]:
        reached.append((args, asked))
        return []

    monkeypatch.setattr(rig.gateway.store, "audit_page", noticed)
    for asked in ({"who": "\x00"}, {"who": "a\u202eb"}, {"object": "\x00"}, {"object": "é"}, {"until": "\x00"}):
        for path in ("/audit", "/audit.csv"):
            assert (await browser.get(f"/console{path}", params=asked)).status_code == 200
    assert reached == []
    await browser.get("/console/audit?who=%E4%BD%A0")
    assert len(reached) == 1


async def test_what_is_asked_for_is_kept_on_the_way_to_older_rows(rig: Rig) -> None:
    for number in range(1, 121):
        await noted(rig, number, action="key.rotate" if number % 2 else "client.update", after={"grace": number})
    browser = await rig.signed_in()
    page = await browser.get("/console/audit?action=key.")
    assert len(rows_of(page.text)) == 50
    (older,) = re.findall(r'rel="next" href="([^"]*)"', page.text)
    rest = rows_of((await browser.get(unescape(older))).text)
    assert len(rest) == 10
    assert "Grace 1 " in rest[-1] + " "
    assert all("Key rotated" in row for row in rest)
    (file,) = re.findall(r'href="([^"]*/audit.csv[^"]*)"', page.text)
    assert unescape(file) == "/console/audit.csv?action=key."


async def test_another_accounts_changes_are_not_there(rig: Rig) -> None:
    key, _ = await rig.key(account=rig.other)
    browser = await rig.signed_in()
    await noted(rig, 1, account_id=rig.other.id, actor=Actor("user", rig.users[STRANGER].id), object_id="key_theirs")
    for asked in ({}, {"object": "key_theirs"}, {"object": key.id}, {"who": STRANGER}, {"who": rig.users[STRANGER].id}):
        found = " ".join(await rows(browser, **asked))
        assert "key_theirs" not in found
        assert key.id not in found
        assert "key_theirs" not in str(await cells(browser, **asked))


async def test_a_viewer_reads_it_all_the_same(rig: Rig) -> None:
    await noted(rig, 1)
    browser = await rig.signed_in(VIEWER)
    page = await browser.get("/console/audit")
    assert "Key updated" in page.text
    assert set(forms_of(page)) == {"/console/sign-out", "/console/audit"}
    assert len(await cells(browser)) > 1


async def test_long_values_are_folded_and_hostile_ones_do_nothing(rig: Rig) -> None:
    long = "x" * 500
    await noted(rig, 1, before={"name": HOSTILE}, after={"name": long, HOSTILE: HOSTILE}, object_id="key_1")
    await noted(rig, 2, actor=Actor("jwt", HOSTILE, "192.0.2.1", HOSTILE), action=HOSTILE, object_id=HOSTILE)
    await noted(rig, 3, after={"name": "שלום", "a": "\u202eevil", "b": "b", "c": "c"})
    browser = await rig.signed_in()
    page = (await browser.get("/console/audit")).text
    assert "<img" not in page
    assert "<script>" not in page
    assert f"<summary>{'x' * 60}…</summary>" in page
    assert "<summary>4 settings</summary>" in page
    assert '<bdi class="value">\u202eevil</bdi>' in page
    assert "{&#34;" not in page  # no raw JSON


async def test_the_file_has_the_same_with_every_formula_defused(rig: Rig) -> None:
    for number, name in enumerate(("=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "＝1", "safe"), 1):  # noqa: RUF001 - wide
        await noted(rig, number, actor=Actor("jwt", name, None, name))
    browser = await rig.signed_in()
    answer = await browser.get("/console/audit.csv?action=key.update")
    assert answer.headers["content-type"].startswith("text/csv; charset=utf-8")
    assert answer.headers["content-disposition"] == 'attachment; filename="audit-log.csv"'
    assert answer.headers["cache-control"] == "no-store"
    header, *found = csv.reader(StringIO(answer.text, newline=""))
    assert header[:4] == ["number", "at", "actor kind", "actor id"]
    assert [row[3] for row in found] == ["safe", "'＝1", "'\r'=1", "'\t'=1", "'@SUM(A1)", "'-1", "'+1", "'=1+1"]  # noqa: RUF001 - wide
    assert all(row[10] == row[3] for row in found)
    assert found[0][1] == "2026-06-01T00:00:08Z"


async def test_the_file_ends_after_so_many_rows_and_is_read_in_parts(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "_EXPORT_BATCH", 4)
    monkeypatch.setattr(audit, "_MAX_EXPORTED", 10)
    for number in range(1, 21):
        await noted(rig, number, after={"n": number})
    found = await cells(await rig.signed_in(), action="key.update")
    assert [row[9] for row in found[1:]] == [f'{{"n":{number}}}' for number in range(20, 10, -1)]


async def test_a_file_that_breaks_off_says_so(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "_EXPORT_BATCH", 2)
    for number in range(1, 6):
        await noted(rig, number)
    browser, store = await rig.signed_in(), rig.gateway.store
    whole = store.audit_page

    async def failing(
        account_id: str | None, *, chosen: AuditFilter, before: int | None = None, limit: int = 100
    ) -> Sequence[AuditRow]:
        if before is not None:
            raise StoreUnavailable("audit log")
        return await whole(account_id, chosen=chosen, before=before, limit=limit)

    monkeypatch.setattr(store, "audit_page", failing)
    found = await cells(browser)
    assert len(found) == 4
    assert found[-1] == ["The database is unavailable. Older entries are missing."]


async def test_a_store_that_is_away_is_told_by_a_page(rig: Rig) -> None:
    browser = await rig.signed_in()
    await lose(rig, "audit_log")
    for path in ("/audit", "/audit.csv"):
        assert (await browser.get(f"/console{path}")).status_code == 503


async def test_the_page_works_below_a_root_path(rig: Rig) -> None:
    await noted(rig, 1)
    browser = await below(rig, "/machpay")
    page = await browser.get("/machpay/console/audit")
    assert 'href="/machpay/console/keys/key_1"' in page.text
    assert '"/console' not in page.text
