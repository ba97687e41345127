import json
import re
from pathlib import Path

import pytest

from tests.cli.conftest import Invoke

MISTAKEN = """\
unlisted_routes = "denied"

[[routes]]
match = "GET v1/skills"

[tiers.gold]
rate = "many"
concurrency = 5
"""


def test_a_fine_file_is_a_table_of_its_routes(invoke: Invoke) -> None:
    result = invoke("policy", "check", "machpay.toml")

    assert result.exit_code == 0
    lines = [line.split() for line in result.stdout.splitlines()]
    assert lines[0] == ["METHOD", "PATH", "ACCESS", "COST"]
    assert ["GET", "/healthz", "public", "-"] in lines
    assert ["POST", "/v1/skills/execute", "skills:execute", "1"] in lines
    assert "machpay.toml is valid: 6 routes; other requests are refused." in result.stdout


def test_services_and_forwarded_paths_are_shown(invoke_bare: Invoke) -> None:
    Path("machpay.toml").write_text(
        """
        [upstreams]
        live = "http://127.0.0.1:9000"
        [services.billing]
        live = "http://127.0.0.1:9001/base"
        [[routes]]
        match = "GET /invoices/{id}"
        service = "billing"
        rewrite = "/internal/{id}"
        encoded_slash = "allow"
        [[routes]]
        match = "GET /other"
        """,
        encoding="utf-8",
    )
    lines = [line.split() for line in invoke_bare("policy", "check").stdout.splitlines()]
    assert lines[0] == ["METHOD", "PATH", "ACCESS", "COST", "SERVICE"]
    assert [line[-1] for line in lines[1:3]] == ["billing", "-"]
    explained = invoke_bare("policy", "explain", "GET", "/invoices/a%2Fb").stdout
    assert re.search(r"service +billing \(live\)", explained)
    assert re.search(r"forwarded path +/internal/a%2Fb", explained)
    assert re.search(r"environments +live\n", explained)
    explanation = json.loads(invoke_bare("policy", "explain", "GET", "/invoices/1", "--json").stdout)
    assert (explanation["service"], explanation["forwarded_path"]) == ("billing", "/internal/1")
    assert explanation["rule"]["environments"] == ["live"]


def test_every_mistake_is_named_with_its_line(invoke_bare: Invoke) -> None:
    Path("machpay.toml").write_text(MISTAKEN, encoding="utf-8")

    result = invoke_bare("policy", "check")

    assert (result.exit_code, result.stdout) == (1, "")
    assert [line.split(" ")[0] for line in result.stderr.splitlines()] == [
        "machpay.toml:1:", "machpay.toml:4:", "machpay.toml:7:",
    ]  # fmt: skip
    checked = json.loads(invoke_bare("policy", "check", "--json").stdout)
    assert (len(checked["mistakes"]), checked["routes"]) == (3, [])


def test_a_missing_file_is_a_mistake(invoke_bare: Invoke) -> None:
    result = invoke_bare("policy", "check", "nothing.toml")

    assert result.exit_code == 1
    assert result.stderr == "nothing.toml: there is no such file; `machpay-gateway init` writes one\n"


