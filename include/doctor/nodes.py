"""Examine what the serving nodes have reported to the records: who lives, and how far each is."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from include.doctor.databases import records_session
from include.doctor.findings import Finding, Patient, Subject
from include.records.schema import ObservationRow, RouteRow


def examine(patient: Patient) -> Iterator[Finding]:
    """Look at each node's newest reports, and whether each champion is served by anybody."""
    with records_session(patient, "observations") as session:
        if session is not None:
            yield from _reports(Subject("nodes"), session)


def _reports(subject: Subject, session: Session) -> Iterator[Finding]:
    is_postgres = session.get_bind().dialect.name == "postgresql"
    clock = "clock_timestamp()" if is_postgres else "strftime('%Y-%m-%d %H:%M:%f', 'now')"
    living = select(ObservationRow).where(
        ObservationRow.state != "stopped", ObservationRow.expires > text(clock)
    )
    reports = list(session.scalars(living.order_by(ObservationRow.node, ObservationRow.use_case)))
    for node in sorted({one.node for one in reports}):
        bad = [
            f"{one.use_case} {one.role} {one.version} is {one.state}: {one.reason}"
            for one in reports
            if one.node == node and one.state in ("refused", "could_not")
        ]
        if bad:
            remedy = "see that node's log; `evergreen rollback` goes back to what it can load"
            yield subject.warn(node, "; ".join(bad)[:500], remedy)
        else:
            serves = sorted({one.use_case for one in reports if one.node == node})
            yield subject.ok(node, f"reports {', '.join(serves)}")
    routes = select(RouteRow).where(RouteRow.champion.is_not(None)).order_by(RouteRow.use_case)
    for route in session.scalars(routes):
        answering = [
            one
            for one in reports
            if one.use_case == route.use_case and one.role == "champion" and one.state == "serving"
        ]
        behind = [one.node for one in answering if one.version != route.champion]
        if behind:
            yield subject.warn(
                route.use_case,
                f"{', '.join(behind)}: still another model than {route.champion} answers",
                "wait some seconds; else look at that node's log",
            )
        elif not answering:
            yield subject.warn(
                route.use_case,
                f"no node that lives serves model {route.champion}",
                "start a node (`make run`, `evergreen serve`), or look at its log",
            )
