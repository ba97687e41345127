"""README and docs agree with the code."""

import inspect
import os
import re
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

import pytest
from click.testing import CliRunner
from starlette.applications import Starlette

from machpay_gateway import Issuer, Principal
from machpay_gateway.admin.operations import OWN_ROUTES
from machpay_gateway.cli.main import cli
from machpay_gateway.core.api_problems import API_PROBLEMS
from machpay_gateway.core.decision.problem import PROBLEMS
from machpay_gateway.core.keys.key import ENTROPY_BYTES, ENVIRONMENTS, mint_secret
from machpay_gateway.core.limits.rate import TIERS
from machpay_gateway.core.network.proxy_settings import ProxySettings
from machpay_gateway.core.network.upstream_options import UpstreamOptions
from machpay_gateway.core.usage.outcome import OutcomeGroup
from machpay_gateway.forward_auth.dialect import DIALECTS
from machpay_gateway.limiters.redis.servers import servers_for
from machpay_gateway.settings import Options
from machpay_gateway.settings.fields import FIELDS
from machpay_gateway.settings.model import LimiterFailure
from machpay_gateway.settings.server import ServerSettings
from machpay_gateway.settings.sources import check_file
from machpay_gateway.telemetry.metrics import METRICS
from machpay_gateway.testing import as_principal

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def rows(page: Path) -> list[list[str]]:
    """Return the cells of the table rows of *page* that begin with a name in backquotes."""
    lines = [line for line in page.read_text().splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


@pytest.mark.parametrize("index, name", [(0, "starlette_app.py"), (1, "fastapi_app.py")])
def test_the_examples_in_the_readme_are_the_files(index: int, name: str) -> None:
    assert blocks(ROOT / "README.md", "python")[index] == (ROOT / "examples" / name).read_text()


def test_the_tests_of_an_example_are_the_file_and_name_every_argument() -> None:
    page = ROOT / "docs" / "testing-your-app.md"
    assert blocks(page, "python")[0] == (ROOT / "examples" / "test_fastapi_app.py").read_text()
    arguments = [name for name in inspect.signature(as_principal).parameters if name not in {"app", "principal"}]
    assert [cells[0].strip("`") for cells in rows(page)] == arguments


def test_the_test_of_a_limit_in_the_docs_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(blocks(ROOT / "docs" / "testing-your-app.md", "python")[2], names)  # noqa: S102 - our own pages
    names["test_the_third_request_is_refused"]()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("page, index", [("README.md", 2), ("docs/application.md", 0), ("docs/hooks.md", 0)])
def test_the_snippets_run(page: str, index: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    app = Starlette()
    exec(blocks(ROOT / page, "python")[index], {"app": app})  # noqa: S102 - our own pages
    assert len(app.user_middleware) == 1


def test_the_snippet_for_nginx_is_of_the_shipped_configuration() -> None:
    (snippet,) = blocks(ROOT / "docs" / "forward-auth.md", "nginx")
    assert snippet.strip()
    shipped = (ROOT / "examples" / "deploy" / "nginx" / "machpay.conf").read_text()
    assert all(line in shipped for line in snippet.splitlines())


def test_the_table_of_proxies_lists_the_paths_of_forward_auth() -> None:
    told = re.findall(r"^\| .* \| `(/authorize/.*?)` \|", (ROOT / "docs" / "forward-auth.md").read_text(), re.MULTILINE)
    assert told == [dialect.path for dialect in DIALECTS]


def links_to_files(page: Path) -> list[str]:
    return re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text())


@pytest.mark.parametrize("page", [page for page in PAGES if links_to_files(page)], ids=lambda page: page.name)
def test_every_link_to_a_file_has_a_target(page: Path) -> None:
    for target in links_to_files(page):
        assert (page.parent / target.replace("\\", "")).exists(), target


def test_the_table_of_refusals_is_complete() -> None:
    told = {cells[0].strip("`"): (int(cells[1]), int(cells[2])) for cells in rows(ROOT / "docs" / "refusals.md")}
    assert told == {str(reason): (row.status, row.close_code) for reason, row in PROBLEMS.items()}


def test_the_kinds_of_usage_are_listed_in_order() -> None:
    usage = (ROOT / "docs" / "console.md").read_text().partition("## Usage")[2]
    assert re.findall(r"^\| ([a-z ]+) \|", usage, re.MULTILINE) == ["kind", *OutcomeGroup]


def test_the_tables_of_the_key_api_are_complete() -> None:
    told = {cells[0].strip("`"): cells[1] for cells in rows(ROOT / "docs" / "key-api.md")}
    problems = {code: str(int(status)) for code, (status, _, _) in API_PROBLEMS.items()}
    access = {route.match: "public" if route.public else f"`{route.requires}`" for route in OWN_ROUTES}
    assert told == {match: "any" if scopes == "``" else scopes for match, scopes in access.items()} | problems


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_the_scanners_rules_find_a_secret_and_no_other_companys(environment: str) -> None:
    rules = tomllib.loads((ROOT / "docs" / "scanners" / "gitleaks.toml").read_text())["rules"]
    (detector,) = re.findall(r"secret: '(.*)'", (ROOT / "docs" / "scanners" / "trufflehog.yaml").read_text())
    for _ in range(100):
        secret = mint_secret(environment, os.urandom(ENTROPY_BYTES))
        line = f'api_key = "{secret}"  # for production'
        found = [rule["id"] for rule in rules if re.findall(rule["regex"], line) == [secret]]
        assert found == [f"machpay-{environment}-key"]
        assert all(keyword in line for rule in rules if rule["id"] in found for keyword in rule["keywords"])
        assert re.findall(detector, line) == [secret]
    stripes = f'api_key = "sk_{environment}_{"a1B2" * 12}"'
    assert not any(re.search(pattern, stripes) for pattern in [detector, *(rule["regex"] for rule in rules)])


def test_the_table_of_settings_is_complete() -> None:
    assert [cells[0].strip("`") for cells in rows(ROOT / "docs" / "configuration.md")] == list(FIELDS)


def test_the_tables_of_the_proxy_are_the_settings_with_their_defaults() -> None:
    told = [(cells[0], cells[1].strip("`")) for cells in rows(ROOT / "docs" / "proxy.md") if len(cells) == 3]
    shown = [(name, default) for names, default in told for name in re.findall(r"`(\w+)`", names)]
    defaults = [
        (field.name, _as_toml(field.default))
        for made in (UpstreamOptions, ProxySettings, ServerSettings)
        for field in fields(made)
        if field.init
    ]
    assert sorted(shown) == sorted(defaults)


def _as_toml(default: object) -> str:
    if isinstance(default, bool):
        return str(default).lower()
    if default in ((), None):
        return "none"
    return f"{default:g}" if isinstance(default, float) else str(default)


def test_the_table_of_tiers_is_the_default() -> None:
    tables = {cells[0].strip("`"): tuple(cells[1:3]) for cells in rows(ROOT / "docs" / "limits.md")}
    assert {name: tables[name] for name in tables if tables[name][0][0].isdigit()} == {
        name: (f"{tier.limit:,}", f"{tier.concurrency:,}") for name, tier in TIERS.items()
    }


def test_documented_redis_urls_are_valid_and_failure_modes_complete() -> None:
    told = [cells[0].strip("`") for cells in rows(ROOT / "docs" / "redis.md")]
    urls = [name for name in told if "://" in name]
    for url in urls:
        servers_for(url)
    assert [name for name in told if name not in urls] == list(get_args(LimiterFailure))


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "toml")], ids=lambda page: page.name)
def test_every_toml_block_is_valid(page: Path, tmp_path: Path) -> None:
    for block in blocks(page, "toml"):
        (tmp_path / "machpay.toml").write_text(block)
        mistakes = [mistake for mistake in check_file(tmp_path / "machpay.toml") if "jwks" not in mistake]
        assert not mistakes


