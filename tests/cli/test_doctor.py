import asyncio
import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from joserfc.jwk import RSAKey
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from machpay_gateway import Gateway, MachPayAuth
from machpay_gateway.cli.output import print_findings
from machpay_gateway.core.check_result import CheckResult, CheckStatus, worst
from machpay_gateway.limiters.redis.refusals import LimiterUse
from tests.applications import ok
from tests.cli.conftest import Invoke
from tests.gateways import Guarded
from tests.issuers import OAUTH, OPENID, jwks
from tests.redises.ports import HOST, free_port
from tests.redises.servers import Server, running_server
from tests.servers import serving

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "operations.md"
INIT = "run `machpay-gateway init`"
SOURCES = (
    "cli/doctor.py",
    "cli/addresses.py",
    "stores/sql/health_checks.py",
    "stores/sql/write_checks.py",
    "limiters/redis/health_checks.py",
    "limiters/redis/diagnostics.py",
)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running_server() as server:
        yield server


def checked(invoke: Invoke, *, exit_code: int) -> list[dict[str, Any]]:
    result = invoke("doctor", "--json")
    assert result.exit_code == exit_code, result.output
    document = json.loads(result.stdout)
    assert document["object"] == "checkup"
    findings: list[dict[str, Any]] = document["findings"]
    assert document["status"] == worst(CheckResult("", CheckStatus(finding["status"]), "") for finding in findings)
    return findings


def only(findings: list[dict[str, Any]], subject: str) -> tuple[str, str, str | None]:
    (finding,) = [finding for finding in findings if finding["subject"] == subject]
    return finding["status"], finding["found"], finding["way_out"]


def test_nothing_is_wrong_after_init(invoke: Invoke) -> None:
    result = invoke("doctor")

    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["STATUS", "SUBJECT", "FOUND"]
    assert [line.split()[0] for line in lines[1:] if line[0] != " "] == ["ok"] * 6
    assert "machpay.toml: 6 routes; " in result.stdout
    assert "has schema revision 0013 and 1 account\n" in result.stdout
    assert lines[-1].strip() == 'way out: for more than one worker: redis = "redis://HOST:6379/0"'


