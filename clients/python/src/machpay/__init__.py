"""The Python client of the MachPay API: `MachPay`, and `AsyncMachPay` for asyncio."""

from machpay._account import Account, Identity
from machpay._async.client import AsyncMachPay
from machpay._async.listing import AsyncListing
from machpay._async.page import AsyncPage
from machpay._key import Key, KeySecret
from machpay._not_given import NOT_GIVEN, NotGiven
from machpay._oauth import AuthorizationRequest
from machpay._rate_limit import RateLimit, RateLimitPolicy
from machpay._response import Response
from machpay._session import Session
from machpay._skill import Execution, Skill
from machpay._sync.client import MachPay
from machpay._sync.page import Page
from machpay._tokens import Tokens
from machpay._usage import Latency, Usage, UsageCounts
from machpay._version import VERSION as __version__  # noqa: N811 - the name that tools look for
from machpay.errors import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    AuthenticationError,
    BadRequestError,
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

__all__ = [
    "NOT_GIVEN",
    "APIConnectionError",
    "APIStatusError",
    "APITimeoutError",
    "Account",
    "AsyncListing",
    "AsyncMachPay",
    "AsyncPage",
    "AuthenticationError",
    "AuthorizationRequest",
    "BadRequestError",
    "ConfigurationError",
    "ConflictError",
    "Execution",
    "Identity",
    "InternalServerError",
    "InvalidArgumentError",
    "InvalidResponseError",
    "Key",
    "KeyLimitError",
    "KeySecret",
    "Latency",
    "MachPay",
    "MachPayError",
    "NotFoundError",
    "NotGiven",
    "OAuthError",
    "Page",
    "PermissionDeniedError",
    "PreconditionFailedError",
    "RateLimit",
    "RateLimitError",
    "RateLimitPolicy",
    "Response",
    "Session",
    "Skill",
    "Tokens",
    "UnprocessableEntityError",
    "Usage",
    "UsageCounts",
    "__version__",
]
