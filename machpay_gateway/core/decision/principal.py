"""The principal: who is calling, as identified by a credential."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from machpay_gateway.core.keys.key import KeyRecord, SecretRecord
from machpay_gateway.core.limits.rate import Tier, tier_of
from machpay_gateway.core.network.address import Allowlist, parse_allowlist
from machpay_gateway.core.scopes import Scopes

PrincipalKind = Literal["api_key", "session", "oauth", "jwt", "custom"]
_OF_KEYS = ("api_key", "session")


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Principal:
    """An identified caller. It is also Starlette's `request.user` and `request.auth`.

    *id* is the id of the API key, for its sessions too, the token's `sub`, or the id that the application gave.
    *client_id* is the OAuth client that acts for the user. *subject* is what the limits of its own *tier*, *limits*,
    are counted against. *expires_at* is when the credential of this request expires, in seconds since the epoch. *key*
    is the thumbprint of the key that a token is bound to (RFC 9449). *secret_digest* belongs to the secret of this
    request or of the one that created its session, else it is None. *owner* is that of the API key, for its sessions
    too; a claim of an issuer's token gives *owner* and *account_id* if the settings name it. *account_tier* is the
    account's tier in the environment. *shared_limits*, those by account and owner, come from it; for a token of another
    issuer it is *tier*. They are counted against *account_subject*, or against the account if it is empty. *version* is
    that of the record that identified the caller, *account_version* that of the account; a grant's own version is
    raised with its account's, and has 0 here.
    """

    kind: PrincipalKind
    id: str
    name: str
    account_id: str | None
    subject: str
    environment: str
    tier: str
    limits: Tier
    scopes: Scopes
    version: int = 0
    expires_at: float | None = None
    revoked: bool = False
    allowlist: Allowlist | None = None
    client_id: str | None = None
    key: str | None = None
    claims: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}), repr=False)
    secret_digest: bytes | None = field(default=None, repr=False)
    owner: str | None = None
    account_tier: str = ""
    shared_limits: Tier | None = None
    account_version: int = 0
    account_subject: str = ""

    @property
    def key_id(self) -> str | None:
        """The id of the API key, for its sessions too; None for tokens of OAuth clients and issuers."""
        return self.id if self.kind in _OF_KEYS else None

    @property
    def is_authenticated(self) -> bool:
        """True; Starlette reads it from `request.user`."""
        return True

    @property
    def display_name(self) -> str:
        """The name of the key, or the token's subject."""
        return self.name

    @property
    def identity(self) -> str:
        """The same as `id`."""
        return self.id


@dataclass(frozen=True, slots=True)
class Anonymous:
    """The caller of a public route."""

    kind: Literal["anonymous"] = "anonymous"
    key_id: None = None
    scopes: Scopes = field(default_factory=Scopes)
    is_authenticated: bool = False
    display_name: str = ""
    identity: str = ""


ANONYMOUS = Anonymous()


def key_principal(record: KeyRecord, secret: SecretRecord, tiers: Mapping[str, Tier]) -> Principal:
    """Return the principal of a request with *secret* of *record*."""
    ends = [end for end in (record.expires_at, secret.expires_at) if end is not None]
    return Principal(
        kind="api_key",
        id=record.id,
        name=record.name,
        account_id=record.account_id,
        subject=record.id,
        environment=record.environment,
        tier=record.tier,
        limits=tier_of(record.tier, tiers),
        scopes=record.scopes,
        version=record.version,
        expires_at=min(ends, default=None),
        revoked=record.revoked_at is not None,
        allowlist=parse_allowlist(record.allowed_ips) if record.allowed_ips else None,
        secret_digest=secret.digest,
        owner=record.owner,
        account_tier=record.account_tier,
        shared_limits=tier_of(record.account_tier or record.tier, tiers),
        account_version=record.account_version,
    )