def test_a_secret_key_that_does_not_open_the_signing_keys_is_wrong(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "signing keys" not in {finding["subject"] for finding in checked(invoke, exit_code=0)}
    assert invoke("signing-keys", "rotate").exit_code == 0
    assert only(checked(invoke, exit_code=0), "signing keys")[:2] == ("ok", "the secret key opens them")

    monkeypatch.setenv("MACHPAY_SECRET_KEY", "t" * 32)
    status, text, _ = only(checked(invoke, exit_code=1), "signing keys")
    assert (status, "sealed by another secret key" in text) == ("wrong", True)

    monkeypatch.delenv("MACHPAY_SECRET_KEY")
    secret = Path("machpay.db.secret")
    secret.rename("elsewhere")
    assert only(checked(invoke, exit_code=0), "signing keys")[0] == "warning"
    assert not secret.exists(), "none is made"
    secret.write_text("short", encoding="ascii")
    assert "holds no secret key" in only(checked(invoke, exit_code=1), "signing keys")[1]


def test_before_init_it_says_that_there_is_no_database_and_makes_none(invoke_bare: Invoke) -> None:
    findings = checked(invoke_bare, exit_code=1)

    where = Path("machpay.db").absolute()
    assert only(findings, "database") == (
        "wrong",
        f"{where} is not there",
        "run `machpay-gateway init`, which makes it",
    )
    assert list(Path().iterdir()) == []


def test_a_finding_for_scripts_has_these_fields(invoke: Invoke) -> None:
    for finding in checked(invoke, exit_code=0):
        assert list(finding) == ["object", "subject", "status", "found", "way_out"]


def test_every_mistake_is_a_finding_and_nothing_else_is_checked(invoke: Invoke) -> None:
    Path("machpay.toml").write_text('unlisted_routes = "denied"\n[tiers.gold]\nrate = "many"\nconcurrency = 5\n')

    findings = checked(invoke, exit_code=1)

    mistakes = json.loads(invoke("policy", "check", "--json").stdout)["mistakes"]
    assert len(mistakes) == 2
    assert [finding["found"] for finding in findings] == mistakes
    assert {(finding["subject"], finding["status"]) for finding in findings} == {("configuration", "wrong")}


def test_settings_that_no_gateway_can_be_made_of_are_mistakes(invoke: Invoke) -> None:
    Path("machpay.toml").write_text('redis = "redis+sentinel://host:26379"\n', encoding="utf-8")

    (finding,) = checked(invoke, exit_code=1)

    (mistake,) = json.loads(invoke("policy", "check", "--json").stdout)["mistakes"]
    assert mistake == f"machpay.toml: {finding['found']}"


def test_the_environment_is_checked_too(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MACHPAY_LEGACY_HEADERS", "perhaps")

    (finding,) = checked(invoke, exit_code=1)

    assert finding["found"].startswith("MACHPAY_LEGACY_HEADERS: ")


@pytest.mark.parametrize(
    "text, status, message",
    [
        ("", "ok", 'no routes; by unlisted_routes = "authenticated" any valid credential may make all other requests'),
        ('unlisted_routes = "deny"', "warning", 'no routes, and by unlisted_routes = "deny" every request is refused'),
        (
            'unlisted_routes = "deny"\n[[routes]]\nmatch = "GET /"',
            "ok",
            '1 route; by unlisted_routes = "deny" all others are refused',
        ),
    ],
)
def test_what_is_open_to_everybody_is_told(invoke: Invoke, text: str, status: str, message: str) -> None:
    Path("machpay.toml").write_text(text, encoding="utf-8")

    result_row = only(checked(invoke, exit_code=0), "configuration")

    assert result_row[:2] == (status, f"machpay.toml: {message}")


def test_without_a_file_it_says_so(invoke: Invoke) -> None:
    Path("machpay.toml").unlink()

    message = only(checked(invoke, exit_code=0), "configuration")[1]

    assert message.startswith("no machpay.toml, so defaults and the environment: no routes;")


def test_tiers_that_are_in_use_and_not_configured_are_named(invoke: Invoke) -> None:
    assert "tiers" not in [finding["subject"] for finding in checked(invoke, exit_code=0)]
    for number in range(4):
        invoke("accounts", "create", f"acme {number}")
        for _ in range(2):
            key = ("keys", "create", "--account", f"acme {number}", "--name", "a", "--environment", "test")
            assert invoke(*key).exit_code == 0
    with closing(sqlite3.connect("machpay.db")) as database:
        database.executescript(
            """
            UPDATE accounts SET tier = 'basic' WHERE name IN ('acme 1', 'acme 2');
            UPDATE accounts SET tier = 'gone' WHERE name = 'acme 3';
            UPDATE keys SET own_tier = 'gone' WHERE account_id IN (SELECT id FROM accounts WHERE name <> 'acme 0');
            UPDATE keys SET own_tier = 'enterprise' WHERE name = 'admin';
            UPDATE keys SET own_tier = 'ended', revoked_at = 1.0 WHERE id = (SELECT max(id) FROM keys WHERE name = 'a'
              AND account_id IN (SELECT id FROM accounts WHERE name = 'acme 0'));
            """
        )
    assert only(checked(invoke, exit_code=0), "tiers") == (
        "warning",
        "these are in use and not configured: basic (2 accounts), gone (1 account and 6 keys)",
        "define them, or `machpay-gateway accounts set-tier` and `machpay-gateway keys update --tier`",
    )
    with Path("machpay.toml").open("a", encoding="utf-8") as file:
        file.writelines(f'\n[tiers.{tier}]\nrate = "7/minute"\nconcurrency = 2\n' for tier in ("basic", "gone"))
    assert "tiers" not in [finding["subject"] for finding in checked(invoke, exit_code=0)]


PLANS = """
[tiers.pro]
rate = ["1000/minute", "30/second"]
concurrency = 50
quota = "50000/month"
account = { rate = "3000/minute", concurrency = 200 }
owner = { quota = "1000/day" }

[tiers.trial]
rate = "20/minute"
concurrency = 60
enforce = false

[[routes]]
match = "POST /v1/reports"
scopes = "reports:write"
limit = { rate = "10/minute", concurrency = 2, by = "account" }

[[routes]]
match = "POST /v1/exports"
scopes = "exports:write"
limit = { rate = "1/minute", enforce = false }

[[routes]]
match = "POST /v1/sign-up"
public = true
limit = { rate = "5/minute", by = "address" }
"""


@pytest.fixture
def pro_key(invoke: Invoke) -> tuple[str, str]:
    """Return the id and the secret of a key of an account of tier `pro`."""
    Path("machpay.toml").write_text(PLANS, encoding="utf-8")
    assert invoke("accounts", "create", "acme", "--tier", "pro").exit_code == 0
    return created_key(invoke, "live")


def created_key(invoke: Invoke, environment: str, *options: str) -> tuple[str, str]:
    arguments = ("--account", "acme", "--name", "nightly", "--environment", environment, "--scope", "reports:write")
    created = json.loads(invoke("keys", "create", *arguments, *options, "--json").stdout)
    return created["id"], created["secret"]


def explained(invoke: Invoke, key: str, *, exit_code: int = 0) -> tuple[list[tuple[str, str, str]], dict[str, Any]]:
    """Return the findings about *key* by status, subject and text, and its limits."""
    result = invoke("doctor", "--key", key, "--json")
    assert result.exit_code == exit_code, result.output
    document = json.loads(result.stdout)
    rows = [(finding["status"], finding["subject"], finding["found"]) for finding in document["findings"]]
    return rows, document.get("key", {})


def test_the_limits_of_a_key_are_explained_with_what_they_come_from(invoke: Invoke, pro_key: tuple[str, str]) -> None:
    key, secret = pro_key
    rows, document = explained(invoke, key)
    account = document["account_id"]
    assert rows == [
        ("ok", "key", f"{key} (nightly), live, of account acme ({account})"),
        ("ok", "tier", "pro, from its account"),
        ("ok", "limits", "1000/minute, 30/second, 50000/month, 50 concurrent, by key, from tier pro"),
        ("ok", "limits", "3000/minute, 200 concurrent, by account, from tier pro"),
        ("ok", "limits", "10/minute, 2 concurrent, by account, from POST /v1/reports"),
        ("ok", "limits", "1000/day, by owner: not of this key, which has no owner"),
    ]
    assert document["limits"][2] == {
        "by": "account",
        "limits": "10/minute, 2 concurrent",
        "enforced": True,
        "tier": None,
        "tier_configured": None,
        "route": "POST /v1/reports",
    }
    assert [limits["tier"] for limits in document["limits"]] == ["pro", "pro", None]
    text = invoke("doctor", "--key", key)
    assert (text.exit_code, text.stderr) == (0, "")
    assert [line.split()[0] for line in text.stdout.splitlines()] == ["STATUS", *["ok"] * 6]
    assert secret not in text.stdout
    assert secret[8:] not in json.dumps(document)


def test_a_tier_of_the_key_itself_leaves_what_is_shared_to_the_accounts(
    invoke: Invoke, pro_key: tuple[str, str]
) -> None:
    key, _ = pro_key
    assert invoke("keys", "update", key, "--tier", "trial", "--owner", "ada").exit_code == 0
    rows, document = explained(invoke, key)
    assert rows[0][2].endswith(", owner ada")
    assert rows[1:5] == [
        ("ok", "tier", "trial, its own, instead of pro"),
        ("ok", "account tier", "pro, which limits by account and owner come from"),
        ("ok", "limits", "20/minute, 60 concurrent, by key (only counted), from tier trial"),
        ("ok", "limits", "3000/minute, 200 concurrent, by account, from tier pro"),
    ]
    assert ("ok", "limits", "1000/day, by owner, from tier pro") in rows
    rows_of_page = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if "with `--key`" in line]
    assert {subject for _, subject, _ in rows} == set(
        re.findall(r"`([a-z]+(?: [a-z]+)?)`", " ".join(line.split("|")[1] for line in rows_of_page))
    )
    assert (document["tier"], document["own_tier"], document["account_tier"]) == ("trial", "trial", "pro")
    assert [limits["enforced"] for limits in document["limits"]] == [False, True, True, True]


def test_test_keys_have_a_tier_of_their_own_and_one_that_does_not_work_is_refused(
    invoke: Invoke, pro_key: tuple[str, str]
) -> None:
    key, _ = created_key(invoke, "test")
    assert explained(invoke, key)[0][1] == ("ok", "tier", "test, that of all test keys")
    assert invoke("keys", "revoke", key, "--yes").exit_code == 0
    status, subject, found = explained(invoke, key)[0][0]
    assert (status, subject) == ("warning", "key")
    assert found.endswith(": it is revoked, so all of its requests are refused")
    assert explained(invoke, pro_key[0])[0][0][0] == "ok"


def test_a_tier_that_is_not_configured_has_the_strictest_limits_of_all(
    invoke: Invoke, pro_key: tuple[str, str]
) -> None:
    key, _ = pro_key
    with closing(sqlite3.connect("machpay.db")) as database:
        database.execute("UPDATE accounts SET tier = 'basic' WHERE name = 'acme'")
        database.commit()
    rows, document = explained(invoke, key)
    of_key = "20/minute, 30/second, 50000/month, 5 concurrent, by key"
    slots = "5 concurrent from tier test"
    strictest = "it is not configured, so each of its limits is the strictest that a tier has"
    assert rows[1] == ("warning", "tier", f"basic (unknown), from its account: {strictest}")
    assert rows[2:4] == [
        (
            "ok",
            "limits",
            f"{of_key}: 20/minute from tier trial, 30/second from tier pro, 50000/month from tier pro, {slots}",
        ),
        (
            "ok",
            "limits",
            "3000/minute, 200 concurrent, by account: 3000/minute from tier pro, 200 concurrent from tier pro",
        ),
    ]
    assert document["limits"][0]["limits"] == "20/minute, 30/second, 50000/month, 5 concurrent"
    assert [limits["tier_configured"] for limits in document["limits"]] == [False, False, None]
    findings = json.loads(invoke("doctor", "--key", key, "--json").stdout)["findings"]
    assert findings[1]["way_out"] == "define it, or `machpay-gateway accounts set-tier`"
    assert invoke("keys", "update", key, "--tier", "pro").exit_code == 0
    rows, _ = explained(invoke, key)
    assert rows[1] == ("ok", "tier", "pro, its own, instead of basic")
    assert rows[2][:2] == ("warning", "account tier")


def test_what_an_explanation_says_is_what_callers_get(invoke: Invoke, pro_key: tuple[str, str]) -> None:
    key, secret = pro_key

    async def policies() -> list[str]:
        async with Gateway(config="machpay.toml") as gateway:
            app = MachPayAuth(ok, gateway=gateway)
            answer = await Guarded(app, gateway).client(secret).post("/v1/reports")
            assert answer.status_code == 200
            return re.findall(r'"[a-z-]+";q=(\d+)', answer.headers["ratelimit-policy"])

    limits = [each["limits"] for each in explained(invoke, key)[1]["limits"]]
    assert re.findall(r"\d+", ", ".join(limits)) == asyncio.run(policies())


def test_a_key_cannot_be_explained_without_its_database(invoke_bare: Invoke) -> None:
    (row,), document = explained(invoke_bare, "key_1", exit_code=1)
    assert row[:2] == ("wrong", "database")
    assert document == {}
    assert list(Path().iterdir()) == []
    Path("machpay.toml").write_text("legacy_headers = 7\n", encoding="utf-8")
    (row,), _ = explained(invoke_bare, "key_1", exit_code=1)
    assert row[:2] == ("wrong", "configuration")


def test_a_key_that_does_not_exist_is_an_error_that_repeats_no_secret(invoke: Invoke, pro_key: tuple[str, str]) -> None:
    _, secret = pro_key
    for wrong in ("key_unknown", secret):
        result = invoke("doctor", "--key", wrong)
        assert result.exit_code == 1
        assert "There is no key" in result.stderr
        assert secret not in result.output


@pytest.mark.parametrize(
    "statements, status, message, way_out",
    [
        (
            "DELETE FROM key_secrets; DELETE FROM keys; DELETE FROM accounts",
            "warning",
            "0 accounts: there is no API",
            INIT,
        ),
        ("DROP TABLE alembic_version", "wrong", "has a table 'accounts' that is not ours", None),
        ("UPDATE alembic_version SET version_num = '9999'", "wrong", "upgrade machpay-gateway, or restore", None),
        ("DELETE FROM alembic_version", "wrong", "has schema revision none, and this version needs 0013", INIT),
    ],
)
def test_a_database_that_cannot_be_served_from_is_told(
    invoke: Invoke, statements: str, status: str, message: str, way_out: str | None
) -> None:
    with closing(sqlite3.connect("machpay.db")) as database:
        database.executescript(statements)

    result_row = only(checked(invoke, exit_code=int(status == "wrong")), "database")

    assert result_row[0] == status
    assert message in result_row[1]
    assert result_row[2] == way_out


@pytest.mark.parametrize(
    "url, message",
    [
        ("sqlite:///machpay.toml", "is not a SQLite database: name another file"),
        ("sqlite:///missing/machpay.db", "is not a directory, make it first"),
        ("sqlite:////dev/null/machpay.db", "is not a directory, make it first"),
    ],
)
def test_a_file_that_cannot_be_a_database_is_told(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, url: str, message: str
) -> None:
    monkeypatch.setenv("MACHPAY_DATABASE", url)

    status, result_row, _ = only(checked(invoke, exit_code=1), "database")

    assert status == "wrong"
    assert result_row.endswith(message)


def test_a_damaged_database_is_told_as_one_that_does_not_answer(invoke: Invoke) -> None:
    Path("machpay.db").write_bytes(b"SQLite format 3\0" + b"\xff" * 4096)

    status, result_row, _ = only(checked(invoke, exit_code=1), "database")

    assert status == "wrong"
    assert result_row.startswith("The database did not answer (schema revision, ")


@pytest.mark.parametrize("url", ["memory://", "sqlite://"])
def test_a_database_in_memory_keeps_nothing(invoke: Invoke, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("MACHPAY_DATABASE", url)

    status, message, way_out = only(checked(invoke, exit_code=0), "database")

    assert (status, message) == ("warning", "it is in memory: every key and account is gone with the process")
    assert way_out == 'name a file, as in database = "sqlite:///machpay.db"'


@pytest.mark.parametrize(
    "mode, status", [(0o600, "ok"), (0o640, "warning"), (0o604, "warning"), (0o644, "warning"), (0o602, "warning")]
)
def test_a_database_file_is_for_its_owner_alone(invoke: Invoke, mode: int, status: str) -> None:
    Path("machpay.db").chmod(mode)

    result_row, message, way_out = only(checked(invoke, exit_code=0), "database file")

    assert result_row == status
    if status == "warning":
        assert message.endswith(f"(mode {mode:o})")
        assert way_out == f"chmod 600 {Path('machpay.db').absolute()}"


def test_a_redis_that_is_fit_is_checked_in_every_respect(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, server: Server
) -> None:
    monkeypatch.setenv("MACHPAY_REDIS", server.url)

    findings = checked(invoke, exit_code=0)

    assert [finding["subject"] for finding in findings][5:] == [
        "redis", "redis access", "redis version", "redis memory", "redis persistence", "redis latency", "redis clock",
    ]  # fmt: skip


def test_the_prefix_and_the_failure_mode_are_those_that_are_set(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, server: Server
) -> None:
    monkeypatch.setenv("MACHPAY_REDIS", server.add_user("other", "+@all", "~machpay:*"))
    monkeypatch.setenv("MACHPAY_REDIS_PREFIX", "billing")
    message = only(checked(invoke, exit_code=1), "redis access")[1]
    assert message == "the user may not use keys billing:*"

    monkeypatch.setenv("MACHPAY_REDIS", f"redis://{HOST}:{free_port()}")
    monkeypatch.setenv("MACHPAY_ON_LIMITER_FAILURE", "deny")
    message = only(checked(invoke, exit_code=1), "redis")[1]
    assert message.endswith('on_limiter_failure = "deny" decides')


@pytest.mark.parametrize("password", ["s3cret", "s3/cret", "s3?cret", "s3#cret", "s3@cret"])
@pytest.mark.parametrize("arguments", [("doctor",), ("doctor", "--json")])
def test_nothing_of_a_password_is_printed(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, password: str, arguments: tuple[str, ...]
) -> None:
    monkeypatch.setenv("MACHPAY_REDIS", f"redis://:{password}@{HOST}:{free_port()}/0")
    monkeypatch.setenv("MACHPAY_DATABASE", f"postgresql://gate:{password}@{HOST}:1/keys")

    result = invoke(*arguments)

    assert result.exit_code == 1
    assert not re.search("s3|cret", result.output)


@pytest.mark.parametrize("no_color", ["", "1"])
def test_a_status_is_coloured_on_a_terminal_unless_that_is_not_wanted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], no_color: str
) -> None:
    monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)

    print_findings([CheckResult("redis", status, "with \x1b[31m of its own") for status in CheckStatus])

    printed = capsys.readouterr().out
    assert r"\u001b[31m" in printed
    escapes = [re.search(r"\x1b\[([0-9;]+)m(?:ok|warning|wrong)", line) for line in printed.splitlines()[1:]]
    assert [match and match[1] for match in escapes] == ([None] * 3 if no_color else ["32", "33", "1;31"])


