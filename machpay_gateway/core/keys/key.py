"""API keys: the format of secrets, and the record that outlives every secret.

A secret is `sk_{live|test}_mp1_`, 32 base62 characters of randomness (190 bits) and 6 base62 characters of CRC-32 over
everything before them. The tag `mp1_` distinguishes these secrets from another payment company's in secret scanners; a
brand may have another prefix and tag. The checksum rejects typing errors and junk without any I/O. With this much
randomness a plain SHA-256 is the right digest: a slow hash would add no security and give attackers a way to exhaust
the CPU.
"""

import hashlib
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cache
from typing import Self

from machpay_gateway.core.brand import MACHPAY, Brand
from machpay_gateway.core.errors import ConfigurationError
from machpay_gateway.core.scopes import Scopes
from machpay_gateway.core.text import format_moment_or_none

BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
ACCOUNT = "acct"  # the prefix of account ids
ENVIRONMENTS = ("live", "test")
ENTROPY_BYTES = 32  # reduced to 32 base62 characters; the surplus keeps the modulo's bias below 2**-65
DAY_SECONDS = 86_400
MAX_GRACE_SECONDS = 7 * DAY_SECONDS
ROTATION_SECONDS = 90 * DAY_SECONDS  # the guide: rotate keys every 90 days
_BODY_LENGTH, _CHECKSUM_LENGTH, _ID_LENGTH = 32, 6, 22
_ID = re.compile(r"[0-9A-Za-z_]{1,64}")


class KeyStatus(StrEnum):
    """Whether a key can be used at a given time."""

    ACTIVE = "active"
    EXPIRED = "expired"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class StatusAt:
    """The *status* to filter keys by, *at* a time in seconds since the epoch."""

    status: KeyStatus
    at: float


@dataclass(frozen=True, slots=True)
class SecretRecord:
    """A stored secret: enough to recognize it and to display it masked, not enough to authenticate with it."""

    digest: bytes = field(repr=False)
    masked: str
    created_at: float
    expires_at: float | None = None  # set by a rotation with a grace period
    last_used_at: float | None = field(default=None, compare=False)  # read-only: using a key is not a change


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """A key as stored: its settings, its tier, and its current and previous secret, newest first.

    *tier* is the one in effect: its *own_tier*, which an operator gave it, or else *account_tier*, the account's in the
    key's environment, which limits by account come from. Stores write *own_tier* alone.
    *owner* is whom within the account the key is for: keys with the same one share the limits by owner.
    *last_used_at* is the last use of any secret it has ever had. Stores do not write it, nor that of a secret.
    *account_version* is that of the account, which a change of its tier raises.
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
    owner: str | None = None
    own_tier: str | None = None
    account_tier: str = ""
    last_used_at: float | None = field(default=None, compare=False)
    account_version: int = field(default=0, compare=False)

    def status(self, now: float) -> KeyStatus:
        """Return the status at *now*, in seconds since the epoch."""
        if self.revoked_at is not None:
            return KeyStatus.REVOKED
        if self.expires_at is not None and self.expires_at <= now:
            return KeyStatus.EXPIRED
        return KeyStatus.ACTIVE

    def is_rotation_due(self, now: float) -> bool:
        """Tell whether the key is active and its secret is older than the guide advises."""
        secret_created_at = self.last_rotated_at or self.created_at
        return self.status(now) is KeyStatus.ACTIVE and now - secret_created_at > ROTATION_SECONDS

    def matches_search(self, text: str) -> bool:
        """Tell whether *text* is a part of the key's name, its id, or the end of its masked secret.

        Names match regardless of case. For letters outside ASCII, a database may decide differently.
        """
        return text == self.id or text.lower() in self.name.lower() or self.masked.endswith(text)

    def with_own_tier(self, tier: str | None) -> Self:
        """Return the key with *tier* for its own, or with its account's when that is None."""
        return replace(self, own_tier=tier, tier=self.account_tier if tier is None else tier)

    @property
    def masked(self) -> str:
        """The current secret, masked: `sk_live_…a1b2`."""
        return self.secrets[0].masked


