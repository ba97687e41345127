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


async def record_change(rig: Rig, number: int, *, account_id: str = "", **change: Any) -> None:  # noqa: ANN401 - any of its fields
    """Write a change to the account's log."""
    defaults: dict[str, Any] = {
        "at": JUNE_1 + number,
        "actor": Actor("operator"),
        "action": "key.update",
        "account_id": account_id or rig.account.id,
        "object_id": "key_1",
        "before": {},
        "after": {},
    }
    assert await rig.gateway.store.add_change(Change(**(defaults | change)), number.to_bytes(32, "big"))


def rows_of(page: str) -> list[str]:
    """Return the text of each row of the table."""
    body = page.partition("<tbody>")[2].partition("</tbody>")[0]
    return [
        " ".join(unescape(re.sub(r"<[^>]*>", " ", row)).split()) for row in re.findall(r"<tr>.*?</tr>", body, re.DOTALL)
    ]


async def rows(browser: AsyncClient, **filters: str) -> list[str]:
    page = await browser.get("/console/audit", params=filters)
    assert page.status_code == 200
    return rows_of(page.text)


async def cells(browser: AsyncClient, **filters: str) -> list[list[str]]:
    answer = await browser.get("/console/audit.csv", params=filters)
    assert answer.status_code == 200
    return list(csv.reader(StringIO(answer.text, newline="")))


async def test_a_row_has_actor_action_object_address_and_changes(rig: Rig) -> None:
    key, _ = await rig.key()
    browser = await rig.signed_in(address="192.0.2.33")
    page = await browser.get(f"/console/keys/{key.id}")
    await submitted(browser, page, f"/console/keys/{key.id}", name="billing-api")
    lines = (await rows(browser))[0]
    for part in (
        "Key updated",
        key.id,
        "user ada@example.org",
        "from 192.0.2.33",
        "Name production-api changed to billing-api",
    ):
        assert part in lines
    (row, *_) = await rig.gateway.store.audit_page(rig.account.id)
    assert row.request_id
    assert row.request_id in lines
    text = (await browser.get("/console/audit")).text
    assert f'href="/console/keys/{key.id}"' in text
    assert "<time " in text
    assert f'href="/console/audit?object={key.id}"' in (await browser.get(f"/console/keys/{key.id}")).text


