"""Idempotent creation and rotation of keys (draft-ietf-httpapi-idempotency-key-header-07).

The response is stored with the key for 24 hours, encrypted with AES-256-GCM. The encryption key is derived from the
caller's secret and from the idempotency key. Neither is stored, so the database alone reveals no secret.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from hashlib import sha256
from os import urandom

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from starlette.requests import Request
from starlette.responses import Response

from machpay_gateway.admin.documents import key_response
from machpay_gateway.admin.problems import ProblemError
from machpay_gateway.admin.request import AdminRequest
from machpay_gateway.admin.request_body import invalid_field
from machpay_gateway.core.decision.credential import parse_authorization
from machpay_gateway.core.errors import DuplicateRequest, KeyLimitReached, NotPermitted, StateError
from machpay_gateway.core.keys.document import IssuedKeyDocument, issued_key_document
from machpay_gateway.core.keys.idempotency import IDEMPOTENCY_SECONDS, StoredResponse
from machpay_gateway.core.keys.key import KeyRecord
from machpay_gateway.services.keys import SecretResponseFactory

HEADER = "Idempotency-Key"
MAX_LENGTH = 255
_NONCE_BYTES, _KEY_BYTES = 12, 32
_INFO = b"machpay kept answer"  # HKDF's: with another text, responses that are stored already cannot be decrypted

IssuedKey = tuple[KeyRecord, str]


async def idempotent_response(
    call: AdminRequest, status: int, issue: Callable[[SecretResponseFactory | None], Awaitable[IssuedKey]]
) -> Response:
    """Return the response to a request that issues a secret, or the stored one if the request is a retry."""
    idempotency_key, root = parse_idempotency_key(call.request), call.request.scope.get("root_path", "")
    if idempotency_key is None:
        record, secret = await issue(None)
        return key_response(
            issued_key_document(record, secret, call.now, call.gateway.policy.tiers), record.version, status, root
        )
    cipher = _ResponseCipher.for_request(call, idempotency_key)
    if (stored := await _load_response(call, cipher)) is not None:
        return cipher.decrypt(stored, status, root)

    def keep(record: KeyRecord, secret: str) -> StoredResponse:
        return cipher.encrypt(
            record.version, issued_key_document(record, secret, call.now, call.gateway.policy.tiers), call.now
        )

    try:
        record, secret = await issue(keep)
    except (DuplicateRequest, KeyLimitReached, NotPermitted, ProblemError, StateError) as exc:
        # A concurrent duplicate of this request may have changed the key, and so be the reason for the refusal.
        if (stored := await _load_response(call, cipher)) is not None:
            return cipher.decrypt(stored, status, root)
        if not isinstance(exc, DuplicateRequest):
            raise
        raise ProblemError("conflict", "The same request was being carried out: send it again.") from None
    return key_response(
        issued_key_document(record, secret, call.now, call.gateway.policy.tiers), record.version, status, root
    )


def parse_idempotency_key(request: Request) -> str | None:
    """Return the value of the Idempotency-Key header, or None if there is none. Raises ProblemError."""
    values = request.headers.getlist(HEADER)
    if not values:
        return None
    value = values[0]
    if len(values) > 1 or not 1 <= len(value) <= MAX_LENGTH or not (value.isascii() and value.isprintable()):
        raise invalid_field(f"header.{HEADER}", f"Use one name of 1 to {MAX_LENGTH} printable ASCII characters.")
    return value


@dataclass(frozen=True, slots=True)
class _ResponseCipher:
    """Encrypts the response to one request of one caller. *name* is its key in the store, *request* its digest."""

    name: bytes
    request: bytes
    key: bytes = field(repr=False)

    @classmethod
    def for_request(cls, call: AdminRequest, idempotency_key: str) -> "_ResponseCipher":
        secret, key_id = parse_authorization(call.caller.facts.authorization), call.caller.actor.key_id
        assert isinstance(secret, bytes)  # noqa: S101 - the gateway has parsed it before
        # Not the principal's id: a session has its key's, and an issuer's JWT can have any.
        assert key_id is not None  # noqa: S101 - only API keys may issue secrets
        request = f"{call.request.method} {call.request.url.path}\n".encode() + _canonical(call.raw_body)
        return cls(
            name=sha256(f"{key_id}\n{idempotency_key}".encode()).digest(),
            request=sha256(request).digest(),
            key=HKDF(SHA256(), _KEY_BYTES, salt=idempotency_key.encode(), info=_INFO).derive(secret),
        )

    def encrypt(self, version: int, document: IssuedKeyDocument, now: float) -> StoredResponse:
        nonce = urandom(_NONCE_BYTES)
        content = orjson.dumps({"version": version, "document": document})
        sealed = nonce + AESGCM(self.key).encrypt(nonce, content, self.name + self.request)
        return StoredResponse(self.name, self.request, sealed, now)

    def decrypt(self, stored: StoredResponse, status: int, root: str) -> Response:
        if stored.request != self.request:
            raise ProblemError("conflict", f"This {HEADER} was used for another request: use a new one.")
        nonce, content = stored.sealed[:_NONCE_BYTES], stored.sealed[_NONCE_BYTES:]
        try:
            plain = orjson.loads(AESGCM(self.key).decrypt(nonce, content, self.name + self.request))
        except (InvalidTag, ValueError):  # ValueError: too short to hold a nonce
            # The calling key was rotated since then: the response is encrypted with its previous secret.
            raise ProblemError("conflict", f"This {HEADER} was used with another secret: use a new one.") from None
        response = key_response(plain["document"], plain["version"], status, root)
        response.headers["Idempotent-Replayed"] = "true"
        return response


async def _load_response(call: AdminRequest, cipher: _ResponseCipher) -> StoredResponse | None:
    return await call.gateway.store.stored_response(cipher.name, call.now - IDEMPOTENCY_SECONDS)


def _canonical(body: bytes) -> bytes:
    """Return *body* with members in a fixed order, so that the same JSON always has the same bytes."""
    try:
        return orjson.dumps(orjson.loads(body or b"{}"), option=orjson.OPT_SORT_KEYS)
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):  # not JSON, or nested deeper than any body we accept
        return body
