"""Raw rows judged by the contract: each gets its typed values, and the first rule that it fails."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from include.config.use_case import UseCase
from include.config.use_case_sources import Source
from include.errors import ConfigError
from include.ingestion.computed import moment_query
from include.lake.coded import one_chunk, plain
from include.lake.sql import PARTITION, TIMESTAMP
from include.point_in_time.curated import curated_schema
from include.point_in_time.partitions import Period
from include.validation.cell_rules import Mixed
from include.validation.contract import iso_times, mixed_zones_query
from include.validation.distinct_texts import Told, ask_texts
from include.validation.judgement import AS_OF, RULE, VALUE, judgement

MANY_ROWS = 20_000  # fewer are judged as fast row by row: distinct texts take two queries a column


def judge_rows(
    con: duckdb.DuckDBPyConnection,
    use_case: UseCase,
    name: str,
    raw: pa.Table,
    periods: Sequence[Period],
) -> pa.Table:
    """Return the curated values of a source's raw rows and their `rule`, in the same order.

    `raw` are rows of the periods' partitions, as `read_coded` gives them; values may be
    dictionaries, too. The rule of a good row is null.

    Raises:
        ConfigError: a regular expression or time zone of the contract is none.
    """
    source, present, entity = use_case.sources[name], raw.column_names, use_case.entity.key
    dated = raw.append_column(AS_OF, _as_of(raw, periods))
    con.register("__raw", dated)

    def find_mixed() -> Mixed:
        zones = mixed_zones_query(source, _not_all_in_utc(source, raw), "__raw")
        return con.execute(zones).fetchall() if zones else []

    try:
        told = Told()
        if len(raw) < MANY_ROWS:
            query = judgement(source, present, find_mixed(), entity=entity).query("__raw")
        else:
            judged = judgement(source, present, entity=entity)
            told = ask_texts(con, judged, raw)
            if told.has_both_zones:
                judged = judgement(source, present, find_mixed(), entity=entity)
            # Beside the rows and not joined to them: a join keeps no order.
            kept = {each: dated.column(each) for each in (*judged.kept, AS_OF)}
            con.register("__told", pa.table(kept | told.columns))
            query = judged.query("__told", told=told.columns, passed=told.passed)
        by_row = con.sql(query).to_arrow_table()
    except (
        duckdb.InvalidInputException,
        duckdb.ConversionException,
        duckdb.OutOfRangeException,
    ) as error:
        raise ConfigError(
            f"{use_case.name}, source {name}: the contract fails: {str(error).splitlines()[0]}"
        ) from None
    by_name = {of.removeprefix(VALUE): column for of, column in told.columns.items()}
    by_name |= dict(zip(by_row.column_names, by_row.columns, strict=True))
    return pa.table({each: by_name[each] for each in (*curated_schema(source).names, RULE)})


def arrivals_of(
    con: duckdb.DuckDBPyConnection, source: Source, raw: pa.Table, places: Any
) -> pa.ChunkedArray:
    """Return when some raw rows of events had arrived by themselves, whoever has taken them since.

    Where the arrival is assumed that follows from the event, which is then returned.
    """
    assumed = source.assumed_lag is not None
    column = source.event_time if assumed else source.arrival
    few = raw.take(pa.array(places))
    few = pa.table({name: plain(few.column(name)) for name in few.column_names})
    con.register("__few", few)
    query = moment_query(str(column), source, few.column_names, "__few")
    moments = con.sql(query).to_arrow_table().column("moment")
    con.unregister("__few")
    return moments


def _not_all_in_utc(source: Source, raw: pa.Table) -> list[str]:
    """Return the columns of times whose texts do not all end in Z, and which may so mix zones.

    To plan the query that looks closer takes longer than to look at the ends of a day's texts.
    """
    return [
        name
        for name in iso_times(source)
        if name in raw.column_names
        and not pc.all(pc.ends_with(plain(raw.column(name)), "Z")).as_py()
    ]


def _as_of(raw: pa.Table, periods: Sequence[Period]) -> pa.Array:
    """Return the `as_of` of each row's partition."""
    moments = {period.key: period.as_of for period in periods}
    partition = one_chunk(raw.column(PARTITION))
    as_of = pa.array([moments[key] for key in partition.dictionary.to_pylist()], TIMESTAMP)
    return pa.DictionaryArray.from_arrays(partition.indices, as_of)
