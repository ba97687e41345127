"""The examples run as they stand: each is loaded from its file and called."""

import asyncio
import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from hatchling.builders.wheel import WheelBuilder
from starlette.testclient import TestClient

from machpay_gateway import Gateway, MachPayAuth, Route
from machpay_gateway.cli.demo import load_sample
from machpay_gateway.core.decision.policy import Policy
from machpay_gateway.testing import as_principal, create_key
from tests.versions import shows_scopes

ROOT = Path(__file__).parents[1]
GUIDE_SCOPES = ("skills:execute", "skills:list", "account:read", "account:write", "webhooks:manage")


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def issue(gateway: Gateway, *scopes: str) -> dict[str, str]:
    """Return the header that carries a new key."""

    return {"Authorization": f"Bearer {asyncio.run(create_key(gateway, scopes=scopes, name='ada'))}"}


@pytest.fixture(autouse=True)
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MACHPAY_DATABASE", "sqlite:///examples.db")


@pytest.mark.parametrize("name, hello", [("starlette_app", {}), ("fastapi_app", {"tier": "standard"})])
def test_an_example_responds_to_its_caller_and_requires_the_scope(name: str, hello: dict[str, str]) -> None:
    app = example(name).app
    with as_principal(app, scopes="skills:execute", name="ada"):
        assert TestClient(app).post("/v1/skills/execute").json() == {"hello": "ada", **hello}
    with as_principal(app, scopes="skills:list"):
        assert TestClient(app).post("/v1/skills/execute").status_code == 403
    with as_principal(app, None):
        assert TestClient(app).post("/v1/skills/execute").status_code == 401


@pytest.mark.parametrize("name", ["starlette_app", "fastapi_app"])
def test_an_example_identifies_a_key_of_its_database(name: str) -> None:
    headers = issue(Gateway(), "skills:execute")
    with TestClient(example(name).app) as client:
        assert client.post("/v1/skills/execute", headers=headers).json()["hello"] == "ada"


@shows_scopes
def test_the_fastapi_example_documents_its_scopes() -> None:
    with TestClient(example("fastapi_app").app) as client:
        assert client.get("/docs").status_code == 200
        shown = client.get("/openapi.json").json()

    assert shown["paths"]["/v1/skills/execute"]["post"]["security"] == [{"MachPay": ["skills:execute"]}]


@pytest.fixture(scope="module")
def sample() -> ModuleType:
    return load_sample()


@pytest.fixture
def client(sample: ModuleType) -> Iterator[TestClient]:
    gateway = Gateway(database="sqlite:///sample.db", routes=sample.ROUTES, unlisted_routes="deny")
    headers = issue(gateway, *GUIDE_SCOPES)
    with TestClient(MachPayAuth(sample.app, gateway=gateway), headers=headers) as started:
        yield started


@pytest.mark.parametrize(
    "method, path, body, expected",
    [
        ("GET", "/v1/skills", None, "text-summarizer"),
        ("POST", "/v1/skills/execute", {"skill_id": "sentiment", "input": {}}, '"output":"Done."'),
        ("GET", "/v1/account", None, '"balance":4200'),
        ("PATCH", "/v1/account", {"currency": "EUR"}, '"currency":"EUR"'),
        ("GET", "/v1/webhooks", None, '"data":[]'),
        ("POST", "/v1/webhooks", {"url": "https://example.com/hook"}, "https://example.com/hook"),
    ],
)
def test_the_sample_responds_with_its_caller(
    client: TestClient, method: str, path: str, body: dict[str, object] | None, expected: str
) -> None:
    answer = client.request(method, path, json=body)

    assert answer.is_success
    assert expected in answer.text
    assert answer.json()["caller"]["name"] == "ada"
    assert answer.json()["caller"]["id"].startswith("key_")


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[]", b'{"skill_id": "none"}'])
def test_the_sample_takes_any_body_without_failing(client: TestClient, body: bytes) -> None:
    assert client.post("/v1/skills/execute", content=body).status_code == 422


def test_the_sample_streams_events_and_ends(
    client: TestClient, sample: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample, "STREAM_PAUSE_SECONDS", 0)

    answer = client.get("/v1/skills/stream")

    events = [event.split("\n")[0] for event in answer.text.strip().split("\n\n")]
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert events == ["event: skill", "event: skill", "event: end"]
    assert json.loads(answer.text.strip().rpartition("data: ")[2])["caller"]["name"] == "ada"


def test_the_sample_speaks_websocket(client: TestClient) -> None:
    with client.websocket_connect("/v1/skills/live") as live:
        live.send_text("hello")
        assert live.receive_text() == "ada: hello"


def test_the_samples_health_is_public(client: TestClient) -> None:
    assert client.get("/healthz", headers={"Authorization": ""}).json() == {"status": "ok"}


def test_every_path_of_the_sample_has_a_rule(sample: ModuleType) -> None:
    policy = Policy(sample.ROUTES, unlisted="deny")
    endpoints = [
        (method, endpoint.path)
        for endpoint in sample.app.routes
        for method in getattr(endpoint, "methods", None) or {"GET"}
    ]

    assert all(isinstance(policy.rule(method, path), Route) for method, path in endpoints)
    assert len([method for method, _ in endpoints if method != "HEAD"]) == len(sample.ROUTES)


def test_the_wheel_brings_the_sample_and_the_migrations(tmp_path: Path) -> None:
    (wheel,) = WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])

    import zipfile  # noqa: PLC0415 - nothing else here opens archives

    names = zipfile.ZipFile(wheel).namelist()
    assert "machpay_gateway/_examples/skills_api.py" in names
    assert "machpay_gateway/stores/migrations/versions/0001_accounts_and_keys.py" in names
    assert "machpay_gateway/py.typed" in names
    assert not [name for name in names if name.startswith(("tests/", "examples/"))]
