import re

import pytest

from machpay_gateway.core.brand import MACHPAY
from machpay_gateway.core.decision.identity_headers import identity_fields, is_identity_name
from machpay_gateway.core.decision.principal import Principal
from machpay_gateway.core.limits.rate import TIERS
from machpay_gateway.core.scopes import Scopes


def principal(
    kind: str, identity: str = "key_1", account: str | None = "acc_1", client: str | None = None
) -> Principal:
    """Return a principal whose fields all differ."""
    return Principal(
        kind=kind,  # type: ignore[arg-type]  # one of the four
        id=identity,
        name="deploy",
        account_id=account,
        subject="subject_1",
        environment="live",
        tier="standard",
        client_id=client,
        limits=TIERS["standard"],
        scopes=Scopes(frozenset({"skills:list", "skills:execute"})),
    )


def test_the_fields_of_a_key_are_complete() -> None:
    assert dict(identity_fields(principal("api_key"), MACHPAY.header_prefix)) == {
        "X-MachPay-Key-Id": "key_1",
        "X-MachPay-Account": "acc_1",
        "X-MachPay-Subject": "key_1",
        "X-MachPay-Scopes": "skills:execute skills:list",
        "X-MachPay-Environment": "live",
        "X-MachPay-Tier": "standard",
    }


def test_the_account_of_an_issuers_token_is_encoded_like_its_subject() -> None:
    fields = dict(identity_fields(principal("jwt", "Ünal", "Müller 100%"), MACHPAY.header_prefix))
    assert (fields["X-MachPay-Account"], fields["X-MachPay-Subject"]) == ("M%C3%BCller 100%25", "%C3%9Cnal")
    assert "X-MachPay-Key-Id" not in fields


def test_the_fields_of_an_access_token_have_its_client_and_no_key() -> None:
    assert dict(identity_fields(principal("oauth", "user_1", client="client_1"), MACHPAY.header_prefix)) == {
        "X-MachPay-Client": "client_1",
        "X-MachPay-Account": "acc_1",
        "X-MachPay-Subject": "user_1",
        "X-MachPay-Scopes": "skills:execute skills:list",
        "X-MachPay-Environment": "live",
        "X-MachPay-Tier": "standard",
    }


@pytest.mark.parametrize(
    "subject, expected",
    [
        ("user|42", "user|42"),
        ("Zoë", "Zo%C3%AB"),
        ("a\r\nX-Admin: 1", "a%0D%0AX-Admin: 1"),  # a header of its own otherwise
        ("100%", "100%25"),  # so that decoding gives back what was encoded
    ],
)
def test_a_tokens_subject_cannot_inject_a_header(subject: str, expected: str) -> None:
    fields = dict(identity_fields(principal("jwt", subject, account=None), MACHPAY.header_prefix))
    assert fields["X-MachPay-Subject"] == expected
    assert not {"X-MachPay-Key-Id", "X-MachPay-Account"} & set(fields)


@pytest.mark.parametrize(
    "name, is_ours",
    [
        ("X-MachPay-Key-Id", True),
        ("x-machpay-anything", True),
        ("X_MachPay_Account", True),  # CGI cannot tell it from the one with hyphens
        ("x-MACHPAY_tier", True),
        ("X.MachPay.Tier", True),  # some servers make an underscore of every other character
        ("X-Machpayer", False),
        ("X-Mach-Pay-Tier", False),
    ],
)
def test_identity_header_names_are_recognized_in_every_spelling(name: str, *, is_ours: bool) -> None:
    assert is_identity_name(name, MACHPAY.header_prefix) is is_ours
    assert is_identity_name(name, "X-Acme-") is is_ours, "an upstream may still read the names from before a brand"
    branded = re.sub("machpay", "acme", name, flags=re.IGNORECASE)
    assert is_identity_name(branded, "X-Acme-") is is_ours
