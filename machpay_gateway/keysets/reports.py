"""Verifies the signatures of a secret scanner's reports of leaked secrets."""

from machpay_gateway.core.jose.scanner import is_signature_of, parse_scanner_keys, parse_signature
from machpay_gateway.core.jose.token import VerifyingKey
from machpay_gateway.core.keys.leak import LeakSettings
from machpay_gateway.keysets.sources import key_set_at


class SignedReports:
    """The reports of the scanner whose keys *leaks* names. Raises ConfigurationError for an invalid key set."""

    def __init__(self, leaks: LeakSettings) -> None:
        self.leaks = leaks
        self._keys = key_set_at(leaks.keys, parse_scanner_keys)

    async def are_signed(self, body: bytes, *, key_id: str, signature: str, now: float) -> bool:
        """Tell whether the scanner's key *key_id* made the *signature* of *body*.

        Raises KeysetUnavailable when that depends on keys that could never be loaded.
        """
        made = parse_signature(signature)
        if not key_id or made is None:
            return False
        keys = _named(key_id, (await self._keys.keys(now)).keys) or _named(
            key_id, (await self._keys.newest_keys(now)).keys
        )
        return any(is_signature_of(body, made, key) for key in keys)

    async def close(self) -> None:
        """Cancel a fetch in progress."""
        await self._keys.close()


def _named(key_id: str, keys: tuple[VerifyingKey, ...]) -> list[VerifyingKey]:
    return [key for key in keys if key.kid == key_id]
