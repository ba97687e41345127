"""The Python client of the MachPay API: `MachPay`, and `AsyncMachPay` for asyncio."""

from importlib import import_module
from typing import TYPE_CHECKING

from machpay._async.client import AsyncMachPay
from machpay._async.opening import AsyncOpening
from machpay._async.stream import AsyncStream
from machpay._dpop import DPoPKey
from machpay._hooks import RequestEvent, ResponseEvent
from machpay._not_given import NOT_GIVEN, NotGiven
from machpay._oauth import AuthorizationRequest
from machpay._rate_limit import RateLimit, RateLimitPolicy
from machpay._response import Response
from machpay._server_sent_events import ServerSentEvent
from machpay._sync.client import MachPay
from machpay._sync.stream import Stream
from machpay._token_store import StoredTokens
from machpay._tokens import Tokens
from machpay._version import VERSION as __version__  # noqa: N811 - the name that tools look for
from machpay.errors import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    AuthenticationError,
    BadRequestError,
    ClientClosedError,
    ConfigurationError,
    ConflictError,
    InternalServerError,
    InvalidArgumentError,
    InvalidResponseError,
    KeyLimitError,
    MachPayError,
    NotFoundError,
    OAuthError,
    PermissionDeniedError,
    PreconditionFailedError,
    RateLimitError,
    UnprocessableEntityError,
)

if TYPE_CHECKING:
    from machpay._account import Account, Identity, RemainingLimits, TierLimits
    from machpay._async.listing import AsyncListing
    from machpay._async.page import AsyncPage
    from machpay._audit import AuditActor, AuditEntry
    from machpay._grant import Grant
    from machpay._introspection import Introspection
    from machpay._key import IssuedKey, Key, KeySecret
    from machpay._oauth_client import ClientSecret, DeletedOAuthClient, IssuedOAuthClient, OAuthClient
    from machpay._session import Session
    from machpay._skill import Execution, Skill
    from machpay._sync.page import Page
    from machpay._usage import Latency, Usage, UsageCounts

_LAZY = {
    "Account": "machpay._account",
    "Identity": "machpay._account",
    "RemainingLimits": "machpay._account",
    "TierLimits": "machpay._account",
    "AsyncListing": "machpay._async.listing",
    "AsyncPage": "machpay._async.page",
    "IssuedKey": "machpay._key",
    "Key": "machpay._key",
    "KeySecret": "machpay._key",
    "Session": "machpay._session",
    "Execution": "machpay._skill",
    "Skill": "machpay._skill",
    "Page": "machpay._sync.page",
    "AuditActor": "machpay._audit",
    "AuditEntry": "machpay._audit",
    "Grant": "machpay._grant",
    "Introspection": "machpay._introspection",
    "ClientSecret": "machpay._oauth_client",
    "DeletedOAuthClient": "machpay._oauth_client",
    "IssuedOAuthClient": "machpay._oauth_client",
    "OAuthClient": "machpay._oauth_client",
    "Latency": "machpay._usage",
    "Usage": "machpay._usage",
    "UsageCounts": "machpay._usage",
}  # imported when they are needed: most clients use a few of them

__all__ = [
    "NOT_GIVEN",
    "APIConnectionError",
    "APIStatusError",
    "APITimeoutError",
    "Account",
    "AsyncListing",
    "AsyncMachPay",
    "AsyncOpening",
    "AsyncPage",
    "AsyncStream",
    "AuditActor",
    "AuditEntry",
    "AuthenticationError",
    "AuthorizationRequest",
    "BadRequestError",
    "ClientClosedError",
    "ClientSecret",
    "ConfigurationError",
    "ConflictError",
    "DPoPKey",
    "DeletedOAuthClient",
    "Execution",
    "Grant",
    "Identity",
    "InternalServerError",
    "Introspection",
    "InvalidArgumentError",
    "InvalidResponseError",
    "IssuedKey",
    "IssuedOAuthClient",
    "Key",
    "KeyLimitError",
    "KeySecret",
    "Latency",
    "MachPay",
    "MachPayError",
    "NotFoundError",
    "NotGiven",
    "OAuthClient",
    "OAuthError",
    "Page",
    "PermissionDeniedError",
    "PreconditionFailedError",
    "RateLimit",
    "RateLimitError",
    "RateLimitPolicy",
    "RemainingLimits",
    "RequestEvent",
    "Response",
    "ResponseEvent",
    "ServerSentEvent",
    "Session",
    "Skill",
    "StoredTokens",
    "Stream",
    "TierLimits",
    "Tokens",
    "UnprocessableEntityError",
    "Usage",
    "UsageCounts",
    "__version__",
]


def __getattr__(name: str) -> object:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
