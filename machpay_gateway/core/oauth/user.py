"""Users: people who sign in, for the account that they belong to."""

import re
from dataclasses import dataclass, field
from hashlib import sha256

from machpay_gateway.core.errors import InputError
from machpay_gateway.core.input import shown

# RFC 5321 §4.5.3.1; NIST SP 800-63B-4 §3.1.1.2 asks for 8 at least.
MAX_EMAIL, MAX_PASSWORD, MIN_PASSWORD = 254, 1024, 12
# What a user may do in the Console: look, or change too. Whoever is not told otherwise may look.
ADMIN, VIEWER = ROLES = ("admin", "viewer")
# What a mail server would make of it is for a mail server to say: this only keeps out what no address can be.
_EMAIL = re.compile(r"[^\s@\x00-\x1f\x7f]{1,64}@[^\s@\x00-\x1f\x7f]{1,189}")


@dataclass(frozen=True, slots=True)
class User:
    """One person of an account. *password* is its argon2id hash in PHC form; whoever has none cannot sign in."""

    id: str
    account_id: str
    email: str
    created_at: float
    password: str | None = field(default=None, repr=False)
    disabled_at: float | None = None
    role: str = VIEWER

    @property
    def is_admin(self) -> bool:
        """Whether they may change what is the account's."""
        return self.role == ADMIN


@dataclass(frozen=True, slots=True)
class SignIn:
    """A browser in which a user has signed in, known by its cookie's *digest*. Times are seconds since the epoch."""

    digest: bytes = field(repr=False)
    user_id: str
    created_at: float
    expires_at: float
    address: str | None = None

    @property
    def name(self) -> str:
        """What tells it apart from the user's others; of no use for signing in."""
        return sha256(self.digest).hexdigest()[:16]


def email_key(email: str) -> str:
    """Return *email* as it is stored and looked up: case never tells two people apart in practice."""
    return email.strip().casefold()


def checked_email(email: str) -> str:
    """Return *email* as it is stored. Raises InputError."""
    key = email_key(email)
    if len(key) > MAX_EMAIL or not key.isprintable() or not _EMAIL.fullmatch(key):
        raise InputError(f"{shown(email)} is not an e-mail address.")
    return key


def checked_password(password: str) -> str:
    """Return *password*. Raises InputError, which does not repeat it."""
    if not MIN_PASSWORD <= len(password) <= MAX_PASSWORD:
        raise InputError(f"The password has {len(password)} characters: use {MIN_PASSWORD} to {MAX_PASSWORD}.")
    try:
        password.encode()
    except UnicodeEncodeError:
        raise InputError("The password is not Unicode text: it has a lone surrogate.") from None
    return password


def checked_role(role: str) -> str:
    """Return *role*. Raises InputError."""
    if role not in ROLES:
        raise InputError(f"Role {shown(role)} does not exist: use {' or '.join(ROLES)}.")
    return role
