"""Users: people who sign in, for the account that they belong to."""

import re
from dataclasses import dataclass, field
from hashlib import sha256

from machpay_gateway.core.errors import InputError
from machpay_gateway.core.text import quote_value

# RFC 5321 §4.5.3.1; NIST SP 800-63B-4 §3.1.1.2 asks for 8 at least.
MAX_EMAIL, MAX_PASSWORD, MIN_PASSWORD = 254, 1024, 12
FAMILIAR_SECONDS = 90 * 86_400.0  # since a sign-in from an address block: as long as the block is one of the user's
# What a user may do in the Console: look, or change too. Whoever is not told otherwise may look.
ADMIN, VIEWER = ROLES = ("admin", "viewer")
# What a mail server would make of it is for a mail server to say: this only keeps out what no address can be.
_EMAIL = re.compile(r"[^\s@\x00-\x1f\x7f]{1,64}@[^\s@\x00-\x1f\x7f]{1,189}")

_MASKABLE = re.compile(r"([a-z0-9])[a-z0-9._+'-]{0,63}@((?:[a-z0-9-]{1,63}\.)+[a-z]{2,24})", re.ASCII)


@dataclass(frozen=True, slots=True)
class User:
    """One person of an account. *password* is its argon2id hash in PHC form; whoever has none cannot sign in.

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
        """Whether they may change what is the account's."""
        return self.role == ADMIN


@dataclass(frozen=True, slots=True)
class SignIn:
    """A browser in which a user has signed in, known by its cookie's *digest*. Times are seconds since the epoch.

    *seen_at* is the last request by a person, to the minute; *confirmed_at* is when the password was last right.
    Both are None until they differ from *created_at*.
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
        """When a person last used it, to the minute."""
        return self.created_at if self.seen_at is None else self.seen_at

    @property
    def last_confirmed_at(self) -> float:
        """When the password was last right."""
        return self.created_at if self.confirmed_at is None else self.confirmed_at

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
        raise InputError(f"{quote_value(email)} is not an e-mail address.")
    return key


def checked_length(password: str) -> str:
    """Return *password* if it is text of a length that can be kept. Raises InputError, which does not repeat it."""
    if not MIN_PASSWORD <= len(password) <= MAX_PASSWORD:
        raise InputError(f"The password has {len(password)} characters: use {MIN_PASSWORD} to {MAX_PASSWORD}.")
    try:
        password.encode()
    except UnicodeEncodeError:
        raise InputError("The password is not Unicode text: it has a lone surrogate.") from None
    return password


def masked_email(text: str) -> str:
    """Return *text* as a log may hold it: `a…@example.org`.

    Of what does not look like an e-mail nothing is left, as people type passwords into the wrong field.
    """
    key = email_key(text)
    match = None if len(key) > MAX_EMAIL else _MASKABLE.fullmatch(key)
    return "…" if match is None else f"{match[1]}…@{match[2]}"


def checked_role(role: str) -> str:
    """Return *role*. Raises InputError."""
    if role not in ROLES:
        raise InputError(f"Role {quote_value(role)} does not exist: use {' or '.join(ROLES)}.")
    return role
