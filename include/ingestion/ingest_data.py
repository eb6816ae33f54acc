"""Stage `ingest_data`: the rows of every source that arrived in `[arrival_start, as_of)`, as
received, into `raw/<source>`.

Rows in = rows out: `arrival` says to which partition each row belongs. The first successful ingest
is the record: equal rows change nothing. Rows that come later (`late`) are left to the newest
partition and named, or refused where the source says `late: refuse`; rows that are gone are
refused. With a reason (the option `restate`) a partition takes what is there.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pyarrow as pa

from include.config.use_case_sources import Source
from include.errors import Busy, EvergreenError, RestatementRefused
from include.ingestion import late, source_digests, static_versions
from include.ingestion.arrival import Arrivals, checksum, content_digest, is_newest, joined, reach
from include.ingestion.columns import FILE, LATE, ROW
from include.ingestion.file_reader import FileReader
from include.ingestion.files import partitioned
from include.ingestion.late import Late, shown
from include.ingestion.read_back import read_back
from include.ingestion.redriven import Taken
from include.ingestion.sources import Delivery, read, stamps
from include.lake.digests import combine
from include.lake.sql import PARTITION, connect, quote
from include.pipeline.stage import Input, Outcome, Stage, StageContext, lost
from include.point_in_time import partitions
from include.point_in_time.partitions import Period
from include.records.audit import AuditEntry
from include.records.records import StageResult

NAME = "ingest_data"
FIELDS = ("cadence", "cut_off", "history", "sources")
LIBRARIES = ("duckdb", "numpy", "pyarrow")
CHUNK_ROWS = 1_500_000
SHOWN = 3

log = logging.getLogger(__name__)
Facts = dict[str, Any]


def inputs(context: StageContext) -> list[Input]:
    """Return nothing: a source is outside; `still_valid` looks at it every time."""
    return []


def still_valid(pairs: Sequence[tuple[StageContext, StageResult]]) -> set[str]:
    """Return the keys of the partitions whose sources and raw rows are as recorded, by one look
    at each source's bytes.
    """
    with FileReader() as reader:
        return source_digests.still_valid(pairs, reader)


def compute(context: StageContext) -> Outcome:
    """Take in one partition.

    Raises: SourceError: a source cannot be read, or a closed partition's rows come late and the
        source refuses them. RestatementRefused: the partition is recorded with other rows, and no
        reason was given.
    """
    results = list(_compute([context]))
    error = results[0][1]
    if isinstance(error, EvergreenError):
        raise error
    return error


def compute_range(contexts: Sequence[StageContext]) -> Iterator[tuple[StageContext, Outcome]]:
    """Take in many partitions, reading each source once; a partition that is refused stops itself
    alone.

    Raises: RestatementRefused: after all others are through, naming the partitions that are
        recorded with other rows.
    """
    refused: list[str] = []
    for context, outcome in _compute(contexts):
        if isinstance(outcome, RestatementRefused):
            refused.append(str(outcome))
        elif isinstance(outcome, Busy):
            yield context, lost(outcome)
        elif isinstance(outcome, EvergreenError):
            recorded = context.result(NAME)
            if recorded is not None and recorded.state == "done":
                raise outcome
            yield context, Outcome("failed", "", str(outcome)[:2000])
        else:
            yield context, outcome
    if refused:
        raise RestatementRefused(
            "\n".join(refused[:5]) + (f"\nand {len(refused) - 5} more" if len(refused) > 5 else "")
        )


def _compute(
    contexts: Sequence[StageContext],
) -> Iterator[tuple[StageContext, Outcome | EvergreenError]]:
    """Yield what each partition comes to, an error where it is refused."""
    with FileReader() as reader:
        for chunk in _chunks(contexts):
            taken = _Intake(chunk, reader)
            for context in chunk:
                try:
                    outcome: Outcome | EvergreenError = taken.one(
                        replace(context, lake=chunk[0].lake)
                    )
                except EvergreenError as error:
                    outcome = error
                yield context, outcome


def _chunks(contexts: Sequence[StageContext]) -> Iterator[list[StageContext]]:
    """Cut a range so that a simulated portfolio of any size fits into memory."""
    customers = max(
        (s.simulator.customers for s in contexts[0].use_case.sources.values() if s.simulator),
        default=0,
    )
    size = max(1, CHUNK_ROWS // (customers // 3 + 1)) if customers else len(contexts)
    for start in range(0, len(contexts), size):
        yield list(contexts[start : start + size])


def told(sources: Mapping[str, Facts]) -> list[str]:
    """Return in words what a person should know of a partition's record: late rows, and static
    versions still to come.
    """
    return [
        text
        for name, fact in sources.items()
        for text in (late.told(name, fact), static_versions.told(name, fact))
        if text
    ]


def observed(results: Sequence[StageResult]) -> list[str]:
    """Return since when each static source's versions were observed: what a partition before
    that knows is what was read then.
    """
    first: dict[str, str] = {}
    for result in results:
        for name, fact in result.outputs.get("sources", {}).items():
            if fact.get("observed"):
                first[name] = min(first.get(name, fact["observed"]), fact["observed"])
    return [
        f"static source {name}: its versions are observed since {at[:16].replace('T', ' ')}"
        for name, at in first.items()
    ]


class _Intake:
    """The sources of some partitions, each read when it is first asked for and kept for the
    others.
    """

    def __init__(self, contexts: Sequence[StageContext], reader: FileReader) -> None:
        self._contexts, self._reader = contexts, reader
        self._redriven = Taken(contexts)
        self._read: dict[str, Arrivals | Delivery | EvergreenError] = {}
        self._own: dict[tuple[str, str], Arrivals] = {}
        self._stamps: dict[tuple[str, str], dict[str, str]] = {}
        self._late: dict[str, Late] = {}
        self._recorded: dict[str, dict[str, Facts]] = {}

    def one(self, context: StageContext) -> Outcome:
        """Take in one partition: all sources are read and compared before anything is written."""
        recorded = context.result(NAME)
        before: dict[str, Facts] = (
            recorded.outputs["sources"] if recorded is not None and recorded.state == "done" else {}
        )
        facts: dict[str, Facts] = {}
        fresh: dict[str, pa.Table] = {}
        coming: dict[str, pa.Table] = {}
        for name, source in context.use_case.sources.items():
            if source.kind == "static":
                facts[name], rows = static_versions.take(
                    name, context, partial(self._snapshot, name, context)
                )
                if rows is not None:
                    (coming if "pending" in facts[name] and name not in before else fresh)[name] = (
                        rows
                    )
            else:
                facts[name], rows = self._events(name, source, context, before.get(name))
                if rows is not None:
                    fresh[name] = rows
        entries = _restated(context, before, facts, fresh)
        empty = [
            name
            for name, fact in facts.items()
            if fact["rows"] == fact.get("redriven", 0) + fact.get("late", 0)
            and fact.get("expected", True)
            and context.use_case.sources[name].empty == "block"
        ]
        if before or not empty:
            for name, rows in fresh.items():
                if before.get(name, {}).get("digest") != facts[name]["digest"] or not _stored(
                    context, name, facts[name]
                ):
                    _write(context, name, facts[name], rows)
            for name, rows in coming.items():
                _write(context, name, facts[name]["pending"], rows)
        if empty:
            if not before:  # nothing was written
                facts = {
                    name: fact if "version" in fact else fact | {"rows": 0, "digest": ""}
                    for name, fact in facts.items()
                }
            reason = (
                f"no rows of {', '.join(empty)} arrived in {context.key}; deliver them, or "
                "write empty: allow for the source"
            )
            return Outcome("blocked", "", reason, {"sources": facts}, entries=tuple(entries))
        whole = combine([f"{name}:{fact['digest']}" for name, fact in sorted(facts.items())])
        return Outcome(
            "done", whole, "; ".join(told(facts)), {"sources": facts}, entries=tuple(entries)
        )

    def _events(
        self, name: str, source: Source, context: StageContext, before: Facts | None
    ) -> tuple[Facts, pa.Table | None]:
        """Return what a partition has of a source, and its rows where they are to be compared or
        written.
        """
        if partitions.within(source.history, context.key):
            facts, rows = self._arrived(name, source, context, before)
            return (
                (facts, rows) if rows is None else self._redriven.added(name, context, facts, rows)
            )
        facts = {
            "rows": 0,
            "digest": "",
            "source_digest": "",
            "files": [],
            "columns": [],
            "expected": False,
        }
        narrowed = before is not None and before.get("rows")  # the source's history, since
        return facts, context.lake.read(context.table(f"raw/{name}"), keys=[]) if narrowed else None

    def _arrived(
        self, name: str, source: Source, context: StageContext, before: Facts | None
    ) -> tuple[Facts, pa.Table | None]:
        """Return the rows that arrived in a partition; None where those on record stand,
        although others have come since.
        """
        found, known = self._found(name, source, context), self._known(name)
        behind, opened = self._behind(name, source, context, found)
        rows = joined([one.between(context.period.arrival_start, context.as_of) for one in found])
        shas = {file: sha for one in found for file, sha in one.delivery.digests.items()}
        source_digest = source_digests.source_digest(shas)
        recorded = before if before is not None and before.get("expected", True) else None
        if recorded is not None and self._stands(name, source, context, recorded, rows, behind):
            facts = recorded | (
                {} if recorded.get("redriven") else {"source_digest": source_digest}
            )
            if not len(behind.of(context.key)):
                facts["seen"] = checksum(rows)
            return self._named(name, context, facts, behind), None
        equal = recorded is not None and recorded.get("checksum") == checksum(rows)
        own, taken = rows if equal else late.without_taken(name, context, known, rows), pa.table({})
        facts = {"checksum": checksum(own), "corrections": 0}
        if recorded is not None:
            if recorded.get("late"):
                taken, facts["corrections"] = (
                    late.kept(name, context),
                    recorded.get("corrections", 0),
                )
        elif len(refused := behind.before(context.key).timed()) and not source.takes_late:
            raise late.refusal(name, refused, context)
        elif is_newest(context):
            # with these rows taken nothing of them is left: the next night has not to compare them
            # again.
            if behind.compared:
                facts["compared"] = behind.compared
            behind, coming = Late(), behind.before(context.key)
            taken, facts["corrections"] = coming.taken(context), coming.corrections
        own = joined([own, taken])
        names = own.column(FILE).unique().to_pylist() if len(own) else []
        files = sorted(
            {
                file.removeprefix(LATE).partition("/")[2] if file.startswith(LATE) else file
                for file in names
            }
        )
        early = sum(
            one.early for one in found if one.owner is not None and one.owner.key == context.key
        )
        facts |= {
            "rows": len(own),
            "digest": content_digest(own, source),
            "source_digest": source_digest,
            "files": files,
            "columns": [header for one in opened for header in one.headers(files or sorted(shas))],
            "late": len(taken),
            "early": early,
            "arrival": "assumed" if source.assumed_lag is not None else "recorded",
        } | self._marks(name, source, context, opened, behind)
        return self._named(name, context, facts, behind), own

    def _stands(
        self,
        name: str,
        source: Source,
        context: StageContext,
        recorded: Facts,
        rows: pa.Table,
        behind: Late,
    ) -> bool:
        """Tell whether a partition's recorded rows are all there, and others that came since are
        left to the newest partition.
        """
        if not source.takes_late or source.simulator is not None or context.options.get("restate"):
            return False
        if recorded.get("checksum") == checksum(rows) or not _stored(context, name, recorded):
            return False
        return late.standing(name, context, self._known(name), rows, behind.of(context.key))

    def _named(self, name: str, context: StageContext, facts: Facts, behind: Late) -> Facts:
        """Return facts with the late rows that this run leaves."""
        facts = {key: value for key, value in facts.items() if key != "waiting"}
        left = behind.until(context.key)
        if len(left) and context.use_case.sources[name].takes_late:
            facts["waiting"] = left.facts()
            log.warning("%s %s: %s", context.use_case.name, context.key, late.told(name, facts))
        return facts

    def _marks(
        self,
        name: str,
        source: Source,
        context: StageContext,
        opened: Sequence[Arrivals],
        left: Late,
    ) -> Facts:
        """Return size and time of a partition's own files, so that a later look for late rows opens
        none of them again.

        A file of which rows are left is not among them: the run that takes them has to open it.
        """
        if not partitioned(source):
            return {}
        marks: dict[str, str] = {}
        for one in opened:
            assert one.owner is not None
            marks |= self._stamps[name, one.owner.key]
        return {"marks": {file: stamp for file, stamp in marks.items() if file not in left.files}}

    def _known(self, name: str) -> dict[str, Facts]:
        """Return what was on record of a source before these partitions."""
        if name not in self._recorded:
            self._recorded[name] = late.recorded(name, self._contexts[0])
        return self._recorded[name]

    def _found(self, name: str, source: Source, context: StageContext) -> list[Arrivals]:
        """Return what was read of a source: its own files and those that it reaches, where it
        has such, else one read for all.
        """
        if partitioned(source):
            keys = reach(context.use_case, name, context.key)
            for place in [
                place for place in self._own if place[0] == name and place[1] not in keys
            ]:
                # A range goes through its files once, and holds those that one partition reaches.
                del self._own[place]
            return [self._files(name, context, key) for key in keys]
        found = self._read.get(name)
        if found is None:
            try:
                found = self._whole(name, source, context)
            except EvergreenError as error:
                found = error
            self._read[name] = found
        if isinstance(found, EvergreenError):
            raise found
        assert isinstance(found, Arrivals)
        return [found]

    def _whole(self, name: str, source: Source, context: StageContext) -> Arrivals:
        """Read a source for all these partitions, and as far back as late rows are looked for."""
        due = sorted(
            (one.period for one in self._contexts if partitions.within(source.history, one.key)),
            key=_by_key,
        )
        closed = [
            partitions.period(context.use_case, key)
            for key in sorted(self._known(name))
            if key <= due[-1].key
        ]
        near = [one for one in closed if _looked_at(source, due[0], one)]
        periods = sorted({*due, *(near if source.sql is not None else ())}, key=_by_key)
        found = Arrivals(
            name,
            context.use_case,
            read(name, context.use_case, context.settings, self._reader, periods),
        )
        if source.simulator is None:  # what follows from a rule is never late
            # Rows of a database without a time belong to the first partition, however far back that
            # is.
            near = sorted({*near, *(closed[:1] if source.sql is not None else ())}, key=_by_key)
            self._late[name] = late.look(name, context, self._known(name), [found], near)
        return found

    def _files(self, name: str, context: StageContext, key: str) -> Arrivals:
        """Return the arrivals of a partition's own files."""
        if (name, key) not in self._own:
            owner = partitions.period(context.use_case, key)
            # Before they are read: what is written meanwhile then differs from the mark, and is
            # opened again.
            self._stamps[name, key] = stamps(
                name, context.use_case, context.settings, key, self._reader
            )
            delivery = read(name, context.use_case, context.settings, self._reader, [owner])
            self._own[name, key] = Arrivals(name, context.use_case, delivery, owner)
        return self._own[name, key]

    def _behind(
        self, name: str, source: Source, context: StageContext, found: Sequence[Arrivals]
    ) -> tuple[Late, Sequence[Arrivals]]:
        """Return the late rows that a partition can see, and all that was opened: the newest one
        opens what changed.
        """
        if not partitioned(source):
            return self._late.get(name, Late()), found
        known, opened = self._known(name), list(found)
        if is_newest(context):
            seen = {
                file: stamp
                for _, fact in sorted(known.items())
                for file, stamp in fact.get("marks", {}).items()
            }
            there = {one.owner.key for one in found if one.owner is not None}
            first = max(
                (source.history or context.use_case.history).first, context.use_case.history.first
            )
            for key in partitions.between(
                context.use_case, partitions.key_within(context.use_case, first), context.key
            ):
                if key in there or not _looked_at(
                    source, context.period, partitions.period(context.use_case, key)
                ):
                    continue
                if not set(
                    stamps(name, context.use_case, context.settings, key, self._reader).items()
                ) <= set(seen.items()):
                    opened.append(self._files(name, context, key))
        oldest = min(one.owner.key for one in opened if one.owner is not None)
        closed = [
            partitions.period(context.use_case, key)
            for key in sorted(known)
            if oldest <= key <= context.key
        ]
        return late.look(name, context, known, opened, closed), opened

    def _snapshot(self, name: str, context: StageContext) -> Delivery:
        found = self._read.get(name)
        if found is None:
            found = self._read[name] = read(
                name, context.use_case, context.settings, self._reader, [context.period]
            )
        assert isinstance(found, Delivery)
        return found


