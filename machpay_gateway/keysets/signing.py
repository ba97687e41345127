"""The gateway's own signing keys: created when first needed, encrypted in the store, polled by every worker."""

import asyncio
import logging
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import orjson
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from joserfc import jwt
from joserfc.jwk import RSAKey

from machpay_gateway.core.errors import ConfigurationError
from machpay_gateway.core.jose.compact import CompactToken
from machpay_gateway.core.jose.ports import SigningKeyStore
from machpay_gateway.core.jose.signing import (
    ALGORITHM,
    PUBLISH_BEFORE_SIGNING_SECONDS,
    SigningKey,
    alive_at,
    signing_at,
)
from machpay_gateway.core.jose.token import VerifyingKey, is_signed_by
from machpay_gateway.core.keys.audit import APPLICATION, Actor, Change
from machpay_gateway.keysets.sealing import SealedByAnotherKey, seal, unseal
from machpay_gateway.log_throttle import LogThrottle
from machpay_gateway.singleflight import SingleFlight

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

logger = logging.getLogger(__name__)

POLL_SECONDS = 20.0  # plus the 20 s between checks of open streams: far less than the promised 60 s
_BITS = 2048  # RFC 7518 §3.3; longer keys sign slower, and no token lives long enough for this one to be broken
_REFRESH_SECONDS = 60.0  # far less than the time for which a key is published before it signs
_MIN_LOAD_INTERVAL_SECONDS = 1.0  # between loads caused by unknown key ids
_SYSTEM = "system"  # the account in whose audit log changes that concern every account are recorded


