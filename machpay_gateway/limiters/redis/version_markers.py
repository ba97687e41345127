"""Version markers: which records have changed, written to the servers as soon as possible and until they have them.

Until then a change holds in this worker, and in the others within the second for which they trust a cached record.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby, islice

from machpay_gateway.core.limits.admission import AdmissionRequest
from machpay_gateway.limiters.redis.connection import FAILURES, REPLY_TIMEOUT_SECONDS, PipelinedConnection, set_result
from machpay_gateway.limiters.redis.scripts import Script, run_script

MARKER_SECONDS = 660  # longer than any worker caches a record without a check of its version; as in admit.lua
_RETRY_SECONDS = 0.1
_IN_CALL = 500  # markers: about 1 ms of the server's time
_CALLS = 20  # at once, in a Cluster, where each is about the keys of one slot
_FINAL = 1

_Marker = tuple[bytes, int]  # its key, and a version
ConnectionFor = Callable[[bytes], PipelinedConnection | None]  # for a key; None while its server is away


class VersionMarkers:
    """The versions that are not written yet, by subject."""

    def __init__(self) -> None:
        self.pending: dict[str, _Marker] = {}
        self._written: dict[str, list[asyncio.Future[None]]] = {}  # what waits, by subject
        self._due: asyncio.Event | None = None  # of the event loop in which they are written

    def add(self, subject: str, key: bytes, version: int) -> None:
        """Write that *subject*, whose key on the servers is *key*, is at *version*."""
        _, pending = self.pending.get(subject, (key, version))
        self.pending[subject] = key, max(pending, version)
        self.write_soon()

    def write_soon(self) -> None:
        """Try to write what is pending: there is more, or a server is back."""
        if self._due is not None:
            self._due.set()

    async def wait_written(self, subjects: Iterable[str]) -> None:
        """Wait until the versions of *subjects* are written, but no longer than a reply may take."""
        written: list[asyncio.Future[None]] = []
        for subject in subjects:
            if subject in self.pending:
                written.append(asyncio.get_running_loop().create_future())
                self._written.setdefault(subject, []).append(written[-1])
        if written:
            await asyncio.wait(written, timeout=REPLY_TIMEOUT_SECONDS)

    def are_newer(self, request: AdmissionRequest) -> bool:
        """Return whether a pending version is newer than those of *request*."""
        if request.version < self._version(request.subject):
            return True
        return 0 < request.group_version < self._version(request.group)

    async def lower(self, markers: Mapping[str, _Marker], connection_for: ConnectionFor, script: Script) -> None:
        """Write *markers*, by subject, although newer versions may be stored or pending."""
        for subject, marker in markers.items():
            self.pending.pop(subject, None)
            if (connection := connection_for(marker[0])) is not None:
                _ = await _write(connection, script, [marker], _FINAL)

    async def run(self, connection_for: ConnectionFor, script: Script) -> None:
        """Write pending versions forever, each over the connection for its key, if there is one."""
        self._due, self._written = asyncio.Event(), {}
        self._due.set()
        while True:
            await self._due.wait()
            self._due.clear()
            await self._write_pending(connection_for, script)
            if self.pending:
                asyncio.get_running_loop().call_later(_RETRY_SECONDS, self._due.set)

    async def _write_pending(self, connection_for: ConnectionFor, script: Script) -> None:
        """Write to all servers at once: one that fails delays none of the others."""
        by_connection: dict[PipelinedConnection, dict[str, _Marker]] = {}
        for subject, marker in self.pending.items():
            if (connection := connection_for(marker[0])) is not None:
                by_connection.setdefault(connection, {})[subject] = marker
        await asyncio.gather(*(self._write_to(it, script, some) for it, some in by_connection.items()))

    async def _write_to(self, connection: PipelinedConnection, script: Script, markers: Mapping[str, _Marker]) -> None:
        if not await _write(connection, script, list(markers.values())):
            return
        for subject, marker in markers.items():
            if self.pending.get(subject) == marker:
                del self.pending[subject]
                for future in self._written.pop(subject, ()):
                    set_result(future, None)

    def _version(self, subject: str) -> int:
        return self.pending[subject][1] if subject in self.pending else 0


async def _write(
    connection: PipelinedConnection, script: Script, markers: Sequence[_Marker], is_final: int = 0
) -> bool:
    """Write *markers*. Return False, and give *connection* up, when the server fails."""
    calls = iter(_calls(markers, is_cluster=connection.is_cluster))
    try:
        while some := list(islice(calls, _CALLS)):
            await asyncio.gather(
                *(
                    run_script(
                        connection,
                        script,
                        [key for key, _ in call],
                        [MARKER_SECONDS, is_final, *(version for _, version in call)],
                    )
                    for call in some
                )
            )
    except FAILURES as exc:
        connection.fail(exc)
        return False
    return True


def _calls(markers: Sequence[_Marker], *, is_cluster: bool) -> Iterator[Sequence[_Marker]]:
    """Yield the markers of each call: in a Cluster, those of one slot."""
    by_slot = [list(group) for _, group in groupby(markers, key=_slot)] if is_cluster else [markers]
    for group in by_slot:
        for start in range(0, len(group), _IN_CALL):
            yield group[start : start + _IN_CALL]


def _slot(marker: _Marker) -> bytes:
    return marker[0].partition(b"}")[0]
