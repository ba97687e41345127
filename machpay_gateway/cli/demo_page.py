"""The demo's page for browsers, in front of the sample API: its address is the first that people open."""

from html import escape

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from machpay_gateway.core.brand import MACHPAY
from machpay_gateway.core.decision.decision import Denied
from machpay_gateway.core.decision.problem import problem_for
from machpay_gateway.core.decision.reason import Reason
from machpay_gateway.core.decision.route import Route
from machpay_gateway.web.problems import problem_response

ROUTE = Route("GET /", public=True)
_PAGE = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>MachPay Gateway demo</title>
<style>
:root {{ color-scheme: light dark; font: 1rem/1.5 system-ui, sans-serif }}
body {{ max-width: 44rem; margin: 3rem auto; padding: 0 1rem }}
pre {{ padding: .75rem 1rem; overflow-x: auto; border: 1px solid #8886; border-radius: .5rem }}
</style>
<h1>MachPay Gateway demo</h1>
<p>This address serves a sample API. The gateway guards it: each call needs an API key.</p>
<p><a href="{console}">Open the Console</a> to create, watch and revoke keys. The terminal that runs the demo shows the
email and the password.</p>
<h2>Call the API</h2>
<p>The terminal shows three keys. Without a key, the gateway refuses a call:</p>
<pre>curl -i {url}/v1/skills</pre>
<p>With one, it passes:</p>
<pre>curl -i {url}/v1/skills -H "Authorization: Bearer $KEY"</pre>
<p>The demo ends with Ctrl-C, and keeps nothing.</p>
</html>
"""


class DemoPage:
    """Serves the page at `/` to browsers, and all else by *app*. *url* is the API's, *console* the Console's."""

    def __init__(self, app: ASGIApp, *, url: str, console: str) -> None:
        self.app = app
        self._page = _PAGE.format(url=escape(url), console=escape(console))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection of any ASGI type."""
        if scope["type"] != "http" or scope["path"] != "/":
            await self.app(scope, receive, send)
            return
        await self._response(Request(scope))(scope, receive, send)

    def _response(self, request: Request) -> Response:
        if "text/html" in request.headers.get("accept", ""):
            return HTMLResponse(self._page, headers={"Cache-Control": "no-store"})
        # Programs get what the gateway says of a path that is not listed.
        request_id = request.headers.get("x-request-id", "").encode()
        problem = problem_for(Denied(Reason.ROUTE_NOT_FOUND), request_id, MACHPAY)
        headers, body = problem_response(problem, [])
        response = Response(body, problem.status)
        response.raw_headers = headers
        return response
