"""The cookie of a known browser: whose it is, until when, and that nobody else can make one."""

from dataclasses import replace

import pytest

from machpay_gateway.core.accounts.device import (
    DEVICE_SECONDS,
    PASS_SECONDS,
    device_cookie,
    device_of,
    pass_of,
    sign_in_pass,
)
from machpay_gateway.core.accounts.user import User

NOW = 1_700_000_000.5
ADA = User("user_ada", "acct_1", "ada@example.org", 0.0, password="$argon2id$hers")
NONCE = bytes(range(16))
COOKIE = device_cookie(ADA, NONCE, NOW)
USER, _, ISSUED, SIGNATURE = COOKIE.split(".")


def test_a_known_browser_is_told_by_its_nonce_for_180_days() -> None:
    assert device_of(COOKIE, ADA, NOW) == NONCE.hex()
    assert device_of(COOKIE, ADA, NOW + DEVICE_SECONDS - 1) == NONCE.hex()
    assert device_of(COOKIE, ADA, NOW + DEVICE_SECONDS) is None


@pytest.mark.parametrize(
    "user, why",
    [
        (None, "nobody has that e-mail"),
        (replace(ADA, id="user_bob"), "another user's"),
        (replace(ADA, password="$argon2id$new"), "the password was changed"),
        (replace(ADA, password=None), "there is no password"),
        (replace(ADA, disabled_at=NOW), "the user is disabled"),
        (replace(ADA, devices_from=NOW + 1), "the user was disabled since"),
    ],
    ids=str,
)
def test_it_is_void_for(user: User | None, why: str) -> None:
    assert device_of(COOKIE, user, NOW) is None, why


@pytest.mark.parametrize(
    "cookie",
    [
        "",
        "x" * 100_000,
        COOKIE.upper(),
        COOKIE + "\n",
        COOKIE[:-1] + ("0" if COOKIE[-1] != "0" else "1"),
        f"{USER}.{'f' * 32}.{ISSUED}.{SIGNATURE}",
        f"{USER}.{NONCE.hex()}.{int(ISSUED) + 1}.{SIGNATURE}",
        f"{USER}.{NONCE.hex()}.９{ISSUED[1:]}.{SIGNATURE}",  # noqa: RUF001 - meant
        device_cookie(ADA, NONCE, NOW + 10),  # from the future
    ],
)
def test_what_was_not_issued_is_none(cookie: str) -> None:
    assert device_of(cookie, ADA, NOW) is None


def test_a_sign_in_pass_is_no_device_cookie_and_lasts_a_quarter_of_an_hour() -> None:
    made = sign_in_pass(ADA, NONCE, NOW)
    assert pass_of(made, ADA, NOW + PASS_SECONDS - 1) == NONCE.hex()
    assert pass_of(made, ADA, NOW + PASS_SECONDS) is None
    assert device_of(made, ADA, NOW) is None
    assert pass_of(COOKIE, ADA, NOW) is None
    assert pass_of(made, replace(ADA, password="$argon2id$new"), NOW) is None
