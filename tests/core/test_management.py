"""Who may manage what: the table by itself, and what makes a key looser."""

from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest

from machpay_gateway.core.accounts.management import (
    ManagementAction,
    Manager,
    Role,
    authorize,
    check_creation,
    check_key_change,
    is_loosened,
    manager_of,
    may_assign,
    may_manage,
    principal_manager,
    user_manager,
)
from machpay_gateway.core.accounts.user import User
from machpay_gateway.core.decision.principal import Principal
from machpay_gateway.core.errors import NotPermitted
from machpay_gateway.core.keys.audit import APPLICATION, Actor, ActorKind
from machpay_gateway.core.keys.key import KeyRecord
from machpay_gateway.core.limits.rate import Tier
from machpay_gateway.core.scopes import Scopes
from tests.keyrings import ACME, GLOBEX, NOW, stored_key

KEY = stored_key(1, expires_at=NOW, allowed_ips=("10.0.0.0/8", "2001:db8::/32"))
READS = {ManagementAction.READ, ManagementAction.READ_AUDIT_LOG}
NEEDING_SCOPES = {ManagementAction.LOOSEN, ManagementAction.ISSUE_SECRET}
EVERYTHING = set(ManagementAction) - {ManagementAction.CREATE_SESSION}
OF_A_KEY = set(ManagementAction)
# How the page on the key API names actions and roles.
COLUMNS = {
    "read": [ManagementAction.READ],
    "create": [ManagementAction.CREATE],
    "rename, narrow, end": [ManagementAction.CHANGE, ManagementAction.END],
    "loosen": [ManagementAction.LOOSEN],
    "new secret": [ManagementAction.ISSUE_SECRET],
    "create a session": [ManagementAction.CREATE_SESSION],
    "audit log": [ManagementAction.READ_AUDIT_LOG],
}
ROWS = {
    "operator (`machpay-gateway`)": Role.OPERATOR,
    "Console admin": Role.ADMIN,
    "Console viewer": Role.VIEWER,
    "API key with `keys:manage`": Role.API_KEY,
    "[session](tokens.md#sessions) of a key with `keys:manage`": Role.TOKEN,
    "JWT of another [issuer](tokens.md)": Role.FOREIGN_TOKEN,
}


def scopes(*names: str) -> Scopes:
    return Scopes(frozenset(names))


def principal(kind: Any, *names: str, key_id: str = "key_caller", **settings: Any) -> Principal:  # noqa: ANN401 - any of its fields
    fields: dict[str, Any] = {
        "kind": kind,
        "id": key_id,
        "name": "caller",
        "account_id": None if kind == "jwt" else ACME.id,
        "subject": key_id,
        "environment": "live",
        "tier": "standard",
        "limits": Tier(rate="1/minute", concurrency=1),
        "scopes": scopes("keys:manage", *names),
    }
    return Principal(**(fields | settings))


def manager(kind: Any, *names: str, **settings: Any) -> Manager:  # noqa: ANN401 - as above
    caller = principal(kind, *names, **settings)
    return principal_manager(caller, Actor(kind, caller.id))


def console_user(role: str) -> Manager:
    return user_manager(User("user_1", ACME.id, "a@example.org", NOW, role=role), Actor("user", "user_1"))


@pytest.mark.parametrize(
    "actor, expected",
    [
        (APPLICATION, EVERYTHING),
        (Actor("operator", "ops"), EVERYTHING),
        (Actor("scanner", "scan"), EVERYTHING),  # the program, by the operator's setting
        (Actor("client"), EVERYTHING),  # likewise: registration
        (Actor("session", "key_1"), set()),  # a name gives no authority to what has none
        (Actor("oauth", "user_1"), set()),
        (Actor("jwt", "key_1"), set()),
        (console_user("admin"), EVERYTHING),
        (console_user("viewer"), READS),
        (console_user("Admin"), READS),  # a role that nobody defined may look
        (manager("api_key", "skills:list"), OF_A_KEY),
        (manager("api_key"), OF_A_KEY - NEEDING_SCOPES),
        (manager("api_key", key_id=KEY.id), OF_A_KEY),  # its own record, whatever it has been given since
        (manager("session", "skills:list"), READS),
        (manager("session", key_id=KEY.id), READS),  # a session is not its key
        (manager("session", key_id=KEY.id, environment="test"), READS),
        (manager("oauth", "skills:list", key_id="user_1", client_id="app_1"), READS),
        (manager("oauth", "skills:list", key_id="app_1", client_id="app_1"), READS),
        (manager("jwt", "skills:list", key_id=KEY.id), set()),
    ],
)
def test_each_role_does_to_a_record_what_its_row_says(actor: Actor, expected: set[ManagementAction]) -> None:
    key = replace(KEY, environment="test") if isinstance(actor, Manager) and actor.environment else KEY
    allowed = {action for action in ManagementAction if may_manage(actor, action, key) is None}
    if isinstance(actor, Manager) and actor.environment == "test":
        expected = expected - {ManagementAction.READ_AUDIT_LOG}
    assert allowed == expected


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("action", ManagementAction)
def test_every_role_has_an_answer_to_every_action(role: Role, action: ManagementAction) -> None:
    refusal = may_manage(Manager("application", role=role), action)
    assert refusal is None or (refusal.code == "not_permitted" and refusal.detail.endswith("."))


