"""A sample upstream: it answers with what it was told of who is calling. Run it: `uvicorn upstream:app --port 9000`."""

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]


async def tell(request: Request) -> JSONResponse:
    """Return the request's identity headers: only the proxy in front of us can have set them."""
    caller = {name: value for name, value in request.headers.items() if name.startswith("x-machpay-")}
    return JSONResponse({"path": request.url.path, "caller": caller})


app = Starlette(routes=[Route("/{path:path}", tell, methods=METHODS)])
