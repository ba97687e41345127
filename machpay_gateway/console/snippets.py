"""The guide's snippets with an account's own values, and with placeholders such as `sk_live_…` instead of secrets.

Names and scopes are written as JSON strings, which are literals in Python and TypeScript too.
"""

from collections.abc import Collection
from typing import NamedTuple

import orjson

from machpay_gateway.core.keys.key import KeyRecord
from machpay_gateway.core.keys.validation import MAX_NAME
from machpay_gateway.core.oauth.client import OAuthClient

_KEY_NAME, _KEY_SCOPES = "production-api", ("skills:execute", "account:read")
_SUCCESSOR = "-v2"
_TYPESCRIPT_CALL = "const me = await client.whoami();\nconsole.log(me.name);"
_SKILL = '{"skill_id": "text-summarizer", "input": {"text": "…"}}'


class Snippet(NamedTuple):
    """A *text* to copy, below its *title*. *name* is the id of its element on the page."""

    name: str
    title: str
    text: str


def dotenv(url: str, secret: str) -> Snippet:
    """Return the environment variables that the client libraries read."""
    return Snippet("env", ".env", f"MACHPAY_API_KEY={secret}\nMACHPAY_BASE_URL={url}")


def first_calls(url: str, secret: str, *, has_skills: bool) -> list[Snippet]:
    """Return first calls to the API at *url*: configured by the environment, in code, and with curl."""
    python = "from machpay import MachPay\n\nclient = MachPay()\nprint(client.whoami().name)"
    explicit = f'from machpay import MachPay\n\nclient = MachPay(\n    api_key="{secret}",\n    base_url="{url}",\n)'
    typescript = "import { MachPay } from '@machpay/sdk';\n\n"
    configured = f"const client = new MachPay({{\n  apiKey: '{secret}',\n  baseUrl: '{url}',\n}});"
    snippets = [
        Snippet("python", "Python", python),
        Snippet("python-explicit", "Python, with the key in code", f"{explicit}\nprint(client.whoami().name)"),
        Snippet("typescript", "TypeScript", f"{typescript}const client = new MachPay();\n{_TYPESCRIPT_CALL}"),
        Snippet(
            "typescript-explicit", "TypeScript, with the key in code", f"{typescript}{configured}\n{_TYPESCRIPT_CALL}"
        ),
        Snippet("curl", "curl", f'curl {url}/v1/whoami \\\n  -H "Authorization: Bearer {secret}"'),
    ]
    if has_skills:
        snippets.append(Snippet("curl-skill", "curl: execute a skill", _curl_skill(url, secret)))
    return snippets


def rotation(key: KeyRecord | None) -> Snippet:
    """Return a program that replaces *key*, or an example key, with a new key that has the same scopes."""
    name = _KEY_NAME if key is None else key.name[: MAX_NAME - len(_SUCCESSOR)]
    settings = [f"name={_literal(name + _SUCCESSOR)}", f"scopes={_list(_KEY_SCOPES if key is None else [*key.scopes])}"]
    if key is not None:
        settings.append(f"environment={_literal(key.environment)}")
        settings += [f"allowed_ips={_list(key.allowed_ips)}"] if key.allowed_ips else []
    arguments = "".join(f"    {each},\n" for each in settings)
    old = "key_…" if key is None else key.id
    return Snippet(
        "rotation",
        "Python",
        f"""import os

from machpay import MachPay

admin = MachPay(api_key=os.environ["MACHPAY_ADMIN_KEY"])

# Create new key
new_key = admin.keys.create(
{arguments})

# Store new_key.secret securely (only shown once)
print(f"New key created: {{new_key.id}}")

# After deploying new key, revoke old one
admin.keys.revoke("{old}")""",
    )


def oauth_steps(client: OAuthClient, url: str, issuer: str) -> list[Snippet]:
    """Return how a client gets a user's consent from the server *issuer*, and calls the API at *url* for that user."""
    secret = "" if client.is_public else "MACHPAY_CLIENT_SECRET=cs_…\n"
    credentials = 'client_id=os.environ["MACHPAY_CLIENT_ID"]'
    if not client.is_public:
        credentials += ',\n    client_secret=os.environ["MACHPAY_CLIENT_SECRET"]'
    redirect = f"redirect_uri={_literal(client.redirect_uris[0])}"
    env = f"MACHPAY_CLIENT_ID={client.id}\n{secret}MACHPAY_AUTH_URL={issuer}\nMACHPAY_BASE_URL={url}"
    ask = f"""import os

from machpay import MachPay

machpay = MachPay()
request = machpay.oauth.authorization_url(
    client_id=os.environ["MACHPAY_CLIENT_ID"],
    {redirect},
    scopes={_list([*client.scopes])},
)
# Store request.state and request.code_verifier in the user's session, and redirect the user to:
print(request.url)"""
    exchange = f"""# callback_url is the URL that the user was redirected back to.
code = machpay.oauth.check_callback(callback_url, state=request.state, issuer={_literal(issuer)})
tokens = machpay.oauth.exchange_code(
    code=code,
    {redirect},
    {credentials},
    code_verifier=request.code_verifier,
)"""
    use = """client = MachPay(access_token=tokens.access_token)
print(client.whoami().scopes)"""
    refresh = f"""tokens = machpay.oauth.refresh_token(
    refresh_token=tokens.refresh_token,
    {credentials},
)"""
    steps = [
        Snippet("oauth-env", "The app’s .env", env),
        Snippet("oauth-ask", "Step 1: redirect the user to MachPay", ask),
        Snippet("oauth-exchange", "Step 2: exchange the code for tokens", exchange),
        Snippet("oauth-use", "Step 3: call the API for the user", use),
    ]
    if "refresh_token" in client.grant_types:
        steps.append(Snippet("oauth-refresh", "Refresh the tokens", refresh))
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
