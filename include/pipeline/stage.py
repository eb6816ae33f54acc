"""What a stage is, what it is given and what it gives back: Stage, StageContext, Input, Outcome."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, NamedTuple, TypeVar

from sqlalchemy.orm import Session

from include.artefacts.store import ArtefactStore
from include.config.settings import Settings
from include.config.use_case import UseCase
from include.errors import Busy, EvergreenError, MissingPartition
from include.lake.commits import Fence
from include.lake.tables import Lake
from include.point_in_time import partitions
from include.records.audit import AuditEntry
from include.records.records import Lease, Records, StageResult

T = TypeVar("T")

# waiting: it was asked for, and the answer of somebody else is to come; a later run goes on from it
# unreadable: a verdict rests on something that could not be read; it is no finding, and is tried
# again
State = Literal["done", "held", "blocked", "skipped", "waiting", "failed", "unreadable"]
Mode = Literal["backfill", "live"]
Target = Literal["data", "judged", "deployed"]


# In place of the digest of a partition that was not there, where its sources allow that it never
# comes: once it does, what was made without it counts as stale.
GAP = "gap"


@dataclass(frozen=True, slots=True)
class Input:
    """A partition that a stage reads, by the digest of its content."""

    table: str
    key: str
    digest: str


class ReadBack(NamedTuple):
    """A partition of a stage's table: the digest on record, and that of the rows in the lake."""

    table: str
    key: str
    recorded: str
    stored: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a stage came to.

    `entries` and `in_transaction` are written in the transaction that records it.
    """

    state: State
    digest: str
    reason: str = ""
    outputs: dict[str, Any] = field(default_factory=dict)
    inputs: tuple[Input, ...] = ()
    entries: tuple[AuditEntry, ...] = ()
    in_transaction: Callable[[Session], None] | None = None

    @property
    def lost(self) -> bool:
        """Whether another run has taken the partition over: its record is not ours to write."""
        return self.state == "failed" and self.outputs.get("error") == "Busy"


def lost(error: Busy) -> Outcome:
    """Return the outcome of one partition of a range whose lease is lost; the others go on."""
    return Outcome("failed", "", str(error), {"error": "Busy"})


@dataclass(frozen=True)
class StageContext:
    """Everything that a stage may use for one partition; its time is `period`, never a clock.

    `rehearsal` is set by `force`: the lake then takes no writes, and a stage must register nothing.
    `preloaded` are all results of `preloaded_stages` by (stage, key), read once for a range, which
    shares `answers` too (`once`).
    """

    settings: Settings
    use_case: UseCase
    period: partitions.Period
    lake: Lake
    records: Records
    lease: Lease | None  # None: asked of, never run
    mode: Mode
    target: Target
    actor: str
    started: datetime
    options: Mapping[str, Any] = field(default_factory=dict)
    rehearsal: bool = False
    preloaded: dict[tuple[str, str], StageResult] | None = None
    preloaded_stages: tuple[str, ...] = ()
    answers: dict[str, Any] = field(default_factory=dict)

    def once(self, question: str, ask: Callable[[], T]) -> T:
        """Return the answer to a question that is the same for every partition of a range."""
        if question not in self.answers:
            self.answers[question] = ask()
        answer: T = self.answers[question]
        return answer

    @property
    def store(self) -> ArtefactStore:
        """The artefacts of the installation."""
        return ArtefactStore.of(self.settings)

    @property
    def key(self) -> str:
        """The partition key."""
        return self.period.key

    @property
    def as_of(self) -> datetime:
        """The moment up to which anything may be known."""
        return self.period.as_of

    @property
    def fence(self) -> Fence:
        """The lease as the lake wants it."""
        return Fence(self.held.app, self.held.token, self.held.check)

    @property
    def held(self) -> Lease:
        """The lease under which the partition is computed.

        Raises:
            EvergreenError: there is none, so nothing may be written.
        """
        if self.lease is None:
            raise EvergreenError(
                f"{self.use_case.name} {self.key} is only asked of: nothing is written without a "
                "lease"
            )
        return self.lease

    def table(self, name: str) -> str:
        """Return the lake name of a table of this use case."""
        return f"{self.use_case.name}/{name}"

    def result(self, stage: str, key: str | None = None) -> StageResult | None:
        """Return what is recorded of a stage for this, or another, partition."""
        key = key or self.key
        if self.preloaded is not None and stage in self.preloaded_stages:
            return self.preloaded.get((stage, key))
        return self.records.results.get(self.use_case.name, key, stage)

    def need(self, stage: str, keys: Sequence[str]) -> list[StageResult]:
        """Return the results of an earlier stage, which must be recorded as done for every key.

        Raises:
            MissingPartition: some are not; the message has the command that fills them.
        """
        results = {result.key: result for result in self._results(stage, keys)}
        missing = [key for key in keys if key not in results or results[key].state != "done"]
        if missing:
            raise MissingPartition(
                _describe_missing(self.use_case.name, stage, missing, results), keys=missing
            )
        return [results[key] for key in keys]

    def _results(self, stage: str, keys: Sequence[str]) -> list[StageResult]:
        if self.preloaded is None:
            return self.records.results.of(self.use_case.name, stage=stage, keys=keys)
        return [self.preloaded[stage, key] for key in keys if (stage, key) in self.preloaded]


@dataclass(frozen=True)
class Stage:
    """A stage as its entry module exports it; what is optional is None.

    `fields` are those of the use case that it reads (dotted), `libraries` the distributions whose
    version counts: both are part of the memo key. `inputs` gives the recorded digests of what is
    read. `compute` writes the partition's own lake partitions; `compute_range` does so for many in
    one pass. Only computation is memoised (`memoised`: at all): `effects` are compared with the
    observed state every time, and only for live partitions.

    Of the partitions whose memo key is unchanged, `still_valid` gives those whose record still
    stands. `outdated` gives the earlier partitions that were made by other rules than today's,
    which are computed again first. `unreadable` is of a stage that judges: the outcome where
    something could not be read, which no memo keeps. `read_back` gives what the lake holds of a
    result's tables.
    """

    name: str
    fields: tuple[str, ...]
    libraries: tuple[str, ...]
    inputs: Callable[[StageContext], list[Input]]
    compute: Callable[[StageContext], Outcome]
    compute_range: (
        Callable[[Sequence[StageContext]], Iterator[tuple[StageContext, Outcome]]] | None
    ) = None
    effects: Callable[[StageContext, Outcome], dict[str, Any]] | None = None
    memoised: bool = True
    still_valid: Callable[[Sequence[tuple[StageContext, StageResult]]], set[str]] | None = None
    outdated: Callable[[Sequence[StageContext]], list[str]] | None = None
    unreadable: Callable[[StageContext, Exception], Outcome] | None = None
    read_back: Callable[[StageContext, StageResult], Iterator[ReadBack]] | None = None


def _describe_missing(
    use_case: str, stage: str, missing: Sequence[str], results: Mapping[str, StageResult]
) -> str:
    """Return what is missing, why as far as that is on record, and the command that fills it."""

    def describe(key: str) -> str:
        if key not in results:
            return key
        state, reason = results[key].state, results[key].reason
        return f"{key} ({state}: {reason.removeprefix(f'{state}: ')[:160]})"

    listed = ", ".join(describe(key) for key in missing[:3]) + (
        f" and {len(missing) - 3} more" if len(missing) > 3 else ""
    )
    return (
        f"{use_case}: {stage} is not done for {len(missing)} partition(s): {listed}. "
        f"Fill them with `evergreen load-history {use_case} --from {missing[0]} --to {missing[-1]}`"
    )
