"""Authorization requests and callbacks."""

import pickle
import re
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from hashlib import sha256
from typing import Any
from urllib.parse import parse_qs, parse_qsl, quote, urlencode, urlsplit

import machpay
import pytest
from hypothesis import given
from hypothesis import strategies as st
from machpay._oauth import parse_callback
from machpay._sync.oauth import OAuth

from tests.sdk.conftest import Twin

STATE = "kept-in-the-session-of-the-user"
CODE = "code-" + "7" * 30
CALLBACK = "https://app.example/callback"
ISSUER = "https://auth.example"
ASKED: dict[str, Any] = {
    "client_id": "app_1",
    "redirect_uri": CALLBACK,
    "scopes": ["skills:execute", "account:read"],
}


@pytest.fixture
def oauth() -> Iterator[OAuth]:
    with machpay.MachPay(base_url="https://gateway.example/prefix") as client:
        yield client.oauth


def query_of(request: machpay.AuthorizationRequest) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(request.url).query, strict_parsing=True))


async def test_a_user_is_sent_with_a_state_and_a_challenge_of_their_own(twin: Twin) -> None:
    client = twin.client(api_key=None)
    first, second = (client.oauth.authorization_url(**ASKED) for _ in range(2))
    assert first.url.startswith(f"{twin.url}/oauth/authorize?")
    query = query_of(first)
    digest = urlsafe_b64encode(sha256(first.code_verifier.encode()).digest()).rstrip(b"=").decode()
    assert query == {
        "response_type": "code",
        "client_id": "app_1",
        "redirect_uri": CALLBACK,
        "scope": "skills:execute account:read",
        "state": first.state,
        "code_challenge": digest,
        "code_challenge_method": "S256",
    }
    assert all(re.fullmatch(r"[\w-]{43}", each, re.ASCII) for each in (first.state, first.code_verifier))
    assert len({first.state, first.code_verifier, second.state, second.code_verifier}) == 4
    assert first.code_verifier not in first.url
    assert twin.script.requests == []


def test_a_state_and_a_resource_of_ones_own_are_sent(oauth: OAuth) -> None:
    request = oauth.authorization_url(**ASKED, state="a b&c=é", resource="https://api.example/v1")
    assert request.url.startswith("https://gateway.example/prefix/oauth/authorize?")
    assert (query_of(request)["state"], request.state) == ("a b&c=é", "a b&c=é")
    assert query_of(request)["resource"] == "https://api.example/v1"
    assert "scope=skills%3Aexecute%20account%3Aread" in request.url


def test_without_scopes_the_servers_own_choice_is_asked_for(oauth: OAuth) -> None:
    assert "scope" not in query_of(oauth.authorization_url(**{**ASKED, "scopes": []}))


def test_a_request_for_a_code_shows_nothing_that_is_to_be_kept(oauth: OAuth) -> None:
    request = oauth.authorization_url(**ASKED)
    assert request.state not in repr(request)
    assert request.code_verifier not in repr(request)
    assert "url='https://gateway.example/prefix/oauth/authorize?…'" in repr(request)


@pytest.mark.parametrize(
    "wrong, match",
    [
        ({"client_id": ""}, "client_id is empty"),
        ({"client_id": None}, "client_id is a NoneType"),
        ({"redirect_uri": "\ud800"}, "redirect_uri is not valid Unicode"),
        ({"scopes": "skills:execute"}, r"write scopes=\[…\]"),
        ({"scopes": ["a b"]}, "scopes holds 'a b', which is not a scope"),
        ({"state": ""}, "state is empty"),
        ({"resource": ""}, "resource is empty"),
    ],
)
def test_a_user_is_not_sent_with_what_cannot_be_meant(wrong: dict[str, Any], match: str, oauth: OAuth) -> None:
    with pytest.raises(machpay.InvalidArgumentError, match=match):
        oauth.authorization_url(**{**ASKED, **wrong})


GOOD = {"code": CODE, "state": STATE, "iss": ISSUER}


@pytest.mark.parametrize(
    "callback, issuer",
    [
        (f"{CALLBACK}?{urlencode(GOOD)}", None),
        (f"/callback?{urlencode(GOOD)}", ISSUER),
        (f"{CALLBACK}?{urlencode(GOOD)}#fragment", ISSUER),
        (GOOD, ISSUER),
        (parse_qs(urlencode(GOOD)), ISSUER),
        ({"code": CODE, "state": STATE}, None),
        ({**GOOD, "iss": "https://other.example"}, None),  # nobody said whom to expect
    ],
)
async def test_a_callback_brings_its_code_as_a_url_or_as_parameters(
    twin: Twin, callback: str | dict[str, str], issuer: str | None
) -> None:
    assert twin.client(api_key=None).oauth.check_callback(callback, state=STATE, issuer=issuer) == CODE


