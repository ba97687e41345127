"""A FastAPI application behind MachPay: its OpenAPI shows which scopes an operation needs."""

from typing import Annotated

from fastapi import FastAPI, Security

from machpay_gateway import MachPayAuth, Principal, Route
from machpay_gateway.fastapi import current_principal

app = FastAPI(title="Skills")
app.add_middleware(
    MachPayAuth,
    unlisted_routes="authenticated",  # each operation declares its own scopes
    routes=[Route("GET /docs", public=True), Route("GET /openapi.json", public=True)],
)


@app.post("/v1/skills/execute")
async def execute(
    principal: Annotated[Principal, Security(current_principal, scopes=["skills:execute"])],
) -> dict[str, str]:
    """Execute a skill for the caller."""
    return {"hello": principal.display_name, "tier": principal.tier}
