"""Surprises: what goes wrong that no caller's request explains.

GatewayError
├── ConfigurationError      a setting, route, scope or network that cannot be meant; the message names the way out
├── InputError              an operator's or admin's request on keys or accounts that cannot be carried out
│   └── StateError          the key is in a state in which this cannot be done
├── NotPermitted            the actor has no authority to do this to a key, an OAuth client or a grant
├── DuplicateRequest       the same request was carried out in between; nothing was done
└── Unavailable             something this process depends on does not answer
    ├── StoreUnavailable
    └── KeysetUnavailable
"""


class GatewayError(Exception):
    """The root of everything this package raises on purpose."""


class ConfigurationError(GatewayError):
    """A configured value cannot be meant; the message names the value and the way out."""


class InputError(GatewayError):
    """A request on keys or accounts cannot be carried out as asked; the message names the value and the way out."""


class StateError(InputError):
    """The key is revoked or expired, and what was asked needs one that is not."""


class NotPermitted(GatewayError):
    """The actor may not do this to a key, an OAuth client or a grant, and nothing was changed.

    `core.accounts.management` decides; the message names the way out.
    """


class DuplicateRequest(GatewayError):
    """Another request of the same name was carried out while this one was on its way: its answer is kept."""


class Unavailable(GatewayError):
    """A part the decision depends on does not answer; `gate` alone decides what follows from it."""


class StoreUnavailable(Unavailable):
    """The database did not answer."""


class KeysetUnavailable(Unavailable):
    """An issuer's keys could not be loaded and no last good set is held."""


def describe_error(error: GatewayError) -> str:
    """Return what to tell an operator of *error*."""
    if not isinstance(error, Unavailable):
        return str(error)
    cause = getattr(error.__cause__, "orig", None) or error.__cause__
    reason = str(cause or "").strip().partition("\n")[0]
    told_reason = f", {reason}" if reason else ""
    if isinstance(error, StoreUnavailable):
        return f"The database did not answer ({error}{told_reason}): see that it runs and that `database` names it."
    return f"What this needs did not answer ({error}{told_reason}): try again."
