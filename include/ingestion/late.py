"""Late rows: those that arrived, by their own time, in a partition that was closed before they
could be seen.

A row that a replica shows a minute after midnight, a file that comes a week later, a value that is
changed in place: nothing of it is on record, and no later partition's interval holds it. Only the
run of the newest complete partition takes such rows; they are created at the start of its arrival
interval, so no earlier `as_of` sees them, and their `source_file` says where they belong
(`late://PARTITION/FILE`). Every other run leaves them and names them. A late row whose key is on
record in its partition with other values is a correction. A copy of a row that is on record is
neither.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from include.config.use_case_sources import Source
from include.errors import SourceError
from include.ingestion.arrival import GUESSED, MICRO, Arrivals, joined, results
from include.ingestion.columns import ARRIVED, FILE, LATE, REDRIVEN, ROW, headers
from include.ingestion.values import moment
from include.lake.sql import PARTITION, TIMESTAMP, connect, quote
from include.pipeline.stage import StageContext
from include.point_in_time.partitions import Period

SHOWN = 3
_BELONGS, _CORRECTS = "__belongs", "__corrects"
Facts = dict[str, Any]


@dataclass(frozen=True)
class Late:
    """The late rows of one source, each with the closed partition that it belongs to, and whether
    it is a correction.

    `compared` are the checksums of what was offered for partitions that had to be compared row by
    row.
    """

    rows: pa.Table = field(default_factory=lambda: pa.table({}))
    compared: dict[str, str] = field(default_factory=dict)

    def of(self, key: str) -> Late:
        """Return those that belong to a partition."""
        return self._chosen(pc.equal, key)

    def before(self, key: str) -> Late:
        """Return those that belong to partitions older than one."""
        return self._chosen(pc.less, key)

    def until(self, key: str) -> Late:
        """Return those that belong to a partition or to older ones."""
        return self._chosen(pc.less_equal, key)

    def timed(self) -> Late:
        """Return those that have a readable arrival of their own; others are lines that nobody
        can place better.
        """
        return (
            Late(self.rows.filter(pc.invert(self.rows.column(GUESSED)))) if len(self.rows) else self
        )

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def corrections(self) -> int:
        """How many of them correct a row on record."""
        return int(pc.sum(self.rows.column(_CORRECTS)).as_py()) if len(self.rows) else 0

    @property
    def files(self) -> set[str]:
        """The files that they stand in."""
        return set(self.rows.column(FILE).unique().to_pylist()) if len(self.rows) else set()

    def taken(self, context: StageContext) -> pa.Table:
        """Return them as rows of the partition that takes them."""
        if not len(self):
            return self.rows
        marked = [
            f"{LATE}{key}/{file}" for key, file in zip(*self._column(_BELONGS, FILE), strict=True)
        ]
        at = np.full(
            len(self), np.datetime64(context.period.arrival_start.replace(tzinfo=None), "us")
        )
        rows = _full(self.rows.drop_columns([_BELONGS, _CORRECTS, GUESSED]))
        rows = rows.set_column(rows.column_names.index(FILE), FILE, pa.array(marked, pa.string()))
        return rows.set_column(
            rows.column_names.index(ARRIVED), ARRIVED, pa.array(at).cast(TIMESTAMP)
        )

    def facts(self) -> Facts:
        """Return their numbers and some of them, for the record."""
        kept = self.rows.slice(0, SHOWN).drop_columns([_BELONGS, _CORRECTS, GUESSED]).to_pylist()
        return {
            "rows": len(self),
            "corrections": self.corrections,
            "partitions": sorted(set(self._column(_BELONGS)[0])),
            "sample": [shown(row) for row in kept],
        }

    def _chosen(self, compare: Callable[[Any, str], Any], key: str) -> Late:
        return (
            Late(self.rows.filter(compare(self.rows.column(_BELONGS), key))) if len(self) else self
        )

    def _column(self, *names: str) -> list[list[str]]:
        return [self.rows.column(name).to_pylist() for name in names]


def look(
    name: str,
    context: StageContext,
    facts: Mapping[str, Facts],
    found: Sequence[Arrivals],
    closed: Sequence[Period],
) -> Late:
    """Return the rows of a read that belong to closed partitions and are neither on record there
    nor taken late.
    """
    source, table = context.use_case.sources[name], context.table(f"raw/{name}")
    stored = set(context.lake.keys(table)) if closed else set()
    suspects: dict[str, pa.Table] = {}
    sums: dict[str, str] = {}
    compared = {
        key: told
        for _, fact in sorted(facts.items())
        for key, told in fact.get("compared", {}).items()
    }
    for period in closed:
        key, start, end = period.key, period.arrival_start, period.as_of
        # What the lake has lost is read again, not late.
        if facts[key]["rows"] and key not in stored:
            continue
        if len(found) == 1:
            sums[key] = found[0].checksum(start, end)
            # What was last compared says more than the record: a value may be changed in place, and
            # back again.
            if sums[key] in (
                [compared[key]]
                if key in compared
                else [facts[key].get("checksum"), facts[key].get("seen")]
            ):
                continue
        rows = joined([one.between(start, end, guessed=True) for one in found])
        if len(rows):
            suspects[key] = rows.append_column(_BELONGS, pa.array([key] * len(rows), pa.string()))
    if not suspects:
        return Late()
    offered = joined(list(suspects.values()))
    known = context.lake.read(table, keys=sorted(suspects))
    mine = known.filter(own(known)) if len(known) else known
    mine = mine.append_column(_BELONGS, mine.column(PARTITION)) if len(mine) else mine
    moved = _taken(name, context, facts)
    taken = joined([pa.table({}), *(_from(moved, key) for key in sorted(suspects))])
    late = _compared(offered, [mine, taken], source).rows
    late = joined([late, _back(offered, late, taken, source)])
    return Late(late, {key: sums[key] for key in suspects if key in sums})


def _back(offered: pa.Table, late: pa.Table, taken: pa.Table, source: Source) -> pa.Table:
    """Return the rows on record that stand again where a correction stood that was taken: they
    correct that one.
    """
    names = _content(offered)
    key = [*(name for name in source.key if name in names), _BELONGS]
    if not len(taken) or len(key) == 1:
        return pa.table({})
    keys = ", ".join(map(quote, key))
    with connect() as con:
        con.register("offered", offered)
        con.register("late", late.select([*names, _BELONGS]) if len(late) else offered.slice(0, 0))
        con.register("taken", taken)
        picked = ", ".join(
            quote(name) if name in taken.column_names else f"NULL AS {quote(name)}"
            for name in [*names, _BELONGS]
        )
        return con.sql(
            # Rows that an older record took say not whose they are, and so nothing of what stands
            # again.
            f"WITH newest AS (SELECT {picked} FROM taken WHERE starts_with({FILE}, '{LATE}') "
            f"QUALIFY {PARTITION} = max({PARTITION}) OVER (PARTITION BY {keys})), still AS "
            "(SELECT n.* FROM newest AS n SEMI JOIN offered AS o ON "
            f"{_equal('n', 'o', [*names, _BELONGS])}), gone AS (SELECT {keys} FROM newest ANTI "
            f"JOIN still USING ({keys})) SELECT o.*, true AS {_CORRECTS} FROM (SELECT * FROM "
            f"offered SEMI JOIN gone USING ({keys})) AS o ANTI JOIN late AS l ON "
            f"{_equal('o', 'l', [*names, _BELONGS])}"
        ).to_arrow_table()


def _content(rows: pa.Table) -> list[str]:
    """Return the columns by which rows are compared: the source's own."""
    return [
        name
        for name in rows.column_names
        if name not in (FILE, ROW, ARRIVED, PARTITION, GUESSED, _BELONGS, _CORRECTS)
    ]


