"""Validation of fields: a table of bodies, and the place of each error."""

import json
from typing import Any

import pytest

from tests.admin.conftest import Caller, in_memory, places

pytestmark = in_memory
LONG_AGO, LATER = "2001-01-01T00:00:00Z", "2099-01-01T00:00:00Z"


@pytest.mark.parametrize(
    "setting, mistaken, why",
    [
        ({"name": ""}, ["name"], "empty"),
        ({"name": "  \t "}, ["name"], "nothing but blanks"),
        ({"name": "x" * 100}, [], "as long as can be"),
        ({"name": "🔑" * 100}, [], "counted in characters, not in bytes"),
        ({"name": "x" * 101}, ["name"], "too long"),
        ({"name": "a\nb"}, ["name"], "a control character"),
        ({"name": "a\x00b"}, ["name"], "NUL"),
        ({"name": "a\u202eb"}, ["name"], "text that runs backwards"),
        ({"name": 7}, ["name"], "a number"),
        ({"name": None}, ["name"], "no name"),
        ({"name": ["a"]}, ["name"], "a list"),
        ({"owner": None}, [], "null is nobody in particular"),
        ({"owner": "ü" * 200}, [], "as long as can be, counted in characters"),
        ({"owner": "x" * 201}, ["owner"], "too long"),
        ({"owner": ""}, ["owner"], "empty, as a name"),
        ({"owner": " \t "}, ["owner"], "nothing but blanks"),
        ({"owner": "a\nb"}, ["owner"], "a control character"),
        ({"owner": "a\x00b"}, ["owner"], "NUL"),
        ({"owner": "a\u202eb"}, ["owner"], "text that runs backwards"),
        ({"owner": 7}, ["owner"], "a number"),
        ({"owner": ["a"]}, ["owner"], "a list"),
        ({"scopes": "skills:list"}, ["scopes"], "a text that would be read letter by letter"),
        ({"scopes": None}, ["scopes"], "null"),
        ({"scopes": {"skills:list": True}}, ["scopes"], "an object"),
        ({"scopes": ["skills:list", "skills:list"]}, ["scopes"], "twice"),
        ({"scopes": ["skills:list", None, 1]}, ["scopes.1", "scopes.2"], "no texts"),
        ({"scopes": ["skills:x", "skills:list", "y"]}, ["scopes.0", "scopes.2"], "undefined ones, both told"),
        ({"scopes": ["x" * 129]}, ["scopes.0"], "longer than a name can be"),
        ({"scopes": [f"a:{n}" for n in range(101)]}, ["scopes"], "more than a hundred"),
        ({"environment": "prod"}, ["environment"], "no such thing"),
        ({"environment": "Live"}, ["environment"], "in another case"),
        ({"environment": ""}, ["environment"], "empty"),
        ({"environment": None}, [], "null is to leave it out"),
        ({"allowed_ips": None}, [], "null is from anywhere"),
        ({"allowed_ips": []}, [], "so is none"),
        ({"allowed_ips": "192.0.2.1"}, ["allowed_ips"], "a text"),
        ({"allowed_ips": ["192.0.2.0/24", "192.0.2.1/24"]}, ["allowed_ips.1"], "host bits"),
        ({"allowed_ips": ["192.0.2.0/33"]}, ["allowed_ips.0"], "a prefix that is too long"),
        ({"allowed_ips": ["192.0.2.0/255.255.255.0"]}, ["allowed_ips.0"], "a netmask"),
        ({"allowed_ips": ["192.0.2"]}, ["allowed_ips.0"], "three numbers"),
        ({"allowed_ips": ["0300.0.2.1"]}, ["allowed_ips.0"], "octal"),
        ({"allowed_ips": ["192.0.2.1 "]}, ["allowed_ips.0"], "a blank"),
        ({"allowed_ips": ["٣.0.2.1"]}, ["allowed_ips.0"], "another script's digits"),
        ({"allowed_ips": ["localhost"]}, ["allowed_ips.0"], "a name"),
        ({"allowed_ips": ["fe80::1%eth0"]}, ["allowed_ips.0"], "a zone"),
        ({"allowed_ips": ["::/129"]}, ["allowed_ips.0"], "a prefix that is too long"),
        ({"allowed_ips": [""]}, ["allowed_ips.0"], "empty"),
        ({"allowed_ips": [3221225985]}, ["allowed_ips.0"], "an address as a number"),
        ({"allowed_ips": [f"10.0.{n // 256}.{n % 256}" for n in range(1000)]}, [], "as many as can be"),
        ({"allowed_ips": [f"10.0.{n // 256}.{n % 256}" for n in range(1001)]}, ["allowed_ips"], "one more"),
        ({"expires_at": None}, [], "never"),
        ({"expires_at": LATER}, [], "a moment"),
        ({"expires_at": "2099-01-01t00:00:00.5z"}, [], "RFC 3339 takes lower case and fractions"),
        ({"expires_at": "9999-12-31T23:59:59Z"}, [], "the last moment there is"),
        ({"expires_at": LONG_AGO}, ["expires_at"], "past"),
        ({"expires_at": "2099-01-01"}, ["expires_at"], "a day"),
        ({"expires_at": "2099-01-01T00:00:00"}, ["expires_at"], "no offset: whose time?"),
        ({"expires_at": "2099-01-01 00:00:00Z"}, ["expires_at"], "a blank for the T"),
        ({"expires_at": "2099-W01-1T00:00:00Z"}, ["expires_at"], "a week"),
        ({"expires_at": "10000-01-01T00:00:00Z"}, ["expires_at"], "the year 10000"),
        ({"expires_at": "9999-12-31T23:59:59-01:00"}, ["expires_at"], "the year 10000, in UTC"),
        ({"expires_at": "2098-02-31T00:00:00Z"}, ["expires_at"], "31 February"),
        ({"expires_at": "2098-12-31T23:59:60Z"}, ["expires_at"], "a leap second that is not known yet"),
        ({"expires_at": "2099-01-01T24:00:00Z"}, ["expires_at"], "an hour too many"),
        ({"expires_at": "2099-01-01T00:00:00+99:00"}, ["expires_at"], "an offset that is none"),
        ({"expires_at": "٢٠٩٩-01-01T00:00:00Z"}, ["expires_at"], "another script's digits"),
        ({"expires_at": "4070908800"}, ["expires_at"], "a unix time as text"),
        ({"expires_at": 4070908800}, ["expires_at"], "a unix time, or is it in milliseconds?"),
        ({"expires_at": 4070908800.5}, ["expires_at"], "a unix time"),
        ({"expires_at": True}, ["expires_at"], "a boolean"),
        ({"expires_at": ""}, ["expires_at"], "empty"),
        ({"metadata": None}, [], "none"),
        ({"metadata": {"k" * 40: "v" * 500, "empty": ""}}, [], "as long as can be"),
        ({"metadata": {str(n): "" for n in range(50)}}, [], "as many as can be"),
        ({"metadata": {str(n): "" for n in range(51)}}, ["metadata"], "one more"),
        ({"metadata": {"k" * 41: ""}}, ["metadata." + "k" * 41], "a key too long"),
        ({"metadata": {"": ""}}, ["metadata."], "an empty key"),
        ({"metadata": {"k": "v" * 501}}, ["metadata.k"], "a value too long"),
        ({"metadata": {"k": 1}}, ["metadata.k"], "a number"),
        ({"metadata": {"k": None}}, ["metadata.k"], "null"),
        ({"metadata": {"k": {"l": "m"}}}, ["metadata.k"], "nested"),
        ({"metadata": {"k\n": "v"}}, ["metadata"], "a key that cannot be shown"),
        ({"metadata": [["k", "v"]]}, ["metadata"], "pairs as a list"),
        ({"metadata": "k=v"}, ["metadata"], "a text"),
        ({"tier": "test"}, ["tier"], "an operator's to set"),
        ({"own_tier": "test"}, ["own_tier"], "likewise"),
        ({"own_tier": None}, ["own_tier"], "and to end"),
        ({"account_tier": "test"}, ["account_tier"], "the account's"),
        ({"nmae": "x"}, ["nmae"], "a typo"),
        ({"Name": "x"}, ["Name"], "in another case"),
        ({"__proto__": {}}, ["__proto__"], "a name with a meaning elsewhere"),
    ],
)
async def test_each_error_is_reported_with_its_place(
    admin: Caller, setting: dict[str, Any], mistaken: list[str], why: str
) -> None:
    created = await admin.created()
    before = await admin.api.head()
    new = await admin.ask("POST", "/v1/keys", {"name": "a", "scopes": [], **setting})
    assert (new.status_code, places(new)) == (422 if mistaken else 201, mistaken), why
    if mistaken:
        assert await admin.api.head() == before
    if setting.keys() & {"environment"}:
        return
    changed = await admin.ask("PATCH", f"/v1/keys/{created['id']}", setting)
    assert (changed.status_code, places(changed)) == (422 if mistaken else 200, mistaken), why