@pytest.mark.parametrize(
    "text, status, message",
    [
        ('[console]\nurl = "https://a.example"', "warning", "console.url and console.api_url name the same host"),
        ('[oauth]\nissuer = "https://a.example"', "warning", "oauth.issuer and oauth.audience name the same host"),
        ('[console]\nurl = "https://a.example"\napi_url = "https://b.example"', "ok", "console.url https://a.example"),
    ],
)
def test_a_host_of_pages_that_is_the_apis_too_is_told(invoke: Invoke, text: str, status: str, message: str) -> None:
    with Path("machpay.toml").open("a", encoding="utf-8") as file:
        file.write(f"\n{text}\n")
    result_row = only(checked(invoke, exit_code=0), "hosts")
    assert result_row[0] == status
    assert message in result_row[1]


def test_the_page_has_every_subject_and_the_rights_that_are_told() -> None:
    page = PAGE.read_text(encoding="utf-8")
    sources = "".join((ROOT / "machpay_gateway" / name).read_text(encoding="utf-8") for name in SOURCES)

    listed = re.findall(r"^\| `([^`]+)` \|", page, re.MULTILINE)
    assert set(listed) == set(re.findall(r'CheckResult\(\s*"([^"]+)"', sources))
    assert LimiterUse("machpay", "local").acl_command.strip("`") in page.splitlines()
    in_cluster = LimiterUse("machpay", "local", "cluster").acl_command.strip("`")
    assert f"`{in_cluster.removeprefix(LimiterUse('machpay', 'local').acl_command.strip('`')).strip()}`" in page