def test_the_page_says_of_each_role_what_the_table_says() -> None:
    page = (Path(__file__).parents[2] / "docs/key-api.md").read_text()
    section = page.split("## Who may do what")[1].split("\n## ")[0]
    header, _, *rows = (
        [cell.strip() for cell in line.split("|")[1:-1]] for line in section.splitlines() if "|" in line
    )
    assert header[1:] == list(COLUMNS)
    told = {row[0]: [cell != "no" for cell in row[1:]] for row in rows}
    for caller, role in ROWS.items():
        actor = Manager("application", role=role)
        assert told[caller] == [
            all(may_manage(actor, action) is None for action in actions) for actions in COLUMNS.values()
        ], caller


@pytest.mark.parametrize("kind", get_args(ActorKind))
def test_a_name_of_any_kind_has_some_authority_or_none(kind: ActorKind) -> None:
    assert manager_of(Actor(kind)).role in {Role.OPERATOR, Role.TOKEN, Role.FOREIGN_TOKEN}


@pytest.mark.parametrize("action", ManagementAction)
@pytest.mark.parametrize(
    "actor, record",
    [
        (manager("api_key", "skills:list", account_id=GLOBEX.id), KEY),
        (manager("api_key", "skills:list", account_id=GLOBEX.id, key_id=KEY.id), KEY),
        (manager("api_key", "skills:list", environment="test"), KEY),
        (manager("session", account_id=GLOBEX.id), KEY),
        (manager("api_key", account_id=None), KEY),
        (console_user("admin"), replace(KEY, account_id=GLOBEX.id)),
        (console_user("viewer"), replace(KEY, account_id=GLOBEX.id)),
        (manager("jwt", key_id=KEY.id), KEY),
    ],
)
def test_what_is_not_seen_is_not_there_whatever_is_done(
    actor: Manager, record: KeyRecord, action: ManagementAction
) -> None:
    refusal = may_manage(actor, action, record)
    assert refusal is not None
    assert refusal.code == "not_found"
    assert authorize(actor, action, record) is None


def test_a_live_key_sees_test_records_and_a_test_key_no_live_ones() -> None:
    test = replace(KEY, environment="test")
    assert authorize(manager("api_key", "skills:list"), ManagementAction.ISSUE_SECRET, test) is test
    assert authorize(manager("api_key", "skills:list", environment="test"), ManagementAction.READ, KEY) is None


@pytest.mark.parametrize(
    "held, scope, kept, given",
    [
        (["skills:list"], "skills:list", [], True),
        (["skills:*"], "skills:list", [], True),
        (["skills:*"], "skills:*", [], True),
        (["skills:list"], "skills:*", [], False),
        (["skills:list"], "account:read", [], False),
        (["skills:list"], "account:read", ["account:read"], True),
        ([], "keys:manage", [], False),
        (["keys:*"], "keys:*", [], False),
        ([], "keys:manage", ["keys:manage"], True),
    ],
)
def test_a_key_gives_on_what_it_holds(held: list[str], scope: str, kept: list[str], *, given: bool) -> None:
    assert may_assign(manager("api_key", *held), scope, frozenset(kept)) is given


@pytest.mark.parametrize("kind", ["session", "oauth", "jwt"])
def test_what_is_derived_gives_nothing_and_an_operator_everything(kind: str) -> None:
    assert not may_assign(manager(kind, "skills:list"), "skills:list")
    assert not may_assign(console_user("viewer"), "skills:list")
    for actor in (APPLICATION, console_user("admin")):
        assert may_assign(actor, "keys:manage")


