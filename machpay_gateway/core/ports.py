"""What the core asks of the outside: the interfaces that stores, limiters and key sets implement."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from machpay_gateway.core.admission import Answer, Away, Coming, Demand, Outage, Stale, Standing
from machpay_gateway.core.audit import EVERYTHING, AuditFilter, AuditHead, AuditRow, Change
from machpay_gateway.core.credential import ApiKey, Proof, SignedToken
from machpay_gateway.core.key import KeyRecord, StatusAt
from machpay_gateway.core.principal import Principal
from machpay_gateway.core.replay import Keep, KeptAnswer
from machpay_gateway.core.session import Session
from machpay_gateway.core.signing import SigningKey
from machpay_gateway.core.usage import Bucket, Dimension, UsageBatch, UsageRow


class Limiter(Protocol):
    """Counts what subjects do."""

    @property
    def is_degraded(self) -> bool:
        """Whether it goes on without what it counts in."""

    @property
    def outage(self) -> Outage | None:
        """Why it does so; None when it does not."""

    @property
    def counts(self) -> Mapping[str, int]:
        """How many answers were given without what it counts in, by what held then."""

    @property
    def batches(self) -> Mapping[int, int]:
        """How often it asked what it counts in about how many callers at once."""

    async def open(self) -> None:
        """Make ready to count for a process that serves; it also counts without. Raises ConfigurationError."""

    async def close(self) -> None:
        """Give back what is held, and see that what was marked is known. It may be opened again."""

    def admit(self, demand: Demand) -> Answer | Coming:
        """Check the version, take from the window and take a slot: together, or not at all.

        Returns the answer when it needs no I/O, else what waits for it: whoever is cancelled meanwhile holds
        nothing. When the answer had come then, and not arrived, `abandon` gives back what it brought.
        """

    async def standing(self, demand: Demand) -> Standing | Stale | Away:
        """Return what the subject of *demand* has left, and take nothing: no unit, and no slot for however short."""

    async def mark(self, subject: str, version: int) -> None:
        """Remember that *subject* is at *version*: demands of an older one are answered STALE."""


class KeyLookup(Protocol):
    """What a decision asks of the key store. Raises StoreUnavailable."""

    async def find_by_digest(self, digest: bytes) -> KeyRecord | None:
        """Return the key that has a secret with this SHA-256 *digest*, whatever its status."""

    async def key(self, account_id: str | None, key_id: str) -> KeyRecord | None:
        """Return a key of the account, or None. An operator (*account_id* None) sees every account's."""

    async def versions_since(self, since: float) -> Sequence[tuple[str, int]]:
        """Return (key id, version) of each key changed at or after *since*, seconds since the epoch."""


