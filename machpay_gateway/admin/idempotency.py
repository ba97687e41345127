"""Creating and rotating once, however often the request is sent (draft-ietf-httpapi-idempotency-key-header-07).

The answer is kept with the key that it tells of, for 24 hours, and sealed (AES-256-GCM): what opens it is derived from
the secret that the caller presents and from the name that they gave the request, neither of which is stored. So whoever
has the database has no secret by it.
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
from machpay_gateway.admin.request_body import invalid
from machpay_gateway.core.decision.credential import parse_authorization
from machpay_gateway.core.errors import AnsweredMeanwhile, NotPermitted, StateError
from machpay_gateway.core.keys.document import IssuedKeyDocument, issued_key_document
from machpay_gateway.core.keys.idempotency import IDEMPOTENCY_SECONDS, StoredResponse
from machpay_gateway.core.keys.key import KeyRecord
from machpay_gateway.services.keys import SecretResponseFactory

HEADER = "Idempotency-Key"
MAX_NAME = 255
_NONCE_BYTES, _KEY_BYTES = 12, 32
_INFO = b"machpay kept answer"

Issued = tuple[KeyRecord, str]


async def issued_once(
    call: AdminRequest, status: int, issue: Callable[[SecretResponseFactory | None], Awaitable[Issued]]
) -> Response:
    """Return the answer to a request that issues a secret; when it was carried out before, the answer of then."""
    name, root = request_name(call.request), call.request.scope.get("root_path", "")
    if name is None:
        record, secret = await issue(None)
        return key_response(issued_key_document(record, secret, call.now), record.version, status, root)
    seal = _Seal.of(call, name)
    if (kept := await _kept(call, seal)) is not None:
        return seal.reopened(kept, status, root)

    def keep(record: KeyRecord, secret: str) -> StoredResponse:
        return seal.keeping(record.version, issued_key_document(record, secret, call.now), call.now)

    try:
        record, secret = await issue(keep)
    except (AnsweredMeanwhile, NotPermitted, ProblemError, StateError) as exc:
        # The same request, carried out in between, may itself be why this one finds the key changed.
        if (kept := await _kept(call, seal)) is not None:
            return seal.reopened(kept, status, root)
        if not isinstance(exc, AnsweredMeanwhile):
            raise
        raise ProblemError("conflict", "The same request was being carried out: send it again.") from None
    return key_response(issued_key_document(record, secret, call.now), record.version, status, root)


def request_name(request: Request) -> str | None:
    """Return the name that the caller gave the request, None for none. Raises ProblemError."""
    given = request.headers.getlist(HEADER)
    if not given:
        return None
    name = given[0]
    if len(given) > 1 or not 1 <= len(name) <= MAX_NAME or not (name.isascii() and name.isprintable()):
        raise invalid(f"header.{HEADER}", f"Use one name of 1 to {MAX_NAME} printable ASCII characters.")
    return name


@dataclass(frozen=True, slots=True)
class _Seal:
    """What one request of one caller is kept under, and what opens its answer."""

    name: bytes
    request: bytes
    key: bytes = field(repr=False)

    @classmethod
    def of(cls, call: AdminRequest, name: str) -> "_Seal":
        secret, key_id = parse_authorization(call.caller.facts.authorization), call.caller.actor.key_id
        assert isinstance(secret, bytes)  # noqa: S101 - the gateway has read it already
        # Not the principal's id: a session's is its key's, and an issuer's JWT may have any.
        assert key_id is not None  # noqa: S101 - nothing but an API key gets to issue a secret
        asked = f"{call.request.method} {call.request.url.path}\n".encode() + _canonical(call.body)
        return cls(
            name=sha256(f"{key_id}\n{name}".encode()).digest(),
            request=sha256(asked).digest(),
            key=HKDF(SHA256(), _KEY_BYTES, salt=name.encode(), info=_INFO).derive(secret),
        )

    def keeping(self, version: int, document: IssuedKeyDocument, now: float) -> StoredResponse:
        nonce = urandom(_NONCE_BYTES)
        content = orjson.dumps({"version": version, "document": document})
        sealed = nonce + AESGCM(self.key).encrypt(nonce, content, self.name + self.request)
        return StoredResponse(self.name, self.request, sealed, now)

    def reopened(self, kept: StoredResponse, status: int, root: str) -> Response:
        if kept.request != self.request:
            raise ProblemError("conflict", f"This {HEADER} was used for another request: use a new one.")
        nonce, content = kept.sealed[:_NONCE_BYTES], kept.sealed[_NONCE_BYTES:]
        try:
            answer = orjson.loads(AESGCM(self.key).decrypt(nonce, content, self.name + self.request))
        except (InvalidTag, ValueError):  # ValueError: too short to hold a nonce
            # The caller's own key was rotated in between: the answer is for its secret of then.
            raise ProblemError("conflict", f"This {HEADER} was used with another secret: use a new one.") from None
        response = key_response(answer["document"], answer["version"], status, root)
        response.headers["Idempotent-Replayed"] = "true"
        return response


async def _kept(call: AdminRequest, seal: _Seal) -> StoredResponse | None:
    return await call.gateway.store.stored_response(seal.name, call.now - IDEMPOTENCY_SECONDS)


def _canonical(body: bytes) -> bytes:
    """Return *body* so that the same JSON is the same bytes, whoever wrote it down."""
    try:
        return orjson.dumps(orjson.loads(body or b"{}"), option=orjson.OPT_SORT_KEYS)
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):  # not JSON, or nested deeper than anything we read
        return body
