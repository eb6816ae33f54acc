"""Leases: one holder at a time for (use case, stage, key), and a token that fences off whoever held
it before.

A lease is taken from a holder that gave no sign for its `ttl`, whose process on this machine is
dead, or that is an earlier attempt of the same owner. The old holder may still be running (stopped,
swapped out): its token is no longer current, so its commit is refused. Signs are timed by the
database server's clock, or on SQLite by the machine's monotonic clock, so a wall clock that is set
changes no ownership.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import TracebackType

import psutil
from sqlalchemy import func, select, update
from sqlalchemy.engine import CursorResult
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from include.clock import utc_now
from include.errors import Busy, EvergreenError
from include.records.database import Database
from include.records.schema import LeaseRow, insert_missing, locked

log = logging.getLogger(__name__)
POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Holder:
    """Who holds a lease, and since how many seconds it has given no sign."""

    use_case: str
    stage: str
    key: str
    owner: str
    attempt: int
    host: str
    pid: int
    silent: float
    lost: str | None  # why the lease is free to be taken, or None

    def __str__(self) -> str:
        return (
            f"{self.owner} (attempt {self.attempt}, process {self.pid} on {self.host}, last "
            f"sign {self.silent:.0f} s ago)"
        )


class Lease:
    """The right to work on one thing; `with lease:` gives signs of life and releases it at the
    end.
    """

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
        self._stop = threading.Event()
        self._lost = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def app(self) -> str:
        """Name under which lake tables remember the token."""
        return f"{self.use_case}/{self.stage}/{self.key}"

    def __repr__(self) -> str:
        return f"<Lease {self.app} #{self.token} of {self.owner}>"

    def __enter__(self) -> Lease:
        self._thread = threading.Thread(target=self._beat, name=f"lease {self.app}", daemon=True)
        self._thread.start()
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
        row = self.database.read(
            lambda session: session.get(LeaseRow, (self.use_case, self.stage, self.key))
        )
        if row is None or row.token != self.token:
            self._lost.set()
            raise self.superseded(row)

    def hold(self, session: Session) -> None:
        """Lock the lease's row until the transaction ends, so that nobody takes it over
        meanwhile; raises Busy like `check`.
        """
        row = locked(session, LeaseRow, self.use_case, self.stage, self.key)
        if row is None or row.token != self.token:
            self._lost.set()
            raise self.superseded(row)

    def superseded(self, row: LeaseRow | None) -> Busy:
        """Return the error of a holder that was fenced off."""
        now = (
            "its row is gone"
            if row is None
            else f"{row.owner} (process {row.pid}) has claimed it since"
        )
        return Busy(
            f"{self.app}: the lease of {self.owner} is lost: {now}. Nothing was written; let that "
            "run finish"
        )

    def release(self) -> None:
        """Give the lease back; a fork, or a holder that was fenced off, releases nothing."""
        self._stop.set()
        if os.getpid() != self.pid:
            return
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout=5)
        try:
            self.database.write(self.give_back)
        except EvergreenError as error:
            log.warning(
                "%s was not released (%s); it is free after %.0f s", self.app, error, self.ttl
            )

    def give_back(self, session: Session) -> bool:
        """Release the lease in a transaction of the caller's; tell whether it was still ours."""
        return self._update(session, claim=None)

    def _beat(self) -> None:
        while not self._stop.wait(min(self.ttl / 4, 10.0)):
            try:
                if not self.database.write(self._sign):
                    self._lost.set()
                    log.error(
                        "%s: the lease was taken over; what this process still writes is refused",
                        self.app,
                    )
                    return
            except (EvergreenError, SQLAlchemyError) as error:
                log.warning("%s: no sign of life could be given: %s", self.app, error)

    def _sign(self, session: Session) -> bool:
        clock, beat = _now(session)
        return self._update(session, clock=clock, beat=beat, beat_at=utc_now())

    def _update(self, session: Session, **values: object) -> bool:
        mine = {
            "use_case": self.use_case,
            "stage": self.stage,
            "key": self.key,
            "token": self.token,
        }
        result = session.execute(update(LeaseRow).filter_by(**mine).values(**values))
        return isinstance(result, CursorResult) and result.rowcount == 1