def test_the_fields_of_the_principal_are_documented() -> None:
    told = {name.strip(" `") for cells in rows(ROOT / "docs" / "application.md") for name in cells[0].split(",")}
    assert told == {field.name for field in fields(Principal)} - {"secret_digest"}


def test_every_setting_may_be_given_in_python() -> None:
    assert set(Options.__annotations__) == {*FIELDS, "config"}


def commands() -> set[tuple[str, ...]]:
    """Return the commands of ours that the pages show, without their values."""
    shown = set()
    for page in PAGES:
        text = "\n".join(blocks(page, "console")).replace("\\\n", " ")
        for line in re.findall(r"^\$ machpay-gateway (.*)", text, re.MULTILINE):
            words = line.split("#")[0].split()
            names = tuple(word for word in words[:2] if re.fullmatch("[a-z]+(-[a-z]+)*", word))
            shown.add((*names, *(word for word in words if word.startswith("--"))))
    return shown


@pytest.mark.parametrize("command", sorted(commands()), ids=" ".join)
def test_every_documented_command_exists_with_its_options(command: tuple[str, ...]) -> None:
    names = [word for word in command if not word.startswith("--")]
    result = CliRunner().invoke(cli, [*names, "--help"])
    assert result.exit_code == 0, result.output
    assert all(option in result.output for option in command if option.startswith("--"))


def test_every_documented_make_target_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    shown = {
        name for page in PAGES for name in re.findall(r"(?:`|^\$ ?|^)make ([a-z-]+)", page.read_text(), re.MULTILINE)
    }
    assert shown
    assert shown <= targets


def test_the_table_of_metrics_is_complete() -> None:
    table = [row for row in rows(ROOT / "docs" / "metrics.md") if len(row) == 5]
    documented = {row[0].strip("`"): (row[1], row[2]) for row in table}
    assert documented == {
        metric.name: (metric.kind.value, ", ".join(f"`{label}`" for label in metric.labels))
        for metric in METRICS.values()
    }


def test_every_picture_is_shown_and_every_shown_one_is_there() -> None:
    shown = {name for page in PAGES for name in re.findall(r"!\[[^]]+\]\(images/([^)]+)\)", page.read_text())}
    assert shown == {path.name for path in (ROOT / "docs" / "images").iterdir()}


def test_the_table_of_an_issuers_settings_is_complete() -> None:
    told = [cells[0].strip("`") for cells in rows(ROOT / "docs" / "tokens.md")]
    assert sorted(told) == sorted(field.name for field in fields(Issuer) if field.init)
