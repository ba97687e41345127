"""A page renews its token: the client, its tokens and the gateway are real; the page may be of another origin."""

from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx2
import pytest
from playwright.sync_api import Page, Route

from machpay_gateway.core.oauth.pkce import challenge_of
from tests.chromium import BrowserErrors
from tests.oauth.harness import SCOPES, VERIFIER
from tests.oauth.interop.served import App, Browser, Served
from tests.sdk.typescript import HINDRANCE, Built, built

__all__ = ["built"]

pytestmark = [pytest.mark.skipif(bool(HINDRANCE), reason=HINDRANCE), pytest.mark.timeout(300)]

RENEWAL = """async ({ accessToken, refreshToken, clientId, baseUrl }) => {
    const { DPoPKey, MachPay } = await import("/sdk/index.js");
    const stored = [];
    const onTokens = (tokens) => stored.push({ accessToken: tokens.accessToken, refreshToken: tokens.refreshToken });
    const user = new MachPay({ accessToken, refreshToken, clientId, baseUrl, onTokens });
    const calls = await Promise.all([user.whoami(), user.whoami(), user.whoami()]);
    const loadTokens = () => stored.at(-1) ?? null;
    const other = new MachPay({ accessToken, refreshToken, clientId, baseUrl, onTokens, loadTokens });
    const shared = await other.whoami();
    const refused = await new MachPay({ accessToken, baseUrl }).whoami().catch((error) => error.name);
    const controller = new AbortController();
    const aborted = user.get("/v1/whoami", { signal: controller.signal }).catch((error) => error.name);
    controller.abort();
    let secret = "";
    try { new MachPay({ apiKey: "sk_live_x" }); } catch (error) { secret = error.name; }
    const proof = await (await DPoPKey.generate()).thumbprint;
    const ids = [...calls, shared].map(({ id }) => id);
    return { ids, stored: stored.length, refused, aborted: await aborted, secret, proof: proof.length };
}"""


def tokens_of(site: Served, app: App) -> dict[str, Any]:
    """Return the tokens that a user allowed a page to have."""
    parameters = {
        "client_id": app.id, "redirect_uri": app.redirect_uri, "response_type": "code", "scope": " ".join(SCOPES),
        "state": "s", "code_challenge": challenge_of(VERIFIER), "code_challenge_method": "S256",
    }  # fmt: skip
    user = Browser(site.issuer)
    callback = user.allowed(f"{site.issuer}/oauth/authorize?{urlencode(parameters)}")
    user.close()
    form = {
        "grant_type": "authorization_code", "code": parse_qs(urlsplit(callback).query)["code"][0],
        "redirect_uri": app.redirect_uri, "client_id": app.id, "code_verifier": VERIFIER,
    }  # fmt: skip
    tokens: dict[str, Any] = httpx2.post(f"{site.issuer}/oauth/token", data=form).json()
    return tokens


@pytest.mark.parametrize("has_other_origin", [False, True])
def test_a_page_renews_its_token(
    site: Served, page: Page, built: Built, browser_errors: BrowserErrors, *, has_other_origin: bool
) -> None:
    def serve(route: Route) -> None:
        path = urlsplit(route.request.url).path.removeprefix("/sdk/")
        route.fulfill(path=built.root / "dist" / path, content_type="text/javascript")

    browser_errors.expect("401")  # which the client answers with a renewal
    app = site.oauth_clients.native
    tokens = tokens_of(site, app)
    page.route("**/sdk/**", serve)
    page.route("**/page", lambda route: route.fulfill(body="<!doctype html>", content_type="text/html"))
    # Chromium lets no page that Playwright makes up call this host, so the other one is a real response.
    page.goto(f"{site.issuer}/.well-known/oauth-authorization-server" if has_other_origin else f"{site.api_url}/page")
    held = {"accessToken": tokens["access_token"][:-8] + "AAAAAAAA", "refreshToken": tokens["refresh_token"]}
    result = page.evaluate(RENEWAL, {**held, "clientId": app.id, "baseUrl": site.api_url})
    assert len(set(result.pop("ids"))) == 1
    assert result == {
        "stored": 1,
        "refused": "AuthenticationError",
        "aborted": "APIUserAbortError",
        "secret": "ConfigurationError",
        "proof": 43,
    }