@pytest.mark.parametrize(
    "changes, why",
    [
        ({"account_id": GLOBEX.id}, "another account's"),
        ({"scopes": scopes("account:read")}, "a scope that it does not hold"),
        ({"scopes": scopes("keys:manage")}, "a scope that keys do not give"),
    ],
)
def test_a_key_creates_nothing_beyond_itself(changes: dict[str, Any], why: str) -> None:
    caller = manager("api_key", "skills:list")
    check_creation(caller, KEY)
    with pytest.raises(NotPermitted):
        check_creation(caller, replace(KEY, **changes))
    with pytest.raises(NotPermitted):
        check_creation(manager("api_key", "skills:list", environment="test"), KEY)
    check_creation(APPLICATION, replace(KEY, **changes))
    assert why


@pytest.mark.parametrize("before, after", [(None, "test"), ("test", None), ("test", "enterprise")])
def test_only_operators_set_the_tier_of_a_key(before: str | None, after: str | None) -> None:
    key = stored_key(1).with_own_tier(before)
    check_key_change(APPLICATION, key, key.with_own_tier(after))
    check_key_change(Actor("operator", "ada"), key, key.with_own_tier(after))
    for caller in (manager("api_key", "skills:list", key_id=key.id), console_user("admin")):
        check_key_change(caller, key, replace(key, name="renamed"))
        with pytest.raises(NotPermitted, match="Only operators set the tier of a key: `machpay-gateway keys update"):
            check_key_change(caller, key, key.with_own_tier(after))


@pytest.mark.parametrize(
    "before, after, loosened",
    [
        ({"expires_at": NOW}, {"expires_at": NOW}, False),
        ({"expires_at": NOW}, {"expires_at": NOW - 1}, False),
        ({"expires_at": NOW}, {"expires_at": NOW + 1}, True),
        ({"expires_at": NOW}, {"expires_at": None}, True),
        ({"expires_at": None}, {"expires_at": NOW}, False),
        ({"allowed_ips": ()}, {"allowed_ips": ("10.0.0.0/8",)}, False),
        ({"allowed_ips": ()}, {"allowed_ips": ()}, False),
        ({"allowed_ips": ("10.0.0.0/8",)}, {"allowed_ips": ()}, True),
        ({"allowed_ips": ("10.0.0.0/8",)}, {"allowed_ips": ("10.1.0.0/16", "10.2.3.4")}, False),
        ({"allowed_ips": ("10.0.0.0/8",)}, {"allowed_ips": ("10.128.0.0/9", "10.0.0.0/9")}, False),
        ({"allowed_ips": ("10.0.0.0/9", "10.128.0.0/9")}, {"allowed_ips": ("10.0.0.0/8",)}, False),
        ({"allowed_ips": ("10.0.0.0/8",)}, {"allowed_ips": ("10.0.0.0/7",)}, True),
        ({"allowed_ips": ("10.0.0.0/8",)}, {"allowed_ips": ("10.0.0.1", "192.0.2.1")}, True),
        ({"allowed_ips": ("10.0.0.0/9", "10.192.0.0/10")}, {"allowed_ips": ("10.0.0.0/8",)}, True),
        ({"allowed_ips": ("10.0.0.0/8",)}, {"allowed_ips": ("::/0",)}, True),
        ({"allowed_ips": ("10.0.0.0/8",)}, {"allowed_ips": ("::ffff:10.0.0.0/104",)}, False),
        ({"allowed_ips": ("2001:db8::/32",)}, {"allowed_ips": ("2001:db8:1::/48",)}, False),
        ({"allowed_ips": ("2001:db8::/32",)}, {"allowed_ips": ("2001:db8::/31",)}, True),
        ({"allowed_ips": ("0.0.0.0/0",)}, {"allowed_ips": ()}, True),
        ({"name": "a"}, {"name": "b", "metadata": {"a": "b"}, "scopes": scopes()}, False),
    ],
    ids=str,
)
def test_a_key_is_looser_when_it_works_longer_or_from_elsewhere(
    before: dict[str, Any], after: dict[str, Any], *, loosened: bool
) -> None:
    key = stored_key(1, **before)
    changed = replace(key, **after)
    assert is_loosened(key, changed) is loosened
    check_key_change(manager("api_key", "skills:list"), key, changed)
    if loosened:
        with pytest.raises(NotPermitted, match="does not hold"):
            check_key_change(manager("api_key", "account:read"), key, changed)
    else:
        check_key_change(manager("api_key", "account:read"), key, changed)
