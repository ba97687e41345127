"""A page for each problem, at the URL that its `type` names (RFC 9457 §3.1.1): what happened, and what to check."""

from base64 import b64encode
from hashlib import sha256
from html import escape
from http import HTTPStatus
from string import Template

import orjson
from starlette.types import ASGIApp, Receive, Scope, Send

from machpay_gateway.core.api_problems import API_PROBLEMS
from machpay_gateway.core.brand import Brand
from machpay_gateway.core.decision.problem import PROBLEMS, problem_body
from machpay_gateway.core.decision.route import Route
from machpay_gateway.web.request_facts import facts_of

PROBLEM_ROUTE = Route("GET /problems/{code}", public=True)  # stands for all pages, also where their base is another
_CODES = tuple(dict.fromkeys([*map(str, PROBLEMS), *API_PROBLEMS]))
_EXAMPLE_ID = b"5237114ac233e7f400000000"
_MAX_AGE_SECONDS = 3600
_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8882 }
body { font: 16px/1.55 system-ui, sans-serif; max-width: 44rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem }
h1 { font-size: 1.7rem; line-height: 1.25; margin: .3rem 0 1rem } h2 { font-size: 1.05rem; margin: 2rem 0 .4rem }
p { margin: .4rem 0 } .brand { font-weight: 650 } .status { color: #b3261e }
@media (prefers-color-scheme: dark) { .status { color: #ff8a80 } }
code, pre { font: .875rem/1.6 ui-monospace, monospace; background: var(--soft); border-radius: .3rem }
code { padding: .1rem .3rem } pre { padding: .9rem 1rem; overflow-x: auto; border: 1px solid var(--line) }
"""
_PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title · $brand</title>
<style>$style</style>
</head>
<body>
<main>
<p class="brand">$brand</p>
<h1>$title</h1>
<p><span class="status">$status $phrase</span> · <code>$code</code></p>
<h2>What happened</h2>
<p>$detail</p>
<h2>What to check</h2>
<p>$advice</p>
<h2>Example</h2>
<pre>$example</pre>
<p>The response also has the header <code>X-Request-Id</code>. Quote it when you ask for help.</p>
</main>
</body>
</html>
""")


def problem_paths(brand: Brand) -> frozenset[str]:
    """Return the paths of the pages; none where *brand* has them at a URL elsewhere."""
    return frozenset(map(brand.problem_type, _CODES)) if brand.serves_problems else frozenset()


def problem_pages(brand: Brand) -> ASGIApp:
    """Return the application that serves the page at each of `problem_paths`."""
    digest = b64encode(sha256(_STYLE.encode()).digest()).decode()
    headers = [
        (b"content-type", b"text/html; charset=utf-8"),
        (b"cache-control", b"public, max-age=%d" % _MAX_AGE_SECONDS),
        (
            b"content-security-policy",
            f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'; "
            "frame-ancestors 'none'".encode(),
        ),
        (b"x-content-type-options", b"nosniff"),
    ]

    async def serve(scope: Scope, _receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close"})
            return
        body = _page((facts_of(scope).path or "").removeprefix(brand.problem_base), brand)
        fields = [*headers, (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": int(HTTPStatus.OK), "headers": fields})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    return serve


def _page(code: str, brand: Brand) -> bytes:
    status, title, detail, advice = _texts(code)
    example = problem_body(code, status, title, detail, _EXAMPLE_ID, brand)
    values = {
        "brand": brand.name,
        "title": title,
        "status": str(status),
        "phrase": HTTPStatus(status).phrase,
        "code": code,
        "detail": detail,
        "advice": advice,
        "example": orjson.dumps(example, option=orjson.OPT_INDENT_2).decode(),
    }
    escaped = {name: escape(value) for name, value in values.items()}
    return _PAGE.substitute(escaped, style=_STYLE).encode()


def _texts(code: str) -> tuple[int, str, str, str]:
    """Return the status, the title, what happened and what to check."""
    for reason, row in PROBLEMS.items():
        if reason == code:
            return row.status, row.title, row.detail, row.advice
    problem = API_PROBLEMS[code]
    return problem.status, problem.title, f"The key API refused a request: {problem.title.lower()}.", problem.advice
