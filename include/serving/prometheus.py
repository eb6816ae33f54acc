"""The node's numbers, counted and written by Prometheus' client library.

Every label has a bounded set of values. Each node has a registry of its own, so that two nodes in
one process do not add up.
"""

from __future__ import annotations

from collections.abc import Mapping

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, values
from prometheus_client.exposition import choose_encoder

from include.predictions.on_disk import OnDisk
from include.serving.plain_counts import AnswerCounts, DurationCounts

# Seconds. The bound 0.08 is the usual objective of latency, so that its share can be read exactly.
BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.08, 0.1, 0.25, 0.5, 1.0, 2.5)

_ON_DISK = {
    "free_bytes": "Free disk for the prediction log.",
    "full": "1 while the disk has less room than the log's floor.",
    "waiting_segments": "Segments of the prediction log that are not imported.",
    "waiting_bytes": "Bytes of the segments that are not imported.",
    "oldest_seconds": "Age of the oldest segment that is not imported.",
    "set_aside_lines": "Lines that the import could not read and that lie beside the segments.",
}
# Otherwise each counter gets a second series `..._created`, which no dashboard asks for. The
# library has this switch for the whole process only.
prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]

# A node is one process. Where its environment has PROMETHEUS_MULTIPROC_DIR (BentoML sets it, and
# children inherit it) the library would put each series into a mapped file, where a full disk
# ends an answer, and what a dead process counted is counted again.
values.ValueClass = values.MutexValue


