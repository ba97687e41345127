"""A small MachPay API on Starlette, with the scopes of the guide. `machpay-gateway demo` guards it.

It authenticates nobody itself. `ROUTES` lists what the gateway in front of it requires.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any, cast

from starlette.applications import Starlette
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route as Endpoint
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket

from machpay_gateway import Principal, Route

ROUTES = [
    Route("GET /healthz", public=True),
    Route("GET /v1/skills", scopes="skills:list"),
    Route("POST /v1/skills/execute", scopes="skills:execute"),
    Route("GET /v1/skills/stream", scopes="skills:list"),
    Route("GET /v1/skills/live", scopes="skills:execute"),  # a WebSocket: its handshake is a GET
    Route("GET /v1/account", scopes="account:read"),
    Route("PATCH /v1/account", scopes="account:write"),
    Route("GET /v1/webhooks", scopes="webhooks:manage"),
    Route("POST /v1/webhooks", scopes="webhooks:manage"),
]
SKILLS = [
    {"id": "text-summarizer", "name": "Summarize a text"},
    {"id": "sentiment", "name": "Detect the mood of a text"},
]
STREAM_PAUSE_SECONDS = 0.2


def caller(connection: HTTPConnection) -> dict[str, str]:
    """Return the caller, from the middleware or from the identity headers of the proxy."""
    if "machpay" in connection.scope:
        principal: Principal = connection.scope["machpay"]
        return {"id": principal.id, "name": principal.display_name, "environment": principal.environment}
    headers = connection.headers
    return {
        "id": headers.get("x-machpay-subject", ""),
        "environment": headers.get("x-machpay-environment", ""),
        "upstream": connection.app.state.name,
    }


async def json_object(request: Request) -> dict[str, Any]:
    """Return the JSON object in the request's body, or an empty one."""
    try:
        body: object = await request.json()
    except ValueError:  # neither JSON nor text
        return {}
    return cast("dict[str, Any]", body) if isinstance(body, dict) else {}


async def health(_: Request) -> Response:
    """Return that the API is healthy. This route is public."""
    return JSONResponse({"status": "ok"})


async def list_skills(request: Request) -> Response:
    """List the skills."""
    return JSONResponse({"data": SKILLS, "caller": caller(request)})


async def execute_skill(request: Request) -> Response:
    """Pretend to execute a skill."""
    skill_id = (await json_object(request)).get("skill_id")
    if skill_id not in [skill["id"] for skill in SKILLS]:
        return JSONResponse({"error": f"There is no skill {skill_id!r}; GET /v1/skills lists them."}, 422)
    return JSONResponse({"skill_id": skill_id, "output": "Done.", "caller": caller(request)})


async def stream_skills(request: Request) -> Response:
    """Send the skills one by one, as server-sent events."""

    async def events() -> AsyncIterator[str]:
        for skill in SKILLS:
            yield f"event: skill\ndata: {json.dumps(skill)}\n\n"
            await asyncio.sleep(STREAM_PAUSE_SECONDS)
        yield f"event: end\ndata: {json.dumps({'caller': caller(request)})}\n\n"

    return StreamingResponse(events(), media_type="text/event-stream", headers={"Cache-Control": "no-store"})


async def live(websocket: WebSocket) -> None:
    """Send back every text, with the caller's name."""
    await websocket.accept()
    async for text in websocket.iter_text():
        who = caller(websocket)
        await websocket.send_text(f"{who.get('name') or who['id']}: {text}")


async def account(request: Request) -> Response:
    """Return the account, with the changes of the request."""
    changes = await json_object(request) if request.method == "PATCH" else {}
    return JSONResponse({"currency": "USD", "balance": 4200, **changes, "caller": caller(request)})


async def webhooks(request: Request) -> Response:
    """List webhooks, or create one."""
    if request.method == "POST":
        return JSONResponse({"url": (await json_object(request)).get("url"), "caller": caller(request)}, 201)
    return JSONResponse({"data": [], "caller": caller(request)})


def create_app(name: str) -> Starlette:
    """Return the API. *name* identifies this upstream in responses."""
    sample = Starlette(
        routes=[
            Endpoint("/healthz", health),
            Endpoint("/v1/skills", list_skills),
            Endpoint("/v1/skills/execute", execute_skill, methods=["POST"]),
            Endpoint("/v1/skills/stream", stream_skills),
            WebSocketRoute("/v1/skills/live", live),
            Endpoint("/v1/account", account, methods=["GET", "PATCH"]),
            Endpoint("/v1/webhooks", webhooks, methods=["GET", "POST"]),
        ]
    )
    sample.state.name = name
    return sample


app = create_app("alone")
