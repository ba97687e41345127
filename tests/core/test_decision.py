from dataclasses import FrozenInstanceError, fields, replace

import pytest

from machpay_gateway.core.decision.decision import Allowed, CheckCache, Denied, admit, conclude
from machpay_gateway.core.decision.principal import Principal
from machpay_gateway.core.decision.reason import Reason
from machpay_gateway.core.decision.request_facts import RequestFacts
from machpay_gateway.core.decision.route import Route
from machpay_gateway.core.limits.admission import AdmissionRequest, Admitted, Exceeded
from machpay_gateway.core.limits.plan import tier_plan
from machpay_gateway.core.limits.rate import CONCURRENCY, TIERS
from machpay_gateway.core.network.address import parse_address, parse_allowlist
from machpay_gateway.core.scopes import Scopes

NOW = 1000.0
ROUTE = Route("POST /v1/skills/execute", scopes="skills:execute", cost=3)
LIVE_ONLY = replace(ROUTE, environments=frozenset({"live"}))
GOOD = Principal(
    kind="api_key",
    id="key_1",
    name="deploy",
    account_id="acct_1",
    subject="key_1",
    environment="live",
    tier="standard",
    limits=TIERS["standard"],
    scopes=Scopes(frozenset({"skills:execute"})),
    version=7,
    expires_at=NOW + 10,
    allowlist=parse_allowlist(["192.0.2.0/24"]),
)


def principal(**changes: object) -> Principal:
    return replace(GOOD, **changes)  # type: ignore[arg-type]  # the table below knows the fields


def facts(address: str | None = "192.0.2.1") -> RequestFacts:
    return RequestFacts("POST", "/v1/skills/execute", (), address and parse_address(address), b"id")  # type: ignore[arg-type]  # "" is not tried


# What is wrong with a request, worst first: each answers before those below it.
WRONGS: list[tuple[dict[str, object], Reason, str]] = [
    ({"revoked": True}, Reason.INVALID_CREDENTIALS, "revoked"),
    ({"expires_at": NOW}, Reason.INVALID_CREDENTIALS, "expired"),
    ({"environment": "test"}, Reason.WRONG_ENVIRONMENT, "test is not served here"),
    (
        {"allowlist": parse_allowlist(["198.51.100.0/24"])},
        Reason.ADDRESS_NOT_ALLOWED,
        "address is not on the key's list",
    ),
    ({"scopes": Scopes()}, Reason.INSUFFICIENT_SCOPE, "needs skills:execute"),
]


@pytest.mark.parametrize("first", range(len(WRONGS)))
def test_the_first_reason_in_the_order_of_checks_is_the_answer(first: int) -> None:
    changes = {name: value for wrong, _, _ in WRONGS[first:] for name, value in wrong.items()}
    denied = admit(facts(), LIVE_ONLY, principal(**changes), NOW)
    assert denied is not None
    assert (denied.reason, denied.detail) == WRONGS[first][1:]
    assert denied.route is LIVE_ONLY
    assert denied.principal is not None


@pytest.mark.parametrize("changes, reason, detail", WRONGS)
def test_each_failed_check_alone_is_refused(changes: dict[str, object], reason: Reason, detail: str) -> None:
    denied = admit(facts(), LIVE_ONLY, principal(**changes), NOW)
    assert denied is not None
    assert (denied.reason, denied.detail) == (reason, detail)


@pytest.mark.parametrize(
    "changes, address",
    [
        ({}, "192.0.2.1"),
        ({"expires_at": None}, "192.0.2.1"),
        ({"expires_at": NOW + 1e-3}, "192.0.2.255"),
        ({"allowlist": None}, "203.0.113.1"),
        ({"allowlist": None}, None),  # without a list, an address that cannot be read does not matter
        ({"scopes": Scopes(frozenset({"skills:*"}))}, "192.0.2.1"),
    ],
)
def test_a_principal_that_passes_every_check_is_admitted(changes: dict[str, object], address: str | None) -> None:
    assert admit(facts(address), LIVE_ONLY, principal(**changes), NOW) is None


@pytest.mark.parametrize("address", [None, "203.0.113.1", "::1"])
def test_with_an_allowlist_an_unreadable_address_is_refused(address: str | None) -> None:
    denied = admit(facts(address), ROUTE, GOOD, NOW)
    assert denied is not None
    assert denied.reason is Reason.ADDRESS_NOT_ALLOWED


def test_an_empty_allowlist_refuses_every_address() -> None:
    denied = admit(facts(), ROUTE, principal(allowlist=parse_allowlist([])), NOW)
    assert denied is not None
    assert denied.reason is Reason.ADDRESS_NOT_ALLOWED


def test_a_refusal_for_scope_names_the_required_scopes() -> None:
    denied = admit(facts(), Route("GET /x", scopes="keys:manage skills:execute"), GOOD, NOW)
    assert denied is not None
    assert denied.missing == ("keys:manage", "skills:execute")


def test_an_admission_request_holds_the_cost_of_the_route_and_the_subject_of_the_principal() -> None:
    request = CheckCache().admission_request(facts(), ROUTE, principal(subject="grant_1"), NOW)
    assert request == AdmissionRequest("grant_1", 7, tier_plan(TIERS["standard"]), 3, group="acct_1")