async def test_the_log_is_filtered_by_every_parameter(rig: Rig) -> None:
    ada = rig.users[ADMIN]
    by_ada = Actor("user", ada.id)
    await record_change(rig, 1, action="key.rotate", actor=by_ada)
    await record_change(rig, 2, action="client.update", object_id="app_1")
    await record_change(rig, 3, action="client.delete", object_id="app_1", actor=by_ada)
    await record_change(rig, 4, action="grant.revoke", object_id="grant_1", at=JUNE_1 + DAY)
    await record_change(rig, 5, action="grant.revoke", object_id="grant_2", at=JUNE_1 + 2 * DAY)
    browser = await rig.signed_in()
    for filters, expected in (
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
        lines = await rows(browser, **filters)
        assert len(lines) == len(expected), filters
        assert all(words in row for words, row in zip(expected, lines, strict=True)), filters
        exported = await cells(browser, **{name: value for name, value in filters.items() if name != "before"})
        assert len(exported) - 1 == len(expected) or "before" in filters
    assert "is not a date" in (await browser.get("/console/audit?from=yesterday")).text
    # One that there is not is no filter, and the page says so: everything is chosen.
    assert len(await rows(browser, action="made.up")) == len(await rows(browser))


async def test_impossible_ids_never_reach_the_database(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    browser, queries = await rig.signed_in(), []

    async def audit_page(*args: object, **filters: object) -> Sequence[AuditRow]:
        queries.append((args, filters))
        return []

    monkeypatch.setattr(rig.gateway.store, "audit_page", audit_page)
    for filters in ({"who": "\x00"}, {"who": "a\u202eb"}, {"object": "\x00"}, {"object": "é"}, {"until": "\x00"}):
        for path in ("/audit", "/audit.csv"):
            assert (await browser.get(f"/console{path}", params=filters)).status_code == 200
    assert queries == []
    await browser.get("/console/audit?who=%E4%BD%A0")
    assert len(queries) == 1


async def test_filters_are_kept_on_the_next_page(rig: Rig) -> None:
    for number in range(1, 121):
        await record_change(
            rig, number, action="key.rotate" if number % 2 else "client.update", after={"grace": number}
        )
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


async def test_another_accounts_changes_are_not_shown(rig: Rig) -> None:
    key, _ = await rig.key(account=rig.other)
    browser = await rig.signed_in()
    await record_change(
        rig, 1, account_id=rig.other.id, actor=Actor("user", rig.users[STRANGER].id), object_id="key_theirs"
    )
    for filters in (
        {},
        {"object": "key_theirs"},
        {"object": key.id},
        {"who": STRANGER},
        {"who": rig.users[STRANGER].id},
    ):
        lines = " ".join(await rows(browser, **filters))
        assert "key_theirs" not in lines
        assert key.id not in lines
        assert "key_theirs" not in str(await cells(browser, **filters))


async def test_viewers_can_read_the_log(rig: Rig) -> None:
    await record_change(rig, 1)
    browser = await rig.signed_in(VIEWER)
    page = await browser.get("/console/audit")
    assert "Key updated" in page.text
    assert set(forms_of(page)) == {"/console/sign-out", "/console/audit"}
    assert len(await cells(browser)) > 1


async def test_long_values_are_collapsed_and_hostile_ones_are_text(rig: Rig) -> None:
    long = "x" * 500
    await record_change(rig, 1, before={"name": HOSTILE}, after={"name": long, HOSTILE: HOSTILE}, object_id="key_1")
    await record_change(rig, 2, actor=Actor("jwt", HOSTILE, "192.0.2.1", HOSTILE), action=HOSTILE, object_id=HOSTILE)
    await record_change(rig, 3, after={"name": "שלום", "a": "\u202eevil", "b": "b", "c": "c"})
    browser = await rig.signed_in()
    page = (await browser.get("/console/audit")).text
    assert "<img" not in page
    assert "<script>" not in page
    assert f"<summary>{'x' * 60}…</summary>" in page
    assert "<summary>4 settings</summary>" in page
    assert '<bdi class="value">\u202eevil</bdi>' in page
    assert "{&#34;" not in page  # no raw JSON


async def test_the_csv_has_the_same_rows_with_formulas_escaped(rig: Rig) -> None:
    for number, name in enumerate(("=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "＝1", "safe"), 1):  # noqa: RUF001 - wide
        await record_change(rig, number, actor=Actor("jwt", name, None, name))
    browser = await rig.signed_in()
    answer = await browser.get("/console/audit.csv?action=key.update")
    assert answer.headers["content-type"].startswith("text/csv; charset=utf-8")
    assert answer.headers["content-disposition"] == 'attachment; filename="audit-log.csv"'
    assert answer.headers["cache-control"] == "no-store"
    header, *lines = csv.reader(StringIO(answer.text, newline=""))
    assert header[:4] == ["number", "at", "actor kind", "actor id"]
    assert [row[3] for row in lines] == ["safe", "'＝1", "'\r'=1", "'\t'=1", "'@SUM(A1)", "'-1", "'+1", "'=1+1"]  # noqa: RUF001 - wide
    assert all(row[10] == row[3] for row in lines)
    assert lines[0][1] == "2026-06-01T00:00:08Z"


async def test_the_csv_has_a_maximum_of_rows_and_is_read_in_batches(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "_EXPORT_BATCH_SIZE", 4)
    monkeypatch.setattr(audit, "_MAX_EXPORTED_ROWS", 10)
    for number in range(1, 21):
        await record_change(rig, number, after={"n": number})
    lines = await cells(await rig.signed_in(), action="key.update")
    assert [row[9] for row in lines[1:]] == [f'{{"n":{number}}}' for number in range(20, 10, -1)]


async def test_an_incomplete_csv_says_so(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "_EXPORT_BATCH_SIZE", 2)
    for number in range(1, 6):
        await record_change(rig, number)
    browser, store = await rig.signed_in(), rig.gateway.store
    whole = store.audit_page

    async def failing(
        account_id: str | None, *, filters: AuditFilter, before: int | None = None, limit: int = 100
    ) -> Sequence[AuditRow]:
        if before is not None:
            raise StoreUnavailable("audit log")
        return await whole(account_id, filters=filters, before=before, limit=limit)

    monkeypatch.setattr(store, "audit_page", failing)
    lines = await cells(browser)
    assert len(lines) == 4
    assert lines[-1] == ["The database is unavailable. Older entries are missing."]


async def test_an_unavailable_store_has_an_error_page(rig: Rig) -> None:
    browser = await rig.signed_in()
    await lose(rig, "audit_log")
    for path in ("/audit", "/audit.csv"):
        assert (await browser.get(f"/console{path}")).status_code == 503


async def test_the_page_works_below_a_root_path(rig: Rig) -> None:
    await record_change(rig, 1)
    browser = await below(rig, "/machpay")
    page = await browser.get("/machpay/console/audit")
    assert 'href="/machpay/console/keys/key_1"' in page.text
    assert '"/console' not in page.text