METRICS = """# TYPE machpay_requests_total counter
machpay_requests_total{{code="2xx",outcome="allowed",route="-",tier="-"}} {first}.0
machpay_requests_total{{code="4xx",outcome="missing_credentials",route="-",tier="-"}} 10.0
machpay_forwarding_ignored_total {ignored}.0
"""


@pytest.mark.parametrize(
    "first, ignored, status",
    [
        (90, 0, "ok"),
        (90, 49, "ok"),  # some callers send the header by themselves
        (90, 50, "warning"),
        (0, 9, "ok"),  # too few to say
    ],
)
def test_the_running_gateway_is_asked_whether_a_proxy_in_front_is_not_trusted(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, first: int, ignored: int, status: str
) -> None:
    body = METRICS.format(first=first, ignored=ignored)

    async def metrics(_: Request) -> Response:
        return Response(body, media_type="text/plain")

    with serving(Starlette(routes=[Route("/metrics", metrics)])) as (host, port):
        monkeypatch.setenv("MACHPAY_SERVER__MANAGEMENT", f"{host}:{port}")
        message, text, way_out = only(checked(invoke, exit_code=0), "addresses")
    assert message == status
    assert f"{ignored} of {first + 10} requests" in text
    assert (way_out is not None and "trusted_proxies" in way_out) == (status == "warning")


