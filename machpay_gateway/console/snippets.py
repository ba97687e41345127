"""The guide's snippets, with an account's own values in them and no secret: `sk_…` stands where one goes.

What people have named is written as JSON, which Python and TypeScript read as their own.
"""

from collections.abc import Collection
from typing import NamedTuple

import orjson

from machpay_gateway.core.keys.key import KeyRecord
from machpay_gateway.core.keys.validation import MAX_NAME
from machpay_gateway.core.oauth.client import OAuthClient

_KEY_NAME, _KEY_SCOPES = "production-api", ("skills:execute", "account:read")
_SUCCESSOR = "-v2"
_WHO_IN_TYPESCRIPT = "const me = await client.whoami();\nconsole.log(me.name);"
_SKILL = '{"skill_id": "text-summarizer", "input": {"text": "…"}}'


class Snippet(NamedTuple):
    """Some *text* to copy, by the *name* that its page knows it by, under a *title*."""

    name: str
    title: str
    text: str


def environment_lines(url: str, secret: str) -> Snippet:
    """Return the lines that the clients pick up."""
    return Snippet("env", ".env", f"MACHPAY_API_KEY={secret}\nMACHPAY_BASE_URL={url}")


def calls(url: str, secret: str, *, has_skills: bool) -> list[Snippet]:
    """Return first calls to the API at *url*: by what is in the environment, by the *secret*, and without a client."""
    python = "from machpay import MachPay\n\nclient = MachPay()\nprint(client.whoami().name)"
    explicit = f'from machpay import MachPay\n\nclient = MachPay(\n    api_key="{secret}",\n    base_url="{url}",\n)'
    typescript = "import { MachPay } from '@machpay/sdk';\n\n"
    in_words = f"const client = new MachPay({{\n  apiKey: '{secret}',\n  baseUrl: '{url}',\n}});"
    found = [
        Snippet("python", "Python", python),
        Snippet("python-explicit", "Python, with the key in it", f"{explicit}\nprint(client.whoami().name)"),
        Snippet("typescript", "TypeScript", f"{typescript}const client = new MachPay();\n{_WHO_IN_TYPESCRIPT}"),
        Snippet(
            "typescript-explicit", "TypeScript, with the key in it", f"{typescript}{in_words}\n{_WHO_IN_TYPESCRIPT}"
        ),
        Snippet("curl", "curl", f'curl {url}/v1/whoami \\\n  -H "Authorization: Bearer {secret}"'),
    ]
    if has_skills:
        found.append(Snippet("curl-skill", "curl, executing a skill", _curl_skill(url, secret)))
    return found


def rotation(key: KeyRecord | None) -> Snippet:
    """Return how a program replaces *key*, or one that there may be, by another with the same permissions."""
    name = _KEY_NAME if key is None else key.name[: MAX_NAME - len(_SUCCESSOR)]
    settings = [f"name={_literal(name + _SUCCESSOR)}", f"scopes={_list(_KEY_SCOPES if key is None else [*key.scopes])}"]
    if key is not None:
        settings.append(f"environment={_literal(key.environment)}")
        settings += [f"allowed_ips={_list(key.allowed_ips)}"] if key.allowed_ips else []
    given = "".join(f"    {each},\n" for each in settings)
    old = "key_…" if key is None else key.id
    return Snippet(
        "rotation",
        "Rotation, in Python",
        f"""import os

from machpay import MachPay

admin = MachPay(api_key=os.environ["MACHPAY_ADMIN_KEY"])

# Create new key
new_key = admin.keys.create(
{given})

# Store new_key.secret securely (only shown once)
print(f"New key created: {{new_key.id}}")

# After deploying new key, revoke old one
admin.keys.revoke("{old}")""",
    )


def oauth_steps(app: OAuthClient, url: str, issuer: str) -> list[Snippet]:
    """Return how *app* asks a user, by the server that is *issuer*, and calls the API at *url* for them."""
    secret = "" if app.is_public else "MACHPAY_CLIENT_SECRET=cs_…\n"
    own = 'client_id=os.environ["MACHPAY_CLIENT_ID"]'
    if not app.is_public:
        own += ',\n    client_secret=os.environ["MACHPAY_CLIENT_SECRET"]'
    redirect = f"redirect_uri={_literal(app.redirect_uris[0])}"
    env = f"MACHPAY_CLIENT_ID={app.id}\n{secret}MACHPAY_AUTH_URL={issuer}\nMACHPAY_BASE_URL={url}"
    ask = f"""import os

from machpay import MachPay

machpay = MachPay()
request = machpay.oauth.authorization_url(
    client_id=os.environ["MACHPAY_CLIENT_ID"],
    {redirect},
    scopes={_list([*app.scopes])},
)
# Keep request.state and request.code_verifier in the user's session, and send the user to this:
print(request.url)"""
    exchange = f"""# callback_url is the address that the user came back to.
code = machpay.oauth.check_callback(callback_url, state=request.state, issuer={_literal(issuer)})
tokens = machpay.oauth.exchange_code(
    code=code,
    {redirect},
    {own},
    code_verifier=request.code_verifier,
)"""
    use = """client = MachPay(access_token=tokens.access_token)
print(client.whoami().scopes)"""
    refresh = f"""tokens = machpay.oauth.refresh_token(
    refresh_token=tokens.refresh_token,
    {own},
)"""
    steps = [
        Snippet("oauth-env", ".env of the app", env),
        Snippet("oauth-ask", "Step 1: send the user to MachPay", ask),
        Snippet("oauth-exchange", "Step 2: when they come back", exchange),
        Snippet("oauth-use", "Step 3: call for them", use),
    ]
    if "refresh_token" in app.grant_types:
        steps.append(Snippet("oauth-refresh", "Refreshing tokens", refresh))
    return steps


def _curl_skill(url: str, secret: str) -> str:
    return (
        f'curl {url}/v1/skills/execute \\\n  -H "Authorization: Bearer {secret}" \\\n'
        f"  -H \"Content-Type: application/json\" \\\n  -d '{_SKILL}'"
    )


def _literal(text: str) -> str:
    return orjson.dumps(text).decode()


def _list(texts: Collection[str]) -> str:
    return f"[{', '.join(map(_literal, texts))}]"