class SigningKeys:
    """Signs and verifies the tokens that this gateway issues.

    *secret_key* returns the key that private keys are encrypted with, and raises ConfigurationError when there is none.
    Tokens live for *life_seconds* at most. After `poll`, keys are loaded from the store every *poll_seconds*.
    """

    def __init__(
        self,
        store: SigningKeyStore,
        *,
        secret_key: Callable[[], bytes],
        life_seconds: float,
        clock: Callable[[], float],
        poll_seconds: float | None = None,
    ) -> None:
        self._store = store
        self._secret_key = secret_key
        self._life_seconds = life_seconds
        self._clock = clock
        self._keys: Sequence[SigningKey] = ()
        self._verifying: Mapping[str, VerifyingKey] = {}
        self._private: dict[str, RSAKey] = {}
        self._loaded_at = -math.inf
        self._loads = SingleFlight(self._load, failed=self._log_outage)
        self._poll_seconds = POLL_SECONDS if poll_seconds is None else poll_seconds
        self._timer: asyncio.TimerHandle | None = None
        self._timer_loop: asyncio.AbstractEventLoop | None = None
        self._listeners: list[Callable[[Collection[str]], None]] = []
        self._is_away = False
        self._throttle = LogThrottle(logger)

    def on_drop(self, listener: Callable[[Collection[str]], None]) -> None:
        """Call *listener* with the ids of keys that no longer verify, as soon as this process has loaded the change."""
        self._listeners.append(listener)

    def poll(self) -> None:
        """Load the keys at intervals in this event loop until `close`. Idempotent.

        Verified tokens are cached for minutes, so without polling, a worker that sees no other tokens would not notice
        that their key was dropped.
        """
        loop = asyncio.get_running_loop()
        # A timer of another event loop may never fire: test clients close theirs.
        if self._timer is None or self._timer_loop is not loop:
            self._timer, self._timer_loop = loop.call_later(self._poll_seconds, self._load_and_repeat), loop

    def verifies(self, kid: str | None) -> bool:
        """Tell whether the key *kid* verifies, by the keys that are loaded; does no I/O."""
        return kid in self._verifying

    async def sign(self, claims: Mapping[str, Any], typ: str) -> str:
        """Return a signed token with the header *typ* and *claims*. Raises StoreUnavailable, ConfigurationError."""
        try:
            key = await self._signing_key()
            private = self._private_key(key)
        except ConfigurationError as exc:
            self._throttle.log(logging.ERROR, "A token could not be signed: %s", exc)
            raise
        header = {"alg": ALGORITHM, "kid": key.kid, "typ": typ}
        return jwt.encode(header, dict(claims), private, algorithms=[ALGORITHM])

    async def has_signed(self, token: CompactToken) -> bool:
        """Tell whether one of these keys has signed *token*. Raises StoreUnavailable."""
        if token.algorithm != ALGORITHM or token.kid is None:
            return False
        if token.kid not in self._verifying or self._is_old:
            await self._refresh()
        key = self._verifying.get(token.kid)
        return key is not None and is_signed_by(token, [key])

    async def jwks(self) -> list[dict[str, Any]]:
        """Return the public keys of valid tokens, and of those to come (RFC 7517). Raises StoreUnavailable."""
        if self._is_old:
            await self._refresh()
        return [orjson.loads(key.public) for key in alive_at(self._keys, self._clock(), self._life_seconds)]

    async def check_secret_key(self) -> None:
        """Load the keys. Raises ConfigurationError when one that signs was encrypted with another secret key.

        Raises StoreUnavailable. Without a secret key, or before the first signing key, there is nothing to compare.
        """
        await self._loads.join(None)
        if (mistake := self.secret_key_mistake()) is not None:
            raise ConfigurationError(mistake)

    def secret_key_mistake(self) -> str | None:
        """Return what is wrong with the secret key, by the keys that are loaded: None if it opens those that sign."""
        return secret_key_mistake(self._keys, self._secret_key, self._clock())

    async def ensure(self) -> None:
        """Create the first key if there is none. Raises StoreUnavailable, ConfigurationError."""
        self._private_key(await self._signing_key())

    async def all(self) -> Sequence[SigningKey]:
        """Return the stored keys, the one that signs last first. Raises StoreUnavailable."""
        await self._loads.join(None)
        return self._keys

    async def rotate(self, *, at_once: bool = False, actor: Actor = APPLICATION) -> SigningKey:
        """Create a new key. It signs ten minutes from now, and the others verify until their last token expires.

        *at_once* is for a compromised key: every other key is dropped, which ends all tokens that they signed. Raises
        StoreUnavailable, and, unless *at_once*, ConfigurationError when the keys are encrypted with another secret key.
        """
        now, stored = self._clock(), await self._store.signing_keys()
        needed = () if at_once else alive_at(stored, now, self._life_seconds)
        if not at_once and (signing := signing_at(stored, now)) is not None:
            # With another secret key than the workers', this would create a key that none of them can sign with.
            self._private_key(signing)
        dropped = {key.kid for key in stored} - {key.kid for key in needed}
        key = self._new_key(now, signs_from=now if at_once or not stored else now + PUBLISH_BEFORE_SIGNING_SECONDS)
        change = Change(
            now, actor, "signing_key.rotate", _SYSTEM, key.kid, {}, {"dropped": sorted(dropped), "at_once": at_once}
        )
        await self._store.add_signing_key(key, change, instead_of=dropped)
        await self._loads.join(None)
        return key

    async def close(self) -> None:
        """Stop polling, and cancel a load in progress."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        await self._loads.close()

    @property
    def _age(self) -> float:
        # Negative when the clock was set back: the age is unknown then.
        age = self._clock() - self._loaded_at
        return age if age >= 0 else math.inf

    @property
    def _is_old(self) -> bool:
        return self._age > _REFRESH_SECONDS or not self._keys

    async def _signing_key(self) -> SigningKey:
        if self._is_old:
            await self._refresh()
        while (key := signing_at(self._keys, self._clock())) is None:
            now = self._clock()
            first = self._new_key(now, signs_from=now)
            change = Change(now, APPLICATION, "signing_key.create", _SYSTEM, first.kid, {}, {})
            await self._store.add_signing_key(first, change, instead_of=None)  # unless another worker was faster
            await self._loads.join(None)
        return key

    async def _refresh(self) -> None:
        """Load the keys, unless that was done just now: tokens with made-up key ids must not cost a query each."""
        if self._age > _MIN_LOAD_INTERVAL_SECONDS or not self._keys:
            await self._loads.join(None)

    def _load_and_repeat(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._poll_seconds, self._load_and_repeat)
        self._loads.begin(None)

    async def _load(self, _: None) -> None:
        now = self._clock()
        keys = await self._store.signing_keys()
        self._log_recovery()
        previous, self._keys, self._loaded_at = self._verifying, keys, now
        alive = alive_at(keys, now, self._life_seconds)
        self._verifying = {key.kid: previous.get(key.kid) or _verifying_key(key) for key in alive}
        self._private = {kid: private for kid, private in self._private.items() if kid in self._verifying}
        if dropped := previous.keys() - self._verifying.keys():
            for listener in self._listeners:
                listener(dropped)

    def _log_outage(self, error: BaseException) -> None:
        """Log an outage of the store once: the callers that wait for it get the error in any case."""
        if not self._is_away:
            self._is_away = True
            self._throttle.log(
                logging.WARNING, "The store of signing keys does not answer; the loaded keys still verify.", error=error
            )

    def _log_recovery(self) -> None:
        if self._is_away:
            self._is_away = False
            self._throttle.log(logging.WARNING, "The store of signing keys answers again.")

    def _private_key(self, key: SigningKey) -> RSAKey:
        if key.kid not in self._private:
            self._private[key.kid] = _parse_private_key(unseal(key.sealed, self._secret_key(), key.kid))
        return self._private[key.kid]

    def _new_key(self, now: float, *, signs_from: float) -> SigningKey:
        key = RSAKey.generate_key(_BITS, private=True, auto_kid=True)
        public = {**key.as_dict(private=False), "alg": ALGORITHM, "use": "sig"}
        sealed = seal(key.as_pem(private=True), self._secret_key(), key.kid or "")
        return SigningKey(key.kid or "", orjson.dumps(public), sealed, now, signs_from)


def secret_key_mistake(keys: Sequence[SigningKey], secret_key: Callable[[], bytes], now: float) -> str | None:
    """Return why *secret_key* does not open those of *keys* that sign at *now* or later; None if it does.

    None too when there is none, which *secret_key* says by a ConfigurationError: a process may verify without it.
    """
    signing = signing_at(keys, now)
    needed = [key for key in keys if key is signing or key.signs_from > now]
    if not needed:
        return None
    try:
        secret = secret_key()
    except ConfigurationError:
        return None
    try:
        for key in needed:
            unseal(key.sealed, secret, key.kid)
    except SealedByAnotherKey as exc:
        return str(exc)
    return None


def _parse_private_key(pem: bytes) -> RSAKey:
    # Validating the numbers of an RSA key (are the primes prime?) takes 40 ms, parsing it 17 µs. It protects against
    # crafted keys, and this one cannot be crafted: AES-GCM authenticates it and its key id, so it is, bit for bit, what
    # a process with the secret key has generated.
    private_key = load_pem_private_key(pem, None, unsafe_skip_rsa_key_validation=True)
    return RSAKey.import_key(cast("RSAPrivateKey", private_key))


def _verifying_key(key: SigningKey) -> VerifyingKey:
    return VerifyingKey(key.kid, frozenset({ALGORITHM}), RSAKey.import_key(orjson.loads(key.public)))
