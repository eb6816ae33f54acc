"""Curation: raw rows are typed and judged by the contract; those that fail are set aside.

Of each raw row exactly one thing becomes: a curated row, a quarantined row with the rule that it
fails, or a counted duplicate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from include.config.use_case import UseCase
from include.config.use_case_sources import Source
from include.errors import SourceError
from include.ingestion.columns import FILE, ROW, ColumnDiff, column_diff
from include.lake.coded import plain, read_coded
from include.lake.digests import digest
from include.lake.ordering import is_ordered
from include.lake.sql import PARTITION, connect, quote
from include.lake.tables import Lake
from include.pipeline.ingest_outputs import IngestedSource
from include.point_in_time.curated import CREATED, EVENT, curated_name, curated_schema, record_key
from include.point_in_time.partitions import Period
from include.validation.duplicates import (
    DUPLICATE,
    count_repeated,
    find_repeated_keys,
    mark_doubled,
    part_versions,
)
from include.validation.judged_rows import arrivals_of, judge_rows
from include.validation.judgement import RULE


@dataclass(frozen=True)
class CuratedRows:
    """What became of one partition's rows of one source.

    `rules` counts the quarantined rows by the rule that they fail. Of the label's source, `sharing`
    rows share entity and moment with one of another key, and `repeated` of them do not stand.
    """

    curated: pa.Table
    quarantine: pa.Table
    rows: int
    duplicates: int
    repeated: int = 0
    sharing: int = 0
    rules: Mapping[str, int] = field(default_factory=dict)
    diff: ColumnDiff = field(default_factory=ColumnDiff)

    @property
    def repeated_share(self) -> float:
        """Share of the rows that are decisions for whose entity and moment another row stands."""
        return self.repeated / self.rows if self.rows else 0.0

    @property
    def bad_share(self) -> float:
        """Share of the rows that went to quarantine."""
        return len(self.quarantine) / self.rows if self.rows else 0.0


def curate(
    lake: Lake,
    use_case: UseCase,
    name: str,
    periods: Sequence[Period],
    ingested: Mapping[str, IngestedSource],
) -> dict[str, CuratedRows]:
    """Type and judge the raw rows of one source in some partitions, in one scan.

    `ingested` is what ingestion recorded of the source, by partition.

    Raises:
        SourceError: the lake does not hold the rows that ingestion recorded.
        ConfigError: a regular expression or time zone of the contract is none.
    """
    source = use_case.sources[name]
    keys = [period.key for period in periods if ingested[period.key].rows]
    curated = {
        period.key: _no_rows(source, ingested[period.key])
        for period in periods
        if period.key not in keys
    }
    if not keys:
        return curated
    raw = read_coded(lake, f"{use_case.name}/raw/{name}", keys, number=ROW, of=FILE)
    decisions: dict[str, tuple[int, int]] = {}
    with connect() as con:
        judged = judge_rows(con, use_case, name, raw, periods)
        rows = _beside(raw, judged.drop_columns([RULE]))
        again = find_repeated_keys(con, source, rows, judged.column(RULE))
        rows = part_versions(
            con, source, rows, again, partial(arrivals_of, con, source, raw, again)
        )
        rule = mark_doubled(con, source, rows, judged.column(RULE), again)
        good = np.flatnonzero(rule.is_null())
        if name == use_case.label.source:
            entity = curated_name(source, use_case.entity.key)
            decisions = count_repeated(con, source, entity, rows, good)
        good_rows = _take_sorted(con, source, rows, good)
    bad_rows = _quarantine(raw, rule)
    is_copy = pc.fill_null(pc.equal(rule, DUPLICATE), False)
    came, copies = _count(raw), _count(raw.select([PARTITION]).filter(is_copy))
    good_by_key, bad_by_key = _by_partition(good_rows, keys), _by_partition(bad_rows, keys)
    for key in keys:
        bad = bad_by_key[key]
        kept = CuratedRows(
            good_by_key[key],
            bad,
            came.get(key, 0),
            copies.get(key, 0),
            *decisions.get(key, (0, 0)),
            dict(sorted(_count(bad, RULE).items())),
            column_diff(source, ingested[key].columns, raw.column_names),
        )
        _check_counts(use_case, name, key, kept, ingested[key].rows)
        curated[key] = kept
    return curated


def curated_digest(rows: pa.Table, use_case: UseCase, name: str) -> str:
    """Return the digest of curated rows."""
    return digest(
        rows,
        sort_by=[
            EVENT,
            CREATED,
            *(c for c in record_key(use_case.sources[name]) if c not in (EVENT, CREATED)),
        ],
    )


def _beside(raw: pa.Table, values: pa.Table) -> pa.Table:
    """Return curated values with what says which raw rows they are of."""
    rows = raw.select([PARTITION, FILE, ROW])
    for name in values.column_names:
        rows = rows.append_column(name, values.column(name))
    return rows


def _take_sorted(
    con: duckdb.DuckDBPyConnection, source: Source, rows: pa.Table, good: Any
) -> pa.Table:
    """Return the curated rows with their partition, in an order that only content decides.

    `good` are their places. Rows that are in order, as they nearly are where a source writes them
    by their times, are not sorted.
    """
    order = list(dict.fromkeys([PARTITION, EVENT, CREATED, *record_key(source), FILE, ROW]))
    places = None if len(good) == len(rows) else pa.array(good)

    def chosen(name: str) -> pa.ChunkedArray:
        return rows.column(name) if places is None else rows.column(name).take(places)

    if not is_ordered(map(chosen, order)):
        by = pa.table({name: chosen(name) for name in order})
        con.register("__by", by.append_column("__place", pa.array(good)))
        query = f"SELECT __place FROM __by ORDER BY {', '.join(map(quote, order))}"
        places = con.sql(query).to_arrow_table().column("__place").combine_chunks()
        con.unregister("__by")
    # One column after the other: what is taken of each is given back once it is decoded.
    columns = {
        field.name: plain(chosen(field.name)).cast(field.type) for field in curated_schema(source)
    }
    return pa.table(columns | {PARTITION: chosen(PARTITION)})


def _quarantine(raw: pa.Table, rule: pa.ChunkedArray) -> pa.Table:
    """Return the raw rows that fail a rule, with it, in the order of their files."""
    is_bad = pc.fill_null(pc.not_equal(rule, DUPLICATE), False)
    bad = raw.filter(is_bad).append_column(RULE, rule.filter(is_bad))
    bad = pa.table({name: plain(bad.column(name)) for name in bad.column_names})
    return bad.sort_by([(name, "ascending") for name in (PARTITION, FILE, ROW)])


def _no_rows(source: Source, ingested: IngestedSource) -> CuratedRows:
    diff = column_diff(source, [header for header in ingested.columns if header.columns])
    return CuratedRows(curated_schema(source).empty_table(), pa.table({}), 0, 0, diff=diff)


def _count(rows: pa.Table, name: str = PARTITION) -> dict[str, int]:
    """Return the number of rows by partition, or by the values of another column."""
    if name not in rows.column_names:
        return {}
    counted = pc.value_counts(rows.column(name)).to_pylist()
    return {pair["values"]: pair["counts"] for pair in counted}


def _by_partition(rows: pa.Table, keys: Sequence[str]) -> dict[str, pa.Table]:
    """Cut rows that are sorted by partition."""
    counts, body = _count(rows), rows.drop_columns([PARTITION])
    start, parts = 0, {}
    for key in sorted(keys):
        count = counts.get(key, 0)
        parts[key] = body.slice(start, count)
        start += count
    return parts


def _check_counts(use_case: UseCase, name: str, key: str, rows: CuratedRows, recorded: int) -> None:
    """Refuse rows of which some came from nowhere, or went nowhere."""
    out = len(rows.curated) + len(rows.quarantine) + rows.duplicates
    if rows.rows != recorded or out != rows.rows:
        raise SourceError(
            f"{use_case.name}, raw/{name} {key}: {recorded} rows recorded, {rows.rows} in "
            f"the lake, {out} came out; ingest the partition again: `evergreen run ingest_data "
            f"--use-case {use_case.name} --partition {key}`"
        )
