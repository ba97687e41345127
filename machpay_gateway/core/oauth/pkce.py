"""Proof that whoever redeems a code is who asked for it (RFC 7636)."""

import hmac
import re
from base64 import urlsafe_b64encode
from hashlib import sha256

METHOD = "S256"  # `plain` proves nothing to whoever saw the request, and is not taken (RFC 9700 §2.1.1)
_CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)  # of a SHA-256 digest, without padding
_VERIFIER = re.compile(r"[A-Za-z0-9\-._~]{43,128}", re.ASCII)  # §4.1


def is_challenge(text: str) -> bool:
    """Tell whether *text* can be what `challenge_of` returns."""
    return _CHALLENGE.fullmatch(text) is not None


def is_verifier(text: str) -> bool:
    """Tell whether *text* may be a verifier."""
    return _VERIFIER.fullmatch(text) is not None


def challenge_of(verifier: str) -> str:
    """Return the challenge that belongs to *verifier* (§4.2)."""
    return urlsafe_b64encode(sha256(verifier.encode("ascii")).digest()).rstrip(b"=").decode()


def proves(verifier: str, challenge: str) -> bool:
    """Tell whether *verifier* is that of the *challenge*, in a time that says nothing of where they differ."""
    return is_verifier(verifier) and hmac.compare_digest(challenge_of(verifier), challenge)
