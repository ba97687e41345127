"""Static files: scripts and styles, at URLs that change with their content."""

from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

FOLDER = Path(__file__).with_name("static")


class Assets(StaticFiles):
    """The files in `static`, which browsers may cache forever."""

    def __init__(self) -> None:
        super().__init__(directory=FOLDER)

    async def serve(self, request: Request) -> Response:
        """Return the file named in the path. Raises HTTPException."""
        return await self.get_response(request.path_params["name"], request.scope)

    def file_response(self, *args: Any, **kwargs: Any) -> Response:  # noqa: ANN401 - Starlette's own signature
        """Return a file with its caching headers."""
        response = super().file_response(*args, **kwargs)
        response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response


@cache
def asset_path(name: str) -> str:
    """Return the path of the file *name* below the Console, with a version that changes with its content."""
    digest = sha256((FOLDER / name).read_bytes()).hexdigest()[:12]
    return f"/static/{name}?v={digest}"