def test_the_environment_does_not_change_what_is_checked(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MACHPAY_ROUTES", "nonsense")

    assert invoke("policy", "check").exit_code == 0


@pytest.mark.parametrize(
    "request_line, outcome, match, code",
    [
        ("GET /healthz", "rule", "GET /healthz", None),
        ("POST /v1/skills/execute", "rule", "POST /v1/skills/execute", None),
        ("post /v1/skills/execute?dry=1#x", "rule", "POST /v1/skills/execute", None),
        ("HEAD /v1/skills", "rule", "GET /v1/skills", None),  # answered by GET's rule
        ("DELETE /v1/webhooks/a/b", "rule", "* /v1/webhooks/{rest:path}", None),
        ("GET /v1/webhooks/ünïcode", "rule", "* /v1/webhooks/{rest:path}", None),
        ("GET /v1/webhooks/%C3%BC", "rule", "* /v1/webhooks/{rest:path}", None),
        ("GET /v1/nothing", "refused", None, "route_not_found"),
        ("GET /v1//skills", "refused", None, "malformed_request"),
        ("GET /v1/skills%2fexecute", "refused", None, "malformed_request"),
        ("GET /v1/webhooks/../skills", "refused", None, "malformed_request"),
        ("GET /v1/webhooks/%FF", "refused", None, "malformed_request"),
        ("GET /v1/webhooks/%zz", "refused", None, "malformed_request"),
    ],
)
def test_an_explanation_is_what_a_request_would_meet(
    invoke: Invoke, request_line: str, outcome: str, match: str | None, code: str | None
) -> None:
    result = invoke("policy", "explain", request_line, "--json")

    assert result.exit_code == 0
    explained = json.loads(result.stdout)
    assert (explained["outcome"], explained["code"]) == (outcome, code)
    assert (explained["rule"] and explained["rule"]["match"]) == match
    assert (explained["canonical_path"] is None) == (code == "malformed_request")


def test_an_explanation_for_people_names_scopes_cost_and_limits(invoke: Invoke) -> None:
    Path("machpay.toml").write_text(
        '[[routes]]\nmatch = "POST /v1/{id}"\nscopes = "skills:execute | account:write"\ncost = 30\n', encoding="utf-8"
    )

    output = invoke("policy", "explain", "POST", "/v1/x").stdout

    assert "POST /v1/{id}" in output
    assert "account:write" in output
    assert "30 units" in output
    assert ["test", "100/minute", "5", "3", "per", "60", "s"] in [line.split() for line in output.splitlines()]


def test_what_is_not_listed_is_said_to_be_so(invoke_bare: Invoke) -> None:
    output = invoke_bare("policy", "explain", "GET", "/v1/x").stdout

    assert 'none lists it, and unlisted_routes is "authenticated"' in output
    assert "any valid credential" in output


def test_a_refused_path_says_why(invoke: Invoke) -> None:
    output = invoke("policy", "explain", "GET", "/v1//x").stdout

    assert "400 malformed_request" in output
    assert "the path is ambiguous" in output


@pytest.mark.parametrize("arguments", [("GET",), ("GET", "v1/x"), ("/v1/x",), ("GET", "/v1/x", "more")])
def test_half_a_request_is_a_usage_error(invoke: Invoke, arguments: tuple[str, ...]) -> None:
    result = invoke("policy", "explain", *arguments)

    assert result.exit_code == 2
    assert "policy explain GET /v1/skills" in result.stderr


def test_the_strictest_rule_of_several_readings_is_explained(invoke_bare: Invoke) -> None:
    Path("machpay.toml").write_text(
        '[[routes]]\nmatch = "GET /docs/{rest:path}"\npublic = true\n'
        '[[routes]]\nmatch = "GET /docs/internal"\nscopes = "account:read"\n',
        encoding="utf-8",
    )

    output = invoke_bare("policy", "explain", "GET", "/docs/INTERNAL").stdout

    assert "GET /docs/{rest:path} + GET /docs/internal" in output
    assert "account:read" in output
    assert "all of these rules apply" in output
    assert (
        json.loads(invoke_bare("policy", "explain", "GET", "/docs/INTERNAL", "--json").stdout)["outcome"] == "strictest"
    )


PRICE_LIST = """\
[tiers.pro]
rate = ["1000/minute", "5/second"]
concurrency = 50
quota = "500/day"
account = { rate = "800/minute", concurrency = 40 }
owner = { rate = "10/minute", quota = "100/day" }

[anonymous]
rate = "60/minute"
concurrency = 10

[[routes]]
match = "POST /v1/sign-up"
public = true
limit = { rate = "5/minute", by = "address", enforce = false }

[[routes]]
match = "POST /v1/reports"
limit = { rate = "10/minute", concurrency = 2, by = "account" }
"""


def test_limits_that_can_never_be_reached_are_warnings(invoke_bare: Invoke) -> None:
    Path("machpay.toml").write_text(PRICE_LIST, encoding="utf-8")

    result = invoke_bare("policy", "check")

    assert result.exit_code == 0
    assert result.stderr.splitlines() == [
        "warning: tiers.pro: 1000/minute can never be reached, since 5/second admits 300 in that time",
        "warning: tiers.pro: 1000/minute can never be reached, since account allows 800/minute to all keys together",
        "warning: tiers.pro: concurrency 50 can never be reached, since account allows 40 to all keys together",
    ]
    assert len(json.loads(invoke_bare("policy", "check", "--json").stdout)["warnings"]) == 3


def test_a_mapped_scope_that_no_route_requires_is_a_warning(invoke_bare: Invoke) -> None:
    issuer = """
        [[issuers]]
        issuer = "https://id.example.com"
        audience = "api"
        scope_map = { admin = "reports:* reports:raed", reader = ["extra:read"] }
        """
    routes = 'scopes = ["extra:read"]\n[[routes]]\nmatch = "GET /v1/reports"\nscopes = "reports:read"\n'
    Path("machpay.toml").write_text(routes + issuer, encoding="utf-8")

    result = invoke_bare("policy", "check")

    assert result.exit_code == 0
    (warning,) = result.stderr.splitlines()
    assert warning.startswith(
        "warning: issuer https://id.example.com: scope_map.admin gives 'reports:raed', which no route requires; known "
    )
    assert "extra:read, keys:manage, reports:read" in warning


@pytest.mark.parametrize(
    "limits, warned",
    [
        ('rate = ["60/minute", "1/second"]\nconcurrency = 1', False),
        ('rate = ["61/minute", "1/second"]\nconcurrency = 1', True),
        ('rate = ["10/minute", "11/second"]\nconcurrency = 1', True),
        ('rate = "10/minute"\nconcurrency = 1\nquota = ["100/day", "3100/month"]', False),
        ('rate = "10/minute"\nconcurrency = 1\nquota = ["100/day", "3101/month"]', True),
        ('rate = "10/minute"\nconcurrency = 1\nquota = ["100/day", "50/month"]', True),
        ('rate = "10/minute"\nconcurrency = 1\naccount = { rate = "10/minute", concurrency = 1 }', False),
        ('rate = "10/minute"\nconcurrency = 1\naccount = { rate = "9/hour" }', True),
        ('rate = "10/minute"\nconcurrency = 1\naccount = { rate = "10/hour" }', False),
        ('rate = "10/minute"\nconcurrency = 1\nowner = { rate = "9/minute" }', False),  # a key may have no owner
        ('rate = "1/minute"\nconcurrency = 1\naccount = { rate = "9/minute" }\nowner = { rate = "10/minute" }', True),
        ('rate = "1/minute"\nconcurrency = 1\n[anonymous]\nrate = ["61/minute", "1/second"]', True),
    ],
)
def test_a_limit_is_unreachable_when_another_is_below_it(invoke_bare: Invoke, limits: str, warned: bool) -> None:  # noqa: FBT001 - a row
    Path("machpay.toml").write_text(f"[tiers.pro]\n{limits}\n", encoding="utf-8")

    result = invoke_bare("policy", "check")

    assert (result.exit_code, "can never be reached" in result.stderr) == (0, warned)


@pytest.mark.parametrize(
    "limit, public, warned",
    [
        ('rate = "10000/minute"', False, False),
        ('rate = "10001/minute"', False, True),  # the highest of the default tiers has 10000
        ('rate = "600001/hour"', False, True),
        ('rate = "10001/minute", by = "account"', False, False),
        ("concurrency = 500", False, False),
        ("concurrency = 501", False, True),
        ('rate = ["10/minute", "11/second"]', False, True),
        ('rate = "60/minute", by = "address"', True, False),
        ('rate = "61/minute", by = "address"', True, True),
        ('concurrency = 11, by = "address"', True, True),
        ('rate = "61/minute", by = "address"', False, False),
    ],
)
def test_the_limit_of_a_route_is_unreachable_when_all_its_callers_have_less(
    invoke_bare: Invoke,
    limit: str,
    public: bool,  # noqa: FBT001 - a row
    warned: bool,  # noqa: FBT001 - a row
) -> None:
    route = f'[[routes]]\nmatch = "GET /a"\npublic = {str(public).lower()}\nlimit = {{ {limit} }}\n'
    anonymous = '[anonymous]\nrate = "60/minute"\nconcurrency = 10\n'
    Path("machpay.toml").write_text(f"{anonymous}{route}", encoding="utf-8")

    result = invoke_bare("policy", "check")

    assert (result.exit_code, "Route 'GET /a': limit: " in result.stderr) == (0, warned)


def test_limits_that_are_not_enforced_bound_no_others(invoke_bare: Invoke) -> None:
    tiers = "".join(f"[tiers.{name}]\nenforce = false\n" for name in ("test", "standard", "enterprise"))
    route = '[[routes]]\nmatch = "GET /a"\nlimit = { rate = "10001/minute" }\n'
    Path("machpay.toml").write_text(f"{tiers}{route}", encoding="utf-8")

    assert "can never be reached" not in invoke_bare("policy", "check").stderr


def test_the_price_lists_of_the_docs_have_no_limit_that_can_never_be_reached(invoke_bare: Invoke) -> None:
    text = (Path(__file__).parents[2] / "docs/limits.md").read_text(encoding="utf-8")
    section = text.partition("## Write a price list")[2].partition("### Quotas")[0]
    Path("machpay.toml").write_text("\n".join(re.findall(r"```toml\n(.*?)```", section, re.DOTALL)), encoding="utf-8")

    result = invoke_bare("policy", "check")

    assert (result.exit_code, result.stderr) == (0, "")


def test_an_explanation_has_the_limits_of_the_route_and_those_that_keys_share(invoke_bare: Invoke) -> None:
    Path("machpay.toml").write_text(PRICE_LIST, encoding="utf-8")

    reports = invoke_bare("policy", "explain", "POST /v1/reports").stdout
    sign_up = invoke_bare("policy", "explain", "POST /v1/sign-up").stdout
    as_json = json.loads(invoke_bare("policy", "explain", "POST /v1/sign-up", "--json").stdout)

    assert "10/minute, 2 concurrent, by account" in reports
    assert "800/minute, 40 concurrent" in reports
    assert "10/minute, 100/day" in reports
    assert "60/minute, 10 concurrent, by address" in sign_up
    assert "5/minute, by address (only counted)" in sign_up
    assert as_json["route_limits"] == [
        {"by": "address", "limits": "60/minute, 10 concurrent", "enforced": True},
        {"by": "address", "limits": "5/minute", "enforced": False},
    ]


def test_an_explanation_marks_tiers_that_only_count(invoke_bare: Invoke) -> None:
    trial = '[tiers.trial]\nrate = "9/minute"\nconcurrency = 1\naccount = { rate = "8/minute" }\nenforce = false\n'
    Path("machpay.toml").write_text(trial, encoding="utf-8")

    lines = invoke_bare("policy", "explain", "GET /a").stdout.splitlines()
    as_json = json.loads(invoke_bare("policy", "explain", "GET /a", "--json").stdout)

    (limits, shared) = (line for line in lines if line.startswith("trial"))
    assert "9/minute (only counted)" in limits
    assert "8/minute (only counted)" in shared
    assert {row["tier"]: row["enforced"] for row in as_json["limits"]}["trial"] is False
    assert {row["tier"]: row["enforced"] for row in as_json["limits"]}["test"] is True