class Metrics:
    """The node's counters, durations and gauges; written on the event loop."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        # Both are counted at each request: plain numbers, which the library reads when it is asked.
        self._answers = AnswerCounts(
            "evergreen_answers",
            "Answers by route and HTTP status; 499: the client had left. Use case and route are "
            "empty where the headers were not whole, or none that could be read.",
            ["use_case", "route", "status"],
        )
        self._durations = DurationCounts(
            "evergreen_prediction_seconds",
            "Time from reading a request to its answer, of predictions that were answered.",
            ["use_case"],
            BOUNDS,
        )
        self._arms = AnswerCounts(
            "evergreen_release_answers",
            "Answers while a release is under way, by the arm that the request was meant for and "
            "the one that answered: none, or neither where the model before the champion was asked "
            "too; batches are counted by row.",
            ["use_case", "assigned", "answering"],
        )
        self.count_arm = self._arms.count
        self.registry.register(self._answers)
        self.registry.register(self._arms)
        self.registry.register(self._durations)
        self.count_answer, self.observe_duration = self._answers.count, self._durations.observe
        self._events = Counter(
            "evergreen_events",
            "What happened beside answers, such as a refused model or a fallback.",
            ["use_case", "event"],
            registry=self.registry,
        )
        self._shadows = Counter(
            "evergreen_shadows",
            "Requests of a release that the other model was asked behind the answer, by what came "
            "of them: answered, failed, or dropped for want of room.",
            ["use_case", "result"],
            registry=self.registry,
        )
        self._guards = Gauge(
            "evergreen_guard_latched",
            "1 while this node's guard keeps the release under way from its traffic.",
            ["use_case"],
            registry=self.registry,
        )
        self._versions = Gauge(
            "evergreen_model_version",
            "The model version that serves in a role.",
            ["use_case", "role"],
            registry=self.registry,
        )
        self._generations = Gauge(
            "evergreen_routing_generation",
            "The generation of the routing row that is served, and the epoch that it counts in: "
            "a restore of the records begins the next.",
            ["use_case", "epoch"],
            registry=self.registry,
        )
        self._shares = Gauge(
            "evergreen_release_share",
            "The part of the traffic that this node gives the challenger of a release, of 1.",
            ["use_case"],
            registry=self.registry,
        )
        self._withheld = Gauge(
            "evergreen_release_withheld",
            "1 while this node gives the challenger nothing of what the records say; /health has "
            "the reason.",
            ["use_case"],
            registry=self.registry,
        )
        self._rows = Counter(
            "evergreen_batch_rows",
            "Rows of batches by what came of them: answered or refused.",
            ["use_case", "result"],
            registry=self.registry,
        )
        self._loops = Counter(
            "evergreen_loop_failures",
            "Turns of the node's own loops that failed; each goes on.",
            ["loop"],
            registry=self.registry,
        )
        self._records = Gauge(
            "evergreen_records",
            "1 while the records are reachable; while rows_from_file of the last time are served.",
            ["state"],
            registry=self.registry,
        )
        self._sizes = Gauge(
            "evergreen_home_bytes",
            "Bytes of the parts of the home folder, as its supervisor measured them; `free` is "
            "left on its disk.",
            ["part"],
            registry=self.registry,
        )
        self._code = Gauge(
            "evergreen_code",
            "1 while the code on the disk has changed since the node's start: restart it.",
            ["state"],
            registry=self.registry,
        )
        self._lines = Counter(
            "evergreen_log_lines",
            "Lines of the prediction log that are on disk: answers, and failures of models.",
            ["use_case"],
            registry=self.registry,
        )
        self._line_bytes = Counter(
            "evergreen_log_bytes",
            "Bytes of these lines.",
            ["use_case"],
            registry=self.registry,
        )
        self._on_disk = {
            name: Gauge(f"evergreen_log_{name}", what, ["use_case"], registry=self.registry)
            for name, what in _ON_DISK.items()
        }

    def count_event(self, use_case: str, event: str, count: int = 1) -> None:
        """Count something that happened, such as a refused model or a fallback."""
        self._events.labels(use_case, event).inc(count)

    def count_rows(self, use_case: str, answered: int, refused: int) -> None:
        """Count the rows of a batch."""
        self._rows.labels(use_case, "answered").inc(answered)
        self._rows.labels(use_case, "refused").inc(refused)

    def count_shadows(self, use_case: str, answered: int, failed: int, dropped: int) -> None:
        """Count requests that were mirrored."""
        for result, count in (("answered", answered), ("failed", failed), ("dropped", dropped)):
            self._shadows.labels(use_case, result).inc(count)

    def show_guard(self, use_case: str, *, latched: bool) -> None:
        """Show whether the guard keeps the release under way from its traffic."""
        self._guards.labels(use_case).set(latched)

    def hide_guard(self, use_case: str) -> None:
        """Show nothing of a use case's guard."""
        self._guards.remove_by_labels({"use_case": use_case})

    def count_lines(self, use_case: str, lines: int, size: int) -> None:
        """Count lines of the prediction log, and their bytes."""
        self._lines.labels(use_case).inc(lines)
        self._line_bytes.labels(use_case).inc(size)

    def show_log(self, use_case: str, seen: OnDisk) -> None:
        """Show what waits for the import, and what was set aside."""
        values = (seen.segments, seen.bytes, seen.oldest, seen.set_aside)
        for gauge, value in zip(list(self._on_disk.values())[2:], values, strict=True):
            gauge.labels(use_case).set(value)

    def show_room(self, free: int, full: Mapping[str, bool]) -> None:
        """Show the free disk of the logs, and for which use cases it is too little."""
        for use_case, is_full in full.items():
            self._on_disk["free_bytes"].labels(use_case).set(free)
            self._on_disk["full"].labels(use_case).set(is_full)

    def hide_log(self, use_case: str) -> None:
        """Show nothing of a use case's log; its counters stay, as counters must not fall."""
        for gauge in self._on_disk.values():
            gauge.remove_by_labels({"use_case": use_case})

    def count_failed_loop(self, name: str) -> None:
        """Count a turn of one of the node's loops that failed."""
        self._loops.labels(name).inc()

    def show_records(self, *, reachable: bool, from_file: bool) -> None:
        """Show whether the records are followed, and whether rows of the last time are served."""
        self._records.labels("reachable").set(reachable)
        self._records.labels("rows_from_file").set(from_file)

    def show_upkeep(self, *, code_changed: bool, sizes: Mapping[str, int]) -> None:
        """Show whether the node is to be restarted, and how large its home folder's parts are."""
        self._code.labels("changed").set(code_changed)
        self._sizes.clear()
        for part, size in sizes.items():
            self._sizes.labels(part).set(size)

    def show_served(
        self, use_case: str, epoch: int, generation: int, versions: Mapping[str, int]
    ) -> None:
        """Show what serves from now on; `versions` are the model versions by role."""
        self.hide_served(use_case)
        self._generations.labels(use_case, str(epoch)).set(generation)
        for role, version in versions.items():
            self._versions.labels(use_case, role).set(version)

    def show_release(self, use_case: str, share: int, *, withheld: bool) -> None:
        """Show what the challenger of a release gets; `share` is in basis points."""
        self._shares.labels(use_case).set(share / 10_000)
        self._withheld.labels(use_case).set(withheld)

    def hide_served(self, use_case: str) -> None:
        """Show nothing as served of a use case; its counters stay, as counters must not fall."""
        self._generations.remove_by_labels({"use_case": use_case})
        for gauge in (self._versions, self._shares, self._withheld):
            gauge.remove_by_labels({"use_case": use_case})

    def render(self, accept: str) -> tuple[bytes, str]:
        """Return all series and their media type: OpenMetrics for who accepts it, else text."""
        try:
            encode, media_type = choose_encoder(accept)
        except (TypeError, ValueError):  # the library compares a version that is no number
            encode, media_type = choose_encoder("")
        return encode(self.registry), media_type
