"""Dashboards and alerts ask for nothing that the gateway does not tell."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import orjson
import pytest
import yaml

from machpay_gateway.core.decision.reason import Reason
from machpay_gateway.core.limits.plan import Part, SubjectKind, plan_of
from machpay_gateway.core.limits.rate import Limits
from machpay_gateway.core.usage.counters import ALLOWED, PREFLIGHT_OUTCOME, SHADOW_LIMITED
from machpay_gateway.telemetry.exposition import exposition
from machpay_gateway.telemetry.metrics import METRICS, MetricKind

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "examples" / "deploy"
BOARD: Mapping[str, Any] = orjson.loads((DEPLOY / "grafana-dashboard.json").read_bytes())
(GROUP,) = yaml.safe_load((DEPLOY / "alerts.yml").read_text())["groups"]
RULES: Mapping[str, Any] = {rule["alert"]: rule for rule in GROUP["rules"]}
PANELS: Mapping[str, Any] = {panel["title"]: panel for panel in BOARD["panels"]}
OF_PROMETHEUS = {"job", "instance", "le"}
VALUES = {
    "outcome": {ALLOWED, PREFLIGHT_OUTCOME, SHADOW_LIMITED, *Reason},
    "code": {"2xx", "5xx"},
    "step": {"decide", "admission", "upstream"},
    "result": {"hit", "miss"},
}
_EVERY = Limits.parse(["60/minute", "900/2 hours"], 5, ["100/day", "1000/month"])
POLICIES = {policy.name for kind in get_args(SubjectKind) for policy in plan_of((Part(kind, _EVERY),)).policies}


def told() -> dict[str, set[str]]:
    """Return the labels of each sample that can be told, by its name, from a real exposition of all metrics."""
    counts = {(it.name, tuple("x" for _ in it.labels)): [1.0] * it.size for it in METRICS.values()}
    text, _ = exposition(counts, "")
    samples: dict[str, set[str]] = {}
    for line in text.decode().splitlines():
        if match := re.fullmatch(r"(\w+)(?:\{(.*)\})? \S+", line):
            samples[match[1]] = set(re.findall(r'(\w+)="', match[2] or ""))
    return samples


def expressions() -> Iterator[tuple[str, str]]:
    for title, panel in PANELS.items():
        for target in panel["targets"]:
            yield title, target["expr"]
    for name, rule in RULES.items():
        yield name, rule["expr"]
    for variable in BOARD["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["name"], variable["query"]["query"]


@pytest.mark.parametrize("name, expression", list(expressions()), ids=lambda it: it[:40])
def test_every_expression_uses_existing_metrics_and_labels(name: str, expression: str) -> None:
    samples = told()
    named = set(re.findall(r"\b((?:machpay|process)_\w+|up)\b", expression))
    assert named, name
    assert named - {"up"} <= set(samples)
    labels = set().union(*(samples[it] for it in named - {"up"})) | OF_PROMETHEUS
    for listed in re.findall(r"\bby \(([^)]*)\)", expression):
        assert set(re.split(r",\s*", listed)) <= labels
    for label, is_regex, value in re.findall(r'(\w+)\s*(?:!?=|!(?=~))(~?)"([^"]*)"', expression):
        assert label in labels
        if label == "policy":
            assert any(re.fullmatch(value, policy) for policy in POLICIES)
        elif label in VALUES:
            assert set(value.split("|") if is_regex else [value]) <= VALUES[label]
    assert expression.count("(") == expression.count(")")
    assert expression.count("{") == expression.count("}")


@pytest.mark.parametrize("name", RULES)
def test_an_alert_has_a_severity_and_a_runbook(name: str) -> None:
    rule = RULES[name]
    assert set(rule) == {"alert", "expr", "for", "labels", "annotations"}
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert set(rule["annotations"]) == {"summary", "description", "runbook"}
    pages = re.findall(r"\b(docs/[\w-]+\.md)(?:#([\w-]+))?", rule["annotations"]["runbook"])
    assert pages
    for page, anchor in pages:
        headings = re.findall(r"^#+ (.*)$", (ROOT / page).read_text(), re.MULTILINE)
        anchors = {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings}
        assert not anchor or anchor in anchors
    assert f"`{name}`" in (ROOT / "docs" / "metrics.md").read_text()


def test_no_expression_takes_an_admitted_request_for_a_refused_one() -> None:
    for name, expression in expressions():
        assert 'outcome!="allowed"' not in expression, name
        for outcomes in re.findall(r'outcome!?=~?"([^"]*)"', expression):
            values = set(outcomes.split("|"))
            assert ALLOWED not in values or SHADOW_LIMITED in values, name


def test_the_alert_on_plans_is_about_quotas_and_accounts_alone() -> None:
    (pattern,) = re.findall(r'policy=~"([^"]*)"', RULES["MachPayPlanRefusesMany"]["expr"])
    assert {policy for policy in POLICIES if re.fullmatch(pattern, policy)} == {
        *("day", "month", "owner-day", "owner-month"),
        *(policy for policy in POLICIES if policy.startswith("account-")),
    }


def test_a_rate_is_taken_of_counters_alone_and_a_quantile_of_buckets() -> None:
    gauges = {name for name, metric in METRICS.items() if metric.kind is MetricKind.GAUGE}
    for name, expression in expressions():
        rated = set(re.findall(r"(?:rate|increase)\((\w+)", expression))
        assert not rated & gauges, name
        for inner in re.findall(r"histogram_quantile\([\d.]+, sum by \(([^)]*)\) \(rate\((\w+)", expression):
            assert "le" in inner[0]
            assert inner[1].endswith("_bucket")


def test_the_dashboard_can_be_imported_anywhere() -> None:
    assert BOARD["schemaVersion"] >= 41
    assert "id" not in BOARD  # or it would replace whatever has that number
    assert BOARD["templating"]["list"][0]["type"] == "datasource"
    ids = [panel["id"] for panel in BOARD["panels"]]
    assert len(set(ids)) == len(ids)
    for panel in BOARD["panels"]:
        assert panel["description"]
        for it in (panel, *panel["targets"]):
            assert it["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    rows: dict[int, list[tuple[int, int]]] = {}
    for panel in BOARD["panels"]:
        place = panel["gridPos"]
        rows.setdefault(place["y"], []).append((place["x"], place["x"] + place["w"]))
    for row in rows.values():
        assert row[-1][1] <= 24
        assert all(left[1] <= right[0] for left, right in pairwise(sorted(row)))


def test_every_metric_is_on_the_dashboard() -> None:
    asked = " ".join(expression for _, expression in expressions())
    assert {name for name in METRICS if name not in asked} == set()


def test_prometheus_scrapes_the_gateway_of_compose() -> None:
    settings = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())
    (scrape,) = settings["scrape_configs"]
    assert scrape["job_name"] in RULES["MachPayDown"]["expr"]
    (target,) = scrape["static_configs"][0]["targets"]
    service, _, port = target.partition(":")
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    assert service in compose
    assert f":{port}/readyz" in str(compose[service]["healthcheck"])
    assert all((DEPLOY / name).is_file() for name in settings["rule_files"])
    mounted = [volume.split(":")[0] for volume in compose["prometheus"]["volumes"]]
    assert mounted == ["./prometheus.yml", "./alerts.yml"]


def test_promtool_accepts_the_files() -> None:
    if (tool := shutil.which("promtool")) is None:
        assert "CI" not in os.environ
        pytest.skip("promtool is not installed")
    for arguments in (["check", "rules", "alerts.yml"], ["check", "config", "prometheus.yml"]):
        run = subprocess.run([tool, *arguments], cwd=DEPLOY, capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stdout + run.stderr
