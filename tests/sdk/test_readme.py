"""The snippets of the client's README that handle tokens, run verbatim."""

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import httpx2
import machpay
import pytest

from tests.sdk.issuing import Issuer, refresh_token, token
from tests.sdk.scripted import SECRET, Reply, Script, SentRequest

README = Path(__file__).parents[2] / "clients" / "python" / "README.md"


def block(opening: str) -> str:
    blocks = re.findall(r"^```python\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)
    (block,) = [each for each in blocks if opening in each]
    return str(block)


@pytest.fixture
def names(served: tuple[Script, str], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setenv("MACHPAY_BASE_URL", served[1])
    return {
        "MachPay": machpay.MachPay,
        "CLIENT_ID": "app_1",
        "CLIENT_SECRET": "cs_" + "z" * 40,
        "REDIRECT_URI": "https://app.example/callback",
        "session": {},
    }


def respond(script: Script, path: str, answer: Callable[[SentRequest], Reply]) -> None:
    async def endpoint(request: SentRequest) -> Reply:
        return answer(request)

    script.on[path] = endpoint


def test_the_oauth_flow_of_the_readme_runs(
    script: Script, names: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    redirect, callback = block("check_callback").split("# handle the callback\n")
    exec(redirect, names)  # noqa: S102 - our own page
    request = dict(parse_qsl(urlsplit(names["location"]).query))
    back = {"code": "code_1", "state": request["state"], "iss": "https://auth.machpay.xyz"}
    names["callback_url"] = f"{request['redirect_uri']}?{urlencode(back)}"
    issued = {"access_token": token(0), "token_type": "Bearer", "expires_in": 3600, "scope": request["scope"]}
    respond(script, "/oauth/token", lambda _: Reply(200, issued))
    exec(callback, names)  # noqa: S102 - as above
    assert capsys.readouterr().out == "('skills:execute', 'account:read') 3600\n"
    assert len(script.last.form["code_verifier"]) == 43
    names["client"].close()


def test_tokens_are_refreshed_and_stored_as_the_readme_has_it(script: Script, names: dict[str, Any]) -> None:
    issuer = Issuer(script)
    issuer.end()
    had = machpay.Response(200, httpx2.Headers())
    names["tokens"] = machpay.Tokens(access_token=token(0), refresh_token=refresh_token(0), response=had)
    exec(block("def store"), names)  # noqa: S102 - our own page
    with names["client"] as client:
        assert client.whoami().id == "key_1"
    assert names["session"] == {"tokens": (token(1), refresh_token(1))}


def test_a_session_is_made_and_used_as_the_readme_has_it(script: Script, names: dict[str, Any]) -> None:
    respond(script, "/v1/sessions", lambda _: Reply(201, {"token": token(3)}))
    names["client"] = machpay.MachPay(SECRET)
    exec(block("sessions.create"), names)  # noqa: S102 - our own page
    assert script.last.json == {"scopes": ["skills:execute"], "ttl_seconds": 900}
    with names["browser"] as browser, names["client"]:
        browser.whoami()
    assert script.last.headers["authorization"] == f"Bearer {token(3)}"


def test_other_endpoints_are_called_as_the_readme_has_it(
    script: Script, names: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    respond(script, "/v1/skills", lambda _: Reply(200, {"data": ["a"]}, {"ratelimit": '"minute";r=5'}))
    respond(script, "/v1/webhooks", lambda _: Reply(201))
    respond(script, "/v1/skills/stream", lambda _: Reply(200, b'event: skill\ndata: {"id": "a"}\n\n'))
    with machpay.MachPay(SECRET) as names["client"]:
        exec(block("client.get("), names)  # noqa: S102 - our own page
        exec(block("client.stream("), names)  # noqa: S102 - as above
    first, second, _ = script.requests
    assert (first.query, first.headers["accept-language"]) == ("limit=2", "en")
    assert (second.json, second.headers["idempotency-key"]) == ({"url": "https://app.example/hook"}, "hook-17")
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("200 ['a'] RateLimit(")
    assert printed[1] == "skill {'id': 'a'}"


def test_a_sign_in_is_shared_and_bound_as_the_readme_has_it(script: Script, names: dict[str, Any]) -> None:
    Issuer(script)
    stored = {"access_token": token(0), "refresh_token": refresh_token(0)}
    names |= {"store": print, "load": lambda: stored, "DPoPKey": machpay.DPoPKey}
    exec(block("load_tokens=load"), names)  # noqa: S102 - our own page
    with names["client"] as client:
        assert client.whoami().id == "key_1"
    exec(block("DPoPKey.generate"), names)  # noqa: S102 - as above
    assert machpay.DPoPKey.from_pem(names["pem"]).thumbprint == names["dpop_key"].thumbprint


def test_the_readme_begins_with_the_installation() -> None:
    assert re.match(r"# machpay\n\n```console\n\$ pip install ", README.read_text())


def test_the_table_of_methods_is_what_the_clients_have() -> None:
    documented = {
        name: re.findall(r"`(\w+)`", cells)
        for name, cells in re.findall(r"^\| `client\.?(\w*)` \| (.*) \|$", README.read_text(), re.MULTILINE)
    }
    with machpay.MachPay("k") as client:
        for name, methods in documented.items():
            public = {each for each in dir(getattr(client, name) if name else client) if not each.startswith("_")}
            assert public - documented.keys() == set(methods) - {"aclose"}
    assert {"oauth", "sessions", "keys"} <= documented.keys()


def test_the_signature_is_the_clients() -> None:
    (documented,) = re.findall(r"^`MachPay\((.*?)\)`$", README.read_text(), re.MULTILINE | re.DOTALL)
    parameters = inspect.signature(machpay.MachPay).parameters.values()
    has = [f"{each.name}={each.default}" for each in parameters]
    assert documented.split() == f"{has[0]}, *, {', '.join(has[1:])}".split()