def _equal(one: str, other: str, names: Sequence[str]) -> str:
    return " AND ".join(
        f"{one}.{quote(name)} IS NOT DISTINCT FROM {other}.{quote(name)}" for name in names
    )


def standing(
    name: str, context: StageContext, facts: Mapping[str, Facts], rows: pa.Table, late: Late
) -> bool:
    """Tell whether all recorded rows of a partition are there still, but for those that late
    ones correct.
    """
    record = context.lake.read(context.table(f"raw/{name}"), keys=[context.key])
    record = record.filter(own(record)) if len(record) else record
    record = record.append_column(_BELONGS, record.column(PARTITION)) if len(record) else record
    offered = rows.append_column(_BELONGS, pa.array([context.key] * len(rows), pa.string()))
    missing = _compared(record, [offered], context.use_case.sources[name]).rows
    corrected = joined([late.rows, _from(_taken(name, context, facts), context.key)])
    return len(_without(missing, corrected, context.use_case.sources[name].key)) == 0


def kept(name: str, context: StageContext) -> pa.Table:
    """Return the late rows that a recorded partition has taken."""
    rows = context.lake.read(context.table(f"raw/{name}"), keys=[context.key])
    return _full(
        _moved(rows, context.use_case.sources[name]).drop_columns([PARTITION])
        if len(rows)
        else rows
    )


