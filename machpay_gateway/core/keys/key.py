"""API keys: the secret's format, and the record that outlives every secret.

A secret is `sk_{live|test}_mp1_`, 32 base62 characters of randomness (190 bits) and 6 base62 characters of CRC-32
over all before them. The tag `mp1_` sets ours apart from another payment company's keys in secret scanners; the
checksum refuses typing errors and junk without any I/O. With this much randomness a plain SHA-256 is the right
digest: a slow hash would only buy callers a way to keep us busy.
"""

import hashlib
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from machpay_gateway.core.errors import ConfigurationError
from machpay_gateway.core.scopes import Scopes

BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
ACCOUNT = "acct"  # what the id of an account begins with
ENVIRONMENTS = ("live", "test")
ENTROPY_BYTES = 32  # reduced to 32 base62 characters; the surplus keeps the modulo's bias below 2**-65
DAY_SECONDS = 86_400
MAX_GRACE_SECONDS = 7 * DAY_SECONDS
ROTATION_SECONDS = 90 * DAY_SECONDS  # the guide: rotate keys every 90 days
_SECRET = re.compile(rb"sk_(live|test)_mp1_[0-9A-Za-z]{38}")
_BODY_LENGTH, _CHECKSUM_LENGTH, _ID_LENGTH = 32, 6, 22
_ID = re.compile(r"[0-9A-Za-z_]{1,64}")


class KeyStatus(StrEnum):
    """Whether a key can be used, at the moment it is asked."""

    ACTIVE = "active"
    EXPIRED = "expired"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class StatusAt:
    """The *status* that keys are picked by, as it is *at* a moment in seconds since the epoch."""

    status: KeyStatus
    at: float


@dataclass(frozen=True, slots=True)
class SecretRecord:
    """What is kept of one secret: enough to recognise it and to show people which one it is, not to use it."""

    digest: bytes = field(repr=False)
    masked: str
    created_at: float
    expires_at: float | None = None  # set when a rotation gives it a grace
    last_used_at: float | None = field(default=None, compare=False)  # read only: a use changes no key


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """A key as the store knows it: settings, the account's tier, and its current and previous secret. Newest first.

    *last_used_at* is the latest use of any secret that it ever had. Stores ignore it when they write, as each secret's.
    """

    id: str
    account_id: str
    name: str
    environment: str
    tier: str
    scopes: Scopes
    allowed_ips: tuple[str, ...]
    created_at: float
    secrets: tuple[SecretRecord, ...]
    version: int = 1
    expires_at: float | None = None
    revoked_at: float | None = None
    last_rotated_at: float | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    last_used_at: float | None = field(default=None, compare=False)

    def status(self, now: float) -> KeyStatus:
        """Return the status that holds at *now*, seconds since the epoch."""
        if self.revoked_at is not None:
            return KeyStatus.REVOKED
        if self.expires_at is not None and self.expires_at <= now:
            return KeyStatus.EXPIRED
        return KeyStatus.ACTIVE

    def is_rotation_due(self, now: float) -> bool:
        """Tell whether it is in use and its secret is older than the guide advises."""
        secret_since = self.last_rotated_at or self.created_at
        return self.status(now) is KeyStatus.ACTIVE and now - secret_since > ROTATION_SECONDS

    def matches_search(self, text: str) -> bool:
        """Tell whether people mean this key by *text*: a part of its name, its id, or how its secret ends.

        Case makes no difference in names; of other than ASCII letters that is for a database to say.
        """
        return text == self.id or text.lower() in self.name.lower() or self.masked.endswith(text)

    @property
    def masked(self) -> str:
        """The current secret as it may be shown: `sk_live_…a1b2`."""
        return self.secrets[0].masked


def mint_secret(environment: str, entropy: bytes) -> str:
    """Return a new secret for *environment* (`live` or `test`) from *entropy*, 32 bytes of the system's randomness."""
    if environment not in ENVIRONMENTS:
        raise ConfigurationError(f"Environment {environment!r} does not exist: use live or test")
    if len(entropy) != ENTROPY_BYTES:
        raise ValueError(f"A secret needs {ENTROPY_BYTES} bytes of entropy, not {len(entropy)}")
    body = f"sk_{environment}_mp1_{base62(int.from_bytes(entropy, 'big'), _BODY_LENGTH)}"
    return body + checksum(body.encode()).decode()


def mint_id(kind: str, entropy: bytes) -> str:
    """Return an identifier such as `key_…` with 131 bits of *entropy* (32 bytes given)."""
    return f"{kind}_{base62(int.from_bytes(entropy, 'big'), _ID_LENGTH)}"


def is_id(text: str) -> bool:
    """Tell whether *text* can be an identifier of anything.

    They come from URLs and command lines: what nothing can have must not reach a database that chokes on NUL or
    surrogates.
    """
    return _ID.fullmatch(text) is not None


def base62(number: int, length: int) -> str:
    """Return the lowest *length* base62 digits of *number*, most significant first."""
    digits = []
    for _ in range(length):
        number, digit = divmod(number, 62)
        digits.append(BASE62[digit])
    return "".join(reversed(digits))


def checksum(body: bytes) -> bytes:
    """Return the 6 base62 characters of CRC-32 that close a secret."""
    return base62(zlib.crc32(body), _CHECKSUM_LENGTH).encode()


def secret_environment(secret: bytes) -> str | None:
    """Return the environment that *secret* names; None when its shape or its checksum is wrong."""
    if not (match := _SECRET.fullmatch(secret)):
        return None
    if checksum(secret[:-_CHECKSUM_LENGTH]) != secret[-_CHECKSUM_LENGTH:]:
        return None
    return match[1].decode()


def secret_digest(secret: bytes) -> bytes:
    """Return the SHA-256 digest under which *secret* is stored and looked up."""
    return hashlib.sha256(secret).digest()


def mask_secret(secret: str) -> str:
    """Return *secret* as it may be shown and logged: its prefix and its last four characters."""
    return f"{secret[:8]}…{secret[-4:]}"
