"""Device cookies: they identify browsers in which a user has signed in before (OWASP "device cookies").

Wrong passwords from other browsers do not count against a known one. The cookie is signed with the hash of the user's
password. So it needs no other secret and is void once the password changes, and an attacker who can read the hash has
better ways to guess the password.
"""

import hmac
import re

from machpay_gateway.core.accounts.user import User

DEVICE_SECONDS = 180 * 86_400
PASS_SECONDS = 15 * 60
NONCE_BYTES = 16
# A prefix for each use of the hash as a key, so that no signature is valid for another use.
_DEVICE, _PASS = b"machpay device cookie\n", b"machpay sign-in pass\n"
_SHAPE = re.compile(r"(user_[0-9A-Za-z]{1,64})\.([0-9a-f]{32})\.([0-9]{1,12})\.([0-9a-f]{64})", re.ASCII)


def device_cookie(user: User, nonce: bytes, now: float) -> str:
    """Return the cookie for a browser in which *user*, who has a password, signed in at *now*; *nonce* is random."""
    return _issued(_DEVICE, user, nonce, now)


def device_of(cookie: str, user: User | None, now: float) -> str | None:
    """Return the name of the known browser of *user* with this *cookie*, None for an unknown one."""
    return _nonce_of(_DEVICE, DEVICE_SECONDS, cookie, user, now)


def sign_in_pass(user: User, nonce: bytes, now: float) -> str:
    """Return a sign-in pass: it gives a new browser the limit of a known one for 15 minutes. It signs nobody in."""
    return _issued(_PASS, user, nonce, now)


def pass_of(text: str, user: User | None, now: float) -> str | None:
    """Return the name that attempts with this sign-in pass of *user* are counted by, None for an invalid pass."""
    return _nonce_of(_PASS, PASS_SECONDS, text, user, now)


def _issued(purpose: bytes, user: User, nonce: bytes, now: float) -> str:
    body = f"{user.id}.{nonce.hex()}.{int(now)}"
    return f"{body}.{_signature(purpose, user, body)}"


def _nonce_of(purpose: bytes, seconds: float, text: str, user: User | None, now: float) -> str | None:
    match = _SHAPE.fullmatch(text)
    if match is None or user is None or user.password is None or user.disabled_at is not None or match[1] != user.id:
        return None
    body, issued_at = text.rpartition(".")[0], int(match[3])
    if not hmac.compare_digest(_signature(purpose, user, body), match[4]):
        return None
    is_void = user.devices_from is not None and issued_at < user.devices_from
    return None if is_void or not now - seconds < issued_at <= now else match[2]


def _signature(purpose: bytes, user: User, body: str) -> str:
    return hmac.digest((user.password or "").encode(), purpose + body.encode(), "sha256").hex()