@pytest.mark.parametrize(
    "callback, error, why",
    [
        ({**GOOD, "state": STATE + "x"}, "state_mismatch", "another user's"),
        ({**GOOD, "state": STATE[:-1]}, "state_mismatch", "a part of it"),
        ({**GOOD, "state": ""}, "state_mismatch", "none"),
        ({"code": CODE}, "state_mismatch", "none"),
        (CALLBACK, "state_mismatch", "nothing at all"),
        ({"error": "access_denied"}, "state_mismatch", "not even an error is believed"),
        ({**GOOD, "state": "é\ud800"}, "state_mismatch", "no ASCII, no Unicode"),
        ({**GOOD, "state": 7}, "state_mismatch", "no text"),
        ({**GOOD, "iss": ISSUER + "/"}, "issuer_mismatch", "compared as strings"),
        ({**GOOD, "iss": ISSUER.upper()}, "issuer_mismatch", "compared as strings"),
        ({"code": CODE, "state": STATE}, "issuer_mismatch", "it does not say"),
        ({"error": "access_denied", "state": STATE}, "issuer_mismatch", "an error of another server"),
        ({"state": STATE, "iss": ISSUER}, "invalid_callback", "neither code nor error"),
        ({**GOOD, "code": ""}, "invalid_callback", "an empty code"),
        (f"{CALLBACK}?{urlencode(GOOD)}&code=x", "invalid_callback", "two codes"),
        (f"{CALLBACK}?state=x&{urlencode(GOOD)}", "invalid_callback", "two states"),
        (f"{CALLBACK}?{urlencode(GOOD)}&iss=x", "invalid_callback", "two issuers"),
        ({**GOOD, "state": [STATE, STATE]}, "invalid_callback", "two states"),
        ("https://[::1", "invalid_callback", "no URL"),
    ],
)
def test_a_callback_that_cannot_be_trusted_brings_no_code(callback: Any, error: str, why: str, oauth: OAuth) -> None:  # noqa: ANN401 - wrong ones
    with pytest.raises(machpay.OAuthError) as caught:
        oauth.check_callback(callback, state=STATE, issuer=ISSUER)
    assert caught.value.error == error, why
    assert (caught.value.status, caught.value.request_id, caught.value.response) == (None, None, None)
    assert CODE not in str(caught.value)
    assert STATE not in str(caught.value)


def test_an_error_in_a_callback_is_told_on_one_line(oauth: OAuth) -> None:
    parameters = {"error": "access_denied", "error_description": "The user\nsaid no", "state": STATE}
    with pytest.raises(machpay.OAuthError, match=r"^access_denied: The user said no\.$") as caught:
        oauth.check_callback(parameters, state=STATE)
    assert (caught.value.error, caught.value.error_description) == ("access_denied", "The user\nsaid no")
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)  # noqa: S301 - its own


def test_an_error_in_a_callback_repeats_neither_state_nor_code(oauth: OAuth) -> None:
    parameters = {"error": "server_error", "error_description": f"{STATE} {CODE} \ud800", "state": STATE, "code": CODE}
    with pytest.raises(machpay.OAuthError) as caught:
        oauth.check_callback(parameters, state=STATE)
    shown = f"{caught.value!r} {caught.value} {caught.value.error_description}"
    assert STATE not in shown
    assert CODE not in shown


@pytest.mark.parametrize("lost", [None, ""])
def test_a_session_that_has_lost_its_state_lets_no_callback_in(lost: Any, oauth: OAuth) -> None:  # noqa: ANN401 - wrong ones
    for callback in ({"code": CODE}, {"code": CODE, "state": ""}):
        with pytest.raises(machpay.InvalidArgumentError, match=r"^state is "):
            oauth.check_callback(callback, state=lost)


def test_a_callback_that_is_neither_is_refused(oauth: OAuth) -> None:
    with pytest.raises(machpay.InvalidArgumentError, match="not a bytes"):
        oauth.check_callback(b"?code=a", state=STATE)  # type: ignore[arg-type]  # what is refused


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), st.text(st.characters(exclude_categories=["Cs"])))
def test_whatever_the_state_is_it_comes_back_as_itself_only(state: str, other: str) -> None:
    def callback(parameters: str) -> str:
        return f"{CALLBACK}?code={CODE}&state={quote(parameters, safe='')}"

    assert parse_callback(callback(state), state=state, issuer=None) == CODE
    if other != state:
        with pytest.raises(machpay.OAuthError):
            parse_callback(callback(other), state=state, issuer=None)
