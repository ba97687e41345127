"""The demo, run for real; its calls are made as they are printed, in the order of their titles here."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from inspect import signature
from itertools import takewhile
from pathlib import Path
from typing import Any

import httpx2
import pytest
from websockets.sync.client import connect

from machpay_gateway.cli import demo as demo_module
from tests.cli.conftest import Invoke
from tests.cli.demos import LAST_LINE, PROGRAM, STOP_SECONDS, Demo, has_shell, json_of, run_call, running_demo
from tests.console.harness import forms_of

# websockets 13 uses no proxy of the environment, and has no argument for it.
DIRECTLY: Any = {"proxy": None} if "proxy" in signature(connect).parameters else {}
GUIDE = Path(__file__).parents[2].parent / "shared" / "guide" / "authentication.md"

pytestmark = [
    pytest.mark.xdist_group("demo"),
    pytest.mark.skipif(sys.platform == "win32", reason="signals and the shell are POSIX"),
]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    with running_demo(tmp_path_factory.mktemp("demo")) as started:
        yield started


@pytest.mark.parametrize(
    "title, expected",
    [
        ("Execute a skill with the test key: the sandbox answers.", '"environment":"test","upstream":"sandbox"'),
        ("See the remaining quota of the read-only key in the RateLimit header.", 'ratelimit: "minute";r=9'),
        ("The read-only key may not execute skills.", '"code":"insufficient_scope"'),
        ("A request without a key is refused.", '"code":"missing_credentials"'),
        ("Change the account with the admin key.", '"currency":"EUR"'),
        ("Create a key with the admin key; its secret is shown only once.", '"secret":"sk_live_mp1_'),
        ("Watch a stream of events.", '"upstream": "live"'),
    ],
)
def test_a_printed_call_does_what_its_title_says(demo: Demo, title: str, expected: str) -> None:
    assert expected in run_call(demo.call(title))


def test_each_key_is_shown_once_and_differs(demo: Demo) -> None:
    secrets = [demo.secret(name) for name in ("admin", "test", "read-only")]

    assert [secret[:8] for secret in secrets] == ["sk_live_", "sk_test_", "sk_live_"]
    assert len(set(secrets)) == 3
    assert all(sum(line.strip() == secret for line in demo.lines) == 1 for secret in secrets)


def test_the_guides_curl_example_runs(demo: Demo) -> None:
    if not GUIDE.is_file():
        pytest.skip("the guide is not beside this checkout (../shared/guide/authentication.md)")
    snippets = re.findall(r"```bash\n(curl .*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(snippets) == 1
    # Besides host and key, only the guide's own ellipsis stands for something.
    adapted = snippets[0].replace("https://api.machpay.xyz", demo.url).replace("{...}", '{"text": "…"}')
    adapted = re.sub(r"sk_live_\w+\.\.\.", demo.secret("admin"), adapted)
    assert "..." not in adapted

    assert json_of(run_call(adapted))["skill_id"] == "text-summarizer"


def test_the_websocket_says_back_who_is_calling(demo: Demo) -> None:
    url = demo.url.replace("http://", "ws://") + "/v1/skills/live"
    with connect(url, additional_headers={"Authorization": f"Bearer {demo.secret('test')}"}, **DIRECTLY) as live:
        live.send("hello")
        received = live.recv(timeout=10)
        assert re.fullmatch(r"key_\w+: hello", str(received))


def test_a_browser_gets_a_page_that_leads_to_the_console(demo: Demo) -> None:
    accept = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
    page = httpx2.get(demo.url, headers={"Accept": accept})

    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    match = re.search(r'<a href="(http://localhost:\d+/console)">', page.text)
    assert match
    assert httpx2.get(match[1], follow_redirects=True).status_code == 200
    assert f"curl -i {demo.url}/v1/skills" in page.text
    assert not any(demo.secret(name) in page.text for name in ("admin", "test", "read-only"))


@pytest.mark.parametrize("accept", ["application/json", "*/*"])
def test_a_program_gets_the_problem_of_a_path_that_is_not_listed(demo: Demo, accept: str) -> None:
    root, other = [httpx2.get(demo.url + path, headers={"Accept": accept}) for path in ("/", "/other")]

    assert (root.status_code, root.headers["content-type"]) == (404, "application/problem+json")
    assert root.json().keys() == other.json().keys()
    assert root.json()["code"] == "route_not_found"
    assert root.json()["request_id"] == root.headers["x-request-id"]


def test_the_console_lets_the_printed_user_in(demo: Demo) -> None:
    (line,) = [each for each in demo.lines if each.startswith("The Console is at ")]
    match = re.fullmatch(r"The Console is at (\S+): sign in as (\S+) with the password (\S+)", line)
    assert match
    with httpx2.Client(follow_redirects=True) as browser:
        page = browser.get(match[1])
        proof = dict(forms_of(page)["/console/sign-in?next=/keys"])["proof"]
        sent = {"proof": proof, "email": match[2], "password": match[3]}
        keys = browser.post(f"{match[1]}/sign-in", data=sent)
    assert keys.url == f"{match[1]}/keys"
    # On a host of its own: nothing of the sample API is there, and nothing of it is where the API is.
    pages_url = match[1].removesuffix("/console")
    assert pages_url == demo.url.replace("127.0.0.1", "localhost")
    urls = (f"{demo.url}/console/keys", f"{pages_url}/v1/skills", f"{pages_url}/healthz")
    assert [httpx2.get(url).status_code for url in urls] == [404] * 3
    names = re.findall(r"<bdi>([^<]*)</bdi></a></th>", keys.text)
    assert names[-3:] == ["read-only", "test", "admin"]


@pytest.mark.skipif(not has_shell(), reason="the loop is one of curl and bash")
def test_the_printed_loop_runs_into_the_limit(demo: Demo) -> None:
    printed = run_call(demo.call("Exceed the test key's limit of 100 requests per minute."))

    counted = {status: int(count) for count, status in map(str.split, printed.splitlines())}
    assert set(counted) == {"200", "429"}
    assert counted["200"] <= 100


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_stops_cleanly_and_leaves_nothing_behind(tmp_path: Path, number: signal.Signals) -> None:
    with running_demo(tmp_path) as demo:
        url = demo.url.replace("http://", "ws://") + "/v1/skills/live"
        headers = {"Authorization": f"Bearer {demo.secret('admin')}"}
        with connect(url, additional_headers=headers, **DIRECTLY) as live:  # a stop does not wait for open sockets
            live.send("hello")
            live.recv(timeout=10)
            assert list(tmp_path.glob("machpay-demo-*/demo.db"))
            exit_code, errors = demo.stop(number)

    assert (exit_code, errors) == (0, "")
    assert not list(tmp_path.glob("machpay-demo-*"))


def test_for_scripts_it_is_one_document_and_what_is_configured_here_is_ignored(tmp_path: Path) -> None:
    (tmp_path / "machpay.toml").write_text("nonsense = 1\n", encoding="utf-8")
    with subprocess.Popen(
        [PROGRAM, "demo", "--port", "0", "--json"],
        cwd=tmp_path,
        env={**os.environ, "MACHPAY_ROUTES": "nonsense", "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        received = b"".join(takewhile(lambda line: line != b"}\n", process.stdout))
        try:
            process.send_signal(signal.SIGINT)  # at once, while the server is still starting
            rest, _ = process.communicate(timeout=STOP_SECONDS)
        finally:
            process.kill()

    document = json.loads(received + b"}")
    assert (rest, process.returncode) == (b"", 0)
    assert [key["name"] for key in document["keys"]] == ["admin", "test", "read-only"]
    assert set(document["console"]) == {"url", "email", "password"}
    assert document["console"]["url"] == document["url"].replace("127.0.0.1", "localhost") + "/console"
    assert all(key["secret"].startswith(f"sk_{key['environment']}_") for key in document["keys"])


def test_a_port_in_use_is_one_line_that_names_the_way_out(invoke_bare: Invoke) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = invoke_bare("demo", "--port", str(port))

    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(
        f"Error: server: 127.0.0.1 port {port} cannot be listened on (Address already in use)"
    )
    assert "--port" in result.stderr


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::", "127.0.0.2", "example.com", ""])  # noqa: S104 - what is refused
def test_it_is_for_this_machine_alone(invoke_bare: Invoke, host: str) -> None:
    result = invoke_bare("demo", "--host", host)

    assert result.exit_code == 2
    assert "is not a loopback address" in result.stderr


def test_without_a_server_it_says_what_to_install(invoke_bare: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "machpay_gateway.cli.samples", raising=False)

    result = invoke_bare("demo")

    assert result.exit_code == 1
    assert result.stderr == "Error: The demo needs a server: pip install 'machpay-gateway[server]'\n"


def test_without_the_sample_it_says_so(invoke_bare: Invoke, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(demo_module, "_SAMPLES", (tmp_path / "skills_api.py",))

    result = invoke_bare("demo")

    assert result.exit_code == 1
    assert "The sample API is missing" in result.stderr


def test_the_last_line_is_the_last(demo: Demo) -> None:
    assert LAST_LINE in demo.lines[-1]
    assert str(PROGRAM) in demo.lines[-1], "in a checkout the program is on nobody's PATH"


def test_a_key_revoked_from_another_terminal_is_refused(
    demo: Demo,
) -> None:  # the last one, for it has that key no more
    call = demo.call("See the remaining quota of the read-only key in the RateLimit header.")
    assert "200 OK" in run_call(call)
    run_call(f"{demo.lines[-1]} --yes")
    deadline = time.monotonic() + 5
    while "401" not in (answer := run_call(call).partition("\n")[0]):
        assert time.monotonic() < deadline, answer
