"""A sample upstream that returns the identity headers it gets. Run it: `uvicorn upstream:app --port 9000`."""

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]


async def show_caller(request: Request) -> JSONResponse:
    """Return the request's identity headers, which only the proxy in front can have set."""
    caller = {name: value for name, value in request.headers.items() if name.startswith("x-machpay-")}
    return JSONResponse({"path": request.url.path, "caller": caller})


app = Starlette(routes=[Route("/{path:path}", show_caller, methods=METHODS)])
