"""The same requests to this authorization server and to oidc-provider: where they differ, the table says why.

A difference that the table does not know fails, and so does a reason that is no longer needed.
"""

import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

from tests.node import hindrance
from tests.oauth.harness import SCOPES
from tests.oauth.interop import rows_authorize, rows_clients, rows_endings, rows_redirects, rows_tokens
from tests.oauth.interop.parties import Party
from tests.oauth.interop.programs import running
from tests.oauth.interop.served import BEYOND, OTHER_AUDIENCE, Served
from tests.oauth.interop.wire_requests import Row

OURS = {
    "authorize": "/oauth/authorize",
    "token": "/oauth/token",
    "revoke": "/oauth/revoke",
    "introspect": "/oauth/introspect",
}
THEIRS = {
    "authorize": "/auth",
    "token": "/token",
    "revoke": "/token/revocation",
    "introspect": "/token/introspection",
}
TABLE: dict[str, tuple[Row, ...]] = {
    "authorize": (*rows_authorize.ROWS, *rows_redirects.ROWS),
    "token": (*rows_clients.ROWS, *rows_tokens.ROWS),
    "endings": rows_endings.ROWS,
}
ROWS = [row for rows in TABLE.values() for row in rows]
HINDRANCE = hindrance("oidc-provider is compared with")
needs_node = pytest.mark.skipif(bool(HINDRANCE), reason=HINDRANCE)
pytestmark = [
    pytest.mark.xdist_group("oauth-interop"),
    pytest.mark.timeout(120),  # packages are fetched before the first test
]


@pytest.fixture(scope="module")
def ours(served: Served) -> Iterator[Party]:
    party = Party(served.issuer, served.api_url, served.oauth_clients, OURS)
    yield party
    party.close()


@pytest.fixture(scope="module")
def theirs(programs: Path, served: Served) -> Iterator[Party]:
    apps = [getattr(served.oauth_clients, each.name).credentials() for each in fields(served.oauth_clients)]
    given = {
        "apps": apps,
        "scopes": SCOPES,
        "beyond": BEYOND,
        "audience": served.api_url,
        "resources": [OTHER_AUDIENCE],
    }
    with running(programs, "provider.js") as program:
        program.tell(given)
        party = Party(program.read_result(), served.api_url, served.oauth_clients, THEIRS)
        yield party
        party.close()


@needs_node
@pytest.mark.parametrize("row", ROWS, ids=lambda row: ascii(row.claim))
def test_both_servers_say_the_same_unless_the_table_tells_why(row: Row, ours: Party, theirs: Party) -> None:
    assert (ours.outcome_of(row.request), theirs.outcome_of(row.request)) == (row.outcome, row.theirs or row.outcome)


@pytest.mark.parametrize("row", [row for row in ROWS if row.theirs or row.why], ids=lambda row: ascii(row.claim))
def test_a_reason_is_one_sentence_about_a_difference_with_its_place_in_a_standard(row: Row) -> None:
    assert row.theirs not in {"", row.outcome}
    assert re.search(r"\b(RFC \d+|OAuth 2\.1|OpenID Connect Core) §\d", row.why)
    assert row.why.endswith(".")
    assert row.why.count(". ") == 0


def test_no_request_is_told_of_twice() -> None:
    for rows in TABLE.values():
        assert len({row.claim for row in rows}) == len(rows)
    assert len(ROWS) > 60
