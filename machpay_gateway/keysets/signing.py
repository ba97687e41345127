"""Our own signing keys: made when first needed, kept sealed in the store, followed by every worker."""

import asyncio
import logging
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import orjson
from joserfc import jwt
from joserfc.jwk import RSAKey

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
from machpay_gateway.keysets.sealing import opened, sealed
from machpay_gateway.singleflight import SingleFlight

logger = logging.getLogger(__name__)

POLL_SECONDS = 20.0  # with the 20 s after which open streams are checked, far less than the 60 s that are promised
_BITS = 2048  # RFC 7518 §3.3; longer ones make each token slower to sign, and none lives long enough to be broken
_FOLLOW_SECONDS = 60.0  # far less than a key is published before it signs
_ASK_SECONDS = 1.0  # between questions that unknown keys bring about
_SYSTEM = "system"  # whose audit log has what concerns every account


class SigningKeys:
    """Signs and verifies what this gateway issues.

    *secret_key* returns what private keys are sealed by, and raises ConfigurationError when there is none. What they
    sign lives *life_seconds* at most. Once `poll` was called, the store is asked every *poll_seconds*.
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
        self._asked_at = -math.inf
        self._loads = SingleFlight(self._load, failed=self._log_outage)
        self._poll_seconds = POLL_SECONDS if poll_seconds is None else poll_seconds
        self._timer: asyncio.TimerHandle | None = None
        self._timer_loop: asyncio.AbstractEventLoop | None = None
        self._listeners: list[Callable[[Collection[str]], None]] = []
        self._is_away = False

    def on_drop(self, listener: Callable[[Collection[str]], None]) -> None:
        """Call *listener* with the ids of keys that verify no longer, as soon as this process learns of it."""
        self._listeners.append(listener)

    def poll(self) -> None:
        """Ask the store at intervals in this event loop until `close`; calling it twice is calling it once.

        Tokens that were verified before are not verified again for minutes, so without this a worker that serves
        nothing else would not learn that their key was dropped.
        """
        loop = asyncio.get_running_loop()
        # A timer of another event loop may never fire: test clients close theirs.
        if self._timer is None or self._timer_loop is not loop:
            self._timer, self._timer_loop = loop.call_later(self._poll_seconds, self._ask), loop

    def verifies(self, kid: str | None) -> bool:
        """Tell whether the key *kid* verifies, as far as is known without I/O."""
        return kid in self._verifying

    async def sign(self, claims: Mapping[str, Any], typ: str) -> str:
        """Return a token of *typ* that says *claims*. Raises StoreUnavailable, ConfigurationError."""
        key = await self._signing_key()
        header = {"alg": ALGORITHM, "kid": key.kid, "typ": typ}
        return jwt.encode(header, dict(claims), self._private_key(key), algorithms=[ALGORITHM])

    async def has_signed(self, token: CompactToken) -> bool:
        """Tell whether *token* has the signature of one of these keys. Raises StoreUnavailable."""
        if token.algorithm != ALGORITHM or token.kid is None:
            return False
        if token.kid not in self._verifying or self._is_old:
            await self._follow()
        key = self._verifying.get(token.kid)
        return key is not None and is_signed_by(token, [key])

    async def jwks(self) -> list[dict[str, Any]]:
        """Return the public keys that something alive may be signed by, or soon (RFC 7517). Raises StoreUnavailable."""
        if self._is_old:
            await self._follow()
        return [orjson.loads(key.public) for key in alive_at(self._keys, self._clock(), self._life_seconds)]

    async def ensure(self) -> None:
        """Make the first key if there is none. Raises StoreUnavailable, ConfigurationError."""
        self._private_key(await self._signing_key())

    async def all(self) -> Sequence[SigningKey]:
        """Return the keys that are kept, those that sign last first."""
        await self._loads.join(None)
        return self._keys

    async def rotate(self, *, at_once: bool = False, actor: Actor = APPLICATION) -> SigningKey:
        """Make a new key. It signs ten minutes from now and the others verify until nothing of theirs is alive.

        *at_once* is for a key that got out of hand: every other one is dropped, and with it all that it has signed.
        Raises StoreUnavailable, and ConfigurationError when the keys were sealed by another secret key, unless it is
        *at_once*.
        """
        now, known = self._clock(), await self._store.signing_keys()
        needed = () if at_once else alive_at(known, now, self._life_seconds)
        if not at_once and (signing := signing_at(known, now)) is not None:
            # Whoever has another secret key than the workers would make a key that none of them can sign by.
            self._private_key(signing)
        dropped = {key.kid for key in known} - {key.kid for key in needed}
        key = self._new_key(now, signs_from=now if at_once or not known else now + PUBLISH_BEFORE_SIGNING_SECONDS)
        change = Change(
            now, actor, "signing_key.rotate", _SYSTEM, key.kid, {}, {"dropped": sorted(dropped), "at_once": at_once}
        )
        await self._store.add_signing_key(key, change, instead_of=dropped)
        await self._loads.join(None)
        return key

    async def close(self) -> None:
        """Stop polling, and abandon a question that is under way."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        await self._loads.close()

    @property
    def _age(self) -> float:
        # A clock that was set back makes it negative: then nothing is known of how old it is.
        age = self._clock() - self._asked_at
        return age if age >= 0 else math.inf

    @property
    def _is_old(self) -> bool:
        return self._age > _FOLLOW_SECONDS or not self._keys

    async def _signing_key(self) -> SigningKey:
        if self._is_old:
            await self._follow()
        while (key := signing_at(self._keys, self._clock())) is None:
            now = self._clock()
            first = self._new_key(now, signs_from=now)
            change = Change(now, APPLICATION, "signing_key.create", _SYSTEM, first.kid, {}, {})
            await self._store.add_signing_key(first, change, instead_of=None)  # another worker may have been quicker
            await self._loads.join(None)
        return key

    async def _follow(self) -> None:
        """Ask the store, unless that was done just now: tokens with made-up key ids must not cost a question each."""
        if self._age > _ASK_SECONDS or not self._keys:
            await self._loads.join(None)

    def _ask(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._poll_seconds, self._ask)
        self._loads.begin(None)

    async def _load(self, _: None) -> None:
        now = self._clock()
        keys = await self._store.signing_keys()
        self._log_answer()
        known, self._keys, self._asked_at = self._verifying, keys, now
        alive = alive_at(keys, now, self._life_seconds)
        self._verifying = {key.kid: known.get(key.kid) or _verifying(key) for key in alive}
        self._private = {kid: private for kid, private in self._private.items() if kid in self._verifying}
        if dropped := known.keys() - self._verifying.keys():
            for listener in self._listeners:
                listener(dropped)

    def _log_outage(self, error: BaseException) -> None:
        """Log that the store is away once for an outage: whoever waits for an answer hears of it anyway."""
        if not self._is_away:
            self._is_away = True
            logger.warning("The store of signing keys does not answer; keys read before verify.", exc_info=error)

    def _log_answer(self) -> None:
        if self._is_away:
            self._is_away = False
            logger.warning("The store of signing keys answers again.")

    def _private_key(self, key: SigningKey) -> RSAKey:
        if key.kid not in self._private:
            der = opened(key.sealed, self._secret_key(), key.kid)
            self._private[key.kid] = RSAKey.import_key(der)
        return self._private[key.kid]

    def _new_key(self, now: float, *, signs_from: float) -> SigningKey:
        made = RSAKey.generate_key(_BITS, private=True, auto_kid=True)
        public = {**made.as_dict(private=False), "alg": ALGORITHM, "use": "sig"}
        seal = sealed(made.as_pem(private=True), self._secret_key(), made.kid or "")
        return SigningKey(made.kid or "", orjson.dumps(public), seal, now, signs_from)


def _verifying(key: SigningKey) -> VerifyingKey:
    return VerifyingKey(key.kid, frozenset({ALGORITHM}), RSAKey.import_key(orjson.loads(key.public)))