@pytest.mark.parametrize(
    "later, address, reason",
    [
        (NOW + 10, "192.0.2.1", Reason.INVALID_CREDENTIALS),  # expired since
        (NOW, "203.0.113.1", Reason.ADDRESS_NOT_ALLOWED),  # from another address
        (NOW, None, Reason.ADDRESS_NOT_ALLOWED),  # from an address that cannot be read
    ],
)
def test_expiry_and_address_are_checked_again_after_the_checks_passed(
    later: float, address: str | None, reason: Reason
) -> None:
    checks, caller = CheckCache(), principal()
    assert isinstance(checks.admission_request(facts(), ROUTE, caller, NOW), AdmissionRequest)
    denied = checks.admission_request(facts(address), ROUTE, caller, later)
    assert isinstance(denied, Denied)
    assert denied.reason is reason
    assert isinstance(checks.admission_request(facts(), ROUTE, caller, NOW), AdmissionRequest)  # no refusal is cached


def test_a_principal_from_another_allowed_address_passes_and_is_cached_for_that_one() -> None:
    checks, caller = CheckCache(), principal()
    for address in ("192.0.2.1", "192.0.2.2", "192.0.2.2"):
        assert isinstance(checks.admission_request(facts(address), ROUTE, caller, NOW), AdmissionRequest)
    assert len(checks) == 1


def test_passed_checks_are_cached_for_each_route() -> None:
    checks, caller = CheckCache(), principal()
    assert isinstance(checks.admission_request(facts(), ROUTE, caller, NOW), AdmissionRequest)
    other = Route("GET /v1/keys", scopes="keys:manage")
    assert isinstance(checks.admission_request(facts(), other, caller, NOW), Denied)
    cheap = checks.admission_request(facts(), Route("GET /v1/cheap", cost=0), caller, NOW)
    assert isinstance(cheap, AdmissionRequest)
    assert cheap.cost == 0


@pytest.mark.parametrize(
    "changes, expected",
    [
        ({"revoked": True}, Reason.INVALID_CREDENTIALS),
        ({"scopes": Scopes()}, Reason.INSUFFICIENT_SCOPE),
        ({"environment": "test"}, Reason.WRONG_ENVIRONMENT),
    ],
)
def test_a_changed_record_is_another_principal_with_no_passed_checks(
    changes: dict[str, object], expected: Reason
) -> None:
    checks, before = CheckCache(), principal()
    assert isinstance(checks.admission_request(facts(), LIVE_ONLY, before, NOW), AdmissionRequest)
    after = replace(before, **changes)  # type: ignore[arg-type]  # as in `principal`
    denied = checks.admission_request(facts(), LIVE_ONLY, after, NOW)
    assert isinstance(denied, Denied)
    assert denied.reason is expected


def test_a_new_tier_and_version_are_in_the_request_of_the_new_record() -> None:
    checks, before = CheckCache(), principal()
    checks.admission_request(facts(), ROUTE, before, NOW)
    after = replace(before, version=8, limits=TIERS["test"])
    expected = AdmissionRequest("key_1", 8, tier_plan(TIERS["test"]), 3, group="acct_1")
    assert checks.admission_request(facts(), ROUTE, after, NOW) == expected


def test_passed_checks_are_dropped_with_their_principal() -> None:
    checks, remaining = CheckCache(), principal()
    checks.admission_request(facts(), ROUTE, remaining, NOW)
    for _ in range(10):  # each may get the id() of the one before
        refused = replace(remaining, scopes=Scopes())
        assert isinstance(checks.admission_request(facts(), ROUTE, refused, NOW), Denied)
        del refused
        passing = replace(remaining)
        assert isinstance(checks.admission_request(facts(), ROUTE, passing, NOW), AdmissionRequest)
        del passing
        assert len(checks) == 1


def test_caches_of_two_policies_do_not_mix() -> None:
    caller = principal()
    assert isinstance(CheckCache().admission_request(facts(), ROUTE, caller, NOW), AdmissionRequest)
    stricter = Route(ROUTE.match, scopes="keys:manage")
    assert isinstance(CheckCache().admission_request(facts(), stricter, caller, NOW), Denied)


def test_a_principal_is_frozen_and_remembers_nothing() -> None:
    caller = principal()
    with pytest.raises(FrozenInstanceError):
        caller.revoked = True  # type: ignore[misc]  # the point of the test
    before = {field.name: getattr(caller, field.name) for field in fields(caller)}
    CheckCache().admission_request(facts(), ROUTE, caller, NOW)
    assert {field.name: getattr(caller, field.name) for field in fields(caller)} == before
    assert not any(isinstance(value, dict | list | set) for value in before.values())


class Slot:
    def release(self) -> None: ...

    def charge(self, units: int) -> None: ...


def test_an_admitted_request_is_allowed() -> None:
    grant = Admitted(Slot(), (9, 1.0, 4), tier_plan(TIERS["standard"]))
    assert conclude(ROUTE, GOOD, grant) == Allowed(GOOD, grant, ROUTE)


@pytest.mark.parametrize(
    "policies, reason, detail",
    [
        (("minute",), Reason.RATE_LIMITED, "over its minute limit"),
        ((CONCURRENCY,), Reason.CONCURRENCY_LIMITED, "over its concurrency limit"),
        (("account-concurrency",), Reason.CONCURRENCY_LIMITED, "over its account-concurrency limit"),
        (("minute", CONCURRENCY), Reason.RATE_LIMITED, "over its minute and concurrency limit"),
    ],
)
def test_a_refusal_by_the_limiter_names_the_policies_and_the_wait(
    policies: tuple[str, ...], reason: Reason, detail: str
) -> None:
    exceeded = Exceeded(policies, wait_seconds=2.5, levels=(3, 1.5, 1), plan=tier_plan(TIERS["standard"]))
    denied = conclude(ROUTE, GOOD, exceeded)
    assert denied == Denied(reason, detail, ROUTE, GOOD, exceeded=exceeded, retry_after=2.5)
