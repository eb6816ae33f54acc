"""The spine: mature decisions with their outcome, as known at an `as_of`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc

from include.config.use_case import UseCase
from include.features.lake_views import scan_arrived
from include.lake.sql import connect, quote
from include.lake.tables import Lake
from include.point_in_time.curated import label_schema, label_table
from include.point_in_time.sql_parts import interval_literal, timestamp_literal


@dataclass(frozen=True)
class Spine:
    """Mature decisions with their outcome as known at `as_of`.

    `rows`: entity key, event_timestamp (the decision), label_timestamp, label; by event time, then
    key. `mature`: every decision that is past the label's delay, with key, event_timestamp,
    `__censored` (it has no known outcome), `__restated` (its known outcome replaced an earlier
    one), in the same order. `immature` decisions are younger than the delay.
    """

    rows: pa.Table
    mature: pa.Table
    immature: int

    @property
    def censored(self) -> int:
        """Number of mature decisions that have no known outcome."""
        return int(pc.sum(self.mature.column("__censored")).as_py() or 0)

    @property
    def restated(self) -> int:
        """Number of rows whose known outcome replaced an earlier one."""
        return int(pc.sum(self.mature.column("__restated")).as_py() or 0)

    @property
    def censored_share(self) -> float:
        """Share of the mature decisions that have no known outcome."""
        return self.censored / len(self.mature) if len(self.mature) else 0.0


def build_spine(
    lake: Lake,
    use_case: UseCase,
    as_of: datetime,
    *,
    version: int | None = None,
    since: datetime | None = None,
) -> Spine:
    """Return the mature decisions at `as_of`, each with the newest outcome known before it.

    A row without a label says that a decision was made, or that its outcome was withdrawn.
    `version` pins the table; decisions before `since` are left out of rows and counts alike.
    """
    key, now = quote(use_case.entity.key), timestamp_literal(as_of)
    delay = interval_literal(use_case.label.delay)
    first = "" if since is None else f"AND event_timestamp >= {timestamp_literal(since)}"
    # Of the rows that exist before as_of, one whose outcome is dated later still says only that the
    # decision was made.
    pending = f"(label IS NOT NULL AND label_timestamp >= {now})"
    with connect() as con:
        scan_arrived(
            con,
            lake,
            "labels",
            label_table(lake, use_case),
            use_case,
            as_of,
            version=version,
            schema=label_schema(use_case),
        )
        con.execute(
            f"""
            CREATE TEMP TABLE decisions AS
            WITH seen AS (
                SELECT {key} AS __entity,
                    event_timestamp,
                    created_timestamp,
                    coalesce(label_timestamp, created_timestamp) AS __known_from,
                    {pending} AS __pending,
                    CASE WHEN NOT {pending} THEN label END AS __label
                FROM labels
                WHERE event_timestamp < {now} AND created_timestamp < {now} {first}
            )
            SELECT *,
                count(__label) OVER (PARTITION BY __entity, event_timestamp) AS __known,
                event_timestamp + {delay} < {now} AS __mature
            FROM seen
            -- The newest row that says something; what follows the created time decides between
            -- rows of one moment, so that the answer never depends on how they are stored.
            QUALIFY row_number() OVER (
                PARTITION BY __entity, event_timestamp
                ORDER BY __pending, created_timestamp DESC, __label IS NULL,
                    __known_from DESC, __label DESC
            ) = 1
            """
        )
        rows = con.sql(
            f"""
            SELECT __entity AS {key}, event_timestamp,
                __known_from AS label_timestamp, __label AS label
            FROM decisions
            WHERE __mature AND __label IS NOT NULL
            ORDER BY event_timestamp, __entity
            """
        ).to_arrow_table()
        mature = con.sql(
            f"""
            SELECT __entity AS {key}, event_timestamp,
                __label IS NULL AS __censored,
                __label IS NOT NULL AND __known > 1 AS __restated
            FROM decisions
            WHERE __mature
            ORDER BY event_timestamp, __entity
            """
        ).to_arrow_table()
        (immature,) = con.execute(
            "SELECT count(*) FROM decisions WHERE NOT __mature"
        ).fetchone() or (0,)
    return Spine(rows, mature, immature)
