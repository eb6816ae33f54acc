"""When an event view's row is known to a decision: it comes with the request, or from an `as_of`
on.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

import pyarrow as pa
import pyarrow.compute as pc

from include.config.use_case import UseCase
from include.lake.sql import connect, quote
from include.lake.tables import Lake
from include.point_in_time.queries import resolve_sql, tables_in

if TYPE_CHECKING:
    from include.features.feature_sets import FeatureSet

Visible = Literal["with_request", "at_as_of"]
MOST = 0.5


def of(use_case: UseCase, name: str) -> Visible | None:
    """Return when the rows of a view are known; None for a snapshot, which is known from its own
    `as_of` on.

    Not stated, a view of what the label is made of comes with the request: its row is the
    decision's own.
    """
    view = use_case.features[name]
    if view.grain == "snapshot":
        return None
    if view.visible is not None:
        return view.visible
    decided = _sources(use_case, use_case.label.source, use_case.label.sql)
    return "with_request" if decided & _sources(use_case, view.source, view.sql) else "at_as_of"


def told(use_case: UseCase) -> Iterator[tuple[str, str]]:
    """Yield for each event view from when on its rows are known, for people."""
    for name in use_case.features:
        if (visible := of(use_case, name)) is not None:
            known = (
                "the request brings the row"
                if visible == "with_request"
                else "known from the as_of after it arrived"
            )
            yield f"view {name}", f"visible: {visible}, {known}"


def unseen(
    lake: Lake, use_case: UseCase, feature_set: FeatureSet, frame: pa.Table
) -> Iterator[str]:
    """Yield a problem for each at_as_of view that most decisions do not see although it holds a row
    of their own.

    `frame` is a training frame. Such a row is the decision's own, and the request could bring it.
    """
    for view in feature_set.views:
        if view.visible != "at_as_of" or not len(frame):
            continue
        empty = pa.array([True] * len(frame))
        for name in view.columns:
            empty = pc.and_(empty, pc.is_null(frame.column(name)).combine_chunks())
        asked = frame.select([view.key, "event_timestamp"]).filter(empty)
        if len(asked) <= MOST * len(frame):
            continue
        with connect() as con:
            lake.scan(con, "rows", view.table(use_case.name), schema=view.schema)
            con.register("asked", asked)
            query = (
                f"SELECT count(*) FROM asked SEMI JOIN rows USING ({quote(view.key)}, "
                "event_timestamp)"
            )
            own = con.execute(query).fetchone()
        if own is not None and own[0]:
            yield (
                f"{use_case.name}: view {view.name} is empty for {len(asked)} of {len(frame)} "
                f"decisions although it holds a row of the same {view.key} and moment for "
                f"{own[0]} of them; if the request brings that row, write visible: with_request "
                f"in features.{view.name}"
            )


def _sources(use_case: UseCase, source: str | None, sql: str | None) -> frozenset[str]:
    if source is not None:
        return frozenset({source})
    return tables_in(resolve_sql(use_case, str(sql)))
