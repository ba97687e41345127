"""Who may manage which key, OAuth client or grant: one table, asked by the use cases of the very record they change.

A `Manager` is an `Actor` with its authority. A use case takes both as one value, so that no front can name who acts for
the audit log and forget to say how far that one's authority reaches. What is derived from a credential (a session, an
OAuth access token, an issuer's JWT) never has the authority of what it was derived from.
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
    """What is done to a record. LOOSEN lengthens its life, or widens where and by whom it can be used."""

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
    """Who acts, and by which authority.

    An operator sees every account, all others *account_id* only (None: nothing). *environment* is the only one that is
    visible, None for both. *scopes* are what an API key holds.
    """

    role: Role
    account_id: str | None = None
    environment: str | None = None
    scopes: Scopes = field(default_factory=Scopes)

    @property
    def key_id(self) -> str | None:
        """The id of the API key that acts, None for all else: a session is not its key."""
        return self.id if self.role is Role.API_KEY else None

    def sees(self, record: ManagedRecord) -> bool:
        """Tell whether *record* exists as far as the manager is concerned."""
        if self.role is Role.OPERATOR:
            return True
        return record.account_id == self.account_id and self.environment in (None, record.environment)


@dataclass(frozen=True, slots=True)
class ManagementRefusal:
    """Why not: the record is not there for the manager, or *detail* names the way out."""

    code: Literal["not_found", "not_permitted"]
    detail: str


# Told without the record, a rule judges only what does not depend on one. Returns the detail of a refusal.
Rule = Callable[[Manager, ManagedRecord | None], str | None]


def _allow(_manager: Manager, _record: ManagedRecord | None) -> None:
    return None


def _require_its_scopes(manager: Manager, record: ManagedRecord | None) -> str | None:
    # A new secret is the caller's to use. A leaked one that is bound to an address, or about to expire, becomes useful
    # to whoever has it once it is loosened.
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
    Role.FOREIGN_TOKEN: "Tokens of other issuers belong to no account: use an API key.",
}
_TOKEN_ROLES: Mapping[str, Role] = {"session": Role.TOKEN, "oauth": Role.TOKEN, "jwt": Role.FOREIGN_TOKEN}
_PRINCIPAL_ROLES: Mapping[str, Role] = {"api_key": Role.API_KEY, **_TOKEN_ROLES}


def principal_manager(principal: Principal, actor: Actor) -> Manager:
    """Return the authority of the *principal* of a request, whom the audit log names as *actor*."""
    return Manager(
        actor.kind,
        actor.id,
        actor.address,
        actor.request_id,
        role=_PRINCIPAL_ROLES[principal.kind],
        account_id=principal.account_id,
        # Whoever finds a key that was made for trying things out must not find the way to real money behind it.
        environment="test" if principal.environment == "test" else None,
        scopes=principal.scopes,
    )


def user_manager(user: User, actor: Actor) -> Manager:
    """Return the authority of a Console *user*, whom the audit log names as *actor*."""
    role = Role.ADMIN if user.is_admin else Role.VIEWER
    return Manager(actor.kind, actor.id, actor.address, actor.request_id, role=role, account_id=user.account_id)


def manager_of(actor: Actor) -> Manager:
    """Return the authority of *actor*.

    A plain `Actor` names somebody for the audit log while the program itself acts, with an operator's authority. One
    that names a token has none all the same: a front that hands in no more fails closed.
    """
    if isinstance(actor, Manager):
        return actor
    role = _TOKEN_ROLES.get(actor.kind, Role.OPERATOR)
    return Manager(actor.kind, actor.id, actor.address, actor.request_id, role=role)


def may_manage(actor: Actor, action: ManagementAction, record: ManagedRecord | None = None) -> ManagementRefusal | None:
    """Return why *actor* may not do *action* to *record*, None when they may.

    Without a record the answer is what holds for every one: it refuses who may never do this.
    """
    manager = manager_of(actor)
    if record is not None and not manager.sees(record):
        return ManagementRefusal("not_found", "There is nothing with this id.")
    rule = _RULES[manager.role].get(action)
    detail = _DETAILS[manager.role] if rule is None else rule(manager, record)
    return None if detail is None else ManagementRefusal("not_permitted", detail)


def may_assign(actor: Actor, scope: str, kept: frozenset[str] = frozenset()) -> bool:
    """Tell whether *actor* may assign *scope* to a key or an OAuth client; one that it has already may be *kept*."""
    manager = manager_of(actor)
    if scope in kept or manager.role in {Role.OPERATOR, Role.ADMIN}:
        return True
    return manager.role is Role.API_KEY and scope in manager.scopes and scope not in NOT_ASSIGNED_BY_KEYS


def authorize(actor: Actor, action: ManagementAction, record: R | None) -> R | None:
    """Return *record*, None when it does not exist for *actor*. Raises NotPermitted when they may not do *action*."""
    if record is None or (refusal := may_manage(actor, action, record)) is None:
        return record
    if refusal.code == "not_found":
        return None
    raise NotPermitted(refusal.detail)


def check_creation(actor: Actor, record: ManagedRecord) -> None:
    """Raise NotPermitted unless *actor* may create *record*, with the scopes that it has."""
    if refusal := may_manage(actor, ManagementAction.CREATE, record):
        raise NotPermitted(refusal.detail)
    check_scopes(actor, record.scopes)


def check_key_change(actor: Actor, before: KeyRecord, after: KeyRecord) -> None:
    """Raise NotPermitted unless *actor*, who may change the key, may make *after* of *before*."""
    refusal = may_manage(actor, ManagementAction.LOOSEN, before)
    if refusal is not None and is_loosened(before, after):
        raise NotPermitted(refusal.detail)
    check_scopes(actor, after.scopes, before.scopes.names)


def check_scopes(actor: Actor, scopes: Iterable[str], kept: frozenset[str] = frozenset()) -> None:
    """Raise NotPermitted unless *actor* may assign each of *scopes* that is not *kept*."""
    for scope in scopes:
        if not may_assign(actor, scope, kept):
            raise NotPermitted(
                f"Scope {quote_value(scope)} is not the caller's to assign: an API key passes on only what it holds."
            )


def is_loosened(before: KeyRecord, after: KeyRecord) -> bool:
    """Tell whether *after* works longer than *before*, or from addresses that *before* does not."""
    if before.expires_at is not None and (after.expires_at is None or after.expires_at > before.expires_at):
        return True
    if not before.allowed_ips:
        return False
    return not after.allowed_ips or not parse_allowlist(before.allowed_ips).covers(parse_allowlist(after.allowed_ips))
