"""Tests of fastapi_app.py: the caller is given, and what the application requires of it is real. Run them: `pytest`."""

from collections.abc import Callable

from fastapi.testclient import TestClient
from fastapi_app import app

from machpay_gateway.testing import PrincipalOverride, as_principal

client = TestClient(app)


def test_a_caller_may_execute_a_skill() -> None:
    """The caller needs neither a key nor a database."""
    with as_principal(app, scopes="skills:execute", tier="enterprise", name="ada"):
        assert client.post("/v1/skills/execute").json() == {"hello": "ada", "tier": "enterprise"}


def test_another_scope_is_not_enough() -> None:
    """The scopes of the operation are in force."""
    with as_principal(app, scopes="skills:list"):
        assert client.post("/v1/skills/execute").status_code == 403


def test_a_credential_is_needed() -> None:
    """None is a caller without credentials."""
    with as_principal(app, None):
        assert client.post("/v1/skills/execute").status_code == 401


def test_the_fixture_lasts_until_the_end_of_the_test(as_principal: Callable[..., PrincipalOverride]) -> None:
    """The fixture takes the same arguments, and needs no block."""
    as_principal(app, scopes="skills:execute", name="bob")
    assert client.post("/v1/skills/execute").json()["hello"] == "bob"
