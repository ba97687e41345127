"""`serve --check`: what a start needs is tried, in a line each, and nothing is served."""

import json
import os
import signal
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.certificates import Authority
from tests.redises.ports import free_port
from tests.serving.processes import PROGRAM, served
from tests.serving.test_lifecycle import until

Findings = Sequence[tuple[str, str, str]]


def check(folder: Path, settings: str, *options: str) -> tuple[int, Findings]:
    """Return the status of `serve --check`, and the subject, status and text of each finding."""
    (folder / "machpay.toml").write_text(settings)
    environ = {name: value for name, value in os.environ.items() if not name.startswith("MACHPAY_")}
    run = subprocess.run(
        [PROGRAM, "serve", "--check", "--json", *options],
        cwd=folder, env=environ, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert "Traceback" not in run.stderr
    document = json.loads(run.stdout)
    findings = [(it["subject"], it["status"], f"{it['found']} {it['way_out'] or ''}") for it in document["findings"]]
    assert run.returncode == (document["status"] == "wrong")
    return run.returncode, findings


def texts(findings: Findings, subject: str, status: str) -> str:
    """Return the texts of all findings of *subject* with *status*."""
    return "\n".join(text for its, has, text in findings if (its, has) == (subject, status))


@contextmanager
def upstream(context: ssl.SSLContext | None = None) -> Iterator[tuple[int, list[bytes]]]:
    """Run a server, and collect what it gets."""
    received: list[bytes] = []

    def serve(listening: socket.socket) -> None:
        while True:
            try:
                plain, _ = listening.accept()
            except OSError:
                return
            try:
                with plain if context is None else context.wrap_socket(plain, server_side=True) as connection:
                    received.append(connection.recv(65536))
            except OSError:
                pass

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve, args=[listening], daemon=True)
        thread.start()
        yield listening.getsockname()[1], received
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_a_configuration_that_works(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    files = authority.issue("server", "api.test", days=30)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    backend = authority.issue("backend", "backend.test", days=60)
    context.load_cert_chain(backend.certificate, backend.key)
    with upstream() as (plain, got), upstream(context) as (secure, got_over_tls):
        status, findings = check(
            tmp_path,
            f"""
            [upstreams]
            live = "http://127.0.0.1:{plain}"
            [services.billing]
            live = "https://localhost:{secure}"
            tls_ca = "{authority.path}"
            tls_server_name = "backend.test"
            [server]
            listen = ["127.0.0.1:{free_port()}", "unix:{tmp_path}/gateway.sock"]
            management = "127.0.0.1:{free_port()}"
            tls_certificate = "{files.certificate}"
            tls_key = "{files.key}"
            client_ca = "{authority.path}"
            access_log = "{tmp_path}/access.log"
            """,
        )
    assert status == 0
    assert f"unix:{tmp_path}/gateway.sock can be listened on" in texts(findings, "listen", "ok")
    assert "can be listened on" in texts(findings, "management", "ok")
    # Its authority is a private one.
    assert "is for api.test, and expires in 30 days; callers with" in texts(findings, "certificate", "warning")
    assert "has 1 certificate, and expires in 10 days" in texts(findings, "client_ca", "ok")
    assert "accepts connections at 127.0.0.1" in texts(findings, "upstream live", "ok")
    assert "its certificate expires in 60 days" in texts(findings, "upstream billing.live", "ok")
    assert "can be written" in texts(findings, "access log", "ok")
    assert "`serve` creates it" in texts(findings, "database", "warning")
    assert {*got, *got_over_tls} <= {b""}  # no request
    assert sorted(path.name for path in tmp_path.glob("*.*")) == [  # nothing is left
        "authority.pem", "backend.key", "backend.pem", "machpay.toml", "server.key", "server.pem",
    ]  # fmt: skip


def test_all_that_is_wrong_is_reported_at_once(tmp_path: Path) -> None:
    authority, other = Authority(tmp_path), Authority(tmp_path, "other")
    expired = authority.issue("expired", "api.test", days=-3)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    backend = authority.issue("backend", "backend.test")
    context.load_cert_chain(backend.certificate, backend.key)
    strict = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    strict.load_cert_chain(backend.certificate, backend.key)
    strict.load_verify_locations(other.path)
    strict.verify_mode = ssl.CERT_REQUIRED
    closed = free_port()
    with (
        upstream(strict) as (strict_port, _),
        upstream(context) as (secure, _),
        socket.create_server(("127.0.0.1", 0)) as taken,
    ):
        status, findings = check(
            tmp_path,
            f"""
            redis = "redis://127.0.0.1:{closed}/0"
            [upstreams]
            live = ["http://127.0.0.1:{closed}", "http://name.invalid", "unix:{tmp_path}/none.sock"]
            [services.billing]
            live = "https://127.0.0.1:{secure}"
            tls_ca = "{other.path}"
            [services.strict]
            live = "https://127.0.0.1:{strict_port}"
            tls_ca = "{authority.path}"
            tls_server_name = "backend.test"
            [services.http2]
            live = "h2://127.0.0.1:{secure}"
            host = "backend.test"
            tls_ca = "{authority.path}"
            [services.names]
            live = "https://127.0.0.1:{secure}"
            tls_ca = "{authority.path}"
            [server]
            listen = ["127.0.0.1:{taken.getsockname()[1]}", "unix:/nowhere/gateway.sock", "192.0.2.1:80"]
            tls_certificate = "{expired.certificate}"
            tls_key = "{expired.key}"
            access_log = "/nowhere/access.log"
            [[server.certificates]]
            certificate = "{backend.certificate}"
            key = "{expired.key}"
            """,
        )
    assert status == 1
    listen = texts(findings, "listen", "wrong")
    assert "Address already in use" in listen
    assert "the folder /nowhere must exist" in listen
    assert "192.0.2.1 port 80 cannot be listened on (Cannot assign requested address)" in listen
    certificates = texts(findings, "certificate", "wrong")
    assert "is for api.test, and expired 3 days ago renew it" in certificates
    assert "the key must be the certificate's" in certificates
    upstreams = texts(findings, "upstream live", "wrong")
    assert f"http://127.0.0.1:{closed} cannot be reached: Connection refused" in upstreams
    assert "http://name.invalid:80 cannot be reached: " in upstreams
    assert f"unix:{tmp_path}/none.sock cannot be reached: No such file or directory" in upstreams
    assert "TLS fails: unable to get local issuer certificate" in texts(findings, "upstream billing.live", "wrong")
    assert "IP address mismatch" in texts(findings, "upstream names.live", "wrong")
    assert "set tls_ca, tls_server_name" in texts(findings, "upstream names.live", "wrong")
    assert "TLS fails: " in texts(findings, "upstream strict.live", "wrong")
    assert "does not speak HTTP/2" in texts(findings, "upstream http2.live", "wrong")
    assert texts(findings, "access log", "wrong").startswith("/nowhere/access.log cannot be written")
    assert texts(findings, "redis", "wrong")


@pytest.mark.parametrize(
    "settings, options, message",
    [
        ("[server]\nworkerz = 2", [], "did you mean 'workers'?"),
        ("", [], "upstreams: none is set"),
        ('[upstreams]\nlive = "http://127.0.0.1:1"', ["--workers", "2"], "2 workers cannot share limits without Redis"),
        ('[upstreams]\nlive = "http://127.0.0.1:1"', ["--listen", "nowhere"], "'nowhere' is not an address"),
    ],
)
def test_mistakes_in_the_settings_are_reported_alone(
    tmp_path: Path, settings: str, options: list[str], message: str
) -> None:
    status, findings = check(tmp_path, settings, *options)
    assert status == 1
    assert message in texts(findings, "configuration", "wrong")
    assert {subject for subject, _, _ in findings} == {"configuration"}


def test_addresses_of_the_gateway_that_runs_are_no_mistake(tmp_path: Path) -> None:
    port, management = free_port(), free_port()
    settings = f'[server]\nlisten = ["127.0.0.1:{port}", "unix:{tmp_path}/gateway.sock"]'
    with served(tmp_path, settings=settings, listen=(), management=f"127.0.0.1:{management}") as gateway:
        text = (tmp_path / "machpay.toml").read_text()
        status, findings = check(tmp_path, text, "--management", f"127.0.0.1:{management}")
        assert texts(findings, "listen", "ok").count("is in use, as it seems by the gateway that answers") == 2
        assert status == 0
        gateway.supervisor.send_signal(signal.SIGHUP)
        until(lambda: "are reloaded" in gateway.log)  # the check has changed nothing


def test_people_get_a_table(tmp_path: Path) -> None:
    (tmp_path / "machpay.toml").write_text('[upstreams]\nlive = "http://127.0.0.1:1"\n')
    run = subprocess.run(
        [PROGRAM, "serve", "--check", "--listen", f":{free_port()}", "--management", ""],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert run.returncode == 1
    assert run.stdout.splitlines()[0].split() == ["STATUS", "SUBJECT", "FOUND"]
    assert any(line.split()[:3] == ["wrong", "upstream", "live"] for line in run.stdout.splitlines())
