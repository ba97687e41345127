"""DPoP: tokens that are bound to a key, and proofs of possession of it (RFC 9449)."""

import json
import uuid
from base64 import urlsafe_b64encode
from hashlib import sha256
from typing import TYPE_CHECKING, Self

from machpay.errors import ConfigurationError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

_BYTES = 32  # of each number of P-256


class DPoPKey:
    """A key pair (ES256). Needs the package `cryptography`: `pip install 'machpay[dpop]'`.

    Store it with the tokens that are bound to it, as `to_pem()` returns it.
    """

    def __init__(self, private_key: "EllipticCurvePrivateKey") -> None:
        self._private_key = private_key
        numbers = private_key.public_key().public_numbers()
        coordinates = {name: _base64url(n.to_bytes(_BYTES)) for name, n in (("x", numbers.x), ("y", numbers.y))}
        self._jwk = {"crv": "P-256", "kty": "EC", **coordinates}

    @classmethod
    def generate(cls) -> Self:
        """Return a new key."""
        try:
            from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415 - an extra
        except ImportError:
            raise _missing_package() from None
        return cls(ec.generate_private_key(ec.SECP256R1()))

    @classmethod
    def from_pem(cls, pem: str | bytes) -> Self:
        """Return the key that `to_pem()` returned. Raises ConfigurationError if it is not one."""
        try:
            from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415 - an extra
            from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415 - as above
        except ImportError:
            raise _missing_package() from None
        try:
            key = load_pem_private_key(pem.encode() if isinstance(pem, str) else pem, password=None)
        except (ValueError, TypeError):
            raise ConfigurationError("The DPoP key is not an unencrypted private key in PEM.") from None
        if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
            raise ConfigurationError("The DPoP key is not a key of P-256.")
        return cls(key)

    def to_pem(self) -> str:
        """Return the private key in PEM (PKCS #8). It is a secret."""
        from cryptography.hazmat.primitives import serialization as s  # noqa: PLC0415 - an extra

        return self._private_key.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption()).decode()

    @property
    def thumbprint(self) -> str:
        """The thumbprint of the public key (RFC 7638), which tokens have as `cnf.jkt`."""
        return _base64url(sha256(_json(self._jwk)).digest())

    def proof(self, method: str, url: str, *, access_token: str | None, now: float) -> str:
        """Return a proof for one request (§4.2). *url* is without query and fragment; *now* is since the epoch."""
        from cryptography.hazmat.primitives.asymmetric.ec import ECDSA  # noqa: PLC0415 - an extra
        from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature  # noqa: PLC0415 - as above
        from cryptography.hazmat.primitives.hashes import SHA256  # noqa: PLC0415 - as above

        claims = {"jti": str(uuid.uuid4()), "htm": method, "htu": url, "iat": int(now)}
        if access_token is not None:
            claims["ath"] = _base64url(sha256(access_token.encode()).digest())
        header = {"typ": "dpop+jwt", "alg": "ES256", "jwk": self._jwk}
        signed = f"{_base64url(_json(header))}.{_base64url(_json(claims))}"
        r, s = decode_dss_signature(self._private_key.sign(signed.encode(), ECDSA(SHA256())))
        return f"{signed}.{_base64url(r.to_bytes(_BYTES) + s.to_bytes(_BYTES))}"  # RFC 7518 §3.4

    def __repr__(self) -> str:
        return f"DPoPKey({self.thumbprint!r})"


def _missing_package() -> ConfigurationError:
    return ConfigurationError("DPoP needs the package cryptography: pip install 'machpay[dpop]'.")


def _json(members: object) -> bytes:
    return json.dumps(members, sort_keys=True, separators=(",", ":")).encode()


def _base64url(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()
