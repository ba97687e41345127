from http import HTTPStatus

import pytest

from machpay_gateway.core.brand import MACHPAY
from machpay_gateway.core.decision.decision import Denied
from machpay_gateway.core.decision.problem import PROBLEMS, Problem, problem_for, whole_seconds
from machpay_gateway.core.decision.reason import Reason
from machpay_gateway.core.limits.admission import Exceeded
from machpay_gateway.core.limits.plan import tier_plan
from machpay_gateway.core.limits.rate import CONCURRENCY, TIERS


def told(reason: Reason, **more: object) -> Problem:
    return problem_for(Denied(reason, **more), b"req-1", MACHPAY)  # type: ignore[arg-type]  # as Denied has them


def header(problem: Problem, name: bytes) -> bytes | None:
    values = [value for known, value in problem.headers if known == name]
    assert len(values) <= 1
    return values[0] if values else None


def test_the_table_has_a_row_for_every_reason_and_no_other() -> None:
    assert set(PROBLEMS) == set(Reason)


@pytest.mark.parametrize(
    "reason, status, close_code",
    [
        ("missing_credentials", 401, 4401),
        ("malformed_request", 400, 4400),
        ("invalid_credentials", 401, 4401),
        ("insufficient_scope", 403, 4403),
        ("address_not_allowed", 403, 4403),
        ("wrong_environment", 403, 4403),
        ("client_certificate_required", 403, 4403),
        ("route_not_found", 404, 4404),
        ("rate_limited", 429, 4429),
        ("concurrency_limited", 429, 4429),
        ("too_many_failures", 429, 4429),
        ("unavailable", 503, 1013),  # IANA's "try again later"
        ("invalid_message", 400, 4400),
        ("not_implemented", 501, 4501),
        ("head_too_large", 431, 4431),
        ("body_too_large", 413, 4413),
        ("request_timeout", 408, 4408),
        ("upstream_unavailable", 502, 4502),
        ("upstream_timeout", 504, 4504),
        ("upstream_overloaded", 503, 1013),
    ],
)
def test_each_reason_has_its_status_and_close_code(reason: str, status: int, close_code: int) -> None:
    problem = told(Reason(reason))
    assert (problem.status, problem.close_code) == (status, close_code)
    assert problem.body["status"] == status
    assert problem.body["code"] == reason
    assert problem.body["type"] == f"/problems/{reason}"
    assert problem.body["request_id"] == "req-1"
    assert problem.body["title"]
    assert problem.body["detail"]


@pytest.mark.parametrize("reason", Reason)
def test_every_401_has_a_challenge_and_nothing_else_but_400_and_403_has_one(reason: Reason) -> None:
    problem = told(reason)
    challenge = header(problem, b"www-authenticate")
    if problem.status == HTTPStatus.UNAUTHORIZED:  # RFC 9110 §15.5.2
        assert challenge is not None
    if challenge is not None:
        assert problem.status in {400, 401, 403}
        scheme = b"DPoP" if reason is Reason.INVALID_PROOF else b"Bearer"
        assert challenge.startswith(scheme + b' realm="machpay"')
        assert challenge.isascii()


@pytest.mark.parametrize(
    "denied, challenge",
    [
        (Denied(Reason.MISSING_CREDENTIALS), 'Bearer realm="machpay"'),  # RFC 6750 §3.1: no error code
        (
            Denied(Reason.INVALID_CREDENTIALS),
            'Bearer realm="machpay", error="invalid_token", error_description="The credentials are not valid."',
        ),
        (
            Denied(Reason.INSUFFICIENT_SCOPE, missing=("keys:manage", "skills:list")),
            (
                'Bearer realm="machpay", error="insufficient_scope", '
                'error_description="The credentials lack a scope that this needs.", scope="keys:manage skills:list"'
            ),
        ),
        (
            Denied(Reason.MALFORMED_REQUEST),
            (
                'Bearer realm="machpay", error="invalid_request", '
                'error_description="The path or the Authorization header is malformed or ambiguous."'
            ),
        ),
    ],
)
def test_a_challenge_is_rfc_6750s(denied: Denied, challenge: str) -> None:
    assert header(problem_for(denied, b"x", MACHPAY), b"www-authenticate") == challenge.encode()


@pytest.mark.parametrize("reason", [Reason.ADDRESS_NOT_ALLOWED, Reason.ROUTE_NOT_FOUND, Reason.RATE_LIMITED])
def test_a_refusal_that_no_credential_changes_has_no_challenge(reason: Reason) -> None:
    assert header(told(reason), b"www-authenticate") is None


def test_descriptions_have_only_what_rfc_6750_allows_in_quotes() -> None:
    for row in PROBLEMS.values():
        if row.error:
            shown = row.detail.replace("`", "")
            assert all(" " <= character <= "~" and character not in '"\\' for character in shown)


def test_all_bad_credentials_get_the_same_response() -> None:
    details = ["unknown key", "revoked", "expired", "key with a wrong shape or checksum", "wrong signature"]
    assert len({repr(told(Reason.INVALID_CREDENTIALS, detail=detail)) for detail in details}) == 1


@pytest.mark.parametrize("reason", Reason)
def test_no_response_contains_the_log_detail(reason: Reason) -> None:
    assert "hush" not in repr(told(reason, detail="hush"))


def test_a_refusal_for_scope_lists_the_required_scopes() -> None:
    assert told(Reason.INSUFFICIENT_SCOPE, missing=("a", "b")).body["required_scopes"] == ["a", "b"]
    assert "required_scopes" not in told(Reason.INVALID_CREDENTIALS).body


@pytest.mark.parametrize("policies", [("minute",), (CONCURRENCY,), ("minute", CONCURRENCY)])
def test_a_refusal_for_quota_names_all_violated_policies_and_the_wait(policies: tuple[str, ...]) -> None:
    exceeded = Exceeded(policies, wait_seconds=2.2, levels=(3, 1.1, 1), plan=tier_plan(TIERS["standard"]))
    problem = told(Reason.RATE_LIMITED, exceeded=exceeded, retry_after=2.2)
    assert problem.body["violated_policies"] == list(policies)
    assert problem.body["retry_after"] == 3
    assert header(problem, b"retry-after") == b"3"


@pytest.mark.parametrize(
    "seconds, whole",
    [(0.0, 1), (-5.0, 1), (1e-9, 1), (0.999, 1), (1.0, 1), (1.0001, 2), (59.5, 60), (86_400.0, 86_400)],
)
def test_retry_after_is_rounded_up_to_at_least_one_second(seconds: float, whole: int) -> None:
    assert whole_seconds(seconds) == whole


@pytest.mark.parametrize("reason", Reason)
def test_without_a_wait_there_is_no_retry_after(reason: Reason) -> None:
    problem = told(reason)
    assert header(problem, b"retry-after") is None
    assert "retry_after" not in problem.body
