"""A Starlette application behind MachPay. Run it: `uvicorn starlette_app:app`, after `machpay-gateway init`."""

from starlette.applications import Starlette
from starlette.authentication import requires
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from machpay_gateway import MachPayAuth


@requires("skills:execute")
async def execute(request: Request) -> JSONResponse:
    """Execute a skill for the caller."""
    return JSONResponse({"hello": request.user.display_name})


app = Starlette(routes=[Route("/v1/skills/execute", execute, methods=["POST"])])
app.add_middleware(MachPayAuth)