async def test_all_errors_are_reported_at_once(admin: Caller) -> None:
    body = {
        "scopes": ["skills:list", "x"],
        "environment": "prod",
        "allowed_ips": ["192.0.2.1", "192.0.2.1/8"],
        "expires_at": LONG_AGO,
        "metadata": {"k": 1, "l": "v" * 501},
        "tier": "enterprise",
    }
    response = await admin.ask("POST", "/v1/keys", body)
    assert response.status_code == 422
    reported = sorted(places(response))
    assert reported == sorted(
        ["name", "scopes.1", "environment", "allowed_ips.1", "expires_at", "metadata.k", "metadata.l", "tier"]
    )
    assert all(error["reason"] for error in response.json()["errors"])


async def test_a_response_reports_at_most_a_hundred_errors(admin: Caller) -> None:
    response = await admin.ask("POST", "/v1/keys", {f"field{n}": n for n in range(5000)})
    assert len(places(response)) == 100


@pytest.mark.parametrize("action", ["/end-grace", "/revoke"])
async def test_operations_without_fields_refuse_any(admin: Caller, action: str) -> None:
    created = await admin.created()
    path = f"/v1/keys/{created['id']}{action}"
    response = await admin.ask("POST", path, {"reason": "lost"})
    assert (response.status_code, places(response)) == (422, ["reason"])
    assert (await admin.ask("POST", path, {})).status_code == 200


