"""Sign-ins and refusals in the audit log and in the process log."""

import logging
from typing import Any

import orjson
import pytest

from machpay_gateway.core.accounts.user import masked_email
from tests.console.crafted import posted
from tests.console.harness import ADMIN, FORM, PASSWORD, VIEWER, Rig, submitted

WRONG = "wrong horse battery"


async def attempt(rig: Rig, email: str, password: str, address: str = "192.0.2.9") -> int:
    browser = rig.http(address)
    page = await browser.get("/console/sign-in")
    return (await submitted(browser, page, email=email, password=password)).status_code


async def rows(rig: Rig, account_id: str, action: str) -> list[Any]:
    return [row for row in await rig.gateway.store.audit_page(account_id, limit=200) if row.action == action]


async def test_right_and_wrong_sign_ins_are_in_both_logs(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="machpay_gateway")
    assert [await attempt(rig, ADMIN, WRONG) for _ in range(5)] == [400] * 5
    assert await attempt(rig, ADMIN, PASSWORD) == 303
    ada = rig.users[ADMIN]
    failed = await rows(rig, ada.account_id, "user.sign_in_failed")
    assert len(failed) == 5
    for row in failed:
        assert (row.object_id, row.address, row.actor_kind) == (ada.id, "192.0.2.9", "anonymous")
        assert orjson.loads(row.after) == {"reason": "wrong password"}
        assert row.request_id
    (right,) = await rows(rig, ada.account_id, "user.sign_in")
    assert (right.actor_id, right.object_id, right.address) == (ada.id, ada.id, "192.0.2.9")
    messages = [record.getMessage() for record in caplog.records if "user.sign_in" in record.getMessage()]
    assert len(messages) == 6
    assert all(ada.id in line and "192.0.2.9" in line and failed[0].request_id[:8] in line for line in messages)
    assert WRONG not in caplog.text + str(failed)
    assert PASSWORD not in caplog.text + str(right)


@pytest.mark.parametrize(
    "typed, masked",
    [
        ("nobody@example.org", "n…@example.org"),
        (" NoBody@Mail.Example.org ", "n…@mail.example.org"),
        (PASSWORD, "…"),
        ("Tr0ub4dor&3", "…"),
        ("p@ssw0rd!", "…"),
        ("p@ssword", "…"),
        ("a@b@example.org", "…"),
        ("a\r\nb@example.org", "…"),
        ("a" * 300 + "@example.org", "…"),
        ("", "…"),
    ],
)
async def test_an_unknown_email_is_masked_and_other_text_is_not_recorded(rig: Rig, typed: str, masked: str) -> None:
    assert masked_email(typed) == masked
    assert await attempt(rig, typed, WRONG) == 400
    (row,) = await rows(rig, "system", "user.sign_in_failed")
    assert orjson.loads(row.after) == {"reason": "no such user", "email": masked}


async def test_a_flood_of_refusals_is_one_row_a_minute_with_their_number(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    users: Any = rig.gateway.users
    clock = users._clock  # noqa: SLF001 - the tests' way to another time
    for email, account_id in ((ADMIN, rig.account.id), ("nobody@example.org", "system")):
        statuses = [await attempt(rig, email, WRONG) for _ in range(16)]
        assert statuses == [400] * 6 + [429] * 10
        (row,) = await rows(rig, account_id, "user.sign_in_throttled")
        assert orjson.loads(row.after)["attempts"] == 1
    users._clock = lambda: clock() + 61  # noqa: SLF001 - as above
    assert await attempt(rig, ADMIN, WRONG) == 429
    last, first = await rows(rig, rig.account.id, "user.sign_in_throttled")
    assert [orjson.loads(row.after)["attempts"] for row in (first, last)] == [1, 10]
    # The others of the unknown email had nobody after them, and are not lost.
    assert [orjson.loads(row.after)["attempts"] for row in await rows(rig, "system", "user.sign_in_throttled")] == [
        9,
        1,
    ]
    assert caplog.text.count("user.sign_in_throttled") == 4


async def test_every_sign_out_is_recorded(rig: Rig) -> None:
    browser, other = await rig.signed_in(), await rig.signed_in()
    await submitted(browser, await browser.get("/console/sessions"), "/console/sessions/end-others")
    answer = await submitted(browser, await browser.get("/console/keys"), "/console/sign-out")
    assert answer.headers["clear-site-data"] == '"cache", "storage"'
    assert "__Host-machpay-session" not in browser.cookies
    assert browser.cookies["__Host-machpay-device"]
    own, others = await rows(rig, rig.account.id, "user.sign_out")
    assert {own.object_id, others.object_id, own.actor_id} == {rig.users[ADMIN].id}
    assert orjson.loads(others.after) == {"session": "all others"}
    assert (await other.get("/console/keys")).status_code == 303


async def test_what_the_console_refuses_is_recorded_once_a_minute(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    viewer, admin = await rig.signed_in(VIEWER), await rig.signed_in()
    for _ in range(3):
        assert (await posted(viewer, "/keys/new", name="x")).status_code == 403
        assert (await admin.post("/console/keys/new", content="proof=x", headers=FORM)).status_code == 403
    refusals = await rows(rig, rig.account.id, "console.refused")
    assert {(row.object_id, orjson.loads(row.after)["reason"]) for row in refusals} == {
        (rig.users[VIEWER].id, "not an admin"),
        (rig.users[ADMIN].id, "invalid CSRF token"),
    }
    assert len(refusals) == 2
    assert all(orjson.loads(row.after)["path"] == "/keys/new" and row.request_id for row in refusals)
    assert caplog.text.count("console.refused") == 2
    page = (await admin.get("/console/audit?action=console.refused")).text
    assert "Console action refused" in page


async def test_the_audit_log_describes_sign_ins(rig: Rig) -> None:
    await attempt(rig, ADMIN, WRONG)
    page = (await (await rig.signed_in()).get("/console/audit?action=user.")).text
    assert "Sign-in failed" in page
    assert "User signed in" in page
    assert "anonymous" in page
