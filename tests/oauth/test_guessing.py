"""What cannot be guessed, and that whoever tries is slowed without shutting out the one whose it is."""

import math
from collections import Counter
from typing import Any

import pytest

from machpay_gateway.core.keys.key import BASE62
from machpay_gateway.core.oauth.opaque_token import OpaqueTokenKind, digest_of, mint, successor
from tests.oauth.harness import EMAIL, PASSWORD, Rig, request_of, serving_oauth, submitted


@pytest.mark.parametrize("kind", OpaqueTokenKind)
def test_ten_thousand_strings_are_all_different_and_look_random(kind: OpaqueTokenKind) -> None:
    import os  # noqa: PLC0415 - the system's randomness, as it is used

    minted = [mint(kind, os.urandom(32)) for _ in range(10_000)]
    assert len(set(minted)) == 10_000
    bodies = [text.removeprefix(kind)[:32] for text in minted]
    assert all(len(text) == len(kind) + 38 for text in minted)
    for place in range(32):  # each character as often as any other, by more than six deviations of chance
        counts = Counter(body[place] for body in bodies)
        assert set(counts) == set(BASE62)
        assert max(abs(count - 10_000 / 62) for count in counts.values()) < 6 * math.sqrt(10_000 / 62)
    assert 32 * math.log2(62) >= 128


def test_junk_is_told_by_its_shape_alone() -> None:
    good = mint(OpaqueTokenKind.CODE, bytes(range(32)))
    assert digest_of(OpaqueTokenKind.CODE, good) is not None
    assert digest_of(OpaqueTokenKind.REFRESH_TOKEN, good) is None
    for junk in ("", good[:-1], good + "0", good[:-1] + ("0" if good[-1] != "0" else "1"), good.swapcase(), "\0" * 45):
        assert digest_of(OpaqueTokenKind.CODE, junk) is None


def test_a_successor_takes_both_the_token_and_the_seed() -> None:
    token = mint(OpaqueTokenKind.REFRESH_TOKEN, bytes(32))
    assert successor(token, b"a" * 32) == successor(token, b"a" * 32)
    others = {successor(token, b"b" * 32), successor(mint(OpaqueTokenKind.REFRESH_TOKEN, bytes([1]) * 32), b"a" * 32)}
    assert successor(token, b"a" * 32) not in others


async def attempt(rig: Rig, address: str, password: str, email: str = EMAIL) -> int:
    browser = rig.http(address=address)
    page = await browser.get("/oauth/authorize", params=request_of(rig.client))
    return (await submitted(browser, page, email=email, password=password)).status_code


async def test_an_address_that_guesses_a_password_is_slowed_and_its_owner_elsewhere_is_not(rig: Rig) -> None:
    statuses = [await attempt(rig, "198.51.100.9", f"wrong {n}") for n in range(8)]
    assert statuses == [400] * 6 + [429] * 2
    assert await attempt(rig, "198.51.100.9", PASSWORD) == 429  # the right one too: else the answer would tell
    assert await attempt(rig, "192.0.2.7", PASSWORD) == 303


async def test_unknown_e_mails_are_slowed_alike(rig: Rig) -> None:
    statuses = [await attempt(rig, "198.51.100.9", "wrong", "nobody@example.org") for _ in range(8)]
    assert statuses == [400] * 6 + [429] * 2


async def test_all_addresses_of_an_ipv6_block_are_one(rig: Rig) -> None:
    statuses = [await attempt(rig, f"2001:db8:0:7::{n:x}", f"wrong {n}") for n in range(1, 9)]
    assert statuses == [400] * 6 + [429] * 2
    assert await attempt(rig, "2001:db8:0:8::1", PASSWORD) == 303


async def test_an_address_that_brings_dead_codes_is_slowed() -> None:
    async with serving_oauth(failure_limit="5/minute") as rig:
        public, _ = await rig.new_client(is_public=True)
        sent = {"grant_type": "refresh_token", "refresh_token": mint(OpaqueTokenKind.REFRESH_TOKEN, bytes(32))}
        assert [(await rig.token(public, **sent)).status_code for _ in range(7)] == [400] * 5 + [429] * 2


async def test_an_app_whose_visitors_bring_it_dead_codes_serves_everybody_else() -> None:
    async with serving_oauth(failure_limit="5/minute") as rig:
        tokens = await rig.tokens()
        for number in range(20):  # made up by a visitor, and presented by the app with its secret, as they must be
            answer = await rig.exchanged(mint(OpaqueTokenKind.CODE, bytes([number]) * 32))
            assert (answer.status_code, answer.json()["error"]) == (400, "invalid_grant")
        assert (await rig.refreshed(tokens["refresh_token"])).status_code == 200


async def test_where_somebody_is_signed_in_strangers_elsewhere_cannot_shut_them_out(rig: Rig) -> None:
    home, elsewhere = "192.0.2.7", "192.0.2.8"
    assert await attempt(rig, home, PASSWORD) == 303
    for number in range(100):  # all that an e-mail has, by somebody with many addresses
        await rig.gateway.users.sign_in(EMAIL, "x" * 2000, address=number, display_address=None)
    assert await attempt(rig, elsewhere, PASSWORD) == 429
    assert await attempt(rig, home, PASSWORD) == 303  # in a new browser


async def test_a_browser_that_has_signed_in_before_is_not_shut_out_by_anybody(rig: Rig) -> None:
    browser = rig.http(address="192.0.2.7")
    page = await browser.get("/oauth/authorize", params=request_of(rig.client))
    assert (await submitted(browser, page, email=EMAIL, password=PASSWORD)).status_code == 303
    device = browser.cookies["__Host-machpay-device"]
    for number in range(100):
        await rig.gateway.users.sign_in(EMAIL, "x" * 2000, address=number, display_address=None)
    elsewhere = rig.http(address="198.51.100.9")
    for cookie, status in ((device[:-1] + ("0" if device[-1] != "0" else "1"), 429), (device, 303)):
        elsewhere.cookies.set("__Host-machpay-device", cookie)
        page = await elsewhere.get("/oauth/authorize", params=request_of(rig.client) | {"prompt": "login"})
        assert (await submitted(elsewhere, page, email=EMAIL, password=PASSWORD)).status_code == status


async def test_known_disabled_and_unknown_e_mails_cost_one_hash_each(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    users, checked = rig.gateway.users, []
    await attempt(rig, "192.0.2.1", "wrong", "first@example.org")  # makes the hash that is nobody's
    in_thread = users._passwords.in_thread  # noqa: SLF001 - to count

    async def counted(*arguments: Any) -> Any:  # noqa: ANN401 - as `in_thread`
        checked.append(arguments)
        return await in_thread(*arguments)

    monkeypatch.setattr(users._passwords, "in_thread", counted)  # noqa: SLF001 - as above
    for number, email in enumerate((EMAIL, "nobody@example.org", PASSWORD)):
        assert await attempt(rig, f"198.51.100.{number}", "wrong", email) == 400
        assert len(checked) == number + 1
    await users.disable(rig.user)
    assert await attempt(rig, "198.51.100.9", PASSWORD) == 400
    assert len(checked) == 4
