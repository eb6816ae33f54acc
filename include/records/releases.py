"""Move a release from its request to its end.

Each move is one transaction: the row of the release, the routing row and one audit row. It is a
compare-and-set on the revision of the release as the caller has seen it, names what moved on where
it lost, and happens once for an entry whose `once` is on record. Whoever refuses is on record too,
as `<action>.refused`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from include.errors import Conflict
from include.records import audit
from include.records.audit import AuditEntry, with_once
from include.records.models import Model
from include.records.release_moves import (
    WITHOUT,
    abort_release,
    end_left,
    expect_no_guard,
    expect_not_paused,
    expect_release,
    leave,
    promote_challenger,
    told,
)
from include.records.release_reports import ReleaseReports
from include.records.release_rows import (
    LIVING,
    UNDER_WAY,
    Release,
    add_verdict,
    begin_step,
    end,
    find,
    is_named,
    is_noted,
)
from include.records.release_starts import Start, queue_release, recorded_release, start_release
from include.records.route_changes import apply, decide, on_hold, take_back
from include.records.rows import database_now, locked, plain
from include.records.schema import ReleaseRow, RouteRow

_Move = Callable[[Session, RouteRow, ReleaseRow, AuditEntry], None]


class Releases(ReleaseReports):
    """The releases of all use cases, with what is reported of them."""

    def get(self, use_case: str, id: str) -> Release | None:
        """Return a release by its id."""
        row = self._database.read(lambda session: session.get(ReleaseRow, (use_case, id)))
        return None if row is None else plain(Release, row)

    def running(self, use_case: str) -> Release | None:
        """Return the release under way: tried, or in its steps."""
        return self._find(use_case, *UNDER_WAY)

    def watched(self, use_case: str) -> Release | None:
        """Return the release whose model is champion and watched."""
        return self._find(use_case, "watched")

    def waiting(self, use_case: str) -> Release | None:
        """Return the candidate that waits for the release under way to end."""
        return self._find(use_case, "waiting")

    def of(self, use_case: str, limit: int = 20) -> list[Release]:
        """Return the newest releases of a use case, the newest first."""
        rows = select(ReleaseRow).where(ReleaseRow.use_case == use_case)
        order = rows.order_by(ReleaseRow.started_at.desc(), ReleaseRow.id).limit(limit)
        return self._database.read(
            lambda session: [plain(Release, row) for row in session.scalars(order)]
        )

    def latest(self, use_case: str) -> list[Release]:
        """Return the releases that have not ended, then the newest ones.

        The former by themselves: those that were superseded meanwhile may be many.
        """
        found = (self.running(use_case), self.waiting(use_case), self.watched(use_case))
        return [release for release in found if release is not None] + self.of(use_case)

    def request(
        self,
        use_case: str,
        *,
        partition: str,
        model: Model,
        opponent: int | None,
        judged_generation: int,
        plan: Mapping[str, Any],
        description: Mapping[str, Any] | None,
        entry: AuditEntry,
    ) -> Release:
        """Let the nodes try a model that passed its gates; it gets no request yet.

        A waiting release of the model goes on as this one, a waiting one of an older partition is
        superseded. The description is written where the routing row has none. Of the model that is
        under way already its release is returned.

        Raises:
            Conflict: a freeze, another release under way, another champion, or what `routes.change`
                refuses of a model.
        """
        start = Start(partition, model, opponent, judged_generation, plan, description)
        return self._start(use_case, entry, start, start_release)

    def wait(
        self,
        use_case: str,
        *,
        partition: str,
        model: Model,
        opponent: int | None,
        judged_generation: int,
        plan: Mapping[str, Any],
        description: Mapping[str, Any] | None,
        entry: AuditEntry,
    ) -> Release:
        """Queue a model that passed its gates behind the release under way; the newest alone waits.

        It takes what `request` takes; the champion may be another one by the time that it starts.
        Of the model that is under way already, or waits, its release is returned.

        Raises:
            Conflict: a newer candidate waits, there is nothing to wait for any more, or what
                `routes.change` refuses of a model.
        """
        start = Start(partition, model, opponent, judged_generation, plan, description)
        return self._start(use_case, entry, start, queue_release)

    def begin(self, release: Release, entry: AuditEntry) -> Release:
        """Give a tried release the traffic of its first step.

        Raises:
            Conflict: also where it is paused.
            EvergreenError: its plan has no steps.
        """

        def work(session: Session, row: RouteRow, found: ReleaseRow, entry: AuditEntry) -> None:
            expect_not_paused(found)
            if row.champion is None:
                raise Conflict(
                    f"{row.use_case}: nobody serves, so there is nobody to share traffic with; "
                    "promote the release"
                )
            found.state = "running"
            traffic = begin_step(session, found, 0)
            apply(session, row, traffic, told(entry, found))

        return self._move(release, entry, work, "trying")

    def advance(self, release: Release, verdict: Mapping[str, Any], entry: AuditEntry) -> Release:
        """Go on to the next step.

        Raises:
            EvergreenError: its plan has no further step.
        """

        def work(session: Session, row: RouteRow, found: ReleaseRow, entry: AuditEntry) -> None:
            if found.suspended:
                raise Conflict(f"{row.use_case}: release {found.id} is suspended; resume it first")
            expect_no_guard(session, found)
            add_verdict(session, found, verdict)
            traffic = begin_step(session, found, found.step + 1)
            apply(session, row, traffic, told(entry, found, verdict=dict(verdict)))

        return self._move(release, entry, work, "running")

    def note(self, release: Release, verdict: Mapping[str, Any], entry: AuditEntry) -> Release:
        """Keep the last verdict of a step; on record in the audit log where its word is another.

        A release under way that the routing row is not about any more ends by it: a node of the
        version before has taken its model back.
        """

        def work(session: Session, row: RouteRow, found: ReleaseRow, entry: AuditEntry) -> None:
            if found.state in UNDER_WAY and not is_named(row, found):
                end_left(session, row, found, entry)
            elif add_verdict(session, found, verdict):
                audit.append(session, told(entry, found, verdict=dict(verdict)))

        def repeated(found: ReleaseRow) -> bool:
            return found.revision == release.revision + 1 and is_noted(found, verdict)

        return self._move(release, entry, work, *LIVING, named=False, repeated=repeated)

    def pause(self, release: Release, entry: AuditEntry) -> Release:
        """Let a release stay where it is; its traffic stays too.

        One that is only tried is not begun, and not promoted, until it is let go on.
        """
        return self._pause(release, entry, paused=True)

    def unpause(self, release: Release, entry: AuditEntry) -> Release:
        """Let a release go on."""
        return self._pause(release, entry, paused=False)

    def suspend(self, release: Release, entry: AuditEntry) -> Release:
        """Give all traffic of a release to the champion for now."""

        def work(session: Session, row: RouteRow, found: ReleaseRow, entry: AuditEntry) -> None:
            if found.suspended:
                raise Conflict(f"{row.use_case}: release {found.id} is suspended already")
            found.suspended = True
            session.flush()
            apply(session, row, {"share": 0, "weight": 0.0, "mode": None}, told(entry, found))

        return self._move(release, entry, work, "running")

    def resume(
        self, release: Release, gap_seconds: float, entry: AuditEntry, *, unpause: bool = False
    ) -> Release:
        """Go on with the step of a suspended release, whose bake begins anew.

        A pause stays unless `unpause` lets it go as well.
        """

        def work(session: Session, row: RouteRow, found: ReleaseRow, entry: AuditEntry) -> None:
            if not found.suspended:
                raise Conflict(f"{row.use_case}: release {found.id} is not suspended")
            found.gap_seconds += gap_seconds
            if unpause:
                found.paused = False
            traffic = begin_step(session, found, found.step)
            apply(session, row, traffic, told(entry, found, gap_seconds=gap_seconds))

        return self._move(release, entry, work, "running")

    def promote(
        self, release: Release, entry: AuditEntry, description: Mapping[str, Any] | None
    ) -> Release:
        """Make the challenger champion; it is watched from now on, if the plan says for how long.

        A release that was watched until now is settled by that. One that is paused in its steps
        may be promoted: a person does so.

        Raises:
            Conflict: also where it is paused before them.
        """

        def work(session: Session, row: RouteRow, found: ReleaseRow, entry: AuditEntry) -> None:
            if found.state == "trying":
                expect_not_paused(found)
            promote_challenger(session, row, found, description, entry)

        return self._move(release, entry, work, *UNDER_WAY)

    def settle(self, release: Release, entry: AuditEntry) -> Release:
        """End the watch of a champion that has stood it."""

        def work(session: Session, row: RouteRow, found: ReleaseRow, entry: AuditEntry) -> None:
            if not is_named(row, found) and found.challenger_digest in row.held:
                end(session, found, "rolled_back", WITHOUT)
            else:
                end(session, found, "promoted", found.reason)
            leave(session, row, found, {}, told(entry, found))

        return self._move(release, entry, work, "watched", named=False)

    def abort(
        self, release: Release, reason: str, entry: AuditEntry, *, retire: bool = False
    ) -> Release:
        """End a release with the champion answering; its model, not on hold, may be `retire`d."""

        def work(session: Session, row: RouteRow, found: ReleaseRow, entry: AuditEntry) -> None:
            abort_release(session, row, found, reason, entry, retire=retire)

        return self._move(release, entry, work, "waiting", *UNDER_WAY, named=False)

    def roll_back(
        self, release: Release, reason: str, entry: AuditEntry, *, by_itself: bool = False
    ) -> Release:
        """End a release whose model is bad: its digest is held, and the last good model serves.

        `by_itself`: a machine decided so.

        Raises:
            Conflict: also where the champion is watched and there is nobody to go back to.
        """

        def work(session: Session, row: RouteRow, found: ReleaseRow, entry: AuditEntry) -> None:
            of = "champion" if found.state == "watched" else "challenger"
            entry = told(entry, found, reason=reason)
            if is_named(row, found):
                take_back(session, row, entry, of, reason=reason, by_itself=by_itself)
            else:
                end(session, found, "rolled_back", reason, by_itself=by_itself)
                leave(session, row, found, on_hold(session, row, found.challenger_digest), entry)

        return self._move(release, entry, work, *LIVING, named=False)

    def _pause(self, release: Release, entry: AuditEntry, *, paused: bool) -> Release:
        def work(session: Session, row: RouteRow, found: ReleaseRow, entry: AuditEntry) -> None:
            if found.paused == paused:
                state = "paused already" if paused else "not paused"
                raise Conflict(f"{row.use_case}: release {found.id} is {state}")
            found.paused = paused
            if found.state == "trying" and not paused:
                found.entered_at = database_now(session)  # whoever tries it has all its time again
            session.flush()
            audit.append(session, told(entry, found))

        return self._move(release, entry, work, *UNDER_WAY)

    def _find(self, use_case: str, *states: str) -> Release | None:
        row = self._database.read(lambda session: find(session, use_case, *states))
        return None if row is None else plain(Release, row)

    def _start(
        self,
        use_case: str,
        entry: AuditEntry,
        start: Start,
        work: Callable[[Session, RouteRow, Start, AuditEntry], ReleaseRow],
    ) -> Release:
        entry = with_once(entry)
        return decide(
            self._database,
            use_case,
            lambda session, row: plain(Release, work(session, row, start, entry)),
            entry,
            done=lambda session, _: plain(Release, recorded_release(session, entry)),
        )

    def _move(
        self,
        release: Release,
        entry: AuditEntry,
        work: _Move,
        *states: str,
        named: bool = True,
        repeated: Callable[[ReleaseRow], bool] = lambda _: False,
    ) -> Release:
        """Move a release that is in one of the states and as the caller has seen it.

        `named`: the routing row must still be about it. `repeated` tells that this very move was
        made, where the audit log does not.
        """
        details = {**entry.details, "release": release.id}
        entry = with_once(dataclasses.replace(entry, details=details))

        def attempt(session: Session, row: RouteRow) -> Release:
            found = locked(session, ReleaseRow, release.use_case, release.id)
            if found is not None and repeated(found):
                return plain(Release, found)
            expect_release(row, found, release, states, named=named)
            assert found is not None
            work(session, row, found, entry)
            if found.revision == release.revision:
                found.revision += 1
            session.flush()
            return plain(Release, found)

        return decide(
            self._database,
            release.use_case,
            attempt,
            entry,
            done=lambda session, _: plain(
                Release, session.get_one(ReleaseRow, (release.use_case, release.id))
            ),
            first=False,
        )
