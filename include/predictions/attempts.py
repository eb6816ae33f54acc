"""Tell requests from attempts at them: what was asked anew after a lost connection is one request.

The balancer repeats a request once on the other node, and callers repeat theirs, both under the id
of the first attempt (`x-request-id`, logged as `caller_id`). Where the first node had answered
already and its answer was lost on the way, the log has two lines. Lines of one id that ask the same
within a minute of each other are attempts at one request, numbered from 1; the caller got the last.

The nodes' segments come into the lake at different times, so the number is none of the line's own
columns: it is reckoned where lines are read.
"""

from __future__ import annotations

import duckdb

# An id alone is not enough: a caller may send one constant id, or one for each customer. Nobody
# waits longer than this to repeat a request: EVERGREEN_REQUEST_SECONDS and some pauses.
APART_SECONDS = 60


def number_attempts(con: duckdb.DuckDBPyConnection, lines: str, name: str) -> None:
    """Make a view of a table of logged lines that says of each which attempt it was (`attempt`).

    Only lines whose id occurs more than once are sorted, so that a week of a busy log costs one
    count of its ids. Mirrored requests (`outcome` *shadow*) have none: NULL.
    """
    con.execute(f"""
        CREATE OR REPLACE TEMP VIEW "{name}" AS
        WITH repeated AS (
            SELECT caller_id FROM "{lines}" WHERE outcome <> 'shadow' AND caller_id IS NOT NULL
            GROUP BY caller_id HAVING count(*) > 1
        ), begun AS (
            SELECT *, "at" - lag("at") OVER same <= INTERVAL {APART_SECONDS} SECOND AS goes_on
            FROM "{lines}" WHERE outcome <> 'shadow' AND caller_id IN (FROM repeated)
            WINDOW same AS (PARTITION BY caller_id, entity, features ORDER BY "at", segment, line)
        ), grouped AS (
            SELECT *, count(*) FILTER (goes_on IS NOT TRUE) OVER (
                PARTITION BY caller_id, entity, features ORDER BY "at", segment, line
            ) AS request FROM begun
        )
        SELECT * EXCLUDE (goes_on, request), row_number() OVER (
            PARTITION BY caller_id, entity, features, request ORDER BY "at", segment, line
        ) AS attempt FROM grouped
        UNION ALL BY NAME
        SELECT *, CASE WHEN outcome <> 'shadow' THEN 1 END AS attempt FROM "{lines}"
        WHERE outcome = 'shadow' OR caller_id IS NULL OR caller_id NOT IN (FROM repeated)
    """)
