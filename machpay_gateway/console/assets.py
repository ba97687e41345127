"""What pages load beside themselves: scripts and styles, by addresses that change with their content."""

from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

FOLDER = Path(__file__).with_name("static")


class Assets(StaticFiles):
    """The files in `static`, which browsers may keep for ever."""

    def __init__(self) -> None:
        super().__init__(directory=FOLDER)

    async def answer(self, request: Request) -> Response:
        """Return the file that the path names. Raises HTTPException."""
        return await self.get_response(request.path_params["name"], request.scope)

    def file_response(self, *args: Any, **kwargs: Any) -> Response:  # noqa: ANN401 - as Starlette has it
        """Return a file with how long it may be kept."""
        response = super().file_response(*args, **kwargs)
        response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response


@cache
def asset_path(name: str) -> str:
    """Return the address of the file *name*, below that of the Console."""
    digest = sha256((FOLDER / name).read_bytes()).hexdigest()[:12]
    return f"/static/{name}?v={digest}"
