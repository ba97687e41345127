"""The command line acts with an operator's authority."""

import pytest

from machpay_gateway.cli.session import operator_actor
from machpay_gateway.core.accounts.management import ManagementAction, Role, manager_of, may_assign, may_manage
from tests.keyrings import ACME, GLOBEX, stored_key


@pytest.mark.parametrize("action", [each for each in ManagementAction if each is not ManagementAction.CREATE_SESSION])
@pytest.mark.parametrize("account_id", [ACME.id, GLOBEX.id])
@pytest.mark.parametrize("environment", ["live", "test"])
def test_an_operator_may_do_everything_in_every_account(
    action: ManagementAction, account_id: str, environment: str
) -> None:
    record = stored_key(1, account_id=account_id, environment=environment)
    assert may_manage(operator_actor(), action, record) is None


def test_an_operator_assigns_what_no_key_may() -> None:
    assert manager_of(operator_actor()).role is Role.OPERATOR
    assert may_assign(operator_actor(), "keys:manage")
