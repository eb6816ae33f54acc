"""Numbers that are counted at every request: plain integers, made into series when scraped.

The library's own counters take a lock and a float a call, its histograms a loop over the buckets:
more than the model. Written and read on the event loop.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence

from prometheus_client.metrics_core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector


class AnswerCounts(Collector):
    """A counter of answers by use case and two labels more: route and status, or both arms."""

    def __init__(self, name: str, help_text: str, labels: Sequence[str]) -> None:
        self._family = (name, help_text, labels)
        self._counts: dict[tuple[str, str, int | str], int] = {}

    def count(self, use_case: str, route: str, status: int | str, answers: int = 1) -> None:
        """Count answers; all labels are of what the node serves, or ''."""
        labels = (use_case, route, status)
        self._counts[labels] = self._counts.get(labels, 0) + answers

    def collect(self) -> Iterator[Metric]:
        """Yield the counter."""
        name, help_text, labels = self._family
        family = CounterMetricFamily(name, help_text, labels=labels)
        for (use_case, route, status), count in self._counts.items():
            family.add_metric([use_case, route, str(status)], count)
        yield family

    def describe(self) -> Iterable[Metric]:
        """Return nothing: the registry is told the name when it collects."""
        return []


class DurationCounts(Collector):
    """A histogram of durations by use case; a bucket holds what is at or below its bound."""

    def __init__(
        self, name: str, help_text: str, labels: Sequence[str], bounds: Sequence[float]
    ) -> None:
        """Build it; `bounds` are in seconds and ascend."""
        self._family = (name, help_text, labels)
        self._bounds = tuple(bounds)
        self._counts: dict[str, list[int]] = {}
        self._sums: dict[str, float] = {}

    def observe(self, use_case: str, seconds: float) -> None:
        """Add the duration of a prediction that was answered."""
        counts = self._counts.get(use_case)
        if counts is None:
            counts = self._counts[use_case] = [0] * (len(self._bounds) + 1)
            self._sums[use_case] = 0.0
        counts[bisect_left(self._bounds, seconds)] += 1
        self._sums[use_case] += seconds

    def collect(self) -> Iterator[Metric]:
        """Yield the histogram; its buckets add up from the lowest."""
        name, help_text, labels = self._family
        family = HistogramMetricFamily(name, help_text, labels=labels)
        for use_case, counts in self._counts.items():
            buckets, below = list[tuple[str, float]](), 0
            for bound, count in zip((*self._bounds, "+Inf"), counts, strict=True):
                below += count
                buckets.append((str(bound), below))
            family.add_metric([use_case], buckets, self._sums[use_case])
        yield family

    def describe(self) -> Iterable[Metric]:
        """Return nothing: the registry is told the name when it collects."""
        return []
