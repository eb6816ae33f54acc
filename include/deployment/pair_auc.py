"""Measure the loss of AUC on the answers that both models scored and whose outcome is known.

Pairs are lines of the log: what was answered, and the shadow line with its request's id. An outcome
belongs to the answer that was nearest to its decision, both of the same entity and within a day:
callers send no number of their decision, and ask some time before or after it happens. An answer
has at most one outcome, and an outcome one answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from include.config.settings import Settings
from include.config.use_case import UseCase
from include.deployment.sequential import Ratio
from include.features.spine import build_spine
from include.lake.sql import connect
from include.lake.tables import Lake
from include.models.metrics import MIN_ENTITIES, Z95, auc, auc_difference, codes_of
from include.predictions.entity_hash import entity_hasher
from include.predictions.import_segments import TABLE
from include.predictions.reading import SCHEMA
from include.records.records import Release

NEAR = timedelta(days=1)  # between a request and its decision
# Of each outcome; the error of fewer is itself so uncertain that the far tails by which a release
# is judged say nothing.
LEAST_ENTITIES = 50


@dataclass(frozen=True)
class PairAuc:
    """What both models are worth on pairs, and how much less the challenger is."""

    champion: float
    challenger: float
    loss: Ratio
    pairs: int
    entities: int


def measure(
    settings: Settings, lake: Lake, use_case: UseCase, release: Release, as_of: datetime
) -> PairAuc | str:
    """Return the loss of AUC on the pairs of a release, by outcomes that were known at `as_of`.

    A text says why it is not known.

    Raises:
        SourceError: the lake cannot be read.
    """
    matures = release.started_at + use_case.label.delay
    if as_of <= matures:
        return f"its first outcomes are mature on {matures:%Y-%m-%d %H:%M} UTC"
    outcomes = _outcomes(settings, lake, use_case, release.started_at - NEAR, as_of)
    with connect() as con:
        pairs = _matched(con, lake, use_case.name, release, outcomes, as_of)
    return of_pairs(*(pairs[name] for name in ("entity", "label", "champion", "challenger")))


def of_pairs(
    entities: NDArray[np.object_],
    labels: NDArray[np.float64],
    champion: NDArray[np.float64],
    challenger: NDArray[np.float64],
) -> PairAuc | str:
    """Return the loss of AUC on pairs, its error by entities; a text says why it is not known."""
    codes = codes_of(entities) if len(entities) else np.empty(0, np.int64)
    by_outcome = [np.bincount(codes[labels == one]) for one in (1.0, 0.0)]
    counts = [int((each > 0).sum()) for each in by_outcome]
    least = max(LEAST_ENTITIES, MIN_ENTITIES)
    if min(counts) < least:
        return (
            f"of {len(labels)} pairs the outcome is mature: of {counts[0]} entities it is 1, of "
            f"{counts[1]} 0, and {least} of each are needed"
        )
    found = auc_difference(labels, champion, challenger, codes)
    error = (found.high - found.low) / (2 * Z95)
    # As many of equal weight as the entities of the scarcer outcome amount to.
    df = min(float(each.sum()) ** 2 / float(np.square(each).sum()) for each in by_outcome) - 1
    loss = Ratio(np.asarray(found.value), np.asarray(error), np.asarray(df))
    return PairAuc(
        auc(labels, champion), auc(labels, challenger), loss, len(labels), int(codes.max()) + 1
    )


def _outcomes(
    settings: Settings, lake: Lake, use_case: UseCase, since: datetime, as_of: datetime
) -> pa.Table:
    """Return mature outcomes: entity as the log names it, moment of the decision, label."""
    rows = build_spine(lake, use_case, as_of, since=since).rows
    entity = rows.column(use_case.entity.key).cast(pa.string())
    if use_case.hashes_entity:
        name_of = entity_hasher(settings.entity_secret.get_secret_value())
        entity = pa.array([name_of(each) for each in entity.to_pylist()], pa.string())
    decided = rows.column("event_timestamp")
    return pa.table({"entity": entity, "decided": decided, "label": rows.column("label")})


def _matched(
    con: duckdb.DuckDBPyConnection,
    lake: Lake,
    use_case: str,
    release: Release,
    outcomes: pa.Table,
    as_of: datetime,
) -> dict[str, NDArray[Any]]:
    """Return the pairs whose outcome is known: entity, label and both scores."""
    days = (f"{release.started_at:%Y-%m-%d}", f"{as_of:%Y-%m-%d}")
    lake.scan(con, "logged", f"{use_case}/{TABLE}", schema=SCHEMA, since=days[0], until=days[1])
    con.register("outcomes", outcomes)
    # By version and not by arm: whichever model answered, its shadow is the other one's.
    found: dict[str, NDArray[Any]] = con.execute(
        """
        WITH scored AS (
            SELECT request_id, entity, "at", version, score, outcome
            FROM logged
            WHERE release = $release AND score IS NOT NULL AND entity IS NOT NULL
                AND version IN ($champion, $challenger) AND "at" < $until
        ), pairs AS (
            SELECT a.request_id, a.entity, a."at",
                CASE WHEN a.version = $champion THEN a.score ELSE s.score END AS champion,
                CASE WHEN a.version = $champion THEN s.score ELSE a.score END AS challenger
            FROM scored a
            JOIN scored s ON s.request_id = a.request_id AND s.entity = a.entity
                AND s.version <> a.version
                AND a.outcome = 'answered' AND s.outcome = 'shadow'
        ), near AS (
            SELECT p.*, o.decided, o.label, abs(epoch_us(p."at") - epoch_us(o.decided)) AS away
            FROM pairs p
            JOIN outcomes o ON o.entity = p.entity
                AND p."at" BETWEEN o.decided - to_microseconds($near)
                AND o.decided + to_microseconds($near)
            -- Each is the other's nearest.
            QUALIFY row_number() OVER (PARTITION BY request_id ORDER BY away, decided) = 1
                AND row_number() OVER (
                    PARTITION BY p.entity, o.decided ORDER BY away, request_id
                ) = 1
        )
        SELECT entity, label::DOUBLE AS label, champion, challenger FROM near
        ORDER BY entity, request_id
        """,
        {
            "release": release.id,
            "champion": release.champion,
            "challenger": release.challenger,
            "until": as_of,
            "near": NEAR // timedelta(microseconds=1),
        },
    ).fetchnumpy()
    return found