def _by_key(period: Period) -> str:
    return period.key


def _looked_at(source: Source, period: Period, closed: Period) -> bool:
    """Tell whether late rows of a closed partition are looked for."""
    return source.looks_back is None or closed.as_of > period.arrival_start - source.looks_back


def _restated(
    context: StageContext,
    before: dict[str, Facts],
    facts: dict[str, Facts],
    fresh: dict[str, pa.Table],
) -> list[AuditEntry]:
    """Return the audit entry of a restatement, or refuse it."""
    changed = [
        name for name in fresh if name in before and before[name]["digest"] != facts[name]["digest"]
    ]
    entries = _declared(context, before, facts)
    if not changed:
        return entries
    differing = {name: _difference(context, name, facts[name], fresh[name]) for name in changed}
    reason, named = context.options.get("restate"), context.options.get("sources") or changed
    refused = [name for name in changed if not reason or name not in named]
    if refused:
        shown = "; ".join(f"{name}: {differing[name]}" for name in refused)
        static = "".join(
            f" --source {name}"
            for name in refused
            if context.use_case.sources[name].kind == "static"
        )
        raise RestatementRefused(
            f"{context.use_case.name} {context.key} is recorded with other rows ({shown}). The "
            "record stands. To take the new rows, say why: `evergreen run ingest_data --use-case "
            f"{context.use_case.name} --partition {context.key} --restate REASON{static}`"
        )
    sources: dict[str, Any] = {}
    for name in changed:
        sources[name] = {
            "was": before[name]["digest"],
            "is": facts[name]["digest"],
            "difference": differing[name],
        }
        if "version" in facts[name]:
            others = static_versions.knowing(name, context, facts[name]["version"])
            sources[name] |= {"version": facts[name]["version"], "stale": others}
            log.warning(
                "%s %s is restated; stale with it: %s",
                name,
                facts[name]["version"],
                ", ".join(others) or "no other",
            )
    details = {"reason": str(reason), "sources": sources}
    return [
        *entries,
        AuditEntry(
            "partition.restated",
            context.use_case.name,
            context.key,
            context.actor,
            details,
            context.started,
        ),
    ]


