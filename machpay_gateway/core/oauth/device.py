"""Device cookies: what tells a browser in which a user has signed in before from a stranger's (OWASP "device cookies").

Wrong passwords by strangers then never use up what a known browser may try. The cookie is signed with the hash of the
user's password: so it needs no other secret, it is void when the password changes, and whoever can read that hash
guesses better without us.
"""

import hmac
import re

from machpay_gateway.core.oauth.user import User

DEVICE_SECONDS = 180 * 86_400
NONCE_BYTES = 16
_PURPOSE = b"machpay device cookie\n"  # no other use of the hash as a key has the same input
_SHAPE = re.compile(r"(user_[0-9A-Za-z]{1,64})\.([0-9a-f]{32})\.([0-9]{1,12})\.([0-9a-f]{64})", re.ASCII)


def device_cookie(user: User, nonce: bytes, now: float) -> str:
    """Return what a browser is given in which *user*, who has a password, signed in at *now*; *nonce* is random."""
    body = f"{user.id}.{nonce.hex()}.{int(now)}"
    return f"{body}.{_signature(user, body)}"


def device_of(cookie: str, user: User | None, now: float) -> str | None:
    """Return the name of the known browser of *user* that has this *cookie*, None for a stranger's."""
    match = _SHAPE.fullmatch(cookie)
    if match is None or user is None or user.password is None or user.disabled_at is not None or match[1] != user.id:
        return None
    body, issued_at = cookie.rpartition(".")[0], int(match[3])
    if not hmac.compare_digest(_signature(user, body), match[4]):
        return None
    is_void = user.devices_from is not None and issued_at < user.devices_from
    return None if is_void or not now - DEVICE_SECONDS < issued_at <= now else match[2]


def _signature(user: User, body: str) -> str:
    return hmac.digest((user.password or "").encode(), _PURPOSE + body.encode(), "sha256").hex()