def without_taken(
    name: str, context: StageContext, facts: Mapping[str, Facts], rows: pa.Table
) -> pa.Table:
    """Return a partition's own rows but for those that came late and that another partition has
    taken.
    """
    left = minus(rows, _from(_taken(name, context, facts), context.key))
    # A column that only the taken rows fill is none of this partition's, as if they had never stood
    # there.
    declared = {*headers(context.use_case.sources[name]).values()} if len(left) else set()
    kept = {FILE, ROW, ARRIVED, *declared}
    return left.select(
        [
            name
            for name in left.column_names
            if name in kept or left.column(name).null_count < len(left)
        ]
    )


def own(rows: pa.Table) -> pa.Array:
    """Tell which rows of a partition came from its source in its own time: neither redriven nor
    late.
    """
    marked = pc.or_(
        pc.starts_with(rows.column(FILE), LATE), pc.starts_with(rows.column(FILE), REDRIVEN)
    )
    return pc.invert(marked)


def recorded(name: str, context: StageContext) -> dict[str, Facts]:
    """Return what each partition that is ingested recorded of a source that it expects."""
    done = [result for result in results(context, "ingest_data") if result.state == "done"]
    facts = {result.key: result.outputs.get("sources", {}).get(name) for result in done}
    return {
        key: fact for key, fact in facts.items() if fact is not None and fact.get("expected", True)
    }


def refusal(name: str, late: Late, context: StageContext) -> SourceError:
    """Return the error that names late rows which a source does not take."""
    told = late.facts()
    return SourceError(
        f"{context.use_case.name}, source {name}: {len(late)} rows belong to partitions that are "
        f"closed ({_listed(told)}), such as {' | '.join(told['sample'])}. Ingest the closed "
        "partition again with `--restate REASON`, or write late: next to have the newest "
        "partition take them"
    )


def told(name: str, fact: Facts) -> str:
    """Return in words what a partition's record says of late rows; empty where there were none."""
    parts = []
    if fact.get("late"):
        parts.append(
            f"{fact['late']} late rows taken ({fact.get('corrections', 0)} of them corrections)"
        )
    if waiting := fact.get("waiting"):
        parts.append(
            f"{waiting['rows']} late rows left ({waiting['corrections']} of them corrections; "
            f"{_listed(waiting)}) for the next newest partition, such as {waiting['sample'][0]}"
        )
    return f"{name}: {'; '.join(parts)}" if parts else ""


def shown(row: dict[str, Any]) -> str:
    """Return a raw row in a line."""
    inner = ", ".join(
        f"{key}={str(value)[:40]}"
        for key, value in row.items()
        if value is not None and key not in (ROW, ARRIVED)
    )
    return "{" + inner[:300] + "}"


def _full(rows: pa.Table) -> pa.Table:
    """Return rows without the columns that none of them fills, so that taken again from the lake
    they have the same digest.
    """
    return rows.select(
        [name for name in rows.column_names if rows.column(name).null_count < len(rows)]
    )


def _listed(fact: Facts) -> str:
    keys = fact["partitions"]
    return f"of {', '.join(keys[:SHOWN])}" + (
        f" and {len(keys) - SHOWN} more" if len(keys) > SHOWN else ""
    )


def _taken(name: str, context: StageContext, facts: Mapping[str, Facts]) -> pa.Table:
    """Return all rows that partitions have taken late."""
    keys = sorted(key for key, fact in facts.items() if fact.get("late"))
    rows = context.lake.read(context.table(f"raw/{name}"), keys=keys) if keys else pa.table({})
    return _moved(rows, context.use_case.sources[name])


def _from(moved: pa.Table, key: str) -> pa.Table:
    """Return those that belong to a partition; where an older record does not say to which, all
    that came after it.
    """
    if not len(moved):
        return moved
    file = moved.column(FILE)
    mine = pc.or_(pc.invert(pc.starts_with(file, LATE)), pc.starts_with(file, f"{LATE}{key}/"))
    rows = moved.filter(pc.and_(mine, pc.greater(moved.column(PARTITION), key)))
    return rows.append_column(_BELONGS, pa.array([key] * len(rows), pa.string()))