@pytest.mark.parametrize(
    "listen, trusted, status",
    [
        ("127.0.0.1:8000", "", "ok"),
        ("0.0.0.0:8000", "", "warning"),
        ("0.0.0.0:8000", "10.0.0.0/8", "ok"),
    ],
)
def test_where_no_gateway_can_be_asked_the_settings_say_what_to_expect(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, listen: str, trusted: str, status: str
) -> None:
    monkeypatch.setenv("MACHPAY_SERVER__MANAGEMENT", f"{HOST}:{free_port()}")
    monkeypatch.setenv("MACHPAY_SERVER__LISTEN", listen)
    if trusted:
        monkeypatch.setenv("MACHPAY_TRUSTED_PROXIES", trusted)
    message, text, _ = only(checked(invoke, exit_code=0), "addresses")
    assert message == status
    assert "no running gateway answers at" in text


def test_the_keys_of_each_issuer_are_loaded(invoke: Invoke) -> None:
    key = RSAKey.generate_key(2048, {"kid": "k1"})
    Path("jwks.json").write_bytes(jwks(key))
    with serving(Starlette()) as (host, port):
        away = f"http://{host}:{port}/realms/acme"
        settings = f"""
            [[issuers]]
            issuer = "https://id.example.com"
            audience = "api"
            jwks = "jwks.json"

            [[issuers]]
            issuer = "{away}"
            audience = "api"
            """
        with Path("machpay.toml").open("a", encoding="utf-8") as file:
            file.write(settings)

        good, wrong = [finding for finding in checked(invoke, exit_code=1) if finding["subject"] == "issuer"]

    assert (good["status"], good["found"]) == ("ok", "https://id.example.com has 1 usable key")
    assert (wrong["status"], wrong["way_out"]) == ("wrong", "correct the issuer, or set jwks")
    for path in (f"/realms/acme{OPENID}", f"{OAUTH}/realms/acme"):
        assert f"http://{host}:{port}{path} responded 404" in wrong["found"]
