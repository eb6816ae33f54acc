"""Curation: raw rows are typed and judged by the contract; those that fail are set aside.

Of each raw row exactly one thing becomes: a curated row, a quarantined row with the rule that it
fails, or a counted duplicate.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import duckdb
import pyarrow as pa

from include.config.use_case import UseCase
from include.config.use_case_sources import Source
from include.errors import ConfigError, SourceError
from include.ingestion.columns import FILE, ROW, ColumnDiff, column_diff
from include.lake.digests import digest
from include.lake.sql import PARTITION, TIMESTAMP, connect, quote
from include.lake.tables import Lake
from include.pipeline.ingest_outputs import IngestedSource
from include.point_in_time.curated import CREATED, EVENT, curated_name, curated_schema, record_key
from include.point_in_time.decisions import repeated_rows
from include.point_in_time.partitions import Period
from include.validation.contract import (
    CONFLICT,
    DUPLICATE,
    RULE,
    doubled_query,
    judged_query,
    mixed_zones_query,
)


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
    with connect() as con:
        con.register("__periods", periods_table(periods))
        lake.scan(con, "raw", f"{use_case.name}/raw/{name}", keys=keys)
        present = {row[0] for row in con.execute("DESCRIBE raw").fetchall()}
        _judge(con, use_case, name, present)
        counts = _count_rules(con, keys)
        decisions: dict[str, tuple[int, int]] = {}
        if name == use_case.label.source:
            query = repeated_rows(
                source,
                curated_name(source, use_case.entity.key),
                f"(SELECT * FROM judged WHERE {RULE} IS NULL)",
            )
            decisions = {
                key: (again, sharing) for key, again, sharing in con.execute(query).fetchall()
            }
        good, bad = _read_good(con, source), _read_bad(con)
    good_rows, bad_rows = _by_partition(good, keys), _by_partition(bad, keys)
    for key in keys:
        rules = sorted(
            (rule, count) for rule, count in counts[key].items() if rule not in (None, DUPLICATE)
        )
        rows = CuratedRows(
            good_rows[key].cast(curated_schema(source)),
            bad_rows[key],
            sum(counts[key].values()),
            counts[key].get(DUPLICATE, 0),
            *decisions.get(key, (0, 0)),
            dict(rules),
            column_diff(source, ingested[key].columns, present),
        )
        _check_counts(use_case, name, key, rows, ingested[key].rows)
        curated[key] = rows
    return curated


def periods_table(periods: Sequence[Period]) -> pa.Table:
    """Return the table `__periods` that the contract's query reads: partition, __as_of."""
    return pa.table(
        {
            PARTITION: pa.array([period.key for period in periods], pa.string()),
            "__as_of": pa.array([period.as_of for period in periods], TIMESTAMP),
        }
    )


def _judge(
    con: duckdb.DuckDBPyConnection, use_case: UseCase, name: str, present: Collection[str]
) -> None:
    """Make the table `judged` of the view `raw`: typed rows, each with the rule that it fails.

    The rule is null of a good row and empty of an exact duplicate.
    """
    source = use_case.sources[name]
    try:
        zones = mixed_zones_query(source, present, "raw")
        mixed = con.execute(zones).fetchall() if zones else []
        query = judged_query(source, present, "raw", mixed, entity=use_case.entity.key)
        # Numbered by us: a source may have a column `rowid`, which hides DuckDB's own.
        con.execute(
            f"CREATE TEMP TABLE judged AS SELECT *, row_number() OVER () AS __id FROM ({query})"
        )
    except (
        duckdb.InvalidInputException,
        duckdb.ConversionException,
        duckdb.OutOfRangeException,
    ) as error:
        raise ConfigError(
            f"{use_case.name}, source {name}: the contract fails: {str(error).splitlines()[0]}"
        ) from None
    con.execute(f"CREATE TEMP TABLE doubled AS {doubled_query(source, 'judged')}")
    con.execute(
        f"UPDATE judged SET {RULE} = CASE WHEN d.__conflict THEN '{CONFLICT}' ELSE '{DUPLICATE}' "
        "END FROM doubled AS d WHERE judged.__id = d.__id"
    )


def _count_rules(
    con: duckdb.DuckDBPyConnection, keys: Sequence[str]
) -> dict[str, dict[str | None, int]]:
    """Return the number of rows by partition and rule."""
    counts: dict[str, dict[str | None, int]] = {key: {} for key in keys}
    query = f"SELECT {PARTITION}, {RULE}, count(*) FROM judged GROUP BY ALL"
    for key, rule, count in con.execute(query).fetchall():
        counts[key][rule] = count
    return counts


def _read_good(con: duckdb.DuckDBPyConnection, source: Source) -> pa.Table:
    """Return the curated rows with their partition, in an order that only content decides."""
    order = [PARTITION, EVENT, CREATED, *map(quote, record_key(source)), FILE, ROW]
    names = ", ".join(map(quote, [PARTITION, *curated_schema(source).names]))
    return con.sql(
        f"SELECT {names} FROM judged WHERE {RULE} IS NULL ORDER BY "
        f"{', '.join(dict.fromkeys(order))}"
    ).to_arrow_table()


def _read_bad(con: duckdb.DuckDBPyConnection) -> pa.Table:
    """Return the raw rows that fail a rule, with it, in the order of their files."""
    return con.sql(
        f"SELECT raw.*, judged.{RULE} FROM raw JOIN judged USING ({PARTITION}, {FILE}, {ROW}) "
        f"WHERE judged.{RULE} <> '{DUPLICATE}' ORDER BY {PARTITION}, {FILE}, {ROW}"
    ).to_arrow_table()


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


def _no_rows(source: Source, ingested: IngestedSource) -> CuratedRows:
    diff = column_diff(source, [header for header in ingested.columns if header.columns])
    return CuratedRows(curated_schema(source).empty_table(), pa.table({}), 0, 0, diff=diff)


def _by_partition(rows: pa.Table, keys: Sequence[str]) -> dict[str, pa.Table]:
    """Cut rows that are sorted by partition."""
    counts = {
        pair["values"]: pair["counts"] for pair in rows.column(PARTITION).value_counts().to_pylist()
    }
    body, start, parts = rows.drop_columns([PARTITION]), 0, {}
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
