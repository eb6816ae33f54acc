"""Counters of the node, in Prometheus' text format. Every label has a bounded set of values."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict

BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.08, 0.1, 0.25, 0.5, 1.0, 2.5)


class Metrics:
    """The node's numbers; it belongs to the event loop."""

    def __init__(self) -> None:
        self._answers: defaultdict[tuple[str, str, int], int] = defaultdict(int)
        self._buckets: defaultdict[str, list[int]] = defaultdict(lambda: [0] * (len(BOUNDS) + 1))
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._events: defaultdict[tuple[str, str], int] = defaultdict(int)
        self._models: dict[tuple[str, str], int] = {}
        self._generations: dict[str, int] = {}

    def answered(self, use_case: str, route: str, status: int) -> None:
        """Count an answer; `use_case` and `route` are known names, or ''."""
        self._answers[use_case, route, status] += 1

    def took(self, use_case: str, seconds: float) -> None:
        """Count the duration of a prediction."""
        self._buckets[use_case][bisect_left(BOUNDS, seconds)] += 1
        self._seconds[use_case] += seconds

    def event(self, use_case: str, name: str, count: int = 1) -> None:
        """Count something that happened, such as a refused model or a fallback."""
        self._events[use_case, name] += count

    def serving(self, use_case: str, generation: int, models: dict[str, int]) -> None:
        """Note what is served; `models` maps a role to a version."""
        self._generations[use_case] = generation
        for key in [key for key in self._models if key[0] == use_case]:
            del self._models[key]
        for role, version in models.items():
            self._models[use_case, role] = version

    def text(self) -> bytes:
        """Return all series."""
        lines = ["# TYPE evergreen_answers_total counter"]
        for (use_case, route, status), count in sorted(self._answers.items()):
            labels = f'use_case="{use_case}",route="{route}",status="{status}"'
            lines.append(f"evergreen_answers_total{{{labels}}} {count}")
        lines.append("# TYPE evergreen_prediction_seconds histogram")
        for use_case, counts in sorted(self._buckets.items()):
            total = 0
            for bound, count in zip((*map(str, BOUNDS), "+Inf"), counts, strict=True):
                total += count
                lines.append(
                    f'evergreen_prediction_seconds_bucket{{use_case="{use_case}",le="{bound}"}} '
                    f"{total}"
                )
            lines.append(
                f'evergreen_prediction_seconds_sum{{use_case="{use_case}"}} '
                f"{self._seconds[use_case]:.6f}"
            )
            lines.append(f'evergreen_prediction_seconds_count{{use_case="{use_case}"}} {total}')
        lines.append("# TYPE evergreen_events_total counter")
        for (use_case, name), count in sorted(self._events.items()):
            lines.append(f'evergreen_events_total{{use_case="{use_case}",event="{name}"}} {count}')
        lines.append("# TYPE evergreen_model_version gauge")
        for (use_case, role), version in sorted(self._models.items()):
            lines.append(
                f'evergreen_model_version{{use_case="{use_case}",role="{role}"}} {version}'
            )
        lines.append("# TYPE evergreen_routing_generation gauge")
        for use_case, generation in sorted(self._generations.items()):
            lines.append(f'evergreen_routing_generation{{use_case="{use_case}"}} {generation}')
        return ("\n".join(lines) + "\n").encode()
