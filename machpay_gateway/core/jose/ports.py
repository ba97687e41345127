"""What verifies credentials, and where signing keys are stored."""

from collections.abc import Collection, Sequence
from typing import Protocol

from machpay_gateway.core.decision.credential import ApiKey, CustomCredential, Proof, SignedToken
from machpay_gateway.core.decision.principal import Principal
from machpay_gateway.core.jose.session import SessionToken
from machpay_gateway.core.jose.signing import SigningKey
from machpay_gateway.core.keys.audit import Change


class SigningKeyStore(Protocol):
    """Where the gateway's own signing keys are stored. Raises StoreUnavailable."""

    async def signing_keys(self) -> Sequence[SigningKey]:
        """Return every stored key, the one that signs last first."""

    async def add_signing_key(self, key: SigningKey, change: Change, *, instead_of: Collection[str] | None) -> bool:
        """Store *key* and delete those with the ids *instead_of*.

        With *instead_of* None, store it only if there is no key, and return False otherwise.
        """


class KeyPrincipals(Protocol):
    """Finds the principals of API keys and sessions. Raises StoreUnavailable."""

    def cached(self, digest: bytes, now: float) -> Principal | None:
        """Return the principal of the secret or session with this *digest* if it is cached and fresh; does no I/O."""

    def holds(self, digest: bytes) -> bool:
        """Tell whether the secret or session with this *digest* is cached, fresh or not."""

    async def find(self, presented: ApiKey | SessionToken) -> Principal | None:
        """Return the principal of the key whose secret, or whose session, is *presented*; None when it is not valid."""

    def forget(self, key_id: str) -> None:
        """Invalidate what is cached of the key."""

    def forget_signed_by(self, kids: Collection[str]) -> None:
        """Invalidate the sessions that the signing keys *kids* have signed."""


class TokenVerifier(Protocol):
    """Verifies signed tokens. Raises KeysetUnavailable."""

    def cached(self, digest: bytes, now: float) -> Principal | None:
        """Return the principal of a token that was verified recently; does no I/O."""

    def holds(self, digest: bytes) -> bool:
        """Tell whether a token with this *digest* was verified recently, even if it has expired since."""

    def may_verify(self, token: SignedToken) -> bool:
        """Tell whether *token* names a trusted issuer; none of its claims is verified yet. Does no I/O."""

    async def verify(self, token: SignedToken, now: float) -> Principal | str:
        """Return the principal of *token*, or the reason, for the log, why it is refused."""

    def forget(self, subject: str) -> None:
        """Invalidate what is cached of *subject*."""

    async def close(self) -> None:
        """Close every connection."""


class CredentialIdentifier(TokenVerifier, Protocol):
    """A verifier of tokens that also knows the credentials of the application. Raises Unavailable."""

    async def identify(self, credential: CustomCredential, now: float) -> Principal | str:
        """Return the principal of *credential*, or the reason, for the log, why there is none."""


class ProofVerifier(Protocol):
    """Verifies proofs of possession of sender-constrained tokens (RFC 9449)."""

    def at_api(self, values: tuple[bytes, ...], method: str, path: str, token: bytes, key: str) -> Proof | str:
        """Return the proof by *key* in *values* for this request and *token*, or the reason why there is none.

        Whether it was used before is not checked.
        """

    async def is_first_use(self, proof: Proof) -> bool:
        """Record *proof* and tell whether this is its first use. Raises Unavailable."""
