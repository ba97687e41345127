"""Where requests go: the upstream of each environment, and the control plane for what is its own."""

import asyncio
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from machpay_gateway.core.decision.principal import Anonymous, Principal
from machpay_gateway.core.network.upstream import Origin, Upstream
from machpay_gateway.proxy.fields import answer_fields, control_plane_fields
from machpay_gateway.proxy.pool import Pool, Server
from machpay_gateway.proxy.readers import AnswerReader
from machpay_gateway.proxy.upstream import UpstreamConnection
from machpay_gateway.web.path import branch_of

CONTROL_PLANE = "control plane"


class ControlPlane(NamedTuple):
    """Where what is not decided here is served: all below *branches*, `/v1/keys` among them.

    What is below *questions* is asked by other proxies and goes there as it came, their headers about clients with it.
    """

    branches: tuple[str, ...]
    questions: str
    socket: Path


class Upstreams:
    """A pool for each place where requests may go."""

    def __init__(self, upstreams: Mapping[str, Upstream], control_plane: ControlPlane | None) -> None:
        """Make `pools`: one of each of *upstreams*, by `live` and `sandbox`, and one of the *control_plane*."""
        self._loop = asyncio.get_running_loop()
        self._answers = AnswerReader(answer_fields())
        self._branches = () if control_plane is None else control_plane.branches
        self._questions = None if control_plane is None else control_plane.questions
        self._own = None if control_plane is None else Pool([self._private(control_plane.socket)])
        pools = {name: Pool(map(self._server, upstream.origins)) for name, upstream in upstreams.items()}
        self.pools = pools if self._own is None else {**pools, CONTROL_PLANE: self._own}
        # What is public belongs to neither environment, and goes to the live one if there is one.
        named = {"live": pools.get("live"), "test": pools.get("sandbox")}
        named["public"] = named["live"] or named["test"]
        self._pool_of = {name: pool for name, pool in named.items() if pool is not None}

    def own_pool(self, path: str | None) -> Pool | None:
        """Return where the control plane is, if *path* is below its branches."""
        if self.is_question(path):
            return self._own
        if path is None or not path.startswith(self._branches):
            return None
        return self._own if branch_of(path, self._branches) is not None else None

    def is_question(self, path: str | None) -> bool:
        """Tell whether another proxy asks something at *path*."""
        return path is not None and self._questions is not None and path.startswith(self._questions)

    def pool_for(self, principal: Principal | Anonymous) -> Pool:
        """Return the upstream of *principal*'s environment."""
        return self._pool_of[principal.environment if isinstance(principal, Principal) else "public"]

    def close_idle(self, quiet_since: float) -> None:
        """Close the connections that have not been used since."""
        for pool in self.pools.values():
            pool.close_idle(quiet_since)

    def _server(self, origin: Origin) -> Server:
        context = ssl.create_default_context() if origin.scheme == "https" else None
        name = origin.host if context else None
        return Server(
            str(origin),
            lambda: self._loop.create_connection(
                self._connection, origin.host, origin.port, ssl=context, server_hostname=name
            ),
        )

    def _private(self, socket: Path) -> Server:
        answers = AnswerReader(control_plane_fields())
        return Server(
            CONTROL_PLANE,
            lambda: self._loop.create_unix_connection(lambda: UpstreamConnection(answers), str(socket)),
        )

    def _connection(self) -> UpstreamConnection:
        return UpstreamConnection(self._answers)
