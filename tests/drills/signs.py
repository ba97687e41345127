"""What operators see while something fails in a deployment: readiness, metrics, logs and `doctor`, by the time."""

import json
import re
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http.client import HTTPException
from math import inf
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

from prometheus_client.parser import text_string_to_metric_families as parsed_text
from prometheus_client.samples import Sample

from tests.drills.deployment import Host

_PAUSE_SECONDS = 1.0
_PATIENCE_SECONDS = 3.0
_DOCTOR_PAUSE_SECONDS = 4.0

Metric = Callable[[Sequence[Sequence[Sample]]], float]


@dataclass(frozen=True)
class Signs:
    """Where a failure shows, on the *hosts* that it concerns.

    *readiness* is a check of `/readyz`, *metric* a figure of the samples of all hosts that rises by more than *rise*,
    *log* a pattern of a line, *doctor* one of the subjects that it warns of.
    """

    readiness: str = ""
    metric: Metric | None = None
    rise: float = 0.0
    log: str = ""
    doctor: str = ""
    hosts: Sequence[int] = (0, 1)


def total(name: str, **labels: str) -> Metric:
    """Return the metric *name* with *labels*, of both hosts together."""

    def value(hosts: Sequence[Sequence[Sample]]) -> float:
        return sum(_values((sample for samples in hosts for sample in samples), name, labels))

    return value


def furthest(name: str) -> Metric:
    """Return the greatest value of the metric *name*, whatever its sign."""

    def value(hosts: Sequence[Sequence[Sample]]) -> float:
        return max(map(abs, _values((sample for samples in hosts for sample in samples), name, {})), default=0.0)

    return value


def distinct(name: str, label: str) -> Metric:
    """Return how many values the *label* of the metric *name* has."""
    return lambda hosts: len({it.labels[label] for samples in hosts for it in samples if it.name == name and it.value})


def missing_workers(hosts: Sequence[Sequence[Sample]]) -> float:
    """Return how many workers fewer run than the settings ask for."""
    return total("machpay_workers_wanted")(hosts) - total("machpay_workers")(hosts)


def _values(samples: Iterable[Sample], name: str, labels: dict[str, str]) -> list[float]:
    return [it.value for it in samples if it.name == name and labels.items() <= it.labels.items()]


@dataclass
class Watch:
    """What one host said, each with the moment, until `end`. *is_late* is whether the failure has begun long before."""

    host: Host
    is_late: bool = False
    readiness: list[tuple[float, str, dict[str, str]]] = field(default_factory=list)
    samples: list[tuple[float, list[Sample]]] = field(default_factory=list)
    log: list[tuple[float, str]] = field(default_factory=list)
    findings: list[tuple[float, set[str]]] = field(default_factory=list)
    failed: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)

    def poll(self) -> None:
        """Look at everything but `doctor` once a second."""
        management = self.host.gateway.management
        length = 0 if self.is_late else len(self.host.gateway.log)
        while not self.ended.wait(_PAUSE_SECONDS):
            document = _fetched(f"{management}/readyz")
            if document is not None:
                body = json.loads(document)
                self.readiness.append((time.monotonic(), body["status"], body["checks"]))
            document = _fetched(f"{management}/metrics")
            if document is not None:
                samples = [sample for family in parsed_text(document) for sample in family.samples]
                self.samples.append((time.monotonic(), samples))
            log = self.host.gateway.log
            self.log.append((time.monotonic(), log[length:]))
            length = len(log)

    def consult(self) -> None:
        """Run `doctor` once before the failure and, with pauses, again and again from then on."""
        if not self.is_late:
            self._run_doctor()
            self.failed.wait()
        while not self.ended.is_set():
            self._run_doctor()
            self.ended.wait(_DOCTOR_PAUSE_SECONDS)

    def end(self) -> None:
        self.failed.set()
        self.ended.set()

    def _run_doctor(self) -> None:
        findings = {it["subject"] for it in self.host.doctor() if it["status"] != "ok"}
        self.findings.append((time.monotonic(), findings))

    def ready_after(self, healed_at: float) -> float:
        """Return how many seconds after *healed_at* it was plainly ready, for good; infinity if it was not at all."""
        if not self.readiness or self.readiness[-1][1] != "ready":
            return inf
        last = max((at for at, status, _ in self.readiness if status != "ready"), default=healed_at)
        return max(0.0, last - healed_at)


def _fetched(url: str) -> str | None:
    """Return the document at *url*, whatever its status; None if there was no response in time."""
    with suppress(OSError, HTTPException):
        try:
            with urlopen(url, timeout=_PATIENCE_SECONDS) as response:  # noqa: S310 - of ours
                return str(response.read().decode())
        except HTTPError as error:
            return error.read().decode()
    return None


@dataclass(frozen=True)
class Delays:
    """After how many seconds each kind of sign was there: infinity if it was not, None if it is not promised."""

    readiness: float | None
    metric: float | None
    log: float | None
    doctor: float | None


def delays_of(signs: Signs, watches: Sequence[Watch], began_at: float) -> Delays:
    """Return when the promised *signs* were there, in seconds after *began_at*."""
    concerned = [watches[number] for number in signs.hosts]

    def latest(moments: Iterable[float]) -> float:
        return max(moments) - began_at

    return Delays(
        latest(_readiness_at(watch, signs.readiness, began_at) for watch in concerned) if signs.readiness else None,
        None if signs.metric is None else _metric_at(watches, signs.metric, signs.rise, began_at) - began_at,
        latest(_log_at(watch, signs.log, began_at) for watch in concerned) if signs.log else None,
        _finding_at(concerned[-1], signs.doctor, began_at) - began_at if signs.doctor else None,
    )


def _readiness_at(watch: Watch, check: str, began_at: float) -> float:
    return next((at for at, _, checks in watch.readiness if at > began_at and checks.get(check, "ok") != "ok"), inf)


def _metric_at(watches: Sequence[Watch], metric: Metric, rise: float, began_at: float) -> float:
    latest: dict[int, list[Sample]] = {}
    events: list[tuple[float, int, Any]] = [
        (at, number, samples) for number, watch in enumerate(watches) for at, samples in watch.samples
    ]
    before = 0.0
    for at, number, samples in sorted(events, key=lambda event: event[0]):
        latest[number] = samples
        if len(latest) < len(watches):
            continue
        now = metric(list(latest.values()))
        if at <= began_at:
            before = now
        elif now > before + rise:
            return at
    return inf


def _log_at(watch: Watch, pattern: str, began_at: float) -> float:
    return next((at for at, text in watch.log if at > began_at and re.search(pattern, text)), inf)


def _finding_at(watch: Watch, pattern: str, began_at: float) -> float:
    usual: set[str] = set()
    for at, subjects in watch.findings:
        if at <= began_at:
            usual |= subjects
        elif any(re.fullmatch(pattern, subject) for subject in subjects - usual):
            return at
    return inf
