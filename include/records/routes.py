"""Change the routing row: which model serves, which served before, which may serve next.

A routing row changes by compare-and-set only, together with its audit row: releases move it step by
step (`releases`), `change` is for what belongs to none, `rollback` and `lift` for what a person
decides. The partition watermark never falls;
every change raises the generation. An entry whose `once` is on record is the very change: it does
not happen a second time.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal

from sqlalchemy import select
from sqlalchemy.orm import Session

from include.errors import Conflict, EvergreenError
from include.records.audit import AuditEntry, with_once
from include.records.database import Database
from include.records.models import State
from include.records.release_rows import UNDER_WAY, find_locked, is_named
from include.records.release_rules import (
    UNSET,
    Unset,
    admit,
    expect_judged_since_rollback,
    expect_no_newer_release,
    expect_state,
)
from include.records.route_changes import (
    Route,
    apply,
    decide,
    on_hold,
    salt_of,
    set_state,
    take_back,
)
from include.records.rows import plain
from include.records.schema import ModelRow, OpponentRow, RouteRow

CHANGEABLE = ("champion", "previous", "challenger", "step", "weight", "salt", "description")


class Routes:
    """The routing rows of all use cases."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, use_case: str) -> Route:
        """Return the routing row; generation 0 where nothing was ever released."""

        def work(session: Session) -> Route:
            row = session.get(RouteRow, use_case)
            return Route(use_case, salt=salt_of(use_case)) if row is None else plain(Route, row)

        return self._database.read(work)

    def names(self) -> list[str]:
        """Return the use cases that have a routing row."""
        rows = select(RouteRow.use_case).order_by(RouteRow.use_case)
        return self._database.read(lambda session: list(session.scalars(rows)))

    def without_description(self) -> list[str]:
        """Return the use cases whose row says nothing of them, as an earlier version wrote it."""
        rows = select(RouteRow).order_by(RouteRow.use_case)
        return self._database.read(
            lambda session: [
                row.use_case for row in session.scalars(rows) if row.description is None
            ]
        )

    def change(
        self,
        use_case: str,
        *,
        set: Mapping[str, Any],
        entry: AuditEntry,
        expect_generation: int | None = None,
        expect_champion: int | Unset | None = UNSET,
        partition: str | None = None,
        judged_generation: int | None = None,
        session: Session | None = None,
    ) -> Route:
        """Change the routing row and append the audit row, if the row is as the caller has seen it.

        `set` may hold what is CHANGEABLE. A model enters (as champion or challenger) only if it is
        recorded, its digest is not held, and it was neither trained nor judged before the last
        rollback. A refusal is audited too (as `<action>.refused`), unless it happens in a
        transaction of the caller's.

        Raises:
            Conflict: any of this does not hold; names what moved on.
            EvergreenError: something else was to be set, or a weight outside of 0 to 100.
        """
        _check_values(use_case, set)

        def work(open_session: Session, row: RouteRow, entry: AuditEntry) -> Route:
            expect_state(row, expect_generation, expect_champion)
            expect_no_newer_release(row, partition)
            expect_judged_since_rollback(row, judged_generation)
            _refuse_beside_release(open_session, row, set)
            states: dict[str, State] = {"champion": "released", "challenger": "challenger"}
            for role, state in states.items():
                version = set.get(role)
                if version is not None and version != getattr(row, role):
                    admit(open_session, row, version)
                    set_state(open_session, use_case, version, state)
            changes = {**set, "watermark": partition or row.watermark}
            return apply(open_session, row, changes, entry)

        return self._decide(use_case, work, entry, session)

    def rollback(
        self,
        use_case: str,
        *,
        entry: AuditEntry,
        expect_generation: int | None = None,
        of: Literal["champion", "challenger"] = "champion",
    ) -> Route:
        """Go back to the last good champion (or drop the challenger), and hold the bad digest.

        A challenger on its way is dropped too. The watermark stays, so an older partition cannot
        slip in; what was trained or judged before now cannot be promoted.

        Raises:
            Conflict: the generation has moved on, or there is nothing to go back to.
        """

        def work(session: Session, row: RouteRow, entry: AuditEntry) -> Route:
            expect_state(row, expect_generation, UNSET)
            return take_back(session, row, entry, of)

        return self._decide(use_case, work, entry, first=False)

    def take_back_digest(self, use_case: str, digest: str, *, entry: AuditEntry) -> Route:
        """Roll a digest back that is champion or challenger now; else only put it on hold.

        For a rollback that is recorded late: what was released meanwhile stays, but the next
        rollback does not go to the digest, and the entry is one of its own (`<action>_late`).
        """

        def work(session: Session, row: RouteRow, entry: AuditEntry) -> Route:
            serving = {
                role: session.get(ModelRow, (use_case, version))
                for role in ("champion", "challenger")
                if (version := getattr(row, role)) is not None
            }
            of = next(
                (role for role, model in serving.items() if model and model.model_digest == digest),
                None,
            )
            held = on_hold(session, row, digest)
            good = held.get("previous", row.previous)
            if of == "challenger" or (of == "champion" and good is not None):
                return take_back(session, row, entry, of)
            late = dataclasses.replace(entry, action=f"{entry.action}_late")
            return apply(session, row, held, late)

        return self._decide(use_case, work, entry, first=False)

    def lift(
        self, use_case: str, digest: str, *, entry: AuditEntry, expect_generation: int | None = None
    ) -> Route:
        """Lift the hold on a digest, as a person decided.

        Its models count as trained and judged now, so they may be promoted again.

        Raises:
            Conflict: the generation has moved on, or the digest is not held.
        """

        def work(session: Session, row: RouteRow, entry: AuditEntry) -> Route:
            expect_state(row, expect_generation, UNSET)
            if digest not in row.held:
                raise Conflict(f"{use_case}: {digest} is not held; held are {row.held or 'none'}")
            models = select(ModelRow).where(
                ModelRow.use_case == use_case, ModelRow.model_digest == digest
            )
            for model in session.scalars(models):
                model.generation = row.generation + 1
                if model.version != row.champion:  # one that was held with nobody to go back to
                    model.state = "challenger"
            judgements = select(OpponentRow).where(
                OpponentRow.use_case == use_case, OpponentRow.model_digest == digest
            )
            for opponent in session.scalars(judgements):
                opponent.generation = row.generation + 1
            held = [other for other in row.held if other != digest]
            return apply(session, row, {"held": held}, entry)

        return self._decide(use_case, work, entry, first=False)

    def _decide(
        self,
        use_case: str,
        work: Callable[[Session, RouteRow, AuditEntry], Route],
        entry: AuditEntry,
        session: Session | None = None,
        *,
        first: bool = True,
    ) -> Route:
        entry = with_once(entry)
        return decide(
            self._database,
            use_case,
            lambda open_session, row: work(open_session, row, entry),
            entry,
            done=lambda _, row: plain(Route, row),
            session=session,
            first=first,
        )


def _refuse_beside_release(session: Session, row: RouteRow, changes: Mapping[str, Any]) -> None:
    """Refuse to move models or traffic by hand while a release does so."""
    if not {"champion", "previous", "challenger", "step", "weight"} & set(changes):
        return
    under_way = find_locked(session, row.use_case, *UNDER_WAY)
    if under_way is not None and is_named(row, under_way):
        raise Conflict(
            f"{row.use_case}: release {under_way.id} of version {under_way.challenger} is under "
            "way; wait for its end, or abort it"
        )


def _check_values(use_case: str, changes: Mapping[str, Any]) -> None:
    unknown = sorted(set(changes) - set(CHANGEABLE))
    if unknown:
        raise EvergreenError(
            f"route of {use_case}: {unknown} cannot be set; what can is {list(CHANGEABLE)}"
        )
    if not 0 <= float(changes.get("weight", 0.0)) <= 100:
        raise EvergreenError(
            f"route of {use_case}: weight {changes['weight']} is no percentage; 0 to 100"
        )