def key_state(record: KeyRecord) -> dict[str, object]:
    """Return the settings of a key as the audit log stores them, its secrets masked."""
    moments = {
        "expires_at": record.expires_at,
        "revoked_at": record.revoked_at,
        "last_rotated_at": record.last_rotated_at,
    }
    secrets = [{"masked": s.masked, "expires_at": format_moment_or_none(s.expires_at)} for s in record.secrets]
    return {
        "name": record.name,
        "owner": record.owner,
        "own_tier": record.own_tier,
        "environment": record.environment,
        "scopes": list(record.scopes),
        "allowed_ips": list(record.allowed_ips),
        "metadata": dict(record.metadata),
        "secrets": secrets,
        **{name: format_moment_or_none(moment) for name, moment in moments.items()},
    }


def mint_secret(environment: str, entropy: bytes, brand: Brand = MACHPAY) -> str:
    """Return a new secret of *brand* for *environment* (`live` or `test`) from *entropy*, 32 bytes of randomness."""
    if environment not in ENVIRONMENTS:
        raise ConfigurationError(f"Environment {environment!r} does not exist: use live or test")
    if len(entropy) != ENTROPY_BYTES:
        raise ValueError(f"A secret needs {ENTROPY_BYTES} bytes of entropy, not {len(entropy)}")
    body = f"{brand.prefix}_{environment}_{brand.tag}_{base62(int.from_bytes(entropy, 'big'), _BODY_LENGTH)}"
    return body + checksum(body.encode()).decode()


def mint_id(kind: str, entropy: bytes) -> str:
    """Return an identifier such as `key_…` with 131 bits of *entropy* (32 bytes)."""
    return f"{kind}_{base62(int.from_bytes(entropy, 'big'), _ID_LENGTH)}"


def is_id(text: str) -> bool:
    """Tell whether *text* has the syntax of an identifier.

    Identifiers come from URLs and command lines. Databases raise errors for NUL and surrogates, so such text must not
    reach them.
    """
    return _ID.fullmatch(text) is not None


def is_id_of(kind: str, text: str) -> bool:
    """Tell whether `mint_id` could have returned *text* for *kind*."""
    return len(text) == len(kind) + 1 + _ID_LENGTH and text.startswith(f"{kind}_") and is_id(text)


def base62(number: int, length: int) -> str:
    """Return the lowest *length* base62 digits of *number*, most significant first."""
    digits = []
    for _ in range(length):
        number, digit = divmod(number, 62)
        digits.append(BASE62[digit])
    return "".join(reversed(digits))


def checksum(body: bytes) -> bytes:
    """Return the CRC-32 of *body* as the 6 base62 characters at the end of a secret."""
    return base62(zlib.crc32(body), _CHECKSUM_LENGTH).encode()


def has_secret_format(secret: bytes, brand: Brand) -> bool:
    """Tell whether *secret* has the format of a secret that *brand* accepts, whatever its checksum."""
    return _secret_format(brand).fullmatch(secret) is not None


def secret_environment(secret: bytes, brand: Brand = MACHPAY) -> str | None:
    """Return the environment in the prefix of *secret*, or None if its format or checksum is wrong for *brand*."""
    if not (match := _secret_format(brand).fullmatch(secret)):
        return None
    if checksum(secret[:-_CHECKSUM_LENGTH]) != secret[-_CHECKSUM_LENGTH:]:
        return None
    return match[1].decode()


@cache
def _secret_format(brand: Brand) -> re.Pattern[bytes]:
    kinds = "|".join(f"{prefix}_(?:live|test)_{tag}" for prefix, tag in brand.accepted_secrets)
    return re.compile(rf"(?=[a-z0-9]+_(live|test)_)(?:{kinds})_[0-9A-Za-z]{{38}}".encode())


def secret_digest(secret: bytes) -> bytes:
    """Return the SHA-256 digest under which *secret* is stored and looked up."""
    return hashlib.sha256(secret).digest()


def mask_secret(secret: str) -> str:
    """Return *secret* as displayed and logged: its prefix and its last four characters."""
    prefix, environment, _ = secret.split("_", 2)
    return f"{prefix}_{environment}_…{secret[-4:]}"
