"""Curation: raw rows typed and judged by the contract, exact duplicates removed, failing rows set
aside.

Of each raw row exactly one thing becomes: a curated row, a quarantined row with the rule that it
fails, or a counted duplicate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import duckdb
import pyarrow as pa

from include.config.use_case import UseCase
from include.errors import ConfigError, SourceError
from include.ingestion.columns import FILE, ROW, ColumnDiff, column_diff
from include.lake.digests import digest
from include.lake.sql import PARTITION, connect, quote
from include.lake.tables import Lake
from include.point_in_time.curated import CREATED, EVENT, curated_name, curated_schema, record_key
from include.point_in_time.decisions import repeated_rows
from include.point_in_time.partitions import Period
from include.validation.contract import (
    CONFLICT,
    RULE,
    doubled_query,
    judged_query,
    mixed_zones_query,
)


@dataclass(frozen=True)
class Judged:
    """What became of one partition's rows of one source.

    Of the label's source, `sharing` rows share entity and moment with one of another key, and
    `repeated` of them do not stand.
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
        """Share of the rows that are decisions of an entity and moment for which another row
        stands.
        """
        return self.repeated / self.rows if self.rows else 0.0

    @property
    def bad_share(self) -> float:
        """Share of the rows that went to quarantine."""
        return len(self.quarantine) / self.rows if self.rows else 0.0


def judge(
    lake: Lake,
    use_case: UseCase,
    name: str,
    periods: Sequence[Period],
    facts: Mapping[str, Mapping[str, Any]],
) -> dict[str, Judged]:
    """Type and judge the raw rows of one source in some partitions, in one scan; `facts` is what
    ingestion recorded, by key.

    Raises:
        SourceError: the lake does not hold the rows that ingestion recorded.
        ConfigError: a regular expression or time zone of the contract is none.
    """
    source, table = use_case.sources[name], f"{use_case.name}/raw/{name}"
    keys = [period.key for period in periods if facts[period.key]["rows"]]
    found = {
        period.key: _nothing(use_case, name, facts[period.key])
        for period in periods
        if period.key not in keys
    }
    if not keys:
        return found
    with connect() as con:
        _register(con, periods)
        lake.scan(con, "raw", table, keys=keys)
        present = {row[0] for row in con.execute("DESCRIBE raw").fetchall()}
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
            f"UPDATE judged SET {RULE} = CASE WHEN d.__conflict THEN '{CONFLICT}' ELSE '' END "
            "FROM doubled AS d WHERE judged.__id = d.__id"
        )
        counts: dict[str, dict[str, int]] = {key: {} for key in keys}
        for key, rule, count in con.execute(
            f"SELECT partition, {RULE}, count(*) FROM judged GROUP BY ALL"
        ).fetchall():
            counts[key][rule] = count
        twice: dict[str, tuple[int, int]] = {}
        if name == use_case.label.source:
            asked = repeated_rows(
                source,
                curated_name(source, use_case.entity.key),
                f"(SELECT * FROM judged WHERE {RULE} IS NULL)",
            )
            twice = {key: (again, sharing) for key, again, sharing in con.execute(asked).fetchall()}
        order = ", ".join(
            dict.fromkeys([PARTITION, EVENT, CREATED, *map(quote, record_key(source)), FILE, ROW])
        )
        names = ", ".join(map(quote, [PARTITION, *curated_schema(source).names]))
        good = con.sql(
            f"SELECT {names} FROM judged WHERE {RULE} IS NULL ORDER BY {order}"
        ).to_arrow_table()
        bad = con.sql(
            f"SELECT raw.*, judged.{RULE} FROM raw JOIN judged USING (partition, {FILE}, {ROW}) "
            f"WHERE judged.{RULE} <> '' ORDER BY partition, {FILE}, {ROW}"
        ).to_arrow_table()
    curated, quarantined = _by_partition(good, keys), _by_partition(bad, keys)
    for key in keys:
        rules = {
            rule: count
            for rule, count in sorted(counts[key].items(), key=lambda pair: str(pair[0]))
            if rule
        }
        judged = Judged(
            curated[key].cast(curated_schema(source)),
            quarantined[key],
            sum(counts[key].values()),
            counts[key].get("", 0),
            *twice.get(key, (0, 0)),
            rules,
            column_diff(source, facts[key]["columns"], present),
        )
        _check(use_case, name, key, judged, facts[key])
        found[key] = judged
    return found


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


def _nothing(use_case: UseCase, name: str, fact: Mapping[str, Any]) -> Judged:
    source = use_case.sources[name]
    diff = column_diff(source, [header for header in fact["columns"] if header["columns"]])
    return Judged(curated_schema(source).empty_table(), pa.table({}), 0, 0, diff=diff)


def _register(con: duckdb.DuckDBPyConnection, periods: Sequence[Period]) -> None:
    con.register(
        "__periods",
        pa.table(
            {
                PARTITION: pa.array([period.key for period in periods], pa.string()),
                "__as_of": pa.array(
                    [period.as_of for period in periods], pa.timestamp("us", "UTC")
                ),
            }
        ),
    )


def _by_partition(rows: pa.Table, keys: Sequence[str]) -> dict[str, pa.Table]:
    """Cut rows that are sorted by partition."""
    counts = {
        pair["values"]: pair["counts"] for pair in rows.column(PARTITION).value_counts().to_pylist()
    }
    body, start, found = rows.drop_columns([PARTITION]), 0, {}
    for key in sorted(keys):
        count = counts.get(key, 0)
        found[key] = body.slice(start, count)
        start += count
    return found


def _check(use_case: UseCase, name: str, key: str, judged: Judged, fact: Mapping[str, Any]) -> None:
    out = len(judged.curated) + len(judged.quarantine) + judged.duplicates
    if judged.rows != fact["rows"] or out != judged.rows:
        raise SourceError(
            f"{use_case.name}, raw/{name} {key}: {fact['rows']} rows recorded, {judged.rows} in "
            f"the lake, {out} came out; ingest the partition again: `evergreen run ingest_data "
            f"--use-case {use_case.name} --partition {key}`"
        )
