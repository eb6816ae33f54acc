"""Hold a lease: the right of one process to work on a (use case, stage, key).

A holder gives signs of life while it works. Its token rises with every claim, so a holder that was
replaced while it was stopped or swapped out cannot commit: its token is no longer current. How a
lease is taken stands in `lease_register`.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Sequence
from types import TracebackType

from sqlalchemy import select, update
from sqlalchemy.engine import CursorResult
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from include.clock import utc_now
from include.errors import Busy, EvergreenError
from include.records.database import Database
from include.records.liveness import shared_clock
from include.records.rows import locked
from include.records.schema import LeaseRow

log = logging.getLogger(__name__)

LONGEST_SILENCE = 10.0  # seconds between two signs of life, however long the lease lasts


class Lease:
    """The right to work on one thing: `with lease:` gives signs of life, and releases it."""

    def __init__(
        self,
        database: Database,
        use_case: str,
        stage: str,
        key: str,
        *,
        owner: str,
        token: int,
        ttl: float,
    ) -> None:
        self.use_case, self.stage, self.key, self.owner = use_case, stage, key, owner
        self.token, self.ttl = token, ttl
        self.database = database
        self.pid = os.getpid()
        self._lost = threading.Event()
        self._heartbeat = _Heartbeat(self.app, ttl, self._give_sign)

    @property
    def app(self) -> str:
        """Name under which lake tables remember the token."""
        return f"{self.use_case}/{self.stage}/{self.key}"

    def __repr__(self) -> str:
        return f"<Lease {self.app} #{self.token} of {self.owner}>"

    def __enter__(self) -> Lease:
        self._heartbeat.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()

    def check(self) -> None:
        """Return if the lease is still ours.

        Raises:
            Busy: a newer claim has fenced this one off; names the new holder.
        """
        self.demand(
            self.database.read(
                lambda session: session.get(LeaseRow, (self.use_case, self.stage, self.key))
            )
        )

    def hold(self, session: Session) -> None:
        """Lock the lease's row until the transaction ends, so that nobody takes it over meanwhile.

        Raises:
            Busy: a newer claim has fenced this one off; names the new holder.
        """
        self.demand(locked(session, LeaseRow, self.use_case, self.stage, self.key))

    def release(self) -> None:
        """Give the lease back; a fork, or a holder that was fenced off, releases nothing."""
        self._heartbeat.stop()
        if os.getpid() != self.pid:
            return
        try:
            self.database.write(self.give_back)
        except EvergreenError as error:
            log.warning(
                "%s was not released (%s); it is free after %.0f s", self.app, error, self.ttl
            )

    def give_back(self, session: Session) -> bool:
        """Release the lease in a transaction of the caller's; tell whether it was still ours."""
        return self._update_row(session, claim=None)

    def demand(self, row: LeaseRow | None) -> None:
        """Return if the lease's row is still ours.

        Raises:
            Busy: it is not; names the new holder.
        """
        if row is not None and row.token == self.token:
            return
        self._lost.set()
        successor = (
            "its row is gone"
            if row is None
            else f"{row.owner} (process {row.pid}) has claimed it since"
        )
        raise Busy(
            f"{self.app}: the lease of {self.owner} is lost: {successor}. Nothing was written; let "
            "that run finish"
        )

    def _give_sign(self) -> bool:
        if self.database.write(self._sign):
            return True
        self._lost.set()
        log.error(
            "%s: the lease was taken over; what this process still writes is refused", self.app
        )
        return False

    def _sign(self, session: Session) -> bool:
        clock, beat = shared_clock(session)
        return self._update_row(session, clock=clock, beat=beat, beat_at=utc_now())

    def _update_row(self, session: Session, **values: object) -> bool:
        """Change the lease's row if its token is still ours, and tell whether it was."""
        statement = update(LeaseRow).filter_by(
            use_case=self.use_case, stage=self.stage, key=self.key, token=self.token
        )
        result = session.execute(statement.values(**values))
        return isinstance(result, CursorResult) and result.rowcount == 1