def _moved(rows: pa.Table, source: Source) -> pa.Table:
    """Return the rows that a partition took late: by their mark, or (in older records of an
    assumed arrival) by their event.
    """
    if not len(rows):
        return rows
    chosen = f"starts_with({FILE}, '{LATE}')"
    if source.assumed_lag is not None and source.event_time in rows.column_names:
        before = (
            f"{moment(source.event_time, source)} + INTERVAL {source.assumed_lag // MICRO} "
            f"MICROSECOND < {ARRIVED}"
        )
        chosen += f" OR ({before} AND NOT starts_with({FILE}, '{REDRIVEN}'))"
    with connect() as con:
        con.register("kept", rows)
        return con.sql(f"SELECT * FROM kept WHERE {chosen}").to_arrow_table()


def _compared(offered: pa.Table, known: Sequence[pa.Table], source: Source) -> Late:
    """Return the offered rows that no known one of the same partition equals by the source's
    columns.
    """
    if not len(offered):
        return Late(offered)
    names = _content(offered)
    there = [table for table in known if len(table)]
    with connect() as con:
        con.register("offered", offered.append_column("__place", pa.array(np.arange(len(offered)))))
        parts = []
        for index, table in enumerate(there):
            con.register(f"known{index}", table)
            chosen = [
                quote(name) if name in table.column_names else f"NULL AS {quote(name)}"
                for name in [*names, _BELONGS]
            ]
            parts.append(f"SELECT {', '.join(chosen)} FROM known{index}")
        nothing = f"SELECT {', '.join(map(quote, [*names, _BELONGS]))} FROM offered WHERE false"
        con.execute(f"CREATE TEMP TABLE known AS {' UNION ALL '.join([nothing, *parts])}")
        equal = _equal("o", "k", [*names, _BELONGS])
        same = " AND ".join(
            [f"o.{quote(name)} = k.{quote(name)}" for name in source.key if name in names]
            or ["false"]
        )
        belongs = f"k.{_BELONGS} = o.{_BELONGS}"
        left = con.sql(
            f"SELECT o.__place, EXISTS (SELECT 1 FROM known AS k WHERE {same} AND {belongs}) AS "
            "corrects FROM offered AS o WHERE NOT EXISTS (SELECT 1 FROM known AS k WHERE "
            f"{equal}) ORDER BY o.__place"
        ).to_arrow_table()
    return Late(offered.take(left.column(0)).append_column(_CORRECTS, left.column(1)))


def _without(rows: pa.Table, others: pa.Table, key: Iterable[str]) -> pa.Table:
    """Return the rows whose key no other row has."""
    if not len(rows) or not len(others):
        return rows
    same = [
        f"r.{quote(name)} = o.{quote(name)}"
        for name in key
        if name in rows.column_names and name in others.column_names
    ]
    with connect() as con:
        con.register("rows", rows)
        con.register("others", others)
        return con.sql(
            f"SELECT * FROM rows AS r ANTI JOIN others AS o ON {' AND '.join(same) or 'false'}"
        ).to_arrow_table()


def minus(rows: pa.Table, other: pa.Table) -> pa.Table:
    """Return the rows that are left when each row of `other` has taken an equal one (by the
    source's columns) away.
    """
    if not len(other) or not len(rows):
        return rows
    names = [name for name in rows.column_names if name not in (FILE, ROW, ARRIVED)]
    listed = ", ".join(quote(name) for name in names)
    theirs = ", ".join(
        quote(name) if name in other.column_names else f"NULL AS {quote(name)}" for name in names
    )
    place = pa.array(np.arange(len(rows)))
    with connect() as con:
        con.register("mine", rows.select(names).append_column("__place", place))
        con.register("theirs", other)
        same = " AND ".join(
            f"m.{quote(name)} IS NOT DISTINCT FROM t.{quote(name)}" for name in names
        )
        left = con.sql(
            "WITH m AS (SELECT *, "
            f"row_number() OVER (PARTITION BY {listed} ORDER BY __place) AS __copy FROM mine) "
            "SELECT m.__place FROM m "
            f"LEFT JOIN (SELECT {theirs}, count(*) AS __taken FROM theirs GROUP BY ALL) AS t "
            f"ON {same} "
            "WHERE m.__copy > coalesce(t.__taken, 0) ORDER BY m.__place"
        ).to_arrow_table()
    return rows.take(left.column(0))
