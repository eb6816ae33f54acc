"""Examine the releases: whether one waits for a person, or a promoted model for its judgement."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import select
from sqlalchemy.orm import Session

from include.doctor.databases import records_session
from include.doctor.findings import Finding, Patient, Subject
from include.records.evidence_schema import ProbationRow
from include.records.probation_rows import OPEN
from include.records.schema import ReleaseRow


def examine(patient: Patient) -> Iterator[Finding]:
    """Look at each release that has not ended, and at each open probation."""
    subject = Subject("releases")
    with records_session(patient, "releases") as session:
        if session is not None:
            yield from _releases(subject, session)
    with records_session(patient, "probations") as session:
        if session is not None:
            yield from _probations(subject, session, patient)


def _releases(subject: Subject, session: Session) -> Iterator[Finding]:
    rows = select(ReleaseRow).where(ReleaseRow.ended_at.is_(None))
    for row in session.scalars(rows.order_by(ReleaseRow.use_case, ReleaseRow.started_at)):
        found = f"model {row.challenger} is {row.state} since {row.entered_at:%Y-%m-%d %H:%M} UTC"
        if row.paused:
            remedy = "`evergreen release unpause`, or `abort`"
            if row.state == "running":
                remedy += ": else its deadline ends it"
            yield subject.warn(row.use_case, f"{found}, paused", remedy)
        elif row.suspended:
            remedy = "`evergreen release status` has the causes; it goes on when they are over"
            yield subject.warn(row.use_case, f"{found}, suspended: the champion fails too", remedy)
        else:
            yield subject.ok(row.use_case, found)


def _probations(subject: Subject, session: Session, patient: Patient) -> Iterator[Finding]:
    rows = select(ProbationRow).where(ProbationRow.state.in_(OPEN))
    for row in session.scalars(rows.order_by(ProbationRow.use_case, ProbationRow.began_at)):
        thing = f"{row.use_case}, probation"
        if row.state == "regressed":
            found = f"model {row.version} serves and is worse than before: {row.reason}"
            yield subject.warn(thing, found, f"`evergreen rollback {row.use_case}`")
        elif row.matures_at <= patient.now():
            yield subject.warn(
                thing,
                f"model {row.version}: the outcomes of its release are mature, nobody judged it",
                f"`evergreen release probation {row.use_case} {row.version} --good` or `--bad`",
            )
        else:
            yield subject.ok(
                thing, f"model {row.version} is judged from {row.matures_at:%Y-%m-%d} on"
            )