class Leases:
    """Leases taken together: `with` gives signs of life for all at once, and releases them.

    One that is taken over meanwhile is lost alone: its own `check` says so, the others go on.
    """

    def __init__(self, database: Database, claim: str, each: Sequence[Lease], ttl: float) -> None:
        self._database, self._claim, self._ttl = database, claim, ttl
        self.each = {lease.key: lease for lease in each}
        self._pid = os.getpid()
        self._heartbeat = _Heartbeat(f"{len(each)} leases", ttl, self._give_sign)

    def __enter__(self) -> Leases:
        if self.each:
            self._heartbeat.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._heartbeat.stop()
        if os.getpid() != self._pid or not self.each:
            return
        try:
            self._database.write(self._give_back)
        except EvergreenError as failure:
            log.warning(
                "%d leases were not released (%s); they are free after %.0f s",
                len(self.each),
                failure,
                self._ttl,
            )

    def find_lost(self) -> dict[str, Busy]:
        """Return, by app, why those leases are lost that a newer claim has fenced off.

        All are looked at in one question.
        """
        return self._database.read(self._lost_in)

    def hold(self, session: Session, keys: Sequence[str]) -> dict[str, Busy]:
        """Lock the rows of some leases until the transaction ends; return, by app, the lost ones.

        Nobody takes over one of the others meanwhile.
        """
        return self._lost_in(session, keys, lock=True)

    def _lost_in(
        self, session: Session, keys: Sequence[str] | None = None, *, lock: bool = False
    ) -> dict[str, Busy]:
        wanted = [self.each[key] for key in (self.each if keys is None else sorted(keys))]
        if not wanted:
            return {}
        first = wanted[0]
        statement = select(LeaseRow).where(
            LeaseRow.use_case == first.use_case,
            LeaseRow.stage == first.stage,
            LeaseRow.key >= min(lease.key for lease in wanted),
            LeaseRow.key <= max(lease.key for lease in wanted),
        )
        if lock:
            # In the order of the keys, as everybody does: no two ranges then wait for each other.
            statement = statement.where(LeaseRow.claim == self._claim).order_by(LeaseRow.key)
            statement = statement.with_for_update().execution_options(populate_existing=True)
        rows = {row.key: row for row in session.scalars(statement)}
        lost: dict[str, Busy] = {}
        for lease in wanted:
            row = rows.get(lease.key)
            if row is not None and row.token == lease.token:
                continue
            if lock:  # it has another claim now
                row = session.get(LeaseRow, (lease.use_case, lease.stage, lease.key))
            try:
                lease.demand(row)
            except Busy as error:
                lost[lease.app] = error
        return lost

    def _give_sign(self) -> bool:
        self._database.write(self._sign)
        return True  # for those that are left

    def _give_back(self, session: Session) -> None:
        statement = update(LeaseRow).where(LeaseRow.claim == self._claim)
        session.execute(statement.values(claim=None))

    def _sign(self, session: Session) -> None:
        clock, beat = shared_clock(session)
        # By the claim: the rows that others took since have another one.
        statement = update(LeaseRow).where(LeaseRow.claim == self._claim)
        session.execute(statement.values(clock=clock, beat=beat, beat_at=utc_now()))


class _Heartbeat:
    """A thread that gives a sign of life four times a lease, until it is stopped or told to end."""

    def __init__(self, name: str, ttl: float, give_sign: Callable[[], bool]) -> None:
        self._name, self._give_sign = name, give_sign
        self._pause = min(ttl / 4, LONGEST_SILENCE)
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start giving signs."""
        self._thread = threading.Thread(target=self._run, name=f"lease {self._name}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Give no more signs, and wait for one that is being given."""
        self._stopped.set()
        # In a fork the thread does not run, so the wait is over at once.
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout=5)

    def _run(self) -> None:
        while not self._stopped.wait(self._pause):
            try:
                if not self._give_sign():
                    return
            except (EvergreenError, SQLAlchemyError) as error:
                log.warning("%s: no sign of life could be given: %s", self._name, error)
