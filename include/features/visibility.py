"""When a row of an event view is known: with the decision's request, or from an `as_of` on."""

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
# The share of decisions with an empty view above which the view is suspect.
MOST = 0.5


def visibility_of(use_case: UseCase, name: str) -> Visible | None:
    """Return when the rows of an event view are known; None for a snapshot.

    A snapshot is known from its own `as_of` on. Where the use case does not say, a view of what the
    label is made of comes with the request: its row is the decision's own.
    """
    view = use_case.features[name]
    if view.grain == "snapshot":
        return None
    if view.visible is not None:
        return view.visible
    label_sources = _sources(use_case, use_case.label.source, use_case.label.sql)
    view_sources = _sources(use_case, view.source, view.sql)
    return "with_request" if label_sources & view_sources else "at_as_of"


def describe_visibility(use_case: UseCase) -> Iterator[tuple[str, str]]:
    """Yield each event view with a sentence for people that says when its rows are known."""
    for name in use_case.features:
        if (visible := visibility_of(use_case, name)) is not None:
            meaning = (
                "the request brings the row"
                if visible == "with_request"
                else "known from the as_of after it arrived"
            )
            yield f"view {name}", f"visible: {visible}, {meaning}"


def find_unseen_rows(
    lake: Lake, use_case: UseCase, feature_set: FeatureSet, frame: pa.Table
) -> Iterator[str]:
    """Yield a problem for each at_as_of view that hides rows which the request could bring.

    That is a view which is empty for most decisions of `frame`, a training frame, although it holds
    a row of the same entity and moment as some of them: the decision's own.
    """
    for view in feature_set.views:
        if view.visible != "at_as_of" or not len(frame):
            continue
        empty = pa.array([True] * len(frame))
        for name in view.columns:
            empty = pc.and_(empty, pc.is_null(frame.column(name)).combine_chunks())
        unanswered = frame.select([view.key, "event_timestamp"]).filter(empty)
        if len(unanswered) <= MOST * len(frame):
            continue
        with connect() as con:
            lake.scan(con, "rows", view.table(use_case.name), schema=view.schema)
            con.register("unanswered", unanswered)
            (hidden,) = con.execute(
                "SELECT count(*) FROM unanswered "
                f"SEMI JOIN rows USING ({quote(view.key)}, event_timestamp)"
            ).fetchone() or (0,)
        if hidden:
            yield (
                f"{use_case.name}: view {view.name} is empty for {len(unanswered)} of {len(frame)} "
                f"decisions although it holds a row of the same {view.key} and moment for "
                f"{hidden} of them; if the request brings that row, write visible: with_request "
                f"in features.{view.name}"
            )


def _sources(use_case: UseCase, source: str | None, sql: str | None) -> frozenset[str]:
    """Return the sources that a view or a label is made of."""
    if source is not None:
        return frozenset({source})
    return tables_in(resolve_sql(use_case, str(sql)))
