"""Records that a restored backup has set back: the limiter has a newer version than the database.

A fresh read that stays behind the limiter's version marker is no race any more after a few seconds in which the record
does not change: then the database is right, and the marker is from a history that was undone.
"""

from collections import OrderedDict
from collections.abc import Callable

from machpay_gateway.core.limits.admission import AdmissionRequest

_CERTAIN_SECONDS = 3.0  # longer than any worker takes to notice that the log of changes has another history
_FORGET_SECONDS = 60.0
_MOST = 10_000  # records

_Behind = tuple[float, int, int]  # since when, and at which versions of the record and of its group


class RestoredRecords:
    """Since when fresh reads of records have been behind their markers. `count` is how many were set back. Mutable."""

    def __init__(self, report: Callable[[int], None], *, clock: Callable[[], float]) -> None:
        """Call *report* with the count when it rises. *clock* is in monotonic seconds."""
        self._report = report
        self._clock = clock
        self._behind: OrderedDict[str, _Behind] = OrderedDict()
        self.count = 0

    def is_certain(self, request: AdmissionRequest) -> bool:
        """Note that the fresh record of *request* is behind its marker. Return whether the record is right."""
        now, versions = self._clock(), (request.version, request.group_version)
        since, *before = self._behind.get(request.subject, (now, *versions))
        if tuple(before) != versions or now - since > _FORGET_SECONDS:  # it is changing, or that was another time
            since = now
        self._behind[request.subject] = since, *versions
        if len(self._behind) > _MOST:
            self._behind.popitem(last=False)
        return now - since >= _CERTAIN_SECONDS

    def accept(self, subject: str) -> None:
        """Count that the record of *subject* was taken for right: once, if concurrent requests find so."""
        if self._behind.pop(subject, None) is not None:
            self.count += 1
            self._report(self.count)

    def clear(self, subject: str) -> None:
        """Forget that the record was behind."""
        if self._behind:
            self._behind.pop(subject, None)
