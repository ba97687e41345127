"""What the audit log's rows say to people."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from machpay_gateway.console import audit
from machpay_gateway.console.audit_descriptions import ACTIONS, ACTORS, CATEGORIES, format_value, setting_changes
from machpay_gateway.core.keys.audit import ActorKind, AuditRow


def test_every_action_has_a_description_and_a_category() -> None:
    """What `Change` is made with anywhere; `signing_key.` is no account's."""
    written = set()
    for file in Path(audit.__file__).parents[1].rglob("*.py"):
        if file.name == "traces.py":  # in which "client.address" is a name of OpenTelemetry's
            continue
        written |= set(
            re.findall(
                r'"((?:key|client|grant|user|account|console)\.(?!html|pem|css|js|url|api_url)[a-z_]+)"',
                file.read_text(),
            )
        )
    assert written == set(ACTIONS)
    assert {action.partition(".")[0] + "." for action in ACTIONS} == set(CATEGORIES)


@pytest.mark.parametrize("before, after, expected", [
    ("{}", '{"name":"a","metadata":{},"expires_at":null}', [("Name", None, "a")]),
    ("{}", '{"scopes":["x","y"]}', [("Scopes", None, "x, y")]),
    ('{"allowed_ips":[]}', '{"allowed_ips":["192.0.2.0/24"]}', [("Allowed IP addresses", "none", "192.0.2.0/24")]),
    ('{"alive":true}', '{"alive":false}', [("Active", "yes", "no")]),
    ('{"expires_at":"2030-01-01T00:00:00Z"}', '{"expires_at":null}', [("Expires at", "2030-01-01T00:00:00Z", "none")]),
    (
        '{"secrets":[{"masked":"sk_live_…a1b2","expires_at":null}]}',
        '{"secrets":[{"masked":"sk_live_…c3d4","expires_at":null},{"masked":"sk_live_…a1b2","expires_at":"2030"}]}',
        [("Secrets", "sk_live_…a1b2", "sk_live_…c3d4; sk_live_…a1b2, until 2030")],
    ),
    ('{"metadata":{"a":"1"}}', '{"metadata":{"a":"1","b":"2"}}', [("Metadata", "a: 1", "a: 1; b: 2")]),
    ('{"family":"f_1"}', '{"family":null,"reason":"x"}', [("Family", "f_1", "none"), ("Reason", None, "x")]),
    ("nonsense", "{}", [("As stored", "nonsense", "{}")]),  # tampered with: `audit verify` says so
    ("[1]", "{}", [("As stored", "[1]", "{}")]),
])  # fmt: skip
def test_a_change_is_described_setting_by_setting(before: str, after: str, expected: Sequence[Any]) -> None:
    row = AuditRow(1, 0.0, "user", "", None, None, "key.update", "acct", "key_1", before, after, b"")
    assert setting_changes(row) == expected


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text()


@settings(suppress_health_check=[HealthCheck.too_slow])  # on a busy machine
@given(st.recursive(LEAVES, lambda each: st.lists(each) | st.dictionaries(st.text(), each), max_leaves=9))
def test_any_value_is_formatted(value: object) -> None:
    assert format_value(value) or value is not None


def test_every_kind_of_actor_has_a_description() -> None:
    assert set(ACTORS) == set(get_args(ActorKind))
