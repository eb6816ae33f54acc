"""Stage `ingestion`: the rows of every source that arrived in `[arrival_start, as_of)`, as received, into `raw/<source>`.

Rows in = rows out: a row without a readable arrival takes that of the nearest earlier row of its file, else of the first
later one, else (and always in SQL, which has no order) it belongs to the first partition of the source's history. A file of
a `{partition}` path belongs to its partition whole. The first successful ingest is the record: equal rows change nothing,
other rows are refused with the difference unless the option `restate` holds a reason.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pyarrow as pa

from include import partitions, snapshots, unchanged
from include.arrival import Arrivals, checksum, content_digest
from include.audit import AuditEntry
from include.errors import Busy, EvergreenError, RestatementRefused, SourceError
from include.lake import PARTITION, combine, connect, quote
from include.records import StageResult
from include.redriven import Taken
from include.sources import ARRIVED, FILE, ROW, Delivery, FileReader, partitioned, read
from include.usecase_sources import Source
from include.work import Outcome, Read, Work, lost

NAME = "ingestion"
FIELDS = ("cadence", "cut_off", "history", "sources")
LIBRARIES = ("duckdb", "numpy", "pyarrow")
CHUNK_ROWS = 1_500_000
SHOWN = 3

log = logging.getLogger(__name__)
Facts = dict[str, Any]


def reads(work: Work) -> list[Read]:
    """Return nothing: a source is outside; `standing` looks at it every time."""
    return []


def standing(pairs: Sequence[tuple[Work, StageResult]]) -> set[str]:
    """Return the keys of the partitions whose sources and raw rows are as recorded, by one look at each source's bytes."""
    with FileReader() as reader:
        return unchanged.standing(pairs, reader)


def compute(work: Work) -> Outcome:
    """Take in one partition.

    Raises:
        SourceError: a source cannot be read, or a closed partition's rows come late and the source refuses them.
        RestatementRefused: the partition is recorded with other rows, and no reason was given.
    """
    results = list(_compute([work]))
    error = results[0][1]
    if isinstance(error, EvergreenError):
        raise error
    return error


def compute_range(works: Sequence[Work]) -> Iterator[tuple[Work, Outcome]]:
    """Take in many partitions, reading each source once; a partition that is refused stops itself alone.

    Raises:
        RestatementRefused: after all others are through, naming the partitions that are recorded with other rows.
    """
    refused: list[str] = []
    for work, outcome in _compute(works):
        if isinstance(outcome, RestatementRefused):
            refused.append(str(outcome))
        elif isinstance(outcome, Busy):
            yield work, lost(outcome)
        elif isinstance(outcome, EvergreenError):
            recorded = work.result(NAME)
            if recorded is not None and recorded.state == "done":
                raise outcome
            yield work, Outcome("failed", "", str(outcome)[:2000])
        else:
            yield work, outcome
    if refused:
        raise RestatementRefused("\n".join(refused[:5]) + (f"\nand {len(refused) - 5} more" if len(refused) > 5 else ""))


def _compute(works: Sequence[Work]) -> Iterator[tuple[Work, Outcome | EvergreenError]]:
    """Yield what each partition comes to, an error where it is refused."""
    with FileReader() as reader:
        for chunk in _chunks(works):
            taken = _Intake(chunk, reader)
            for work in chunk:
                try:
                    outcome: Outcome | EvergreenError = taken.one(replace(work, lake=chunk[0].lake))
                except EvergreenError as error:
                    outcome = error
                yield work, outcome