def claim(
    database: Database,
    use_case: str,
    stage: str,
    key: str,
    *,
    owner: str,
    attempt: int,
    ttl: float,
    wait: float = 0.0,
) -> Lease:
    """Take a lease, waiting up to `wait` seconds for its holder.

    Raises:
        Busy: somebody else holds it; names who, where and since when.
    """
    mine, deadline = uuid.uuid4().hex, time.monotonic() + wait
    while True:
        taken = database.write(
            lambda session: _take(session, (use_case, stage, key), mine, owner, attempt, ttl)
        )
        if isinstance(taken, int):
            return Lease(database, use_case, stage, key, owner=owner, token=taken, ttl=ttl)
        if time.monotonic() >= deadline:
            raise Busy(
                f"{use_case}/{stage}/{key} is in progress: held by {taken}; let it finish or end "
                "it, then rerun"
            )
        time.sleep(min(POLL_SECONDS, max(deadline - time.monotonic(), 0.0)))


class Leases:
    """Leases that were taken together; `with` gives signs of life for all of them at once and
    releases them at the end.

    One that is taken over meanwhile is lost alone: its own `check` says so, the others go on.
    """

    def __init__(self, database: Database, claim: str, each: Sequence[Lease], ttl: float) -> None:
        self._database, self._claim, self._ttl = database, claim, ttl
        self.each = {lease.key: lease for lease in each}
        self._pid = os.getpid()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name=f"{len(each)} leases", daemon=True)

    def __enter__(self) -> Leases:
        if self.each:
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        if os.getpid() != self._pid or not self.each:
            return
        self._thread.join(timeout=5)
        try:
            self._database.write(
                lambda session: [lease.give_back(session) for lease in self.each.values()]
            )
        except EvergreenError as failed:
            log.warning(
                "%d leases were not released (%s); they are free after %.0f s",
                len(self.each),
                failed,
                self._ttl,
            )

    def _beat(self) -> None:
        while not self._stop.wait(min(self._ttl / 4, 10.0)):
            try:
                self._database.write(self._sign)
            except (EvergreenError, SQLAlchemyError) as error:
                log.warning("%d leases: no sign of life could be given: %s", len(self.each), error)

    def _sign(self, session: Session) -> None:
        clock, beat = _now(session)
        values = {"clock": clock, "beat": beat, "beat_at": utc_now()}
        # not those that others took.
        session.execute(update(LeaseRow).where(LeaseRow.claim == self._claim).values(**values))


def claim_all(
    database: Database,
    use_case: str,
    stage: str,
    keys: Sequence[str],
    *,
    owner: str,
    attempt: int,
    ttl: float,
    only_free: bool = False,
) -> Leases:
    """Take the leases of one stage for many keys in one transaction: all of them, or none; else
    those that nobody holds.

    Raises:
        Busy: somebody else holds one, and all are wanted; names who, where and since when.
    """
    mine = uuid.uuid4().hex

    def work(session: Session) -> dict[str, int]:
        tokens = {}
        for key in keys:
            taken = _take(session, (use_case, stage, key), mine, owner, attempt, ttl)
            if isinstance(taken, int):
                tokens[key] = taken
            elif not only_free:
                raise Busy(
                    f"{use_case}/{stage}/{key} is in progress: held by {taken}; let it finish or "
                    "end it, then rerun"
                )
        return tokens

    each = [
        Lease(database, use_case, stage, key, owner=owner, token=token, ttl=ttl)
        for key, token in database.write(work).items()
    ]
    return Leases(database, mine, each, ttl)


def holders(session: Session, use_case: str) -> list[Holder]:
    """Return who holds the leases of a use case now, lost ones too."""
    statement = select(LeaseRow).where(LeaseRow.use_case == use_case, LeaseRow.claim.is_not(None))
    return [
        _holder(session, row)
        for row in session.scalars(statement.order_by(LeaseRow.key, LeaseRow.stage))
    ]


