"""What a stage is given and what it gives back: Work, Read, Outcome."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, NamedTuple

from sqlalchemy.orm import Session

from include.config.settings import Settings
from include.config.use_case import UseCase
from include.errors import Busy, MissingPartition
from include.lake.tables import Fence, Lake
from include.point_in_time import partitions
from include.records.audit import AuditEntry
from include.records.records import Lease, Records, StageResult

# unreadable: a verdict rests on something that could not be read; it is no finding, and is tried again
State = Literal["done", "held", "blocked", "skipped", "failed", "unreadable"]
Mode = Literal["backfill", "live"]
Target = Literal["data", "judged", "deployed"]


@dataclass(frozen=True, slots=True)
class Read:
    """A partition that a stage reads, by the digest of its content."""

    table: str
    key: str
    digest: str


class ReadBack(NamedTuple):
    """A partition of a stage's table: the digest on record, and that of the rows which the lake holds."""

    table: str
    key: str
    recorded: str
    found: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a stage came to. `entries` and `also` are written in the transaction that records it."""

    state: State
    digest: str
    reason: str = ""
    outputs: dict[str, Any] = field(default_factory=dict)
    reads: tuple[Read, ...] = ()
    entries: tuple[AuditEntry, ...] = ()
    also: Callable[[Session], None] | None = None

    @property
    def lost(self) -> bool:
        """Tell whether another run has taken the partition over: its record is not ours to write."""
        return self.state == "failed" and self.outputs.get("error") == "Busy"


def lost(error: Busy) -> Outcome:
    """Return the outcome of one partition of a range whose lease is lost; the others go on."""
    return Outcome("failed", "", str(error), {"error": "Busy"})


@dataclass(frozen=True)
class Work:
    """Everything that a stage may use for one partition; its time is `period`, never a clock.

    `rehearsal` is set by `force`: the lake then takes no writes, and a stage must register nothing.
    """

    settings: Settings
    use_case: UseCase
    period: partitions.Period
    lake: Lake
    records: Records
    lease: Lease
    mode: Mode
    target: Target
    actor: str
    started: datetime
    options: Mapping[str, Any] = field(default_factory=dict)
    rehearsal: bool = False
    known: dict[tuple[str, str], StageResult] | None = None

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
        return Fence(self.lease.app, self.lease.token, self.lease.check)

    def table(self, name: str) -> str:
        """Return the lake name of a table of this use case."""
        return f"{self.use_case.name}/{name}"

    def result(self, stage: str, key: str | None = None) -> StageResult | None:
        """Return what is recorded of a stage for this, or another, partition."""
        wanted = key or self.key
        if self.known is not None and (stage, wanted) in self.known:
            return self.known[stage, wanted]
        return self.records.result(self.use_case.name, wanted, stage)

    def need(self, stage: str, keys: Sequence[str]) -> list[StageResult]:
        """Return the results of an earlier stage, which must be recorded as done for every key.

        Raises:
            MissingPartition: some are not; the message has the command that fills them.
        """
        if self.known is not None:
            found = {key: self.known[stage, key] for key in keys if (stage, key) in self.known}
        else:
            found = {row.key: row for row in self.records.results(self.use_case.name, stage=stage, keys=list(keys))}
        missing = [key for key in keys if key not in found or found[key].state != "done"]
        if missing:
            raise MissingPartition(_missing(self.use_case.name, stage, missing, found), keys=missing)
        return [found[key] for key in keys]


def _missing(use_case: str, stage: str, missing: Sequence[str], found: Mapping[str, StageResult]) -> str:
    def told(key: str) -> str:
        if key not in found:
            return key
        state, reason = found[key].state, found[key].reason.removeprefix(f"{found[key].state}: ")
        return f"{key} ({state}: {reason[:160]})"

    listed = ", ".join(told(key) for key in missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
    return (
        f"{use_case}: {stage} is not done for {len(missing)} partition(s): {listed}. "
        f"Fill them with `evergreen load-history {use_case} --from {missing[0]} --to {missing[-1]}`"
    )
