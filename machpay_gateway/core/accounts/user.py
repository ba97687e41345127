"""Users: they belong to an account and sign in to the Console and to the pages of the authorization server."""

import re
from dataclasses import dataclass, field
from hashlib import sha256

from machpay_gateway.core.errors import InputError
from machpay_gateway.core.text import quote_value

# RFC 5321 §4.5.3.1; NIST SP 800-63B-4 §3.1.1.2 asks for 8 at least.
MAX_EMAIL, MAX_PASSWORD, MIN_PASSWORD = 254, 1024, 12
FAMILIAR_SECONDS = 90 * 86_400.0  # how long an address block stays familiar after a sign-in
# In the Console, viewers may only read, admins may change things. New users are viewers by default.
ADMIN, VIEWER = ROLES = ("admin", "viewer")
# Only a mail server knows whether an address works. This refuses what cannot be an address.
_EMAIL = re.compile(r"[^\s@\x00-\x1f\x7f]{1,64}@[^\s@\x00-\x1f\x7f]{1,189}")

_MASKABLE = re.compile(r"([a-z0-9])[a-z0-9._+'-]{0,63}@((?:[a-z0-9-]{1,63}\.)+[a-z]{2,24})", re.ASCII)


@dataclass(frozen=True, slots=True)
class User:
    """A person of an account. *password* is an argon2id hash in PHC form; without one, the user cannot sign in.

    Device cookies that were issued before *devices_from* are void.
    """

    id: str
    account_id: str
    email: str
    created_at: float
    password: str | None = field(default=None, repr=False)
    disabled_at: float | None = None
    role: str = VIEWER
    devices_from: float | None = None

    @property
    def is_admin(self) -> bool:
        """Whether the user may change the account's keys and OAuth clients."""
        return self.role == ADMIN


@dataclass(frozen=True, slots=True)
class SignIn:
    """A session: a browser in which a user has signed in. *digest* is that of its cookie.

    Times are seconds since the epoch. *seen_at* is the last request by the user, to the minute; *confirmed_at* is the
    last time the password was verified. Both are None while they equal *created_at*.
    """

    digest: bytes = field(repr=False)
    user_id: str
    created_at: float
    expires_at: float
    address: str | None = None
    seen_at: float | None = None
    confirmed_at: float | None = None

    @property
    def last_seen_at(self) -> float:
        """When the user last used it, to the minute."""
        return self.created_at if self.seen_at is None else self.seen_at

    @property
    def last_confirmed_at(self) -> float:
        """When the password was last verified."""
        return self.created_at if self.confirmed_at is None else self.confirmed_at

    @property
    def name(self) -> str:
        """A public name for this session among the user's; it cannot be used to sign in."""
        return sha256(self.digest).hexdigest()[:16]


def email_key(email: str) -> str:
    """Return *email* as it is stored and looked up: in practice, case does not distinguish two users."""
    return email.strip().casefold()


def validate_email(email: str) -> str:
    """Return *email* as it is stored. Raises InputError."""
    key = email_key(email)
    if len(key) > MAX_EMAIL or not key.isprintable() or not _EMAIL.fullmatch(key):
        raise InputError(f"{quote_value(email)} is not an email address.")
    return key


def validate_password_length(password: str) -> str:
    """Return *password* if it is valid text of an allowed length. Raises InputError, which does not repeat it."""
    if not MIN_PASSWORD <= len(password) <= MAX_PASSWORD:
        raise InputError(f"The password has {len(password)} characters: use {MIN_PASSWORD} to {MAX_PASSWORD}.")
    try:
        password.encode()
    except UnicodeEncodeError:
        raise InputError("The password is not Unicode text: it has a lone surrogate.") from None
    return password


def masked_email(text: str) -> str:
    """Return *text* masked for logs: `a…@example.org`.

    Text that does not look like an email is masked entirely: users type passwords into the wrong field.
    """
    key = email_key(text)
    match = None if len(key) > MAX_EMAIL else _MASKABLE.fullmatch(key)
    return "…" if match is None else f"{match[1]}…@{match[2]}"


def validate_role(role: str) -> str:
    """Return *role*. Raises InputError."""
    if role not in ROLES:
        raise InputError(f"Role {quote_value(role)} does not exist: use {' or '.join(ROLES)}.")
    return role
