"""Move a probation from a promotion to its end.

Each move is one transaction with its audit row, under the lock of the routing row: so no promotion
and no rollback comes in between. None moves anybody's traffic. What a calendar and the records say
exactly is done by `review`; how the cohort fared is for whoever judges it.
"""

from __future__ import annotations

import dataclasses
from datetime import timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from include.errors import Conflict
from include.records import audit
from include.records.audit import AuditEntry, with_once
from include.records.database import Database
from include.records.evidence_schema import ProbationRow
from include.records.models import last_good, models_of
from include.records.probation_rows import OPEN, Probation, ProbationState, open_rows
from include.records.route_changes import apply, decide, set_state
from include.records.rows import database_now, locked, plain
from include.records.schema import ModelRow, RouteRow

LAPSES = timedelta(days=90)  # after its outcomes were mature; else its artefacts stay for ever


class Probations:
    """The probations of all use cases."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def of(self, use_case: str, limit: int = 20) -> list[Probation]:
        """Return the newest probations of a use case, the newest first."""
        rows = select(ProbationRow).where(ProbationRow.use_case == use_case)
        order = rows.order_by(ProbationRow.began_at.desc(), ProbationRow.release_id).limit(limit)
        return self._database.read(
            lambda session: [plain(Probation, row) for row in session.scalars(order)]
        )

    def open(self, use_case: str) -> list[Probation]:
        """Return the probations that have not ended, the oldest first."""
        return self._database.read(
            lambda session: [plain(Probation, row) for row in open_rows(session, use_case)]
        )

    def review(self, use_case: str, entry: AuditEntry) -> list[Probation]:
        """Move the probations as calendar and records say exactly; return those that have moved.

        What is held was rolled back; what is mature is due; what has regressed and was replaced is
        not good; what nobody has judged for `LAPSES` has lapsed. `entry` is of whoever looks.
        """
        if not self.open(use_case):
            return []

        def work(session: Session, route: RouteRow) -> list[Probation]:
            now, moved = database_now(session), list[Probation]()
            # Each move is an entry of its own. A retry after a lost answer finds nothing to move.
            each = dataclasses.replace(entry, once=None)
            for row in open_rows(session, use_case):
                if row.digest in route.held:
                    _end(session, route, row, "rolled_back", "it was rolled back", each)
                elif row.state == "regressed" and not _serves(session, route, row):
                    _end(session, route, row, "not_good", row.reason, each)
                elif row.state == "maturing" and now >= row.matures_at:
                    row.state = "due"
                    audit.append(session, _told(each, row))
                elif row.state == "due" and now >= row.matures_at + LAPSES:
                    reason = f"nobody judged it for {LAPSES.days} days"
                    _end(session, route, row, "lapsed", reason, each)
                else:
                    continue
                session.flush()
                moved.append(plain(Probation, row))
            return moved

        return decide(
            self._database,
            use_case,
            work,
            with_once(entry),
            done=lambda session, _: [],
            first=False,
        )

    def judge(
        self, probation: Probation, *, good: bool, reason: str, entry: AuditEntry
    ) -> Probation:
        """Say how the cohort of a version fared, once its outcomes are mature.

        A version that is bad and still serves has *regressed*: a rollback is asked for, and nothing
        moves. One that does not serve is *not good* from now on.

        Raises:
            Conflict: it is not due, or has been judged.
        """

        def work(session: Session, route: RouteRow) -> Probation:
            row = locked(session, ProbationRow, probation.use_case, probation.release_id)
            if row is None or row.state not in OPEN:
                state = "not on record" if row is None else row.state.replace("_", " ")
                raise Conflict(
                    f"{route.use_case}: the probation of model {probation.version} is {state}"
                )
            if row.state == "maturing":
                raise Conflict(
                    f"{route.use_case}: the outcomes of model {row.version}'s release are mature "
                    f"on {row.matures_at:%Y-%m-%d %H:%M} UTC; judge it then"
                )
            if good:
                _end(session, route, row, "passed", reason, entry)
            elif _serves(session, route, row):
                row.state, row.reason = "regressed", reason
                audit.append(session, _told(entry, row))
            else:
                _end(session, route, row, "not_good", reason, entry)
            session.flush()
            return plain(Probation, row)

        return decide(
            self._database,
            probation.use_case,
            work,
            with_once(entry),
            done=lambda session, _: plain(
                Probation,
                session.get_one(ProbationRow, (probation.use_case, probation.release_id)),
            ),
            first=False,
        )


def _serves(session: Session, route: RouteRow, row: ProbationRow) -> bool:
    """Tell whether the champion is the model: another version of the digest is the same one."""
    if route.champion is None:
        return False
    champion = session.get(ModelRow, (route.use_case, route.champion))
    return champion is not None and champion.model_digest == row.digest


def _end(
    session: Session,
    route: RouteRow,
    row: ProbationRow,
    state: ProbationState,
    reason: str,
    entry: AuditEntry,
) -> None:
    """End a probation; a model that is not good is retired, and no rollback goes to it."""
    row.state, row.reason, row.ended_at = state, reason, database_now(session)
    told = _told(entry, row)
    if state != "not_good":
        audit.append(session, told)
        return
    models = models_of(session, route.use_case)
    for model in models:
        if model.model_digest == row.digest and model.state == "released":
            set_state(session, route.use_case, model.version, "retired")
    bad = {model.version for model in models if model.model_digest == row.digest}
    if route.previous in bad:
        left = models_of(session, route.use_case)
        previous = last_good(left, route.held, route.champion)
        apply(session, route, {"previous": previous}, told)
    else:
        audit.append(session, told)


def _told(entry: AuditEntry, row: ProbationRow) -> AuditEntry:
    """Return the audit entry of a move."""
    details = {
        **entry.details,
        "release": row.release_id,
        "state": row.state,
        "reason": row.reason,
        "matures_at": row.matures_at,
    }
    return dataclasses.replace(
        entry, action=f"probation.{row.state}", subject=str(row.version), details=details
    )
