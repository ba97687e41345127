"""What verifies credentials, and where signing keys are stored."""

from collections.abc import Collection, Sequence
from typing import Protocol

from machpay_gateway.core.decision.credential import ApiKey, Proof, SignedToken
from machpay_gateway.core.decision.principal import Principal
from machpay_gateway.core.jose.session import SessionToken
from machpay_gateway.core.jose.signing import SigningKey
from machpay_gateway.core.keys.audit import Change


class SigningKeyStore(Protocol):
    """Where the keys are that we sign by. Raises StoreUnavailable."""

    async def signing_keys(self) -> Sequence[SigningKey]:
        """Return the keys that we sign by, and did lately."""

    async def add_signing_key(self, key: SigningKey, change: Change, *, instead_of: Collection[str] | None) -> bool:
        """Store *key* and drop those named by *instead_of*; when that is None, only if there is none: False if not."""


class KeyPrincipals(Protocol):
    """The keys a decision can have without waiting. Raises StoreUnavailable."""

    def cached(self, digest: bytes, now: float) -> Principal | None:
        """Return the principal of the key with this secret *digest* if it may be trusted at *now*; does no I/O."""

    def holds(self, digest: bytes) -> bool:
        """Tell whether a key with this secret *digest* was seen lately, whether it may be trusted now or not."""

    async def find(self, presented: ApiKey | SessionToken) -> Principal | None:
        """Return the principal of the key whose secret, or a session made by it, was *presented*, or None."""

    def forget(self, key_id: str) -> None:
        """Load the key anew when it is next asked for."""

    def forget_signed_by(self, kids: Collection[str]) -> None:
        """Know no more the sessions that one of the signing keys *kids* has signed."""


class TokenVerifier(Protocol):
    """Knows whose tokens are accepted. Raises KeysetUnavailable."""

    def cached(self, digest: bytes, now: float) -> Principal | None:
        """Return the principal of a token that was verified lately, without any I/O."""

    def holds(self, digest: bytes) -> bool:
        """Tell whether a token of this *digest* was good lately, whether it is known now or not."""

    def may_verify(self, token: SignedToken) -> bool:
        """Tell whether *token* names an issuer that is accepted; nothing of it is true yet. Does no I/O."""

    async def verify(self, token: SignedToken, now: float) -> Principal | str:
        """Return the principal of *token*, or the reason, for the log, why it is not accepted."""

    def forget(self, subject: str) -> None:
        """Ask anew what is known of *subject*, when it is next asked for."""

    async def close(self) -> None:
        """Let go of every connection."""


class ProofVerifier(Protocol):
    """Knows whether whoever presents a bound token has its key (RFC 9449)."""

    def at_api(self, values: tuple[bytes, ...], method: str, path: str, token: bytes, key: str) -> Proof | str:
        """Return the proof of *key* in *values* for this request and *token*, used before or not, or why it is none."""

    async def is_first_use(self, proof: Proof) -> bool:
        """Remember *proof* and tell whether it is used for the first time. Raises Unavailable."""
