"""Signs assertions about callers; each is reused until half of its lifetime is over."""

from pathlib import Path

import orjson
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, Key, OKPKey, RSAKey

from machpay_gateway.core.decision.principal import Principal
from machpay_gateway.core.errors import ConfigurationError
from machpay_gateway.core.jose.assertion import TYPE, AssertionSettings, assertion_claims

_MOST_CALLERS = 4096
_MIN_RSA_BITS = 2048  # RFC 7518 §3.3
_EC_ALGORITHMS = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512"}


class SignedAssertions:
    """Signs with the key that *settings* name. Raises ConfigurationError for a key that cannot sign."""

    def __init__(self, settings: AssertionSettings) -> None:
        self._settings = settings
        self._key, self._algorithm = _signing_key(settings.key)
        self._signed: dict[Principal, tuple[bytes, float]] = {}
        public = {**self._key.as_dict(private=False), "alg": self._algorithm, "use": "sig"}
        self.jwks = orjson.dumps({"keys": [public]})  # RFC 7517 §5

    def token_for(self, principal: Principal, now: float) -> bytes:
        """Return a token about *principal* that is valid at *now*, seconds since the epoch, for half its lifetime."""
        token, until = self._signed.get(principal, (b"", 0.0))
        life = self._settings.lifetime_seconds
        if until - life <= now < until:  # the lower bound covers a clock that was set back
            return token
        if len(self._signed) >= _MOST_CALLERS:
            self._signed.clear()
        header = {"alg": self._algorithm, "kid": self._key.kid, "typ": TYPE}
        claims = dict(assertion_claims(self._settings, principal, now))
        token = jwt.encode(header, claims, self._key, algorithms=[self._algorithm]).encode()
        self._signed[principal] = token, now + life / 2
        return token


def _signing_key(path: str) -> tuple[Key, str]:
    try:
        pem = Path(path).read_bytes()
    except OSError as exc:
        raise ConfigurationError(f"assertion.key: {path!r} cannot be read: {exc.strerror or exc}") from exc
    for kind in (RSAKey, ECKey, OKPKey):
        try:
            key: Key = kind.import_key(pem)
        except (JoseError, ValueError, TypeError):
            continue
        if not key.is_private:
            raise ConfigurationError(f"assertion.key: {path!r} holds no private key, so that it cannot sign")
        key.ensure_kid()
        return key, _algorithm_of(key, path)
    raise ConfigurationError(f"assertion.key: {path!r} is not a PEM file with an RSA, EC or Ed25519 key")


def _algorithm_of(key: Key, path: str) -> str:
    if isinstance(key, RSAKey):
        if key.raw_value.key_size < _MIN_RSA_BITS:
            raise ConfigurationError(f"assertion.key: {path!r} has fewer than {_MIN_RSA_BITS} bits")
        return "RS256"
    curve = str(key.as_dict(private=False)["crv"])
    if isinstance(key, ECKey) and curve in _EC_ALGORITHMS:
        return _EC_ALGORITHMS[curve]
    if curve == "Ed25519":
        return "Ed25519"
    raise ConfigurationError(f"assertion.key: {path!r} is on the curve {curve}: use P-256 or Ed25519")
