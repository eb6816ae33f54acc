"""Curation: raw rows are typed and judged by the contract; those that fail are set aside.

Of each raw row exactly one thing becomes: a curated row, a quarantined row with the rule that it
fails, or a counted duplicate.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from include.config.use_case import UseCase
from include.config.use_case_sources import Source
from include.errors import ConfigError, SourceError
from include.ingestion.columns import FILE, ROW, ColumnDiff, column_diff
from include.lake.coded import plain, read_coded
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
from include.validation.distinct_texts import judge_texts

MANY_ROWS = 20_000  # fewer are judged as fast one by one


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
        table = f"{use_case.name}/raw/{name}"
        lake.scan(con, "raw", table, keys=keys)
        present = {row[0] for row in con.execute("DESCRIBE raw").fetchall()}
        is_large = sum(ingested[key].rows for key in keys) >= MANY_ROWS
        raw, judged = _judge(con, lake, use_case, name, keys, present, by_texts=is_large)
        judged = _mark_doubled(con, source, judged)
        counts = _count_rules(judged, keys)
        good = judged.filter(pc.is_null(judged.column(RULE)))
        decisions: dict[str, tuple[int, int]] = {}
        if name == use_case.label.source:
            decisions = _repeated(con, source, curated_name(source, use_case.entity.key), good)
        good, bad = _sorted_good(con, source, good), _bad(con, raw, judged)
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
    con: duckdb.DuckDBPyConnection,
    lake: Lake,
    use_case: UseCase,
    name: str,
    keys: Sequence[str],
    present: Collection[str],
    *,
    by_texts: bool,
) -> tuple[pa.Table, pa.Table]:
    """Return the raw rows, of which `raw` is the view, and the judged ones.

    Those are typed, each with the rule that it fails, null of a good row.
    """
    source, entity = use_case.sources[name], use_case.entity.key

    def find_mixed() -> list[tuple[str, str, bool]]:
        zones = mixed_zones_query(source, present, "raw")
        return con.execute(zones).fetchall() if zones else []

    try:
        # Texts are asked by themselves where the rows are many: it takes some queries a column. A
        # computed column hangs on a whole row, and a version of a static source is few rows.
        if by_texts and not source.computed and source.kind != "static":
            raw = read_coded(lake, f"{use_case.name}/raw/{name}", keys)
            return raw, judge_texts(con, source, raw, find_mixed, entity=entity)
        con.register("__raw", raw := con.sql("SELECT * FROM raw").to_arrow_table())
        query = judged_query(source, present, "__raw", find_mixed(), entity=entity)
        return raw, con.sql(query).to_arrow_table()
    except (
        duckdb.InvalidInputException,
        duckdb.ConversionException,
        duckdb.OutOfRangeException,
    ) as error:
        raise ConfigError(
            f"{use_case.name}, source {name}: the contract fails: {str(error).splitlines()[0]}"
        ) from None


def _mark_doubled(con: duckdb.DuckDBPyConnection, source: Source, judged: pa.Table) -> pa.Table:
    """Give good rows that repeat a key and a created time their rule; empty of an exact copy."""
    again = _same_hash(con, judged, [PARTITION, *record_key(source), CREATED])
    if not len(again):
        return judged
    con.register("__again", judged.take(again).append_column("__id", again))
    found = con.sql(doubled_query(source, "__again")).to_arrow_table()
    con.unregister("__again")
    rule = judged.column(RULE).to_numpy(zero_copy_only=False)
    conflict = found.column("__conflict").to_numpy(zero_copy_only=False)
    rule[found.column("__id").to_numpy()] = np.where(conflict, CONFLICT, DUPLICATE)
    place = judged.column_names.index(RULE)
    return judged.set_column(place, RULE, pa.array(rule, pa.string()))


def _same_hash(con: duckdb.DuckDBPyConnection, judged: pa.Table, names: Sequence[str]) -> pa.Array:
    """Return the places of good rows whose values in some columns may be those of another one.

    Equal values have equal hashes, so no other row can repeat one. To sort hashes takes a fraction
    of what it takes to group rows by the values; whether they are equal is asked of these few.
    """
    con.register("__judged", judged)
    hashes = con.sql(
        f"SELECT {RULE} IS NULL AS good, hash({', '.join(map(quote, names))}) AS h FROM __judged"
    ).to_arrow_table()
    con.unregister("__judged")
    places = np.flatnonzero(hashes.column("good").to_numpy(zero_copy_only=False))
    values = hashes.column("h").to_numpy()[places]
    ordered = np.sort(values)
    twice = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    return pa.array(places[np.isin(values, twice)] if len(twice) else places[:0])


def _repeated(
    con: duckdb.DuckDBPyConnection, source: Source, entity: str, good: pa.Table
) -> dict[str, tuple[int, int]]:
    """Return, by partition, the decisions that do not stand and those that share a moment."""
    again = _same_hash(con, good, [PARTITION, entity, EVENT])
    if not len(again):
        return {}
    con.register("__again", good.take(again))
    found = con.execute(repeated_rows(source, entity, "__again")).fetchall()
    con.unregister("__again")
    return {key: (rows, sharing) for key, rows, sharing in found}


def _count_rules(judged: pa.Table, keys: Sequence[str]) -> dict[str, dict[str | None, int]]:
    """Return the number of rows by partition and rule."""
    counts: dict[str, dict[str | None, int]] = {key: {} for key in keys}
    names = [PARTITION, RULE]
    grouped = judged.select(names).group_by(names).aggregate([([], "count_all")])
    columns = (grouped.column(name).to_pylist() for name in (*names, "count_all"))
    for key, rule, count in zip(*columns, strict=True):
        counts[key][rule] = count
    return counts


def _sorted_good(con: duckdb.DuckDBPyConnection, source: Source, good: pa.Table) -> pa.Table:
    """Return the curated rows with their partition, in an order that only content decides."""
    order = list(dict.fromkeys([PARTITION, EVENT, CREATED, *record_key(source), FILE, ROW]))
    names = [PARTITION, *curated_schema(source).names]
    con.register("__good", good)
    listed, by = (", ".join(map(quote, each)) for each in (names, order))
    rows = con.sql(f"SELECT {listed} FROM __good ORDER BY {by}").to_arrow_table()
    con.unregister("__good")
    return plain(rows)


def _bad(con: duckdb.DuckDBPyConnection, raw: pa.Table, judged: pa.Table) -> pa.Table:
    """Return the raw rows that fail a rule, with it, in the order of their files."""
    names = [PARTITION, FILE, ROW]
    is_bad = pc.fill_null(pc.not_equal(judged.column(RULE), DUPLICATE), False)
    con.register("__bad", judged.select([*names, RULE]).filter(is_bad))
    con.register("__raw", raw)
    listed = ", ".join(names)
    rows = con.sql(
        f"SELECT __raw.*, __bad.{RULE} FROM __raw JOIN __bad USING ({listed}) ORDER BY {listed}"
    ).to_arrow_table()
    con.unregister("__bad")
    return plain(rows)


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