def _take(
    session: Session, thing: tuple[str, str, str], mine: str, owner: str, attempt: int, ttl: float
) -> int | Holder:
    use_case, stage, key = thing
    insert_missing(
        session,
        LeaseRow,
        use_case=use_case,
        stage=stage,
        key=key,
        token=0,
        claim=None,
        owner="",
        attempt=0,
        host="",
        pid=0,
        started="",
        ttl=0.0,
        clock="",
        beat=0.0,
        beat_at=None,
    )
    row = locked(session, LeaseRow, use_case, stage, key)
    assert row is not None
    if row.claim == mine:  # our own claim, whose answer was lost on the way
        return row.token
    if row.claim is not None:
        holder = _holder(session, row)
        why = holder.lost
        if why is None and (row.owner, row.attempt < attempt) == (owner, True):
            why = f"attempt {attempt} replaces attempt {row.attempt}"
        if why is None:
            return holder
        log.warning("%s is taken from %s: %s", "/".join(thing), holder, why)
    row.token += 1
    row.claim, row.owner, row.attempt, row.ttl = mine, owner, attempt, ttl
    row.host, row.pid = _host(), os.getpid()
    row.started = _started(row.pid) or ""
    (row.clock, row.beat), row.beat_at = _now(session), utc_now()
    return row.token


def _holder(session: Session, row: LeaseRow) -> Holder:
    clock, now = _now(session)
    silent = (
        now - row.beat
        if clock == row.clock
        else (utc_now() - (row.beat_at or utc_now())).total_seconds()
    )
    lost = None
    if row.host == _host() and _dead(row.pid, row.started):
        lost = f"process {row.pid} is gone"
    elif silent > row.ttl:
        lost = f"no sign for {silent:.1f} s"
    return Holder(
        row.use_case,
        row.stage,
        row.key,
        row.owner,
        row.attempt,
        row.host.split()[0],
        row.pid,
        max(silent, 0.0),
        lost,
    )


def _now(session: Session) -> tuple[str, float]:
    """Return a clock's name and its seconds: one that all who share this database read alike and
    that is never set back.
    """
    if session.get_bind().dialect.name == "postgresql":
        return "server", float(
            session.scalar(select(func.extract("epoch", func.clock_timestamp()))) or 0.0
        )
    return _boot(), time.monotonic()


@cache
def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return f"{socket.gethostname()} {psutil.boot_time():.0f}"


def _host() -> str:
    """Return a name within which process ids mean the same: machine, boot and process namespace."""
    try:
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        namespace = ""
    return f"{socket.gethostname()} {_boot()} {namespace}".strip()


def _started(pid: int) -> str | None:
    """Return when a process began (in ticks since the boot where the system tells); None:
    unknown, "": it is no more.
    """
    stat = Path(f"/proc/{pid}/stat")
    try:
        if Path("/proc/self/stat").exists():
            fields = stat.read_text().rpartition(")")[2].split()
            return "" if fields[0] in "ZX" else fields[19]
        process = psutil.Process(pid)
        return "" if process.status() == psutil.STATUS_ZOMBIE else f"{process.create_time():.1f}"
    except psutil.NoSuchProcess:
        return ""
    except (OSError, psutil.Error):
        return None


def _dead(pid: int, started: str) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    now = _started(pid)
    return now == "" or (now is not None and started not in ("", now))


class LeaseRegister:
    """Who holds what, in one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def claim(
        self,
        use_case: str,
        stage: str,
        key: str,
        *,
        owner: str,
        attempt: int,
        ttl: float,
        wait: float = 0.0,
    ) -> Lease:
        """Take the lease of a thing, waiting up to `wait` seconds; raises Busy and names the
        holder.
        """
        return claim(
            self._database, use_case, stage, key, owner=owner, attempt=attempt, ttl=ttl, wait=wait
        )

    def claim_all(
        self,
        use_case: str,
        stage: str,
        keys: Sequence[str],
        *,
        owner: str,
        attempt: int,
        ttl: float,
        only_free: bool = False,
    ) -> Leases:
        """Take the leases of many keys in one transaction: all (else Busy, which names a
        holder), or those that are free.
        """
        return claim_all(
            self._database,
            use_case,
            stage,
            keys,
            owner=owner,
            attempt=attempt,
            ttl=ttl,
            only_free=only_free,
        )

    def holders(self, use_case: str) -> list[Holder]:
        """Return who is at work on a use case."""
        return self._database.read(lambda session: holders(session, use_case))
