"""The rows of a table judged by a drafted contract, as validation will judge them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

from include.config.use_case_sources import Source
from include.ingestion.columns import MALFORMED
from include.ingestion.columns import headers as headers_of
from include.ingestion.computed import moment_query
from include.validation.contract import judged_query, mixed_zones_query
from include.validation.judgement import RULE

if TYPE_CHECKING:
    import duckdb


MOST_BAD = 0.05  # of a partition's rows, above which the history rather begins behind it


@dataclass(frozen=True, slots=True)
class Worst:
    """The partition of a table with the greatest share of rows that go to quarantine.

    `early` is the last of the first partitions that would block by themselves, where they hold few
    of all rows and no later one would: a history may begin behind it.
    """

    share: float
    bad: int
    rows: int
    rules: tuple[tuple[str, int], ...]
    early: date | None = None


def find_worst(
    con: duckdb.DuckDBPyConnection,
    headers: Sequence[str],
    with_broken: bool,
    source: Source,
    cadence: str,
    entity: str | None,
    within: tuple[date, date] | None = None,
) -> Worst:
    """Return the partition with most bad rows of the table `delivered`, whose columns are h_0, h_1.

    `with_broken` says that lines which could not be split are among its rows, `within` which
    partitions count: from the first to the last.
    """
    from include.lake.sql import quote

    names = headers_of(source)
    index = {header: place for place, header in enumerate(headers)}
    picked = "".join(
        f", {quote(f'h_{index[header]}')} AS {quote(name)}" for header, name in names.items()
    )
    present = {*names.values()}
    if source.row_digest is not None:
        # Ids that differ are enough: whose digest they are is no matter here.
        picked += f", CAST(row AS VARCHAR) AS {quote(source.row_digest)}"
        present.add(source.row_digest)
    if with_broken:
        picked += f", {MALFORMED}"
        present.add(MALFORMED)
    con.execute(
        "CREATE OR REPLACE TEMP TABLE __named AS SELECT '' AS source_file, row AS source_row"
        f"{picked} FROM delivered"
    )
    time = source.arrival if source.assumed_lag is None else source.event_time
    when = moment_query(time, source, present, "__named")
    # As ingestion does it: a row without a readable time takes that of the nearest earlier row,
    # else of the first later one.
    arrived = (
        "coalesce(last_value(moment IGNORE NULLS) OVER (ORDER BY source_row), "
        "first_value(moment IGNORE NULLS) OVER (ORDER BY source_row ROWS BETWEEN CURRENT ROW "
        "AND UNBOUNDED FOLLOWING), TIMESTAMPTZ '1970-01-01 00:00:00+00')"
    )
    times = (
        f"SELECT * EXCLUDE (moment), {arrived} AS arrived_at FROM __named POSITIONAL JOIN ({when})"
    )
    con.execute(
        f"CREATE OR REPLACE TEMP TABLE __rows AS SELECT strftime(date_trunc('{cadence}', "
        f"arrived_at), '%Y-%m-%d') AS partition, * FROM ({times})"
    )
    if within is not None:
        con.execute(
            "DELETE FROM __rows WHERE partition NOT BETWEEN ? AND ?", list(map(str, within))
        )
    con.execute(
        "CREATE OR REPLACE TEMP TABLE __periods AS SELECT DISTINCT partition, TIMESTAMPTZ "
        "'2262-04-11' AS __as_of FROM __rows"
    )
    zones = mixed_zones_query(source, present, "__rows")
    mixed = con.execute(zones).fetchall() if zones else []
    con.execute(
        "CREATE OR REPLACE TEMP TABLE __judged AS "
        f"{judged_query(source, present, '__rows', mixed, entity=entity)}"
    )
    counts = con.execute(
        f"SELECT count({RULE}), count(*), partition FROM __judged GROUP BY partition ORDER BY "
        f"count({RULE}) / count(*) DESC, partition"
    ).fetchall()
    if not counts:
        return Worst(0.0, 0, 0, ())
    rules = con.execute(
        f"SELECT {RULE}, count(*) FROM __judged WHERE {RULE} IS NOT NULL GROUP BY ALL ORDER "
        "BY 2 DESC, 1 LIMIT 3"
    ).fetchall()
    bad, count, _ = counts[0]
    blocking = [key for failed, rows, key in counts if failed / rows > MOST_BAD]
    before = sum(rows for _, rows, key in counts if blocking and key <= max(blocking))
    is_early = blocking and before <= MOST_BAD * sum(rows for _, rows, _ in counts)
    return Worst(
        bad / count,
        bad,
        count,
        tuple((str(rule), int(number)) for rule, number in rules),
        date.fromisoformat(max(blocking)) if is_early else None,
    )
