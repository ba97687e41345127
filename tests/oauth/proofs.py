"""DPoP proofs as a client makes them."""

import time
from base64 import urlsafe_b64encode
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import count
from typing import Any

from joserfc import jwt
from joserfc.jwk import ECKey, Key

_NUMBERS = count(1)


@dataclass(frozen=True)
class Prover:
    """Somebody with a key of their own."""

    key: Key = field(default_factory=lambda: ECKey.generate_key("P-256"))
    algorithm: str = "ES256"

    def proof(self, method: str, url: str, token: str | None = None, **changes: Any) -> str:  # noqa: ANN401 - claims
        """Return a proof for one request; *changes* are claims that differ, None for one that is left out."""
        claims: dict[str, Any] = {"jti": f"proof-{next(_NUMBERS)}", "htm": method, "htu": url, "iat": int(time.time())}
        if token is not None:
            claims["ath"] = urlsafe_b64encode(sha256(token.encode()).digest()).rstrip(b"=").decode()
        claims = {name: value for name, value in (claims | changes).items() if value is not None}
        return self.signed(claims)

    def signed(self, claims: dict[str, Any], **header: Any) -> str:  # noqa: ANN401 - header parameters
        """Return *claims* signed, under a *header* that may differ, or lack what is None."""
        whole = {"typ": "dpop+jwt", "alg": self.algorithm, "jwk": self.key.as_dict(private=False)} | header
        whole = {name: value for name, value in whole.items() if value is not None}
        return jwt.encode(whole, claims, self.key, algorithms=[self.algorithm])

    @property
    def thumbprint(self) -> str:
        """The key's (RFC 7638)."""
        return self.key.thumbprint()