@pytest.mark.parametrize(
    "grace, is_read",
    [(0, True), (604_800, True), (604_801, False), (-1, False), (60.0, False), (60.5, False), (True, False),
     ("60", False), (None, False), (10**30, False)],
)  # fmt: skip
async def test_a_grace_is_a_number_of_seconds_up_to_a_week(admin: Caller, grace: object, is_read: bool) -> None:  # noqa: FBT001 - a column
    created = await admin.created()
    before = await admin.api.head()
    response = await admin.ask("POST", f"/v1/keys/{created['id']}/rotate", {"grace_seconds": grace})
    assert (response.status_code, places(response)) == ((200, []) if is_read else (422, ["grace_seconds"]))
    assert (await admin.api.head() != before) is is_read


@pytest.mark.parametrize(
    "field, value",
    [
        ("name", "{}"), ("owner", "{}"), ("name", "x" * 60 + " {}"), ("scopes", ["{}"]), ("environment", "{}"),
        ("allowed_ips", ["{}"]), ("allowed_ips", ["{}/33"]), ("allowed_ips", ["{}/a"]), ("expires_at", "{}"),
        ("metadata", {"{}": "v"}), ("metadata", {"k": "{}"}), ("metadata", {"k": "at {}!" + "x" * 500}),
        ("metadata", {"{}" + "k" * 41: "v"}), ("metadata", {"{}": 1}), ("metadata", "{}"), ("{}", 1), ("tier", "{}"),
        ("own_tier", "{}"),
    ],
)  # fmt: skip
async def test_a_secret_in_the_wrong_place_is_neither_stored_nor_repeated(
    admin: Caller, field: str, value: object
) -> None:
    written = json.dumps({"name": "a", "scopes": [], field: value}).replace("{}", admin.secret)
    assert admin.secret in written
    before = await admin.api.head()
    response = await admin.ask("POST", "/v1/keys", json.loads(written))
    assert response.status_code == 422
    for at in range(13, len(admin.secret) - 8):  # no eight characters of it in a row
        assert admin.secret[at : at + 8] not in response.text
    assert await admin.api.head() == before


async def test_networks_and_names_are_returned_normalized(admin: Caller) -> None:
    created = await admin.created(
        name="  deploy ",
        owner=" customer 17 ",
        allowed_ips=["2001:DB8::/32", "192.0.2.1/32", "192.0.2.1", "::ffff:192.0.2.7"],
        expires_at="2099-01-01T01:00:00+01:00",
    )
    assert (created["name"], created["owner"]) == ("deploy", "customer 17")
    assert created["allowed_ips"] == ["2001:db8::/32", "192.0.2.1", "192.0.2.7"]
    assert created["expires_at"] == LATER
