"""Claim leases, and list who holds them.

A lease is taken from a holder that gave no sign for its `ttl`, whose process on this machine is
dead, or that is an earlier attempt of the same owner. The old holder may still be running (stopped,
swapped out): its token is no longer current, so its commit is refused. Signs are timed by
`liveness.shared_clock`, so a wall clock that is set changes no ownership.
"""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session
from tenacity import RetryCallState, Retrying, retry_if_result, stop_after_delay

from include.clock import utc_now
from include.errors import Busy
from include.records.database import Database
from include.records.leases import Lease, Leases
from include.records.liveness import (
    is_gone,
    process_space,
    process_start,
    shared_clock,
    silence,
)
from include.records.rows import insert_all_missing, insert_missing, locked
from include.records.schema import LeaseRow

log = logging.getLogger(__name__)
POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Holder:
    """Who holds a lease, and for how many seconds it has been `silent`."""

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


@dataclass(frozen=True)
class _Claim:
    """Who asks for leases, and for how long; `id` marks the rows that it got."""

    id: str
    owner: str
    attempt: int
    ttl: float


class LeaseRegister:
    """The leases of one database: who holds what."""

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
        """Take a lease, waiting up to `wait` seconds for its holder.

        Raises:
            Busy: somebody else holds it; names who, where and since when.
        """
        claim = _Claim(uuid.uuid4().hex, owner, attempt, ttl)

        def pause(state: RetryCallState) -> float:
            # The last pause ends with the wait, so that a release within it is not missed.
            return min(POLL_SECONDS, max(wait - (state.seconds_since_start or 0.0), 0.0))

        taken = Retrying(
            retry=retry_if_result(lambda answer: isinstance(answer, Holder)),
            stop=stop_after_delay(wait),
            wait=pause,
            retry_error_callback=_last_answer,  # the holder, who is named
        )(self._database.write, lambda session: _take(session, use_case, stage, key, claim))
        if isinstance(taken, Holder):
            raise _busy(taken)
        return Lease(self._database, use_case, stage, key, owner=owner, token=taken, ttl=ttl)

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
        """Take the leases of one stage for many keys in one transaction.

        It takes all of them or none; with `only_free`, those that nobody holds.

        Raises:
            Busy: somebody else holds one, and all are wanted; names who, where and since when.
        """
        claim = _Claim(uuid.uuid4().hex, owner, attempt, ttl)

        def work(session: Session) -> dict[str, int]:
            tokens: dict[str, int] = {}
            if not keys:
                return tokens
            # In the order of the keys, as everybody does: two ranges then never wait for each
            # other.
            ordered = sorted(set(keys))
            insert_all_missing(session, LeaseRow, [_free(use_case, stage, key) for key in ordered])
            statement = (
                select(LeaseRow)
                .where(
                    LeaseRow.use_case == use_case,
                    LeaseRow.stage == stage,
                    LeaseRow.key >= ordered[0],
                    LeaseRow.key <= ordered[-1],
                )
                .order_by(LeaseRow.key)
                .with_for_update()
            )
            rows = {row.key: row for row in session.scalars(statement)}
            for key in ordered:
                taken = _take_row(session, rows[key], claim)
                if isinstance(taken, int):
                    tokens[key] = taken
                elif not only_free:
                    raise _busy(taken)
            return tokens

        each = [
            Lease(self._database, use_case, stage, key, owner=owner, token=token, ttl=ttl)
            for key, token in self._database.write(work).items()
        ]
        return Leases(self._database, claim.id, each, ttl)

    def holders(self, use_case: str) -> list[Holder]:
        """Return who holds the leases of a use case now, lost ones too."""
        statement = (
            select(LeaseRow)
            .where(LeaseRow.use_case == use_case, LeaseRow.claim.is_not(None))
            .order_by(LeaseRow.key, LeaseRow.stage)
        )
        return self._database.read(
            lambda session: [_holder(session, row) for row in session.scalars(statement)]
        )


def _last_answer(state: RetryCallState) -> Any:
    assert state.outcome is not None
    return state.outcome.result()


def _busy(holder: Holder) -> Busy:
    return Busy(
        f"{holder.use_case}/{holder.stage}/{holder.key} is in progress: held by {holder}; let it "
        "finish or end it, then rerun"
    )


def _take(session: Session, use_case: str, stage: str, key: str, claim: _Claim) -> int | Holder:
    """Give a lease to a claim and return its token, or return who holds it."""
    insert_missing(session, LeaseRow, **_free(use_case, stage, key))
    row = locked(session, LeaseRow, use_case, stage, key)
    assert row is not None
    return _take_row(session, row, claim)


def _free(use_case: str, stage: str, key: str) -> dict[str, Any]:
    """Return the row of a lease that nobody ever held."""
    return {
        "use_case": use_case,
        "stage": stage,
        "key": key,
        "token": 0,
        "claim": None,
        "owner": "",
        "attempt": 0,
        "host": "",
        "pid": 0,
        "started": "",
        "ttl": 0.0,
        "clock": "",
        "beat": 0.0,
        "beat_at": None,
    }


def _take_row(session: Session, row: LeaseRow, claim: _Claim) -> int | Holder:
    """Give a lease, whose row is locked, to a claim; as `_take`."""
    if row.claim == claim.id:  # our own claim, whose answer was lost on the way
        return row.token
    if row.claim is not None:
        holder = _holder(session, row)
        reason = holder.lost
        if reason is None and row.owner == claim.owner and row.attempt < claim.attempt:
            reason = f"attempt {claim.attempt} replaces attempt {row.attempt}"
        if reason is None:
            return holder
        log.warning(
            "%s/%s/%s is taken from %s: %s", row.use_case, row.stage, row.key, holder, reason
        )
    row.token += 1
    row.claim, row.owner, row.attempt, row.ttl = claim.id, claim.owner, claim.attempt, claim.ttl
    row.host, row.pid = process_space(), os.getpid()
    row.started = process_start(row.pid) or ""
    (row.clock, row.beat), row.beat_at = shared_clock(session), utc_now()
    return row.token


def _holder(session: Session, row: LeaseRow) -> Holder:
    silent = silence(session, row.clock, row.beat)
    if silent is None:
        # After a reboot the clock of the last sign is gone; the wall clock is all there is then.
        silent = (utc_now() - (row.beat_at or utc_now())).total_seconds()
    lost = None
    if row.host == process_space() and is_gone(row.pid, row.started):
        lost = f"process {row.pid} is gone"
    elif silent > row.ttl:
        lost = f"no sign for {silent:.1f} s"
    return Holder(
        use_case=row.use_case,
        stage=row.stage,
        key=row.key,
        owner=row.owner,
        attempt=row.attempt,
        host=row.host.split()[0],
        pid=row.pid,
        silent=max(silent, 0.0),
        lost=lost,
    )
