"""What is shipped for deployments is of one piece, and the gateway that it describes serves."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPConnection
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml

from machpay_gateway.core.brand import MACHPAY
from machpay_gateway.core.decision.identity_headers import identity_fields
from machpay_gateway.core.network.address import parse_address
from machpay_gateway.serving.servable import check_servable
from machpay_gateway.settings import Settings, load_settings
from machpay_gateway.settings.listeners import parse_listen
from tests.forward_auth.proxies import DEPLOY, KINDS, running_proxy
from tests.redises.ports import HOST, free_port
from tests.redises.waiting import wait_until
from tests.servers import serving
from tests.test_assertions import principal

PROXIES = ["nginx", "traefik", "caddy", "envoy"]
COMPOSE: Mapping[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES: Mapping[str, Any] = COMPOSE["services"]
MANIFESTS: Mapping[str, Any] = {
    document["kind"]: document for document in yaml.safe_load_all((DEPLOY / "kubernetes" / "gateway.yaml").read_text())
}
KILL_SECONDS = 5  # after which the supervisor ends what does not drain
POD: Mapping[str, Any] = MANIFESTS["Deployment"]["spec"]["template"]["spec"]


def settings(config: Path, environ: Mapping[str, str]) -> Settings:
    """Return the settings of a gateway that is started so, if it would start."""
    read = load_settings({"config": config}, {name: value for name, value in environ.items() if "MACHPAY" in name})
    check_servable(read)
    return read


def test_the_compose_gateway_has_its_settings_and_trusts_only_the_proxy() -> None:
    read = settings(DEPLOY / "machpay.toml", SERVICES["gateway"]["environment"])
    assert read.trusted_proxies is not None
    for name in PROXIES:
        address = parse_address(SERVICES[name]["networks"]["default"]["ipv4_address"])
        assert address is not None
        assert address in read.trusted_proxies
        assert address + 1 not in read.trusted_proxies
    assert f":{read.server.management_address and read.server.management_address.port}/readyz" in str(
        SERVICES["gateway"]["healthcheck"]
    )


@pytest.mark.parametrize("name", PROXIES)
def test_a_compose_proxy_sends_check_requests_and_has_its_files(name: str) -> None:
    texts = "".join((DEPLOY / file).read_text() for file in KINDS[name].files)
    listen = settings(DEPLOY / "machpay.toml", SERVICES["gateway"]["environment"]).server.listen
    port = parse_listen(listen).port
    for service, expected in (("gateway", port), ("upstream", int(SERVICES["upstream"]["entrypoint"][-1]))):
        named = re.findall(rf"\b{service}(?:, port_value: |:)(\d+)", texts)
        assert named
        assert set(named) == {str(expected)}
    mounted = [volume.split(":")[0].removeprefix("./") for volume in SERVICES[name]["volumes"]]
    assert sorted(mounted) == sorted(KINDS[name].files)
    assert SERVICES[name]["ports"] == ["8080:8080"]
    assert "8080" in texts


def test_pages_and_api_have_different_hosts(tmp_path: Path) -> None:
    (tmp_path / "machpay.toml").write_text(MANIFESTS["ConfigMap"]["data"]["machpay.toml"])
    for config in (DEPLOY / "machpay.toml", tmp_path / "machpay.toml"):
        read = settings(config, SERVICES["gateway"]["environment"])
        assert [pages.setting for pages in read.page_hosts.pages] == ["console.url", "oauth.issuer"]  # type: ignore[union-attr]
        assert read.host_warnings == ()


def test_what_compose_refers_to_exists() -> None:
    for service in SERVICES.values():
        assert set(service.get("depends_on", ())) <= set(SERVICES)
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            assert source in COMPOSE["volumes"] or (DEPLOY / source).is_file()
    gateway = SERVICES["gateway"]
    for name in ("MACHPAY_DATABASE", "MACHPAY_REDIS"):
        assert re.split(r"[@/:]+", gateway["environment"][name])[-3] in SERVICES
    assert (DEPLOY / gateway["build"]["context"] / gateway["build"]["dockerfile"]).samefile(DEPLOY / "Dockerfile")


def test_no_file_holds_a_password() -> None:
    for value in (SERVICES["gateway"]["environment"]["PGPASSWORD"], SERVICES["postgres"]["environment"]):
        assert "${POSTGRES_PASSWORD:?" in str(value)
    assert "${MACHPAY_SECRET_KEY:?" in SERVICES["gateway"]["environment"]["MACHPAY_SECRET_KEY"]
    assert "Secret" not in MANIFESTS


def test_references_between_manifests_resolve(tmp_path: Path) -> None:
    labels = MANIFESTS["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert MANIFESTS["Deployment"]["spec"]["selector"]["matchLabels"] == labels
    assert MANIFESTS["Service"]["spec"]["selector"] == labels
    assert MANIFESTS["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    assert MANIFESTS["PodDisruptionBudget"]["spec"]["minAvailable"] < MANIFESTS["Deployment"]["spec"]["replicas"]
    (gateway,) = POD["containers"]
    environ = {entry["name"]: "postgresql://db/machpay-of-32-characters" for entry in gateway["env"]}
    (tmp_path / "machpay.toml").write_text(MANIFESTS["ConfigMap"]["data"]["machpay.toml"])
    server = settings(tmp_path / "machpay.toml", environ | {"MACHPAY_REDIS": "redis://redis:6379/0"}).server
    pause, seconds = gateway["lifecycle"]["preStop"]["exec"]["command"]
    assert (pause, int(seconds) > 0) == ("sleep", True)
    assert int(seconds) + server.drain_seconds + KILL_SECONDS < POD["terminationGracePeriodSeconds"]
    assert server.management_address is not None
    ports = {port["name"]: port["containerPort"] for port in gateway["ports"]}
    assert ports == {"http": parse_listen(server.listen).port, "management": server.management_address.port}
    assert [port["targetPort"] for port in MANIFESTS["Service"]["spec"]["ports"]] == ["http"]
    probes = [gateway[f"{kind}Probe"]["httpGet"] for kind in ("liveness", "readiness", "startup")]
    assert [probe["path"] for probe in probes] == ["/healthz", "/readyz", "/readyz"]
    assert {probe["port"] for probe in probes} == {"management"}
    scraped = MANIFESTS["Deployment"]["spec"]["template"]["metadata"]["annotations"]
    assert scraped["prometheus.io/port"] == str(server.management_address.port)


def test_the_manifests_mount_what_exists() -> None:
    volumes = {volume["name"]: volume["configMap"]["name"] for volume in POD["volumes"]}
    assert set(volumes.values()) == {MANIFESTS["ConfigMap"]["metadata"]["name"]}
    for pod in (MANIFESTS["Job"]["spec"]["template"]["spec"], POD):
        assert pod["volumes"] == POD["volumes"]
        for container in pod["containers"]:
            assert {mount["name"] for mount in container["volumeMounts"]} == set(volumes)
            assert {entry["valueFrom"]["secretKeyRef"]["name"] for entry in container["env"]} == {"machpay-gateway"}
            assert "allowPrivilegeEscalation" in container["securityContext"]


def test_a_job_of_the_manifests_migrates_and_no_pod_that_serves() -> None:
    pod = MANIFESTS["Job"]["spec"]["template"]["spec"]
    assert [container["args"] for container in pod["containers"]] == [["migrate"]]
    assert [container["args"] for container in POD["containers"]] == [["serve"]]
    assert "initContainers" not in POD


@pytest.mark.parametrize("name", ["nginx", "traefik", "caddy"])  # Envoy's hands on all that begin so
def test_every_identity_header_is_passed_on(name: str) -> None:
    texts = "".join((DEPLOY / file).read_text() for file in KINDS[name].files).lower()
    for header in [
        *(header for header, _ in identity_fields(principal(), MACHPAY.header_prefix)),
        MACHPAY.assertion_header,
    ]:
        assert header.lower() in texts


@contextmanager
def served(folder: Path, port: int) -> Iterator[dict[str, Any]]:
    """Run the gateway as it is shipped, but for its stores; yield what `init` made."""
    environ = {
        **{name: value for name, value in os.environ.items() if not name.startswith("MACHPAY_")},
        "MACHPAY_CONFIG": str(DEPLOY / "machpay.toml"),
        "MACHPAY_DATABASE": f"sqlite:///{folder}/machpay.db",
        "MACHPAY_TRUSTED_PROXIES": HOST,
        "MACHPAY_SERVER__MANAGEMENT": f"{HOST}:{free_port()}",
    }
    program = [sys.executable, "-m", "machpay_gateway.cli.main"]
    made = subprocess.run([*program, "init", "--json"], env=environ, cwd=folder, capture_output=True, check=True)
    command = [*program, "serve", "--workers", "1", "--listen", f"{HOST}:{port}"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, env=environ, cwd=folder, stdout=log, stderr=log)
    try:
        wait_until(lambda: _answers(port), seconds=30, claim="the gateway answers")
        yield orjson.loads(made.stdout)
    finally:
        process.terminate()
        process.wait(30)


def _answers(port: int) -> bool:
    try:
        return call(port, "/v1/whoami") == (401, None)
    except ConnectionError:
        return False


def call(port: int, path: str, secret: str | None = None) -> tuple[int, Any]:
    connection = HTTPConnection(HOST, port, timeout=20)
    try:
        connection.request("GET", path, headers={} if secret is None else {"Authorization": f"Bearer {secret}"})
        response = connection.getresponse()
        body = orjson.loads(response.read() or b"null")
        return response.status, body if response.status == 200 else None
    finally:
        connection.close()


@pytest.mark.parametrize("name", [pytest.param("nginx", marks=pytest.mark.xdist_group("proxy nginx"))])
def test_a_served_process_responds_to_check_requests(tmp_path: Path, name: str) -> None:
    spec = spec_from_file_location("sample_upstream", DEPLOY / "upstream.py")
    assert spec is not None
    assert spec.loader is not None
    upstream = module_from_spec(spec)
    spec.loader.exec_module(upstream)
    port = free_port()
    with (
        served(tmp_path, port) as made,
        serving(upstream.app) as there,
        running_proxy(name, gateway=port, upstream=there[1]) as proxy,
    ):
        assert call(proxy.port, "/v1/skills") == (401, None)
        status, echoed = call(proxy.port, "/v1/skills", made["key"]["secret"])
        assert status == 200
        assert echoed["path"] == "/v1/skills"
        assert echoed["caller"]["x-machpay-key-id"] == made["key"]["id"]
        assert call(proxy.port, "/healthz") == (200, {"path": "/healthz", "caller": {}})
