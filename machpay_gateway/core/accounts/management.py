"""Authorization of management: one table says who may do what to keys, OAuth clients and grants.

A `Manager` is an `Actor` with its authority. Use cases take both as one value, so that no front can name the actor for
the audit log and forget its authority. A credential that is derived from another one (a session, an OAuth access token,
an issuer's JWT) never has the authority of the original.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal, Protocol, TypeVar

from machpay_gateway.core.accounts.user import User
from machpay_gateway.core.decision.principal import Principal
from machpay_gateway.core.errors import NotPermitted
from machpay_gateway.core.keys.audit import Actor
from machpay_gateway.core.keys.key import KeyRecord
from machpay_gateway.core.network.address import parse_allowlist
from machpay_gateway.core.scopes import Scopes, wildcard_of
from machpay_gateway.core.text import quote_value

MANAGING = "keys:manage"
# A key that could assign these could make more of itself: they come from an operator or a Console admin.
NOT_ASSIGNED_BY_KEYS = frozenset({MANAGING, wildcard_of(MANAGING)})


class ManagedRecord(Protocol):
    """A key, an OAuth client or a grant."""

    @property
    def id(self) -> str:
        """Its identifier."""

    @property
    def account_id(self) -> str:
        """The account that owns it."""

    @property
    def environment(self) -> str:
        """Whether it is for live or test traffic."""

    @property
    def scopes(self) -> Scopes:
        """What it may do."""


R = TypeVar("R", bound=ManagedRecord)


class ManagementAction(Enum):
    """An action on a record. LOOSEN extends its lifetime, or from where and by whom it can be used."""

    READ = "read"
    READ_AUDIT_LOG = "read the audit log"
    CREATE_SESSION = "create a session"
    CREATE = "create"
    CHANGE = "change"
    LOOSEN = "loosen"
    ISSUE_SECRET = "issue a secret"  # noqa: S105 - the name of an action
    END = "end"


class Role(Enum):
    """What kind of authority a manager has."""

    OPERATOR = "operator"
    ADMIN = "admin"  # of an account, in the Console
    VIEWER = "viewer"  # of an account, in the Console
    API_KEY = "api_key"  # the key itself
    TOKEN = "token"  # noqa: S105 - one of ours: a session, or an OAuth access token
    FOREIGN_TOKEN = "foreign_token"  # noqa: S105 - a JWT of another issuer


@dataclass(frozen=True, slots=True, kw_only=True)
class Manager(Actor):
    """An actor with its authority.

    An operator sees all accounts, everybody else only *account_id* (None: nothing). *environment* is the only visible
    one, None for both. *scopes* are those of an API key.
    """

    role: Role
    account_id: str | None = None
    environment: str | None = None
    scopes: Scopes = field(default_factory=Scopes)

    @property
    def key_id(self) -> str | None:
        """The id of the acting API key, None for every other credential: a session is not its key."""
        return self.id if self.role is Role.API_KEY else None

    def sees(self, record: ManagedRecord) -> bool:
        """Tell whether *record* is visible to the manager."""
        if self.role is Role.OPERATOR:
            return True
        return record.account_id == self.account_id and self.environment in (None, record.environment)


@dataclass(frozen=True, slots=True)
class ManagementRefusal:
    """Why an action is refused: the record is not visible to the manager, or *detail* says what to do instead."""

    code: Literal["not_found", "not_permitted"]
    detail: str


# Returns the detail of a refusal. Without a record, a rule checks only what does not depend on one.
Rule = Callable[[Manager, ManagedRecord | None], str | None]


def _allow(_manager: Manager, _record: ManagedRecord | None) -> None:
    return None


def _require_its_scopes(manager: Manager, record: ManagedRecord | None) -> str | None:
    # The caller can use a new secret. And a leaked secret that is bound to an address, or about to expire, becomes
    # useful to an attacker once its key is loosened.
    if record is None or record.id == manager.key_id or all(name in manager.scopes for name in record.scopes):
        return None
    return (
        f"{record.id} has scopes that the calling API key does not hold: use a key that holds them, or ask an admin in "
        "the Console."
    )


def _require_both_environments(manager: Manager, _record: ManagedRecord | None) -> str | None:
    if manager.environment is None:
        return None
    return "The audit log covers live keys too, which test credentials do not see: use a live key."


_A = ManagementAction
_READS: Mapping[ManagementAction, Rule] = {_A.READ: _allow, _A.READ_AUDIT_LOG: _require_both_environments}
_KEYS_MAKE_SESSIONS = "Sessions are made by API keys only: send the request with one."
_EVERYTHING: Mapping[ManagementAction, Rule] = {
    action: _allow for action in ManagementAction if action is not _A.CREATE_SESSION
}
# An action that is not in its role's row is not permitted.
_RULES: Mapping[Role, Mapping[ManagementAction, Rule]] = {
    Role.OPERATOR: _EVERYTHING,
    Role.ADMIN: _EVERYTHING,
    Role.VIEWER: _READS,
    Role.API_KEY: {
        **_READS,
        _A.CREATE_SESSION: _allow,
        _A.CREATE: _allow,
        _A.CHANGE: _allow,
        _A.LOOSEN: _require_its_scopes,
        _A.ISSUE_SECRET: _require_its_scopes,
        _A.END: _allow,
    },
    Role.TOKEN: _READS,
    Role.FOREIGN_TOKEN: {},
}
_DETAILS: Mapping[Role, str] = {
    Role.OPERATOR: _KEYS_MAKE_SESSIONS,
    Role.ADMIN: _KEYS_MAKE_SESSIONS,
    Role.VIEWER: "Only admins of the account may do this. You may look at everything.",
    Role.TOKEN: "Sessions and OAuth access tokens never manage keys, OAuth clients or grants: use the API key itself.",
    Role.FOREIGN_TOKEN: "Tokens of other issuers belong to no account of the gateway: use an API key.",
}
_TOKEN_ROLES: Mapping[str, Role] = {
    "session": Role.TOKEN,
    "oauth": Role.TOKEN,
    "jwt": Role.FOREIGN_TOKEN,
    "custom": Role.FOREIGN_TOKEN,
}
_PRINCIPAL_ROLES: Mapping[str, Role] = {"api_key": Role.API_KEY, **_TOKEN_ROLES}


def principal_manager(principal: Principal, actor: Actor) -> Manager:
    """Return the *principal* of a request as a manager; *actor* is its name in the audit log."""
    return Manager(
        actor.kind,
        actor.id,
        actor.address,
        actor.request_id,
        role=_PRINCIPAL_ROLES[principal.kind],
        account_id=principal.account_id,
        # An attacker who finds a test key must not get access to real money through it.
        environment="test" if principal.environment == "test" else None,
        scopes=principal.scopes,
    )


def user_manager(user: User, actor: Actor) -> Manager:
    """Return a Console *user* as a manager; *actor* is their name in the audit log."""
    role = Role.ADMIN if user.is_admin else Role.VIEWER
    return Manager(actor.kind, actor.id, actor.address, actor.request_id, role=role, account_id=user.account_id)


def manager_of(actor: Actor) -> Manager:
    """Return *actor* with its authority.

    A plain `Actor` is only a name for the audit log while the program itself acts, with the authority of an operator.
    An `Actor` that names a token has a token's authority all the same: a front that forgets the manager fails closed.
    """
    if isinstance(actor, Manager):
        return actor
    role = _TOKEN_ROLES.get(actor.kind, Role.OPERATOR)
    return Manager(actor.kind, actor.id, actor.address, actor.request_id, role=role)


def may_manage(actor: Actor, action: ManagementAction, record: ManagedRecord | None = None) -> ManagementRefusal | None:
    """Return why *actor* may not do *action* to *record*, None when they may.

    Without a record, only actors who may do this to no record are refused.
    """
    manager = manager_of(actor)
    if record is not None and not manager.sees(record):
        return ManagementRefusal("not_found", "There is nothing with this id.")
    rule = _RULES[manager.role].get(action)
    detail = _DETAILS[manager.role] if rule is None else rule(manager, record)
    return None if detail is None else ManagementRefusal("not_permitted", detail)


def may_assign(actor: Actor, scope: str, current: frozenset[str] = frozenset()) -> bool:
    """Tell whether *actor* may assign *scope* to a record. The record may keep its *current* scopes."""
    manager = manager_of(actor)
    if scope in current or manager.role in {Role.OPERATOR, Role.ADMIN}:
        return True
    return manager.role is Role.API_KEY and scope in manager.scopes and scope not in NOT_ASSIGNED_BY_KEYS


def authorize(actor: Actor, action: ManagementAction, record: R | None) -> R | None:
    """Return *record*, None when *actor* cannot see it. Raises NotPermitted when they may not do *action*."""
    if record is None or (refusal := may_manage(actor, action, record)) is None:
        return record
    if refusal.code == "not_found":
        return None
    raise NotPermitted(refusal.detail)


def check_creation(actor: Actor, record: ManagedRecord) -> None:
    """Raise NotPermitted unless *actor* may create *record* with its scopes."""
    if refusal := may_manage(actor, ManagementAction.CREATE, record):
        raise NotPermitted(refusal.detail)
    check_scopes(actor, record.scopes)


def check_key_change(actor: Actor, before: KeyRecord, after: KeyRecord) -> None:
    """Raise NotPermitted unless *actor*, who may change the key, may turn *before* into *after*."""
    refusal = may_manage(actor, ManagementAction.LOOSEN, before)
    if refusal is not None and is_loosened(before, after):
        raise NotPermitted(refusal.detail)
    if after.own_tier != before.own_tier and manager_of(actor).role is not Role.OPERATOR:
        raise NotPermitted("Only operators set the tier of a key: `machpay-gateway keys update --tier`.")
    check_scopes(actor, after.scopes, before.scopes.names)


def check_scopes(actor: Actor, scopes: Iterable[str], current: frozenset[str] = frozenset()) -> None:
    """Raise NotPermitted unless *actor* may assign each of *scopes* to a record that has the *current* ones."""
    for scope in scopes:
        if not may_assign(actor, scope, current):
            raise NotPermitted(
                f"Scope {quote_value(scope)} is not the caller's to assign: an API key passes on only what it holds."
            )


def is_loosened(before: KeyRecord, after: KeyRecord) -> bool:
    """Tell whether *after* works longer than *before*, or from more addresses."""
    if before.expires_at is not None and (after.expires_at is None or after.expires_at > before.expires_at):
        return True
    if not before.allowed_ips:
        return False
    return not after.allowed_ips or not parse_allowlist(before.allowed_ips).covers(parse_allowlist(after.allowed_ips))