class KeyStore(KeyLookup, Protocol):
    """The source of truth for keys. Raises StoreUnavailable; looks every key up within its account.

    With *keep*, a change also stores the answer made of the key as it is then, or raises AnsweredMeanwhile and changes
    nothing when there is one of that name. Answers older than `REPLAY_SECONDS` are dropped.
    """

    async def add_key(self, record: KeyRecord, change: Change, keep: Keep | None = None) -> None:
        """Store a new key with its secrets. The tier in the record is the account's and is not stored."""

    async def keys(
        self,
        account_id: str | None,
        *,
        environment: str | None = None,
        status: StatusAt | None = None,
        search: str | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> Sequence[KeyRecord]:
        """Return keys, newest first, at most *limit* of them, those that come after the key id *after*.

        *search* picks those that `KeyRecord.is_found_by` it.
        """

    async def replace_key(self, record: KeyRecord, change: Change, keep: Keep | None = None) -> bool:
        """Write *record* and its secrets over version `record.version - 1`; False when that is not the stored one."""

    async def kept_answer(self, name: bytes, since: float) -> KeptAnswer | None:
        """Return the answer that was kept under *name* at or after *since*, seconds since the epoch."""


@dataclass(frozen=True, slots=True)
class Account:
    """The tenant: owns keys, and carries the tier of its live traffic."""

    id: str
    name: str
    tier: str
    created_at: float


def key_tier(environment: str, account_tier: str) -> str:
    """Return the tier of a key in *environment*: live traffic has its account's, a test key never more than `test`."""
    return account_tier if environment == "live" else "test"


class AccountStore(Protocol):
    """The source of truth for accounts. Raises StoreUnavailable."""

    async def add_account(self, account: Account, change: Change) -> bool:
        """Store a new account; False when its name is taken."""

    async def account(self, id_or_name: str) -> Account | None:
        """Return the account with that id or name."""

    async def accounts(self) -> Sequence[Account]:
        """Return all accounts, oldest first."""

    async def set_tier(self, account: Account, tier: str, change: Change) -> Sequence[tuple[str, int]] | None:
        """Change the tier and raise the version of every key of *account* and grant of its clients.

        Returns the id and the new version of each; None when the account is not there with the tier that it has here.
        """


class SigningKeyStore(Protocol):
    """Where the keys are that we sign by. Raises StoreUnavailable."""

    async def signing_keys(self) -> Sequence[SigningKey]:
        """Return the keys that we sign by, and did lately."""

    async def add_signing_key(self, key: SigningKey, change: Change, *, instead_of: Collection[str] | None) -> bool:
        """Store *key* and drop those named by *instead_of*; when that is None, only if there is none: False if not."""


class AuditLog(Protocol):
    """What was changed. Each mutation of the other ports writes its *change* here, in the same transaction.

    Raises StoreUnavailable.
    """

    async def add_change(self, change: Change, once: bytes) -> bool:
        """Write down what happened and changed nothing; False when it was under the name *once* within a day."""

    async def audit_head(self) -> AuditHead:
        """Return where the log ends."""

    async def audit_page(
        self,
        account_id: str | None,
        *,
        chosen: AuditFilter = EVERYTHING,
        before: int | None = None,
        limit: int = 100,
    ) -> Sequence[AuditRow]:
        """Return rows of the account, or of all for an operator, newest first: the *chosen* before number *before*."""

    async def audit_rows(self, after: int, *, limit: int = 1000) -> Sequence[AuditRow]:
        """Return everybody's rows, oldest first: those after number *after*."""


class UsageSink(Protocol):
    """Where what was counted goes. Raises StoreUnavailable."""

    async def add_usage(self, batch: UsageBatch) -> None:
        """Add *batch* to the minutes, hours and days, and note the uses that are later than those known: all, or none.

        Each length of time is added to by itself, so no job rolls minutes up that could lose or double a count.
        """

    async def drop_usage(self, now: float) -> None:
        """Drop what is older at *now*, seconds since the epoch, than its length of time is kept."""


class UsageStore(UsageSink, Protocol):
    """The source of truth for what was counted. Raises StoreUnavailable."""

    async def usage(
        self, subject: str, bucket: Bucket, start: int, end: int, *, over: Dimension | None = None
    ) -> Sequence[UsageRow]:
        """Return the rows of *subject* by *bucket*, those that start in [*start*, *end*), in order.

        Added up *over* routes or starts they are as `summed_over` has them: so many fewer that people can wait for it.
        """

    async def busiest_minute(self, subject: str, start: int, end: int) -> tuple[int, int] | None:
        """Return the start of the minute in [*start*, *end*) with the most requests, the first such, and how many."""

    async def busiest(self, since: int, limit: int) -> Sequence[UsageRow]:
        """Return the minutes from *since* on of the *limit* keys and grants with the most requests, those first.

        What is counted of a whole account, or of nobody, is left out.
        """


class KnownKeys(Protocol):
    """The keys a decision can have without waiting. Raises StoreUnavailable."""

    def known(self, digest: bytes, now: float) -> Principal | None:
        """Return the principal of the key with this secret *digest* if it may be trusted at *now*; does no I/O."""

    def holds(self, digest: bytes) -> bool:
        """Tell whether a key with this secret *digest* was seen lately, whether it may be trusted now or not."""

    async def find(self, presented: ApiKey | Session) -> Principal | None:
        """Return the principal of the key whose secret, or a session made by it, was *presented*, or None."""

    def forget(self, key_id: str) -> None:
        """Load the key anew when it is next asked for."""

    def forget_signed_by(self, kids: Collection[str]) -> None:
        """Know no more the sessions that one of the signing keys *kids* has signed."""


class TokenVerifier(Protocol):
    """Knows whose tokens are accepted. Raises KeysetUnavailable."""

    def known(self, digest: bytes, now: float) -> Principal | None:
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
