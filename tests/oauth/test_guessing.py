"""What cannot be guessed, and that whoever tries is slowed without shutting out the one whose it is."""

import asyncio
import math
from collections import Counter

import pytest
from argon2 import PasswordHasher

from machpay_gateway.core.keys.key import BASE62
from machpay_gateway.core.oauth.opaque_token import OpaqueTokenKind, digest_of, mint, successor
from machpay_gateway.services.users import NotSignedIn, SignedIn
from tests.oauth.harness import EMAIL, PASSWORD, Rig, request_of, serving_oauth, submitted
from tests.waiting import until

pytestmark = pytest.mark.own_gateway  # has all that may be guessed guessed, from addresses of its own


@pytest.mark.parametrize("kind", OpaqueTokenKind)
def test_ten_thousand_strings_are_all_different_and_look_random(kind: OpaqueTokenKind) -> None:
    import os  # noqa: PLC0415 - the system's randomness, as it is used

    minted = [mint(kind, os.urandom(32)) for _ in range(10_000)]
    assert len(set(minted)) == 10_000
    bodies = [text.removeprefix(f"{kind}_mp1_")[:32] for text in minted]
    assert all(len(text) == len(f"{kind}_mp1_") + 38 for text in minted)
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
    for number in range(100):  # all that an email has, by somebody with many addresses
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


class CountingHasher:
    """A cheap password hasher that counts its work."""

    def __init__(self) -> None:
        self._hasher = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
        self.hashed = 0
        self.verified: list[str] = []

    def hash(self, password: str) -> str:
        self.hashed += 1
        return self._hasher.hash(password)

    def verify(self, stored_hash: str, password: str) -> bool:
        self.verified.append(stored_hash)
        return self._hasher.verify(stored_hash, password)


@pytest.fixture
def hasher(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> CountingHasher:
    """The hasher of the rig's users."""
    counting = CountingHasher()
    monkeypatch.setattr(rig.gateway.users._passwords, "_hasher", counting)  # noqa: SLF001 - to count
    return counting


async def test_known_disabled_and_unknown_e_mails_cost_one_verification_each(rig: Rig, hasher: CountingHasher) -> None:
    users = rig.gateway.users
    without_password = await users.create(rig.user.account_id, "no-password@example.org")
    disabled = await users.create(rig.user.account_id, "disabled@example.org", PASSWORD)
    await users.disable(disabled)
    hasher.hashed = 0
    emails = (
        "unknown@example.org",
        EMAIL,
        "not an email",
        disabled.email,
        without_password.email,
        "unknown@b.example",
    )
    for number, email in enumerate(emails):
        assert await attempt(rig, f"198.51.100.{number}", PASSWORD + "?", email) == 400
        assert len(hasher.verified) == number + 1, email
    assert hasher.hashed == 1  # for the first unknown user of this process: its hash is kept
    dummy_hashes = {hasher.verified[at] for at in (0, 2, 3, 4, 5)}
    assert len(dummy_hashes) == 1
    assert rig.user.password not in dummy_hashes
    assert await attempt(rig, "198.51.100.9", PASSWORD, disabled.email) == 400  # its own password, too
    assert hasher.verified[-1] in dummy_hashes


async def test_a_password_that_is_too_long_is_not_hashed(rig: Rig, hasher: CountingHasher) -> None:
    assert await attempt(rig, "198.51.100.9", "x" * 1025) == 400
    assert hasher.verified == []


@pytest.mark.usefixtures("hasher")
async def test_canceled_sign_ins_leave_no_slot_taken(rig: Rig) -> None:
    users = rig.gateway.users
    for number in range(40):  # more than can wait, each from an address of its own
        task = asyncio.create_task(
            users.sign_in(f"{number}@example.org", PASSWORD, address=number << 64, display_address=None)
        )
        if number % 4:  # canceled at its start, in the queue, or in its thread
            await asyncio.sleep((number % 4 - 1) * 0.003)
            task.cancel()
        result = (await asyncio.gather(task, return_exceptions=True))[0]
        assert isinstance(result, asyncio.CancelledError if number % 4 and task.cancelled() else NotSignedIn)
    result = await users.sign_in(EMAIL, PASSWORD, address=1 << 100, display_address=None)
    assert isinstance(result, SignedIn)
    passwords = users._passwords  # noqa: SLF001 - no thread is taken for busy, and nothing waits
    await until(lambda: passwords._running == 0 and not any(map(len, passwords._lanes)))  # noqa: SLF001 - as above
