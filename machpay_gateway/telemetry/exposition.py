"""Metrics in the formats that Prometheus reads, through prometheus_client."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector, CollectorRegistry
from prometheus_client.utils import floatToGoString

from machpay_gateway.telemetry.metrics import METRICS, Counts, Metric, MetricKind

_ALL = (float("inf"),)
_NO_VERSION = re.compile(r"version=(?!\d+\.\d+\.\d+\s*(?:[,;]|$))[^,;]*")  # makes the library raise


def exposition(counts: Counts, accept: str) -> tuple[bytes, str]:
    """Return *counts* in the format that the *accept* header prefers, text by default, and its media type."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_CountsCollector(counts))
    encode, media_type = choose_encoder(_NO_VERSION.sub("", accept))
    return encode(registry), media_type


class _CountsCollector(Collector):
    def __init__(self, counts: Counts) -> None:
        self._counts = counts

    def describe(self) -> Iterable[Family]:
        """Return nothing: otherwise the registry would collect everything once more."""
        return ()

    def collect(self) -> Iterator[Family]:
        """Yield a family for each metric, also for those without a series."""
        by_metric: dict[str, dict[tuple[str, ...], Sequence[float]]] = {name: {} for name in METRICS}
        for (name, labels), values in sorted(self._counts.items()):
            by_metric[name][labels] = values
        for name, series in by_metric.items():
            yield _family(METRICS[name], series)


def _family(metric: Metric, series: Mapping[tuple[str, ...], Sequence[float]]) -> Family:
    if metric.kind is MetricKind.HISTOGRAM:
        histogram = HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)
        for labels, values in series.items():
            bounds = map(floatToGoString, (*metric.bounds, *_ALL))
            buckets = list(zip(bounds, accumulate(values[:-1]), strict=True))
            histogram.add_metric(labels, buckets, values[-1])
        return histogram
    kind = CounterMetricFamily if metric.kind is MetricKind.COUNTER else GaugeMetricFamily
    family = kind(metric.name, metric.help, labels=metric.labels)
    for labels, values in series.items():
        family.add_metric(labels, values[0])
    return family
