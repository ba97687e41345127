"""Reports of leaked secrets, in the format of GitHub's secret scanning partner program.

A report is a JSON array of matches, signed by ECDSA with P-256 and SHA-256 (in DER, base64) under a key that the
scanner publishes by its id. Without that, whoever knows a secret could have its key ended in the scanner's name.
"""

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import orjson
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from joserfc.errors import JoseError
from joserfc.jwk import ECKey

from machpay_gateway.core.errors import ConfigurationError
from machpay_gateway.core.issuer import is_remote, is_trusted_url, without_user
from machpay_gateway.core.token import MAX_KEYS, VerifyingKey, VerifyingKeys

GITHUB_KEYS = "https://api.github.com/meta/public_keys/secret_scanning"
Action = Literal["revoke", "alert"]
ACTIONS: tuple[Action, ...] = ("revoke", "alert")
_ALGORITHM, _CURVE = "ES256", "P-256"


@dataclass(frozen=True, slots=True)
class Leaks:
    """Who may report leaked secrets, and what follows. *keys* is a file or an https URL with the scanner's keys.

    *action* `revoke` ends what leaked at once, `alert` writes it into the log and the audit log. Raises
    ConfigurationError.
    """

    keys: str = GITHUB_KEYS
    action: Action = "revoke"

    def __post_init__(self) -> None:
        keys: object = self.keys  # TOML and untyped callers may give anything
        if not isinstance(keys, str) or not keys or (is_remote(keys) and not is_trusted_url(keys)):
            told = without_user(str(keys))
            raise ConfigurationError(f"keys cannot be taken from {told!r}; use a file or an https URL")
        if self.action not in ACTIONS:
            raise ConfigurationError(f"action {self.action!r} does not exist: use {' or '.join(ACTIONS)}")


@dataclass(frozen=True, slots=True)
class Match:
    """A secret that was found in the open: *url* says where, and may be empty; *source* in what."""

    token: str = field(repr=False)
    kind: str
    url: str
    source: str


def matches_in(report: bytes) -> tuple[Match, ...] | None:
    """Return the matches of a *report*; None when it is none."""
    try:
        items = orjson.loads(report)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        return None
    found = [_match(item) for item in items]
    return tuple(match for match in found if match is not None) if None not in found else None


def scanner_keys(document: bytes) -> VerifyingKeys | str:
    """Return the keys in a scanner's *document*, or why there are none.

    The document is `{"public_keys": [{"key_identifier": …, "key": …}]}`, each key in PEM.
    """
    try:
        published = orjson.loads(document)["public_keys"]
        found = [_key(item) for item in published[:MAX_KEYS]]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return 'not a list of "public_keys"'
    keys = tuple(key for key in found if isinstance(key, VerifyingKey))
    unusable = tuple(reason for reason in found if isinstance(reason, str))
    return VerifyingKeys(keys, unusable) if keys else "; ".join(["no usable key", *unusable[:5]])


def is_signed(report: bytes, signature: str, key: VerifyingKey) -> bool:
    """Tell whether *key* made the *signature*, base64 of DER, of the *report* as it was sent."""
    public_key = key.key.public_key if isinstance(key.key, ECKey) else None
    if public_key is None:
        return False
    try:
        public_key.verify(base64.b64decode(signature, validate=True), report, ec.ECDSA(SHA256()))
    except (ValueError, InvalidSignature):
        return False
    return True


def _match(item: Mapping[str, object]) -> Match | None:
    texts = [item.get(name, "") for name in ("token", "type", "url", "source")]
    if not all(isinstance(text, str) for text in texts):
        return None
    return Match(*map(str, texts))


def _key(item: Mapping[str, object]) -> VerifyingKey | str:
    kid, pem = item["key_identifier"], item["key"]
    if not isinstance(kid, str) or not isinstance(pem, str):
        return "a key that is not text"
    try:
        key = ECKey.import_key(pem)
    except (JoseError, ValueError, TypeError) as exc:
        return f"a key that is not sound ({type(exc).__name__})"
    return VerifyingKey(kid, frozenset({_ALGORITHM}), key) if key.curve_name == _CURVE else f"a key not on {_CURVE}"
