"""Exceptions: errors that are not an expected outcome of a request.

GatewayError
├── ConfigurationError      an invalid setting, route, scope or network; the message names the way out
│   └── MissingExtra        a library of an extra is not installed; defined in `extras`, and also an ImportError
├── InputError              an operator's or admin's request that is not valid
│   ├── KeyLimitReached     the account has as many working keys as its tier allows
│   └── StateError          the state of the key does not allow the change
├── NotPermitted            the actor may not do this to a key, an OAuth client or a grant
├── DuplicateRequest       a concurrent request with the same idempotency key was processed first
└── Unavailable             a dependency does not answer
    ├── StoreUnavailable
    │   └── UnreadableRecord    a record as stored is not what we write; the database answers
    └── KeysetUnavailable
"""


class GatewayError(Exception):
    """The base class of all exceptions of this package."""


class ConfigurationError(GatewayError):
    """A configured value is not valid; the message names the value and the way out."""


class InputError(GatewayError):
    """A request on keys or accounts is not valid; the message names the value and the way out."""


class KeyLimitReached(InputError):
    """The account has as many working keys as its tier allows. Nothing was changed."""


class StateError(InputError):
    """The key is revoked or expired, which does not allow the change."""


class NotPermitted(GatewayError):
    """The actor may not do this to a key, an OAuth client or a grant. Nothing was changed.

    `core.accounts.management` decides; the message names the way out.
    """


class DuplicateRequest(GatewayError):
    """A concurrent request with the same idempotency key was processed first; its response is stored."""


class Unavailable(GatewayError):
    """A dependency does not answer; `gate` alone decides whether a request fails open or closed."""


class StoreUnavailable(Unavailable):
    """The database did not answer."""


class UnreadableRecord(StoreUnavailable):
    """A record as stored is not what we write. The database answered, so this is no outage."""


class KeysetUnavailable(Unavailable):
    """An issuer's keys cannot be loaded, and no earlier set is cached."""


def describe_error(error: GatewayError) -> str:
    """Return a message for operators about *error*."""
    if not isinstance(error, Unavailable):
        return str(error)
    cause = getattr(error.__cause__, "orig", None) or error.__cause__
    reason = str(cause or "").strip().partition("\n")[0]
    suffix = f", {reason}" if reason else ""
    if isinstance(error, StoreUnavailable):
        return f"The database did not answer ({error}{suffix}): see that it runs and that `database` names it."
    return f"What this needs did not answer ({error}{suffix}): try again."