def _chunks(works: Sequence[Work]) -> Iterator[list[Work]]:
    """Cut a range so that a simulated portfolio of any size fits into memory."""
    customers = max((s.simulator.customers for s in works[0].use_case.sources.values() if s.simulator), default=0)
    size = max(1, CHUNK_ROWS // (customers // 3 + 1)) if customers else len(works)
    for start in range(0, len(works), size):
        yield list(works[start : start + size])


class _Intake:
    """The sources of some partitions, each read when it is first asked for and kept for the others."""

    def __init__(self, works: Sequence[Work], reader: FileReader) -> None:
        self._works, self._reader = works, reader
        self._redriven = Taken(works)
        self._read: dict[str, Arrivals | Delivery | EvergreenError] = {}

    def one(self, work: Work) -> Outcome:
        """Take in one partition: all sources are read and compared before anything is written."""
        recorded = work.result(NAME)
        before: dict[str, Facts] = recorded.outputs["sources"] if recorded is not None and recorded.state == "done" else {}
        facts: dict[str, Facts] = {}
        fresh: dict[str, pa.Table] = {}
        for name, source in work.use_case.sources.items():
            if source.kind == "static":
                facts[name], version = snapshots.take(name, work, partial(self._snapshot, name, work))
                if version is not None:
                    fresh[name] = version
            elif partitions.within(source.history, work.key):
                facts[name], fresh[name] = self._redriven.added(name, work, *self._events(name, source, work))
            else:
                facts[name] = {"rows": 0, "digest": "", "source_digest": "", "files": [], "columns": [], "expected": False}
                if before.get(name, {}).get("rows"):  # the source's history was narrowed since
                    fresh[name] = work.lake.read(work.table(f"raw/{name}"), keys=[])
        entries = _restated(work, before, facts, fresh)
        empty = [
            name
            for name, fact in facts.items()
            if fact["rows"] == fact.get("redriven", 0)
            and fact.get("expected", True)
            and work.use_case.sources[name].empty == "block"
        ]
        if before or not empty:
            for name, rows in fresh.items():
                if before.get(name, {}).get("digest") != facts[name]["digest"] or not _stored(work, name, facts[name]):
                    _write(work, name, facts[name], rows)
        if empty:
            if not before:  # nothing was written
                facts = {name: fact if "version" in fact else fact | {"rows": 0, "digest": ""} for name, fact in facts.items()}
            reason = f"no rows of {', '.join(empty)} arrived in {work.key}; deliver them, or write empty: allow for the source"
            return Outcome("blocked", "", reason, {"sources": facts}, entries=tuple(entries))
        whole = combine([f"{name}:{fact['digest']}" for name, fact in sorted(facts.items())])
        return Outcome("done", whole, outputs={"sources": facts}, entries=tuple(entries))

    def _events(self, name: str, source: Source, work: Work) -> tuple[Facts, pa.Table]:
        found = self._arrivals(name, source, work)
        rows, late = found.rows(work), found.late(work)
        if len(late) and source.late != "next":
            raise SourceError(_late_message(name, late, work))
        facts: Facts = {"checksum": checksum(rows)} if source.assumed_lag is not None else {}
        if len(late):
            rows = pa.concat_tables([rows, late], promote_options="default")
        files = sorted(rows.column(FILE).unique().to_pylist()) if len(rows) else []
        shas = found.delivery.digests
        return facts | {
            "rows": len(rows),
            "digest": content_digest(rows, source),
            "source_digest": unchanged.source_digest(shas),
            "files": files,
            "columns": found.headers(files or sorted(shas)),
            "late": len(late),
            "arrival": "assumed" if source.assumed_lag is not None else "recorded",
        }, rows

    def _arrivals(self, name: str, source: Source, work: Work) -> Arrivals:
        """Return a source's rows: read for this partition where it has files of its own, else once for all."""
        own = partitioned(source)
        found = self._read.get(name) if not own else None
        if found is None:
            periods = [work.period] if own else [w.period for w in self._works if partitions.within(source.history, w.key)]
            try:
                delivery = read(name, work.use_case, work.settings, self._reader, periods)
                found = Arrivals(name, work.use_case, delivery, periods, whole=own)
            except EvergreenError as error:
                found = error
            self._read[name] = found
        if isinstance(found, EvergreenError):
            raise found
        assert isinstance(found, Arrivals)
        return found

    def _snapshot(self, name: str, work: Work) -> Delivery:
        found = self._read.get(name)
        if found is None:
            found = self._read[name] = read(name, work.use_case, work.settings, self._reader, [work.period])
        assert isinstance(found, Delivery)
        return found


def _restated(work: Work, before: dict[str, Facts], facts: dict[str, Facts], fresh: dict[str, pa.Table]) -> list[AuditEntry]:
    """Return the audit entry of a restatement, or refuse it."""
    changed = [name for name in fresh if name in before and before[name]["digest"] != facts[name]["digest"]]
    if not changed:
        return []
    told = {name: _difference(work, name, facts[name], fresh[name]) for name in changed}
    reason, named = work.options.get("restate"), work.options.get("sources") or changed
    refused = [name for name in changed if not reason or name not in named]
    if refused:
        shown = "; ".join(f"{name}: {told[name]}" for name in refused)
        static = "".join(f" --source {name}" for name in refused if work.use_case.sources[name].kind == "static")
        raise RestatementRefused(
            f"{work.use_case.name} {work.key} is recorded with other rows ({shown}). The record stands. To take the new rows, "
            f"say why: `evergreen run ingestion --use-case {work.use_case.name} --partition {work.key} --restate REASON{static}`"
        )
    sources: dict[str, Any] = {}
    for name in changed:
        sources[name] = {"was": before[name]["digest"], "is": facts[name]["digest"], "difference": told[name]}
        if "version" in facts[name]:
            others = snapshots.knowing(name, work, facts[name]["version"])
            sources[name] |= {"version": facts[name]["version"], "stale": others}
            log.warning("%s %s is restated; stale with it: %s", name, facts[name]["version"], ", ".join(others) or "no other")
    details = {"reason": str(reason), "sources": sources}
    return [AuditEntry("partition.restated", work.use_case.name, work.key, work.actor, details, work.started)]


def _stored(work: Work, name: str, fact: Facts) -> bool:
    """Tell whether the lake holds what the record says (cheaply: that there are rows where there should be)."""
    return not fact["rows"] or fact.get("version", work.key) in work.lake.keys(work.table(f"raw/{name}"))


def _write(work: Work, name: str, fact: Facts, rows: pa.Table) -> None:
    table, key = work.table(f"raw/{name}"), fact.get("version", work.key)
    if not len(rows):
        if key not in work.lake.keys(table):
            return
        rows = work.lake.read(table, keys=[])
    work.lake.replace(table, key, rows, fence=work.fence)


def _difference(work: Work, name: str, fact: Facts, rows: pa.Table) -> str:
    """Return how rows differ from those on record, with samples."""
    recorded = work.lake.read(work.table(f"raw/{name}"), keys=[fact.get("version", work.key)])
    recorded = recorded if recorded.num_columns else rows.slice(0, 0)  # the table is lost
    kept = [name for name in sorted({*rows.column_names, *recorded.column_names}) if name not in (FILE, ROW, PARTITION)]
    counts, samples = [], []
    with connect() as con:
        con.register("fresh", rows)
        con.register("known", recorded)
        chosen = {
            label: ", ".join(quote(name) if name in table.column_names else f"NULL AS {quote(name)}" for name in kept)
            for label, table in (("fresh", rows), ("known", recorded))
        }
        for sign, one, other in (("+", "fresh", "known"), ("-", "known", "fresh")):
            query = f"SELECT {chosen[one]} FROM {one} EXCEPT ALL SELECT {chosen[other]} FROM {other}"
            differing = con.sql(query).to_arrow_table()
            counts.append(f"{sign}{len(differing)}")
            samples += [f"{sign} {_shown(row)}" for row in differing.slice(0, SHOWN).to_pylist()]
    return f"{' and '.join(counts)} rows, such as {' | '.join(samples)}"


def _late_message(name: str, late: pa.Table, work: Work) -> str:
    sample = " | ".join(_shown(row) for row in late.slice(0, SHOWN).to_pylist())
    return (
        f"{work.use_case.name}, source {name}: {len(late)} rows belong to partitions that are closed, such as {sample}. "
        f"Ingest the closed partition again with `--restate REASON`, or write late: next to take them into {work.key}"
    )


def _shown(row: dict[str, Any]) -> str:
    inner = ", ".join(f"{key}={str(value)[:40]}" for key, value in row.items() if value is not None and key not in (ROW, ARRIVED))
    return "{" + inner[:300] + "}"