def _declared(
    context: StageContext, before: Mapping[str, Facts], facts: Mapping[str, Facts]
) -> list[AuditEntry]:
    """Return the audit entry of a record whose sources are others than before: the use case's
    file is the reason.
    """
    added, removed = sorted(set(facts) - set(before)), sorted(set(before) - set(facts))
    if not before or not added + removed:
        return []
    details = {"added": added, "removed": removed, "reason": "the use case declares other sources"}
    return [
        AuditEntry(
            "partition.redeclared",
            context.use_case.name,
            context.key,
            context.actor,
            details,
            context.started,
        )
    ]


def _stored(context: StageContext, name: str, fact: Facts) -> bool:
    """Tell whether the lake holds what the record says (cheaply: that there are rows where there
    should be).
    """
    return not fact["rows"] or fact.get("version", context.key) in context.lake.keys(
        context.table(f"raw/{name}")
    )


def _write(context: StageContext, name: str, fact: Facts, rows: pa.Table) -> None:
    table, key = context.table(f"raw/{name}"), fact.get("version", context.key)
    if not len(rows):
        if key not in context.lake.keys(table):
            return
        rows = context.lake.read(table, keys=[])
    context.lake.replace(table, key, rows, fence=context.fence)


def _difference(context: StageContext, name: str, fact: Facts, rows: pa.Table) -> str:
    """Return how rows differ from those on record, with samples."""
    recorded = context.lake.read(
        context.table(f"raw/{name}"), keys=[fact.get("version", context.key)]
    )
    recorded = recorded if recorded.num_columns else rows.slice(0, 0)  # the table is lost
    kept = [
        name
        for name in sorted({*rows.column_names, *recorded.column_names})
        if name not in (FILE, ROW, PARTITION)
    ]
    counts, samples = [], []
    with connect() as con:
        con.register("fresh", rows)
        con.register("known", recorded)
        chosen = {
            label: ", ".join(
                quote(name) if name in table.column_names else f"NULL AS {quote(name)}"
                for name in kept
            )
            for label, table in (("fresh", rows), ("known", recorded))
        }
        for sign, one, other in (("+", "fresh", "known"), ("-", "known", "fresh")):
            query = (
                f"SELECT {chosen[one]} FROM {one} EXCEPT ALL SELECT {chosen[other]} FROM {other}"
            )
            differing = con.sql(query).to_arrow_table()
            counts.append(f"{sign}{len(differing)}")
            samples += [f"{sign} {shown(row)}" for row in differing.slice(0, SHOWN).to_pylist()]
    return f"{' and '.join(counts)} rows, such as {' | '.join(samples)}"


STAGE = Stage(
    name=NAME,
    fields=FIELDS,
    libraries=LIBRARIES,
    inputs=inputs,
    compute=compute,
    compute_range=compute_range,
    still_valid=still_valid,
    read_back=read_back,
)
